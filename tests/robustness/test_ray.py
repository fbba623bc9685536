"""Tests of captioning shards with the workers of a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effcap.samplers import Greedy
from effcap.tools import caption_shards
from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.ray import RayOptions, caption_on_ray
from helpers.data_maker import make_randomized_captioner, random_jpeg
from helpers.tar_maker import write_tar

dataset = pytest.importorskip("pyarrow.dataset")
SAMPLER = Greedy(max_new_tokens=6)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'effcap[ray]')")
    root = str(Path(__file__).resolve().parents[2])
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A preset, and five shards, one of them empty, with their captions."""
    folder = tmp_path_factory.mktemp("ray")
    for number in range(5):
        members = [(f"{number}{i}.jpg", random_jpeg(10 * number + i)) for i in range(5)]
        write_tar(folder / f"{number}.tar", members)
    (folder / "4.tar").write_bytes(b"")
    captioner = make_randomized_captioner()
    captioner.save_to_preset(folder / "preset")
    caption_shards(
        shards_of(folder), folder / "out", captioner, SAMPLER, batch_size=2, model="tiny"
    )
    return folder


def shards_of(folder) -> list[str]:
    return [str(folder / f"{number}.tar") for number in range(5)]


def rows(out) -> list[tuple]:
    table = dataset.dataset(out).to_table(columns=["key", "caption", "error"])
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_workers_write_the_same_captions_and_killed_ones_are_replaced(ray, folder, tmp_path):
    pytest.importorskip("webdataset")
    shards = shards_of(folder)
    flag = tmp_path / "killed"  # the first worker that reads shard 3 is killed
    shards[3] = f"pipe:test -e {flag} && cat {shards[3]} || {{ touch {flag}; kill -9 $PPID; }}"
    results = caption_shards(
        shards,
        tmp_path / "out",
        folder / "preset",
        SAMPLER,
        batch_size=2,
        ray=RayOptions(workers=2),
    )
    assert flag.exists()
    assert [(result.num_captions, result.error) for result in results] == [
        *[(5, "")] * 4, (0, "empty (0 bytes)")
    ]  # fmt: skip
    assert rows(tmp_path / "out") == rows(folder / "out")


def test_a_preset_that_cannot_be_loaded_stops_all_workers(ray, folder, tmp_path):
    out = CaptionFolder(tmp_path / "out", "tiny", repr(SAMPLER))
    out.prepare()
    missing = tmp_path / "nothing"
    results = caption_on_ray(shards_of(folder), out, missing, SAMPLER, 8, RayOptions())
    with pytest.raises(ValueError, match="Expected a preset.* Received: '.*nothing'"):
        list(results)


def test_a_captioner_cannot_be_sent_to_workers(tmp_path):
    with pytest.raises(ValueError, match="requires a preset"):
        caption_shards(["0.tar"], tmp_path, object(), SAMPLER, ray=RayOptions())


def test_a_missing_ray_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = CaptionFolder(tmp_path, "tiny", repr(SAMPLER))
    with pytest.raises(ImportError, match=r"effcap\[ray\]"):
        list(caption_on_ray(["0.tar"], out, tmp_path, SAMPLER, 8, RayOptions()))


@pytest.mark.parametrize(
    ("options", "message"),
    (({"workers": 0}, "workers=0"), ({"gpus_per_worker": -1}, "gpus_per_worker=-1")),
)
def test_options_out_of_range_raise_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        RayOptions(**options)
