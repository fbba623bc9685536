"""The index of a shard: where its photos lie in the tar, and their captions.

A file NAME.npz for a shard NAME.tar. Keys and captions stay bytes until one is asked for, so that
the indexes of ten million photos take a gigabyte and are read in seconds.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from effcap.utils.files import replace_file

FORMAT = 1
SHOWN = 5  # shards named in an error
REMOTE = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
REMOTE_TAR = re.compile(r"([^/\s?#&=:'\"|]+)\.tar\b")  # its name, anywhere in a command


class IndexedSample(NamedTuple):
    """A sample as `ShardIndex.of` takes it; offset and size, in bytes, are the image's, and its
    checksum CRC-32."""

    key: str
    offset: int
    size: int
    checksum: int
    captions: Sequence[str]


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the photos of a shard lie, with their captions. N samples, M captions.

    Attributes:
        shard: path or URL of the tar.
        tar_bytes, tar_time_ns: size and time of modification of the tar as indexed; 0 for a stream.
        offsets: (N,) int64, where the image's bytes begin in the tar.
        sizes: (N,) int64, how many they are.
        checksums: (N,) uint32, their CRC-32, by which a photo that has changed is known.
        first: (N+1,) int64; the captions of sample i are number first[i] to first[i+1]-1.
        key_text, key_ends: (bytes,) uint8 and (N+1,): key i is the UTF-8 from end i to end i+1.
        caption_text, caption_ends: (bytes,) uint8 and (M+1,), in the same way.
    """

    shard: str
    tar_bytes: int
    tar_time_ns: int
    offsets: np.ndarray
    sizes: np.ndarray
    checksums: np.ndarray
    first: np.ndarray
    key_text: np.ndarray
    key_ends: np.ndarray
    caption_text: np.ndarray
    caption_ends: np.ndarray

    @classmethod
    def of(
        cls,
        shard: str,
        samples: Sequence[IndexedSample],
        tar_bytes: int = 0,
        tar_time_ns: int = 0,
    ) -> ShardIndex:
        """The index of these samples, in their order."""
        counts = [len(sample.captions) for sample in samples]
        return cls(
            shard,
            tar_bytes,
            tar_time_ns,
            np.array([sample.offset for sample in samples], np.int64),
            np.array([sample.size for sample in samples], np.int64),
            np.array([sample.checksum for sample in samples], np.uint32),
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
            *_pack([sample.key for sample in samples]),
            *_pack([caption for sample in samples for caption in sample.captions]),
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, i: int) -> str:
        """The key of sample i: its name in the tar without the suffix."""
        return _unpack(self.key_text, self.key_ends, i)

    def captions(self, i: int) -> tuple[str, ...]:
        """The captions of sample i, as edited when indexed."""
        numbers = range(self.first[i], self.first[i + 1])
        return tuple(_unpack(self.caption_text, self.caption_ends, m) for m in numbers)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of offsets, photos and captions."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.offsets, self.sizes, self.first):
            digest.update(array.astype("<i8"))
        digest.update(self.checksums.astype("<u4"))
        digest.update(self.caption_ends.astype("<i8"))
        digest.update(self.caption_text)
        return digest.hexdigest()

    @classmethod
    def read(cls, path: str | PathLike) -> ShardIndex:
        """The index in a file.

        Raises:
            FileNotFoundError: without such a file.
            ValueError: naming the file when it is damaged, or of another version.
        """
        arrays = read_arrays(path, [field.name for field in fields(cls)])
        try:
            index = cls(
                str(arrays["shard"]),
                int(arrays["tar_bytes"]),
                int(arrays["tar_time_ns"]),
                *(arrays[field.name] for field in fields(cls)[3:]),
            )
            index._check()
        except (TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        return index

    def _check(self) -> None:
        """ValueError unless the arrays belong together."""
        for name, ends, total, count in (
            ("sizes", self.first, len(self.caption_ends) - 1, len(self)),
            ("keys", self.key_ends, len(self.key_text), len(self)),
            ("captions", self.caption_ends, len(self.caption_text), len(self.caption_ends) - 1),
        ):
            good = ends.ndim == 1 and len(ends) == count + 1 and ends[0] == 0
            if not (good and ends[-1] == total and (ends[1:] >= ends[:-1]).all()):
                raise ValueError(f"{name} that do not fit")
        shapes = {array.shape for array in (self.offsets, self.sizes, self.checksums)}
        if shapes != {(len(self),)}:
            raise ValueError(f"offsets, sizes and checksums of the shapes {sorted(shapes)}")

    def write(self, path: str | PathLike, more: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes the index, whole or not at all; `more` arrays beside it are not read back."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".new-{path.name}")
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with new.open("wb") as file:
            np.savez(file, format=np.int64(FORMAT), **arrays, **(more or {}))
        replace_file(new, path)


def read_arrays(path: str | PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of those names out of an index.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: naming the file when it is damaged, or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise ValueError(f"version {int(file['format'])}, this EffCap reads {FORMAT}")
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise
    except (
        OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise _damaged(path, error) from error


def index_path(shard: str, folder: str | PathLike | None = None) -> Path:
    """Where the index of a shard is: beside it, or in `folder`.

    Raises:
        ValueError: for a remote shard without a folder.
    """
    if is_remote(shard):
        if folder is None:
            raise ValueError(
                "Expected a folder for the index of a remote shard (--index DIR). "
                f"Received: none, for {shard}"
            )
        tars = REMOTE_TAR.findall(shard)
        name = tars[-1] if tars else hashlib.blake2b(shard.encode(), digest_size=8).hexdigest()
        return Path(folder) / f"{name}.npz"
    name = Path(shard).name
    name = name[:-4] if name.lower().endswith(".tar") else name
    return (Path(shard).parent if folder is None else Path(folder)) / f"{name}.npz"


def index_paths(shards: Sequence[str], folder: str | PathLike | None = None) -> list[Path]:
    """`index_path` of each; ValueError for two shards that would have the same one."""
    owners: dict[Path, str] = {}
    for shard in shards:
        other = owners.setdefault(index_path(shard, folder), shard)
        if other != shard:
            raise ValueError(
                "Expected shards with different names, whose indexes can lie in one folder. "
                f"Received: {other} and {shard}"
            )
    if len(owners) < len(shards):
        twice = next(shard for shard in shards if list(shards).count(shard) > 1)
        raise ValueError(f"Expected every shard once. Received: {twice} twice")
    return list(owners)


def is_remote(shard: str) -> bool:
    """Whether a shard is no file on this machine but an address or a command."""
    return REMOTE.match(shard) is not None


def read_indexes(shards: Sequence[str], folder: str | PathLike | None = None) -> list[ShardIndex]:
    """The indexes of shards; at the shards themselves nobody looks.

    Args:
        shards: paths and URLs.
        folder: that the indexes are in; beside their shards by default.

    Raises:
        FileNotFoundError: naming shards without an index.
        ValueError: for an index that is damaged.
    """
    paths = index_paths(shards, folder)
    missing = [shard for shard, path in zip(shards, paths, strict=True) if not path.is_file()]
    if missing:
        command = "effcap index SHARDS" + ("" if folder is None else f" --index {folder}")
        raise FileNotFoundError(
            f"Expected an index of every shard; run `{command}`. "
            f"Received: none for {_some(missing)}"
        )
    # A shard may have been moved, with its index, since it was indexed.
    read = [ShardIndex.read(path) for path in paths]
    return [replace(index, shard=str(shard)) for index, shard in zip(read, shards, strict=True)]


def _pack(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as (bytes,) uint8 and their ends (number of texts + 1,)."""
    encoded = [text.encode() for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in encoded], dtype=np.int64)])
    ends = ends.astype(np.uint32 if ends[-1] < 2**32 else np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _unpack(text: np.ndarray, ends: np.ndarray, i: int) -> str:
    return text[ends[i] : ends[i + 1]].tobytes().decode()


def _damaged(path: str | PathLike, error: Exception) -> ValueError:
    return ValueError(
        f"Expected the index of a shard in {path}; delete it and run `effcap index` again. "
        f"Received: {error or type(error).__name__}"
    )


def _some(shards: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(shards) - SHOWN} more" if len(shards) > SHOWN else ""
    return ", ".join(shards[:SHOWN]) + more
