"""Tests of `read_json`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from effcap.trainers import read_json, tidy

COCO = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg", "width": 3}],
    "annotations": [
        {"id": 1, "image_id": 3, "caption": "one"},
        {"id": 2, "image_id": 7, "caption": " two "},
        {"id": 3, "image_id": 3, "caption": "three"},
    ],
}
LIST = [
    {"image": "a.jpg", "caption": "one", "image_id": "x"},
    {"image": "b.jpg", "text": ["two"]},
    {"image": "./a.jpg", "text": "three"},
]
EXPECTED = [("a.jpg", ("one", "three")), ("b.jpg", ("two",))]


def write(path: Path, content) -> Path:
    """Writes JSON, or a string as it is."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(records) -> str:
    """Returns records as JSON Lines."""
    return "\n".join(json.dumps(record) for record in records)


@pytest.mark.parametrize(
    "content",
    (
        COCO,
        json.dumps(COCO, indent=1),
        LIST,
        json.dumps(LIST, indent=2),
        "[" + lines(LIST).replace("\n", ",\n") + "]",
        lines(LIST),
        "\ufeff\n" + lines(LIST).replace("\n", "\r\n\r\n") + "\r\n",
    ),
)
def test_all_formats_are_detected_from_the_content(tmp_path, content):
    dataset = read_json(write(tmp_path / "a.json", content))
    assert [(p.name, p.captions) for p in dataset.examples] == EXPECTED
    assert [p.path for p in dataset.examples] == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert dataset.problems == []


def test_a_single_record_is_json_lines_of_one_line(tmp_path):
    dataset = read_json(write(tmp_path / "a.jsonl", LIST[0]))
    assert [(p.name, p.captions) for p in dataset.examples] == [("a.jpg", ("one",))]


def places(path: Path, problems) -> dict[str, str]:
    """Returns the reasons of problems by their place in the file."""
    return {problem.where.removeprefix(f"{path}, "): problem.reason for problem in problems}


def test_bad_records_of_a_list_are_problems_with_their_index(tmp_path):
    records = [
        *LIST, 5, {"image": "c.jpg"}, {"caption": "x"}, {"image": "c.jpg", "text": ""},
        {"image": "c.jpg", "text": "x", "caption": "y"}, {"image": ["c.jpg"], "text": ["x", "y"]},
        {"image": "c.jpg", "text": []}, {"image": "c.jpg", "text": ["fine", None, "\ud800"]},
    ]  # fmt: skip
    path = write(tmp_path / "a.json", records)
    dataset = read_json(path)
    problems = dataset.problems
    assert [(p.name, p.captions) for p in dataset.examples] == [*EXPECTED, ("c.jpg", ("fine",))]
    reasons = places(path, problems)
    assert list(reasons) == ["[3]", "[4]", "[5]", "[6]", "[7]", "[8]", "[9]", "[10]"]
    assert "Received: 5" in reasons["[3]"]
    assert "either caption or text. Received: an object with the keys image" in reasons["[4]"]
    assert "with image and either" in reasons["[5]"] and "the keys caption" in reasons["[5]"]
    assert "keys image, text, caption" in reasons["[7]"]
    assert "Received: a list of 1" in reasons["[8]"]
    assert [problem.num_captions for problem in problems] == [1, 1, 1, 1, 1, 2, 1, 1, 1]


def test_bad_lines_are_problems_with_line_numbers(tmp_path):
    text = lines(LIST[:2]) + '\n{"image": "c.jpg", "text": \n\n[1]\n' + lines(LIST[2:])
    path = write(tmp_path / "a.jsonl", text)
    dataset = read_json(path)
    problems = dataset.problems
    assert [(p.name, p.captions) for p in dataset.examples] == EXPECTED
    assert list(places(path, problems)) == ["line 3", "line 5"]
    assert "expected JSON" in problems[0].reason


def test_bad_records_of_coco_are_problems_with_their_index(tmp_path):
    content = {
        "images": [*COCO["images"], {"id": 4}, {"id": 7, "file_name": "other.jpg"}, "x"],
        "annotations": [
            *COCO["annotations"],
            {"image_id": 4, "caption": "of an image without a name"},
            {"image_id": 99, "caption": "of no image"},
            {"image_id": 3},
            {"image_id": [3], "caption": "x"},
            {"image_id": True, "caption": "x"},
            {"image_id": 3, "caption": 5},
            None,
        ],
    }
    path = write(tmp_path / "a.json", content)
    dataset = read_json(path)
    problems = dataset.problems
    assert [(p.name, p.captions) for p in dataset.examples] == EXPECTED[:1]
    reasons = places(path, problems)
    assert list(reasons) == [
        *(f"images[{i}]" for i in (2, 3, 4)),
        *(f"annotations[{i}]" for i in (1, 3, 4, 5, 6, 7, 8, 9)),
    ]
    assert "which another image has too" in reasons["images[3]"]
    assert "Received: 99" in reasons["annotations[4]"]
    assert sum(problem.num_captions for problem in problems) == 8


def test_an_object_with_a_repeated_key_is_a_problem(tmp_path):
    text = '[{"image": "a.jpg", "text": "A", "text": "B"}, {"image": "b.jpg", "text": "C"}]'
    dataset = read_json(write(tmp_path / "a.json", text))
    assert [p.name for p in dataset.examples] == ["b.jpg"]
    assert "the key 'text' twice" in dataset.problems[0].reason
    text = '{"images": [], "annotations": [], "annotations": []}'
    with pytest.raises(ValueError, match="the key 'annotations' twice"):
        read_json(write(tmp_path / "a.json", text))


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ("", "which is not JSON: Expecting value"),
        (json.dumps(LIST)[:-9], "which is not"),
        (json.dumps(COCO, indent=1)[:-9], "which is not"),
        ("[" * 100_000, "nested too deeply"),
        ("5", "Received: 5"),
        ({"images": [], "info": {}}, "COCO captions .*Received: an object with the keys images"),
        ({"images": {}, "annotations": []}, "COCO captions"),
    ),
)
def test_files_of_other_formats_are_rejected(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read_json(write(tmp_path / "a.json", content))
    assert "a.json" in str(error.value) and len(str(error.value)) < 600


def test_other_encodings_and_missing_files_are_rejected(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(LIST).encode("utf-16"))
    with pytest.raises(ValueError, match="JSON file in UTF-8.*UTF-16"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="JSON file not found: .*no.json"):
        read_json(tmp_path / "no.json")
    with pytest.raises(FileNotFoundError, match="Folder of photos not found"):
        read_json(write(tmp_path / "a.json", LIST), tmp_path / "none")


def test_several_files_are_merged_and_edited(tmp_path):
    paths = [write(tmp_path / "a.json", COCO), write(tmp_path / "b.json", LIST)]
    folder = tmp_path / "photos"
    folder.mkdir()
    dataset = read_json(paths, folder, edit=tidy)
    assert [(p.path, p.captions) for p in dataset.examples] == [
        (folder / "a.jpg", ("One.", "Three.", "One.", "Three.")),
        (folder / "b.jpg", ("Two.", "Two.")),
    ]


@pytest.mark.parametrize("form", ("coco", "list", "lines"))
def test_100_000_captions_are_read_in_seconds(tmp_path, form):
    count = 100_000
    records = [{"image": f"{i // 5:012}.jpg", "caption": f"A caption, {i}."} for i in range(count)]
    if form == "coco":
        content = {
            "images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in range(count // 5)],
            "annotations": [
                {"image_id": i // 5, "id": i, "caption": record["caption"]}
                for i, record in enumerate(records)
            ],
        }
    path = write(
        tmp_path / "a.json",
        {"coco": lambda: content, "list": lambda: records, "lines": lambda: lines(records)}[form](),
    )
    started = time.process_time()
    dataset = read_json(path)
    assert time.process_time() - started < 10
    assert len(dataset.examples) == count // 5 and not dataset.problems
    assert dataset.num_captions == count
