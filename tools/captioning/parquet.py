"""A folder of Parquet files with the captions of shards, one complete file per shard.

    captions.parquet/00000.parquet    captions of 00000.tar
    captions.parquet/00001.parquet    ...

The folder can be read as one table, with `pandas.read_parquet(folder)` or
`pyarrow.dataset.dataset(folder)`. The metadata of each file contain the model, the sampler
and a summary of the shard.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import effcap
from effcap.tools.captioning.shard_output import Row, ShardCaptions, ShardOutput, Summary
from effcap.tools.reports.tables import import_parquet
from effcap.trainers.data.shards.shard_index import index_path
from effcap.utils.files import replace_file

if TYPE_CHECKING:
    import pyarrow

MODEL, SAMPLER, VERSION, SHARD = (
    f"effcap.{name}".encode() for name in ("model", "sampler", "version", "shard")
)


@dataclass(frozen=True)
class CaptionFolder(ShardOutput):
    """A folder of NAME.parquet for each shard NAME.tar; see `ShardOutput`."""

    def path(self, shard: str) -> Path:
        """Returns the path of a shard's captions."""
        return index_path(shard, self.folder).with_suffix(".parquet")

    def existing(self) -> Sequence[Path]:
        """Returns the paths of all captions."""
        return sorted(self.folder.glob("*.parquet"))

    def prepare(self, shards: Sequence[str] = ()) -> None:
        """Creates the folder.

        Raises:
            OSError: files cannot be written to the folder.
            ImportError: pyarrow is not installed.
        """
        import_parquet()
        super().prepare(shards)

    def read_summary(self, path: Path) -> Summary:
        """Reads the summary of a shard from the metadata of a file.

        Raises:
            ValueError: the file is damaged, or holds no captions.
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
        return Summary(
            metadata[MODEL].decode(), metadata[SAMPLER].decode(), **json.loads(metadata[SHARD])
        )

    def write(
        self, shard: str, rows: Sequence[Row], tar_bytes: int, damage: str = ""
    ) -> ShardCaptions:
        """Writes the captions of a complete shard atomically; damage becomes a row without a key.

        Raises:
            OSError: the file cannot be written.
        """
        summary = self.summary(shard, rows, tar_bytes, damage)
        fields = summary._asdict()
        table = _table(shard, [*rows, Row(None, error=damage)] if damage else rows)
        table = table.replace_schema_metadata(
            {
                MODEL: fields.pop("model"),
                SAMPLER: fields.pop("sampler"),
                VERSION: effcap.__version__,
                SHARD: json.dumps(fields),
            }
        )
        path = self.path(shard)
        new = self.folder / f".new-{path.stem}-{uuid.uuid4().hex}"  # unique to this process
        try:
            import_parquet().write_table(table, new)
            replace_file(new, path)
        except OSError as error:
            raise self.cannot_write(path, error) from error
        finally:
            new.unlink(missing_ok=True)
        return summary.result


def _table(shard: str, rows: Sequence[Row]) -> pyarrow.Table:
    import pyarrow

    text = pyarrow.string()
    types = (text, text, text, pyarrow.float32(), text, pyarrow.list_(text))
    columns = zip(*((shard, *row) for row in rows), strict=True) if rows else [[]] * len(types)
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, types, strict=True)]
    return pyarrow.table(arrays, names=["shard", *Row._fields])
