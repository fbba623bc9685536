"""A folder of Parquet files with the captions of shards: one file per shard, whole or not there.

    captions.parquet/00000.parquet    the captions of 00000.tar
    captions.parquet/00001.parquet    ...

The folder reads as one table: `pandas.read_parquet(folder)`, `pyarrow.dataset.dataset(folder)`.
Each file tells in its metadata which model and sampler wrote it, and what it came to.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import effcap
from effcap.presets import CONFIG, TOKENIZER, WEIGHTS
from effcap.trainers.data.shards.shard_index import index_path, is_remote
from effcap.utils.files import replace_file

if TYPE_CHECKING:
    import pyarrow

MODEL, SAMPLER, VERSION, ABOUT = (
    f"effcap.{name}".encode() for name in ("model", "sampler", "version", "shard")
)
CHUNK = 2**20  # bytes


class Row(NamedTuple):
    """A photo's key with its caption and score, or with the reason why there is none.

    The key is None for what is wrong with the shard itself.
    """

    key: str | None
    caption: str | None = None
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ShardCaptions:
    """What captioning a shard came to.

    Attributes:
        shard: absolute path, or URL.
        photos: number of photos with a caption.
        unreadable: number of photos without one, since they cannot be read.
        note: what is wrong with the tar behind what was captioned, such as where it is cut off;
            empty for a whole tar.
        problem: why the shard could not be read, so that there is no file; empty where it could.
        known: whether it was captioned by an earlier run.
    """

    shard: str
    photos: int = 0
    unreadable: int = 0
    note: str = ""
    problem: str = ""
    known: bool = False


@dataclass(frozen=True)
class CaptionFolder:
    """The captions of one model and sampler.

    Args:
        folder: for NAME.parquet of each shard NAME.tar; made by `prepare`.
        model: what made the captions: a name, with the `fingerprint` of its preset.
        sampler: how, such as `repr(Beam())`.
    """

    folder: Path
    model: str
    sampler: str

    def path(self, shard: str) -> Path:
        """Where the captions of a shard are."""
        return index_path(shard, self.folder).with_suffix(".parquet")

    def prepare(self) -> None:
        """Makes the folder.

        Raises:
            OSError: when files cannot be written there.
            ValueError: without pyarrow.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ValueError(
                "Expected the package pyarrow for captions in Parquet files (pip install "
                f"'effcap[parquet]'). Received: {self.folder} without it"
            ) from None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OSError(
                f"Expected a folder that captions can be written to. Received: {self.folder}: "
                f"{error.strerror or error}"
            ) from error

    def find(self, shards: Sequence[str]) -> dict[str, ShardCaptions]:
        """What earlier runs came to, by shard; a shard they did not caption is not in it.

        A tar that has another size than it had when it was captioned counts as not captioned.

        Args:
            shards: as `located` gives them.

        Raises:
            ValueError: for two shards of one name, a file in the folder that is damaged or of
                another model, sampler or program, or captions of another shard of the same name.
        """
        owners: dict[Path, str] = {}
        for shard in shards:
            other = owners.setdefault(self.path(shard), shard)
            if other != shard:
                raise ValueError(
                    "Expected shards with different names, or a folder for each of those with the "
                    f"same name. Received: {other} and {shard}"
                )
        found = {}
        for path in sorted(self.folder.glob("*.parquet")):
            about = self._read(path)
            if path in owners and self._is_of(owners[path], about, path):
                found[owners[path]] = ShardCaptions(
                    owners[path],
                    about["photos"],
                    about["unreadable"],
                    about["note"],
                    known=True,
                )
        return found

    def _read(self, path: Path) -> dict:
        """What a file says of its shard; ValueError unless it is one of this model and sampler."""
        import pyarrow
        from pyarrow import parquet

        try:
            metadata = parquet.read_schema(path).metadata or {}
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"Expected captions in {path}; delete the file, and its shard is captioned anew. "
                f"Received: {error}"
            ) from error
        if ABOUT not in metadata:
            raise ValueError(
                f"Expected a folder for captions alone. Received: {path}, which is something else"
            )
        made_by = (metadata[MODEL].decode(), metadata[SAMPLER].decode())
        if made_by != (self.model, self.sampler):
            raise ValueError(
                f"Expected captions by {self.model} with {self.sampler} in {self.folder}; choose "
                f"another folder for these. Received: {path.name} by {' with '.join(made_by)}"
            )
        return json.loads(metadata[ABOUT])

    def _is_of(self, shard: str, about: dict, path: Path) -> bool:
        """Whether a file's captions are those of the shard as it is now."""
        size = about["tar_bytes"] if is_remote(shard) else os.path.getsize(shard)
        if about["shard"] == shard:
            return size == about["tar_bytes"]
        if is_remote(shard) or size != about["tar_bytes"]:  # else it was only moved
            raise ValueError(
                f"Expected the captions of {shard} in {path}; choose another folder. "
                f"Received: those of {about['shard']}"
            )
        return True

    def write(self, shard: str, rows: Sequence[Row], tar_bytes: int, note: str) -> ShardCaptions:
        """Writes the captions of a whole shard; the file is there whole or not at all.

        Args:
            shard: as `located` gives it.
            rows: in the order of the tar.
            tar_bytes: its size.
            note: what is wrong with it; becomes a row without a key.

        Raises:
            OSError: when there is no room, or no permission.
        """
        from pyarrow import parquet

        photos = sum(row.caption is not None for row in rows)
        about = {
            "shard": shard,
            "tar_bytes": tar_bytes,
            "photos": photos,
            "unreadable": len(rows) - photos,
            "note": note,
        }
        table = _table(shard, [*rows, Row(None, error=note)] if note else rows)
        table = table.replace_schema_metadata(
            {
                MODEL: self.model,
                SAMPLER: self.sampler,
                VERSION: effcap.__version__,
                ABOUT: json.dumps(about),
            }
        )
        path = self.path(shard)
        new = self.folder / f".new-{path.stem}-{uuid.uuid4().hex}"  # of this process alone
        try:
            parquet.write_table(table, new)
            replace_file(new, path)
        except OSError as error:
            raise OSError(
                f"Expected room and permission to write {path}; with them, the same command goes "
                f"on. Received: {error}"
            ) from error
        finally:
            new.unlink(missing_ok=True)
        return ShardCaptions(shard, photos, about["unreadable"], note)


def _table(shard: str, rows: Sequence[Row]) -> pyarrow.Table:
    import pyarrow

    text = pyarrow.string()
    types = (text, text, text, pyarrow.float32(), text)
    columns = zip(*((shard, *row) for row in rows), strict=True) if rows else [[]] * len(types)
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    return pyarrow.table(arrays, names=["shard", *Row._fields])


def located(shard: str) -> str:
    """A shard by its absolute path; a URL or command as it is."""
    return shard if is_remote(shard) else os.path.abspath(shard)


def fingerprint(preset: Path) -> str:
    """A hash of a preset's files, for the name of the model that its captions are by."""
    digest = hashlib.blake2b(digest_size=6)
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if (preset / name).is_file():
            with (preset / name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()
