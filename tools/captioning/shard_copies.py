"""A folder of copies of shards, with the captions as their text.

    captioned/00000.tar              00000.tar with other .txt members
    captioned/00000.captions.json    the model, the sampler, photos without a caption, and words
                                     of `include` that captions lack

The copies can be read as any webdataset.
"""

from __future__ import annotations

import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import effcap
from effcap.images import IMAGE_SUFFIXES
from effcap.tools.captioning.shard_output import (
    CHUNK,
    Row,
    ShardCaptions,
    ShardOutput,
    Summary,
)
from effcap.trainers.data.shards.shard_index import index_path, is_remote
from effcap.trainers.data.shards.tar import BLOCK, TarReader, open_shard
from effcap.utils.files import replace_file, write_text_atomically

SUMMARY_SUFFIX = ".captions.json"
CAPTION_SUFFIX = ".txt"


@dataclass(frozen=True)
class ShardCopies(ShardOutput):
    """A folder of copies of shards; see `ShardOutput`.

    In the copy of NAME.tar, the caption of KEY.jpg is the member KEY.txt: in the place of the one
    with that name, or else at the end of the sample. All other members are the same bytes in the
    same order. Samples whose photo could not be read stay as they are.
    """

    def path(self, shard: str) -> Path:
        """Returns the path of a shard's summary."""
        return index_path(shard, self.folder).with_suffix(SUMMARY_SUFFIX)

    def tar_path(self, shard: str) -> Path:
        """Returns the path of the copy of a shard."""
        return index_path(shard, self.folder).with_suffix(".tar")

    def existing(self) -> Sequence[Path]:
        """Returns the paths of all summaries."""
        return sorted(self.folder.glob(f"*{SUMMARY_SUFFIX}"))

    def prepare(self, shards: Sequence[str] = ()) -> None:
        """Creates the folder.

        Raises:
            ValueError: the folder holds a tar with a shard's name that was not written here, such
                as the shard itself.
            OSError: files cannot be written to the folder.
        """
        for shard in shards:
            tar = self.tar_path(shard)
            is_itself = not is_remote(shard) and tar.exists() and tar.samefile(shard)
            if is_itself or (tar.exists() and not self.path(shard).exists()):
                raise ValueError(
                    f"{tar} was not written by captioning; choose another folder for the copies"
                )
        super().prepare(shards)

    def read_summary(self, path: Path) -> Summary | None:
        """Reads the summary of a shard; None if its copy is missing or another.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            size = fields["copy_bytes"]
            summary = Summary(**{name: fields[name] for name in Summary._fields if name in fields})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged; delete it and its tar to caption the shard again: {error}"
            ) from error
        tar = path.with_name(path.name.removesuffix(SUMMARY_SUFFIX) + ".tar")
        return summary if tar.is_file() and tar.stat().st_size == size else None

    def write(
        self, shard: str, rows: Sequence[Row], tar_bytes: int, damage: str = ""
    ) -> ShardCaptions:
        """Writes the copy of a shard atomically, and its summary just before.

        Raises:
            OSError: the files cannot be written.
        """
        captions = {row.key: row.caption for row in rows if row.key and row.caption is not None}
        tar = self.tar_path(shard)
        temporary = [self.folder / f".new-{uuid.uuid4().hex}" for _ in range(2)]
        new, download = temporary
        summary = self.summary(shard, rows, tar_bytes, damage)
        try:
            local = Path(shard)
            if is_remote(shard):
                local = download
                with open_shard(shard) as source, local.open("wb") as file:
                    while chunk := source.read(CHUNK):
                        file.write(chunk)
            if local.stat().st_size != tar_bytes:
                return ShardCaptions(shard, error="the shard changed while it was captioned")
            with local.open("rb") as source, new.open("wb") as file:
                file.writelines(_with_captions(source, captions))
            fields = {
                **summary._asdict(),
                "version": effcap.__version__,
                "copy_bytes": new.stat().st_size,
                "errors": {row.key: row.error for row in rows if row.error},
                "missing": {row.key: row.missing for row in rows if row.missing},
            }
            tar.unlink(missing_ok=True)  # so that the summary never describes an older copy
            text = json.dumps(fields, indent=2, ensure_ascii=False)
            write_text_atomically(self.path(shard), text + "\n")
            replace_file(new, tar)
        except OSError as error:
            raise self.cannot_write(tar, error) from error
        finally:
            for path in temporary:
                path.unlink(missing_ok=True)
        return summary.result


def _with_captions(source: BinaryIO, captions: Mapping[str, str]) -> Iterator[bytes]:
    """Yields the bytes of a tar whose samples have other captions.

    Args:
        source: tar, which is read twice.
        captions: captions by the name of the photo without suffix.
    """
    position = 0
    for start, stop, data in _edits(source, captions):
        yield from _read(source, position, start)
        yield data
        position = stop
    yield from _read(source, position, max(position, os.fstat(source.fileno()).st_size))


def _read(source: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Yields the bytes from `start` to before `stop`, zeros where a truncated file has ended."""
    source.seek(start)
    while start < stop:
        chunk = source.read(min(CHUNK, stop - start)) or b"\0" * (stop - start)
        start += len(chunk)
        yield chunk


def _edits(source: BinaryIO, captions: Mapping[str, str]) -> list[tuple[int, int, bytes]]:
    """Returns (start, stop, new bytes) of the text of each sample, in the order of the tar."""
    reader = TarReader(source)
    edits: list[tuple[int, int, bytes]] = []
    done: set[str] = set()
    missing: dict[str, tarfile.TarInfo] = {}  # photos of the sample that have no text so far
    sample, end = ("", ""), 0

    def add_missing() -> None:
        for key, photo in missing.items():
            name = photo.name.removesuffix(PurePosixPath(photo.name).suffix) + CAPTION_SUFFIX
            edits.append((end, end, _member(photo, name, captions[key])))
        done.update(missing)
        missing.clear()

    for member in reader:
        folder, _, name = member.name.rpartition("/")
        if (folder, name.partition(".")[0]) != sample:  # samples as webdataset groups them
            add_missing()
            sample = (folder, name.partition(".")[0])
        start, end = reader.span
        suffix = PurePosixPath(member.name).suffix
        key = member.name.removesuffix(suffix)
        if key not in captions or member.kind == "other":
            continue
        if suffix.lower() == CAPTION_SUFFIX:
            is_repeated = key in done
            missing.pop(key, None)
            done.add(key)
            text = _member(reader.info, reader.info.name, captions[key])
            edits.append((start, end, b"" if is_repeated else text))
        elif suffix.lower() in IMAGE_SUFFIXES and key not in done:
            missing.setdefault(key, reader.info)
    add_missing()
    return edits


def _member(like: tarfile.TarInfo, name: str, text: str) -> bytes:
    """Returns the header and the contents of a text with the owner and time of another member."""
    data = text.encode("utf-8")
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), like.mode, like.mtime
    info.uid, info.gid, info.uname, info.gname = like.uid, like.gid, like.uname, like.gname
    header = info.tobuf(
        tarfile.PAX_FORMAT if like.pax_headers else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
    )
    return header + data + b"\0" * (-len(data) % BLOCK)
