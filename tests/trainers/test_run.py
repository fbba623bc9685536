"""A run: what it refuses before it starts, what it leaves out, what it records."""

from __future__ import annotations

import json
import os

import pytest
from helpers.data_maker import make_captioner, make_data, make_variant

from effcap.trainers import Problem, RunOptions, TooManyProblems, read_csv
from effcap.trainers.data.preparation import PhotoData
from effcap.trainers.engine import run as run_module
from effcap.trainers.engine.run import make_captioner as captioner_of
from effcap.trainers.engine.run import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    make_captioner().save_to_preset(folder / "run" / "best")
    return folder


@pytest.fixture
def trained(monkeypatch):
    """What `train` was given, in place of training."""
    given = []
    monkeypatch.setattr(run_module, "train", lambda *arguments, **named: given.append(arguments))
    return given


def options(folder, out, **changes) -> RunOptions:
    return RunOptions(
        **{"model": folder / "tiny.json", "out": out, "vocabulary_size": 300} | changes
    )


def data(folder, name="train"):
    return read_csv(folder / f"{name}.csv", folder / "photos")


@pytest.mark.parametrize("name", ("last", "best", "checkpoint.h5"))
def test_a_run_folder_of_an_earlier_run_is_refused_unless_to_go_on(folder, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match="an earlier run"):
        options(folder, tmp_path)
    assert options(folder, tmp_path, resume=True).folder == tmp_path


def test_a_run_folder_that_is_a_file_is_refused(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="which is a file"):
        options(folder, tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"max_bad": 2}, "max_bad=2"),
        ({"train_percentage": 0}, "train_percentage=0"),
        ({"train_percentage": 10}, "up to 1. Received: train_percentage=10"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes=0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0"),
        ({"weights": "none"}, "folder with GPT-2's weights. Received: none"),
        ({"settings": ["training.precision=half"]}, "precision='half'"),
        ({"settings": ["training.crop=0"]}, "crop=0"),
        ({"settings": ["training.gradient_accumulation=0"]}, "gradient_accumulation=0"),
        ({"model": "lite0-smal"}, r"variant \(.*lite0-small.*\).*Received: 'lite0-smal'"),
        ({"settings": ["training.epoch=3"]}, "Received: epoch"),
        ({"settings": ["training.epochs=abc"]}, "epochs to be int. Received: epochs='abc'"),
        ({"settings": ["decoder.dropout"]}, "like decoder.dropout=0.1"),
        ({"settings": ["decode.dropout=1"]}, "Received: decode"),
        ({"vocabulary_size": None, "tokenizer": "none"}, "tokenizer's folder. Received: none"),
        ({"tokenizer": "none"}, "Received: both"),
        ({"backbone_weights": "no.h5"}, "Received: 'no.h5'"),
    ),
)
def test_options_that_do_not_fit_are_refused_at_once(folder, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        options(folder, tmp_path / "out", **changes)


def test_a_run_folder_given_as_model_stands_for_its_best(folder, tmp_path):
    run_options = options(folder, tmp_path, model=folder / "run", vocabulary_size=None)
    assert run_options.preset == folder / "run" / "best"


@pytest.mark.parametrize(
    "changes",
    (
        {"tokenizer": "x"},
        {"vocabulary_size": 300},
        {"backbone_weights": "none"},
        {"weights": "x"},
    ),
)
def test_options_of_variants_are_not_ignored_for_presets(folder, tmp_path, changes):
    changes = {"vocabulary_size": None, **changes, "model": folder / "run" / "best"}
    with pytest.raises(ValueError, match="has its own. Received: "):
        options(folder, tmp_path, **changes)


def test_a_preset_goes_on_with_settings_changed(folder, tmp_path):
    changes = {"model": folder / "run" / "best", "vocabulary_size": None}
    settings = ["decoder.dropout=0.0", "encoder.backbone.trainable_blocks=all"]
    found = captioner_of([], options(folder, tmp_path, settings=settings, **changes))
    assert found.decoder.dropout == 0.0
    assert found.encoder.backbone.trainable_weights
    wanted = make_captioner()
    assert found.tokenizer == wanted.tokenizer
    for one, two in zip(found.weights, wanted.weights, strict=True):
        assert (one.numpy() == two.numpy()).all()


@pytest.mark.parametrize(
    "setting",
    (
        "decoder.layers=2",
        "decoder.width=32",
        "decoder.heads=3",
        "decoder.width=wide",
        "decoder.dropout=2",
        "decoder.colour=red",
        "encoder.backbone.trainable_blocks=9",
        "encoder.backbone.image_size=[13,13]",
        "encoder.kind=ears",
    ),
)
def test_settings_that_do_not_fit_name_themselves(folder, tmp_path, setting):
    changes = {"model": folder / "run" / "best", "vocabulary_size": None}
    with pytest.raises(ValueError, match="Cannot make .* with ") as caught:
        captioner_of([], options(folder, tmp_path, settings=[setting], **changes))
    assert setting in str(caught.value)


def test_what_is_left_out_is_told_written_and_recorded(folder, tmp_path, trained, capsys):
    photos, problems = data(folder)
    problems = [Problem("train.csv, line 9", "empty caption of x.jpg")]
    photos[3].path.touch()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"GIF?")
    photos[0] = type(photos[0])(broken, photos[0].captions)
    photos[1] = type(photos[1])(photos[1].path, (*photos[1].captions, "red " * 99))
    with pytest.raises(TooManyProblems, match=r"3 of 26 captions \(11.54%\)"):
        run((photos, problems), None, options(folder, tmp_path / "1"))
    run((photos, problems), None, options(folder, tmp_path / "1", max_bad=0.2))
    lines = (tmp_path / "1" / "left_out_training.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "train.csv, line 9",
        str(broken),
        str(photos[1].path),
    ]
    assert "empty caption of x.jpg" in capsys.readouterr().err
    record = trained[0][5]
    assert record["data"]["training"]["left_out"] == 3
    assert record["data"]["training"]["captions"] == 23


def test_the_record_holds_the_exact_configuration(folder, tmp_path, trained):
    chosen = options(
        folder,
        tmp_path,
        settings=["training.epochs=3", "decoder.dropout=0.3"],
        command=["effcap", "train", "csv", "--csv", "my file.csv"],
        flags={"csv": ["my file.csv"]},
    )
    run(data(folder), data(folder, "dev"), chosen)
    captioner, training, validation, out, how, record, samples = trained[0]
    assert json.loads(json.dumps(record)) == record
    assert record["hparams"]["decoder"] == captioner.decoder.get_config()
    assert record["hparams"]["decoder"]["dropout"] == 0.3
    assert record["hparams"]["training"] == vars(how) and how.epochs == 3
    assert record["command"] == "effcap train csv --csv 'my file.csv'"
    assert record["data"]["validation"]["photos"] == 5
    names = [sample.photo.name for sample in samples]
    assert names == ["12.jpg", "13.jpg", "14.jpg", "15.jpg", "16.jpg"]


def test_cached_features_take_the_place_of_photos(folder, tmp_path, trained):
    chosen = options(folder, tmp_path, cache=tmp_path / "cache")
    run(data(folder), data(folder, "dev"), chosen)
    training, validation = trained[0][1:3]
    assert "features" in training[0][0] and "features" in validation[0][0]
    assert (tmp_path / "cache" / "training" / "features.npy").is_file()


def test_a_cache_for_a_backbone_in_training_is_refused_before_photos_are_read(folder, tmp_path):
    settings = ["encoder.backbone.trainable_blocks=all"]
    chosen = options(folder, tmp_path, cache=tmp_path / "cache", settings=settings)
    photos, _ = data(folder)
    missing = [type(photo)(tmp_path / "none.jpg", photo.captions) for photo in photos]
    with pytest.raises(ValueError, match="frozen backbone .* trainable_blocks='all'"):
        run((missing, []), None, chosen)


def test_a_run_that_has_ended_is_not_begun_again(folder, tmp_path, trained, capsys):
    (tmp_path / "run.json").write_text('{"finished": {}}')
    (tmp_path / "last").mkdir()
    assert run(data(folder), None, options(folder, tmp_path, resume=True)) == []
    assert "come to its end already" in capsys.readouterr().err and not trained


def test_a_share_of_the_photos_is_chosen_by_the_seed(folder, tmp_path, trained):
    for name, seed in (("1", 0), ("2", 0), ("3", 1)):
        settings = [f"training.seed={seed}"]
        chosen = options(folder, tmp_path / name, train_percentage=0.5, settings=settings)
        run(data(folder), None, chosen)
    first, again, other = (
        {str(path) for path in arguments[1].source.paths} for arguments in trained
    )
    assert first == again != other and len(first) == 6
    names = (tmp_path / "1" / "photos_training.txt").read_text().splitlines()
    assert sorted(names) == sorted(os.path.basename(path) for path in first)
    assert trained[0][5]["train_percentage"] == 0.5


def test_computing_in_bfloat16_keeps_weights_in_float32(folder, tmp_path, trained):
    run(data(folder), None, options(folder, tmp_path, settings=["training.precision=bfloat16"]))
    captioner = trained[0][0]
    assert captioner.decoder.compute_dtype == "bfloat16"
    assert {weight.dtype for weight in captioner.weights} == {"float32"}
    plain = captioner_of(PhotoData(*data(folder)), options(folder, tmp_path / "2"))
    assert plain.compute_dtype == "float32"


def test_gpt2s_weights_and_tokenizer_come_from_their_folder(folder, tmp_path, trained, monkeypatch):
    loaded = []
    monkeypatch.setattr(run_module, "load_gpt2", lambda *given: loaded.append(given) or "loaded")
    make_captioner().tokenizer.save(tmp_path / "tokenizer.json")
    chosen = options(folder, tmp_path / "run", weights=tmp_path, vocabulary_size=None)
    run(data(folder), None, chosen)
    assert loaded == [(trained[0][0], tmp_path)]
    assert trained[0][0].tokenizer == make_captioner().tokenizer


def test_crops_are_refused_with_cached_features(folder, tmp_path):
    chosen = options(folder, tmp_path, cache=tmp_path / "c", settings=["training.crop=0.5"])
    with pytest.raises(ValueError, match="no crop and no colour with cached features"):
        run(data(folder), None, chosen)
