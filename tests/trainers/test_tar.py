"""A tar's members are given with their places, whatever their names, as far as the tar goes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from helpers.tar_maker import add_special, sample, write_tar

from effcap.trainers.data.shards.tar import NotATar, TarWalk, open_shard

LONG = "folder/" + "k" * 293
FILES = [("a.jpg", b"x" * 700), ("b c.txt", b""), (f"{LONG}.txt", b"y" * 512), ("ü.json", b"{}")]


class Trickle(io.RawIOBase):
    """A stream that cannot seek and gives few bytes at a time, like a pipe."""

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)

    def read(self, size=-1):
        return self.file.read(min(size, 100))


def walked(data: bytes, stream=io.BytesIO):
    walk = TarWalk(stream(data))
    return [(member, walk.read()) for member in walk], walk.note


@pytest.mark.parametrize("stream", (io.BytesIO, Trickle))
@pytest.mark.parametrize("tar_format", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT), ids=("pax", "gnu"))
def test_members_are_where_they_are_said_to_be(tmp_path, tar_format, stream):
    path = tmp_path / "0.tar"
    write_tar(path, FILES, tar_format)
    data = path.read_bytes()
    found, note = walked(data, stream)
    assert note == "" and [(member.name, read) for member, read in found] == FILES
    for member, read in found:
        assert data[member.offset : member.offset + member.size] == read
        assert member.offset % 512 == 0 and member.kind == "file"


def test_progress_adds_up_to_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    done = []
    with open_shard(str(path)) as file:
        for _ in TarWalk(file, done.append):
            pass
    assert sum(done) == path.stat().st_size


def test_links_folders_and_pipes_are_told_from_files(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES[:1])
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
    for number, kind in enumerate(kinds):
        add_special(path, kind, f"{number}.jpg", "a.jpg")
    found, note = walked(path.read_bytes())
    assert [member.kind for member, _ in found] == ["file", "link", "link", "other", "other"]
    assert note == ""


def test_a_truncated_tar_gives_the_members_before_the_cut_wherever_it_falls(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    whole = walked(data)[0]
    end = whole[-1][0].offset + 512
    for cut in (*range(1, end, 97), *range(512, end, 512), end):
        try:
            found, note = walked(data[:cut])
        except NotATar:
            assert cut < 512
            continue
        read = [(member, content) for member, content in found if content is not None]
        assert read == whole[: len(read)] and "after" in note
        assert len(read) == sum(member.offset + member.size <= cut for member, _ in whole) or (
            not whole[len(read)][0].size  # its header is there, and the cut is behind it
        )


def test_nothing_is_said_of_a_whole_tar_and_the_missing_end_mark_is(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    end = walked(data)[0][-1][0].offset + 512
    assert walked(data[: end + 512])[1] == "" and walked(data)[1] == ""
    assert "without an end mark" in walked(data[:end])[1]


def test_a_damaged_header_ends_the_walk_and_is_told(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = bytearray(path.read_bytes())
    place = walked(bytes(data))[0][1][0].offset - 512
    data[place + 3] ^= 1
    found, note = walked(bytes(data))
    assert [member.name for member, _ in found] == ["a.jpg"]
    assert f"header at byte {place} is damaged" in note


def test_a_second_tar_behind_the_first_is_told(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    found, note = walked(data + data)
    assert len(found) == len(FILES) and "more data follow" in note


def test_an_empty_tar_has_no_members(tmp_path):
    write_tar(tmp_path / "0.tar", [])
    assert walked((tmp_path / "0.tar").read_bytes()) == ([], "")


@pytest.mark.parametrize(
    ("pack", "reason"),
    (
        (gzip.compress, "compressed with gzip; unpack it"),
        (bz2.compress, "compressed with bzip2"),
        (lzma.compress, "compressed with xz"),
        (lambda data: b"", "empty"),
        (lambda data: b"<html>not found</html>" * 40, "no tar"),
        (lambda data: data[:100], "no tar"),
        (lambda data: b"\xff" * 2000, "no tar"),
    ),
)
def test_what_is_no_plain_tar_is_refused_with_the_reason(tmp_path, pack, reason):
    write_tar(tmp_path / "0.tar", FILES)
    with pytest.raises(NotATar, match=reason):
        walked(pack((tmp_path / "0.tar").read_bytes()))


def test_names_that_are_not_utf8_can_be_told_and_printed(tmp_path):
    with tarfile.TarFile(
        tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        tar.addfile(tarfile.TarInfo("gr\xfcn.jpg"))
    ((member, _),) = walked((tmp_path / "0.tar").read_bytes())[0]
    assert member.name == r"gr\xfcn.jpg"


def test_any_flipped_bit_gives_members_or_a_reason(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        data = bytearray(whole)
        data[place] ^= 0x41
        try:
            walked(bytes(data))
        except NotATar:
            continue


def test_a_remote_shard_is_opened_by_webdataset(tmp_path):
    pytest.importorskip("webdataset")
    write_tar(tmp_path / "0.tar", FILES)
    with open_shard(f"pipe:cat '{tmp_path / '0.tar'}'") as file:
        assert len(list(TarWalk(file))) == len(FILES)


def test_a_shard_in_s3_is_read_by_amazons_command(tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    shard = write_tar(tmp_path / "it's 0.tar", sample("0"))
    command = tmp_path / "bin" / "aws"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "s3 cp --quiet" ] && cat "{tmp_path}/${{4#s3://b/}}"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    with open_shard("s3://b/it's 0.tar") as stream:
        assert stream.read() == Path(shard).read_bytes()
