"""Tests that NVIDIA DALI reads exactly the indexed samples."""

from __future__ import annotations

import tarfile

import pytest

from effcap.tools.shards import index_shards
from helpers.tar_maker import photo, sample, write_tar

dali = pytest.importorskip("nvidia.dali")

KEYS = ("0", "a.b.c", "d/" + "k" * 300, "with  blank", "ünï/ключ", "e")


def read(shards: list[str]) -> list[tuple[bytes, str]]:
    """Reads all samples with DALI."""

    @dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        return tuple(
            dali.fn.readers.webdataset(
                paths=shards,
                index_paths=[shard.replace(".tar", ".idx") for shard in shards],
                ext=["jpg;png", "txt"],
                name="reader",
            )
        )

    built = pipeline()
    built.build()
    samples = []
    for _ in range(built.epoch_size("reader")):
        image, text = (output.at(0).tobytes() for output in built.run())
        samples.append((image, text.decode()))
    return samples


@pytest.mark.parametrize("tar_format", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
def test_dali_reads_the_indexed_samples_and_no_others(tmp_path, tar_format):
    members = []
    for i, key in enumerate(KEYS):
        members += sample(key, f"Caption {i}, ü.", seed=i)
        members += [(f"{key}.bad.jpg", b"no photo"), (f"{key}.bad.txt", b"A dog.")]
        members += [(f"{key}.lost.txt", b"A dog.")]
    members += [("P.PNG", photo(kind="PNG")), ("P.TXT", b"A cat.")]
    shards = [write_tar(tmp_path / "0.tar", members, tar_format)]
    shards += [write_tar(tmp_path / "1.tar", sample("z", "Last."), tar_format)]
    index_shards(shards)
    expected = [(photo(i), f"Caption {i}, ü.") for i in range(len(KEYS))]
    assert read(shards) == [*expected, (photo(kind="PNG"), "A cat."), (photo(), "Last.")]
