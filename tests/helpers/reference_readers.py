"""Second implementations of the caption file readers, as references: simple and slow."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

Reading = tuple[list[tuple[str, str]], int]  # usable (image, caption) pairs, number of others


def is_good(text: Any) -> bool:
    """Returns whether a name or a caption can be used."""
    if not isinstance(text, str) or not 0 < len(text.strip()) <= 2**17 or "\0" in text:
        return False
    return not any("\ud800" <= c <= "\udfff" for c in text)


def reference_csv(data: bytes) -> Reading | None:
    """Returns the content of a CSV, parsed character by character; None if it is malformed."""
    try:
        rows = [row for row in csv_rows(data.decode("utf-8-sig")) if row]
    except ValueError:
        return None
    columns = [name.strip() for name in rows[0]] if rows else []
    if columns.count("image") != 1 or columns.count("caption") != 1:
        return None
    good, bad = [], 0
    for row in rows[1:]:
        pair = [
            row[columns.index(name)] if len(row) == len(columns) else ""
            for name in ("image", "caption")
        ]
        if all(map(is_good, pair)):
            good.append((pair[0].strip(), pair[1].strip()))
        else:
            bad += 1
    return good, bad


def csv_rows(text: str) -> list[list[str]]:
    """Returns the rows of a CSV without blank lines; raises ValueError for misplaced quotes."""
    if "\0" in text and sys.version_info < (3, 11):
        raise ValueError("null character")
    rows, row, field, state = [], [], [], "new line"
    for c in text + "\n":
        if state == "in quotes":
            state = "after quote" if c == '"' else state
            field += [c] if c != '"' else []
        elif state == "after quote" and c == '"':
            state = "in quotes"
            field.append(c)
        elif c in ",\r\n":
            if c == "," or state != "new line":
                row.append("".join(field))
            if len(field) > 2**24:
                raise ValueError("field too large")
            field, state = [], "new field"
            if c != ",":
                rows += [row] if row else []
                row, state = [], "new line"
        elif state == "after quote":
            raise ValueError("text after a quote")
        elif state in ("new line", "new field") and c in ' "':
            state = "in quotes" if c == '"' else "new field"
        else:
            state = "plain"
            field.append(c)
    if state == "in quotes":
        raise ValueError("unterminated quote")
    return rows


def reference_json(data: bytes) -> Reading | None:
    """Returns the content of a JSON file, record by record; None if its format is unknown."""
    try:
        text = data.decode("utf-8-sig")
    except ValueError:
        return None
    lines = [parsed(line) for line in re.split(r"[\r\n]", text) if line.strip()]
    first_lines = lines[:10]
    if not text.lstrip().startswith("[") and any(
        isinstance(line, dict) and "image" in line for line in first_lines
    ):
        return records(lines)
    content = parsed(text)
    if isinstance(content, list):
        return records(content)
    if not isinstance(content, dict):
        return None
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        return None
    names: dict[int | str, list] = {}
    for image in images:
        image = image if isinstance(image, dict) else {}
        if type(image.get("id")) in (int, str) and "file_name" in image:
            names.setdefault(image["id"], []).append(image["file_name"])
    pairs = []
    for item in annotations:
        item = item if isinstance(item, dict) else {}
        key = item.get("image_id")
        candidates = names.get(key, [None]) if type(key) in (int, str) else [None]
        name = candidates[0] if all(other == candidates[0] for other in candidates) else None
        pairs.append({"image": name, "caption": item.get("caption")})
    return records(pairs)


def records(items: list) -> Reading:
    """Returns the captions of a list of records."""
    good, bad = [], 0
    for item in items:
        item = item if isinstance(item, dict) else {}
        texts = [item[key] for key in ("caption", "text") if key in item]
        if len(texts) != 1 or texts[0] == []:
            bad += 1
            continue
        for text in texts[0] if isinstance(texts[0], list) else texts:
            if is_good(item.get("image")) and is_good(text):
                good.append((item["image"].strip(), text.strip()))
            else:
                bad += 1
    return good, bad


def parsed(text: str) -> Any:
    """Returns the value of a JSON text; None if it is malformed or an object repeats a key."""

    def unique(pairs: list) -> dict | None:
        return dict(pairs) if len(dict(pairs)) == len(pairs) else None

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
