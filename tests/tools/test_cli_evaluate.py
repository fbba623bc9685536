"""`effcap evaluate`: captions against references, whoever made them; nothing scored silently."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.cli_errors import fails
from helpers.data_maker import make_captioner, make_photos, write_csv

from effcap.metrics import score_captions
from effcap.tools.cli import main
from effcap.tools.cli.evaluate import sections_by

DATA = [
    ("a/1.jpg", ["A dog runs on the grass.", "a dog on grass"]),
    ("a/2.jpg", ["Two cats sit on a sofa.", "cats on a red sofa"]),
    ("b/2.jpg", ["A man rides a bike."]),
    ("4.jpg", ["A red bus in the street.", "The bus stops."]),
]
CAPTIONS = ["a dog runs", "two cats on a sofa", "a man", "a bus"]


@pytest.fixture
def files(tmp_path):
    """A folder with DATA as references.csv and as coco.json."""
    write_csv(tmp_path / "references.csv", DATA)
    coco = {
        "images": [{"id": 10 + i, "file_name": name} for i, (name, _) in enumerate(DATA)],
        "annotations": [
            {"image_id": 10 + i, "caption": text}
            for i, (_, texts) in enumerate(DATA)
            for text in texts
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    return tmp_path


def by_name() -> list[dict]:
    pairs = zip(DATA, CAPTIONS, strict=True)
    return [{"image": name, "caption": text} for (name, _), text in pairs]


def by_id() -> list[dict]:
    return [{"image_id": 10 + i, "caption": text} for i, text in enumerate(CAPTIONS)]


def words(folder, results, references="references.csv", *more) -> list[str]:
    """The command line; `results` go into a file, as text or as JSON."""
    text = results if isinstance(results, str) else json.dumps(results)
    (folder / "results.json").write_text(text, encoding="utf-8")
    given = ["--captions", folder / "results.json", "--references", folder / references, *more]
    return ["evaluate", *map(str, given)]


@pytest.mark.parametrize(
    ("results", "references"),
    (
        (by_id(), "coco.json"),
        ([{**entry, "image_id": str(entry["image_id"])} for entry in by_id()], "coco.json"),
        (by_name(), "coco.json"),
        (by_name(), "references.csv"),
        (by_name()[::-1], "references.csv"),
    ),
)
def test_results_by_id_or_name_get_the_same_scores_in_any_order(files, results, references, capsys):
    out = files / "new" / "scores.json"
    assert main(words(files, results, references, "--json", out)) == 0
    record = json.loads(out.read_text())
    assert record["scores"] == pytest.approx(
        score_captions(CAPTIONS, [texts for _, texts in DATA]).corpus
    )
    assert record["counts"]["photos"] == 4 and record["counts"]["references"] == 7
    assert record["command"][:2] == ["effcap", "evaluate"]
    table = capsys.readouterr().out
    assert all(name in table for name in ("BLEU-4", "ROUGE-L", "CIDEr", "distinct captions"))


def test_photos_are_found_by_path_and_by_a_file_name_that_only_one_has(files, capsys):
    results = by_name()
    results[0]["image"] = "elsewhere/1.jpg"
    results[3]["image"] = str(files / "4.jpg")
    assert main(words(files, results, "references.csv", "--json", files / "s.json")) == 0
    assert json.loads((files / "s.json").read_text())["counts"]["photos"] == 4
    results[1]["image"] = "elsewhere/2.jpg"
    capsys.readouterr()
    message = fails(words(files, results), capsys)
    assert "elsewhere/2.jpg, which may be a/2.jpg or b/2.jpg" in message


def test_a_photos_own_name_goes_before_the_file_name_of_another(files):
    write_csv(files / "references.csv", [*DATA, ("c/4.jpg", ["A boat."])])
    assert main(words(files, by_name(), "references.csv", "--json", files / "s.json")) == 0
    assert json.loads((files / "s.json").read_text())["counts"]["photos without captions"] == 1


def test_what_is_not_scored_is_told_and_counted(files, capsys):
    results = [*by_name()[:2], {"image": "other.jpg", "caption": "a cow"}]
    assert main(words(files, results, "references.csv", "--json", files / "s.json")) == 0
    told = capsys.readouterr().err
    assert "2 of 4 photos with references have no caption: b/2.jpg, 4.jpg" in told
    assert "1 of 3 captioned photos have no references: other.jpg" in told
    record = json.loads((files / "s.json").read_text())
    assert record["counts"]["photos without captions"] == 2
    assert record["counts"]["captions without references"] == 1
    assert record["scores"] == pytest.approx(
        score_captions(CAPTIONS[:2], [texts for _, texts in DATA[:2]]).corpus
    )


@pytest.mark.parametrize(
    ("results", "references", "message"),
    (
        ([*by_name(), by_name()[0]], "references.csv", "each photo once"),
        ([*by_id(), by_id()[2]], "coco.json", "Received: 12 twice"),
        ([*by_name(), {"image": "./4.jpg", "caption": "x"}], "coco.json", "./4.jpg and 4.jpg"),
        (by_id(), "references.csv", "references in COCO's format, which have ids"),
        ([{"image": "x.jpg", "caption": "a"}], "coco.json", "captions of others, such as x.jpg"),
        ([{"image_id": 1, "caption": "a"}], "coco.json", "captions of others, such as 1"),
        ([], "coco.json", "Received: a list of 0"),
        ({"image": "4.jpg"}, "coco.json", "Received: an object"),
        ("[{", "coco.json", "Expected JSON in"),
        ([*by_id(), {"image_id": 1}], "coco.json", 'entry [4], {"image_id": 1}'),
        ([{"image_id": True, "caption": "a"}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "image_id": 13, "caption": "a"}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "caption": None}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "caption": ["a"]}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "captions": []}], "coco.json", "entry [0]"),
        (by_name(), "none.csv", "which is not there"),
    ),
)
def test_bad_results_are_one_line(files, results, references, message, capsys):
    assert message in fails(words(files, results, references), capsys)


def test_references_that_cannot_be_used_stop_it(files, capsys):
    write_csv(files / "bad.csv", [*DATA, ("5.jpg", [""])])
    assert "1 of 8 captions" in fails(words(files, by_name(), "bad.csv"), capsys)
    (files / "empty.csv").write_text("image,caption\n")
    assert "Expected references. Received: none" in fails(
        words(files, by_name(), "empty.csv"), capsys
    )


@pytest.mark.parametrize(
    ("more", "message"),
    (
        (["--captions", "x.json"], "Expected --csv, --references or --playlists. Received: none"),
        (["--csv", "a.csv", "--references", "b.csv"], "Received: csv and references"),
        (["--csv", "a.csv", "--captions", "x.json", "--model", "m"], "no --model"),
        (["--csv", "a.csv", "--captions", "x.json", "--beams", "3"], "no --beams"),
        (["--csv", "a.csv", "--captions", "x.json", "--samples", "3"], "no --samples"),
        (["--csv", "a.csv", "--samples", "0"], "--samples of at least 1. Received: 0"),
        (["--csv", "a.csv", "--samples", "2", "--sampler", "greedy"], "beam or nucleus"),
        (["--csv", "a.csv", "--p", "0.5"], "no --p, which is for --sampler nucleus"),
        (["--csv", "a.csv", "--batch-size", "0"], "--batch-size of at least 1"),
        (["--csv", "a.csv", "--json", "."], "Expected a file for --json"),
        (["--csv", "none.csv"], "which is not there"),
        (["--csv", "references.csv", "--model", "nothing"], "Received: 'nothing'"),
        (["--csv", "references.csv"], "give their folder with --images"),
    ),
)
def test_mistakes_are_told_before_keras_starts(files, more, message, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.evaluate.start_keras", lambda: pytest.fail("started"))
    monkeypatch.chdir(files)
    assert message in fails(["evaluate", *more], capsys)


def test_what_needs_java_is_told_first(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for flag in ("--meteor", "--spice"):
        message = fails(words(files, by_name(), "none.csv", flag), capsys)
        assert "pip install 'effcap[metrics]'" in message


def test_a_single_photo_is_told_to_have_no_cider(files, capsys):
    assert main(words(files, by_name()[:1])) == 0
    assert "of one photo it is always 0" in capsys.readouterr().err


def test_captions_of_a_file_are_scored_without_keras(files):
    code = (
        "import sys; from effcap.tools.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, *words(files, by_name())]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_without_photos_there_is_no_page_and_it_is_said(files, capsys):
    assert main(words(files, by_name(), "references.csv", "--out", files / "out")) == 0
    assert "no page: there is no photo such as" in capsys.readouterr().err
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "captions.json",
        "scores.json",
    ]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(folder, its --out) of a tiny model's captions of nine photos, one of them damaged."""
    folder = tmp_path_factory.mktemp("evaluate")
    data = make_photos(folder / "photos", 9)
    (folder / "photos" / "8.jpg").write_bytes(b"no photo")
    for name, part in (("one.csv", data[:4]), ("two.csv", data[4:])):
        write_csv(folder / name, part)
    make_captioner().save_to_preset(folder / "preset")
    out = folder / "out"
    model = ["--model", folder / "preset", "--images", folder / "photos", "--max-tokens", 6]
    sampler = ["--sampler", "nucleus", "--seed", 1, "--samples", 2]
    files = ["--csv", folder / "one.csv", folder / "two.csv", "--out", out]
    assert main(["evaluate", *map(str, [*files, *model, *sampler])]) == 0
    return folder, out


def test_a_models_captions_scores_and_page_are_written(evaluated):
    folder, out = evaluated
    record = json.loads((out / "scores.json").read_text())
    assert record["sampler"] == {"name": "nucleus", "seed": 1, "captions": 2, "max_tokens": 6}
    assert record["model"] == str(folder / "preset")
    counts = record["counts"]
    assert (counts["photos"], counts["captions"], counts["unreadable photos"]) == (8, 16, 1)
    assert {"div-1", "div-2", "Self-CIDEr"} <= set(record["scores"])
    entries = json.loads((out / "captions.json").read_text())
    assert [entry["image"] for entry in entries] == [f"{i}.jpg" for i in range(8)]
    assert all(len(entry["captions"]) == len(entry["scores"]) == 2 for entry in entries)
    page = (out / "index.html").read_text()
    assert page.count("<figure>") == 6 and page.count("data:image/jpeg") == 6
    assert [page.count(f"<h2>{name}</h2>") for name in ("Best", "Worst", "At random")] == [1, 1, 1]


def test_written_captions_can_be_scored_again(evaluated, capsys):
    folder, out = evaluated
    references = [str(folder / name) for name in ("one.csv", "two.csv")]
    again = ["--captions", str(out / "captions.json"), "--json", str(folder / "again.json")]
    assert main(["evaluate", *again, "--csv", *references]) == 0
    first, second = (
        json.loads(p.read_text()) for p in (out / "scores.json", folder / "again.json")
    )
    assert second["scores"] == pytest.approx(first["scores"])
    assert "have no caption: 8.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("count", (1, 2, 3, 5, 24, 30))
def test_sections_show_a_photo_once_best_first_and_worst_first(count):
    sections = sections_by([float(i) for i in range(count)])
    chosen = [place for places in sections.values() for place in places]
    assert len(chosen) == len(set(chosen))
    assert sections["Best"][0] == count - 1
    if count > 1:
        assert sections["Worst"][0] == 0
    assert max(map(len, sections.values())) <= 8
