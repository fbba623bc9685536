"""Sets EffCap up in a virtual environment of its own and runs it; needs Python 3.10-3.13 alone.

python3 start.py demo    captions the sample photos, fine-tunes on them, captions again
python3 start.py test    runs the tests
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
PHOTOS = Path("res/photos")
DEMO = Path("out/demo")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=("demo", "test"))
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to install")
    arguments = parser.parse_args()
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"EffCap needs Python 3.10 to 3.13. This is {sys.version.split()[0]}.")
    os.chdir(ROOT)
    programs = install(arguments.venv.resolve(), "." if arguments.job == "demo" else ".[test]")
    if arguments.job == "demo":
        demo(programs / "effcap")
    else:
        processes = min(4, os.cpu_count() or 1)
        # A file's tests share what they set up, so they go to one process, the files in order.
        spread = ("-n", processes, "--dist", "loadfile", "--no-loadscope-reorder")
        run(programs / "python", "-m", "pytest", *spread)


def install(venv: Path, package: str) -> Path:
    """Makes the environment if there is none, installs into it; returns its folder of programs."""
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
    """Captions, fine-tunes, captions again, and leaves a page to look at."""
    before, after, page = DEMO / "before.json", DEMO / "after.json", DEMO / "index.html"
    shutil.rmtree(DEMO / "run", ignore_errors=True)  # of an earlier demo
    run(effcap, "caption", PHOTOS, "--out", before)
    run(
        *(effcap, "train", "csv", "--csv", "res/captions.csv", "--images", PHOTOS),
        *("--model", "flickr8k-lite0", "--out", DEMO / "run"),
        *("--steps", 30, "--batch-size", 2, "--learning-rate", 1e-4, "--set", "training.ema=0"),
    )
    run(
        *(effcap, "caption", PHOTOS, "--model", DEMO / "run" / "last", "--out", after),
        *("--beside", before, "--page", page),
    )
    print(f"Look at {ROOT / page}")


def run(*command: object) -> None:
    words = [str(word) for word in command]
    print("$", " ".join([Path(words[0]).name, *words[1:]]), flush=True)
    code = subprocess.run(words).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
