"""Tiny playlist captioners and data for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.playlist_maker import make_playlists

MODALITIES = {"audio": 256, "tags": 300, "artist": 10}  # feature widths
MADE = make_playlists(12)


def hparams(**modalities: int) -> dict:
    """Returns hyperparameters of a tiny captioner of playlists."""
    return {
        "encoder": {"kind": "modalities", "modalities": modalities or MODALITIES, "dropout": 0.0},
        "decoder": {
            "kind": "gpt2",
            "vocabulary_size": None,
            "max_sequence_length": 64,
            "hidden_dim": 16,
            "num_heads": 2,
            "num_layers": 1,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "fusion": {"kind": "modalities", "gate": True, "tau": 0.2},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }


def write_json(path: Path, content: Any) -> Path:
    """Writes a JSON file and returns its path."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
