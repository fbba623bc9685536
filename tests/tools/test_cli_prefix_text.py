"""Tests of --prefix of `effcap caption` and `effcap evaluate`."""

from __future__ import annotations

import json

import pytest

from effcap.captioner import Captioner
from effcap.metrics import score_captions
from effcap.samplers import Greedy
from effcap.tools import caption_folder
from effcap.tools.cli import main
from helpers.cli_errors import fails
from helpers.data_maker import make_photos, make_randomized_captioner, random_jpeg, write_csv
from helpers.tar_maker import write_tar

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos

SAMPLER = Greedy(max_new_tokens=6)
PREFIX = "a picture of "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two photos and their references, a shard, and a captioner in run/best."""
    folder = tmp_path_factory.mktemp("prefix")
    make_photos(folder / "photos", 2)
    write_csv(folder / "references.csv", [(f"photos/{i}.jpg", ["A dog."]) for i in range(2)])
    write_tar(folder / "0.tar", [("7.jpg", random_jpeg(7))])
    make_randomized_captioner().save_to_preset(folder / "run" / "best")
    return folder


@pytest.fixture(scope="module")
def captions(folder):
    """The captions of the photos after the prefix."""
    captioner = Captioner.from_preset(folder / "run" / "best")
    paths = [folder / "photos" / f"{i}.jpg" for i in range(2)]
    return captioner.generate(paths, SAMPLER, prefix=PREFIX, details=True, batch_size=2)


def words(folder, command, *options) -> list[str]:
    sampler = ["--sampler", "greedy", "--max-new-tokens", 6, "--batch-size", 2]
    return list(map(str, [*command, "--model", folder / "run" / "best", *sampler, *options]))


def test_captions_of_photos_continue_the_prefix(folder, captions, tmp_path, capsys):
    out, page = tmp_path / "captions.json", tmp_path / "page.html"
    command = words(folder, ["caption", folder / "photos"], "--out", out, "--page", page)
    assert main([*command, "--prefix", PREFIX]) == 0
    entries = json.loads(out.read_text())
    assert [entry["caption"] for entry in entries] == [options[0].text for options in captions]
    assert all(entry["caption"].startswith(PREFIX.strip()) for entry in entries)
    for entry, (caption,) in zip(entries, captions, strict=True):
        assert entry["score"] == pytest.approx(caption.score, abs=1e-4)
    assert PREFIX.strip() in page.read_text()


def test_library_calls_take_the_prefix_of_the_captioner(folder, captions):
    captioner = Captioner.from_preset(folder / "run" / "best")
    captioner.prefix = PREFIX
    results = caption_folder(folder / "photos", captioner, SAMPLER, batch_size=2)
    assert [options[0].text for _, options in results.captions] == [c.text for (c,) in captions]


def test_evaluation_scores_the_text_after_the_prefix(folder, captions, tmp_path):
    command = words(folder, ["evaluate", "--csv", folder / "references.csv"])
    assert main([*command, "--prefix", PREFIX, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "scores.json").read_text())
    expected = [caption.continuation for (caption,) in captions]
    assert record["prefix"] == PREFIX
    assert record["scores"] == pytest.approx(score_captions(expected, [["A dog."]] * 2).corpus)
    entries = json.loads((tmp_path / "captions.json").read_text())
    assert [entry["caption"] for entry in entries] == expected


def test_captions_of_shards_are_those_of_one_prefix(folder, tmp_path, capsys):
    table = pytest.importorskip("pyarrow.dataset")
    out = tmp_path / "captions"
    command = words(folder, ["caption", "--shards", folder / "0.tar", "--out", out])
    assert main([*command, "--prefix", PREFIX]) == 0
    (row,) = table.dataset(out).to_table().to_pylist()
    assert row["caption"].startswith(PREFIX.strip())
    assert main([*command, "--prefix", PREFIX]) == 0
    assert "1 of 1 shards were captioned earlier" in capsys.readouterr().err
    assert "after 'two' in" in fails([*command, "--prefix", "two"], capsys)
    assert "choose another folder" in fails(command, capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    (
        (["caption", "x.jpg", "--prefix", "dog " * 99], "Expected a prefix of at most"),
        (["caption", "--shards", "0.tar", "--out", "o", "--ray", "--prefix", "a"], "with --ray"),
        (["evaluate", "--csv", "x.csv", "--captions", "y.json", "--prefix", "a"], "--captions"),
    ),
)
def test_mistakes_are_reported_in_one_line(folder, command, message, capsys):
    command = [word.replace("x.jpg", str(folder / "photos")) for word in command]
    if "--captions" not in command:
        command += ["--model", str(folder / "run" / "best")]
    assert message in fails(command, capsys)


@pytest.mark.slow
def test_evaluation_takes_the_prefixes_of_the_photos(folder, tmp_path):
    lines = ["photos/0.jpg,A dog.,two ", "photos/1.jpg,A dog.,", "photos/0.jpg,A cat.,"]
    (tmp_path / "references.csv").write_text("\n".join(["image,caption,prefix", *lines]))
    command = words(folder, ["evaluate", "--csv", tmp_path / "references.csv"])
    options = ["--images", str(folder), "--prefix", PREFIX, "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 0
    entries = json.loads((tmp_path / "out" / "captions.json").read_text())
    captioner = Captioner.from_preset(folder / "run" / "best")
    paths = [folder / "photos" / f"{i}.jpg" for i in (0, 1, 0)]
    expected = captioner.generate(
        paths, SAMPLER, prefix=["two", PREFIX, PREFIX], details=True, batch_size=2
    )
    assert [entry["caption"] for entry in entries] == [one.continuation for (one,) in expected]


def test_shards_are_not_written_without_the_prefixes_of_photos(folder, tmp_path, capsys):
    pytest.importorskip("webdataset")
    (tmp_path / "data.csv").write_text("image,caption,prefix\nphotos/0.jpg,A dog.,two\n")
    command = [
        "shards",
        "--csv",
        tmp_path / "data.csv",
        "--images",
        folder,
        "--out",
        tmp_path / "s",
    ]
    assert "Received: photos/0.jpg with 'two'" in fails(list(map(str, command)), capsys)
