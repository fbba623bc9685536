"""The report of a run, from folders made by hand and from a finished run."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effcap.trainers import write_run_report
from effcap.trainers.batching.packed import Preview, Source
from effcap.trainers.engine import report_writer
from effcap.trainers.engine.chart import Line, Panel
from effcap.trainers.engine.report_writer import ReportWriter
from effcap.trainers.engine.validation import ScoredCaption, Validation
from effcap.trainers.reports import photo_cards
from effcap.trainers.reports.run_history import read_run
from effcap.trainers.reports.run_notes import RunNotes
from effcap.trainers.reports.svg_chart import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, chart_figure
from effcap.trainers.reports.words import format_duration
from effcap.utils import html_page
from helpers.page_parser import Page, read_page
from helpers.run_maker import SCORES, make_run

EVIL = "<script>alert('1')</script> & \"quoted\" $title ${body}"


def report(folder: Path) -> Page:
    return read_page(write_run_report(folder))


def make_writer(folder: Path, photo: Path | None, epoch: int = 0, resume: bool = False):
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text("{}")
    notes = RunNotes(folder, 4, "validation", epoch, resume=resume)
    return ReportWriter(notes, [Preview({}, photo, name="one", references=["A wall."])])


def save_photo(path: Path, color: str = "red") -> Path:
    Image.new("RGB", (90, 60), color).save(path)
    return path


def test_the_report_shows_the_run_and_loads_nothing(tmp_path):
    page = report(make_run(tmp_path / "my run"))
    page.check_self_contained()
    assert page.texts["h1"] == ["my run"]
    assert page.texts["p"][0] == "lite0-small · cross-entropy · finished after 3 epochs"
    headings = ["Curves", "Captions by epoch", "Configuration", "Data"]
    assert page.texts["h2"] == [*headings, "Environment"]
    titles = [text for text in page.texts["strong"] if text]
    assert titles == ["Loss", "Cross-entropy", "CIDEr", "Learning rate"]
    assert page.texts["pre"] == ["effcap train csv --csv 'my photos.csv' --epochs 3"]
    assert {"0.625", "3.500", "4.000", "2"} <= set(page.texts["dd"])  # of epoch 2
    assert {"1,200", "6,000", "12.5%"} <= set(page.texts["td"])
    assert {"effcap 0.1.0, keras 3.15", "2 × CPU"} <= set(page.texts["td"])


def test_settings_that_were_changed_are_marked_with_their_defaults(tmp_path):
    page = report(make_run(tmp_path / "run"))
    rows = re.findall(r'<tr class="changed"><th>(\w+)</th><td>(.*?)</td>', page.text)
    assert rows == [("dropout", "0.1"), ("epochs", "3 <small>default 10</small>")]


def test_captions_are_newest_first_and_equal_ones_are_joined(tmp_path):
    captions = [["x", "a"], ["x", "b"], ["", "b"], ["y", "b"]]
    scores = {"loss": [4, 3, 2, 1], "val_cider": [1, 2, 3, 2]}
    page = report(make_run(tmp_path / "run", scores, captions))
    pattern = r'<span class="epoch">([\d–]+).*?dir="auto">(.*?)</span>'
    assert re.findall(pattern, page.text) == [
        ("4", "y"),
        ("3", '<em class="none">empty</em>'),
        ("1–2", "x"),
        ("2–4", "b"),
        ("1", "a"),
    ]
    assert page.texts["b"] == ["★", "★"] and len(page.images) == 2
    stars = re.findall(r'"epoch">([\d–]+)<b', page.text)
    assert stars == ["3", "2–4"]  # the best epoch is 3


def test_older_captions_are_folded_away(tmp_path):
    scores = {"loss": list(range(1, 31))}
    page = report(make_run(tmp_path / "run", scores))
    assert page.texts["summary"] == ["epochs 1–24", "2 references", "epochs 1–24", "1 reference"]
    assert "run a.jpg after 1" in page.texts["span"]


def test_everything_from_the_data_is_escaped(tmp_path):
    folder = make_run(
        tmp_path / "<b>run", captions=[[EVIL, EVIL]] * 3, command=EVIL, changed={"x": EVIL}
    )
    notes = json.loads((folder / "report.json").read_text())
    notes["photos"][0] |= {"name": EVIL, "references": [EVIL], "prefix": EVIL, "unreadable": EVIL}
    (folder / "report.json").write_text(json.dumps(notes))
    page = report(folder)
    page.check_self_contained()
    assert page.texts["h1"] == ["<b>run"] and page.texts["pre"] == [EVIL]
    assert EVIL in page.texts["li"] and EVIL in page.texts["span"]


def test_a_run_without_recorded_captions_has_a_report(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "report.json").unlink()
    (folder / "steps.csv").write_text("step,epoch,loss\n1,0.1,5\n2,0.2,4\n")
    for name in ("changed", "machine", "model", "data"):
        record = json.loads((folder / "run.json").read_text())
        del record[name]
        (folder / "run.json").write_text(json.dumps(record))
    page = report(folder)
    assert page.texts["h2"] == ["Curves", "Configuration", "Environment"] and not page.images
    assert "0.625" in page.texts["dd"]


def test_a_run_without_an_epoch_has_a_report(tmp_path):
    writer = make_writer(tmp_path / "run", None)
    page = read_page(tmp_path / "run" / "report.html")
    assert "in training, 0 of 4 epochs finished as of" in page.texts["p"][0]
    assert "No step has been recorded yet." in page.texts["p"]
    writer.close(failed=True)
    page = read_page(tmp_path / "run" / "report.html")
    assert "stopped on" in page.texts["p"][0] and "--resume" in page.texts["p"][0]


def test_photos_that_cannot_be_read_are_placeholders_and_missing_ones_only_names(tmp_path):
    folder = make_run(tmp_path / "run")
    for path in (folder / "thumbnails").iterdir():
        path.unlink()
    page = report(folder)
    assert page.texts["span"].count("its thumbnail in the run folder is missing or damaged") == 2
    (tmp_path / "bad.jpg").write_bytes(b"GIF?")
    for name, photo in (("bad", tmp_path / "bad.jpg"), ("none", None)):
        writer = make_writer(tmp_path / name, photo)
        writer.write_caption("captions/0", "a caption", None, 1)
        writer.flush()
        page = read_page(tmp_path / name / "report.html")
        assert not page.images and ("Not readable" in page.text) == (name == "bad")
        assert "one" in page.texts["p"] and "a caption" in page.texts["span"]


def test_thumbnails_are_made_once_and_removed_when_they_are_no_longer_shown(tmp_path, monkeypatch):
    photos = [save_photo(tmp_path / f"{i}.png") for i in range(3)]
    made = []
    thumbnail = photo_cards.thumbnail_jpeg
    monkeypatch.setattr(
        "effcap.trainers.reports.run_notes.thumbnail_jpeg",
        lambda photo: made.append(photo) or thumbnail(photo),
    )
    writer = make_writer(tmp_path / "run", photos[0])
    for epoch, photo in enumerate((photos[1], photos[1], photos[2]), 1):
        worst = ScoredCaption(Source("w", lambda photo=photo: photo), "a dog", ["A cat."], 0.125)
        writer.write_validation(Validation({}, [worst], 9), epoch, is_best=True)
        writer.write_caption("captions/0", f"caption {epoch}", None, epoch)
        writer.flush()
    assert made == photos
    assert len(list((tmp_path / "run" / "thumbnails").iterdir())) == 2
    page = read_page(tmp_path / "run" / "report.html")
    assert len(page.images) == 2 and "0.125" in page.texts["span"]
    assert "Lowest CIDEr of 9 validation captions in epoch 3." in page.texts["p"]
    # An epoch that is not the best leaves the worst captions of the best one.
    writer.write_validation(Validation({}, [], 9), 4, is_best=False)
    assert writer.notes.values["worst"]["epoch"] == 3


@pytest.mark.parametrize("num_bytes", (0, 4, 300))
def test_a_damaged_thumbnail_is_a_placeholder_until_the_run_is_resumed(tmp_path, num_bytes):
    folder, photo = tmp_path / "run", save_photo(tmp_path / "photo.png")
    writer = make_writer(folder, photo)
    writer.write_caption("captions/0", "a caption", None, 1)
    writer.flush()
    (thumbnail,) = (folder / "thumbnails").iterdir()
    intact = thumbnail.read_bytes()
    thumbnail.write_bytes(intact[:num_bytes])
    page = report(folder)
    assert not page.images and "Not readable" in page.texts["strong"]
    make_writer(folder, photo, epoch=1, resume=True)
    assert thumbnail.read_bytes() == intact and len(report(folder).images) == 1


def test_an_error_in_the_report_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space left\non the disk")

    monkeypatch.setattr("effcap.trainers.reports.run_notes.thumbnail_jpeg", fail)
    photo = save_photo(tmp_path / "photo.png")
    writer = make_writer(tmp_path / "run", photo)
    message = "its thumbnail was not written: no space left on the disk"
    assert capsys.readouterr().err == f"one: {message}\n"
    worst = ScoredCaption(Source("w", fail), "a dog", ["A cat."], 0.125)
    writer.write_validation(Validation({}, [worst], 9), 1, is_best=True)
    writer.write_caption("captions/0", "a caption", None, 1)
    writer.flush()
    page = read_page(tmp_path / "run" / "report.html")
    assert page.texts["span"].count(message) == 2 and "a dog" in page.text
    capsys.readouterr()
    monkeypatch.setattr(report_writer, "write_run_report", fail)
    writer.flush()
    writer.close(failed=False)
    line = "report.html was not written: no space left on the disk\n"
    assert capsys.readouterr().err == 2 * line
    make_writer(tmp_path / "other", photo).write_scalars({}, 1)


def test_a_resumed_run_continues_the_history_from_its_checkpoint(tmp_path):
    photo = save_photo(tmp_path / "photo.png")
    writer = make_writer(tmp_path / "run", photo)
    for epoch in (1, 2, 3):
        writer.write_caption("captions/0", f"first {epoch}", None, epoch)
        writer.flush()
    seconds = read_run(tmp_path / "run").seconds
    writer = make_writer(tmp_path / "run", photo, epoch=2, resume=True)
    writer.write_caption("captions/0", "second 3", None, 3)
    writer.flush()
    run = read_run(tmp_path / "run")
    assert list(run.captions()) == [(1, ["first 1"]), (2, ["first 2"]), (3, ["second 3"])]
    assert run.seconds >= seconds and run.notes["epochs"][2]["seconds"] >= seconds
    make_writer(tmp_path / "run", photo)  # without resuming
    assert list(read_run(tmp_path / "run").captions()) == []
    for damaged in (
        '{"epochs": [',
        '{"epochs": [{"epoch": "1", "captions": []}]}',
        '{"seconds": ""}',
    ):
        (tmp_path / "run" / "report.json").write_text(damaged)
        make_writer(tmp_path / "run", photo, epoch=1, resume=True)
        assert read_run(tmp_path / "run").planned_epochs == 4


def test_a_long_epoch_updates_the_report_every_minute(tmp_path, monkeypatch):
    writer = make_writer(tmp_path / "run", None)
    written = (tmp_path / "run" / "report.html").stat().st_mtime_ns
    writer.write_scalars({"step/images_per_second": 7.0}, 1)
    assert (tmp_path / "run" / "report.html").stat().st_mtime_ns == written
    now = time.monotonic()
    monkeypatch.setattr(report_writer.time, "monotonic", lambda: now + 61)
    (tmp_path / "run" / "steps.csv").write_text("step,epoch,loss\n1,0.5,5\n2,0.75,4\n")
    writer.write_scalars({}, 2)
    assert "Loss" in read_page(tmp_path / "run" / "report.html").texts["strong"]
    writer.flush()
    assert read_run(tmp_path / "run").notes["epochs"][0]["images_per_second"] == 7


def test_a_killed_writer_leaves_the_earlier_report(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    before = write_run_report(folder).read_bytes()

    def fail(*_):
        raise OSError("killed")

    monkeypatch.setattr(html_page, "write_bytes_atomically", fail)
    with pytest.raises(OSError, match="killed"):
        write_run_report(folder)
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    (
        ("run.json", "{", "Expected JSON in .*run.json"),
        ("run.json", "[]", "Expected a JSON object in .*run.json. Received: list"),
        ("report.json", "{", "Expected JSON in .*report.json"),
        ("log.csv", "epoch,loss\n1,abc\n", "Expected a table of scores in .*log.csv"),
        ("report.json", '{"epochs": [{}]}', "Expected epochs and photos in .*report.json"),
        ("report.json", '{"photos": 5}', "Expected epochs and photos in .*report.json"),
    ),
)
def test_damaged_files_of_a_run_are_named(tmp_path, name, content, message):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        write_run_report(folder)


def test_a_folder_without_a_run_is_an_error_with_a_hint(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no run in .*nothing: expected the fold"):
        write_run_report(tmp_path / "nothing")
    (make_run(tmp_path / "run") / "best").mkdir()
    with pytest.raises(FileNotFoundError, match="the run of this preset is in .*run$"):
        write_run_report(tmp_path / "run" / "best")


def test_charts_place_points_by_their_values():
    line = Line("a", [1, 2, 4], [0.0, 1.0, 0.5], "var(--series-0)")
    page = Page(chart_figure(Panel("Loss", [line]), 4))
    circles = [attributes for tag, attributes in page.elements if tag == "circle"]
    x = np.array([float(circle["cx"]) for circle in circles])
    y = np.array([float(circle["cy"]) for circle in circles])
    width = WIDTH - LEFT - RIGHT
    assert x == pytest.approx([LEFT + width * share for share in (0.25, 0.5, 1)], abs=0.1)
    assert y[2] == pytest.approx((y[0] + y[1]) / 2, abs=0.1)
    assert HEIGHT - BOTTOM > y[0] > y[1] > 0
    assert page.texts["title"] == ["a, epoch 1: 0", "a, epoch 2: 1", "a, epoch 4: 0.5"]


@pytest.mark.parametrize("values", ([np.nan, 2.0], [5.0], [5.0, 5.0], [0.0, 0.0], [1e9, -1e-9]))
def test_charts_of_unusual_values_are_drawn(values):
    line = Line("a", range(1, len(values) + 1), values, "red")
    text = chart_figure(Panel("x & y", [line]), len(values))
    assert Page(text).tags.count("circle") == np.isfinite(values).sum() and "nan" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    (
        (0.04, "0.0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ),
)
def test_durations_are_short(seconds, text):
    assert format_duration(seconds) == text


def test_scores_of_the_maker_and_the_reader_agree(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert run.best.epoch == 2 and run.score("val_cider", 2) == 0.625
    assert {name: values.tolist() for name, values in run.epochs.items()} == SCORES
