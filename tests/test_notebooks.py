"""The notebooks, executed from top to bottom and compared with their stored outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 3_000_000
names = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[Any]:
    """Returns the kinds of a cell's outputs, with their formats; without what is on stderr."""
    outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    kinds = [(output.output_type, tuple(sorted(output.get("data", ())))) for output in outputs]
    return list(dict.fromkeys(kinds))  # one stream may come in several parts


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"caption_photos", "fine_tune", "gpt2_weights"}


@names
def test_stored_outputs_are_complete_and_small(path):
    cells = code_cells(nbformat.read(path, 4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell for cell in cells if ("error", ()) in kinds(cell)]
    assert not [cell for cell in cells if any(x.get("name") == "stderr" for x in cell.outputs)]
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.slow
@names
def test_a_notebook_runs_and_has_the_stored_outputs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    stored, executed = nbformat.read(path, 4), nbformat.read(path, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(executed, timeout=900, resources=resources).execute()
    for before, after in zip(code_cells(stored), code_cells(executed), strict=True):
        assert kinds(after) == kinds(before), before.source
        assert texts(after) == texts(before), before.source


def texts(cell: Any) -> list[str]:
    """Returns the captions that a cell returned as a str."""
    data = [output.get("data", {}) for output in cell.outputs]
    plain = [x["text/plain"] for x in data if set(x) == {"text/plain"}]
    return [text for text in plain if text.startswith("'") and " " in text and "/" not in text]
