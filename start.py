"""Sets EffCap up in a virtual environment and runs it. Needs only Python 3.10 to 3.13.

python3 start.py demo        captions the sample photos, fine-tunes on them, captions them again
python3 start.py test        runs the tests, except slow ones
python3 start.py test-all    runs all tests, also exhaustive ones
python3 start.py lint        checks style, format and types
python3 start.py docs        builds the documentation site
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGES = {
    "demo": ".",
    "test": ".[test]",
    "test-all": ".[test]",
    "lint": ".[lint]",
    "docs": ".[docs]",
}
FOLDERS = ("samplers", "trainers", "tools", "hparams", "res")  # mapped into the package effcap
PHOTOS = Path("res/photos")
DEMO = Path("out/demo")
SITE = Path("build/site")  # as in mkdocs.yml


def main() -> None:
    """Parses the command line and runs the job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=PACKAGES, help="job to run")
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="virtual environment (default: .venv)"
    )
    arguments = parser.parse_args()
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"EffCap needs Python 3.10 to 3.13. This is {sys.version.split()[0]}.")
    os.chdir(ROOT)
    programs = install(arguments.venv.resolve(), PACKAGES[arguments.job])
    if arguments.job == "demo":
        demo(programs / "effcap")
    elif arguments.job == "lint":
        lint(programs / "python")
    elif arguments.job == "docs":
        docs(programs / "python")
    else:
        test(
            programs / "python",
            "not slow" if arguments.job == "test" else "slow or not slow or exhaustive",
        )


def install(venv: Path, package: str) -> Path:
    """Creates the environment if necessary, installs into it, and returns its program folder."""
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    started = time.perf_counter()
    if not programs.is_dir():
        if importlib.util.find_spec("ensurepip") is None:
            sys.exit("This Python cannot make virtual environments: apt install python3-venv")
        run(sys.executable, "-m", "venv", venv)
    run(programs / "python", "-m", "pip", "install", "--quiet", package)
    print(f"Installed in {venv} in {time.perf_counter() - started:.0f} s", flush=True)
    return programs


def demo(effcap: Path) -> None:
    """Captions, fine-tunes, captions again, and writes a page with both captions."""
    before, after, page = DEMO / "before.json", DEMO / "after.json", DEMO / "index.html"
    shutil.rmtree(DEMO / "run", ignore_errors=True)  # run of an earlier demo
    run(effcap, "caption", PHOTOS, "--out", before)
    run(
        *(effcap, "train", "csv", "--csv", "res/captions.csv", "--images", PHOTOS),
        *("--model", "flickr8k-lite0", "--out", DEMO / "run"),
        *("--set", "training.steps=30", "--set", "training.batch_size=2"),
        *("--set", "training.learning_rate=1e-4", "--set", "training.ema_momentum=0"),
    )
    run(
        *(effcap, "caption", PHOTOS, "--model", DEMO / "run" / "last", "--out", after),
        *("--beside", before, "--page", page),
    )
    print(f"Open {ROOT / page}")


def test(python: Path, marks: str) -> None:
    """Runs the tests with these marks in parallel, one file per process."""
    processes = min(4, os.cpu_count() or 1)
    # In order of the files: xdist would leave those with the fewest tests, the longest, for last.
    order = ("--dist", "loadfile", "--no-loadscope-reorder")
    run(python, "-m", "pytest", "-n", processes, *order, "-m", marks)


def lint(python: Path) -> None:
    """Runs ruff and mypy."""
    run(python, "-m", "ruff", "check", ".")
    run(python, "-m", "ruff", "format", "--check", ".")
    run(python, "-m", "mypy", "--package", "effcap", MYPYPATH=str(link_packages()))


def docs(python: Path) -> None:
    """Builds the documentation site; a broken link or an undocumented argument is an error."""
    # --quiet would hide warnings from --strict
    run(python, "-m", "mkdocs", "build", "--strict", NO_MKDOCS_2_WARNING="1")
    print(f"Open {ROOT / SITE / 'index.html'}")


def link_packages() -> Path:
    """Links all folders into one package and returns the folder that contains it.

    The checkout keeps samplers/, trainers/ and tools/ beside effcap/, where neither mypy nor the
    documentation site would find them.
    """
    folder = ROOT / "build" / "types"
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "effcap"
    package.mkdir(parents=True)
    for path in (*(ROOT / "effcap").iterdir(), *(ROOT / name for name in FOLDERS)):
        (package / path.name).symlink_to(path)
    return folder


def run(*command: object, **variables: str) -> None:
    """Runs a command, with these environment variables besides; exits if it fails."""
    words = [str(word) for word in command]
    print("$", " ".join([Path(words[0]).name, *words[1:]]), flush=True)
    code = subprocess.run(words, env={**os.environ, **variables}).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
