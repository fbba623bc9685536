"""Index of a shard: the locations of its photos in the tar, and their captions.

The index of NAME.tar is the file NAME.npz. Keys and captions stay bytes until one is needed: the
indexes of ten million photos take a gigabyte and are read in seconds.
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
from typing import Any, NamedTuple

import numpy as np

from effcap.trainers.data.example import first_names
from effcap.utils.files import replace_file

FORMAT = 1
REMOTE = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
REMOTE_TAR = re.compile(r"([^/\s?#&=:'\"|]+)\.tar\b")  # a tar's name, anywhere in a command


class IndexedSample(NamedTuple):
    """A sample of an index.

    Attributes:
        key: name of the sample in the tar, without suffix.
        offset: first byte of the photo in the tar.
        size: number of bytes of the photo.
        checksum: CRC-32 of the photo.
        captions: captions of the photo.
    """

    key: str
    offset: int
    size: int
    checksum: int
    captions: Sequence[str]


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Locations and captions of the N photos of a shard, with M captions in all.

    Attributes:
        shard: path or URL of the tar.
        tar_bytes, tar_time_ns: size and time of modification of the indexed tar; 0 if remote.
        offsets: (N,) int64, first byte of each photo in the tar.
        sizes: (N,) int64, number of bytes of each photo.
        checksums: (N,) uint32, CRC-32 of each photo, which detects changed photos.
        first: (N+1,) int64; sample i has the captions first[i] to first[i+1]-1.
        key_text, key_ends: (bytes,) uint8 and (N+1,); key i is the UTF-8 between ends i and i+1.
        caption_text, caption_ends: (bytes,) uint8 and (M+1,); captions in the same form.
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
    def from_samples(
        cls,
        shard: str,
        samples: Sequence[IndexedSample],
        tar_bytes: int = 0,
        tar_time_ns: int = 0,
    ) -> ShardIndex:
        """Makes an index of samples, in their order."""
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
        """Returns the number of samples."""
        return len(self.offsets)

    @property
    def num_captions(self) -> int:
        """Number of captions."""
        return len(self.caption_ends) - 1

    def key(self, i: int) -> str:
        """Returns the key of sample i: its name in the tar without suffix."""
        return _unpack(self.key_text, self.key_ends, i)

    def captions(self, i: int) -> tuple[str, ...]:
        """Returns the captions of sample i, as edited when indexed."""
        numbers = range(self.first[i], self.first[i + 1])
        return tuple(_unpack(self.caption_text, self.caption_ends, m) for m in numbers)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the locations, checksums and captions."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.offsets, self.sizes, self.first):
            digest.update(array.astype("<i8").tobytes())
        digest.update(self.checksums.astype("<u4").tobytes())
        digest.update(self.caption_ends.astype("<i8").tobytes())
        digest.update(self.caption_text.tobytes())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: str | PathLike) -> ShardIndex:
        """Reads an index file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is damaged or of another version.
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
        """Raises ValueError if the arrays do not fit together."""
        for name, ends, total, count in (
            ("first", self.first, self.num_captions, len(self)),
            ("key_ends", self.key_ends, len(self.key_text), len(self)),
            ("caption_ends", self.caption_ends, len(self.caption_text), self.num_captions),
        ):
            good = ends.ndim == 1 and len(ends) == count + 1 and ends[0] == 0
            if not (good and ends[-1] == total and (ends[1:] >= ends[:-1]).all()):
                raise ValueError(f"inconsistent array {name}")
        shapes = {array.shape for array in (self.offsets, self.sizes, self.checksums)}
        if shapes != {(len(self),)}:
            raise ValueError(f"offsets, sizes and checksums have shapes {sorted(shapes)}")

    def write(self, path: str | PathLike, extra: Mapping[str, np.ndarray] | None = None) -> None:
        """Writes the index atomically, with `extra` arrays that `read` ignores."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".new-{path.name}")
        arrays: dict[str, Any] = {"format": np.int64(FORMAT), **(extra or {})}
        arrays |= {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with new.open("wb") as file:
            np.savez(file, **arrays)
        replace_file(new, path)


def read_arrays(path: str | PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads some arrays of an index file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != FORMAT:
                raise ValueError(f"format {int(file['format'])}, this EffCap reads {FORMAT}")
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise
    except (
        OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, NotImplementedError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise _damaged(path, error) from error


def index_path(shard: str, folder: str | PathLike | None = None) -> Path:
    """Returns the path of a shard's index: beside the shard, or in `folder`.

    Raises:
        ValueError: the shard is remote and there is no folder.
    """
    if is_remote(shard):
        if folder is None:
            raise ValueError(f"The remote shard {shard} requires a folder for its index (--index)")
        tars = REMOTE_TAR.findall(shard)
        name = tars[-1] if tars else hashlib.blake2b(shard.encode(), digest_size=8).hexdigest()
        return Path(folder) / f"{name}.npz"
    name = Path(shard).name
    name = name[:-4] if name.lower().endswith(".tar") else name
    return (Path(shard).parent if folder is None else Path(folder)) / f"{name}.npz"


def index_paths(shards: Sequence[str], folder: str | PathLike | None = None) -> list[Path]:
    """Returns the path of each shard's index.

    Raises:
        ValueError: two shards would have the same index, or a remote shard has no folder.
    """
    owners: dict[Path, str] = {}
    for shard in shards:
        other = owners.setdefault(index_path(shard, folder), shard)
        if other != shard:
            raise ValueError(
                "Expected shards with different names, so that one folder can hold their indexes. "
                f"Received: {other} and {shard}"
            )
    if len(owners) < len(shards):
        duplicate = next(shard for shard in shards if list(shards).count(shard) > 1)
        raise ValueError(f"Expected every shard once. Received: {duplicate} twice")
    return list(owners)


def is_remote(shard: str) -> bool:
    """Returns whether a shard is a URL or a command rather than a local file."""
    return REMOTE.match(shard) is not None


def read_indexes(shards: Sequence[str], folder: str | PathLike | None = None) -> list[ShardIndex]:
    """Reads shard indexes without opening the shards.

    Args:
        shards: paths and URLs.
        folder: folder of the indexes; by default each is beside its shard.

    Raises:
        FileNotFoundError: a shard has no index.
        ValueError: an index is damaged, or two shards would have the same one.
    """
    paths = index_paths(shards, folder)
    missing = [shard for shard, path in zip(shards, paths, strict=True) if not path.is_file()]
    if missing:
        command = "effcap index SHARDS" + ("" if folder is None else f" --index {folder}")
        raise FileNotFoundError(f"No index for {first_names(missing)}; run `{command}`")
    # Shards may have moved, with their indexes, since they were indexed.
    indexes = [ShardIndex.read(path) for path in paths]
    return [replace(index, shard=str(shard)) for index, shard in zip(indexes, shards, strict=True)]


def _pack(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates texts to (bytes,) uint8, with their ends (number of texts + 1,)."""
    encoded = [text.encode() for text in texts]
    ends = np.concatenate([[0], np.cumsum([len(text) for text in encoded], dtype=np.int64)])
    ends = ends.astype(np.uint32 if ends[-1] < 2**32 else np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _unpack(text: np.ndarray, ends: np.ndarray, i: int) -> str:
    return text[ends[i] : ends[i + 1]].tobytes().decode()


def _damaged(path: str | PathLike, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is not a valid shard index; delete it and run `effcap index` again: "
        f"{error or type(error).__name__}"
    )
