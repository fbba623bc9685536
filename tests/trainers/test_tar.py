"""Tests of effcap.trainers.data.shards.tar."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from effcap.trainers.data.shards.tar import NotATar, TarReader, open_shard
from helpers.tar_maker import add_special, sample, write_tar

LONG = "folder/" + "k" * 293
FILES = [("a.jpg", b"x" * 700), ("b c.txt", b""), (f"{LONG}.txt", b"y" * 512), ("ü.json", b"{}")]


class Trickle(io.RawIOBase):
    """A stream that cannot seek and returns few bytes at a time, like a pipe."""

    def __init__(self, data: bytes):
        self.file = io.BytesIO(data)

    def read(self, size=-1):
        return self.file.read(min(size, 100))


def read_tar(data: bytes, stream=io.BytesIO):
    """Returns ([(member, contents)], damage)."""
    reader = TarReader(stream(data))
    return [(member, reader.read()) for member in reader], reader.damage


@pytest.mark.parametrize("stream", (io.BytesIO, Trickle))
@pytest.mark.parametrize("tar_format", (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT), ids=("pax", "gnu"))
def test_members_have_correct_offsets(tmp_path, tar_format, stream):
    path = tmp_path / "0.tar"
    write_tar(path, FILES, tar_format)
    data = path.read_bytes()
    members, damage = read_tar(data, stream)
    assert damage == "" and [(member.name, content) for member, content in members] == FILES
    for member, content in members:
        assert data[member.offset : member.offset + member.size] == content
        assert member.offset % 512 == 0 and member.kind == "file"


def test_progress_adds_up_to_the_size_of_the_file(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    steps = []
    with open_shard(str(path)) as file:
        for _ in TarReader(file, steps.append):
            pass
    assert sum(steps) == path.stat().st_size


def test_links_and_folders_are_distinguished_from_files(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES[:1])
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
    for number, kind in enumerate(kinds):
        add_special(path, kind, f"{number}.jpg", "a.jpg")
    members, damage = read_tar(path.read_bytes())
    assert [member.kind for member, _ in members] == ["file", "link", "link", "other", "other"]
    assert damage == ""


def test_members_before_any_cut_of_a_tar_are_read(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    whole = read_tar(data)[0]
    end = whole[-1][0].offset + 512
    for cut in (*range(1, end, 97), *range(512, end, 512), end):
        try:
            members, damage = read_tar(data[:cut])
        except NotATar:
            assert cut < 512
            continue
        read = [(member, content) for member, content in members if content is not None]
        assert read == whole[: len(read)] and "after" in damage
        assert len(read) == sum(member.offset + member.size <= cut for member, _ in whole) or (
            not whole[len(read)][0].size  # an empty member whose header is before the cut
        )


def test_a_missing_end_mark_is_reported(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    end = read_tar(data)[0][-1][0].offset + 512
    assert read_tar(data[: end + 512])[1] == "" and read_tar(data)[1] == ""
    assert "no end mark" in read_tar(data[:end])[1]


def test_a_damaged_header_ends_the_iteration(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = bytearray(path.read_bytes())
    place = read_tar(bytes(data))[0][1][0].offset - 512
    data[place + 3] ^= 1
    members, damage = read_tar(bytes(data))
    assert [member.name for member, _ in members] == ["a.jpg"]
    assert f"damaged header at byte {place}" in damage


def test_a_second_tar_after_the_first_is_reported(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    data = path.read_bytes()
    members, damage = read_tar(data + data)
    assert len(members) == len(FILES) and "more data after the end mark" in damage


def test_an_empty_tar_has_no_members(tmp_path):
    write_tar(tmp_path / "0.tar", [])
    assert read_tar((tmp_path / "0.tar").read_bytes()) == ([], "")


@pytest.mark.parametrize(
    ("pack", "reason"),
    (
        (gzip.compress, "compressed with gzip; unpack it"),
        (bz2.compress, "compressed with bzip2"),
        (lzma.compress, "compressed with xz"),
        (lambda data: b"", "empty"),
        (lambda data: b"<html>not found</html>" * 40, "not a tar"),
        (lambda data: data[:100], "not a tar"),
        (lambda data: b"\xff" * 2000, "not a tar"),
    ),
)
def test_other_files_raise_an_error_with_the_reason(tmp_path, pack, reason):
    write_tar(tmp_path / "0.tar", FILES)
    with pytest.raises(NotATar, match=reason):
        read_tar(pack((tmp_path / "0.tar").read_bytes()))


def test_names_that_are_not_utf8_can_be_printed(tmp_path):
    with tarfile.TarFile(
        tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        tar.addfile(tarfile.TarInfo("gr\xfcn.jpg"))
    ((member, _),) = read_tar((tmp_path / "0.tar").read_bytes())[0]
    assert member.name == r"gr\xfcn.jpg"


def test_no_flipped_bit_causes_another_error(tmp_path):
    path = tmp_path / "0.tar"
    write_tar(path, FILES)
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        data = bytearray(whole)
        data[place] ^= 0x41
        try:
            read_tar(bytes(data))
        except NotATar:
            continue


def test_remote_shards_are_opened_by_webdataset(tmp_path):
    pytest.importorskip("webdataset")
    write_tar(tmp_path / "0.tar", FILES)
    with open_shard(f"pipe:cat '{tmp_path / '0.tar'}'") as file:
        assert len(list(TarReader(file))) == len(FILES)


def test_shards_in_s3_are_read_with_the_aws_command(tmp_path, monkeypatch):
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
