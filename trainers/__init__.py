"""Training of captioners: datasets, batches and runs. May use `effcap` and `samplers`.

Names are imported on first use: reading and checking data imports neither Keras nor TensorFlow.
"""

# ruff: noqa: F401  the names are for type checkers
from __future__ import annotations

from typing import TYPE_CHECKING

from effcap.utils.lazy import lazy_names

if TYPE_CHECKING:
    from effcap.trainers.batching.in_memory import CaptionBatches
    from effcap.trainers.data.augmentation import Augmentation
    from effcap.trainers.data.caption_cleaning import plain, tidy
    from effcap.trainers.data.clipcap_file import read_clipcap_features
    from effcap.trainers.data.csv_reader import read_csv
    from effcap.trainers.data.dataset import CaptionDataset, ExampleDataset
    from effcap.trainers.data.example import Example, Problem, TooManyProblems, subset
    from effcap.trainers.data.feature_cache import CachedFeatures, cache_features
    from effcap.trainers.data.folder_reader import read_folder
    from effcap.trainers.data.huggingface.dataset_reader import read_dataset
    from effcap.trainers.data.json_reader import read_json
    from effcap.trainers.data.photos import PhotoDataset, PhotoFiles, check_photos
    from effcap.trainers.data.playlists.dataset import PlaylistDataset, read_playlist_dataset
    from effcap.trainers.data.regions.dataset import (
        RegionDataset,
        RegionFeatures,
        read_coco_ids,
        read_regions,
    )
    from effcap.trainers.data.shards.batches import ShardBatches
    from effcap.trainers.data.shards.dataset import ShardDataset, read_shards
    from effcap.trainers.engine.curves import plot_curves
    from effcap.trainers.engine.run import run
    from effcap.trainers.options.batches import BatchOptions
    from effcap.trainers.options.devices import DeviceOptions
    from effcap.trainers.options.run import RunOptions
    from effcap.trainers.options.scst import ScstOptions
    from effcap.trainers.options.training import TrainingOptions
    from effcap.trainers.reports.run_report import write_run_report

_MODULES = {
    "Augmentation": ".data.augmentation",
    "BatchOptions": ".options.batches",
    "CachedFeatures": ".data.feature_cache",
    "CaptionBatches": ".batching.in_memory",
    "CaptionDataset": ".data.dataset",
    "DeviceOptions": ".options.devices",
    "Example": ".data.example",
    "ExampleDataset": ".data.dataset",
    "PhotoDataset": ".data.photos",
    "PhotoFiles": ".data.photos",
    "PlaylistDataset": ".data.playlists.dataset",
    "Problem": ".data.example",
    "RegionDataset": ".data.regions.dataset",
    "RegionFeatures": ".data.regions.dataset",
    "RunOptions": ".options.run",
    "ScstOptions": ".options.scst",
    "ShardBatches": ".data.shards.batches",
    "ShardDataset": ".data.shards.dataset",
    "TooManyProblems": ".data.example",
    "TrainingOptions": ".options.training",
    "cache_features": ".data.feature_cache",
    "check_photos": ".data.photos",
    "plain": ".data.caption_cleaning",
    "plot_curves": ".engine.curves",
    "read_clipcap_features": ".data.clipcap_file",
    "read_coco_ids": ".data.regions.dataset",
    "read_csv": ".data.csv_reader",
    "read_dataset": ".data.huggingface.dataset_reader",
    "read_folder": ".data.folder_reader",
    "read_json": ".data.json_reader",
    "read_playlist_dataset": ".data.playlists.dataset",
    "read_regions": ".data.regions.dataset",
    "read_shards": ".data.shards.dataset",
    "run": ".engine.run",
    "subset": ".data.example",
    "tidy": ".data.caption_cleaning",
    "write_run_report": ".reports.run_report",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
