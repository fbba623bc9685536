"""Playlists on the command line: train, caption, evaluate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.captioners import randomize
from helpers.cli_errors import fails
from helpers.playlist_maker import make_playlists, write_playlists
from helpers.playlists import hparams, write_json

from effcap.captioner import Captioner
from effcap.presets import save
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tools.cli import main
from effcap.tools.cli.caption_playlists import trained_format

MADE = make_playlists(20, seed=2)
GREEDY = ("--sampler", "greedy", "--max-tokens", "6", "--min-tokens", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playlists")
    write_playlists(folder, {"train": MADE[:12], "val": MADE[12:16], "test": MADE[16:]})
    write_json(folder / "tiny.json", hparams())
    listed = json.loads((folder / "playlists.json").read_text())
    write_json(folder / "one.json", listed[0])
    return folder


def data(folder) -> list[str]:
    return [
        *("--playlists", str(folder / "captions.json")),
        *("--embeddings", str(folder / "embeddings")),
        *("--artists", str(folder / "artists.json")),
    ]


@pytest.fixture(scope="module")
def preset(folder):
    """Of a captioner that writes at random, as if trained on titles and descriptions."""
    tokenizer = Tokenizer.train([text for made in MADE for text in made.captions], 300)
    captioner = randomize(Captioner.from_hparams(hparams(), tokenizer))
    save(captioner, folder / "preset", record={"flags": {"format": "both"}})
    return folder / "preset"


def caption(folder, preset, *more) -> list[str]:
    given = [
        "--model",
        str(preset),
        "--max-tokens",
        "6",
        "--min-tokens",
        "3",
        *GREEDY,
        *map(str, more),
    ]
    return ["caption", "--playlist", str(folder / "one.json"), *given]


def test_a_run_is_validated_on_the_split_of_that_name_and_remembers_the_form(folder):
    out = folder / "run"
    words = ["--format", "both", "--model", str(folder / "tiny.json"), "--vocab-size", "300"]
    words += ["--no-gate", "--tau", "0.1", "--steps", "3", "--cider-photos", "0"]
    assert main(["train", "playlists", *data(folder), *words, "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["training"]["photos"] == 12
    assert record["data"]["validation"]["photos"] == 4
    assert "val_cross_entropy" in record["finished"]["scores"]
    fusion = record["hparams"]["decoder"]["fusion"]
    assert (fusion["gate"], fusion["tau"]) == (False, 0.1)
    assert trained_format(out / "best") == "both"


def test_a_playlist_is_captioned_from_its_tags_and_artists(folder, preset, capsys):
    assert main(caption(folder, preset, "--tags", folder / "tags.npz")) == 0
    output = capsys.readouterr()
    name, _, text = output.out.strip().partition("\t")
    assert name == "p0" and text.startswith("<title>")
    assert "without audio: 1 of 1 playlists" in output.err
    assert f"not heard: {len(MADE[0].tracks)} tracks" in output.err


def test_captions_attention_and_scores_are_written_and_attention_printed(folder, preset, capsys):
    out = folder / "written" / "captions.json"
    more = ("--embeddings", folder / "embeddings", "--attention", "--out", out)
    more += ("--format", "description")  # not the form that it was trained on
    assert main(caption(folder, preset, *more)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("p0\t<description>") and printed[1] == "  audio:"
    (entry,) = json.loads(out.read_text())
    assert set(entry) == {"id", "caption", "description", "score", "attention"}
    assert len(entry["attention"]["audio"]) == len(MADE[0].tracks)
    assert "-" in entry["attention"]["audio"][0]["row"]


def test_audio_files_that_are_there_are_heard_and_the_others_told(
    folder, preset, capsys, monkeypatch, tmp_path
):
    heard = []

    class Ears:
        def __init__(self, weights, pooling):
            assert (weights, pooling) == (None, "trained")

        def each(self, paths):
            for path in paths:
                heard.append(path.name)
                yield ValueError("too short") if path.name == "b.wav" else np.ones(256)

    monkeypatch.setattr("effcap.trainers.data.audio.AudioFeatures", Ears, raising=False)
    tracks = [{"id": name, "artist": "Queen"} for name in ("a.wav", "b.wav", "a.wav", "c.wav")]
    path = write_json(tmp_path / "list.json", [{"id": "x", "tracks": tracks}])
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    arguments = caption(folder, preset, "--attention")
    arguments[2] = str(path)
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert heard == ["a.wav", "b.wav"]
    assert "not heard: 2 tracks" in output.err and "b.wav (Queen): too short" in output.err
    assert "c.wav (Queen): there is no file" in output.err
    assert output.out.count("a.wav (Queen)") == 2


def test_a_playlist_with_broken_features_is_skipped_and_named(folder, preset, capsys, tmp_path):
    for modality in ("audio", "tags", "artist"):
        (tmp_path / modality).mkdir()
    np.save(tmp_path / "tags" / "p1.npy", np.ones((2, 7)))
    arguments = caption(folder, preset, "--embeddings", tmp_path)
    arguments[2] = str(folder / "playlists.json")
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "skipped: Cannot read tags of playlist p1" in output.err
    assert len(output.out.splitlines()) == 19 and "p1\t" not in output.out


def test_held_out_playlists_are_scored_in_words(folder, preset, capsys, tmp_path):
    arguments = [
        "evaluate",
        *data(folder),
        "--model",
        str(preset),
        "--out",
        str(tmp_path / "scores"),
    ]
    assert main([*arguments, *GREEDY]) == 0
    assert "CIDEr" in capsys.readouterr().out
    entries = json.loads((tmp_path / "scores" / "captions.json").read_text())
    assert [entry["image"] for entry in entries] == [made.id for made in MADE[16:]]
    assert not any("<" in entry["caption"] for entry in entries)
    record = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert record["format"] == "both" and record["counts"]["references"] == 8


@pytest.mark.slow
def test_a_captioner_of_playlists_is_trained_on_rewards(folder, preset):
    words = [
        "--format",
        "both",
        "--model",
        str(preset),
        "--steps",
        "2",
        "--out",
        str(folder / "scst"),
    ]
    words += ["--max-tokens", "6", "--samples", "2", "--batch-size", "4", "--min-distinct", "0"]
    assert main(["train", "scst", *data(folder), *words]) == 0
    assert json.loads((folder / "scst" / "run.json").read_text())["finished"]["steps"] == 2


def test_features_of_tracks_are_kept_for_training(folder, capsys, tmp_path):
    out = tmp_path / "features"
    arguments = ["features", "--playlist", str(folder / "playlists.json"), "--out", str(out)]
    assert main([*arguments, "--tags", str(folder / "tags.npz")]) == 0
    assert "tags, artist of 20 playlists" in capsys.readouterr().err
    for modality in ("tags", "artist"):
        for made in MADE:
            name = f"{modality}/{made.id}.npy"
            kept, expected = np.load(out / name), np.load(folder / "embeddings" / name)
            np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["caption", "--tags", "x.npz"], "Expected --playlist with --tags"),
        (["caption", "a.jpg", "--playlist", "x.json"], "Expected photos or --playlist"),
        (["caption", "--playlist", "x.json", "--page", "p.html"], "no --page with --playlist"),
        (["caption", "--playlist", "x.json"], "a captioner of playlists with --playlist"),
        (["caption", "--playlist", "x.json", "--format", "all"], "invalid choice"),
        (["train", "playlists", "--model", "m", "--out", "o"], "required: --playlists"),
        (
            ["train", "playlists", "--playlists", "x.json", "--model", "playntell", "--out", "o"],
            "Expected --embeddings with --playlists",
        ),
        (
            ["train", "scst", "--csv", "x.csv", "--embeddings", "e", "--model", "flickr8k-lite0"]
            + ["--out", "o"],
            "Expected --playlists with --embeddings",
        ),
        (
            ["train", "scst", "--csv", "x.csv", "--val-playlists", "e", "--model", "flickr8k-lite0"]
            + ["--out", "o"],
            "with --val-playlists. Received: --csv",
        ),
        (["features", "a.jpg", "--playlist", "x.json"], "no photos with --playlist"),
        (["features", "a.jpg", "--tags", "x.npz"], "Expected --playlist with --tags"),
        (["features", "--playlist", "x.json"], "Expected --out FOLDER with --playlist"),
        (["evaluate", "--playlists", "x.json"], "Expected --model with --playlists"),
        (["evaluate", "--csv", "x.csv", "--artists", "a"], "Expected --playlists with --artists"),
        (
            ["evaluate", "--playlists", "x.json", "--captions", "c.json"],
            "no --captions with --playlists",
        ),
    ),
)
def test_options_that_do_not_go_together_are_told_in_one_line(arguments, words, capsys):
    assert words in fails(arguments, capsys)


def test_files_that_cannot_be_used_are_told_in_one_line(folder, preset, capsys, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    arguments = caption(folder, preset)
    for name, words in (("gone.json", "gone.json"), ("bad.json", "Expected JSON")):
        arguments[2] = str(tmp_path / name)
        assert words in fails(arguments, capsys)
    arguments[2] = str(write_json(tmp_path / "empty.json", {"id": "e", "tracks": [{"id": "t"}]}))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "nothing is known of its tracks" in error and "none of 1" in error
