"""Tests that help, parsing and work on files import neither Keras nor its backends."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from itertools import pairwise

from helpers.cli_process import environment
from helpers.data_maker import write_csv
from helpers.run_maker import make_run

COMMANDS = (
    "caption",
    "train",
    "compare",
    "evaluate",
    "features",
    "shards",
    "index",
    "convert",
    "download",
)
SOURCES = ("csv", "json", "dali", "regions", "playlists")

# Runs each step, a statement or the arguments of a command, and stops after the first one that
# imports something heavy.
SCRIPT = """
import contextlib, io, json, sys
steps, heavy = json.loads(sys.argv[1])
for step in steps:
    output = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(output):
        if isinstance(step, str):
            exec(step)
        else:
            from effcap.tools.cli import main
            assert main(step) == 0, step
    imported = sorted(set(heavy) & set(sys.modules))
    if imported:
        sys.exit(f"{step} imports {imported}")
    if not isinstance(step, str):
        assert output.getvalue(), step
"""
BACKENDS = ("keras", "tensorflow", "jax", "torch")


def cpu_seconds_of_processes() -> float:
    """Returns the CPU time of all finished processes, which others on the machine do not change."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_steps(steps: list, heavy: tuple[str, ...]) -> None:
    """Runs steps in a new process and checks that they import none of the heavy packages."""
    command = [sys.executable, "-c", SCRIPT, json.dumps([steps, heavy])]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr


def test_help_of_all_commands_is_fast():
    times = [cpu_seconds_of_processes()]
    for _ in range(3):
        run_steps([["--help"]], (*BACKENDS, "numpy", "rich", "PIL"))
        times.append(cpu_seconds_of_processes())
    assert min(end - start for start, end in pairwise(times)) < 0.5


def test_parsing_and_files_need_no_keras(tmp_path):
    references = write_csv(tmp_path / "a.csv", [("1.jpg", ["A dog."]), ("2.jpg", ["A cat."])])
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps([{"image": "1.jpg", "caption": "A dog runs."}]))
    steps = [
        "import effcap, importlib.util; importlib.util.find_spec('keras')",
        "import effcap.tools, effcap.trainers, effcap.tokenizers, effcap.images, effcap.metrics",
        "from effcap.trainers import read_csv, read_json, read_regions, read_shards, tidy",
        "from effcap.trainers import RunOptions, TrainingOptions",
        "from effcap.tools import read_references, write_page, gpt2_hparams, download_gpt2",
        "import effcap.weights.torch_file, effcap.conversion.backbone_weights",
        "import effcap.weights.gpt2.formats, effcap.conversion.gpt2_captioner",
        *[[command, "--help"] for command in COMMANDS],
        *[["train", source, "--help"] for source in SOURCES],
        ["list"],
        ["compare", str(make_run(tmp_path / "a")), str(make_run(tmp_path / "b"))],
        ["evaluate", "--captions", str(captions), "--csv", str(references)],
    ]
    run_steps(steps, BACKENDS)
