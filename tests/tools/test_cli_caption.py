"""Tests of `effcap caption` with photos, and of `caption_folder`."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Beam, Nucleus
from effcap.tools import caption_folder
from effcap.tools.captioning.photos import load_batches
from effcap.tools.cli import main
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER, effcap, environment
from helpers.data_maker import make_captioner, make_photos

pytestmark = pytest.mark.usefixtures("eager")  # faster for a few photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with five photos, a damaged one, and a captioner in run/best."""
    folder = tmp_path_factory.mktemp("caption")
    make_photos(folder / "photos", 5)
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    captioner = make_captioner()
    for module, factor in ((captioner.decoder, 30), (captioner.encoder, 9)):
        table = module.position_embedding.embeddings
        table.assign(table * factor)  # so that captions differ
    captioner.save_to_preset(folder / "run" / "best")
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    """The captioner in run/best."""
    return Captioner.from_preset(folder / "run" / "best")


def words(folder, *options, photos="photos") -> list[str]:
    """Returns the arguments of the command."""
    model = ["--model", str(folder / "run" / "best"), "--max-new-tokens", "6"]
    return ["caption", str(folder / photos), *model, *map(str, options)]


@pytest.mark.parametrize("resample", (None, "bilinear"))
@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_photos_are_fitted_as_the_encoder_requires(folder, fit, resample):
    path = folder / "photos" / "1.jpg"
    backbone = SimpleNamespace(image_size=(32, 32), fit=fit, resample=resample)
    ((indices, (image,)),) = load_batches([path], backbone, 2, [])
    assert indices == [0] and np.array_equal(image, load_photo(path, (32, 32), fit, resample))


def test_unreadable_photos_are_skipped_with_a_reason(folder, captioner):
    sampler = Beam(num_beams=2, max_new_tokens=6)
    results = caption_folder(folder / "photos", captioner, sampler, batch_size=2)
    paths = [folder / "photos" / f"{i}.jpg" for i in range(5)]
    assert [path for path, _ in results.captions] == paths
    assert [captions[0].text for _, captions in results.captions] == captioner.generate(
        paths, sampler
    )
    ((path, reason),) = results.skipped
    assert path == folder / "photos" / "broken.jpg" and reason.startswith("it is not a")
    with pytest.raises(ValueError, match="None of the 1 photos can be used, such as .*broken.jpg"):
        caption_folder([path], captioner)
    with pytest.raises(ValueError, match="batch_size=0"):
        caption_folder(folder / "photos", captioner, batch_size=0)


def test_captions_are_written_as_json_and_skipped_photos_are_printed(
    folder, captioner, tmp_path, capsys
):
    out = tmp_path / "new" / "captions.json"
    assert main(words(folder, "--num-beams", 2, "--out", out, "--batch-size", 2)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.jpg" in captured.err and "1 of 6 photos cannot be read" in captured.err
    entries = json.loads(out.read_text())
    assert [set(entry) for entry in entries] == [{"image", "caption", "score", "confidence"}] * 5
    paths = [folder / "photos" / f"{i}.jpg" for i in range(5)]
    assert [entry["image"] for entry in entries] == list(map(str, paths))
    expected = captioner.generate(paths, Beam(num_beams=2, max_new_tokens=6), details=True)
    for entry, (best, *_) in zip(entries, expected, strict=True):
        assert entry["caption"] == best.text
        assert entry["score"] == pytest.approx(best.score, abs=1e-4)


def test_captions_are_printed_with_the_sampler_of_the_options(folder, captioner, capsys):
    options = ("--sampler", "nucleus", "--top-p", 0.8, "--seed", 3, "--temperature", 1.5)
    setting = ("--set", "sampler.top_k=40")
    assert main(words(folder, *options, *setting, photos="photos/[12].jpg")) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    paths = [str(folder / "photos" / f"{i}.jpg") for i in (1, 2)]
    sampler = Nucleus(top_p=0.8, top_k=40, seed=3, temperature=1.5, max_new_tokens=6)
    captions = captioner.generate(paths, sampler)
    if all("\n" not in caption for caption in captions):
        assert rows == [list(row) for row in zip(paths, captions, strict=True)]


def test_the_page_names_its_columns_after_the_files(folder, tmp_path, capsys):
    before, after, page = (tmp_path / name for name in ("before.json", "after.json", "page.html"))
    photo = folder / "photos" / "1.jpg"
    before.write_text(json.dumps([{"image": str(photo), "caption": "Old one.", "score": -2.5}]))
    command = words(folder, "--sampler", "greedy", "--out", after, "--page", page)
    attention = tmp_path / "attention.html"
    shown = ["--attention", str(attention), "--attention-layers", "-1"]
    assert main([*command, *shown, "--beside", str(before)]) == 0
    assert attention.read_text().count("<figure") == 5 and "the only layer" in attention.read_text()
    text = page.read_text()
    assert text.index("<dt>before</dt>") < text.index("<dt>after</dt>")
    assert text.count('<dd dir="auto">Old one.') == 1 and text.count("<figure>") == 5
    assert main(command) == 0
    assert "<dt>run/best</dt>" in page.read_text()
    before.write_text(json.dumps([{"image": "other.jpg", "caption": "A", "score": 0}]))
    assert main([*command, "--beside", str(before)]) == 2
    assert "captions of others, such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--sampler", "nucleus", "--num-beams", "3"], "--num-beams requires --sampler beam"),
        (["--sampler", "greedy", "--top-p", "0.5"], "--top-p requires --sampler nucleus"),
        (["--seed", "3"], "--seed requires --sampler nucleus. Received: --sampler beam"),
        (["--set", "sampler.top_k=3"], "Unknown setting sampler.top_k"),
        (["--set", "sampler.num_beams=2.5"], "Expected sampler.num_beams of type int"),
        (["--set", "decoder.dropout=0"], "Unknown section in --set: decoder"),
        (["--model", "nothing"], "Received: 'nothing'"),
        (["--batch-size", "0"], "--batch-size of at least 1. Received: 0"),
        (["--beside", "x.json"], "--beside requires --page"),
        (["--out", "."], "--out must be a file. Received: ., a folder"),
        (["--attention", "a.gif"], "suffix .png or .html. Received: a.gif"),
        (["--attention-heads", "1"], "--attention-heads requires --attention"),
        (["--max-regions", "3"], "--max-regions requires --features"),
        (["--features", "f.hdf5"], "Give only one of PHOTO, --shards and --features"),
    ),
)
def test_mistakes_are_reported_before_keras_starts(folder, options, message, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.caption.start_engine", lambda _: pytest.fail("started"))
    assert message in fails(words(folder, *options), capsys)


@pytest.mark.parametrize("photos", ("none.jpg", "photos/*.png", "run"))
def test_missing_photos_are_reported_in_one_line(folder, photos, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.caption.start_engine", lambda _: pytest.fail("started"))
    assert photos in fails(words(folder, photos=photos), capsys)


def test_values_out_of_range_are_reported_in_one_line(folder, capsys):
    assert "num_beams=0" in fails(words(folder, "--num-beams", 0), capsys)


def test_a_folder_without_readable_photos_is_an_error(folder, capsys):
    assert main(words(folder, photos="photos/broken.jpg")) == 2
    assert "None of the 1 photos can be used" in capsys.readouterr().err


def test_a_process_prints_captions_and_nothing_else(folder):
    command = effcap(*words(folder, "--sampler", "greedy", photos="photos/1.jpg"))
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert ran.returncode == 0
    assert ran.stdout.startswith(str(folder / "photos" / "1.jpg") + "\t")
    assert not ran.stderr.strip() and not any(word in ran.stderr for word in CHATTER)
