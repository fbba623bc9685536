"""The results of captioning shards, and folders that hold them, one complete file per shard."""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from effcap.presets import OWN_FILES, RECORD
from effcap.tools.captioning.results import model_name
from effcap.trainers.data.shards.shard_index import is_remote
from effcap.weights.captioner_config import is_captioner_folder

CHUNK = 2**20  # bytes


class Row(NamedTuple):
    """A photo's key with its caption and score, or with the error if it has none.

    The key is None for damage of the shard itself. `missing` has the groups of the sampler's
    `include` of which the caption contains no word.
    """

    key: str | None
    caption: str | None = None
    score: float | None = None
    error: str | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardCaptions:
    """The result of captioning a shard.

    Attributes:
        shard: absolute path, or URL.
        num_captions: number of photos with a caption.
        num_unreadable: number of photos that could not be read.
        damage: what is wrong with the tar after the captioned photos, such as where it is
            truncated, or "".
        error: why the shard could not be read, so that it has no file, or "".
        from_earlier_run: whether an earlier run captioned the shard.
        num_without_words: number of captions that lack words of the sampler's `include`.
    """

    shard: str
    num_captions: int = 0
    num_unreadable: int = 0
    damage: str = ""
    error: str = ""
    from_earlier_run: bool = False
    num_without_words: int = 0

    @property
    def is_incomplete(self) -> bool:
        """Returns whether a part of the shard could not be read."""
        return bool(self.error or self.damage)

    @property
    def is_empty(self) -> bool:
        """Returns whether the shard is complete and has no photos."""
        return not self.is_incomplete and self.num_captions + self.num_unreadable == 0


@dataclass(frozen=True)
class ShardOutput(ABC):
    """A folder with the results of captioning shards by one model and sampler.

    Attributes:
        folder: folder of a file for each shard NAME.tar; `prepare` creates it.
        model: name of the model, such as `preset_id` returns.
        sampler: sampler and its options, such as `repr(Beam())`.
    """

    folder: Path
    model: str
    sampler: str

    @abstractmethod
    def path(self, shard: str) -> Path:
        """Returns the path of the file that states what was captioned of a shard."""

    @abstractmethod
    def existing(self) -> Sequence[Path]:
        """Returns the paths of all such files in the folder."""

    @abstractmethod
    def read_summary(self, path: Path) -> Summary | None:
        """Reads such a file; None if its shard has to be captioned again.

        Raises:
            ValueError: the file is damaged, or no such file.
        """

    @abstractmethod
    def write(
        self, shard: str, rows: Sequence[Row], tar_bytes: int, damage: str = ""
    ) -> ShardCaptions:
        """Writes the captions of a complete shard atomically.

        Args:
            shard: shard as `locate` returns it.
            rows: rows in the order of the tar.
            tar_bytes: size of the tar.
            damage: what is wrong with the tar.

        Raises:
            OSError: the file cannot be written.
        """

    def prepare(self, shards: Sequence[str] = ()) -> None:
        """Creates the folder.

        Args:
            shards: shards to caption, as `locate` returns them.

        Raises:
            OSError: files cannot be written to the folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OSError(
                f"Cannot write to the folder {self.folder}: {error.strerror or error}"
            ) from error

    def find(self, shards: Sequence[str]) -> dict[str, ShardCaptions]:
        """Returns the results of earlier runs by shard.

        A local shard whose size has changed since it was captioned is not in the result.

        Args:
            shards: shards as `locate` returns them.

        Raises:
            ValueError: two shards have the same name, or the folder holds a damaged file, captions
                of another model or sampler, or captions of another shard with the same name.
        """
        owners: dict[Path, str] = {}
        for shard in shards:
            other = owners.setdefault(self.path(shard), shard)
            if other != shard:
                raise ValueError(
                    "Expected shards with different names; caption those with the same name to "
                    f"different folders. Received: {other} and {shard}"
                )
        results = {}
        for path in self.existing():
            summary = self.read_summary(path)
            if summary is None:
                continue
            made_by = (summary.model, summary.sampler)
            if made_by != (self.model, self.sampler):
                raise ValueError(
                    f"Expected captions by {self.model} with {self.sampler} in {self.folder}; "
                    f"choose another folder for these. Received: {path.name} by "
                    f"{' with '.join(made_by)}"
                )
            if path in owners and _matches(owners[path], summary, path):
                results[owners[path]] = replace(
                    summary.result, shard=owners[path], from_earlier_run=True
                )
        return results

    def summary(self, shard: str, rows: Sequence[Row], tar_bytes: int, damage: str) -> Summary:
        """Returns the summary of a shard; see `write`."""
        num_captions = sum(row.caption is not None for row in rows)
        unreadable = len(rows) - num_captions
        return Summary(
            self.model,
            self.sampler,
            shard,
            tar_bytes,
            num_captions,
            unreadable,
            damage,
            without_words=sum(bool(row.missing) for row in rows),
        )

    def cannot_write(self, path: Path, error: OSError) -> OSError:
        """Returns the error of a file that cannot be written."""
        return OSError(
            f"Cannot write {path}; free space or set permissions, then repeat the command to "
            f"continue: {error}"
        )


class Summary(NamedTuple):
    """What was captioned of a shard, and by what.

    Attributes:
        model, sampler: see `ShardOutput`.
        shard: shard as `locate` returns it.
        tar_bytes: size of the tar.
        photos: number of photos with a caption.
        unreadable: number of photos that could not be read.
        note: what is wrong with the tar, or "".
        without_words: number of captions that lack words of the sampler's `include`.
    """

    model: str
    sampler: str
    shard: str
    tar_bytes: int
    photos: int
    unreadable: int
    note: str
    without_words: int = 0

    @property
    def result(self) -> ShardCaptions:
        """The summary as a result."""
        return ShardCaptions(
            self.shard,
            self.photos,
            self.unreadable,
            self.note,
            num_without_words=self.without_words,
        )


def _matches(shard: str, summary: Summary, path: Path) -> bool:
    """Returns whether captions are those of the shard in its present state.

    Raises:
        ValueError: they are those of another shard.
    """
    size = summary.tar_bytes if is_remote(shard) else os.path.getsize(shard)
    if summary.shard == shard:
        return size == summary.tar_bytes
    if is_remote(shard) or size != summary.tar_bytes:  # otherwise it was only moved
        raise ValueError(
            f"{path} holds the captions of {summary.shard}, not of {shard}; choose another folder"
        )
    return True


def locate(shard: str) -> str:
    """Returns the absolute path of a local shard; a URL or command unchanged."""
    return shard if is_remote(shard) else os.path.abspath(shard)


def preset_id(preset: Path) -> str:
    """Returns the name of a preset with a hash of its files."""
    return f"{model_name(preset.resolve())} {preset_hash(preset)}"


def preset_hash(preset: Path) -> str:
    """Returns a hash of the files that determine the captions of a preset."""
    digest = hashlib.blake2b(digest_size=6)
    files = sorted(path for path in preset.iterdir() if path.is_file() and path.name != RECORD)
    if not is_captioner_folder(preset):  # of transformers, whose files have other names
        files = [path for path in files if path.name in OWN_FILES]
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
