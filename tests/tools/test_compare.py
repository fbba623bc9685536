"""`effcap compare` and `compare_runs`: runs side by side."""

from __future__ import annotations

import copy
import shutil

import pytest

from effcap.tools import compare_runs
from effcap.tools.cli import main
from helpers.cli_errors import fails
from helpers.page_parser import read_page
from helpers.run_maker import RECORD, SCORES, make_run

BETTER = {**SCORES, "val_cider": [0.7, 0.5, 0.6]}


def changed(section: str, **values):
    """Returns hyperparameters with changed values of a section."""
    hparams = copy.deepcopy(RECORD["hparams"])
    hparams[section] |= values
    return hparams


@pytest.fixture
def runs(tmp_path):
    hparams = changed("training", learning_rate=1e-4)
    one, other = tmp_path / "one", tmp_path / "other"
    return [make_run(one), make_run(other, BETTER, hparams=hparams, model="gpt2-124m")]


def test_scores_are_those_of_the_best_epoch_of_each_run(runs):
    comparison = compare_runs(runs)
    assert comparison.names == ["one", "other"] and comparison.notes == []
    assert comparison.scores["val_cider"] == [0.625, 0.7]
    assert comparison.scores["val_cross_entropy"] == [3.5, 4.0]  # of epochs 2 and 1
    assert comparison.best("val_cider") == {1} and comparison.best("loss") == {0}
    assert comparison.columns()["epoch"] == ["2 of 3", "1 of 3"]


def test_only_settings_that_differ_are_listed(runs):
    differences = compare_runs(runs).differences
    assert differences == {
        "model": ["lite0-small", "gpt2-124m"],
        "training.learning_rate": [None, 1e-4],
    }


def test_options_data_and_machines_are_compared_where_they_are_recorded(tmp_path):
    config = {**RECORD["config"], "csv": ["a.csv", "b.csv"], "out": "x"}
    data = {"training": {**RECORD["data"]["training"], "photos": 7}}
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", config=config, data=data, machine={"device": "GPU"})
    old = make_run(tmp_path / "old", machine={}, versions={})
    differences = compare_runs([one, two, old]).differences
    assert differences["--csv"] == ["my photos.csv", "a.csv b.csv", "my photos.csv"]
    assert differences["data.training.photos"] == [1200, 7, 1200]
    assert differences["machine.device"] == ["2 × CPU", "GPU", None]
    assert not any(name.startswith(("versions", "--out", "--set")) for name in differences)


def test_the_page_overlays_curves_and_shows_captions_of_the_same_photos(runs, tmp_path):
    path = tmp_path / "new" / "page.html"
    compare_runs(runs, path)
    page = read_page(path)
    page.check_self_contained()
    assert page.texts["h1"] == ["Comparison of 2 runs"]
    assert page.texts["h2"] == ["Scores", "Curves", "Settings that differ", "Captions"]
    colors = {attributes.get("stroke") for tag, attributes in page.elements if tag == "path"}
    assert {"var(--series-0)", "var(--series-1)"} <= colors
    assert len(page.images) == 2  # the photos, once
    assert page.texts["dd"] == [
        "one a.jpg after 2", "other a.jpg after 1", "one b.jpg after 2", "other b.jpg after 1"
    ]  # fmt: skip
    assert page.texts["b"] == ["3.500", "4.000", "2.500", "3.000", "0.700"]  # the best of two


def test_photos_that_only_one_run_has_are_left_out(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    notes = (other / "report.json").read_text().replace("A wall.", "Another photo.")
    (other / "report.json").write_text(notes)
    compare_runs([one, other], tmp_path / "page.html")
    assert len(read_page(tmp_path / "page.html").images) == 1
    shutil.rmtree(one / "thumbnails")  # the other run has the photo
    compare_runs([one, other], tmp_path / "page.html")
    assert len(read_page(tmp_path / "page.html").images) == 1


def test_limits_of_a_comparison_are_noted(tmp_path):
    one = make_run(tmp_path / "one")
    unfinished = make_run(tmp_path / "unfinished", finished=False)
    blind = make_run(tmp_path / "blind", {"loss": [3.0, 2.0]})
    notes = compare_runs([one, unfinished, blind]).notes
    assert notes == [
        "unfinished is not finished: 3 of 3 epochs.",
        "blind has no validation: its scores are those of its last epoch.",
    ]


def test_runs_of_other_objectives_or_data_have_no_best(tmp_path):
    one = make_run(tmp_path / "one")
    scst = {"loss": [-1.0], "reward": [0.5], "val_cider": [0.9]}
    data = {"validation": {"photos": 5, "captions": 9, "left_out": 0}}
    other = make_run(tmp_path / "other", scst, objective="scst", data=data)
    comparison = compare_runs([one, other], tmp_path / "page.html")
    assert comparison.notes == [
        "The objectives differ: the losses cannot be compared.",
        "The validation data differ: the validation scores cannot be compared.",
    ]
    assert not comparison.best("loss") and not comparison.best("val_cider")
    titles = read_page(tmp_path / "page.html").texts["strong"]
    assert "Reward, samples" in titles and not any(title.startswith("Loss") for title in titles)
    smooth = make_run(tmp_path / "smooth", hparams=changed("training", label_smoothing=0.0))
    assert "label_smoothing" in compare_runs([one, smooth]).notes[0]
    words = make_run(tmp_path / "words", hparams=changed("training", tokenization="char"))
    assert "tokenization differs" in compare_runs([one, words]).notes[0]


def test_a_run_without_an_epoch_is_compared_by_its_settings(tmp_path):
    empty = make_run(tmp_path / "empty", {"loss": []}, finished=False, model="other")
    comparison = compare_runs([make_run(tmp_path / "one"), empty], tmp_path / "page.html")
    assert comparison.scores["loss"] == [3.0, None] and comparison.columns()["epoch"][1] == "–"
    assert comparison.differences["model"] == ["lite0-small", "other"]


def test_more_runs_than_colors_differ_by_their_dashes(tmp_path):
    folders = [make_run(tmp_path / f"run {i}") for i in range(9)]
    compare_runs(folders, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    styles = {
        (attributes["stroke"], attributes.get("stroke-dasharray"))
        for tag, attributes in page.elements
        if tag == "path" and "stroke" in attributes
    }
    assert len(styles) == 9


def test_runs_of_the_same_name_are_told_apart_by_their_parents(tmp_path):
    folders = [make_run(tmp_path / name / "run") for name in "ab"]
    assert compare_runs(folders).names == ["a/run", "b/run"]


def test_the_command_prints_scores_and_settings(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    output, error = capsys.readouterr()
    rows = [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in output.split("\n")
    ]
    assert ["validation CIDEr", "0.625", "0.700"] in rows
    assert ["training.learning_rate", "–", "0.0001"] in rows
    assert error == f"page: {tmp_path / 'page.html'}\n" and (tmp_path / "page.html").is_file()


def test_mistakes_are_reported_in_one_line(runs, tmp_path, capsys):
    one, other = map(str, runs)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([one], "Expected two or more runs. Received: 1"),
        ([one, one + "/"], "Expected different runs. Received"),
        ([one, str(tmp_path / "gone")], "There is no run in"),
        ([one, str(tmp_path / "empty")], "expected the folder of a run of `effcap train`"),
        ([one, other, "--out", str(tmp_path)], "--out must be a file"),
    ):
        assert message in fails(["compare", *arguments], capsys)
    (runs[1] / "run.json").write_text("{")
    assert "Expected JSON in" in fails(["compare", one, other], capsys)


@pytest.mark.slow  # trains a run, unless another test of the process did
def test_trained_runs_are_compared(trained_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained_run.folder, folder, ignore=shutil.ignore_patterns("best", "last"))
    comparison = compare_runs([trained_run.folder, folder], tmp_path / "page.html")
    assert comparison.differences == {} and comparison.notes == []
    assert comparison.best("val_cider") == set()
    page = read_page(tmp_path / "page.html")
    assert len(page.images) == 5 and "None." in page.texts["p"]
