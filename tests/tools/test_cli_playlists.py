"""Playlists on the command line: train, caption, evaluate, features."""

from __future__ import annotations

import argparse
import json

import keras
import numpy as np
import pytest
from PIL import Image

from effcap.captioner import Captioner
from effcap.tokenizers import Tokenizer
from effcap.tools.captioning.playlists import (
    CaptionedPlaylists,
    PlaylistCaption,
    trained_caption_format,
)
from effcap.tools.cli import main
from effcap.tools.cli.caption_playlists import write
from helpers.captioners import randomize
from helpers.cli_errors import fails
from helpers.playlist_maker import make_playlists, write_playlists
from helpers.playlists import hparams, write_json

MADE = make_playlists(20, seed=2)
GREEDY = ("--sampler", "greedy", "--max-new-tokens", "6", "--set", "sampler.min_new_tokens=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playlists")
    write_playlists(folder, {"train": MADE[:12], "val": MADE[12:16], "test": MADE[16:]})
    write_json(folder / "tiny.json", hparams())
    listed = json.loads((folder / "playlists.json").read_text())
    write_json(folder / "one.json", listed[0])
    return folder


@pytest.fixture(scope="module")
def preset(folder):
    """A preset with random weights, recorded as trained on titles and descriptions."""
    tokenizer = Tokenizer.train([text for made in MADE for text in made.captions], 300)
    keras.utils.set_random_seed(3)
    captioner = randomize(Captioner.from_hparams(hparams(), tokenizer))
    captioner.save_to_preset(folder / "preset", record={"config": {"format": "both"}})
    return folder / "preset"


def data(folder) -> list[str]:
    return [
        *("--playlists", str(folder / "captions.json")),
        *("--embeddings", str(folder / "embeddings")),
        *("--artists", str(folder / "artists.json")),
    ]


def caption(folder, preset, *options, playlist="one.json") -> list[str]:
    """Returns the arguments of `effcap caption --playlist`."""
    words = ["caption", "--playlist", folder / playlist, "--model", preset, *GREEDY, *options]
    return [str(word) for word in words]


@pytest.mark.slow
def test_a_run_validates_on_the_val_split_and_records_the_format(folder):
    out = folder / "run"
    words = ["--format", "both", "--model", str(folder / "tiny.json"), "--steps", "3"]
    words += ["--set", "training.num_cider_photos=0", "--set", "decoder.vocabulary_size=300"]
    words += ["--set", "decoder.fusion.gate=false", "--set", "decoder.fusion.tau=0.1"]
    assert main(["train", "playlists", *data(folder), *words, "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["training"]["photos"] == 12
    assert record["data"]["validation"]["photos"] == 4
    assert "val_cross_entropy" in record["finished"]["scores"]
    fusion = record["hparams"]["decoder"]["fusion"]
    assert (fusion["gate"], fusion["tau"]) == (False, 0.1)
    assert trained_caption_format(out) == "both"


def test_a_playlist_is_captioned_from_its_tags_and_artists(folder, preset, capsys):
    assert main(caption(folder, preset, "--tags", folder / "tags.npz")) == 0
    output = capsys.readouterr()
    name, _, text = output.out.strip().partition("\t")
    assert name == "p0" and text.startswith("<title>")
    assert "without audio: 1 of 1 playlists" in output.err
    assert f"without audio features: {len(MADE[0].tracks)} tracks" in output.err


def test_captions_scores_and_attention_are_written(folder, preset, capsys):
    out = folder / "written" / "captions.json"
    picture = folder / "written" / "attention.png"
    options = ("--embeddings", folder / "embeddings", "--attention", picture, "--out", out)
    options += ("--format", "description")  # not the recorded format
    assert main(caption(folder, preset, *options)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("p0\t<description>") and printed[1] == "  audio:"
    (entry,) = json.loads(out.read_text())
    assert set(entry) == {"id", "caption", "description", "score", "attention"}
    assert len(entry["attention"]["audio"]) == len(MADE[0].tracks)
    assert set(entry["attention"]["audio"][0]) == {"row", "weight", "word"}
    assert "-" in entry["attention"]["audio"][0]["row"]
    with Image.open(picture) as drawn:
        assert drawn.width > 800


def test_playlists_without_words_and_with_excluded_names_are_listed(capsys):
    captions = [
        PlaylistCaption("p", "Queen", -1.0, missing=("rock", "slow|fast"), excluded=("queen",)),
        PlaylistCaption("q", "slow rock", -1.0),
    ]
    arguments = argparse.Namespace(out=None, attention=None)
    write(arguments, CaptionedPlaylists(captions, [], []))
    output = capsys.readouterr()
    assert output.out == "p\tQueen\nq\tslow rock\n"
    lines = output.err.splitlines()
    assert lines[0] == "without rock, slow|fast: p" and lines[2] == "with queen: p"
    assert "1 of 2 captions lack words of --include" in lines[1]
    assert lines[3:] == ["1 of 2 captions have words of --exclude in artist names"]


def test_existing_audio_files_are_read_and_others_reported(
    folder, preset, capsys, monkeypatch, tmp_path
):
    read = []

    class Network:
        def __init__(self, weights, pooling):
            assert (weights, pooling) == (None, "trained")

        def iter_features(self, paths):
            for path in paths:
                read.append(path.name)
                yield ValueError("too short") if path.name == "b.wav" else np.ones(256)

    monkeypatch.setattr("effcap.trainers.data.audio.AudioFeatures", Network, raising=False)
    tracks = [{"id": name, "artist": "Queen"} for name in ("a.wav", "b.wav", "a.wav", "c.wav")]
    path = write_json(tmp_path / "list.json", [{"id": "x", "tracks": tracks}])
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).touch()
    assert main(caption(folder, preset, "--attention", tmp_path / "a.html", playlist=path)) == 0
    output = capsys.readouterr()
    assert read == ["a.wav", "b.wav"]
    assert "without audio features: 2 tracks" in output.err
    assert "b.wav (Queen): too short" in output.err
    assert "c.wav (Queen): there is no file" in output.err
    assert output.out.count("a.wav (Queen)") == 2
    assert (tmp_path / "a.html").read_text().count("a.wav (Queen)") == 2


def test_a_playlist_with_damaged_features_is_skipped(folder, preset, capsys, tmp_path):
    for modality in ("audio", "tags", "artist"):
        (tmp_path / modality).mkdir()
    np.save(tmp_path / "tags" / "p1.npy", np.ones((2, 7)))
    arguments = caption(folder, preset, "--embeddings", tmp_path, playlist="playlists.json")
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "skipped: playlist p1: tags: expected" in output.err
    assert "1 of 20 playlists have no usable features" in output.err
    assert len(output.out.splitlines()) == 19 and "p1\t" not in output.out


def test_test_playlists_are_scored_without_markers(folder, preset, capsys, tmp_path):
    out = tmp_path / "scores"
    arguments = ["evaluate", *data(folder), "--model", str(preset), "--out", str(out)]
    assert main([*arguments, *GREEDY]) == 0
    assert "CIDEr" in capsys.readouterr().out
    entries = json.loads((out / "captions.json").read_text())
    assert [entry["image"] for entry in entries] == [made.id for made in MADE[16:]]
    assert not any("<" in entry["caption"] for entry in entries)
    record = json.loads((out / "scores.json").read_text())
    assert record["format"] == "both" and record["counts"]["references"] == 8


@pytest.mark.slow
def test_a_captioner_of_playlists_is_trained_with_scst(folder, preset):
    words = ["--format", "both", "--model", str(preset), "--steps", "2", "--batch-size", "4"]
    words += ["--objective", "scst", "--out", str(folder / "scst")]
    for setting in ("max_new_tokens=6", "num_samples=2", "min_distinct=0"):
        words += ["--set", f"scst.{setting}"]
    assert main(["train", "playlists", *data(folder), *words]) == 0
    assert json.loads((folder / "scst" / "run.json").read_text())["finished"]["steps"] == 2


def test_features_of_tracks_are_written_for_training(folder, capsys, tmp_path):
    out = tmp_path / "features"
    arguments = ["features", "--playlist", str(folder / "playlists.json"), "--out", str(out)]
    assert main([*arguments, "--tags", str(folder / "tags.npz")]) == 0
    assert "tags, artist of 20 playlists" in capsys.readouterr().err
    for modality in ("tags", "artist"):
        for made in MADE:
            name = f"{modality}/{made.id}.npy"
            written, expected = np.load(out / name), np.load(folder / "embeddings" / name)
            np.testing.assert_array_equal(written, expected)


TRAIN = ("train", "playlists", "--model", "playntell", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (["caption", "--tags", "x.npz"], "--tags requires --playlist"),
        (["caption", "a.jpg", "--playlist", "x.json"], "Give only one of PHOTO"),
        (
            ["caption", "--playlist", "x.json", "--page", "p.html"],
            "--page cannot be used with --playlist",
        ),
        (["caption", "--playlist", "x.json"], "Expected a captioner of playlists"),
        (["caption", "--playlist", "x.json", "--format", "all"], "invalid choice"),
        ([*TRAIN], "required: --playlists"),
        ([*TRAIN, "--playlists", "x.json"], "--playlists requires --embeddings"),
        (["features", "a.jpg", "--playlist", "x.json"], "PHOTO cannot be used with --playlist"),
        (["features", "a.jpg", "--tags", "x.npz"], "--tags requires --playlist"),
        (["features", "--playlist", "x.json"], "--playlist requires --out"),
        (["evaluate", "--playlists", "x.json"], "--playlists requires --model"),
        (["evaluate", "--csv", "x.csv", "--artists", "a"], "--artists requires --playlists"),
        (
            ["evaluate", "--playlists", "x.json", "--captions", "c.json"],
            "--captions cannot be used with --playlists",
        ),
    ),
)
def test_options_that_cannot_be_combined_are_one_line_errors(arguments, message, capsys):
    assert message in fails(arguments, capsys)


def test_unusable_files_are_one_line_errors(folder, preset, capsys, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for name, message in (("gone.json", "gone.json"), ("bad.json", "Expected JSON")):
        assert message in fails(caption(folder, preset, playlist=tmp_path / name), capsys)
    path = write_json(tmp_path / "empty.json", {"id": "e", "tracks": [{"id": "t"}]})
    error = fails(caption(folder, preset, playlist=path), capsys)
    assert "None of 1 playlists has usable features, such as e: no features" in error
