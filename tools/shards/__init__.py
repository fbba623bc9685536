"""Webdataset shards: written from photos with captions, checked and indexed for training.

Names are imported when first used; none of them needs Keras.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.shards.filters import Filters
    from effcap.tools.shards.index import ShardIndex, index_path, read_indexes
    from effcap.tools.shards.indexing import index_shards
    from effcap.tools.shards.names import find_shards
    from effcap.tools.shards.report import write_report
    from effcap.tools.shards.writer import write_shards

_MODULES = {
    "Filters": ".filters",
    "ShardIndex": ".index",
    "find_shards": ".names",
    "index_path": ".index",
    "index_shards": ".indexing",
    "read_indexes": ".index",
    "write_report": ".report",
    "write_shards": ".writer",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
