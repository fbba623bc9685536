"""Damaged caption files and photos are taken rightly or refused in one clear error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(("kind", "cases"), (("images", 400), ("csv", 60)))
def test_damage_ends_in_success_or_a_clear_error(kind, cases):
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / "fuzz.py", kind, "--cases", str(cases), "--seed", "7"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    counts = re.search(r"(\d+) cases in .* (\d+) taken, (\d+) refused, 0 failures", ran.stdout)
    tried, taken, refused = map(int, counts.groups())
    assert tried == cases and taken > cases / 10 and refused > cases / 10  # both are exercised


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def read_wrongly():
    """A reader that crashes, hangs, or raises what it should not."""
    import os
    import time

    def attempt(case):
        if case == "crash":
            os.abort()
        if case == "hang":
            time.sleep(60)
        if case == "memory":
            return "taken", str(len(bytes(2**30)))
        return "taken", str(len(case["key"]))

    return attempt


def test_crashes_hangs_and_hunger_are_noticed_and_the_next_case_is_tried(benchmarks):
    from fuzz_worker import Worker

    with Worker(read_wrongly, seconds=1.0, memory=2**28) as worker:
        answers = [worker.attempt(case) for case in ("crash", "hang", "memory", 5, {"key": "abc"})]
    assert [kind for kind, _ in answers] == [
        "crash", "hang", "unclear error", "unclear error", "taken",
    ]  # fmt: skip
    assert [told.partition(":")[0] for _, told in answers[2:]] == ["MemoryError", "TypeError", "3"]


@pytest.mark.parametrize(
    ("text", "rows"),
    (
        ('a,"b ""c"" , d"\r\n\n1, 2 \n', [["a", 'b "c" , d'], ["1", "2 "]]),
        ('a,"two\nlines"', [["a", "two\nlines"]]),
        ('a"b,c\n,\n', [['a"b', "c"], ["", ""]]),
        ('a,"open\n', None),
        ('"a" b\n', None),
    ),
)
def test_the_second_reader_of_csv_reads_as_rfc_4180_says(benchmarks, text, rows):
    from reference_readers import csv_rows

    if rows is None:
        with pytest.raises(ValueError):
            csv_rows(text)
    else:
        assert csv_rows(text) == rows
