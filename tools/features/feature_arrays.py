"""Writes files of features from arrays, and from ClipCap's files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from effcap.trainers.data.clipcap_file import ClipCapCaption, read_clipcap_features
from effcap.trainers.data.regions.region_file import GRID, feature_key, write_regions
from effcap.utils.files import check_free_space, replace_file
from effcap.utils.progress import track

DATASET_BYTES = 1000  # of HDF5 beside the features of a photo
CHUNK = 2**14  # vectors compared at once
TOLERANCE = 0.01  # relative difference of a photo's vectors; GPUs in half precision differ by less


@dataclass(frozen=True)
class ConvertedFeatures:
    """Summary of a converted file of ClipCap.

    Attributes:
        path: HDF5 file of the features.
        captions_path: JSON file of the captions.
        num_photos: number of photos.
        num_captions: number of captions.
        feature_dim: width C of the vectors.
        num_ambiguous: photos whose captions have different vectors; the first one is used.
    """

    path: Path
    captions_path: Path
    num_photos: int
    num_captions: int
    feature_dim: int
    num_ambiguous: int


def write_feature_arrays(
    names: Sequence[str],
    features: np.ndarray,
    out: str | PathLike[str],
    *,
    dtype: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Writes features in an array to an HDF5 file for `effcap train regions`, under a progress bar.

    Args:
        names: names of the photos as in the captions, or COCO ids.
        features: vectors (N, C) or features (N, S, C) of the photos, possibly memory-mapped.
        out: HDF5 file; an existing one is replaced once the new one is complete.
        dtype: type of the stored features, "float32" or "float16". None takes that of the array.
        attributes: attributes of the file, such as the name of the network.

    Raises:
        OSError: there is not enough disk space.
        ValueError: the array has another shape or type, there are not as many names as photos, two
            are the same, or a feature is out of range of `dtype`.

    Example:
        >>> write_feature_arrays(names, np.load("clip.npy", mmap_mode="r"), "features.hdf5")
    """
    if features.ndim not in (2, 3) or 0 in features.shape or features.dtype.kind != "f":
        raise ValueError(
            "Expected floats of shape (N, C) or (N, S, C) as features. "
            f"Received: {features.dtype} of shape {features.shape}"
        )
    if len(names) != len(features):
        raise ValueError(
            f"Expected a name for each of the {len(features)} photos. Received: {len(names)} names"
        )
    rows = [(name, row) for row, name in enumerate(names)]
    write_rows(rows, features, Path(out), dtype, attributes)


def convert_clipcap(
    path: str | PathLike[str], out: str | PathLike[str], *, dtype: str = "float32"
) -> ConvertedFeatures:
    """Converts a file of ClipCap to features and captions for `effcap train regions`.

    ClipCap stores a vector for each caption; here each photo has one. All captions are kept.
    Nothing in the file is run. Both outputs get their names once they are complete.

    Args:
        path: a file of ClipCap, such as oscar_split_ViT-B_32_train.pkl.
        out: HDF5 file of the features; the captions are written beside it with the suffix .json.
        dtype: type of the stored features, "float32" or "float16".

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: an output exists already.
        OSError: there is not enough disk space.
        ValueError: the file cannot be read; see `read_clipcap_features`.
    """
    out = Path(out)
    captions_path = captions_file(out)
    features, captions = read_clipcap_features(path, title=f"reading {Path(path).name} (MB)")
    rows: dict[str, int] = {}
    for caption in captions:
        rows.setdefault(caption.image, caption.row)
    out.parent.mkdir(parents=True, exist_ok=True)
    new = captions_path.with_name(f".new-{captions_path.name}")
    try:
        write_records(new, captions)
        write_rows(rows.items(), features, out, dtype, {"source": Path(path).name})
        replace_file(new, captions_path)
    finally:
        new.unlink(missing_ok=True)
    return ConvertedFeatures(
        out,
        captions_path,
        num_photos=len(rows),
        num_captions=len(captions),
        feature_dim=features.shape[1],
        num_ambiguous=count_ambiguous(features, captions, rows),
    )


def captions_file(out: Path) -> Path:
    """Returns the path of the captions beside a file of features.

    Raises:
        FileExistsError: one of the files exists already.
        ValueError: both would have the same path.
    """
    path = out.with_suffix(".json")
    if path == out:
        raise ValueError(f"Expected an HDF5 file, such as {out.stem}.hdf5. Received: {out}")
    for file in (out, path):
        if file.exists():
            raise FileExistsError(f"{file} exists already; remove it, or choose another file")
    return path


def write_records(path: Path, captions: Sequence[ClipCapCaption]) -> None:
    """Writes captions as a JSON list of {"image", "text"}, one per line, for `read_json`."""
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for caption in captions:
            record = json.dumps({"image": caption.image, "text": caption.text})
            file.write(separator + record)
            separator = ",\n"
        file.write("\n]\n")


def write_rows(
    rows: Iterable[tuple[str, int]],
    features: np.ndarray,
    out: Path,
    dtype: str | None,
    attributes: Mapping[str, Any] | None,
) -> None:
    """Writes features (N, C) or (N, S, C) of photos.

    Args:
        rows: the photos' names with their rows of the array.
        features: the array.
        out: HDF5 file.
        dtype: type of the stored features; None takes that of the array.
        attributes: attributes of the file.

    Raises:
        OSError: there is not enough disk space.
        ValueError: two photos have the same key, or a feature is out of range of `dtype`.
    """
    keys: dict[str, int] = {}
    for name, row in rows:
        key = feature_key(name)
        if keys.setdefault(key, row) != row:
            raise ValueError(
                f"Expected different names of the photos. Received: {name}, whose key {key} is "
                "that of two photos"
            )
    stored = features.dtype.newbyteorder("=") if dtype is None else np.dtype(dtype)
    num_positions, feature_dim = 1 if features.ndim == 2 else features.shape[1], features.shape[-1]

    def read() -> Iterator[tuple[str, np.ndarray]]:
        for key, row in track(keys.items(), len(keys), f"writing {out.name}"):
            with np.errstate(over="ignore"):
                values = np.reshape(features[row], (num_positions, feature_dim)).astype(stored)
            if np.isinf(values).any() and np.isfinite(features[row]).all():
                raise ValueError(
                    f"The features of {key} exceed the range of {stored}; use float32 instead"
                )
            yield key, values  # (S,C)

    out.parent.mkdir(parents=True, exist_ok=True)
    size = num_positions * feature_dim * stored.itemsize + DATASET_BYTES
    check_free_space(out.parent, size * len(keys))
    shape = {GRID: num_positions, "feature_dim": feature_dim, "dtype": str(stored)}
    try:
        write_regions(out, read(), {**shape, **(attributes or {})})
    finally:
        out.with_name(f".new-{out.name}").unlink(missing_ok=True)


def count_ambiguous(
    features: np.ndarray, captions: Sequence[ClipCapCaption], rows: Mapping[str, int]
) -> int:
    """Returns the number of photos whose captions have vectors other than the first one's.

    Args:
        features: vectors (N, C).
        captions: captions with their rows.
        rows: rows of the vectors used, by image.
    """
    others = [caption for caption in captions if rows[caption.image] != caption.row]
    ambiguous: set[str] = set()
    for start in range(0, len(others), CHUNK):
        chunk = others[start : start + CHUNK]
        used = features[[rows[caption.image] for caption in chunk]].astype(np.float32)  # (M,C)
        other = features[[caption.row for caption in chunk]].astype(np.float32)  # (M,C)
        distances = np.linalg.norm(other - used, axis=1)  # (M,)
        is_other = ~(distances <= TOLERANCE * np.linalg.norm(used, axis=1))  # NaN is another
        ambiguous.update(chunk[i].image for i in np.flatnonzero(is_other))
    return len(ambiguous)
