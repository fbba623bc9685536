"""Tests of `effcap evaluate` and `effcap.tools.evaluate`."""

from __future__ import annotations

import json
import sys

import pytest

from effcap.metrics import score_captions
from effcap.tools import evaluate, read_references
from effcap.tools.cli import main
from effcap.tools.evaluation.report import sections_by
from helpers.cli_errors import fails
from helpers.data_maker import make_captioner, make_photos, write_csv

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
    """Returns captions with the names of the photos."""
    pairs = zip(DATA, CAPTIONS, strict=True)
    return [{"image": name, "caption": text} for (name, _), text in pairs]


def by_id() -> list[dict]:
    """Returns captions with the COCO ids of the photos."""
    return [{"image_id": 10 + i, "caption": text} for i, text in enumerate(CAPTIONS)]


def words(folder, results, references="references.csv", *options) -> list[str]:
    """Returns the arguments of the command, and writes `results` as text or JSON."""
    text = results if isinstance(results, str) else json.dumps(results)
    (folder / "results.json").write_text(text, encoding="utf-8")
    files = ["--captions", folder / "results.json", "--references", folder / references]
    return ["evaluate", *map(str, [*files, *options])]


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
def test_captions_by_id_or_name_get_the_same_scores_in_any_order(
    files, results, references, capsys
):
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


def test_photos_are_found_by_path_or_unique_file_name(files, capsys):
    results = by_name()
    results[0]["image"] = "elsewhere/1.jpg"
    results[3]["image"] = str(files / "4.jpg")
    assert main(words(files, results, "references.csv", "--json", files / "s.json")) == 0
    assert json.loads((files / "s.json").read_text())["counts"]["photos"] == 4
    results[1]["image"] = "elsewhere/2.jpg"
    capsys.readouterr()
    message = fails(words(files, results), capsys)
    assert "elsewhere/2.jpg is ambiguous: it may be a/2.jpg or b/2.jpg" in message


def test_the_name_of_a_photo_precedes_the_file_name_of_another(files):
    write_csv(files / "references.csv", [*DATA, ("c/4.jpg", ["A boat."])])
    assert main(words(files, by_name(), "references.csv", "--json", files / "s.json")) == 0
    assert json.loads((files / "s.json").read_text())["counts"]["photos without captions"] == 1


def test_what_is_not_scored_is_printed_and_counted(files, capsys):
    results = [*by_name()[:2], {"image": "other.jpg", "caption": "a cow"}]
    assert main(words(files, results, "references.csv", "--json", files / "s.json")) == 0
    printed = capsys.readouterr().err
    assert "not scored: 2 of 4 photos with references, no caption: b/2.jpg, 4.jpg" in printed
    assert "not scored: 1 of 3 captioned photos, no references: other.jpg" in printed
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
        (
            [*by_name(), {"image": "./4.jpg", "caption": "x"}],
            "coco.json",
            "./4.jpg and 4.jpg, which are the same",
        ),
        (by_id(), "references.csv", "need references with ids, in COCO's format"),
        (
            [{"image": "x.jpg", "caption": "a"}],
            "coco.json",
            "captions of other photos, such as x.jpg",
        ),
        ([{"image_id": 1, "caption": "a"}], "coco.json", "captions of other photos, such as 1"),
        ([], "coco.json", "Received: a list of 0"),
        ({"image": "4.jpg"}, "coco.json", "Received: an object"),
        ("[{", "coco.json", "Expected JSON in"),
        ([*by_id(), {"image_id": 1}], "coco.json", 'entry [4], {"image_id": 1}'),
        ([{"image_id": True, "caption": "a"}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "image_id": 13, "caption": "a"}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "caption": None}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "caption": ["a"]}], "coco.json", "entry [0]"),
        ([{"image": "4.jpg", "captions": []}], "coco.json", "entry [0]"),
        (by_name(), "none.csv", "CSV or JSON file not found"),
    ),
)
def test_invalid_captions_are_reported_in_one_line(files, results, references, message, capsys):
    assert message in fails(words(files, results, references), capsys)


def test_too_many_unusable_references_are_an_error(files, capsys):
    write_csv(files / "bad.csv", [*DATA, ("5.jpg", [""])])
    assert "1 of 8 captions" in fails(words(files, by_name(), "bad.csv"), capsys)
    (files / "empty.csv").write_text("image,caption\n")
    assert "There are no references in" in fails(words(files, by_name(), "empty.csv"), capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["--captions", "x.json"], "--references, --dataset and --playlists. Received: none"),
        (["--csv", "a.csv", "--references", "b.csv"], "Received: --csv and --references"),
        (["--csv", "a.csv", "--captions", "x", "--model", "m"], "--model cannot be used with"),
        (["--csv", "a.csv", "--captions", "x", "--num-beams", "3"], "--num-beams cannot be used"),
        (["--csv", "a.csv", "--captions", "x", "--num-captions", "3"], "--num-captions cannot be"),
        (["--csv", "a.csv", "--captions", "x", "--features", "f"], "--features cannot be used"),
        (["--csv", "references.csv", "--captions", "none.json"], "There is no file of captions"),
        (["--csv", "a.csv", "--num-captions", "2", "--sampler", "greedy"], "beam or nucleus"),
        (["--csv", "a.csv", "--top-p", "0.5"], "--top-p requires --sampler nucleus"),
        (["--csv", "a.csv", "--batch-size", "0"], "--batch-size of at least 1"),
        (["--csv", "a.csv", "--json", "."], "--json must be a file"),
        (["--csv", "a.csv", "--out", "references.csv"], "--out must be a folder"),
        (["--csv", "none.csv"], "CSV or JSON file not found"),
        (["--csv", "references.csv", "--model", "nothing"], "Received: 'nothing'"),
        (["--csv", "references.csv"], "set their folder (images)"),
        (["--csv", "a.csv", "--max-regions", "3"], "--max-regions requires --features"),
    ),
)
def test_mistakes_are_reported_before_keras_starts(files, options, message, capsys, monkeypatch):
    monkeypatch.setattr("effcap.tools.cli.evaluate.start_engine", lambda _: pytest.fail("started"))
    monkeypatch.chdir(files)
    assert message in fails(["evaluate", *options], capsys)


def test_a_number_of_captions_below_1_is_reported_in_one_line(files, capsys):
    options = ["--csv", str(files / "coco.csv"), "--model", "flickr8k-lite0", "--num-captions", "0"]
    write_csv(files / "coco.csv", make_photos(files, 2))
    assert "num_captions=0" in fails(["evaluate", *options], capsys)


def test_missing_java_packages_are_reported_first(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for flag in ("--meteor", "--spice"):
        message = fails(words(files, by_name(), "none.csv", flag), capsys)
        assert "pip install 'effcap[metrics]'" in message


def test_a_single_photo_has_no_cider(files, capsys):
    assert main(words(files, by_name()[:1])) == 0
    assert "CIDEr is 0 for a single photo" in capsys.readouterr().err


def test_captions_are_scored_from_python(files):
    captions = {name: text for (name, _), text in zip(DATA, CAPTIONS, strict=True)}
    references = read_references(files / "coco.json")
    evaluation = evaluate(captions, references)
    assert evaluation.scores.corpus == score_captions(CAPTIONS, [t for _, t in DATA]).corpus
    assert evaluation.counts["photos"] == 4 and evaluation.captions.notes == []
    with pytest.raises(ValueError, match="captions of other photos, such as x.jpg"):
        evaluate({"x.jpg": ["a", "b"]}, references)


def test_without_photos_there_is_no_page(files, capsys):
    assert main(words(files, by_name(), "references.csv", "--out", files / "out")) == 0
    assert "no page: there is no photo such as" in capsys.readouterr().err
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "captions.json",
        "scores.json",
    ]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with nine photos, one of them damaged, and the --out of a tiny captioner."""
    folder = tmp_path_factory.mktemp("evaluate")
    data = make_photos(folder / "photos", 9)
    (folder / "photos" / "8.jpg").write_bytes(b"no photo")
    for name, part in (("one.csv", data[:4]), ("two.csv", data[4:])):
        write_csv(folder / name, part)
    make_captioner().save_to_preset(folder / "preset")
    out = folder / "out"
    model = ["--model", folder / "preset", "--images", folder / "photos", "--max-new-tokens", 6]
    sampler = ["--sampler", "nucleus", "--seed", 1, "--num-captions", 2]
    files = ["--csv", folder / "one.csv", folder / "two.csv", "--out", out]
    assert main(["evaluate", *map(str, [*files, *model, *sampler])]) == 0
    return folder, out


def test_captions_scores_and_page_of_a_preset_are_written(evaluated):
    folder, out = evaluated
    record = json.loads((out / "scores.json").read_text())
    assert record["sampler"] == {
        "name": "nucleus",
        "seed": 1,
        "num_captions": 2,
        "max_new_tokens": 6,
    }
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
    assert "no caption: 8.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("count", (1, 2, 3, 5, 24, 30))
def test_sections_show_a_photo_once_the_best_and_the_worst_first(count):
    sections = sections_by([float(i) for i in range(count)])
    chosen = [index for indices in sections.values() for index in indices]
    assert len(chosen) == len(set(chosen))
    assert sections["Best"][0] == count - 1
    if count > 1:
        assert sections["Worst"][0] == 0
    assert max(map(len, sections.values())) <= 8


def test_references_may_be_in_the_folder_of_the_photos(tmp_path, capsys):
    for name, texts in DATA:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.with_suffix(".txt").write_text("\n".join(texts))
    write_csv(tmp_path / "references.csv", DATA)
    scores = []
    for references in ("references.csv", "photos"):
        json_file = tmp_path / "scores.json"
        assert main(words(tmp_path, by_name(), references, "--json", json_file)) == 0
        scores.append(json.loads(json_file.read_text())["scores"])
    assert scores[0] == pytest.approx(scores[1])


def test_english_words_in_another_script_are_noted_and_can_be_replaced(tmp_path, capsys):
    data = [("1.jpg", ["犬が走っている。"]), ("2.jpg", ["黒い猫。", "猫が座る。"])]
    write_csv(tmp_path / "references.csv", data)
    results = [{"image": "1.jpg", "caption": "犬が走る"}, {"image": "2.jpg", "caption": "猫"}]
    scores = {}
    for tokenization in ("ptb", "char"):
        file = tmp_path / f"{tokenization}.json"
        options = ["--tokenize", tokenization, "--json", file]
        assert main(words(tmp_path, results, "references.csv", *options)) == 0
        assert ("are English" in capsys.readouterr().err) == (tokenization == "ptb")
        scores[tokenization] = json.loads(file.read_text())
        assert scores[tokenization]["tokenization"] == tokenization
    assert scores["ptb"]["scores"]["BLEU-1"] < 0.1 < scores["char"]["scores"]["BLEU-1"]


def test_metrics_of_english_words_are_refused_for_other_languages(files, capsys):
    options = ["--tokenize", "unicode", "--spice"]
    line = fails(words(files, by_name(), "references.csv", *options), capsys)
    assert "SPICE can only score English" in line and "tokenization='unicode'" in line
