"""Data into batches, and batches into a trained captioner.

Names are imported when first used: reading and checking data needs neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.batching.in_memory import CaptionBatches
    from effcap.trainers.data.augmentation import Augmentation
    from effcap.trainers.data.csv_reader import csv_dataset, read_csv, read_csvs
    from effcap.trainers.data.example import (
        CaptionedPhoto,
        Problem,
        TooManyProblems,
        subset,
        tidy,
    )
    from effcap.trainers.data.feature_cache import CachedFeatures, cache_features
    from effcap.trainers.data.json_reader import json_dataset, read_json_captions, read_jsons
    from effcap.trainers.data.photos import PhotoFiles, check_photos
    from effcap.trainers.data.playlists.caption_records import read_playlist_captions
    from effcap.trainers.data.playlists.dataset import (
        PlaylistData,
        playlist_dataset,
        read_playlist_data,
    )
    from effcap.trainers.data.regions.dataset import (
        RegionData,
        RegionFeatures,
        photo_ids,
        region_dataset,
    )
    from effcap.trainers.data.shards.batches import ShardBatches
    from effcap.trainers.data.shards.dataset import Shards, read_shards, shard_dataset
    from effcap.trainers.engine.run import run
    from effcap.trainers.engine.train import train
    from effcap.trainers.options.run import RunOptions
    from effcap.trainers.options.training import TrainingOptions

_MODULES = {
    "Augmentation": ".data.augmentation",
    "CachedFeatures": ".data.feature_cache",
    "CaptionBatches": ".batching.in_memory",
    "CaptionedPhoto": ".data.example",
    "PhotoFiles": ".data.photos",
    "PlaylistData": ".data.playlists.dataset",
    "Problem": ".data.example",
    "RegionData": ".data.regions.dataset",
    "RegionFeatures": ".data.regions.dataset",
    "RunOptions": ".options.run",
    "ShardBatches": ".data.shards.batches",
    "Shards": ".data.shards.dataset",
    "TooManyProblems": ".data.example",
    "TrainingOptions": ".options.training",
    "cache_features": ".data.feature_cache",
    "check_photos": ".data.photos",
    "csv_dataset": ".data.csv_reader",
    "json_dataset": ".data.json_reader",
    "photo_ids": ".data.regions.dataset",
    "playlist_dataset": ".data.playlists.dataset",
    "read_csv": ".data.csv_reader",
    "read_csvs": ".data.csv_reader",
    "read_json_captions": ".data.json_reader",
    "read_jsons": ".data.json_reader",
    "read_playlist_captions": ".data.playlists.caption_records",
    "read_playlist_data": ".data.playlists.dataset",
    "read_shards": ".data.shards.dataset",
    "region_dataset": ".data.regions.dataset",
    "run": ".engine.run",
    "shard_dataset": ".data.shards.dataset",
    "subset": ".data.example",
    "tidy": ".data.example",
    "train": ".engine.train",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
