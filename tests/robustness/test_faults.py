"""Damaged shards and a full disk cost no undamaged photo and no run."""

from __future__ import annotations

import faults
import pytest


@pytest.mark.parametrize("name", faults.FAULTS)
def test_every_photo_of_damaged_shards_is_accounted_for(name, tmp_path):
    account = faults.try_fault(faults.FAULTS[name], tmp_path, "pillow")
    assert account.is_complete, account


@pytest.mark.slow
def test_run_resumes_after_the_disk_was_full(tmp_path):
    error, problem = faults.try_full_disk(tmp_path)
    assert not problem and error.startswith("effcap: error:")
