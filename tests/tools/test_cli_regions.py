"""Tests of `effcap features` with photos, and of commands that take region features."""

from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Greedy
from effcap.tools import caption_regions, write_features
from effcap.tools.captioning.regions import find_datasets, trained_regions
from effcap.tools.cli import main
from effcap.tools.features import photos as feature_module
from effcap.trainers.data.regions.region_file import RegionFile
from helpers.cli_errors import fails
from helpers.data_maker import make_captioner, make_data
from helpers.region_maker import make_annotations, make_regions, region_hparams

GRID, FEATURE_DIM = 4, 8  # of the tiny network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """photos/, train.csv, dev.csv, a captioner of photos, a variant of regions, features."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_captioner().save_to_preset(folder / "preset")
    (folder / "tiny.json").write_text(json.dumps(region_hparams(FEATURE_DIM)))
    for name in ("train.csv", "dev.csv"):
        assert main(features_words(folder, folder / "f.hdf5", "--csv", folder / name)) == 0
    return folder


def features_words(folder, out, *options) -> list[str]:
    """Returns the arguments of `effcap features`."""
    model = ["--images", folder / "photos", "--model", folder / "preset", "--out", out]
    return ["features", *map(str, [*model, *options])]


def train_words(folder, out, *options) -> list[str]:
    """Returns the arguments of `effcap train regions`."""
    data = ["--features", folder / "f.hdf5", "--csv", folder / "train.csv", "--out", out]
    return ["train", "regions", *map(str, [*data, "--model", folder / "tiny.json", *options])]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """The folder of a run on half of the photos."""
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = (
        "decoder.fusion.tau=0.1",
        "decoder.vocabulary_size=300",
        "training.gradient_accumulation_steps=2",
        "training.num_cider_photos=0",
    )
    options = ["--val-csv", folder / "dev.csv", "--train-fraction", 0.5, "--epochs", 1]
    options += [word for setting in settings for word in ("--set", setting)]
    assert main(train_words(folder, out, *options)) == 0
    return out


def test_features_are_those_of_the_network(folder):
    backbone = Captioner.from_preset(folder / "preset").encoder.backbone
    photos = [load_photo(folder / "photos" / f"{i}.jpg", backbone.image_size) for i in (3, 15)]
    expected = keras.ops.convert_to_numpy(backbone(np.stack(photos)))
    with RegionFile(folder / "f.hdf5") as file:
        assert sorted(file.photo_keys()) == sorted(f"{i}.jpg" for i in range(17))
        for name, features in zip(("3.jpg", "15.jpg"), expected, strict=True):
            read = file.read(file.find_dataset([name]), FEATURE_DIM)
            np.testing.assert_allclose(read, features, rtol=1e-5, atol=1e-6)
        assert file.attributes["network"] == "a Keras model" and file.attributes["grid"] == GRID


def test_existing_features_are_not_computed_again(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "f.hdf5"
    assert main(features_words(folder, out, "--csv", folder / "dev.csv")) == 0
    computed: list = []
    monkeypatch.setattr(
        feature_module, "extract_features", lambda _, photos, *__: computed.extend(photos) or ()
    )
    assert main(features_words(folder, out, folder / "photos")) == 0
    assert sorted(path.name for path in computed) == sorted(f"{i}.jpg" for i in range(12))
    assert "5 of 17 photos were in the file already" in capsys.readouterr().err


def test_features_before_an_interruption_are_kept(folder, tmp_path, monkeypatch, capsys):
    out, load_batches = tmp_path / "f.hdf5", feature_module.load_batches
    calls = []

    def interrupt_first(paths, *options):
        calls.append(paths)
        for number, batch in enumerate(load_batches(paths, *options)):
            if number == 2 and len(calls) == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(feature_module, "load_batches", interrupt_first)
    words = features_words(folder, out, folder / "photos", "--batch-size", 4)
    assert main(words) == 130
    assert "stopped with features of 8 photos; start again to continue" in capsys.readouterr().err
    assert not out.exists()
    assert main(words) == 0
    assert [len(paths) for paths in calls] == [17, 17 - 8]
    with RegionFile(out) as file:
        assert len(file.photo_keys()) == 17
    assert [path.name for path in tmp_path.iterdir()] == ["f.hdf5"]


def test_unreadable_photos_are_skipped_and_counted(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(folder / "photos", photos)
    (photos / "3.jpg").write_bytes(b"no photo")
    words = features_words(folder, tmp_path / "f.hdf5", "--csv", folder / "train.csv")
    assert main([*words, "--images", str(photos), "--dtype", "float16"]) == 0
    printed = capsys.readouterr().err
    assert "3.jpg" in printed and "1 of 12 photos cannot be read" in printed
    assert f"--set encoder.feature_dim={FEATURE_DIM}" in printed
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert len(file.photo_keys()) == 11 and file.find_dataset(["3.jpg"]) is None
        assert file.layout("4.jpg_features").dtype == np.float16


def test_features_can_be_written_from_python(folder, tmp_path):
    captioner = Captioner.from_preset(folder / "preset")
    photo, broken = folder / "photos" / "1.jpg", tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    written = write_features([photo, broken], captioner, tmp_path / "f.hdf5", batch_size=2)
    assert (written.num_positions, written.feature_dim) == (GRID, FEATURE_DIM)
    assert [path for path, _ in written.skipped] == [broken] and written.num_existing == 0
    with RegionFile(written.path) as file, RegionFile(folder / "f.hdf5") as other:
        assert file.photo_keys() == ["1.jpg"]
        read = [f.read("1.jpg_features", FEATURE_DIM) for f in (file, other)]
        np.testing.assert_allclose(*read, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="Expected network in"):
        write_features(photo, "resnet1", tmp_path / "other.hdf5")


def test_photos_of_coco_keep_their_ids(folder, tmp_path):
    annotations = make_annotations(tmp_path / "a.json", range(7, 10), "{}.jpg")
    words = features_words(folder, tmp_path / "f.hdf5", "--annotations", annotations)
    assert main(words) == 0
    shutil.copy(folder / "photos" / "1.jpg", tmp_path / "COCO_val2014_000000000042.jpg")
    words = features_words(folder, tmp_path / "f.hdf5", tmp_path / "COCO_val2014_000000000042.jpg")
    assert main(words) == 0
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert sorted(file.photo_keys()) == ["42", "7", "8", "9"]


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ([], "Give one of PHOTO ..., --csv and --annotations. Received: none"),
        (["x.jpg", "--csv", "a.csv"], "Received: photos and csv"),
        (["x.jpg", "--backbone", "efficientnet_b0"], "--backbone or --model. Received: both"),
        (["x.jpg", "--image-size", "64", "64"], "--image-size cannot be used with --model"),
        (["x.jpg", "--batch-size", "0"], "--batch-size of at least 1"),
        (["x.jpg", "--out", "."], "--out must be a file. Received: ., a folder"),
        (["nothing.jpg"], "nothing.jpg"),
        (["--csv", "nothing.csv"], "nothing.csv"),
    ),
)
def test_mistakes_are_reported_before_keras_starts(
    folder, tmp_path, options, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.features.start_keras", lambda: pytest.fail("started"))
    assert message in fails(features_words(folder, tmp_path / "f.hdf5", *options), capsys)
    assert list(tmp_path.iterdir()) == []


def test_photos_of_one_name_are_distinguished_by_their_folders(folder, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "photos" / "1.jpg", tmp_path / name)
    line = fails(features_words(folder, tmp_path / "f.hdf5", tmp_path), capsys)
    assert "would share the key 1.jpg" in line
    (tmp_path / "c.csv").write_text("image,caption\na/1.jpg,A dog.\nb/1.jpg,A cat.\n")
    words = features_words(folder, tmp_path / "f.hdf5", "--csv", tmp_path / "c.csv")
    assert main([*words, "--images", str(tmp_path)]) == 0
    with RegionFile(tmp_path / "f.hdf5") as file:
        assert sorted(file.photo_keys()) == ["a/1.jpg", "b/1.jpg"]


def test_features_of_two_networks_are_not_mixed(folder, capsys):
    words = features_words(folder, folder / "f.hdf5", folder / "photos", "--dtype", "float16")
    assert "made with dtype='float16'. Received: dtype='float32'" in fails(words, capsys)


@pytest.mark.slow
def test_a_run_records_its_configuration(trained):
    record = json.loads((trained / "run.json").read_text())
    assert record["hparams"]["decoder"]["fusion"]["tau"] == 0.1
    assert record["hparams"]["training"]["gradient_accumulation_steps"] == 2
    assert record["train_fraction"] == 0.5 and record["data"]["training"]["photos"] == 6
    assert record["data"]["validation"]["photos"] == 5
    chosen = (trained / "photos_training.txt").read_text().splitlines()
    assert len(set(chosen)) == 6 and set(chosen) < {f"{i}.jpg" for i in range(12)}
    captioner = Captioner.from_preset(trained)
    assert captioner.encoder.feature_dim == FEATURE_DIM
    assert record["finished"]["scores"]["val_loss"] > 0


@pytest.mark.slow
def test_captions_are_those_of_the_captioner(folder, trained, tmp_path):
    out = tmp_path / "captions.json"
    words = ["caption", "--features", str(folder / "f.hdf5"), "--model", str(trained)]
    words += ["--sampler", "greedy", "--max-new-tokens", "5", "--batch-size", "4"]
    assert main([*words, "--out", str(out)]) == 0
    captions = {entry["image"]: entry["caption"] for entry in json.loads(out.read_text())}
    assert sorted(captions) == sorted(f"{i}.jpg" for i in range(17))
    captioner, sampler = Captioner.from_preset(trained), Greedy(max_new_tokens=5)
    with RegionFile(folder / "f.hdf5") as file:
        regions = file.read("3.jpg_features", FEATURE_DIM)[None]  # (1,N,C)
        results = caption_regions(file, captioner, sampler, keys=["3.jpg"])
    ((best, *_),) = captioner.generate_batch({"regions": regions}, sampler)
    ((key, (caption,)),) = results.captions
    assert captions["3.jpg"] == best.text == caption.text and key == "3.jpg"


def test_photos_are_found_by_their_keys(folder):
    with RegionFile(folder / "f.hdf5") as file:
        assert find_datasets(file, ["3.jpg"]) == {"3.jpg_features": "3.jpg"}
        assert len(find_datasets(file, None)) == 17
        with pytest.raises(ValueError, match="no features of 99.jpg .* such as 0.jpg_features"):
            find_datasets(file, ["3.jpg", "99.jpg"])


@pytest.mark.slow
def test_captions_of_coco_photos_are_scored_by_their_ids(folder, trained, tmp_path):
    annotations = make_annotations(tmp_path / "captions.json", range(4), "{}.jpg")
    shutil.copytree(folder / "photos", tmp_path / "photos")
    words = features_words(folder, tmp_path / "f.hdf5", "--annotations", annotations)
    assert main(words) == 0
    features, out = ["--features", str(tmp_path / "f.hdf5")], tmp_path / "out.json"
    sampling = ["--model", str(trained), "--sampler", "greedy", "--max-new-tokens", "5"]
    assert main(["caption", *features, *sampling, "--out", str(out)]) == 0
    assert [entry["image_id"] for entry in json.loads(out.read_text())] == [0, 1, 2, 3]
    scores = []
    for scored in ([*features, *sampling], ["--captions", str(out)]):
        path = tmp_path / "scores.json"
        words = ["evaluate", "--references", str(annotations), *scored, "--json", str(path)]
        assert main(words) == 0
        scores.append(json.loads(path.read_text())["scores"])
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_photos_without_features_are_counted_in_scores(folder, trained, tmp_path, capsys):
    text = (folder / "dev.csv").read_text() + "other.jpg,A red square.\n"
    (tmp_path / "c.csv").write_text(text)
    words = ["evaluate", "--features", str(folder / "f.hdf5"), "--csv", str(tmp_path / "c.csv")]
    words += ["--model", str(trained), "--sampler", "greedy", "--max-new-tokens", "3"]
    assert main([*words, "--json", str(tmp_path / "s.json")]) == 0
    counts = json.loads((tmp_path / "s.json").read_text())["counts"]
    assert counts["photos"] == 5 and counts["photos not captioned"] == 1
    assert "other.jpg" in capsys.readouterr().err


def scst_words(folder, trained, out) -> list[str]:
    """Returns the arguments of a run with the objective scst."""
    words = train_words(folder, out, "--objective", "scst", "--steps", 2)
    words += ["--set", "scst.num_samples=2", "--set", "scst.max_new_tokens=5"]
    words[words.index("--model") + 1] = str(trained)
    return words


@pytest.mark.slow
def test_the_objective_scst_takes_region_features(folder, trained, tmp_path, monkeypatch):
    calls: list = []
    monkeypatch.setattr("effcap.trainers.engine.run.train", lambda *args, **_: calls.append(args))
    assert main(scst_words(folder, trained, tmp_path / "run")) == 0
    captioner, objective, batches, *_ = calls[0]
    inputs = batches.training[0][0]
    assert inputs["regions"].shape[1:] == (GRID, FEATURE_DIM)
    assert batches.training.num_images == 12 and type(objective).__name__ == "Scst"
    assert captioner.encoder.feature_dim == FEATURE_DIM


@pytest.mark.slow
def test_scst_on_region_features_logs_rewards(folder, trained, tmp_path):
    assert main(scst_words(folder, trained, tmp_path / "run")) == 0
    assert "reward" in json.loads((tmp_path / "run" / "run.json").read_text())["finished"]["scores"]


@pytest.mark.slow
def test_captioning_uses_as_many_regions_as_training(folder, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "best" / "training.json"
    record = json.loads(path.read_text())
    assert trained_regions(tmp_path / "run" / "best") is None
    path.write_text(json.dumps({**record, "config": {**record["config"], "max-regions": 77}}))
    opened: list = []

    def stop(file, *_):
        opened.append(file.max_regions)
        raise InterruptedError

    monkeypatch.setattr("effcap.tools.captioning.regions.caption_datasets", stop)
    options = ["--features", str(folder / "f.hdf5"), "--model", str(tmp_path / "run")]
    for words in (["caption"], ["evaluate", "--csv", str(folder / "dev.csv")]):
        assert main([*words, *options]) == 2
        assert main([*words, *options, "--max-regions", "9"]) == 2
    assert opened == [77, 9, 77, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--features", "none.hdf5"], "HDF5 file of region features not found: none.hdf5"),
        (["--max-regions", "3"], "use --max-regions 4"),
        (["--max-regions", "0"], "max_regions=0"),
        (["--annotations", "a.json"], "Give --csv or --json, not both"),
        (["--horizontal-flip"], "unknown: --horizontal-flip"),
    ),
)
def test_mistakes_in_training_are_reported_before_keras_starts(
    folder, tmp_path, options, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.train.start_keras", lambda: pytest.fail("started"))
    assert message in fails(train_words(folder, tmp_path / "run", *options), capsys)


def test_training_without_features_is_an_error(folder, tmp_path, capsys):
    words = train_words(folder, tmp_path / "run")
    at = words.index("--features")
    line = fails([*words[:at], *words[at + 2 :]], capsys)
    assert "the following arguments are required: --features" in line


def test_a_wrong_width_is_reported_with_the_setting(folder, tmp_path, capsys):
    words = train_words(folder, tmp_path / "run", "--set", "encoder.feature_dim=5")
    line = fails(words, capsys)
    assert f"width 5 (encoder.feature_dim). Received: width {FEATURE_DIM}" in line
    assert line.rstrip().endswith(f"--set encoder.feature_dim={FEATURE_DIM}")


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["caption", "x.jpg", "--features", "f.hdf5"], "one of PHOTO, --shards and --features"),
        (["caption", "--keys", "3"], "--keys requires --features"),
        (["caption", "--features", "f", "--page", "p.html"], "--page cannot be used with --fea"),
        (["caption", "--features", "FILE", "--keys", "99.jpg"], "There are no features of 99.jpg"),
    ),
)
def test_mistakes_in_captioning_are_reported_in_one_line(folder, words, message, capsys):
    words = [str(folder / "f.hdf5") if word == "FILE" else word for word in words]
    assert message in fails(words, capsys)


def test_captioners_of_photos_caption_features_of_their_backbone(folder, tmp_path, capsys):
    sampling = ["--sampler", "greedy", "--max-new-tokens", "5", "--batch-size", "4"]
    sampling += ["--model", str(folder / "preset")]
    captions = []
    for inputs in (["--features", folder / "f.hdf5", "--keys", "0.jpg", "9.jpg"],
                   [folder / "photos" / "0.jpg", folder / "photos" / "9.jpg"]):  # fmt: skip
        assert main(["caption", *map(str, inputs), *sampling]) == 0
        lines = capsys.readouterr().out.splitlines()
        captions.append([line.partition("\t")[2] for line in lines])
    assert captions[0] == captions[1] and len(captions[0]) == 2


@pytest.mark.slow
def test_captioners_of_regions_caption_no_photos(folder, trained, capsys):
    words = ["caption", str(folder / "photos" / "1.jpg"), "--model", str(trained)]
    message = "Expected a captioner of photos. Received: a captioner of regions"
    assert message in fails(words, capsys)
    words = ["features", str(folder / "photos"), "--model", str(trained), "--out", "x.hdf5"]
    assert message in fails(words, capsys)


@pytest.mark.slow
def test_features_of_another_width_are_reported_when_captioning(trained, tmp_path, capsys):
    make_regions(tmp_path / "f.hdf5", 2, "{}")
    words = ["caption", "--features", str(tmp_path / "f.hdf5"), "--model", str(trained)]
    line = fails(words, capsys)
    assert (
        f"None of the features of 2 photos can be used: expected 0 of width {FEATURE_DIM}" in line
    )


@pytest.mark.slow
def test_unusable_features_are_skipped_and_counted_when_captioning(trained, tmp_path, capsys):
    features = np.ones((2, FEATURE_DIM), np.float32)
    path = make_regions(tmp_path / "f.hdf5", 2, "{}", good=features)
    words = ["caption", "--features", str(path), "--model", str(trained), "--sampler", "greedy"]
    assert main([*words, "--max-new-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("good\t") and captured.out.count("\n") == 1
    lines = [line for line in captured.err.splitlines() if "skipped" in line]
    assert lines[0] == f"skipped: 0: expected 0 of width {FEATURE_DIM}. Received: 6"
    assert captured.err.splitlines()[-1] == "2 of 3 photos have features that cannot be used"
