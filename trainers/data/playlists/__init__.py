"""Playlists: their captions, artists, tags and features, as PlayNTell has them.

Gabbolini et al., "Data-Efficient Playlist Captioning With Musical and Linguistic Knowledge", EMNLP
2022. Names are imported when first used; none of them needs Keras but audio files read by
`features_of`.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.data.playlists.arrays import (
        BadArray,
        PlaylistArrays,
        open_arrays,
        pad_arrays,
        save_arrays,
    )
    from effcap.trainers.data.playlists.artists import (
        artist_shares,
        mask_artists,
        rank_artists,
        unmask_artists,
    )
    from effcap.trainers.data.playlists.caption_formats import (
        format_caption,
        join_caption,
        restore_caption,
        split_caption,
    )
    from effcap.trainers.data.playlists.playlist import Playlist, Track, read_playlists
    from effcap.trainers.data.playlists.playlist_features import PlaylistFeatures, features_of
    from effcap.trainers.data.playlists.tags import TagEmbeddings, tag_words

_MODULES = {
    "BadArray": ".arrays",
    "Playlist": ".playlist",
    "PlaylistArrays": ".arrays",
    "PlaylistFeatures": ".playlist_features",
    "TagEmbeddings": ".tags",
    "Track": ".playlist",
    "artist_shares": ".artists",
    "features_of": ".playlist_features",
    "format_caption": ".caption_formats",
    "join_caption": ".caption_formats",
    "mask_artists": ".artists",
    "open_arrays": ".arrays",
    "pad_arrays": ".arrays",
    "rank_artists": ".artists",
    "read_playlists": ".playlist",
    "restore_caption": ".caption_formats",
    "save_arrays": ".arrays",
    "split_caption": ".caption_formats",
    "tag_words": ".tags",
    "unmask_artists": ".artists",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
