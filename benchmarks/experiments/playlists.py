"""Measures what each modality of a playlist contributes, on generated playlists.

    python benchmarks/experiments/playlists.py
    python benchmarks/experiments/playlists.py --tags discogs_tags_embeddings.npy --audio

Trains a captioner on playlists whose captions need all modalities, and scores its captions with all
modalities and with the features of one set to zero. With --audio, tracks are synthesized as .wav
files and their features computed by MSD_vgg (extra "audio"); otherwise audio features are random.
Training, captions and scores are those of `effcap train playlists` and `effcap evaluate`. Exits
with 1 if CIDEr does not fall without a modality.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import checkout  # noqa: F401
import numpy as np
from rich.console import Console
from rich.table import Table

from effcap.tools.cli import main as effcap
from effcap.trainers.data.playlists import TagEmbeddings
from helpers.playlist_maker import MadePlaylist, make_playlists, write_audio, write_playlists

TRAINING, VALIDATION, TEST = 1000, 100, 300  # playlists
MODALITIES = {"audio": 256, "tags": 300, "artist": 10}  # feature widths
ALL = "all modalities"
VARIANT = {
    "encoder": {"kind": "modalities", "modalities": MODALITIES, "dropout": 0.1},
    "decoder": {
        "kind": "gpt2",
        "vocabulary_size": 400,
        "max_sequence_length": 64,
        "hidden_dim": 64,
        "num_heads": 4,
        "num_layers": 2,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "fusion": {"kind": "modalities", "gate": True, "tau": 0.2},
    },
    "training": {"batch_size": 16, "epochs": 5, "learning_rate": 2e-3},
}
Scores = dict[str, dict[str, float]]  # scores by set of modalities and by name


def main() -> None:
    """Trains, evaluates and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tags", type=Path, help="embeddings of tags (default: random)")
    parser.add_argument("--audio", action="store_true", help="synthesize audio files")
    parser.add_argument("--audio-weights", type=Path, help="weights of MSD_vgg, from musicnn")
    parser.add_argument("--no-gate", action="store_true", help="fuse by a sum instead of the gate")
    parser.add_argument("--out", type=Path, help="folder of all files (default: temporary)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scores = measure(arguments, folder)
    print_table(scores)
    best = scores[ALL]["CIDEr"]
    sys.exit(any(row["CIDEr"] >= best for name, row in scores.items() if name != ALL))


def measure(arguments: argparse.Namespace, folder: Path) -> Scores:
    """Returns the scores with all modalities and without each."""
    tags = TagEmbeddings.from_file(arguments.tags) if arguments.tags else None
    folder.mkdir(parents=True, exist_ok=True)
    sounds = audio_features(arguments.audio_weights, folder) if arguments.audio else None
    playlists = make_playlists(TRAINING + VALIDATION + TEST)
    test = playlists[TRAINING + VALIDATION :]
    splits = {"train": playlists[:TRAINING], "val": playlists[TRAINING:-TEST], "test": test}
    embeddings = write_playlists(folder, splits, tags, sounds)
    data = ["--playlists", folder / "captions.json", "--artists", folder / "artists.json"]
    variant = folder / "variant.json"
    variant.write_text(json.dumps(VARIANT), encoding="utf-8")
    run(
        ["train", "playlists", *data, "--embeddings", embeddings, "--format", "both"],
        ["--model", variant, "--out", folder / "run"],
        ["--set", "decoder.fusion.gate=false"] if arguments.no_gate else [],
    )
    scores = {}
    for modality in (None, *MODALITIES):
        name = ALL if modality is None else f"without {modality}"
        features = embeddings if modality is None else without(embeddings, modality)
        out = folder / "scores" / name.replace(" ", "-")
        with contextlib.redirect_stdout(io.StringIO()):
            run(
                ["evaluate", *data, "--embeddings", features],
                ["--model", folder / "run", "--batch-size", 50, "--out", out],
            )
        scores[name] = read_scores(out, test)
    if arguments.audio:
        records = json.loads((folder / "playlists.json").read_text(encoding="utf-8"))
        (folder / "one.json").write_text(json.dumps(records[-1]), encoding="utf-8")
        run(
            ["caption", "--playlist", folder / "one.json", "--tags", folder / "tags.npz"],
            ["--model", folder / "run", "--attention"],
            ["--audio-weights", arguments.audio_weights] if arguments.audio_weights else [],
        )
    return scores


def run(*words: Sequence[object]) -> None:
    """Runs an `effcap` command; exits if it fails."""
    if effcap([str(word) for group in words for word in group]) != 0:
        sys.exit(2)


def audio_features(weights: Path | None, folder: Path) -> dict[str, np.ndarray]:
    """Writes audio files and returns their features (256,) by file name."""
    from effcap.trainers.data.audio import AudioFeatures

    paths = write_audio(folder)
    features = AudioFeatures(weights).features(paths)  # (N, 256)
    return dict(zip([path.name for path in paths], features, strict=True))


def without(embeddings: Path, removed: str) -> Path:
    """Copies the features, with zeros for those of one modality."""
    copy = embeddings.with_name(f"embeddings-without-{removed}")
    for modality in MODALITIES:
        (copy / modality).mkdir(parents=True, exist_ok=True)
        for path in (embeddings / modality).iterdir():
            array = np.load(path, allow_pickle=False)
            np.save(copy / modality / path.name, 0 * array if modality == removed else array)
    return copy


def read_scores(out: Path, test: Sequence[MadePlaylist]) -> dict[str, float]:
    """Returns CIDEr, BLEU-4 and the fractions of captions with the right facts."""
    corpus = json.loads((out / "scores.json").read_text(encoding="utf-8"))["scores"]
    entries = json.loads((out / "captions.json").read_text(encoding="utf-8"))
    captions = {entry["image"]: entry["caption"] for entry in entries}
    is_right = {
        "tempo, mood": [f"{p.tempo} and {p.mood}" in captions[p.id] for p in test],
        "genre": [p.genre in captions[p.id].split() for p in test],
        "artists": [captions[p.id].startswith(f"{p.title} ") for p in test],
    }
    fractions = {name: float(np.mean(values)) for name, values in is_right.items()}
    return {"CIDEr": corpus["CIDEr"], "BLEU-4": corpus["BLEU-4"], **fractions}


def print_table(scores: Scores) -> None:
    """Prints a row per set of modalities."""
    names = next(iter(scores.values()))
    table = Table("", *names, title=f"{TEST} test playlists; percentages of correct captions")
    for name, row in scores.items():
        cells = [f"{row[key]:.3f}" for key in ("CIDEr", "BLEU-4")]
        table.add_row(name, *cells, *(f"{value:.0%}" for value in list(row.values())[2:]))
    Console().print(table)


if __name__ == "__main__":
    main()
