"""Tests of captions in copies of shards: everything else is the same bytes, in the same order."""

from __future__ import annotations

import json
import os
import tarfile

import pytest

from effcap.samplers import Greedy
from effcap.tools.captioning.shard_copies import ShardCopies
from effcap.tools.captioning.shard_output import Row
from effcap.tools.cli import main
from helpers.cli_errors import fails
from helpers.data_maker import make_randomized_captioner, random_jpeg
from helpers.tar_maker import add_special, write_tar

LONG = "ordner/" + "n" * 120 + "ü"
MEMBERS = [
    ("a.json", b'{"caption": "old"}'), ("a.jpg", b"photo a"), ("a.txt", b"old"), ("a.cls", b"1"),
    ("b.jpg", b"photo b"), ("b.seg.png", b"mask"), ("b.json", b"{}"),
    ("c.jpg", b"broken"), ("c.txt", b"stays"),
    (f"{LONG}.jpg", b"photo"), ("d.txt", b"no photo"), ("e.txt", b"before"), ("e.jpg", b"photo e"),
]  # fmt: skip
ROWS = [Row("a", "A cat."), Row("b", "Ein Bär 🐻", -1.0), Row("c", error="damaged"), Row(LONG, "x"),
        Row("e", "last")]  # fmt: skip


def raw_members(path) -> list[tuple[str, bytes]]:
    """(name, header and contents) of each member, read by the standard library."""
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    stops = [-(-(x.offset_data + x.size) // 512) * 512 for x in members]
    return [(x.name, data[x.offset : y]) for x, y in zip(members, stops, strict=True)]


def texts(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {x.name: tar.extractfile(x).read() for x in tar if x.name.endswith(".txt")}


def copies(tmp_path) -> ShardCopies:
    folder = ShardCopies(tmp_path / "out", "model", "sampler")
    folder.prepare()
    return folder


@pytest.mark.parametrize("form", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
def test_only_texts_differ(tmp_path, form):
    members = MEMBERS if form != tarfile.USTAR_FORMAT else [x for x in MEMBERS if x[0][0] != "o"]
    shard = write_tar(tmp_path / "0.tar", members, form)
    folder = copies(tmp_path)
    result = folder.write(shard, ROWS, os.path.getsize(shard))
    assert (result.num_captions, result.num_unreadable) == (4, 1)
    copy = folder.tar_path(shard)
    expected = {"a.txt": b"A cat.", "b.txt": "Ein Bär 🐻".encode(), "c.txt": b"stays"}
    expected |= {"d.txt": b"no photo", "e.txt": b"last"}
    expected |= {f"{LONG}.txt": b"x"} if form != tarfile.USTAR_FORMAT else {}
    assert texts(copy) == expected
    new = raw_members(copy)
    kept = [member for member in new if not member[0].endswith(".txt")]
    assert kept == [x for x in raw_members(tmp_path / "0.tar") if not x[0].endswith(".txt")]
    names = [name for name, _ in members]
    names.insert(names.index("b.json") + 1, "b.txt")
    if form != tarfile.USTAR_FORMAT:
        names.insert(names.index(f"{LONG}.jpg") + 1, f"{LONG}.txt")
    assert [name for name, _ in new] == names
    summary = json.loads(folder.path(shard).read_text(encoding="utf-8"))
    assert summary["errors"] == {"c": "damaged"} and summary["photos"] == 4
    assert sorted(path.name for path in folder.folder.iterdir()) == ["0.captions.json", "0.tar"]


def test_words_that_captions_lack_are_listed_and_counted(tmp_path):
    shard = write_tar(tmp_path / "0.tar", MEMBERS)
    folder = copies(tmp_path)
    rows = [Row("a", "A cat.", -1.0, missing=("dog", "red|blue")), *ROWS[1:]]
    assert folder.write(shard, rows, os.path.getsize(shard)).num_without_words == 1
    summary = json.loads(folder.path(shard).read_text(encoding="utf-8"))
    assert summary["missing"] == {"a": ["dog", "red|blue"]} and summary["without_words"] == 1
    assert folder.find([shard])[shard].num_without_words == 1
    del summary["missing"], summary["without_words"]  # as before they were counted
    folder.path(shard).write_text(json.dumps(summary), encoding="utf-8")
    found = folder.find([shard])[shard]
    assert (found.num_captions, found.num_without_words, found.from_earlier_run) == (4, 0, True)


def test_a_truncated_shard_is_copied_as_far_as_it_goes(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [("a.jpg", b"photo"), ("b.jpg", bytes(2000))])
    os.truncate(shard, 2000)
    folder = copies(tmp_path)
    folder.write(shard, [Row("a", "A cat."), Row("b", error="cut off")], 2000, "cut off")
    data = folder.tar_path(shard).read_bytes()
    original = (tmp_path / "0.tar").read_bytes()
    assert data[:1024] == original[:1024] and data[2048:] == original[1024:]
    assert b"a.txt" in data[1024:1536] and data[1536:2048].rstrip(b"\0") == b"A cat."


def test_special_members_and_texts_elsewhere_are_kept(tmp_path):
    shard = write_tar(tmp_path / "0.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"old")])
    add_special(tmp_path / "0.tar", tarfile.DIRTYPE, "b.txt")
    add_special(tmp_path / "0.tar", tarfile.SYMTYPE, "c.jpg", "a.jpg")
    folder = copies(tmp_path)
    folder.write(shard, [Row("a", "A"), Row("b", "B")], os.path.getsize(shard))
    with tarfile.open(folder.tar_path(shard)) as tar:
        members = [(x.name, tar.extractfile(x).read() if x.isreg() else None) for x in tar]
    photos = [("a.jpg", b"1"), ("a.txt", b"A"), ("b.jpg", b"2"), ("b.txt", b"B")]
    assert members == [*photos, ("b.txt", None), ("c.jpg", None)]


def test_copies_are_complete_or_made_again(tmp_path, monkeypatch):
    shard = write_tar(tmp_path / "0.tar", MEMBERS)
    folder = copies(tmp_path)

    def stop(new, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("effcap.tools.captioning.shard_copies.replace_file", stop)
        folder.write(shard, ROWS, os.path.getsize(shard))
    assert folder.find([shard]) == {} and not folder.tar_path(shard).exists()
    folder.prepare([shard])
    folder.write(shard, ROWS, os.path.getsize(shard))
    assert folder.find([shard])[shard].from_earlier_run
    os.truncate(folder.tar_path(shard), 1024)
    assert folder.find([shard]) == {}


def test_shards_are_never_overwritten(tmp_path):
    shard = write_tar(tmp_path / "0.tar", MEMBERS)
    with pytest.raises(ValueError, match="0.tar was not written by captioning"):
        ShardCopies(tmp_path, "model", "sampler").prepare([shard])
    other = write_tar(tmp_path / "out" / "0.tar", MEMBERS[:2])
    with pytest.raises(ValueError, match="choose another folder"):
        ShardCopies(tmp_path / "out", "model", "sampler").prepare([shard])
    assert os.path.getsize(other)


def test_a_shard_that_changed_has_no_copy(tmp_path):
    shard = write_tar(tmp_path / "0.tar", MEMBERS)
    folder = copies(tmp_path)
    assert "changed" in folder.write(shard, ROWS, 512).error
    assert not list(folder.folder.iterdir())


@pytest.mark.slow
def test_webdataset_reads_the_copies_of_the_command(tmp_path, capsys):
    webdataset = pytest.importorskip("webdataset")
    captioner = make_randomized_captioner()
    captioner.save_to_preset(tmp_path / "preset")
    photos = {f"{i}": random_jpeg(i) for i in range(4)}
    for number in range(2):
        members = []
        for key in list(photos)[2 * number : 2 * number + 2]:
            members += [(f"{key}.jpg", photos[key]), (f"{key}.json", b"{}")]
        members += [(f"{number}x.jpg", b"no photo"), (f"{number}x.txt", b"stays")]
        write_tar(tmp_path / "shards" / f"{number}.tar", members)
    command = ["caption", "--shards", str(tmp_path / "shards"), "--sampler", "greedy"]
    command += ["--model", str(tmp_path / "preset"), "--max-new-tokens", "6"]
    command += ["--into-shards", str(tmp_path / "out")]
    assert main(command) == 0
    assert "2 photos could not be read; see the files .captions.json" in capsys.readouterr().err
    assert main(command) == 0
    assert "2 of 2 shards were captioned earlier" in capsys.readouterr().err
    urls = [str(tmp_path / "out" / f"{number}.tar") for number in range(2)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    expected = captioner.generate(list(photos.values()), Greedy(max_new_tokens=6))
    captions = dict(zip(photos, expected, strict=True))
    assert [sample["__key__"] for sample in samples] == ["0", "1", "0x", "2", "3", "1x"]
    for sample in samples:
        key = sample["__key__"]
        assert sample["txt"].decode() == captions.get(key, "stays")
        assert sample["jpg"] == photos.get(key, b"no photo")
        assert ("json" in sample) == (key in photos)


def test_remote_shards_are_copied_too(tmp_path):
    pytest.importorskip("webdataset")
    shard = write_tar(tmp_path / "0.tar", [("a.jpg", b"photo"), ("a.json", b"{}")])
    folder, url = copies(tmp_path), f"pipe:cat {shard}"
    assert folder.write(url, ROWS[:1], os.path.getsize(shard)).num_captions == 1
    assert texts(tmp_path / "out" / "0.tar") == {"a.txt": b"A cat."}
    assert folder.find([url])[url].from_earlier_run and len(list(folder.folder.iterdir())) == 2


def test_out_and_into_shards_exclude_each_other(capsys):
    line = fails(["caption", "--shards", "x", "--out", "y", "--into-shards", "z"], capsys)
    assert "Give only one of --out and --into-shards" in line
    assert "--into-shards requires --shards" in fails(
        ["caption", "a.jpg", "--into-shards", "z"], capsys
    )
