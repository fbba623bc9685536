"""Playlists: their captions, artists, tags and features, as PlayNTell has them.

Gabbolini et al., "Data-Efficient Playlist Captioning With Musical and Linguistic Knowledge", EMNLP
2022. Names are imported when first used; none of them needs Keras but audio files read by
`features_of`.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.tools.playlists.arrays import (
        BadArray,
        PlaylistArrays,
        open_arrays,
        pad_arrays,
        save_arrays,
    )
    from effcap.tools.playlists.artists import (
        artist_shares,
        mask_artists,
        rank_artists,
        unmask_artists,
    )
    from effcap.tools.playlists.attention import attention_lines, looked_at, row_attention
    from effcap.tools.playlists.captioning import PlaylistCaption, caption_playlists
    from effcap.tools.playlists.features import PlaylistFeatures, features_of
    from effcap.tools.playlists.formats import (
        format_caption,
        join_caption,
        restore_caption,
        split_caption,
    )
    from effcap.tools.playlists.playlist import Playlist, Track, read_playlists
    from effcap.tools.playlists.tags import TagEmbeddings, tag_words

_MODULES = {
    "BadArray": ".arrays",
    "Playlist": ".playlist",
    "PlaylistArrays": ".arrays",
    "PlaylistCaption": ".captioning",
    "PlaylistFeatures": ".features",
    "TagEmbeddings": ".tags",
    "Track": ".playlist",
    "artist_shares": ".artists",
    "attention_lines": ".attention",
    "caption_playlists": ".captioning",
    "features_of": ".features",
    "format_caption": ".formats",
    "join_caption": ".formats",
    "looked_at": ".attention",
    "mask_artists": ".artists",
    "open_arrays": ".arrays",
    "pad_arrays": ".arrays",
    "rank_artists": ".artists",
    "read_playlists": ".playlist",
    "restore_caption": ".formats",
    "row_attention": ".attention",
    "save_arrays": ".arrays",
    "split_caption": ".formats",
    "tag_words": ".tags",
    "unmask_artists": ".artists",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
