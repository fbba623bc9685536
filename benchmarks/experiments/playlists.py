"""What each modality of a playlist is worth: a captioner trained on playlists made up, whose
captions need all of them, writes with all of them and with each taken away.

    python benchmarks/playlists.py
    python benchmarks/playlists.py --tags discogs_tags_embeddings.npy --audio

With --audio, sounds are synthesized, written as .wav files and heard by MSD_vgg (extra `audio`);
without, features of audio are made up. Training, captions and scores are those of `effcap train
playlists` and `effcap evaluate`. A modality is taken away by writing zeros for its features. Exits
with 1 where a score does not fall.
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

import numpy as np
from helpers.playlist_maker import MadePlaylist, make_playlists, write_audio, write_playlists
from rich.console import Console
from rich.table import Table

from effcap.tools.cli import main as effcap
from effcap.trainers.data.playlists import TagEmbeddings

TRAINING, VALIDATION, TEST = 1000, 100, 300  # playlists
MODALITIES = {"audio": 256, "tags": 300, "artist": 10}
VARIANT = {
    "encoder": {"kind": "branches", "modalities": MODALITIES, "dropout": 0.1},
    "decoder": {
        "vocabulary_size": None,
        "positions": 64,
        "width": 64,
        "heads": 4,
        "layers": 2,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "fusion": {"kind": "branches", "gate": True, "tau": 0.2},
    },
    "training": {"batch_size": 16, "epochs": 5, "learning_rate": 2e-3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tags", type=Path, help="embeddings of tags; at random if not given")
    parser.add_argument("--audio", action="store_true", help="write sounds, and listen to them")
    parser.add_argument("--audio-weights", type=Path, help="of MSD_vgg (those of musicnn)")
    parser.add_argument("--no-gate", action="store_true", help="a plain sum in place of the gate")
    parser.add_argument("--out", type=Path, help="folder to keep (a temporary one)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = measure(arguments, folder)
    show(rows)
    least = rows["all modalities"]["CIDEr"]
    sys.exit(any(row["CIDEr"] >= least for name, row in rows.items() if name != "all modalities"))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Scores by what was taken away."""
    tags = TagEmbeddings.from_file(arguments.tags) if arguments.tags else None
    folder.mkdir(parents=True, exist_ok=True)
    sounds = hear(arguments.audio_weights, folder) if arguments.audio else None
    made = make_playlists(TRAINING + VALIDATION + TEST)
    test = made[TRAINING + VALIDATION :]
    splits = {"train": made[:TRAINING], "val": made[TRAINING:-TEST], "test": test}
    embeddings = write_playlists(folder, splits, tags, sounds)
    data = ["--playlists", folder / "captions.json", "--artists", folder / "artists.json"]
    variant = folder / "variant.json"
    variant.write_text(json.dumps(VARIANT), encoding="utf-8")
    run(
        ["train", "playlists", *data, "--embeddings", embeddings, "--format", "both"],
        ["--model", variant, "--vocab-size", 400, "--out", folder / "run"],
        ["--no-gate"] if arguments.no_gate else [],
    )
    rows = {}
    for taken in (None, *MODALITIES):
        name = "all modalities" if taken is None else f"without {taken}"
        place = embeddings if taken is None else without(embeddings, taken)
        out = folder / "scores" / name.replace(" ", "-")
        with contextlib.redirect_stdout(io.StringIO()):
            run(
                ["evaluate", *data, "--embeddings", place],
                ["--model", folder / "run", "--batch-size", 50, "--out", out],
            )
        rows[name] = scores(out, test)
    if arguments.audio:
        listed = json.loads((folder / "playlists.json").read_text(encoding="utf-8"))
        (folder / "one.json").write_text(json.dumps(listed[-1]), encoding="utf-8")
        run(
            ["caption", "--playlist", folder / "one.json", "--tags", folder / "tags.npz"],
            ["--model", folder / "run", "--attention"],
            ["--audio-weights", arguments.audio_weights] if arguments.audio_weights else [],
        )
    return rows


def run(*words: Sequence) -> None:
    """Runs a command of effcap."""
    if effcap([str(word) for part in words for word in part]) != 0:
        sys.exit(2)


def hear(weights: Path | None, folder: Path) -> dict[str, np.ndarray]:
    """Features of audio files written to the folder, by their names."""
    from effcap.trainers.data.audio import AudioFeatures

    paths = write_audio(folder)
    found = AudioFeatures(weights).features(paths)  # (n,256)
    return dict(zip([path.name for path in paths], found, strict=True))


def without(embeddings: Path, taken: str) -> Path:
    """A copy of the features with zeros for those of one modality."""
    copy = embeddings.with_name(f"embeddings-without-{taken}")
    for modality in MODALITIES:
        (copy / modality).mkdir(parents=True, exist_ok=True)
        for path in (embeddings / modality).iterdir():
            array = np.load(path, allow_pickle=False)
            np.save(copy / modality / path.name, 0 * array if modality == taken else array)
    return copy


def scores(out: Path, test: Sequence[MadePlaylist]) -> dict[str, float]:
    """CIDEr and BLEU-4, and the shares of captions that are right about what they tell."""
    corpus = json.loads((out / "scores.json").read_text(encoding="utf-8"))["scores"]
    entries = json.loads((out / "captions.json").read_text(encoding="utf-8"))
    captions = {entry["image"]: entry["caption"] for entry in entries}
    told = {
        "tempo, mood": [f"{made.tempo} and {made.mood}" in captions[made.id] for made in test],
        "genre": [made.genre in captions[made.id].split() for made in test],
        "artists": [captions[made.id].startswith(f"{made.title} ") for made in test],
    }
    shares = {name: float(np.mean(right)) for name, right in told.items()}
    return {"CIDEr": corpus["CIDEr"], "BLEU-4": corpus["BLEU-4"], **shares}


def show(rows: dict[str, dict[str, float]]) -> None:
    """Prints the table."""
    names = next(iter(rows.values()))
    table = Table("", *names, title=f"{TEST} playlists not trained on; share of what is right")
    for name, row in rows.items():
        score = [f"{row[key]:.3f}" for key in ("CIDEr", "BLEU-4")]
        table.add_row(name, *score, *(f"{value:.0%}" for value in list(row.values())[2:]))
    Console().print(table)


if __name__ == "__main__":
    main()
