"""Tests of `effcap train csv` and `effcap train json`: runs, records and mistakes."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from effcap.captioner import Captioner
from effcap.config import load_hparams
from effcap.tools.cli import main
from effcap.trainers.engine.smoke import SMALL_NETWORK, shrink
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER, effcap, environment
from helpers.event_files import read_events
from helpers.page_parser import read_page


def words(run, out, *options) -> list[str]:
    """Returns the command of a run with another --out and more options."""
    command = [*run.command[: run.command.index("--out")], "--out", str(out)]
    return [*command, *map(str, options)]


@pytest.fixture
def train_calls(monkeypatch) -> list[tuple]:
    """Arguments of the calls of `train`, which does nothing."""
    calls: list[tuple] = []
    monkeypatch.setattr("effcap.trainers.engine.run.train", lambda *args, **_: calls.append(args))
    return calls


def test_a_run_writes_presets_events_log_and_its_configuration(trained_run):
    out = trained_run.folder
    assert {path.name for path in out.iterdir()} == {
        "best",
        "checked_training.bin",
        "checked_validation.bin",
        "curves.png",
        "last",
        "log.csv",
        "log.txt",
        "report.html",
        "report.json",
        "run.json",
        "steps.csv",
        "tensorboard",
        "thumbnails",
    }
    log = [line[21:] for line in (out / "log.txt").read_text().splitlines()]
    assert log[0].startswith("12 photos per epoch, ")
    assert log[1].startswith("command: effcap train csv --csv")
    assert log[3].startswith("epoch 1 of 2: ") and log[-1] == "finished after 2 epochs, 6 steps"
    record = json.loads((out / "run.json").read_text())
    assert record["hparams"]["training"]["epochs"] == 2 and record["finished"]["steps"] == 6
    assert record["config"]["set"] == ["decoder.vocabulary_size=300"]
    assert json.loads((out / "last" / "training.json").read_text())["epoch"] == 2
    assert isinstance(Captioner.from_preset(out / "best"), Captioner)


def test_a_run_prints_its_epochs_on_stderr(trained_run):
    out = trained_run.folder
    assert trained_run.stdout == ""
    assert [word for word in CHATTER if word in trained_run.stderr] == []
    lines = [line for line in trained_run.stderr.splitlines() if " left" not in line]
    assert lines[0].startswith("12 photos per epoch, ") and "M parameters" in lines[0]
    assert lines[1].startswith("epoch 1 of 2: loss ") and "validation cross-entropy" in lines[1]
    assert lines[-1] == f"presets: {out / 'best'} and {out / 'last'}"
    assert len(lines) == 4


def test_event_files_contain_the_run(trained_run):
    events = read_events(trained_run.folder / "tensorboard")
    assert {"step/loss", "step/learning_rate", "epoch/loss", "epoch/val_loss"} <= set(events)
    assert [step for step, _ in events["epoch/val_cross_entropy"]] == [3, 6]
    pictures = [tag for tag in events if tag.startswith("captions/")]
    assert len(pictures) == 5 and len(events["captions/0"]) == 2


def test_the_report_shows_the_scores_and_captions_of_the_run(trained_run):
    page = read_page(trained_run.folder / "report.html")
    page.check_self_contained()
    assert "finished after 2 epochs" in page.texts["p"][0]
    assert page.texts["pre"] == [f"effcap {shlex.join(trained_run.command)}"]
    with (trained_run.folder / "log.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    best = max(float(row["val_cider"]) for row in scores)
    assert f"{best:.3f}" in page.texts["dd"]
    notes = json.loads((trained_run.folder / "report.json").read_text())
    names = [f"{i}.jpg" for i in range(12, 17)]
    assert [photo["name"] for photo in notes["photos"]] == names
    assert [photo["references"] for photo in notes["photos"]] == references(trained_run, names)
    assert [len(epoch["captions"]) for epoch in notes["epochs"]] == [5, 5]
    (worst,) = notes["worst"]["photos"]  # of five photos
    assert worst["name"] in names and [worst["references"]] == references(
        trained_run, [worst["name"]]
    )
    assert worst["cider"] <= best and len(page.images) == 5 + 1
    record = json.loads((trained_run.folder / "run.json").read_text())
    assert record["changed"] == {"decoder.vocabulary_size": None}
    assert record["machine"]["device"].endswith("CPU")


def references(run, names) -> list[list[str]]:
    """Returns the captions of validation photos."""
    with (run.data / "dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [[row["caption"] for row in rows if row["image"] == name] for name in names]


@pytest.mark.slow
def test_an_interrupted_process_stops_at_once_with_a_checkpoint(trained_run, tmp_path):
    command = effcap(*words(trained_run, tmp_path / "run", "--epochs", 10**6))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "run" / "best" / "training.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert re.fullmatch(r"effcap: stopped after step \d+; .* --resume", error.splitlines()[-1])
    assert (tmp_path / "run" / "checkpoint.h5").is_file()
    assert [word for word in CHATTER if word in error] == []
    assert isinstance(Captioner.from_preset(tmp_path / "run" / "last"), Captioner)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--csv", "none.csv"], "CSV file not found: none.csv"),
        (["--images", "nowhere"], "Folder of photos not found: nowhere"),
        (["--image-column", "photo"], "Expected a column 'photo'"),
        (["--val-csv", "none.csv"], "none.csv"),
        (["--model", "nothing"], "Received: 'nothing'"),
        (["--set", "training.epochs=0"], "training.epochs of at least 1. Received: epochs=0"),
        (["--epochs", "0"], "Received: epochs=0"),
        (["--set", "decodr.dropout=0"], "Unknown section in --set: decodr"),
        (["--set", "scst.temperature=2"], "--set scst.temperature requires --objective scst"),
        (["--set", "scst.beta=2", "--objective", "scst"], "Unknown setting scst.beta"),
        (["--set", "run.out=here"], "Unknown setting run.out. The settings are checkpoint_min"),
        (["--set", "run.checkpoint_steps=0.5"], "run.checkpoint_steps of type int | None"),
        (["--objective", "mle"], "mle"),
        (["--max-bad", "7"], "max_bad=7"),
        (["--devices", "0"], "devices=0"),
        (["--backbone-weights", "no.h5"], "Received: 'no.h5'"),
        (["--tokenizer", "nowhere"], "nowhere"),
    ),
)
def test_mistakes_are_reported_before_keras_starts(
    trained_run, tmp_path, options, message, capsys, monkeypatch
):
    monkeypatch.setattr("effcap.tools.cli.train.start_keras", lambda: pytest.fail("started"))
    assert message in fails(words(trained_run, tmp_path / "run", *options), capsys)
    assert not (tmp_path / "run").exists()


def test_too_many_unusable_captions_are_an_error_with_a_list(trained_run, tmp_path, capsys):
    text = (trained_run.data / "train.csv").read_text() + "0.jpg,\nnone.jpg,A dog.\n"
    (tmp_path / "bad.csv").write_text(text)
    line = fails(words(trained_run, tmp_path / "run", "--csv", tmp_path / "bad.csv"), capsys)
    assert "at most 1.00% of the training data" in line and "2 of 26 captions (7.69%)" in line
    assert "line 26: expected a caption of 0.jpg. Received: empty text" in line
    assert "none.jpg: there is no such file" in line
    problems = (tmp_path / "run" / "left_out_training.txt").read_text()
    assert len(problems.splitlines()) == 2


def test_hyperparameters_that_do_not_fit_are_reported_in_one_line(trained_run, tmp_path, capsys):
    command = words(trained_run, tmp_path / "run", "--set", "decoder.hidden_dim=wide")
    line = fails(command, capsys)
    assert "decoder.hidden_dim=wide: " in line and "Received: units=wide" in line


def test_a_preset_is_fine_tuned_by_its_folder(trained_run, tmp_path, train_calls):
    options = ["--model", trained_run.folder / "best", "--horizontal-flip"]
    command = words(trained_run, tmp_path / "run", *options)
    setting = command.index("--set")
    assert main([*command[:setting], *command[setting + 2 :]]) == 0
    (_, _, _, _, run_options) = train_calls[0]
    assert run_options.training_options.horizontal_flip is True
    assert run_options.preset == trained_run.folder / "best"


def test_given_options_win_over_settings(trained_run, tmp_path, train_calls):
    settings = ["--set", "training.epochs=7", "--set", "training.patience=3", "--epochs", 4]
    settings += ["--set", "run.checkpoint_steps=5"]
    assert main(words(trained_run, tmp_path / "run", *settings)) == 0
    run_options = train_calls[0][-1]
    training = run_options.training_options
    assert (training.epochs, training.patience, run_options.checkpoint_steps) == (4, 3, 5)


@pytest.mark.parametrize("is_list", (False, True))
def test_captions_may_come_from_json(trained_run, tmp_path, is_list, train_calls):
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5)]
    captions = [{"image_id": i, "caption": f"photo {i} ."} for i in range(5)]
    records = [{"image": f"{i}.jpg", "text": f"photo {i} ."} for i in range(5)]
    content = records if is_list else {"images": images, "annotations": captions}
    (tmp_path / "captions.json").write_text(json.dumps(content))
    options = ["--json", tmp_path / "captions.json", "--images", trained_run.data / "photos"]
    options += ["--model", trained_run.data / "tiny.json", "--out", tmp_path / "run", "--tidy"]
    assert main(["train", "json", *map(str, options)]) == 0
    batches = train_calls[0][2].training
    assert [path.name for path in batches.loader.photos] == [f"{i}.jpg" for i in range(5)]
    assert batches.tokenizer.decode(batches.captions[3][0]) == "Photo 3."


@pytest.mark.parametrize("layout", ("metadata", "text"))
def test_captions_may_be_in_the_folder_of_the_photos(trained_run, tmp_path, layout, train_calls):
    for split in ("train", "dev"):
        shutil.copytree(trained_run.data / "photos", tmp_path / split)
        for i in range(17):
            if layout == "text":
                (tmp_path / split / f"{i}.txt").write_text(f"photo {i}\nA photo .\n")
        rows = [{"file_name": f"{i}.jpg", "text": [f"photo {i}", "A photo ."]} for i in range(17)]
        if layout == "metadata":
            text = "\n".join(map(json.dumps, rows))
            (tmp_path / split / "metadata.jsonl").write_text(text)
    options = ["--folder", tmp_path / "train", "--val-folder", tmp_path / "dev", "--tidy"]
    options += ["--model", trained_run.data / "tiny.json", "--out", tmp_path / "run"]
    assert main(["train", "folder", *map(str, options)]) == 0
    batches = train_calls[0][2]
    assert (batches.training.num_images, batches.validation.num_captions) == (17, 34)
    assert batches.training.tokenizer.decode(batches.training.captions[3][0]) == "Photo 3."


def test_a_validation_folder_inside_the_training_folder_is_refused(trained_run, tmp_path, capsys):
    (tmp_path / "data" / "dev").mkdir(parents=True)
    options = ["--folder", tmp_path / "data", "--val-folder", tmp_path / "data" / "dev"]
    options += ["--model", trained_run.data / "tiny.json", "--out", tmp_path / "run"]
    line = fails(["train", "folder", *map(str, options)], capsys)
    assert "Expected --val-folder outside of --folder" in line


def test_the_run_folder_is_named_after_the_model(trained_run, tmp_path, train_calls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words(trained_run, "unused")[:-2]) == 0
    assert train_calls[0][-1].folder == Path("runs", "tiny") and Path("runs", "tiny").is_dir()


def test_the_record_of_a_run_repeats_it_with_changes(trained_run, tmp_path, train_calls):
    record = str(trained_run.folder / "run.json")
    again = ["train", "csv", "--config", record, "--out", str(tmp_path / "run")]
    assert main([*again, "--set", "decoder.dropout=0.25", "--steps", "7"]) == 0
    captioner, _, batches, _, run_options = train_calls[0]
    assert captioner.decoder.dropout == 0.25 and run_options.training_options.steps == 7
    assert (batches.training.num_images, batches.validation.num_images) == (12, 5)
    assert captioner.tokenizer.vocabulary_size == 300


def test_a_smoke_run_takes_the_only_output_of_its_small_network():
    backbone = {"network": "clip_vit_b32", "image_size": None, "output": "embedding"}
    tiny = shrink({"encoder": {"backbone": backbone}, "decoder": {}})
    assert tiny["encoder"]["backbone"] == {"network": SMALL_NETWORK, "image_size": None}


@pytest.mark.slow
def test_a_smoke_run_tries_a_configuration_without_data(capsys):
    command = ["train", "csv", "--model", "lite0-small", "--smoke"]
    ema, blocks = "training.ema_momentum=0.9", "encoder.backbone.trainable_blocks="
    assert main([*command, "--set", ema, "--set", f"{blocks}2"]) == 0
    assert "lite0-small works: 3 steps" in capsys.readouterr().err.splitlines()[-1]
    line = fails([*command, "--set", f"{blocks}99"], capsys)
    assert "trainable_blocks=99" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "variant"), [("regions", "visualgpt"), ("playlists", "playntell")]
)
def test_a_smoke_run_tries_a_captioner_of_features(source, variant, capsys):
    command = ["train", source, "--model", variant, "--smoke", "--set", "decoder.fusion.tau=0.3"]
    assert main(command) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{variant} works: 3 steps" in last and "6 captions written" in last


def test_a_captioner_of_features_takes_no_photos(trained_run, tmp_path, capsys):
    variant = tmp_path / "small.json"
    variant.write_text(json.dumps(shrink(load_hparams("playntell"))))
    command = words(trained_run, tmp_path / "run", "--model", variant)
    message = "Expected a captioner of photos. Received: a captioner of audio"
    assert message in fails(command, capsys)


def test_json_of_texts_trains_with_the_options_of_hugging_face(
    trained_run, tmp_path, train_calls, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run.data / "photos", "images")
    for name, numbers in (("train", range(12)), ("val", range(12, 17))):
        records = [{"text": f"photo {i}", "image": f"images/{i}.jpg"} for i in numbers]
        Path(f"{name}.json").write_text(json.dumps(records))
    shutil.copy(trained_run.data / "tiny.json", "tiny.json")
    command = "train json --json train.json --val-json val.json --model tiny.json --epochs 100 "
    command += "--batch-size 32 --learning-rate 1e-5 --schedule linear --seed 42"
    assert main(command.split()) == 0
    (_, _, batches, _, run_options) = train_calls[0]
    training = run_options.training_options
    assert (training.schedule, training.learning_rate, training.seed) == ("linear", 1e-5, 42)
    assert (batches.training.num_images, batches.validation.num_images) == (12, 5)
    assert run_options.folder == Path("runs", "tiny")
