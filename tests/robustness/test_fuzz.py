"""The fuzzers of benchmarks/ find nothing, and would tell if they did."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Imports a module of benchmarks/ as `python benchmarks/fuzz.py` does."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_a_report_counts_like_messages_as_one_kind(module):
    report = module("fuzz_report").Report()
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


def test_a_failure_is_shown_and_is_the_exit_code(module, monkeypatch, capsys):
    fuzz, report = module("fuzz"), module("fuzz_report").Report()
    weights = module("fuzzing_weights")
    monkeypatch.setattr(weights, "fuzz_weights", lambda cases, seed: report)
    monkeypatch.setattr("sys.argv", ["fuzz.py", "weights", "--cases", "1"])
    report.add_error("Expected this. Received: that")
    assert fuzz.main() == 0
    report.add_failure(7, "a crash")
    assert fuzz.main() == 1
    assert "FAILURE of case 7: a crash" in capsys.readouterr().out


def test_damaged_weights_are_read_rightly_or_refused_in_one_line(module):
    report = module("fuzzing_weights").fuzz_weights(60, seed=3)
    assert report.cases == 60 and report.failures == []
    assert report.successes > 3 and report.errors.total() > 20


def test_the_fuzzer_of_weights_tells_wrong_values_and_dead_processes(module, monkeypatch):
    weights = module("fuzzing_weights")
    answers = iter([("loaded", "right")] * 13 + [("loaded", "wrong"), ("crash", "died")])

    class Worker:
        def load(self, folder):
            return next(answers)

        def stop(self):
            pass

    def cut(rng, sample, files, samples):
        return "cut", False

    monkeypatch.setattr(weights, "Worker", Worker)
    monkeypatch.setattr(weights, "DAMAGES", (cut,))
    report = weights.fuzz_weights(2, seed=0)
    assert [case for case, _ in report.failures] == [0, 1]
    assert "cut: loaded, with other values" in report.failures[0][1]
    assert report.failures[1][1].endswith("cut: crash: died")
