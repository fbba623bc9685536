"""A folder of Parquet files with the captions of shards, one complete file per shard.

    captions.parquet/00000.parquet    captions of 00000.tar
    captions.parquet/00001.parquet    ...

The folder can be read as one table, with `pandas.read_parquet(folder)` or
`pyarrow.dataset.dataset(folder)`. The metadata of each file contain the model, the sampler
and a summary of the shard.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import effcap
from effcap.presets import OWN_FILES, RECORD
from effcap.tools.captioning.results import model_name
from effcap.trainers.data.shards.shard_index import index_path, is_remote
from effcap.utils.files import replace_file
from effcap.weights.captioner_config import is_captioner_folder

if TYPE_CHECKING:
    import pyarrow

MODEL, SAMPLER, VERSION, SHARD = (
    f"effcap.{name}".encode() for name in ("model", "sampler", "version", "shard")
)
CHUNK = 2**20  # bytes


class Row(NamedTuple):
    """A photo's key with its caption and score, or with the error if it has none.

    The key is None for damage of the shard itself.
    """

    key: str | None
    caption: str | None = None
    score: float | None = None
    error: str | None = None


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
    """

    shard: str
    num_captions: int = 0
    num_unreadable: int = 0
    damage: str = ""
    error: str = ""
    from_earlier_run: bool = False

    @property
    def is_incomplete(self) -> bool:
        """Returns whether a part of the shard could not be read."""
        return bool(self.error or self.damage)

    @property
    def is_empty(self) -> bool:
        """Returns whether the shard is complete and has no photos."""
        return not self.is_incomplete and self.num_captions + self.num_unreadable == 0


@dataclass(frozen=True)
class CaptionFolder:
    """A folder of captions by one model and sampler.

    Attributes:
        folder: folder of NAME.parquet for each shard NAME.tar; `prepare` creates it.
        model: name of the model, such as `preset_id` returns.
        sampler: sampler and its options, such as `repr(Beam())`.
    """

    folder: Path
    model: str
    sampler: str

    def path(self, shard: str) -> Path:
        """Returns the path of a shard's captions."""
        return index_path(shard, self.folder).with_suffix(".parquet")

    def prepare(self) -> None:
        """Creates the folder.

        Raises:
            OSError: files cannot be written to the folder.
            ImportError: pyarrow is not installed.
        """
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ImportError(
                "Captioning shards requires pyarrow: pip install 'effcap[parquet]'"
            ) from None
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
        for path in sorted(self.folder.glob("*.parquet")):
            summary = self._read_summary(path)
            if path in owners and self._matches(owners[path], summary, path):
                results[owners[path]] = ShardCaptions(
                    owners[path],
                    summary["photos"],
                    summary["unreadable"],
                    summary["note"],
                    from_earlier_run=True,
                )
        return results

    def _read_summary(self, path: Path) -> dict[str, Any]:
        """Reads the summary of the shard from the metadata of a file.

        Raises:
            ValueError: the file is damaged, or not by this model and sampler.
        """
        import pyarrow
        from pyarrow import parquet

        try:
            metadata = parquet.read_schema(path).metadata or {}
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{path} is damaged; delete it to caption its shard again: {error}"
            ) from error
        if SHARD not in metadata:
            raise ValueError(
                f"{path} does not hold captions; choose a folder that holds nothing else"
            )
        made_by = (metadata[MODEL].decode(), metadata[SAMPLER].decode())
        if made_by != (self.model, self.sampler):
            raise ValueError(
                f"Expected captions by {self.model} with {self.sampler} in {self.folder}; choose "
                f"another folder for these. Received: {path.name} by {' with '.join(made_by)}"
            )
        return json.loads(metadata[SHARD])

    def _matches(self, shard: str, summary: dict[str, Any], path: Path) -> bool:
        """Returns whether captions are those of the shard in its present state.

        Raises:
            ValueError: they are those of another shard.
        """
        size = summary["tar_bytes"] if is_remote(shard) else os.path.getsize(shard)
        if summary["shard"] == shard:
            return size == summary["tar_bytes"]
        if is_remote(shard) or size != summary["tar_bytes"]:  # otherwise it was only moved
            raise ValueError(
                f"{path} holds the captions of {summary['shard']}, not of {shard}; choose another "
                "folder"
            )
        return True

    def write(
        self, shard: str, rows: Sequence[Row], tar_bytes: int, damage: str = ""
    ) -> ShardCaptions:
        """Writes the captions of a complete shard atomically.

        Args:
            shard: shard as `locate` returns it.
            rows: rows in the order of the tar.
            tar_bytes: size of the tar.
            damage: what is wrong with the tar; becomes a row without a key.

        Raises:
            OSError: the file cannot be written.
        """
        from pyarrow import parquet

        num_captions = sum(row.caption is not None for row in rows)
        summary = {
            "shard": shard,
            "tar_bytes": tar_bytes,
            "photos": num_captions,
            "unreadable": len(rows) - num_captions,
            "note": damage,
        }
        table = _table(shard, [*rows, Row(None, error=damage)] if damage else rows)
        table = table.replace_schema_metadata(
            {
                MODEL: self.model,
                SAMPLER: self.sampler,
                VERSION: effcap.__version__,
                SHARD: json.dumps(summary),
            }
        )
        path = self.path(shard)
        new = self.folder / f".new-{path.stem}-{uuid.uuid4().hex}"  # unique to this process
        try:
            parquet.write_table(table, new)
            replace_file(new, path)
        except OSError as error:
            raise OSError(
                f"Cannot write {path}; free space or set permissions, then repeat the command to "
                f"continue: {error}"
            ) from error
        finally:
            new.unlink(missing_ok=True)
        return ShardCaptions(shard, num_captions, len(rows) - num_captions, damage)


def _table(shard: str, rows: Sequence[Row]) -> pyarrow.Table:
    import pyarrow

    text = pyarrow.string()
    types = (text, text, text, pyarrow.float32(), text)
    columns = zip(*((shard, *row) for row in rows), strict=True) if rows else [[]] * len(types)
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    return pyarrow.table(arrays, names=["shard", *Row._fields])


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
