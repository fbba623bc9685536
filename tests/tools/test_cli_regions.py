"""Photos become region features, and these a captioner, captions and scores."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest
from helpers.cli_errors import fails
from helpers.data_maker import make_captioner, make_data
from helpers.region_maker import make_annotations, make_regions, region_hparams

from effcap.caption import Caption
from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Greedy
from effcap.tools.cli import features as command
from effcap.tools.cli import main
from effcap.tools.cli.caption_regions import find_names, trained_regions
from effcap.trainers.data.regions.region_file import RegionFile

GRID, CHANNELS = 4, 8  # of the tiny network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """photos/, train.csv, dev.csv, a captioner of photos, a variant of regions, features."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_captioner().save_to_preset(folder / "sees")
    (folder / "tiny.json").write_text(json.dumps(region_hparams(CHANNELS)))
    for name in ("train.csv", "dev.csv"):
        assert main(features_words(folder, folder / "f.hdf5", "--csv", folder / name)) == 0
    return folder


def features_words(folder, out, *more) -> list[str]:
    given = ["--images", folder / "photos", "--model", folder / "sees", "--out", out, *more]
    return ["features", *map(str, given)]


def train_words(folder, out, *more) -> list[str]:
    given = ["--features", folder / "f.hdf5", "--csv", folder / "train.csv", "--out", out]
    return ["train", "regions", *map(str, [*given, "--model", folder / "tiny.json", *more])]


@pytest.fixture(scope="module")
def ran(folder, tmp_path_factory):
    """The folder of a run on half of the photos."""
    out = tmp_path_factory.mktemp("runs") / "run"
    given = ("--val-csv", folder / "dev.csv", "--tau", 0.1, "--train-percentage", 0.5)
    more = ("--gradient-accumulation", 2, "--vocab-size", 300, "--epochs", 1, "--cider-photos", 0)
    assert main(train_words(folder, out, *given, *more)) == 0
    return out


def test_features_are_the_networks(folder):
    backbone = Captioner.from_preset(folder / "sees").encoder.backbone
    photos = [load_photo(folder / "photos" / f"{i}.jpg", backbone.image_size) for i in (3, 15)]
    expected = keras.ops.convert_to_numpy(backbone(np.stack(photos)))
    with RegionFile(folder / "f.hdf5") as file:
        assert sorted(file.photos()) == sorted(f"{i}.jpg" for i in range(17))
        for name, features in zip(("3.jpg", "15.jpg"), expected, strict=True):
            read = file.read(file.find([name]), CHANNELS)
            np.testing.assert_allclose(read, features, rtol=1e-5, atol=1e-6)
        assert file.about["network"] == "a Keras model" and file.about["grid"] == GRID


def test_features_that_are_there_are_not_computed_again(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "f.hdf5"
    assert main(features_words(folder, out, "--csv", folder / "dev.csv")) == 0
    monkeypatch.setattr(
        command, "features_of", lambda backbone, paths, *_: asked.extend(paths) or ()
    )
    asked: list = []
    assert main(features_words(folder, out, folder / "photos")) == 0
    assert sorted(path.name for path in asked) == sorted(f"{i}.jpg" for i in range(12))
    assert "5 of 17 photos are there already" in capsys.readouterr().err


def test_what_is_interrupted_is_kept(folder, tmp_path, monkeypatch, capsys):
    out, real, seen = tmp_path / "f.hdf5", command.readable, []

    def interrupted(*given):
        for number, batch in enumerate(real(*given)):
            if number == 2 and not seen:
                seen.append(number)
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(command, "readable", interrupted)
    words = features_words(folder, out, folder / "photos", "--batch-size", 4)
    assert main(words) == 130
    assert "stopped with features of 8 photos; the same command goes on" in capsys.readouterr().err
    assert not out.exists()
    calls = []
    monkeypatch.setattr(
        command, "readable", lambda paths, *more: calls.append(paths) or real(paths, *more)
    )
    assert main(words) == 0
    assert len(calls[0]) == 17 - 8
    with RegionFile(out) as file:
        assert len(file.photos()) == 17
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]


def test_unreadable_photos_are_skipped_and_counted(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(folder / "photos", photos)
    (photos / "3.jpg").write_bytes(b"no photo")
    words = features_words(folder, tmp_path / "f.hdf5", "--csv", folder / "train.csv")
    assert main([*words, "--images", str(photos), "--dtype", "float16"]) == 0
    told = capsys.readouterr().err
    assert "3.jpg" in told and "1 of 12 photos could not be read" in told
    assert f"--set encoder.channels={CHANNELS}" in told
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert len(file.photos()) == 11 and file.find(["3.jpg"]) is None
        assert file.place("4.jpg_features").dtype == np.float16


def test_photos_of_coco_keep_their_ids(folder, tmp_path):
    annotations = make_annotations(tmp_path / "a.json", range(7, 10), "{}.jpg")
    words = features_words(folder, tmp_path / "f.hdf5", "--annotations", annotations)
    assert main(words) == 0
    shutil.copy(folder / "photos" / "1.jpg", tmp_path / "COCO_val2014_000000000042.jpg")
    words = features_words(folder, tmp_path / "f.hdf5", tmp_path / "COCO_val2014_000000000042.jpg")
    assert main(words) == 0
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert sorted(file.photos()) == ["42", "7", "8", "9"]


@pytest.mark.parametrize(
    ("more", "message"),
    (
        ([], "Expected one of PHOTO ..., --csv and --annotations. Received: none"),
        (["x.jpg", "--csv", "a.csv"], "Received: several"),
        (["x.jpg", "--backbone", "efficientnet_b0"], "Expected --backbone or --model. Received: b"),
        (["x.jpg", "--image-size", "64", "64"], "Expected no --image-size"),
        (["x.jpg", "--batch-size", "0"], "--batch-size of at least 1"),
        (["x.jpg", "--out", "."], "Expected a file to write. Received: ., a folder"),
        (["nothing.jpg"], "nothing.jpg"),
        (["--csv", "nothing.csv"], "nothing.csv"),
    ),
)
def test_mistakes_are_told_before_tensorflow_starts(
    folder, tmp_path, more, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.features.start_keras", lambda: pytest.fail("started"))
    assert message in fails(features_words(folder, tmp_path / "f.hdf5", *more), capsys)
    assert list(tmp_path.iterdir()) == []


def test_photos_of_one_name_are_told_apart_by_their_folders(folder, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "photos" / "1.jpg", tmp_path / name)
    line = fails(features_words(folder, tmp_path / "f.hdf5", tmp_path), capsys)
    assert "Expected photos whose names differ" in line
    (tmp_path / "c.csv").write_text("image,caption\na/1.jpg,A dog.\nb/1.jpg,A cat.\n")
    words = features_words(folder, tmp_path / "f.hdf5", "--csv", tmp_path / "c.csv")
    assert main([*words, "--images", str(tmp_path)]) == 0
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert sorted(file.photos()) == ["a/1.jpg", "b/1.jpg"]


def test_features_of_two_networks_are_not_mixed(folder, tmp_path, capsys):
    words = features_words(folder, folder / "f.hdf5", folder / "photos", "--dtype", "float16")
    assert "made in the same way: dtype='float16'. Received: dtype='float32'" in fails(
        words, capsys
    )


def test_a_run_is_the_papers(ran):
    record = json.loads((ran / "run.json").read_text())
    assert record["hparams"]["decoder"]["fusion"]["tau"] == 0.1
    assert record["hparams"]["training"]["gradient_accumulation"] == 2
    assert record["train_percentage"] == 0.5 and record["data"]["training"]["photos"] == 6
    assert record["data"]["validation"]["photos"] == 5
    chosen = (ran / "photos_training.txt").read_text().splitlines()
    assert len(set(chosen)) == 6 and set(chosen) < {f"{i}.jpg" for i in range(12)}
    captioner = Captioner.from_preset(ran)
    assert captioner.encoder.channels == CHANNELS
    assert record["finished"]["scores"]["val_loss"] > 0


def test_captions_are_those_of_the_captioner(folder, ran, tmp_path):
    out = tmp_path / "captions.json"
    words = ["caption", "--features", str(folder / "f.hdf5"), "--model", str(ran)]
    words += ["--sampler", "greedy", "--max-tokens", "5", "--batch-size", "4"]
    assert main([*words, "--out", str(out)]) == 0
    found = {entry["image"]: entry["caption"] for entry in json.loads(out.read_text())}
    assert sorted(found) == sorted(f"{i}.jpg" for i in range(17))
    with RegionFile(folder / "f.hdf5") as file:
        regions = file.read("3.jpg_features", CHANNELS)[None]
    captioner = Captioner.from_preset(ran)
    ((best, *_),) = captioner.generate_batch({"regions": regions}, Greedy(max_tokens=5))
    assert found["3.jpg"] == best.text


def test_photos_are_chosen_by_their_keys(folder):
    with RegionFile(folder / "f.hdf5") as file:
        assert find_names(file, ["3.jpg"]) == {"3.jpg_features": "3.jpg"}
        assert len(find_names(file, None)) == 17
        with pytest.raises(ValueError, match="such as 0.jpg_features. Received: 99.jpg"):
            find_names(file, ["3.jpg", "99.jpg"])


def test_captions_of_coco_photos_are_scored_by_their_ids(folder, ran, tmp_path, capsys):
    annotations = make_annotations(tmp_path / "captions.json", range(4), "{}.jpg")
    shutil.copytree(folder / "photos", tmp_path / "photos")
    words = features_words(folder, tmp_path / "f.hdf5", "--annotations", annotations)
    assert main(words) == 0
    features, out = ["--features", str(tmp_path / "f.hdf5")], str(tmp_path / "out.json")
    sampling = ["--model", str(ran), "--sampler", "greedy", "--max-tokens", "5"]
    assert main(["caption", *features, *sampling, "--out", out]) == 0
    assert [entry["image_id"] for entry in json.loads((tmp_path / "out.json").read_text())] == [
        0,
        1,
        2,
        3,
    ]
    scores = []
    for scored in ([*features, *sampling], ["--captions", out]):
        path = tmp_path / "scores.json"
        words = ["evaluate", "--references", str(annotations), *scored, "--json", str(path)]
        assert main(words) == 0
        scores.append(json.loads(path.read_text())["scores"])
    assert scores[0] == scores[1]


def test_photos_without_features_are_counted_in_scores(folder, ran, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "effcap.tools.cli.caption_regions.caption_regions",
        lambda captioner, file, names, *_: [(n, [Caption("A dog.", -1.0, (1,))]) for n in names],
    )
    lines = (folder / "dev.csv").read_text() + "other.jpg,A red square.\n"
    (tmp_path / "c.csv").write_text(lines)
    words = ["evaluate", "--features", str(folder / "f.hdf5"), "--csv", str(tmp_path / "c.csv")]
    words += ["--model", str(ran)]
    assert main([*words, "--json", str(tmp_path / "s.json")]) == 0
    counts = json.loads((tmp_path / "s.json").read_text())["counts"]
    assert counts["photos"] == 5 and counts["photos not captioned"] == 1
    assert "other.jpg" in capsys.readouterr().err


def scst_words(folder, ran, out) -> list[str]:
    words = train_words(folder, out, "--steps", 2, "--samples", 2, "--max-tokens", 5)
    words[1] = "scst"
    words[words.index("--model") + 1] = str(ran)
    return words


def test_self_critical_training_takes_features(folder, ran, tmp_path, monkeypatch):
    found: list = []
    monkeypatch.setattr(
        "effcap.trainers.engine.run.train", lambda *rest, **more: found.append(rest)
    )
    assert main(scst_words(folder, ran, tmp_path / "run")) == 0
    captioner, batches, *_ = found[0]
    inputs = batches[0][0]
    assert inputs["regions"].shape[1:] == (GRID, CHANNELS) and batches.images == 12
    assert captioner.encoder.channels == CHANNELS


@pytest.mark.slow
def test_self_critical_training_on_features_runs(folder, ran, tmp_path):
    assert main(scst_words(folder, ran, tmp_path / "run")) == 0
    assert "reward" in json.loads((tmp_path / "run" / "run.json").read_text())["finished"]["scores"]


def test_as_many_regions_are_captioned_from_as_were_trained_on(ran, tmp_path, monkeypatch):
    shutil.copytree(ran, tmp_path / "run")
    record = tmp_path / "run" / "best" / "training.json"
    content = json.loads(record.read_text())
    assert trained_regions(tmp_path / "run" / "best") is None
    record.write_text(json.dumps({**content, "flags": {**content["flags"], "max-regions": 77}}))
    opened: list = []
    monkeypatch.setattr(RegionFile, "__init__", lambda self, *given: opened.append(given) or 1 / 0)
    for more, limit in (([], 77), (["--max-regions", "9"], 9)):
        for words in (["caption"], ["evaluate", "--csv", str(tmp_path / "c.csv")]):
            (tmp_path / "c.csv").write_text("image,caption\n1.jpg,A dog.\n")
            with pytest.raises(ZeroDivisionError):
                main([*words, "--features", "f", "--model", str(tmp_path / "run"), *more])
            assert opened.pop()[1] == limit


@pytest.mark.parametrize(
    ("more", "message"),
    (
        (["--features", "none.hdf5"], "Expected an HDF5 file of region features. Received: none.h"),
        (["--max-regions", "3"], "use --max-regions 4"),
        (["--max-regions", "0"], "max_regions=0"),
        (["--tau", "high"], "argument --tau"),
        (["--annotations", "a.json"], "Expected --csv or --json. Received: both"),
    ),
)
def test_mistakes_in_training_are_told_before_tensorflow_starts(
    folder, tmp_path, more, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.train.start_keras", lambda: pytest.fail("started"))
    assert message in fails(train_words(folder, tmp_path / "run", *more), capsys)


def test_training_without_features_says_what_is_missing(folder, tmp_path, capsys):
    words = train_words(folder, tmp_path / "run")
    at = words.index("--features")
    line = fails([*words[:at], *words[at + 2 :]], capsys)
    assert "the following arguments are required: --features" in line


def test_a_width_that_does_not_fit_is_one_line_with_the_setting(folder, tmp_path, capsys):
    words = train_words(folder, tmp_path / "run", "--set", "encoder.channels=5")
    line = fails(words, capsys)
    assert f"width 5 (encoder.channels). Received: width {CHANNELS}" in line
    assert line.rstrip().endswith(f"--set encoder.channels={CHANNELS}")


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["caption", "x.jpg", "--features", "f.hdf5"], "Expected photos, --shards or --features"),
        (["caption", "--keys", "3"], "Expected --features with --keys"),
        (["caption", "x.jpg", "--max-regions", "3"], "Expected --features with --max-regions"),
        (["caption", "--features", "f.hdf5", "--page", "p.html"], "no --page with --features"),
        (["caption", "--features", "FILE", "--keys", "99.jpg"], "such as 0.jpg_features. Received"),
        (["evaluate", "--csv", "a", "--captions", "b", "--features", "c"], "no --features, which"),
    ),
)
def test_mistakes_in_captioning_are_one_line(folder, words, message, capsys):
    given = [str(folder / "f.hdf5") if word == "FILE" else word for word in words]
    assert message in fails(given, capsys)


def test_captioners_of_photos_and_of_regions_are_told_apart(folder, ran, capsys):
    words = ["caption", "--features", str(folder / "f.hdf5"), "--model", str(folder / "sees")]
    assert "Expected a captioner of region features" in fails(words, capsys)
    words = ["caption", str(folder / "photos" / "1.jpg"), "--model", str(ran)]
    assert "Expected a captioner of photos. Received: one of regions" in fails(words, capsys)
    words = ["features", str(folder / "photos"), "--model", str(ran), "--out", "x.hdf5"]
    assert "Expected a captioner of photos" in fails(words, capsys)


def test_features_of_another_width_are_named_when_captioning(ran, tmp_path, capsys):
    make_regions(tmp_path / "f.hdf5", 2, "{}")
    assert main(["caption", "--features", str(tmp_path / "f.hdf5"), "--model", str(ran)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"skipped: expected 0 of width {CHANNELS}. Received: 6"
    assert told[2] == "2 of 2 photos have features that cannot be used"
