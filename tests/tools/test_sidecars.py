"""Tests of captions in text files beside the photos."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest

from effcap.captioner import Captioner
from effcap.samplers import Beam, Greedy, Nucleus
from effcap.tools import Sidecars, caption_folder
from effcap.tools.cli import main
from effcap.tools.evaluation.caption_files import read_captions
from effcap.tools.reports.tables import read_table
from helpers.cli_errors import fails
from helpers.data_maker import make_photos, make_randomized_captioner

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos

SAMPLER = Greedy(max_new_tokens=6)


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return make_randomized_captioner()


@pytest.fixture(scope="module")
def captions(captioner, tmp_path_factory) -> list[str]:
    """The captions of five photos."""
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder, 5)
    captions = captioner.generate(sorted(folder.iterdir()), SAMPLER)
    assert len(set(captions)) > 1
    return captions


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of five photos and one that cannot be read."""
    make_photos(tmp_path / "holiday", 5)
    (tmp_path / "holiday" / "broken.jpg").write_bytes(b"no photo")
    return tmp_path / "holiday"


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}


def test_each_photo_gets_a_file_with_its_caption(folder, captioner, captions):
    results = caption_folder(folder, captioner, SAMPLER, batch_size=2, writer=Sidecars())
    assert texts(folder) == {f"{i}.txt": f"{caption}\n" for i, caption in enumerate(captions)}
    assert [path.name for path, _ in results.skipped] == ["broken.jpg"] and not results.existing


def test_text_around_captions_names_photo_and_folder(folder, captioner, captions):
    sidecars = Sidecars(".caption", before="{folder}/{name}: ", after=" {here}")
    caption_folder(folder / "3.jpg", captioner, SAMPLER, writer=sidecars)
    assert (folder / "3.caption").read_text() == f"holiday/3: {captions[3]} {{here}}\n"


def test_several_captions_are_lines(folder, captioner):
    sampler = Beam(num_beams=3, num_captions=3, max_new_tokens=6)
    caption_folder(folder / "0.jpg", captioner, sampler, writer=Sidecars())
    expected = captioner.generate(folder / "0.jpg", sampler, details=True)
    assert (folder / "0.txt").read_text() == "".join(f"{x.text}\n" for x in expected)


@pytest.mark.parametrize(
    ("existing", "expected"),
    (
        ("skip", "old\nlines"),
        ("overwrite", "NEW\n"),
        ("append", "old\nlines\nNEW\n"),
        ("prepend", "NEW\nold\nlines\n"),
    ),
)
def test_existing_files_are_treated_as_requested(existing, expected, folder, captioner, captions):
    (folder / "0.txt").write_text("old\nlines")
    (folder / "1.txt").write_bytes(b"\xff old")
    results = caption_folder(
        [folder / "0.jpg", folder / "1.jpg", folder / "2.jpg"],
        captioner,
        SAMPLER,
        writer=Sidecars(existing=existing),
    )
    assert (folder / "0.txt").read_text() == expected.replace("NEW", captions[0])
    assert (folder / "2.txt").read_text() == f"{captions[2]}\n"
    is_kept = (folder / "1.txt").read_bytes() == b"\xff old"
    assert is_kept == (existing != "overwrite")  # text cannot be added to what is not UTF-8
    assert [path.name for path, _ in results.skipped] == ["1.jpg"] * (
        existing in ("append", "prepend")
    )
    assert [path.name for path in results.existing] == ["0.jpg", "1.jpg"] * (existing == "skip")


def test_an_interrupted_call_is_continued_with_the_same_captions(folder, captioner, monkeypatch):
    sampler = Nucleus(seed=1, max_new_tokens=6)
    shutil.copytree(folder, folder.parent / "whole")
    caption_folder(folder.parent / "whole", captioner, sampler, batch_size=2, writer=Sidecars())
    write = Sidecars.write

    def write_two(self, photo, captions):
        if photo.name == "2.jpg":
            raise KeyboardInterrupt
        write(self, photo, captions)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sidecars, "write", write_two)
        caption_folder(folder, captioner, sampler, batch_size=2, writer=Sidecars())
    assert sorted(texts(folder)) == ["0.txt", "1.txt"]
    results = caption_folder(folder, captioner, sampler, batch_size=2, writer=Sidecars())
    assert [path.name for path, _ in results.captions] == ["2.jpg", "3.jpg", "4.jpg"]
    assert texts(folder) == texts(folder.parent / "whole")


def test_an_interrupted_write_leaves_the_old_file(folder, captioner, monkeypatch):
    (folder / "0.txt").write_text("old")

    def stop(new, path):
        raise KeyboardInterrupt

    monkeypatch.setattr("effcap.utils.files.replace_file", stop)
    with pytest.raises(KeyboardInterrupt):
        sidecars = Sidecars(existing="overwrite")
        caption_folder(folder / "0.jpg", captioner, SAMPLER, writer=sidecars)
    assert (folder / "0.txt").read_text() == "old"


def test_photos_that_share_a_file_are_refused(folder, captioner):
    shutil.copy(folder / "0.jpg", folder / "0.png")
    with pytest.raises(ValueError, match=r"0\.(jpg|png) and .*0\.(jpg|png), which share .*0\.txt"):
        caption_folder(folder, captioner, SAMPLER, writer=Sidecars())
    assert not texts(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"suffix": "txt"}, "a suffix such as '.txt'"),
        ({"suffix": "./a.txt"}, "a suffix such as '.txt'"),
        ({"suffix": ".JPG"}, "a suffix that photos do not have"),
        ({"existing": "replace"}, "existing out of skip, overwrite, append, prepend"),
    ),
)
def test_invalid_sidecars_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Sidecars(**fields)


def test_the_command_writes_files_and_continues_without_loading_the_model(
    folder, captioner, captions, capsys, monkeypatch
):
    captioner.save_to_preset(folder.parent / "preset")
    command = ["caption", str(folder), "--model", str(folder.parent / "preset"), "--sidecar"]
    command += ["--sampler", "greedy", "--max-new-tokens", "6", "--after", "!"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.out == "" and "5 files .txt written beside the photos" in output.err
    assert texts(folder) == {f"{i}.txt": f"{caption}!\n" for i, caption in enumerate(captions)}
    (folder / "broken.jpg").unlink()
    monkeypatch.setattr("effcap.tools.cli.caption.start_engine", lambda _: pytest.fail("Keras"))
    assert main(command) == 0
    assert "captions exist for 5 of 5 photos" in capsys.readouterr().err


def test_outcomes_say_what_became_of_each_photo(folder, captioner, tmp_path, capsys):
    captioner.save_to_preset(tmp_path / "preset")
    (folder / "0.txt").write_text("old")
    for limit in (1, 40):
        command = ["caption", str(folder), "--model", str(tmp_path / "preset"), "--sidecar"]
        command += ["--existing", "skip" if limit == 1 else "overwrite", "--sampler", "greedy"]
        command += ["--max-new-tokens", str(limit), "--report", str(tmp_path / f"{limit}.csv")]
        assert main(command) == 0
    rows = {row["image"].split("/")[-1]: row for row in read_table(tmp_path / "1.csv")}
    assert len(rows) == 6 and "not an image" in rows["broken.jpg"]["reason"]
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    cut = {f"{i}.jpg": "cut" for i in range(1, 5)}
    assert outcomes == {"broken.jpg": "skipped", "0.jpg": "existing", **cut}
    rows = {row["image"].split("/")[-1]: row for row in read_table(tmp_path / "40.csv")}
    del rows["broken.jpg"]
    photos = [folder / name for name in rows]
    expected = captioner.generate(photos, Greedy(max_new_tokens=40), details=True)
    for row, (caption,) in zip(rows.values(), expected, strict=True):
        assert row["outcome"] == ("captioned" if caption.is_finished else "cut")
        assert row["caption"] == caption.text


def test_several_captions_are_printed_and_scored(folder, captioner, capsys, tmp_path):
    captioner.save_to_preset(tmp_path / "preset")
    command = ["caption", str(folder / "0.jpg"), "--model", str(tmp_path / "preset")]
    command += ["--num-captions", "2", "--max-new-tokens", "6"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main([*command, "--out", str(tmp_path / "a.json")]) == 0
    (entry,) = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [line.split("\t", 1)[1] for line in lines] == entry["captions"] and len(lines) == 2
    assert entry["scores"] == sorted(entry["scores"], reverse=True)
    (read,) = read_captions(tmp_path / "a.json")
    assert read.captions == tuple(entry["captions"])
    page = [*command, "--page", str(tmp_path / "a.html"), "--beside", str(tmp_path / "a.json")]
    assert main(page) == 0
    assert html.escape(entry["captions"][0]) in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["photos", "--existing", "append"], "--existing requires --sidecar or --write"),
        (["photos", "--before", "x"], "--before requires --sidecar or --write"),
        (["--features", "f.hdf5", "--sidecar"], "--sidecar requires photos"),
        (["--shards", "x", "--out", "y", "--num-captions", "2"], "--num-captions requires photos"),
    ),
)
def test_options_that_do_not_fit_are_reported(options, message, capsys):
    assert message in fails(["caption", *options], capsys)


def test_uncertain_captions_are_left_for_a_person(folder, captioner, tmp_path, capsys):
    (folder / "broken.jpg").unlink()
    photos = sorted(folder.iterdir())
    batch = captioner.generate(photos, SAMPLER, details=True)
    confidences = sorted(caption.confidence for (caption,) in batch)
    minimum = (confidences[1] + confidences[2]) / 2
    captioner.save_to_preset(tmp_path / "preset")
    command = ["caption", str(folder), "--model", str(tmp_path / "preset"), "--sidecar"]
    command += ["--sampler", "greedy", "--max-new-tokens", "6", "--out", str(tmp_path / "a.csv")]
    command += ["--report", str(tmp_path / "b.json"), "--min-confidence"]
    assert main([*command, str(minimum)]) == 0
    error = capsys.readouterr().err
    assert f"2 of 5 photos have a confidence below {minimum:g}" in error
    assert "3 files .txt written" in error and len(texts(folder)) == 3
    entries = read_table(tmp_path / "a.csv")
    kept = [path for path, (x,) in zip(photos, batch, strict=True) if x.confidence >= minimum]
    assert [entry["image"] for entry in entries] == [str(path) for path in kept]
    assert len(read_captions(tmp_path / "a.csv")) == 3
    rows = [row for row in read_table(tmp_path / "b.json") if row["outcome"] == "uncertain"]
    for row in rows:
        (expected,) = batch[photos.index(Path(row["image"]))]
        assert (row["caption"], row["reason"]) == (expected.text, None)
        assert row["confidence"] == pytest.approx(expected.confidence, rel=1e-4)
    assert len(rows) == 2
    assert main([*command, "1", "--existing", "overwrite"]) == 0  # none is as sure as that
    assert read_table(tmp_path / "a.csv") == []


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_minimum_confidence_must_be_a_fraction(value, folder, captioner):
    with pytest.raises(ValueError, match=f"min_confidence={value}"):
        caption_folder(folder, captioner, SAMPLER, min_confidence=value)
