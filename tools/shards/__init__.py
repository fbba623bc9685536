"""Writes, checks and indexes webdataset shards. May use all below `tools`."""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.shards.index_report import write_index_report
    from effcap.tools.shards.indexing import IndexSummary, index_shards
    from effcap.tools.shards.shard_writer import WriteSummary, write_shards

_MODULES = {
    "IndexSummary": ".indexing",
    "WriteSummary": ".shard_writer",
    "index_shards": ".indexing",
    "write_index_report": ".index_report",
    "write_shards": ".shard_writer",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
