"""Playlists with captions, artists, tags and features, as in PlayNTell.

Gabbolini et al., "Data-Efficient Playlist Captioning With Musical and Linguistic Knowledge", EMNLP
2022. Names are imported on first use; none of them needs Keras.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.data.playlists.arrays import (
        PlaylistArrays,
        UnreadableArray,
        open_arrays,
        pad_arrays,
        save_arrays,
    )
    from effcap.trainers.data.playlists.artists import (
        artist_fractions,
        mask_artists,
        rank_artists,
        unmask_artists,
    )
    from effcap.trainers.data.playlists.caption_formats import (
        CaptionFormat,
        format_caption,
        join_caption,
        restore_caption,
        split_caption,
        strip_markers,
    )
    from effcap.trainers.data.playlists.caption_records import (
        read_caption_records,
        read_playlist_captions,
    )
    from effcap.trainers.data.playlists.dataset import PlaylistDataset, read_playlist_dataset
    from effcap.trainers.data.playlists.inputs import PlaylistInputs
    from effcap.trainers.data.playlists.playlist import Playlist, Track, read_playlists
    from effcap.trainers.data.playlists.playlist_features import (
        PlaylistFeatures,
        compute_features,
    )
    from effcap.trainers.data.playlists.tags import TagEmbeddings, tag_words

_MODULES = {
    "CaptionFormat": ".caption_formats",
    "Playlist": ".playlist",
    "PlaylistArrays": ".arrays",
    "PlaylistDataset": ".dataset",
    "PlaylistFeatures": ".playlist_features",
    "PlaylistInputs": ".inputs",
    "TagEmbeddings": ".tags",
    "Track": ".playlist",
    "UnreadableArray": ".arrays",
    "artist_fractions": ".artists",
    "compute_features": ".playlist_features",
    "format_caption": ".caption_formats",
    "join_caption": ".caption_formats",
    "mask_artists": ".artists",
    "open_arrays": ".arrays",
    "pad_arrays": ".arrays",
    "rank_artists": ".artists",
    "read_caption_records": ".caption_records",
    "read_playlist_captions": ".caption_records",
    "read_playlist_dataset": ".dataset",
    "read_playlists": ".playlist",
    "restore_caption": ".caption_formats",
    "save_arrays": ".arrays",
    "split_caption": ".caption_formats",
    "strip_markers": ".caption_formats",
    "tag_words": ".tags",
    "unmask_artists": ".artists",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
