"""A killed and resumed run ends with the weights and scores of a run never killed."""

from __future__ import annotations

import random

import kill
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("data", ("csv", "shards"))
def test_run_killed_at_a_random_moment_ends_as_if_never_killed(data, monkeypatch, capsys):
    if data == "shards":
        pytest.importorskip("webdataset")
    seed = str(random.SystemRandom().randrange(10**6))
    monkeypatch.setattr("sys.argv", ["kill.py", "--kills", "1", "--seed", seed, "--data", data])
    assert kill.main() == 0, f"seed {seed}"
    assert capsys.readouterr().out.splitlines()[-1] == "1 kills: equal weights and scores"
