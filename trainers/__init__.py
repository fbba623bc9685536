"""Data into batches, and batches into a trained captioner.

Names are imported when first used: reading and checking data needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.augmentation import Augmentation
    from effcap.trainers.batches import CaptionBatches
    from effcap.trainers.captions import (
        CaptionedPhoto,
        Problem,
        TooManyProblems,
        subset,
        tidy,
    )
    from effcap.trainers.csv_data import csv_dataset, read_csv, read_csvs
    from effcap.trainers.features import CachedFeatures, cache_features
    from effcap.trainers.json_data import json_dataset, read_json_captions, read_jsons
    from effcap.trainers.options import TrainingOptions
    from effcap.trainers.photo_files import PhotoFiles, check_photos
    from effcap.trainers.playlists.captions import read_playlist_captions
    from effcap.trainers.playlists.data import (
        PlaylistData,
        playlist_dataset,
        read_playlist_data,
    )
    from effcap.trainers.regions import RegionData, RegionFeatures, photo_ids, region_dataset
    from effcap.trainers.run_options import RunOptions
    from effcap.trainers.runner import run
    from effcap.trainers.shards.batches import ShardBatches
    from effcap.trainers.shards.data import Shards, read_shards, shard_dataset
    from effcap.trainers.training import train

_MODULES = {
    "Augmentation": ".augmentation",
    "CachedFeatures": ".features",
    "CaptionBatches": ".batches",
    "CaptionedPhoto": ".captions",
    "PhotoFiles": ".photo_files",
    "PlaylistData": ".playlists.data",
    "Problem": ".captions",
    "RegionData": ".regions",
    "RegionFeatures": ".regions",
    "RunOptions": ".run_options",
    "ShardBatches": ".shards.batches",
    "Shards": ".shards.data",
    "TooManyProblems": ".captions",
    "TrainingOptions": ".options",
    "cache_features": ".features",
    "check_photos": ".photo_files",
    "csv_dataset": ".csv_data",
    "json_dataset": ".json_data",
    "photo_ids": ".regions",
    "playlist_dataset": ".playlists.data",
    "read_csv": ".csv_data",
    "read_csvs": ".csv_data",
    "read_json_captions": ".json_data",
    "read_jsons": ".json_data",
    "read_playlist_captions": ".playlists.captions",
    "read_playlist_data": ".playlists.data",
    "read_shards": ".shards.data",
    "region_dataset": ".regions",
    "run": ".runner",
    "shard_dataset": ".shards.data",
    "subset": ".captions",
    "tidy": ".captions",
    "train": ".training",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
