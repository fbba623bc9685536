"""Tests of effcap.tools.shards.index_shards: faults of samples, tars and indexes."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from effcap.tools.shards import check as check_module
from effcap.tools.shards import index_shards
from effcap.tools.shards.check_result import CheckedShard
from effcap.trainers import tidy
from effcap.trainers.data.shards import Filters, ShardIndex, index_path, read_indexes
from helpers.tar_maker import add_special, captioned, photo, sample, write_tar

LONG = "x" * 300


def indexed(shard: str, **options) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Indexes a shard and returns ({key: captions}, {key: reason}); decodes every indexed photo."""
    index_shards([shard], Filters(**options))
    (index,) = read_indexes([shard])
    with open(shard, "rb") as file:
        for offset, size in zip(index.offsets, index.sizes, strict=True):
            file.seek(offset)
            Image.open(io.BytesIO(file.read(size))).load()
    kept = {index.key(i): index.captions(i) for i in range(len(index))}
    left_out = CheckedShard.read(index_path(shard)).left_out
    return kept, {entry.key: entry.reason for entry in left_out}


def test_samples_are_kept_whatever_their_names(tmp_path):
    keys = ("000", "a.b.c", "dir/00.1", LONG, f"d/{LONG}", "with blank", "ünï/ключ", "./1")
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        members = [m for i, key in enumerate(keys) for m in sample(key, f"Caption {i}.", seed=i)]
        shard = write_tar(tmp_path / "0.tar", members, tar_format)
        kept, reasons = indexed(shard)
        assert kept == {key: (f"Caption {i}.",) for i, key in enumerate(keys)} and not reasons
        (index,) = read_indexes([shard])
        data = (tmp_path / "0.tar").read_bytes()
        for i in range(len(keys)):
            assert data[index.offsets[i] :][: index.sizes[i]] == photo(i)


def test_members_of_a_sample_need_not_be_adjacent(tmp_path):
    members = [m for i in range(3) for m in sample(f"{i}", f"Caption {i}.", seed=i)]
    kept, reasons = indexed(write_tar(tmp_path / "0.tar", members[::2] + members[:0:-2]))
    assert kept == {f"{i}": (f"Caption {i}.",) for i in range(3)} and not reasons


def test_other_formats_and_upper_case_suffixes_are_photos(tmp_path):
    members = [("0.PNG", photo(kind="PNG")), ("1.webp", photo(kind="WEBP")), ("2.Jpeg", photo())]
    members += [(f"{i}.TXT", b"A dog.") for i in range(3)]
    assert set(indexed(write_tar(tmp_path / "0.tar", members))[0]) == {"0", "1", "2"}


def test_several_photos_of_a_key_are_ranked_by_suffix(tmp_path):
    members = [("0.png", photo(1, kind="PNG")), *sample("0")]
    shard = write_tar(tmp_path / "0.tar", members)
    assert indexed(shard)[0] == {"0": ("A dog.",)}
    assert read_indexes([shard])[0].sizes.tolist() == [len(photo())]


def test_shards_of_img2dataset_are_read(tmp_path):
    members = []
    for i in range(3):
        status = {"caption": f"Caption {i}.", "status": "success", "url": "u", "width": 96}
        members += [*sample(f"00000000{i}", f"Caption {i}.")]
        members += [(f"00000000{i}.json", json.dumps(status).encode())]
    failed = {"caption": "Gone.", "status": "failed_to_download"}
    members += [("000000003.json", json.dumps(failed).encode())]
    shard = write_tar(tmp_path / "00000.tar", members)
    (tmp_path / "00000_stats.json").write_text("{}")
    (tmp_path / "00000.parquet").touch()
    kept, reasons = indexed(shard)
    assert kept == {f"00000000{i}": (f"Caption {i}.",) for i in range(3)}
    assert reasons == {"000000003": "no image"}


@pytest.mark.parametrize(
    ("source", "content", "text", "expected"),
    (
        ("auto", {"captions": ["a", "b"], "caption": "c"}, "d", ("a", "b")),
        ("auto", {"caption": "c"}, "d", ("d",)),
        ("auto", {"caption": "c"}, None, ("c",)),
        ("auto", {"captions": [], "caption": ["c", "e"]}, None, ("c", "e")),
        ("auto", [1], "d", ("d",)),
        ("auto", {"captions": ["a", " ", 3]}, None, ("a",)),
        ("txt", {"captions": ["a"]}, "d", ("d",)),
        ("alt", {"alt": "x", "caption": "c"}, "d", ("x",)),
        ("alt", {"alt": ["x", "y"]}, None, ("x", "y")),
    ),
)
def test_captions_come_from_the_requested_source(tmp_path, source, content, text, expected):
    members = captioned("0", content)
    members += [("0.txt", text.encode())] if text else []
    assert indexed(write_tar(tmp_path / "0.tar", members), caption=source)[0] == {"0": expected}


@pytest.mark.parametrize(
    ("members", "options", "reason"),
    (
        ([("0.jpg", photo())], {}, "no caption"),
        ([("0.jpg", photo()), ("0.json", b"{}")], {}, "no caption"),
        (captioned("0", {"caption": []}), {}, "no caption"),
        (captioned("0", {"alt": "x"}), {"caption": "txt"}, "no caption"),
        (sample("0"), {"caption": "alt"}, "no caption"),
        ([("0.txt", b"A dog.")], {}, "no image"),
        ([("0.json", b'{"caption": "A dog."}')], {}, "no image"),
        ([("0.jpg", b""), ("0.txt", b"A dog.")], {}, "image unreadable"),
        ([("0.jpg", b"A dog."), ("0.txt", b"A dog.")], {}, "image unreadable"),
        ([("0.jpg", photo()[:1000]), ("0.txt", b"A dog.")], {}, "image unreadable"),
        ([("0.jpg", photo()[:3000] + b"\xff\xd9"), ("0.txt", b"A.")], {}, "image unreadable"),
        ([("0.jpg", photo()), ("0.txt", b"gr\xfcn")], {}, "caption not in UTF-8"),
        ([("0.jpg", photo()), ("0.txt", b" \n")], {}, "caption empty"),
        (captioned("0", ["A dog."]), {}, "json unreadable"),
        ([("0.jpg", photo()), ("0.json", b"{")], {}, "json unreadable"),
        ([("0.jpg", photo()), ("0.json", b"[" * 10**5)], {}, "json unreadable"),
        ([("0.jpg", photo()), ("0.json", b'{"caption": "\xfc"}')], {}, "caption not in UTF-8"),
        (captioned("0", {"caption": None}), {}, "caption is not text"),
        (captioned("0", {"caption": "\ud83d"}), {}, "caption is not text"),
        (captioned("0", {"captions": ["", ""]}), {}, "caption empty"),
        (sample("0") + sample("0", "A cat.", 1), {}, "duplicate key"),
        ([*sample("0")[::-1], sample("0")[1]], {}, "duplicate key"),
        (sample("0"), {"min_side": 65}, "image too small"),
        (sample("0"), {"min_words": 3}, "caption too short"),
        (sample("0", "<PERSON> runs"), {"persons": "drop"}, "caption has <PERSON>"),
    ),
)
def test_unusable_samples_are_left_out_with_a_reason(tmp_path, members, options, reason):
    shard = write_tar(tmp_path / "0.tar", sample("before x y") + members + sample("after x y"))
    kept, reasons = indexed(shard, **options)
    others = {} if options else {"before x y": ("A dog.",), "after x y": ("A dog.",)}
    assert reasons["0"] == reason and "0" not in kept and others.items() <= kept.items()


def test_flipped_bits_in_photos_are_detected_or_harmless(tmp_path):
    rng = np.random.default_rng(0)
    members = []
    for i in range(40):
        data = bytearray(photo(kind="PNG" if i % 2 else "JPEG"))
        data[rng.integers(len(data))] ^= 0x10
        members += [(f"{i}.{'png' if i % 2 else 'jpg'}", bytes(data)), (f"{i}.txt", b"A dog.")]
    kept, reasons = indexed(write_tar(tmp_path / "0.tar", members))
    assert len(kept) + len(reasons) == 40
    assert sum(int(key) % 2 for key in reasons) > 10  # PNGs have checksums


def test_links_are_left_out_and_folders_ignored(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, [*sample("0"), ("1.txt", b"A dog."), ("README", b"about")])
    add_special(path, tarfile.SYMTYPE, "1.jpg", "0.jpg")
    add_special(path, tarfile.DIRTYPE, "folder.jpg")
    kept, reasons = indexed(str(path))
    assert set(kept) == {"0"} and reasons == {"1": "not a regular file"}


@pytest.mark.parametrize("where", ("header", "image", "text"))
def test_samples_before_the_end_of_a_truncated_tar_are_kept(tmp_path, where):
    path = tmp_path / "0.tar"
    write_tar(path, [m for i in range(3) for m in sample(f"{i}", seed=i)])
    with tarfile.open(path) as tar:
        image, text = tar.getmember("2.jpg"), tar.getmember("2.txt")
    cut = {"header": image.offset + 100, "image": image.offset_data + 50, "text": text.offset_data}
    os.truncate(path, cut[where] + (1 if where == "text" else 0))
    kept, reasons = indexed(str(path))
    assert set(kept) == {"0", "1"}
    assert reasons.pop("") == "shard incomplete"
    assert reasons == ({} if where == "header" else {"2": "truncated"})


def test_unreadable_shards_do_not_stop_the_others(tmp_path):
    good = write_tar(tmp_path / "good.tar", sample("0"))
    packed = tmp_path / "packed.tar"
    packed.write_bytes(gzip.compress((tmp_path / "good.tar").read_bytes()))
    empty, gone = tmp_path / "empty.tar", tmp_path / "gone.tar"
    empty.touch()
    summary = index_shards([str(packed), good, str(empty), str(gone)])
    assert [bool(shard.error) for shard in summary.shards] == [True, False, True, True]
    assert summary.num_samples == 1 and summary.counts == Counter(
        {("shard", "shard unreadable"): 3}
    )
    assert "gzip" in summary.shards[0].error and "0 bytes" in summary.shards[2].error
    indexes = read_indexes([str(packed), good, str(empty)])
    assert [len(index) for index in indexes] == [0, 1, 0]  # training ignores them
    assert not (tmp_path / "gone.npz").exists()


def test_tars_without_samples_have_empty_indexes(tmp_path):
    empty = write_tar(tmp_path / "empty.tar", [])
    notes = write_tar(tmp_path / "notes.tar", [("0.json", b"{}"), ("1.json", b"{}")])
    summary = index_shards([empty, notes])
    assert summary.num_samples == 0 and [len(index) for index in read_indexes([empty, notes])] == [
        0,
        0,
    ]
    assert summary.counts["shard", "shard without samples"] == 1
    assert summary.counts["sample", "no image"] == 2


def test_only_outdated_indexes_are_made_again(tmp_path, monkeypatch):
    shards = [write_tar(tmp_path / f"{i}.tar", sample(f"{i}")) for i in range(3)]
    read = []
    check = check_module.check_shard
    monkeypatch.setattr(
        check_module, "check_shard", lambda shard, *rest: read.append(shard) or check(shard, *rest)
    )

    def run(**options) -> list[str]:
        read.clear()
        summary = index_shards(shards, Filters(**options))
        assert summary.num_up_to_date == 3 - len(read) and summary.num_samples == 3
        return list(read)

    assert run() == shards and run() == []
    os.utime(shards[0])
    assert run() == shards[:1]
    index_path(shards[1]).unlink()
    assert run() == shards[1:2]
    path = index_path(shards[2])
    path.write_bytes(path.read_bytes()[:-30])
    assert run() == shards[2:] and run() == []
    assert run(edit=tidy) == shards and run(edit=tidy) == [] and run() == shards


def test_a_missing_dali_index_is_written_again(tmp_path):
    shard = write_tar(tmp_path / "0.tar", sample("0"))
    index_shards([shard])
    before = (tmp_path / "0.idx").read_text()
    (tmp_path / "0.idx").unlink()
    assert index_shards([shard]).num_up_to_date == 1
    assert (tmp_path / "0.idx").read_text() == before and before.startswith("v1.2 1\njpg 512 ")


def test_other_npz_files_are_not_overwritten(tmp_path):
    shard = write_tar(tmp_path / "0.tar", sample("0"))
    np.savez(tmp_path / "0.npz", embeddings=np.ones(3))
    with pytest.raises(FileExistsError, match="not a shard index"):
        index_shards([shard])
    assert np.load(tmp_path / "0.npz")["embeddings"].sum() == 3


def test_a_damaged_json_beside_a_usable_txt_is_reported(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [*sample("0"), ("0.json", b'{"captions": ["A d')])
    summary = index_shards([shard])
    assert summary.num_samples == 1 and summary.counts == {("caption", "json unreadable"): 1}


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path, progress_steps):
    texts = ("A dog.", "A cat.", "A dog.")
    for name in ("one", "two"):
        shards = [
            write_tar(tmp_path / name / f"{i}.tar", sample("0", texts[i]) + sample("1", "A dog."))
            for i in range(3)
        ]
        progress_steps.clear()
        num_processes = 1 if name == "one" else 2
        summary = index_shards(shards, Filters(max_duplicates=2), num_processes=num_processes)
        assert summary.num_samples == 3 and summary.counts["sample", "duplicate caption"] == 3
        assert sum(progress_steps) == sum(map(os.path.getsize, shards)) + 6
    for i in range(3):
        paths = [tmp_path / name / f"{i}.npz" for name in ("one", "two")]
        assert len({ShardIndex.read(path).fingerprint for path in paths}) == 1
        assert len({path.with_suffix(".idx").read_bytes() for path in paths}) == 1


def test_indexes_can_be_in_another_folder(tmp_path):
    shard = write_tar(tmp_path / "shards" / "0.tar", sample("0"))
    index_shards([shard], folder=tmp_path / "index")
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"0.npz", "0.idx"}
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["0.tar"]
    assert len(read_indexes([shard], tmp_path / "index")[0]) == 1


def test_remote_shards_are_streamed(tmp_path, progress_steps):
    pytest.importorskip("webdataset")
    path = tmp_path / "a b.tar"
    local = write_tar(path, sample("0") + sample("1", seed=1))
    remote = f"pipe:cat '{path}'"
    summary = index_shards([remote], folder=tmp_path / "index")
    assert summary.num_samples == 2 and sum(progress_steps) == 1
    assert index_shards([remote], folder=tmp_path / "index").num_up_to_date == 1
    index_shards([local])
    (of_file,), (of_stream,) = read_indexes([local]), read_indexes([remote], tmp_path / "index")
    assert of_file.fingerprint == of_stream.fingerprint and of_stream.tar_bytes == 0


def test_a_failing_stream_leaves_no_index(tmp_path):
    pytest.importorskip("webdataset")
    local = write_tar(tmp_path / "0.tar", sample("0") + sample("1", seed=1))
    remote = f"pipe:head -c 9000 '{local}'; exit 22"
    summary = index_shards([remote], folder=tmp_path / "index")
    assert "exit 22" in summary.shards[0].error
    assert not list((tmp_path / "index").glob("*.npz"))
