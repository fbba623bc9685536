"""Writes and reads tables of results as JSON, JSON Lines, CSV or Parquet, by suffix of the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.reports.json_files import write_json
from effcap.trainers.data.text_files import read_text
from effcap.utils.files import replace_file, write_text_atomically

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
PARSED = (
    "captions",
    "scores",
    "score",
    "confidences",
    "confidence",
)  # columns of CSV that are no text
Rows = Sequence[Mapping[str, Any]]


def check_table(path: str | PathLike[str]) -> None:
    """Checks that a table can be written to a file with this suffix.

    Raises:
        ValueError: there is no format with this suffix.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"Expected a file with a suffix out of {', '.join(SUFFIXES)}. Received: {path}"
        )
    if suffix == ".parquet":
        import_parquet()


def import_parquet() -> Any:
    """Returns the module pyarrow.parquet.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet requires pyarrow: pip install 'effcap[parquet]'") from None
    return pyarrow.parquet


def write_table(path: str | PathLike[str], rows: Rows) -> None:
    """Writes rows; an existing file is replaced once the new one is on disk.

    Args:
        path: file with the suffix .json (a list of objects), .jsonl (an object per line), .csv
            (lists as JSON) or .parquet. Missing folders are created.
        rows: rows by name of the column; columns are those of all rows, in order.

    Raises:
        OSError: the file cannot be written.
        ValueError, ImportError: as `check_table`.
    """
    check_table(path)
    path = Path(path)
    suffix = path.suffix.lower()
    rows = [{name: valid_text(value) for name, value in row.items()} for row in rows]
    if suffix == ".json":
        write_json(path, rows)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".parquet":
        new = path.with_name(f".new-{path.name}")
        import_parquet().write_table(to_arrow(rows), new)
        replace_file(new, path)
    elif suffix == ".csv":
        write_text_atomically(path, to_csv(rows))
    else:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_text_atomically(path, "".join(lines))


def valid_text(value: Any) -> Any:
    """Returns a value with escapes in place of bytes of file names that are not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [valid_text(item) for item in value] if isinstance(value, list) else value


def read_table(path: str | PathLike[str]) -> Any:
    """Reads rows that `write_table` wrote, without what is empty in them.

    Args:
        path: file; one without a suffix of `write_table` is read as JSON.

    Returns:
        The rows, or the contents of a JSON file, whatever they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet" and path.is_file():
        rows = import_parquet().read_table(path).to_pylist()
        return [{name: x for name, x in row.items() if x is not None} for row in rows]
    kind = "CSV" if suffix == ".csv" else "JSON"
    text = read_text(path, kind)
    try:
        if suffix == ".csv":
            return from_csv(text)
        if suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"Expected {kind} in {path}. Received: {error}") from None


def from_csv(text: str) -> list[dict[str, Any]]:
    """Parses the text of `to_csv`: lists and scores are parsed, empty fields left out."""
    rows = []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        has_list = bool(row.get("captions"))
        rows.append(
            {
                name: json.loads(value) if name in PARSED else value
                for name, value in row.items()
                if value or (name == "caption" and not has_list)  # a caption may be empty
            }
        )
    return rows


def to_csv(rows: Rows) -> str:
    """Returns rows as the text of a CSV file, with lists as JSON and empty fields for None."""
    names = columns(rows)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row.get(name) for name in names]
        writer.writerow(
            [json.dumps(x, ensure_ascii=False) if isinstance(x, list | dict) else x for x in values]
        )
    return file.getvalue()


def to_arrow(rows: Rows) -> pyarrow.Table:
    """Returns rows as a table of Arrow."""
    import pyarrow

    return pyarrow.table({name: [row.get(name) for row in rows] for name in columns(rows)})


def columns(rows: Rows) -> list[str]:
    """Returns the columns of all rows, in order."""
    return list(dict.fromkeys(name for row in rows for name in row))
