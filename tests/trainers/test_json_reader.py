"""JSON files of captions, in the forms in which people have them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.data_maker import SIZE, make_captioner, make_photos

from effcap.trainers import json_dataset, read_json_captions, read_jsons, tidy

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
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(records) -> str:
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
def test_all_forms_are_told_by_their_content(tmp_path, content):
    photos, problems = read_json_captions(write(tmp_path / "a.json", content))
    assert [(p.name, p.captions) for p in photos] == EXPECTED
    assert [p.path for p in photos] == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert problems == []


def test_a_single_record_is_a_file_of_one_line(tmp_path):
    photos, _ = read_json_captions(write(tmp_path / "a.jsonl", LIST[0]))
    assert [(p.name, p.captions) for p in photos] == [("a.jpg", ("one",))]


def places(path: Path, problems) -> dict[str, str]:
    return {problem.where.removeprefix(f"{path}, "): problem.reason for problem in problems}


def test_bad_records_of_a_list_are_problems_with_their_index(tmp_path):
    records = [
        *LIST, 5, {"image": "c.jpg"}, {"caption": "x"}, {"image": "c.jpg", "text": ""},
        {"image": "c.jpg", "text": "x", "caption": "y"}, {"image": ["c.jpg"], "text": ["x", "y"]},
        {"image": "c.jpg", "text": []}, {"image": "c.jpg", "text": ["fine", None, "\ud800"]},
    ]  # fmt: skip
    path = write(tmp_path / "a.json", records)
    photos, problems = read_json_captions(path)
    assert [(p.name, p.captions) for p in photos] == [*EXPECTED, ("c.jpg", ("fine",))]
    reasons = places(path, problems)
    assert list(reasons) == ["[3]", "[4]", "[5]", "[6]", "[7]", "[8]", "[9]", "[10]"]
    assert "Received: 5" in reasons["[3]"]
    assert "either caption or text. Received: an object with the keys image" in reasons["[4]"]
    assert "name of an image. Received: None" in reasons["[5]"]
    assert "keys image, text, caption" in reasons["[7]"]
    assert "Received: a list of 1" in reasons["[8]"]
    assert [problem.captions for problem in problems] == [1, 1, 1, 1, 1, 2, 1, 1, 1]


def test_bad_lines_are_problems_with_their_number(tmp_path):
    text = lines(LIST[:2]) + '\n{"image": "c.jpg", "text": \n\n[1]\n' + lines(LIST[2:])
    path = write(tmp_path / "a.jsonl", text)
    photos, problems = read_json_captions(path)
    assert [(p.name, p.captions) for p in photos] == EXPECTED
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
    photos, problems = read_json_captions(path)
    assert [(p.name, p.captions) for p in photos] == EXPECTED[:1]
    reasons = places(path, problems)
    assert list(reasons) == [
        *(f"images[{i}]" for i in (2, 3, 4)),
        *(f"annotations[{i}]" for i in (1, 3, 4, 5, 6, 7, 8, 9)),
    ]
    assert "which another has, too" in reasons["images[3]"]
    assert "Received: 99" in reasons["annotations[4]"]
    assert sum(problem.captions for problem in problems) == 8


def test_a_key_that_stands_twice_is_a_problem_since_one_would_be_lost(tmp_path):
    text = '[{"image": "a.jpg", "text": "A", "text": "B"}, {"image": "b.jpg", "text": "C"}]'
    photos, problems = read_json_captions(write(tmp_path / "a.json", text))
    assert [p.name for p in photos] == ["b.jpg"]
    assert "the key 'text' twice" in problems[0].reason
    text = '{"images": [], "annotations": [], "annotations": []}'
    with pytest.raises(ValueError, match="the key 'annotations' twice"):
        read_json_captions(write(tmp_path / "a.json", text))


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ("", "which is not: Expecting value"),
        (json.dumps(LIST)[:-9], "which is not"),
        (json.dumps(COCO, indent=1)[:-9], "which is not"),
        ("[" * 100_000, "nested too deeply"),
        ("5", "Received: 5"),
        ({"images": [], "info": {}}, "COCO captions .*Received: an object with the keys images"),
        ({"images": {}, "annotations": []}, "COCO captions"),
    ),
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read_json_captions(write(tmp_path / "a.json", content))
    assert "a.json" in str(error.value) and len(str(error.value)) < 600


def test_other_encodings_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(LIST).encode("utf-16"))
    with pytest.raises(ValueError, match="JSON file in UTF-8.*UTF-16"):
        read_json_captions(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="JSON file. Received: .*no.json"):
        read_json_captions(tmp_path / "no.json")
    with pytest.raises(FileNotFoundError, match="folder of photos"):
        read_json_captions(write(tmp_path / "a.json", LIST), tmp_path / "none")


def test_several_files_edit_and_folder(tmp_path):
    paths = [write(tmp_path / "a.json", COCO), write(tmp_path / "b.json", LIST)]
    folder = tmp_path / "photos"
    folder.mkdir()
    photos, _ = read_jsons(paths, folder, tidy)
    assert [(p.path, p.captions) for p in photos] == [
        (folder / "a.jpg", ("One.", "Three.", "One.", "Three.")),
        (folder / "b.jpg", ("Two.", "Two.")),
    ]


@pytest.mark.parametrize("form", ("coco", "list", "lines"))
def test_large_files_are_read_in_seconds(tmp_path, form):
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
    photos, problems = read_json_captions(path)
    assert time.process_time() - started < 10
    assert len(photos) == count // 5 and not problems
    assert sum(len(photo.captions) for photo in photos) == count


def test_reading_needs_no_tensorflow(tmp_path):
    path = write(tmp_path / "a.json", LIST)
    code = (
        "import sys; from effcap.trainers import read_json_captions;"
        f"read_json_captions({str(path)!r}); print('tensorflow' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]


def test_a_notebook_trains_on_json_and_is_told_what_is_left_out(tmp_path):
    data = make_photos(tmp_path, 6)
    records = [{"image": name, "text": texts} for name, texts in data]
    path = write(tmp_path / "a.json", [*records, {"image": "gone.jpg", "text": "a"}])
    with pytest.warns(UserWarning, match="gone.jpg") as warned:
        batches = json_dataset(path, None, make_captioner(), batch_size=3, max_bad=0.2)
    assert warned[0].filename == __file__
    assert batches.images == 6 and batches[0][0]["images"].shape == (3, SIZE, SIZE, 3)
    assert sum(map(len, batches.captions)) == sum(len(texts) for _, texts in data)
