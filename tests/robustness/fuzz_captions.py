"""Damaged CSV and JSON files of captions.

A file that is accepted must give what a second, simpler parser reads: every caption, or a problem
in its place.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace

import checkout  # noqa: F401
from fuzz_damages import cut, flip_bits, insert, remove, run_cases
from fuzz_photos import scene
from fuzz_report import Report
from fuzz_worker import Result, refusal

from helpers.reference_readers import reference_csv, reference_json

NAMES = ("a.jpg", "b c.png", "é東.jpg", "sub/d.jpg", "./a.jpg", "cut.jpg", "text.jpg", "gone.jpg")
CAPTIONS = (
    "A dog runs.", "Two men, one with a hat , sit .", 'A sign says "stop".', "two\nlines",
    "é 東 \U0001f431", "a man on the left", "word " * 40, "long " * 900, " spaces ", "x", "", "'",
    "A [dog] {runs}.",
)  # fmt: skip


def fuzz(cases: int, seed: int) -> Report:
    """Reads damaged CSV and JSON files and makes batches of them."""
    return run_cases(cases, seed, make_file, make_reader)


def make_file(rng: Random) -> tuple[str, tuple[str, bytes]]:
    """Returns (description, (format, content)) of a file with up to four damages."""
    pairs = [(rng.choice(NAMES), rng.choice(CAPTIONS)) for _ in range(rng.randrange(12))]
    form = rng.choice(("csv", "csv", "csv", "coco", "list", "lines"))
    data = bytearray(WRITERS[form](pairs, rng))
    damages = []
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        damage = rng.choice(DAMAGES)
        data = bytearray(damage(data, rng))
        damages.append(damage.__name__)
    return f"{form} with {', '.join(damages) or 'no damage'}", (form, bytes(data))


def write_csv(pairs: list[tuple[str, str]], rng: Random) -> bytes:
    """Returns a CSV with the columns in any order."""
    end = rng.choice(("\n", "\r\n", "\r"))

    def field(text: str) -> str:
        must_quote = any(c in text for c in ',"\n\r') or text.startswith(" ")
        return '"' + text.replace('"', '""') + '"' if must_quote or rng.random() < 0.3 else text

    columns = ["image", "caption", "more"][: rng.choice((2, 3))]
    rng.shuffle(columns)
    rows = [dict(zip(("image", "caption", "more"), (*pair, "1"), strict=True)) for pair in pairs]
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    text = "".join(",".join(map(field, line)) + end for line in lines)
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig")))


def write_coco(pairs: list[tuple[str, str]], rng: Random) -> bytes:
    """Returns a JSON file in COCO's format."""
    ids = {name: number for number, name in enumerate(dict(pairs))}
    content = {
        "images": [{"id": number, "file_name": name} for name, number in ids.items()],
        "annotations": [{"image_id": ids[name], "caption": text} for name, text in pairs],
    }
    return json.dumps(content, indent=rng.choice((None, 1)), ensure_ascii=False).encode()


def write_list(pairs: list[tuple[str, str]], rng: Random) -> bytes:
    """Returns a JSON list of records."""
    return json.dumps(_records(pairs, rng), indent=rng.choice((None, 1))).encode()


def write_lines(pairs: list[tuple[str, str]], rng: Random) -> bytes:
    """Returns one JSON record per line."""
    return "\n".join(json.dumps(record) for record in _records(pairs, rng)).encode()


def _records(pairs: list[tuple[str, str]], rng: Random) -> list[dict]:
    return [
        {"image": name, rng.choice(("text", "caption")): rng.choice((text, [text, "more"]))}
        for name, text in pairs
    ]


WRITERS = {"csv": write_csv, "coco": write_coco, "list": write_list, "lines": write_lines}


def repeat(data: bytearray, rng: Random) -> bytes:
    """Repeats a section."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def swap_lines(data: bytearray, rng: Random) -> bytes:
    """Shuffles the lines."""
    lines = bytes(data).split(b"\n")
    rng.shuffle(lines)
    return b"\n".join(lines)


def re_encode(data: bytearray, rng: Random) -> bytes:
    """Changes the encoding."""
    text = data.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1")), "replace")


def change_separator(data: bytearray, rng: Random) -> bytes:
    """Replaces all commas."""
    return data.replace(b",", rng.choice((b";", b"\t", b"|", b", ", b",,")))


def enlarge(data: bytearray, rng: Random) -> bytes:
    """Inserts up to 16 MB of one character."""
    position = rng.randrange(len(data) + 1)
    size = rng.choice((10**4, 10**5, 10**6, 2**24 + 1))
    filling = rng.choice((b"x", b'"', b"[", b" ", b"\n", b"1", b"word ")) * size
    return data[:position] + filling + data[position:]


DAMAGES = (
    *(flip_bits, insert, insert, remove, cut, repeat, swap_lines) * 4,
    *(re_encode, change_separator) * 2,
    enlarge,
)


def make_reader() -> Callable[[tuple[str, bytes]], Result]:
    """Returns the function that reads a file and makes batches of it."""
    import effcap.trainers.batching.in_memory  # noqa: F401  TensorFlow's import takes seconds
    from effcap.tokenizers import Tokenizer
    from effcap.trainers import TooManyProblems, read_csv, read_json

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (folder / "sub").mkdir()
    for name in ("a.jpg", "b c.png", "é東.jpg", "sub/d.jpg", "cut.jpg"):
        scene().save(folder / name)
    (folder / "text.jpg").write_text("no photo")
    os.truncate(folder / "cut.jpg", 700)
    captioner = SimpleNamespace(
        encoder=SimpleNamespace(
            input_keys=("images",), image_size=(32, 32), fit="squash", resample=None
        ),
        tokenizer=Tokenizer.train([text for text in CAPTIONS if text], 300),
        decoder=SimpleNamespace(max_text_length=256),
    )

    def read(case: tuple[str, bytes]) -> Result:
        form, content = case
        path = folder / "captions"
        path.write_bytes(content)
        expected = reference_csv(content) if form == "csv" else reference_json(content)
        try:
            dataset = read_csv(path) if form == "csv" else read_json(path)
        except ValueError as error:
            if expected is not None:
                return "wrong", f"refused although well-formed: {error}"
            return refusal(error)
        if expected is None:
            return "wrong", "accepted although malformed"
        pairs, num_bad = expected
        actual = Counter((e.path, text) for e in dataset.examples for text in e.captions)
        wanted = Counter((folder / os.path.normpath(name), text) for name, text in pairs)
        if actual != wanted:
            return "wrong", f"captions {list((actual - wanted) + (wanted - actual))[:2]}"
        if sum(problem.num_captions for problem in dataset.problems) != num_bad:
            problems = list(map(str, dataset.problems))[:3]
            return "wrong", f"{num_bad} bad captions, but problems {problems}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the summary is checked below
                batches = dataset.batches(captioner, name="fuzzed", max_bad=0.9, batch_size=4)
        except (TooManyProblems, ValueError) as error:
            return refusal(error)
        num_lost = sum(problem.num_captions for problem in batches.problems)
        if batches.num_captions + num_lost != len(pairs) + num_bad:
            return "wrong", "captions lost while making batches"
        if num_lost and not all(line.isprintable() for line in batches.summary.splitlines()):
            return "wrong", f"a summary that cannot be printed: {batches.summary[:200]!r}"
        for number in range(len(batches)):
            batches[number]
        return "accepted", ""

    return read
