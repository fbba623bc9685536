"""`effcap caption`: photos in, captions out, mistakes in one line."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.cli_errors import fails
from helpers.cli_process import CHATTER, effcap, environment
from helpers.data_maker import make_captioner, make_photos

from effcap.captioner import Captioner
from effcap.images import load_photo
from effcap.samplers import Beam, Nucleus
from effcap.tools.cli import main
from effcap.tools.cli.captioning import readable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caption")
    make_photos(folder / "photos", 5)
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    captioner = make_captioner()
    captioner.decoder.wpe.assign(captioner.decoder.wpe * 30)  # so that captions differ
    captioner.encoder.position_embedding.assign(captioner.encoder.position_embedding * 9)
    captioner.save_to_preset(folder / "run" / "best")
    return folder


def words(folder, *more, photos="photos") -> list[str]:
    model = ["--model", str(folder / "run" / "best"), "--max-tokens", "6"]
    return ["caption", str(folder / photos), *model, *map(str, more)]


@pytest.mark.parametrize("fit", ("squash", "crop", "pad"))
def test_photos_are_fitted_as_the_model_says(folder, fit):
    path = folder / "photos" / "1.jpg"
    encoder = SimpleNamespace(image_size=(32, 32), fit=fit)
    (((_, image),),) = readable([path], encoder, 2, [])
    assert np.array_equal(image, load_photo(path, (32, 32), fit))


def test_a_folder_becomes_json_and_unreadable_photos_are_told(folder, tmp_path, capsys):
    out = tmp_path / "new" / "captions.json"
    assert main(words(folder, "--beams", 2, "--out", out, "--batch-size", 2)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.jpg" in captured.err and "1 of 6 photos could not be read" in captured.err
    entries = json.loads(out.read_text())
    assert [set(entry) for entry in entries] == [{"image", "caption", "score"}] * 5
    paths = [folder / "photos" / f"{i}.jpg" for i in range(5)]
    assert [entry["image"] for entry in entries] == list(map(str, paths))
    captioner = Captioner.from_preset(folder / "run" / "best")
    wanted = captioner.generate(paths, Beam(beams=2, max_tokens=6), details=True)
    for entry, (best, *_) in zip(entries, wanted, strict=True):
        assert entry["caption"] == best.text
        assert entry["score"] == pytest.approx(best.score, abs=1e-4)


def test_captions_go_to_stdout_and_sampling_is_as_asked(folder, capsys):
    asked = ("--sampler", "nucleus", "--p", 0.8, "--seed", 3, "--temperature", 1.5)
    assert main(words(folder, *asked, photos="photos/[12].jpg")) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    paths = [str(folder / "photos" / f"{i}.jpg") for i in (1, 2)]
    sampler = Nucleus(p=0.8, seed=3, temperature=1.5, max_tokens=6)
    captions = Captioner.from_preset(folder / "run" / "best").generate(paths, sampler)
    if all("\n" not in caption for caption in captions):
        assert rows == [list(row) for row in zip(paths, captions, strict=True)]


def test_the_page_names_its_columns_after_the_files(folder, tmp_path, capsys):
    before, after, page = (tmp_path / name for name in ("before.json", "after.json", "page.html"))
    photo = folder / "photos" / "1.jpg"
    before.write_text(json.dumps([{"image": str(photo), "caption": "Old one.", "score": -2.5}]))
    given = words(folder, "--sampler", "greedy", "--out", after, "--page", page)
    assert main([*given, "--beside", str(before)]) == 0
    text = page.read_text()
    assert text.index("<dt>before</dt>") < text.index("<dt>after</dt>")
    assert text.count("<dd>Old one.") == 1 and text.count("<figure>") == 5
    assert main(given) == 0
    assert "<dt>run/best</dt>" in page.read_text()
    before.write_text(json.dumps([{"image": "other.jpg", "caption": "A", "score": 0}]))
    assert main([*given, "--beside", str(before)]) == 2
    assert "of others, such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    (
        (["--sampler", "nucleus", "--beams", "3"], "no --beams, which is for --sampler beam"),
        (["--sampler", "greedy", "--p", "0.5"], "no --p, which is for --sampler nucleus"),
        (["--seed", "3"], "no --seed, which is for --sampler nucleus"),
        (["--model", "nothing"], "Received: 'nothing'"),
        (["--batch-size", "0"], "--batch-size of at least 1. Received: 0"),
        (["--beside", "x.json"], "--page FILE with --beside"),
        (["--out", "."], "Expected a file to write. Received: ., a folder"),
    ),
)
def test_mistakes_are_told_before_tensorflow_starts(folder, more, message, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.caption.start_keras", lambda: pytest.fail("started"))
    assert message in fails(words(folder, *more), capsys)


@pytest.mark.parametrize("photos", ("none.jpg", "photos/*.png", "run"))
def test_photos_that_are_not_there_are_one_line(folder, photos, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.caption.start_keras", lambda: pytest.fail("started"))
    assert photos in fails(words(folder, photos=photos), capsys)


def test_values_out_of_range_are_one_line(folder, capsys):
    assert "beams" in fails(words(folder, "--beams", 0), capsys)


def test_nothing_readable_is_a_failure(folder, capsys):
    assert main(words(folder, photos="photos/broken.jpg")) == 2
    assert "at least one readable photo" in capsys.readouterr().err


def test_a_real_process_says_captions_and_nothing_else(folder):
    command = effcap(*words(folder, "--sampler", "greedy", photos="photos/1.jpg"))
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert ran.returncode == 0
    assert ran.stdout.startswith(str(folder / "photos" / "1.jpg") + "\t")
    assert not ran.stderr.strip() and not any(word in ran.stderr for word in CHATTER)
