"""Webdataset shards as training data: tar format, index, and batches in a reproducible order.

Names are imported when first used; none of them needs Keras.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.data.shards.dataset import ShardDataset, read_shards
    from effcap.trainers.data.shards.filters import Filters
    from effcap.trainers.data.shards.shard_index import ShardIndex, index_path, read_indexes
    from effcap.trainers.data.shards.shard_paths import find_shards

_MODULES = {
    "Filters": ".filters",
    "ShardDataset": ".dataset",
    "ShardIndex": ".shard_index",
    "find_shards": ".shard_paths",
    "index_path": ".shard_index",
    "read_indexes": ".shard_index",
    "read_shards": ".dataset",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
