"""Makes folders of finished runs without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from effcap.trainers.reports.run_history import FINISHED
from effcap.trainers.reports.run_notes import RunNotes

SCORES = {
    "loss": [4.0, 3.0, 2.0],
    "val_loss": [4.5, 4.0, 4.25],
    "cross_entropy": [3.5, 2.5, 1.5],
    "val_cross_entropy": [4.0, 3.5, 3.75],
    "val_cider": [0.2, 0.625, 0.5],
}
RECORD = {
    "command": "effcap train csv --csv 'my photos.csv' --epochs 3",
    "config": {"csv": ["my photos.csv"], "epochs": 3, "set": []},
    "model": "lite0-small",
    "objective": "cross-entropy",
    "hparams": {
        "encoder": {"kind": "image", "dropout": 0.1},
        "decoder": {"kind": "gpt2", "fusion": {"kind": "cross"}},
        "training": {"epochs": 3, "label_smoothing": 0.1, "tokenization": "ptb", "steps": None},
    },
    "changed": {"training.epochs": 10, "encoder.dropout": None},
    "train_fraction": 1.0,
    "data": {
        "training": {"photos": 1200, "captions": 6000, "left_out": 2, "padding": 0.125},
        "validation": {"photos": 100, "captions": 500, "left_out": 0, "padding": 0.25},
    },
    "versions": {"effcap": "0.1.0", "keras": "3.15"},
    "machine": {"device": "2 × CPU", "cores": 4},
}
NAMES = ("a.jpg", "b.jpg")
REFERENCES = (["A red wall.", "A wall."], ["A blue sea."])


def make_run(
    folder: Path,
    scores: Mapping[str, Sequence[float]] = SCORES,
    captions: Sequence[Sequence[str]] | None = None,
    *,
    finished: bool = True,
    **record: Any,
) -> Path:
    """Makes the folder of a run of two validation photos, one red and one blue.

    Args:
        folder: folder to make.
        scores: scores of all epochs by name.
        captions: captions of the photos by epoch; by default other ones in each.
        finished: whether the run is finished.
        **record: entries of run.json to replace.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    num_epochs = len(next(iter(scores.values()), ()))
    rows = [",".join(["epoch", *scores])]
    rows += [
        ",".join(map(str, [i + 1, *(x[i] for x in scores.values())])) for i in range(num_epochs)
    ]
    (folder / "log.csv").write_text("\n".join(rows) + "\n")
    steps = [f"{10 * i + 1},{i / 4},{5 - i / 4},{0.001 * i}\n" for i in range(4 * num_epochs)]
    (folder / "steps.csv").write_text("".join(["step,epoch,loss,learning_rate\n", *steps]))
    values = {**RECORD, **record, **({"finished": {}} if finished else {})}
    (folder / "run.json").write_text(json.dumps(values))
    if captions is None:
        captions = [
            [f"{folder.name} {n} after {i}" for n in NAMES] for i in range(1, num_epochs + 1)
        ]
    notes = RunNotes(folder, num_epochs, "validation")
    for name, references, color in zip(NAMES, REFERENCES, ("red", "blue"), strict=True):
        photo = Image.new("RGB", (60, 40), color)
        notes.values["photos"].append(notes.photo(name, photo, references=references))
    for texts in captions:
        notes.add_epoch(texts, 50.0)
    if finished:
        notes.values["state"] = FINISHED
    notes.write()
    return folder
