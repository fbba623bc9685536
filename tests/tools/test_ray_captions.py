"""Ray's workers caption every photo once, also when one of them is killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.seeing_captioner import coloured, seeing_captioner
from helpers.tar_maker import write_tar

from effcap.samplers import Greedy
from effcap.tools.captioning.parquet import CaptionFolder
from effcap.tools.captioning.ray import caption_on_ray
from effcap.tools.captioning.shards import caption_shards

dataset = pytest.importorskip("pyarrow.dataset")
SAMPLER = Greedy(max_tokens=6)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'effcap[ray]')")
    here = str(Path(__file__).resolve().parents[2])
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    for number in range(5):
        members = [(f"{number}{i}.jpg", coloured(10 * number + i)) for i in range(5)]
        write_tar(folder / f"{number}.tar", members)
    (folder / "4.tar").write_bytes(b"")
    captioner = seeing_captioner()
    captioner.save_to_preset(folder / "preset")
    caption_shards(captioner, shards_of(folder), folder / "here", "tiny", SAMPLER, 2)
    return folder


def shards_of(folder) -> list[str]:
    return [str(folder / f"{number}.tar") for number in range(5)]


def rows(out) -> list[tuple]:
    found = dataset.dataset(out).to_table(columns=["key", "caption", "error"]).to_pylist()
    return sorted(tuple(row.values()) for row in found)


def test_workers_write_what_one_process_writes_and_a_killed_one_is_replaced(ray, folder, tmp_path):
    """The first worker that reads shard 3 is killed by it."""
    pytest.importorskip("webdataset")
    shards = shards_of(folder)
    flag = tmp_path / "killed"
    shards[3] = f"pipe:test -e {flag} && cat {shards[3]} || {{ touch {flag}; kill -9 $PPID; }}"
    out = CaptionFolder(tmp_path / "out", "tiny", repr(SAMPLER))
    out.prepare()
    results = list(caption_on_ray(folder / "preset", shards, out, SAMPLER, 2, workers=2))
    assert flag.exists()
    assert sorted((shards.index(done.shard), done.photos, done.problem) for done in results) == [
        (0, 5, ""), (1, 5, ""), (2, 5, ""), (3, 5, ""), (4, 0, "it is empty (0 bytes)")
    ]  # fmt: skip
    assert rows(out.folder) == rows(folder / "here")


def test_a_preset_that_cannot_be_loaded_stops_all(ray, folder, tmp_path):
    out = CaptionFolder(tmp_path / "out", "tiny", repr(SAMPLER))
    out.prepare()
    stream = caption_on_ray(tmp_path / "nothing", shards_of(folder), out, SAMPLER)
    with pytest.raises(ValueError, match="Expected a preset.* Received: '.*nothing'"):
        list(stream)


@pytest.mark.parametrize(
    ("more", "message"),
    (({"workers": 0}, "workers=0"), ({"gpus_per_worker": -1}, "gpus_per_worker=-1")),
)
def test_numbers_out_of_range_are_told(tmp_path, more, message):
    out = CaptionFolder(tmp_path / "out", "tiny", repr(SAMPLER))
    with pytest.raises(ValueError, match=message):
        list(caption_on_ray(tmp_path, ["0.tar"], out, SAMPLER, **more))
