"""Runs: options rejected before training, data left out, the captioner made, the record."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from effcap.trainers import (
    Augmentation,
    DeviceOptions,
    Problem,
    RunOptions,
    ScstOptions,
    TooManyProblems,
    read_csv,
)
from effcap.trainers.engine import run as run_module
from effcap.trainers.engine.model import make_captioner as make_run_captioner
from effcap.trainers.engine.model import restrict_vocabulary
from effcap.trainers.engine.record import make_record
from effcap.trainers.engine.run import run
from effcap.trainers.objectives import CrossEntropy, Scst
from helpers.data_maker import make_captioner, make_data, make_variant


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    make_variant(folder / "tiny.json")
    make_captioner().save_to_preset(folder / "run" / "best")
    return folder


@pytest.fixture
def train_calls(monkeypatch):
    """Replaces training: each call adds its arguments (captioner, objective, batches, …)."""
    calls = []
    monkeypatch.setattr(run_module, "train", lambda *arguments: calls.append(arguments))
    return calls


def make_options(folder, out, **changes) -> RunOptions:
    variant = {"model": folder / "tiny.json", "out": out, "decoder": {"vocabulary_size": 300}}
    return RunOptions(**variant | changes)


def preset_options(folder, out, **changes) -> RunOptions:
    return RunOptions(model=folder / "run" / "best", out=out, **changes)


def read_data(folder, name="train"):
    return read_csv(folder / f"{name}.csv", folder / "photos")


@pytest.mark.parametrize("name", ("last", "best", "checkpoint.h5"))
def test_a_folder_with_an_earlier_run_requires_resume(folder, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError, match="an earlier run"):
        make_options(folder, tmp_path)
    assert make_options(folder, tmp_path, resume=True).folder == tmp_path


def test_a_run_folder_that_is_a_file_is_rejected(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        make_options(folder, tmp_path / "file")


TWO_PROCESSES = DeviceOptions(num_processes=2, coordinator="a:1")


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"max_bad": 2}, "max_bad=2"),
        ({"train_fraction": 0}, "train_fraction=0"),
        ({"train_fraction": 10}, "up to 1. Received: train_fraction=10"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes=0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0"),
        ({"weights": "none"}, "There is no folder none with pretrained weights"),
        ({"training": {"precision": "half"}}, "precision='half'"),
        ({"training": {"random_crop": 0.0}}, "random_crop=0"),
        ({"training": {"epoch": 3}}, "Received: epoch"),
        ({"training": {"epochs": "abc"}}, "epochs to be int. Received: epochs='abc'"),
        ({"model": "lite0-smal"}, r"variant \(.*lite0-small.*\).*Received: 'lite0-smal'"),
        ({"tokenizer": "none"}, "There is no folder none with a tokenizer"),
        ({"backbone_weights": "no.h5"}, "Received: .*no.h5"),
        ({"objective": "cider"}, "cross-entropy, scst. Received: objective='cider'"),
        ({"vocabulary": "few"}, "all, captions. Received: vocabulary='few'"),
        ({"scst": ScstOptions(num_samples=2)}, "scst options require objective='scst'"),
        ({"objective": "scst", "devices": DeviceOptions(count=2)}, "single device"),
        ({"feature_cache": "cache", "devices": TWO_PROCESSES}, "requires a single process"),
    ),
)
def test_wrong_options_are_rejected_at_once(folder, tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        make_options(folder, tmp_path / "out", **changes)


def test_a_run_folder_as_model_means_its_best_preset(folder, tmp_path):
    options = RunOptions(model=folder / "run", out=tmp_path)
    assert options.preset == folder / "run" / "best"


@pytest.mark.parametrize("name", ("tokenizer", "backbone_weights", "weights"))
def test_options_of_variants_are_rejected_for_presets(folder, tmp_path, name):
    with pytest.raises(ValueError, match=f"has its own. Received: {name}='x'"):
        preset_options(folder, tmp_path, **{name: "x"})


def test_options_can_be_replaced(folder, tmp_path):
    options = make_options(folder, tmp_path, training={"epochs": 3})
    changed = replace(options, model=folder / "run", decoder={}, training={"steps": 5})
    assert options.preset is None and options.training_options.epochs == 3
    assert changed.preset == folder / "run" / "best" and changed.training_options.steps == 5


def test_a_preset_is_fine_tuned_with_changed_hyperparameters(folder, tmp_path):
    encoder, decoder = {"backbone": {"trainable_blocks": "all"}}, {"dropout": 0.0}
    options = preset_options(folder, tmp_path, encoder=encoder, decoder=decoder)
    captioner = make_run_captioner(None, options, print)
    assert captioner.decoder.get_config()["dropout"] == 0.0
    assert captioner.encoder.backbone.trainable_weights
    original = make_captioner()
    assert captioner.tokenizer == original.tokenizer
    for one, other in zip(captioner.weights, original.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()


@pytest.mark.parametrize(
    ("section", "changes", "setting"),
    (
        ("decoder", {"num_layers": 2}, "decoder.num_layers=2"),
        ("decoder", {"hidden_dim": 32}, "decoder.hidden_dim=32"),
        ("decoder", {"num_heads": 3}, "decoder.num_heads=3"),
        ("decoder", {"hidden_dim": "wide"}, "decoder.hidden_dim=wide"),
        ("decoder", {"dropout": 2}, "decoder.dropout=2"),
        ("decoder", {"color": "red"}, "decoder.color=red"),
        ("decoder", {"vocabulary_size": 999}, "decoder.vocabulary_size=999"),
        ("encoder", {"backbone": {"trainable_blocks": 9}}, "encoder.backbone.trainable_blocks=9"),
        ("encoder", {"backbone": {"image_size": [13, 13]}}, "backbone.image_size=[13, 13]"),
        ("encoder", {"kind": "ears"}, "encoder.kind=ears"),
    ),
)
def test_changes_that_do_not_fit_are_named(folder, tmp_path, section, changes, setting):
    options = preset_options(folder, tmp_path, **{section: changes})
    with pytest.raises(ValueError, match="Cannot create .* with ") as caught:
        make_run_captioner(None, options, print)
    assert setting in str(caught.value)


def test_unusable_data_is_printed_written_and_recorded(folder, tmp_path, train_calls, capsys):
    dataset = read_data(folder)
    examples = [*dataset.examples]
    problems = [Problem("train.csv, line 9", "empty caption of x.jpg")]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"GIF?")
    examples[0] = replace(examples[0], path=broken, name="broken.jpg")
    examples[1] = replace(examples[1], captions=(*examples[1].captions, "red " * 99))
    dataset = replace(dataset, examples=examples, problems=problems)
    out = tmp_path / "run"
    with pytest.raises(TooManyProblems, match=r"3 of 26 captions \(11.54%\)"):
        run(dataset, None, make_options(folder, out))
    options = make_options(folder, out, max_bad=0.2)
    run(dataset, None, options)
    lines = (out / "left_out_training.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "train.csv, line 9",
        str(broken),
        str(examples[1].path),
    ]
    assert "empty caption of x.jpg" in capsys.readouterr().err
    captioner, _, batches, *_ = train_calls[0]
    counts = make_record(captioner, batches, options)["data"]["training"]
    assert counts["left_out"] == 3 and counts["captions"] == 23


def test_the_record_holds_the_exact_configuration(folder, tmp_path, train_calls):
    options = make_options(
        folder,
        tmp_path,
        training={"epochs": 3},
        decoder={"dropout": 0.3, "vocabulary_size": 300},
        command=["effcap", "train", "csv", "--csv", "my file.csv"],
        config={"csv": ["my file.csv"]},
    )
    run(read_data(folder), read_data(folder, "dev"), options)
    captioner, objective, batches, *_ = train_calls[0]
    record = make_record(captioner, batches, options)
    assert json.loads(json.dumps(record)) == record
    assert record["hparams"]["decoder"] == captioner.hparams()["decoder"]
    assert record["hparams"]["decoder"]["dropout"] == 0.3
    assert record["hparams"]["training"] == vars(options.training_options)
    assert record["hparams"]["training"]["epochs"] == 3
    assert record["command"] == "effcap train csv --csv 'my file.csv'"
    assert record["config"] == {"csv": ["my file.csv"]}
    assert record["objective"] == "cross-entropy" and type(objective) is CrossEntropy
    assert record["data"]["validation"]["photos"] == 5
    names = [preview.photo.name for preview in batches.previews]
    assert names == ["12.jpg", "13.jpg", "14.jpg", "15.jpg", "16.jpg"]


def test_scst_rewards_use_the_training_references(folder, tmp_path, train_calls):
    scst = ScstOptions(num_samples=2, bleu_weight=0.5)
    options = preset_options(folder, tmp_path, objective="scst", scst=scst)
    run(read_data(folder), None, options)
    captioner, objective, batches, *_ = train_calls[0]
    assert type(objective) is Scst and objective.reward.bleu_weight == 0.5
    assert objective.options == scst and objective.identity() == {"scst": vars(scst)}
    assert (tmp_path / "frequencies.npz").is_file()
    assert make_record(captioner, batches, options)["scst"]["num_samples"] == 2


def test_an_npair_weight_sets_the_loss_of_a_captioner_with_a_prefix(folder, tmp_path, train_calls):
    changes = {"training": {"npair_weight": 0.3, "label_smoothing": 0.2}}
    decoder = {"vocabulary_size": 300, "fusion": {"kind": "prefix"}}
    for kind in ("prefix", "cross"):
        decoder["fusion"]["kind"] = kind
        options = make_options(folder, tmp_path / kind, decoder=decoder, **changes)
        run(read_data(folder), None, options)
    (captioner, objective, *_), (plain_captioner, plain_objective, *_) = train_calls
    objective.build(captioner)
    expected = {"npair_weight": 0.3, "label_smoothing": 0.2, "name": "npair_loss"}
    assert objective.loss.get_config() == expected
    with pytest.raises(ValueError, match="kind='prefix'. Received: npair_weight=0.3"):
        plain_objective.build(plain_captioner)


def test_validation_batches_ignore_augmentation_and_passes(folder, tmp_path, train_calls):
    training = {
        "horizontal_flip": True,
        "random_crop": 0.5,
        "color_jitter": 0.2,
        "passes_per_epoch": 3,
        "captions_per_photo": 1,
    }
    options = make_options(folder, tmp_path, training=training)
    run(read_data(folder), read_data(folder, "dev"), options)
    batches = train_calls[0][2]
    augmentation = Augmentation(horizontal_flip=True, random_crop=0.5, color_jitter=0.2)
    assert batches.training.loader.augmentation == augmentation
    assert batches.training.num_images == 3 * 12
    assert batches.validation.loader.augmentation == Augmentation()
    assert batches.validation.num_images == 5
    fields = options.batch_options("validation")
    assert fields["augmentation"] == Augmentation()
    assert not fields["shuffle"] and fields["passes_per_epoch"] == 1


def test_cached_features_replace_photos(folder, tmp_path, train_calls):
    options = make_options(folder, tmp_path, feature_cache=tmp_path / "cache")
    run(read_data(folder), read_data(folder, "dev"), options)
    batches = train_calls[0][2]
    assert "features" in batches.training[0][0] and "features" in batches.validation[0][0]
    assert (tmp_path / "cache" / "training" / "features.npy").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"encoder": {"backbone": {"trainable_blocks": "all"}}}, "trainable_blocks='all'"),
        ({"training": {"random_crop": 0.5}}, "random_crop=0.5"),
    ),
)
def test_a_feature_cache_that_does_not_fit_is_rejected_before_photos_are_read(
    folder, tmp_path, changes, message
):
    options = make_options(folder, tmp_path, feature_cache=tmp_path / "cache", **changes)
    dataset = read_data(folder)
    missing = [replace(one, path=tmp_path / "none.jpg") for one in dataset.examples]
    with pytest.raises(ValueError, match=message):
        run(replace(dataset, examples=missing), None, options)


def test_a_finished_run_is_not_started_again(folder, tmp_path, train_calls, capsys):
    (tmp_path / "run.json").write_text('{"finished": {}}')
    (tmp_path / "last").mkdir()
    assert run(read_data(folder), None, make_options(folder, tmp_path, resume=True)) == []
    assert "is already finished" in capsys.readouterr().err and not train_calls


def test_a_fraction_of_the_photos_is_selected_by_the_seed(folder, tmp_path, train_calls):
    for name, seed in (("1", 0), ("2", 0), ("3", 1)):
        training = {"seed": seed}
        options = make_options(folder, tmp_path / name, train_fraction=0.5, training=training)
        run(read_data(folder), None, options)
    first, again, other = ({str(path) for path in call[2].training.paths} for call in train_calls)
    assert first == again != other and len(first) == 6
    names = (tmp_path / "1" / "photos_training.txt").read_text().splitlines()
    assert sorted(names) == sorted(os.path.basename(path) for path in first)
    captioner, _, batches, *_, options = train_calls[0]
    assert make_record(captioner, batches, options)["train_fraction"] == 0.5


def test_bfloat16_keeps_weights_in_float32(folder, tmp_path, train_calls):
    run(read_data(folder), None, make_options(folder, tmp_path, training={"precision": "bfloat16"}))
    captioner = train_calls[0][0]
    assert captioner.decoder.compute_dtype == "bfloat16"
    assert {weight.dtype for weight in captioner.weights} == {"float32"}
    plain = make_run_captioner(read_data(folder), make_options(folder, tmp_path / "2"), print)
    assert plain.compute_dtype == "float32"


def test_a_trained_tokenizer_has_at_most_the_given_vocabulary_size(folder, tmp_path):
    sizes = []
    for size in (300, 100_000):
        options = make_options(folder, tmp_path, decoder={"vocabulary_size": size})
        captioner = make_run_captioner(read_data(folder), options, print)
        assert captioner.decoder.vocabulary_size == captioner.tokenizer.vocabulary_size
        sizes.append(captioner.tokenizer.vocabulary_size)
    assert sizes[0] == 300 < sizes[1] < 100_000


def test_gpt2_weights_come_with_their_tokenizer(folder, tmp_path, monkeypatch):
    calls, lines = [], []
    monkeypatch.setattr(
        "effcap.trainers.engine.model.load_gpt2", lambda *given: calls.append(given) or "loaded"
    )
    make_captioner().tokenizer.save(tmp_path / "tokenizer.json")
    options = make_options(folder, tmp_path / "run", weights=tmp_path, decoder={})
    captioner = make_run_captioner(read_data(folder), options, lines.append)
    assert calls == [(captioner, tmp_path)] and lines == ["loaded"]
    assert captioner.tokenizer == make_captioner().tokenizer


def test_captions_are_made_of_the_tokens_of_the_training_captions(folder, tmp_path, train_calls):
    data = read_data(folder)
    run(data, None, make_options(folder, tmp_path, vocabulary="captions"))
    captioner = train_calls[0][0]
    encode = captioner.tokenizer.encode
    tokens = {token for text in data.captions() for token in encode(text)}
    assert tokens <= set(captioner.output_tokens)
    size = f"{len(captioner.output_tokens)} of {captioner.decoder.vocabulary_size} tokens"
    assert size in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("vocabulary", [None, "captions", "all"])
def test_a_preset_with_few_tokens_gets_those_of_further_captions(vocabulary):
    """Unless the run sets others."""
    captioner = make_captioner(["A red square on the grass.", "A blue house by the sea."])
    data = SimpleNamespace(references=lambda: [["A blue house by the sea."], []])
    options = SimpleNamespace(vocabulary=vocabulary)
    if vocabulary is None:
        assert restrict_vocabulary(captioner, data, options).output_tokens is None
    sets = []
    for text in ("A blue house by the sea.", "A red square on the grass."):
        captioner.restrict_vocabulary([text])
        sets.append(set(captioner.output_tokens))
    new, before = sets
    assert new - before and before - new
    restrict_vocabulary(captioner, data, options)
    expected = {None: before | new, "captions": new, "all": None}[vocabulary]
    assert captioner.output_tokens == (None if expected is None else tuple(sorted(expected)))
