"""Tiny playlist captioners and their data."""

from __future__ import annotations

import json

from helpers.playlist_maker import make_playlists

MODALITIES = {"audio": 256, "tags": 300, "artist": 10}


MADE = make_playlists(12)


def hparams(**modalities: int) -> dict:
    """Of a captioner of playlists that is built in no time."""
    return {
        "encoder": {"kind": "branches", "modalities": modalities or MODALITIES, "dropout": 0.0},
        "decoder": {
            "vocabulary_size": None,
            "positions": 64,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "fusion": {"kind": "branches", "gate": True, "tau": 0.2},
        },
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
