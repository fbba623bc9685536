"""A builder of `datasets` that converts Parquet files to Arrow files in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow
from datasets.builder import Key
from datasets.packaged_modules.parquet.parquet import Parquet
from pyarrow import parquet

BATCH_ROWS = 100
VERSION = "1"  # of what is written; part of the path in the cache


class StreamedParquet(Parquet):
    """Reads Parquet files page by page; see `datasets.packaged_modules.parquet`.

    The builder of `datasets` decodes ahead of what is written: its memory grows with the files, at
    least with their largest group of rows, which pandas writes as one for a whole file.

    Attributes:
        advance: is called with the number of rows of each batch; None calls nothing.
    """

    advance: Callable[[int], None] | None = None

    def _generate_tables(
        self, files: Sequence[str], row_groups_list: Sequence[Any]
    ) -> Iterator[tuple[Key, pyarrow.Table]]:
        for number, file in enumerate(files):
            with parquet.ParquetFile(file, memory_map=True, pre_buffer=False) as content:
                batches = content.iter_batches(BATCH_ROWS, columns=self.config.columns)
                for index, batch in enumerate(batches):
                    yield Key(number, index), self._cast_table(pyarrow.Table.from_batches([batch]))
                    if self.advance is not None:
                        self.advance(len(batch))
