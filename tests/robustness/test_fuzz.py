"""Damaged input is read correctly or refused with a clear error, and fuzzers report failures."""

from __future__ import annotations

import fuzz
import fuzz_captions
import fuzz_metadata
import fuzz_photos
import fuzz_weights
import pytest
from fuzz_report import Report
from fuzz_worker import Worker

from helpers.reference_readers import csv_rows


@pytest.mark.parametrize(("fuzzer", "cases"), ((fuzz_photos, 400), (fuzz_captions, 60)))
def test_damaged_data_is_read_correctly_or_refused_clearly(fuzzer, cases):
    report = fuzzer.fuzz(cases, seed=7)
    assert report.cases == cases and report.failures == []
    assert report.successes > cases / 10 and report.errors.total() > cases / 10


@pytest.mark.slow
def test_damaged_photos_get_descriptions_or_are_refused_untouched():
    report = fuzz_metadata.fuzz(40, seed=1)
    assert report.cases == 40 and report.failures == []
    assert report.successes > 10 and report.errors.total() > 10


@pytest.mark.slow
def test_damaged_weights_are_read_correctly_or_refused_clearly():
    report = fuzz_weights.fuzz(60, seed=3)
    assert report.cases == 60 and report.failures == []
    assert report.successes > 3 and report.errors.total() > 20


def test_wrong_values_and_crashes_are_failures_of_the_weights_fuzzer(monkeypatch):
    results = iter([("loaded", "right")] * 13 + [("loaded", "wrong"), ("crash", "died")])

    class FakeWorker:
        def __init__(self, make):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, folder):
            return next(results)

    def cut(rng, sample, files, samples):
        return "cut", False

    monkeypatch.setattr(fuzz_weights, "Worker", FakeWorker)
    monkeypatch.setattr(fuzz_weights, "DAMAGES", (cut,))
    report = fuzz_weights.fuzz(2, seed=0)
    assert [case for case, _ in report.failures] == [0, 1]
    assert "cut: loaded, with other values" in report.failures[0][1]
    assert report.failures[1][1].endswith("cut: crash: died")


def make_bad_reader():
    """Returns a reader that crashes, hangs, takes too much memory or raises an unexpected error."""
    import os
    import time

    def read(case):
        if case == "crash":
            os.abort()
        if case == "hang":
            time.sleep(60)
        if case == "memory":
            return "accepted", str(len(bytes(2**30)))
        return "accepted", str(len(case["key"]))

    return read


def test_crashes_hangs_and_memory_are_reported_and_the_next_case_runs():
    with Worker(make_bad_reader, timeout=1.0, memory=2**28) as worker:
        results = [worker.run(case) for case in ("crash", "hang", "memory", 5, {"key": "abc"})]
    assert [kind for kind, _ in results] == [
        "crash", "hang", "unclear error", "unclear error", "accepted",
    ]  # fmt: skip
    messages = [message.partition(":")[0] for _, message in results[2:]]
    assert messages == ["MemoryError", "TypeError", "3"]


def test_report_counts_errors_that_differ_in_values_together():
    report = Report()
    report.add_success()
    report.add_error("Expected 3 columns in /tmp/a/b.csv.\nReceived: 5")
    report.add_error("Expected 4 columns in 'x y.csv'. Received: nothing")
    report.add_error("Expected 14 columns in 'z'. Received: nothing")
    report.add_failure(7, "a crash")
    assert (report.cases, report.successes) == (5, 1)
    assert report.errors == {
        "Expected # columns in …": 1,
        "Expected # columns in '…'.": 2,
    }
    assert report.failures == [(7, "a crash")]


def test_failures_are_printed_and_set_the_exit_code(monkeypatch, capsys):
    report = Report()
    monkeypatch.setattr(fuzz_weights, "fuzz", lambda cases, seed: report)
    monkeypatch.setattr("sys.argv", ["fuzz.py", "weights", "--cases", "1"])
    report.add_error("Expected this. Received: that")
    assert fuzz.main() == 0
    report.add_failure(7, "a crash")
    assert fuzz.main() == 1
    assert "FAILURE of case 7: a crash" in capsys.readouterr().out


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
def test_reference_csv_reader_follows_rfc_4180(text, rows):
    if rows is None:
        with pytest.raises(ValueError):
            csv_rows(text)
    else:
        assert csv_rows(text) == rows
