"""Writes features of photos by a vision network, as region features to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.captioner import Captioner
from effcap.conversion.backbone_weights import load_backbone_weights
from effcap.generation_call import pad_rows
from effcap.presets import preset_folder
from effcap.tools.captioning.photos import load_batches
from effcap.tools.captioning.results import check_batch_size, check_some_used
from effcap.tools.features.photo_keys import find_keys
from effcap.trainers.data.dataset import photo_encoder
from effcap.trainers.data.feature_cache import FeatureExtractor, backbone_fingerprint
from effcap.trainers.data.regions.region_file import GRID
from effcap.trainers.data.regions.region_writer import RegionWriter
from effcap.utils.progress import ProgressBar, track

Skipped = list[tuple[Path, str]]


@dataclass(frozen=True)
class WrittenFeatures:
    """Summary of a file of features.

    Attributes:
        path: HDF5 file.
        num_positions: positions S of the feature map of each photo.
        feature_dim: width C of the features.
        num_existing: photos whose features were in the file already.
        skipped: photos that could not be read, with the reason.
    """

    path: Path
    num_positions: int
    feature_dim: int
    num_existing: int
    skipped: Skipped


def write_features(
    photos: Mapping[str, Path] | str | PathLike[str] | Sequence[str | PathLike[str]],
    network: Backbone | Captioner | str | PathLike[str],
    out: str | PathLike[str],
    *,
    dtype: Literal["float32", "float16"] = "float32",
    batch_size: int = 16,
) -> WrittenFeatures:
    """Writes the feature maps (S, C) of photos to an HDF5 file, under a progress bar.

    The file has the format of VisualGPT's detections.hdf5, for `effcap.trainers.read_regions`.
    Photos with features in an existing file, or in the parts of an interrupted run, are not
    computed again.

    Args:
        photos: files, folders or patterns; or files by key, such as a COCO id or a name.
        network: backbone; captioner, or the name or folder of a preset, whose backbone is used; or
            the name of a network in `effcap.backbones`, with ImageNet weights.
        out: HDF5 file to write or to add to.
        dtype: type of the stored features.
        batch_size: photos per batch.

    Raises:
        FileNotFoundError: a photo, preset or file of weights does not exist.
        ValueError: no photo can be read, two photos have the same key, the file was written
            with another network, or a feature is out of range of `dtype`.
    """
    check_batch_size(batch_size)
    files = photos if isinstance(photos, Mapping) else find_keys(photos)
    backbone, out = find_backbone(network), Path(out)
    num_positions, feature_dim = backbone.feature_shape
    skipped: Skipped = []
    with RegionWriter(out, describe(backbone, dtype)) as writer:
        missing = {path: key for key, path in files.items() if key not in writer.keys}
        try:
            for path, features in extract_features(backbone, missing, dtype, batch_size, skipped):
                writer.add(missing[path], features)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped with features of {len(writer.keys)} photos; start again to continue"
            ) from None
        writer.finish(lambda keys, total: track(keys, total, f"writing {out.name}"))
    check_some_used(len(files), skipped)
    return WrittenFeatures(out, num_positions, feature_dim, len(files) - len(missing), skipped)


def find_backbone(network: Backbone | Captioner | str | PathLike[str]) -> Backbone:
    """Returns the backbone of a captioner or preset, or a network by name with ImageNet weights.

    Raises:
        ValueError: the captioner takes no photos, or there is no such preset or network.
    """
    if isinstance(network, Backbone):
        return network
    if not isinstance(network, Captioner):
        try:
            preset = preset_folder(network)
        except FileNotFoundError:
            backbone = Backbone(str(network))
            load_backbone_weights(backbone, None)
            return backbone
        network = Captioner.from_preset(preset)
    return photo_encoder(network).backbone


def describe(backbone: Backbone, dtype: str) -> dict[str, Any]:
    """Returns the attributes of a file with features of a network."""
    return {
        "network": backbone.network if isinstance(backbone.network, str) else "a Keras model",
        "image_size": list(backbone.image_size),
        "fit": backbone.fit,
        **({} if backbone.resample is None else {"resample": backbone.resample}),
        GRID: backbone.feature_shape[0],
        "feature_dim": backbone.feature_shape[1],
        "dtype": dtype,
        "fingerprint": backbone_fingerprint(backbone),
    }


def extract_features(
    backbone: Backbone,
    photos: Mapping[Path, str],
    dtype: str,
    batch_size: int,
    skipped: Skipped,
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields photos with features (S, C) under a progress bar; adds unreadable ones to `skipped`.

    Raises:
        ValueError: a feature is out of range of `dtype`.
    """
    if not photos:
        return
    extractor = FeatureExtractor(backbone)
    paths = list(photos)
    with ProgressBar("features", len(paths)) as bar:
        for indices, images in load_batches(paths, backbone, batch_size, skipped):
            batch = pad_rows(np.stack(images), batch_size)  # (B,h,w,3)
            features = extractor.predict_on_batch(batch)[: len(indices)]  # (B,S,C)
            with np.errstate(over="ignore"):
                features = features.astype(dtype)
            if not np.isfinite(features).all():
                raise ValueError(
                    f"The features exceed the range of {dtype}; use float32 or other weights"
                )
            yield from zip([paths[index] for index in indices], features, strict=True)
            bar.advance(steps=len(indices))
