"""Tests of ClipCap on vectors of CLIP: conversion of its files, training, captioning, scores."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import keras
import numpy as np
import pytest

from effcap.backbones.registry import BACKBONES
from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Greedy
from effcap.tokenizers import Tokenizer
from effcap.tools import convert_clipcap, write_feature_arrays
from effcap.tools.cli import main
from effcap.tools.cli.caption_regions import photo_entry
from effcap.trainers import RegionFeatures, read_json
from effcap.trainers.data.regions.region_file import RegionFile
from helpers.captioners import randomize
from helpers.cli_errors import fails
from helpers.clip_files import SPECS, VIT
from helpers.data_maker import make_photos
from helpers.region_maker import COLORS

WIDTH, SIDE = 24, 32  # of the tiny CLIP
NUM_PHOTOS = 8


@pytest.fixture(autouse=True)
def tiny_clip(monkeypatch):
    """A tiny network under the name of CLIP's."""
    monkeypatch.setitem(BACKBONES, VIT, SPECS[VIT])


def vector(number: int) -> np.ndarray:
    """Returns the vector (C,) of a photo."""
    return np.random.default_rng(number).normal(size=WIDTH).astype(np.float32)


def write_clipcap(path: Path, numbers=range(NUM_PHOTOS), captions_per_photo: int = 2) -> Path:
    """Writes a file of ClipCap, with a vector for each caption as parse_coco.py does."""
    numbers = [number for number in numbers for _ in range(captions_per_photo)]
    entries = [
        {
            "image_id": str(100 + number),
            "id": row,
            "caption": f"{('A', 'There is a')[row % 2]} {COLORS[number % 4]} square.",
            "clip_embedding": row,
        }
        for row, number in enumerate(numbers)
    ]
    vectors = np.stack([vector(number) for number in numbers])  # (N,C)
    path.write_bytes(pickle.dumps({"clip_embedding": vectors, "captions": entries}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """f.hdf5 with f.json, val.json of four of its photos, and the variant tiny.json."""
    folder = tmp_path_factory.mktemp("data")
    convert_clipcap(write_clipcap(folder / "train.pkl"), folder / "f.hdf5")
    convert_clipcap(write_clipcap(folder / "val.pkl", range(4)), folder / "val.hdf5")
    backbone = {"network": VIT, "image_size": [SIDE, SIDE], "output": "embedding"}
    mapper = {"kind": "clipcap-mlp", "prefix_length": 3}
    decoder = {"kind": "gpt2", "vocabulary_size": None, "max_sequence_length": 32}
    decoder |= {"hidden_dim": 16, "num_heads": 2, "num_layers": 1}
    hparams = {
        "encoder": {"kind": "backbone", "backbone": backbone, "pooling": "mean"},
        "decoder": {**decoder, "fusion": {"kind": "prefix", "mapper": mapper}},
        "training": {"batch_size": 4, "epochs": 2, "learning_rate": 3e-3},
    }
    (folder / "tiny.json").write_text(json.dumps(hparams))
    return folder


def train_words(folder: Path, out: Path, *options: object) -> list[str]:
    """Returns the arguments of `effcap train regions`."""
    data = ["--features", folder / "f.hdf5", "--json", folder / "f.json", "--out", out]
    model = ["--model", folder / "tiny.json", "--backbone-weights", "none"]
    return ["train", "regions", *map(str, [*data, *model, *options])]


@pytest.fixture(scope="module")
def preset(folder):
    """The folder of a captioner that was not trained."""
    hparams = json.loads((folder / "tiny.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, VIT, SPECS[VIT])
        captioner = Captioner.from_hparams(hparams, Tokenizer.train(["A red square."], 280))
    randomize(captioner).save_to_preset(folder / "preset")
    return folder / "preset"


def caption_options(folder: Path, model: Path) -> list[str]:
    """Returns the options of captions of at most 5 tokens."""
    words = ["--features", folder / "f.hdf5", "--model", model, "--sampler", "greedy"]
    return [*map(str, words), "--max-new-tokens", "5"]


def test_a_file_of_clipcap_is_converted_with_all_captions(tmp_path, capsys):
    path, out = write_clipcap(tmp_path / "coco.pkl"), tmp_path / "new" / "f.hdf5"
    assert main(["features", "--clipcap", str(path), "--out", str(out)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"vectors of {NUM_PHOTOS} photos, width {WIDTH}: {out}" in lines
    assert f"{2 * NUM_PHOTOS} captions: {out.with_suffix('.json')}" in lines
    assert lines[-1].startswith(f"next: effcap train regions --features {out} --json {out.parent}")
    assert "--model clipcap-mlp" in lines[-1] and "output=embedding" in lines[-1]
    assert sorted(file.name for file in out.parent.iterdir()) == ["f.hdf5", "f.json"]
    examples = read_json(out.with_suffix(".json")).examples
    assert [example.name for example in examples] == [str(100 + n) for n in range(NUM_PHOTOS)]
    assert examples[1].captions == ("A green square.", "There is a green square.")
    with RegionFile(out) as file:
        assert file.grid == 1 and file.attributes["source"] == "coco.pkl"
        for number in (0, 7):
            read = file.read(file.find_dataset([str(100 + number)]), WIDTH)
            np.testing.assert_array_equal(read, vector(number)[None])


@pytest.mark.parametrize("width, network", ((512, "clip_vit_b32"), (640, "clip_rn50x4")))
def test_the_next_command_names_the_network_of_the_vectors(tmp_path, capsys, width, network):
    entry = {"image_id": "1", "caption": "A.", "clip_embedding": 0}
    content = {"clip_embedding": np.ones((1, width), np.float16), "captions": [entry]}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(content))
    words = ["features", "--clipcap", tmp_path / "c.pkl", "--out", tmp_path / "f.hdf5"]
    assert main([*map(str, words)]) == 0
    assert f"encoder.backbone.network={network} " in capsys.readouterr().err


def test_photos_whose_vectors_differ_are_counted(tmp_path, capsys):
    vectors = np.stack([vector(0), vector(0) * 1.0001, vector(1), vector(2)])  # (N,C)
    entries = [
        {"image_id": image, "caption": "A.", "clip_embedding": row}
        for row, image in enumerate("aabb")
    ]
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"clip_embedding": vectors, "captions": entries}))
    words = ["features", "--clipcap", tmp_path / "c.pkl", "--out", tmp_path / "f.hdf5"]
    assert main([*map(str, words)]) == 0
    assert "1 photos have several vectors that differ" in capsys.readouterr().err
    with RegionFile(tmp_path / "f.hdf5") as file:
        np.testing.assert_array_equal(file.read("b_features", WIDTH), vectors[2:3])


def test_conversion_replaces_no_file_and_leaves_none_after_an_error(tmp_path, capsys, monkeypatch):
    path = write_clipcap(tmp_path / "c.pkl")
    words = ["features", "--clipcap", str(path), "--out", str(tmp_path / "f.hdf5")]
    (tmp_path / "f.json").write_text("mine")
    assert f"{tmp_path}/f.json exists already" in fails(words, capsys)
    (tmp_path / "f.json").unlink()
    with pytest.raises(ValueError, match="exceed the range of float16"):
        vectors = vector(0)[None] * 1e6
        entry = {"image_id": "1", "caption": "A.", "clip_embedding": 0}
        path.write_bytes(pickle.dumps({"clip_embedding": vectors, "captions": [entry]}))
        convert_clipcap(path, tmp_path / "f.hdf5", dtype="float16")
    path.write_bytes(path.read_bytes()[:-10])
    assert "Cannot read" in fails(words, capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["c.pkl"]


@pytest.mark.parametrize(
    "options, message",
    (
        (["--out", "f.hdf5", "x.jpg"], "PHOTO cannot be used with --clipcap"),
        (["--out", "f.hdf5", "--backbone", VIT], "--backbone cannot be used with --clipcap"),
        (["--out", "f.hdf5", "--output", "tokens"], "--output cannot be used with --clipcap"),
        ([], "--clipcap requires --out FILE"),
        (["--out", "."], "--out must be a file"),
        (["--out", "f.json"], "Expected an HDF5 file, such as f.hdf5. Received: f.json"),
        (["--out", "f.hdf5"], "nothing.pkl"),
    ),
)
def test_mistakes_in_conversion_are_reported(options, message, capsys):
    assert message in fails(["features", "--clipcap", "nothing.pkl", *options], capsys)


def test_arrays_are_written_as_features(tmp_path):
    features = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float16)
    np.save(tmp_path / "f.npy", features)
    names = ["a/1.jpg", "COCO_val2014_000000000042.jpg", "7"]
    array = np.load(tmp_path / "f.npy", mmap_mode="r")
    write_feature_arrays(names, array, tmp_path / "f.hdf5", attributes={"network": "mine"})
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert sorted(file.photo_keys()) == ["42", "7", "a/1.jpg"]
        assert file.attributes["network"] == "mine" and file.grid == 2
        np.testing.assert_array_equal(file.read_stored("a/1.jpg_features"), features[0])
    for wrong, message in (
        ((names[:2], features), "a name for each of the 3 photos. Received: 2"),
        ((["7", "8", "7"], features), "Received: 7, whose key 7 is that of two photos"),
        ((names, features[0]), "Received: 2 names|a name for each of the 2"),
        ((names, features.astype(int)), "Expected floats of shape"),
        ((["a"], features[:1, :, :, None]), "Expected floats of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            write_feature_arrays(*wrong, tmp_path / "g.hdf5")
    assert not (tmp_path / "g.hdf5").exists()


def test_the_vectors_of_photos_are_written(tmp_path, capsys):
    make_photos(tmp_path / "photos", 3)
    network = ["--backbone", VIT, "--backbone-weights", "none", "--output", "embedding"]
    words = ["features", str(tmp_path / "photos"), *network, "--out", str(tmp_path / "f.hdf5")]
    assert main(words) == 0
    command = capsys.readouterr().err.splitlines()[-1]
    assert f"encoder.backbone.image_size=[{SIDE},{SIDE}]" in command
    assert "output=embedding" in command and "--backbone-weights none" in command
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert file.grid == 1 and file.layout("2.jpg_features")[:2] == (1, WIDTH)


def test_training_on_vectors_takes_the_captions_of_the_file(folder, tmp_path, monkeypatch):
    calls: list = []
    monkeypatch.setattr("effcap.trainers.engine.run.train", lambda *args: calls.append(args))
    options = ["--val-json", folder / "val.json"]
    assert main(train_words(folder, tmp_path / "run", *options)) == 0
    captioner, _, batches, *_ = calls[0]
    assert captioner.encoder.backbone.output_kind == "embedding"
    assert batches.training.num_images == NUM_PHOTOS and batches.validation.num_images == 4
    preview = batches.previews[1].inputs["features"]  # (1,C)
    np.testing.assert_array_equal(preview, vector(1)[None])


def test_captions_of_photos_are_those_of_their_vectors(folder, preset, tmp_path):
    captioner = Captioner.from_preset(preset)
    make_photos(tmp_path, 1)
    photo, sampler = tmp_path / "0.jpg", Greedy(max_new_tokens=5)
    pixels = load_photo(photo, captioner.encoder.image_size, captioner.encoder.fit)[None]
    features = keras.ops.convert_to_numpy(captioner.encoder.backbone(pixels))  # (1,1,C)
    (from_features,) = captioner.generate_batch({"features": features}, sampler)
    assert captioner.generate(photo, sampler) == from_features[0].text


def test_captions_of_vectors_are_written_under_their_ids_and_scored(folder, preset, tmp_path):
    out, scores = tmp_path / "captions.json", tmp_path / "scores.json"
    words = ["caption", *caption_options(folder, preset), "--keys", "103", "107"]
    assert main([*words, "--out", str(out)]) == 0
    assert [entry["image_id"] for entry in json.loads(out.read_text())] == [103, 107]
    words = ["evaluate", "--references", folder / "f.json", "--captions", out, "--json", scores]
    assert main([*map(str, words)]) == 0
    assert json.loads(scores.read_text())["counts"]["photos"] == 2


def test_numbers_of_eight_digits_are_names_and_not_ids():
    # parse_conceptual.py names photos "00000042".
    assert photo_entry("00000042") == {"image": "00000042"}
    assert photo_entry("42") == {"image_id": 42}


@pytest.mark.slow
def test_a_captioner_trained_on_vectors_has_scores(folder, tmp_path):
    run, scores = tmp_path / "run", tmp_path / "scores.json"
    validation = ["--val-json", folder / "val.json", "--set", "training.num_cider_photos=4"]
    assert main(train_words(folder, run, *validation)) == 0
    record = json.loads((run / "run.json").read_text())
    assert record["finished"]["scores"]["val_cider"] >= 0
    assert list((run / "tensorboard").rglob("events*"))
    words = ["evaluate", "--references", str(folder / "f.json"), *caption_options(folder, run)]
    assert main([*words, "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["counts"]["photos"] == NUM_PHOTOS


@pytest.mark.slow
def test_a_resumed_run_on_vectors_has_the_same_weights(folder, tmp_path, monkeypatch):
    options = ["--val-json", folder / "val.json", "--set", "training.num_cider_photos=4"]
    options += ["--set", "run.checkpoint_steps=1"]
    load, calls = RegionFeatures.load, []

    def load_or_stop(loader, *arguments):
        calls.append(arguments)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return load(loader, *arguments)

    whole, broken = (train_words(folder, tmp_path / name, *options) for name in ("1", "2"))
    assert main(whole) == 0
    monkeypatch.setattr(RegionFeatures, "load", load_or_stop)
    assert main(broken) == 130
    monkeypatch.undo()
    monkeypatch.setitem(BACKBONES, VIT, SPECS[VIT])
    assert main([*broken, "--resume"]) == 0
    weights = [Captioner.from_preset(tmp_path / name / "last").weights for name in ("1", "2")]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))


@pytest.mark.slow
def test_the_objective_scst_takes_vectors(folder, preset, tmp_path):
    words = train_words(folder, tmp_path / "run", "--objective", "scst", "--steps", 1)
    at = words.index("--backbone-weights")
    words = words[:at] + words[at + 2 :]
    words[words.index("--model") + 1] = str(preset)
    assert main([*words, "--set", "scst.num_samples=2", "--set", "scst.max_new_tokens=4"]) == 0
    assert "reward" in json.loads((tmp_path / "run" / "run.json").read_text())["finished"]["scores"]


@pytest.mark.parametrize("rows, width", ((1, WIDTH + 1), (2, WIDTH)))
def test_features_of_another_shape_are_an_error(folder, preset, tmp_path, rows, width, capsys):
    names = [str(100 + number) for number in range(NUM_PHOTOS)]
    features = np.ones((NUM_PHOTOS, rows, width), np.float32)
    write_feature_arrays(names, features, tmp_path / "f.hdf5")
    words = train_words(folder, tmp_path / "run", "--features", tmp_path / "f.hdf5")
    message = f"(S, C) = (1, {WIDTH}), as of the captioner's backbone. Received: {(rows, width)}"
    assert message in fails(words, capsys)
    words = ["caption", "--features", str(tmp_path / "f.hdf5"), "--model", str(preset)]
    assert "None of the features of 8 photos can be used: expected" in fails(words, capsys)
