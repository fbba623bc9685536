"""Webdataset shards: written from photos with captions, checked and indexed for training.

Names are imported when first used; none of them needs Keras.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.data.shards.filters import Filters
    from effcap.trainers.data.shards.find_shards import find_shards
    from effcap.trainers.data.shards.index_report import write_report
    from effcap.trainers.data.shards.indexing import index_shards
    from effcap.trainers.data.shards.shard_index import ShardIndex, index_path, read_indexes
    from effcap.trainers.data.shards.shard_writer import write_shards

_MODULES = {
    "Filters": ".filters",
    "ShardIndex": ".shard_index",
    "find_shards": ".find_shards",
    "index_path": ".shard_index",
    "index_shards": ".indexing",
    "read_indexes": ".shard_index",
    "write_report": ".index_report",
    "write_shards": ".shard_writer",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
