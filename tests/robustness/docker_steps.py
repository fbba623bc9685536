"""Runs the steps of a Dockerfile without Docker, starts its command, and captions over HTTP.

    sudo python tests/robustness/docker_steps.py Dockerfile --python python3.12
    sudo python tests/robustness/docker_steps.py Dockerfile --arg PAGE=yes
    sudo python tests/robustness/docker_steps.py Dockerfile.train --command list

Each stage has a folder of its own, laid over the file system of this machine, in which RUN steps
run as root; the Python of this machine stands for that of the base image. The command runs with the
stage's user and environment, without permission to write outside of /tmp. A command that serves
must pass its health check, caption a sample photo and end at SIGTERM; any other must end by itself.
Prints what the stage's own files take. Needs Linux, root and free ports; exits with 1 on a failure.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import checkout

from helpers.dockerfile import Copy, DockerIgnore, Stage, parse_copy, parse_dockerfile

FOLDER = "EFFCAP_DOCKER_STEPS"  # set for the inner process: where the stages' files are
INHERITED = (
    "LANG", "PIP_CERT", "PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_INDEX_URL", "SSL_CERT_FILE",
    "http_proxy", "https_proxy",
)  # fmt: skip
PYTHON = "/usr/local/effcap-python"  # where a stage finds the Python of this machine
PATH = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_ENV = {"PATH": PATH, "HOME": "/root", "LD_LIBRARY_PATH": f"{PYTHON}/lib"}
PHOTO = checkout.ROOT / "res" / "photos"
START_SECONDS, STOP_SECONDS = 120, 30


class Image:
    """The files of a stage, over those of this machine, and its environment.

    Args:
        folder: empty folder for the files.
        python: folder of the Python of this machine, as `sys.prefix`. None for an image from
            scratch, which holds what is copied into it and nothing else.
        base: image of the stage that this one continues, if it does.
    """

    def __init__(self, folder: Path, python: str | None, base: Image | None) -> None:
        self.own, self.root = folder / "own", folder / "root"
        self.env = dict(base.env) if base else dict(BASE_ENV)
        self.user, self.workdir = "0:0", "/"
        work = folder / "work"
        for path in (self.own, self.root, work):
            path.mkdir(parents=True)
        self.layers: list[Path] = [] if base is None else [base.own, *base.layers]
        if python is None:  # nothing runs in it
            self.root = self.own
            return
        lower = ":".join(map(str, [*self.layers, Path("/")]))
        options = f"lowerdir={lower},upperdir={self.own},workdir={work}"
        mount("-t", "overlay", "overlay", "-o", options, self.root)
        for name in ("proc", "dev", "sys"):
            mount("--rbind", f"/{name}", self.root / name)
        self.path(PYTHON).mkdir(parents=True, exist_ok=True)
        mount("--bind", python, self.path(PYTHON))

    def path(self, inside: str) -> Path:
        """Returns the path on this machine of a path inside of the image."""
        return self.root / os.path.join(self.workdir, inside).lstrip("/")

    def run(self, words: Sequence[str], user: str = "0:0", **variables: str) -> subprocess.Popen:
        """Starts a command inside of the image."""
        outside = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = ["chroot", f"--userspec={user}", str(self.root), "/bin/sh", "-c"]
        command += [f"cd {shlex.quote(self.workdir)} && exec {shlex.join(words)}"]
        return subprocess.Popen(command, env={**outside, **self.env, **variables})

    def make_read_only(self) -> None:
        """Leaves /tmp alone writable, as `docker run --read-only --tmpfs /tmp` does."""
        mount("-t", "tmpfs", "tmpfs", self.root / "tmp")
        mount("-o", "remount,ro", self.root)


def main() -> int:
    """Builds the last stage, runs its command, and returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dockerfile", type=Path, help="Dockerfile at the root of the repository")
    parser.add_argument("--python", default=sys.executable, help="Python of the base image")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--command", help="words in place of those of CMD")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        parser.error("needs Linux and root, to lay the files of a stage over those of the machine")
    if FOLDER not in os.environ:
        # Mounts are those of the inner process alone: this one removes nothing but files.
        with tempfile.TemporaryDirectory() as folder:
            command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
            return subprocess.run(command, env={**os.environ, FOLDER: folder}).returncode
    code = "import sys; print(sys.base_prefix)"
    result = subprocess.run(
        [arguments.python, "-c", code], capture_output=True, text=True, check=True
    )
    stages = parse_dockerfile(arguments.dockerfile.read_text(encoding="utf-8"))
    args = dict(word.split("=", 1) for word in arguments.arg)
    images: dict[str, Image] = {}
    for number, stage in enumerate(stages):
        name = stage.name or str(number)
        folder = Path(os.environ[FOLDER]) / str(number)
        python = None if stage.base == "scratch" else result.stdout.strip()
        images[name] = Image(folder, python, images.get(stage.base))
        build(stage, images[name], images, args)
    print_sizes(images[name])
    return start(stages[-1], images[name], arguments.command)


def mount(*words: str | Path) -> None:
    """Runs `mount`."""
    subprocess.run(["mount", *map(str, words)], check=True)


def build(stage: Stage, image: Image, images: Mapping[str, Image], args: Mapping[str, str]) -> None:
    """Carries out the instructions of a stage.

    Raises:
        SystemExit: a step fails.
    """
    variables: dict[str, str] = {}
    for instruction in stage.instructions:
        step = f"{instruction.name} {instruction.text}"
        started = time.perf_counter()
        if instruction.name == "ARG":
            name, _, default = instruction.text.partition("=")
            variables[name] = args.get(name, default)
        elif instruction.name == "ENV":
            for word in instruction.words():
                name, _, value = word.partition("=")
                image.env[name] = Template(value).substitute({**variables, **image.env})
        elif instruction.name == "WORKDIR":
            image.workdir = os.path.join(image.workdir, instruction.text)
            image.path("").mkdir(parents=True, exist_ok=True)
        elif instruction.name == "USER":
            image.user = instruction.text
        elif instruction.name == "COPY":
            copy(parse_copy(instruction), image, images)
        elif instruction.name == "RUN":
            print(f"{step}", flush=True)
            process = image.run(["/bin/sh", "-c", instruction.text], **variables)
            if process.wait() != 0:
                raise SystemExit(f"Line {instruction.line} failed: {step}")
            print(f"-> {time.perf_counter() - started:.0f} s", flush=True)


def copy(instruction: Copy, image: Image, images: Mapping[str, Image]) -> None:
    """Copies files of the build context, without those of .dockerignore, or of a stage."""
    target = image.path(instruction.target)
    for source in instruction.sources:
        if instruction.stage is None:
            ignore = DockerIgnore((checkout.ROOT / ".dockerignore").read_text(encoding="utf-8"))
            is_file = (checkout.ROOT / source).is_file()
            for file in ignore.files(checkout.ROOT, source):
                into = target / file.name if is_file else target / file.relative_to(source)
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout.ROOT / file, into)
        else:
            origin = images[instruction.stage]
            shutil.copytree(origin.path(source), target, symlinks=True, dirs_exist_ok=True)


def print_sizes(image: Image) -> None:
    """Prints the sizes of the folders that the last stage adds to its base image."""
    for path in sorted((image.own / "opt").glob("*")) + [image.own / "presets"]:
        if path.is_dir():
            size = subprocess.run(["du", "-sm", path], capture_output=True, text=True, check=True)
            print(f"/{path.relative_to(image.own)}: {size.stdout.split()[0]} MB")
    for path in (image.own / "opt").glob("*/lib/python3*/site-packages"):
        sizes = subprocess.run(f"du -sm {path}/* | sort -rn | head -12", shell=True,
                               capture_output=True, text=True, check=True).stdout  # fmt: skip
        print(sizes.replace(f"{path}/", ""), end="")


def start(stage: Stage, image: Image, command: str | None) -> int:
    """Runs the command of a stage, and returns the exit code."""
    words = stage.command()
    entrypoint = stage.last("ENTRYPOINT")
    if command is not None:
        words = [*(entrypoint.words() if entrypoint else []), *shlex.split(command)]
    image.make_read_only()
    print(f"$ {shlex.join(words)}", flush=True)
    started = time.perf_counter()
    process = image.run(words, image.user)
    if not stage.health_check():
        return process.wait()
    quiet = ["/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh"]  # it fails until the server started
    try:
        while image.run([*quiet, *stage.health_check()], image.user).wait() != 0:
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                print("the server did not start", flush=True)
                return 1
            time.sleep(0.5)
        print(f"healthy after {time.perf_counter() - started:.1f} s", flush=True)
        (port,) = stage.last("EXPOSE").words()
        print(caption(f"http://127.0.0.1:{port}/caption"), flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    print(f"ended with exit code {code}", flush=True)
    return int(code != 0)


def caption(url: str) -> str:
    """Returns the caption of a sample photo by a server."""
    photo = sorted(PHOTO.glob("*.jpg"))[0]
    data = base64.b64encode(photo.read_bytes()).decode()
    body = json.dumps({"photos": [{"name": photo.name, "data": data}]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return f"{photo.name}: {json.load(answer)['captions'][0]}"


if __name__ == "__main__":
    raise SystemExit(main())
