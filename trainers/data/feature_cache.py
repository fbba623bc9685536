"""A frozen backbone's features, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.photos import PhotoFiles
from effcap.trainers.data.preparation import DataSource, PhotoData
from effcap.utils.progress import say, track

FEATURES, INDEX = "features.npy", "index.json"


class CachedFeatures:
    """Features of photos from a file on disk, in place of the photos.

    Args:
        features: (V, N, S, C) float16: N photos, as they are (V = 1) and mirrored (V = 2).
        fingerprint: a hash of what they were computed from.
        rows: (P,) where among the N each photo lies; None for all of them in their order.
    """

    def __init__(self, features: np.ndarray, fingerprint: str, rows: np.ndarray | None = None):
        self.features, self.fingerprint = features, fingerprint
        self.rows = np.arange(features.shape[1]) if rows is None else rows
        self.mirrored = len(features) > 1

    def load(
        self, photos: np.ndarray, mirror: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """`{"features"}`: (B, S, C) of photos (B,), mirrored where `mirror` (B,); `draws` do
        nothing."""
        found = self.features[mirror.astype(int), self.rows[photos]]  # (B,S,C)
        return {"features": np.asarray(found)}


class FeatureProgram(keras.Model):
    """The backbone alone, compiled."""

    def __init__(self, backbone: Backbone):
        super().__init__(name="feature_program")
        self.backbone = backbone
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, images):
        return self.backbone(images, training=False)  # (B,S,C)


def cache_features(
    backbone: Backbone,
    paths: Sequence[Path],
    folder: str | PathLike,
    mirrored: bool = False,
    batch_size: int = 32,
    title: str | None = None,
) -> CachedFeatures:
    """Features of photos, from `folder` where they are there already, else computed and kept.

    They are computed again when a file or the backbone, its weights included, has changed. Some of
    the photos that `folder` has features of, or those without the mirrored, are taken from there.

    Args:
        backbone: a frozen one.
        paths: the photos' files, all of them readable.
        folder: where to keep them; 2*S*C bytes per photo and view.
        mirrored: keep those of the mirrored photos, too.
        batch_size: photos per step.
        title: of a progress bar; None for no bar.

    Raises:
        ValueError: for a backbone that is being trained.
        OSError: when there is no room for the features.
    """
    check_frozen(backbone)
    folder = Path(folder)
    index = {
        "backbone": fingerprint(backbone),
        "mirrored": mirrored,
        "photos": [file_key(path) for path in paths],
    }
    rows, reason = kept_rows(folder, index)
    if rows is None:
        if title is not None:
            say(f"{title}: {reason} in {folder}; computing them")
        compute_features(backbone, paths, folder, mirrored, batch_size, title)
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    # Not where the files lie and when they were written: copies give the same features.
    parts = [index["backbone"], mirrored, [size for _, size, _ in index["photos"]]]
    state = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    features = np.load(folder / FEATURES, mmap_mode="r")[: 2 if mirrored else 1]  # (V,N,S,C)
    return CachedFeatures(features, state, rows)


def check_frozen(backbone: Backbone | None) -> None:
    """Raises a ValueError for a backbone whose features change as it trains, or none."""
    if backbone is None:
        raise ValueError(
            "Expected a captioner of photos to cache features of. Received: one without a "
            "backbone; train without --cache-features"
        )
    if backbone.trainable_weights:
        raise ValueError(
            "Expected a frozen backbone to cache features of: those of one in training change "
            f"with every step. Received: trainable_blocks={backbone.trainable_blocks!r}"
        )


def check_mirrored_only(augmentation: Augmentation) -> None:
    """Raises a ValueError where photos are to be varied in ways no features are kept of."""
    if augmentation.crop < 1 or augmentation.colour > 0:
        raise ValueError(
            "Expected no crop and no colour with cached features: they are kept of whole photos, "
            f"plain and mirrored. Received: crop={augmentation.crop}, "
            f"colour={augmentation.colour}; use crop=1 and colour=0, or no cache"
        )


def check_files(*sources: DataSource | None) -> None:
    """Raises a ValueError for data that are not files of photos."""
    for source in sources:
        if source is not None and not isinstance(source, PhotoData):
            raise ValueError(
                "Expected photo files to cache features of. Received: "
                f"{type(source).__name__.lower()}; train without --cache-features"
            )


def compute_features(
    backbone: Backbone,
    paths: Sequence[Path],
    folder: Path,
    mirrored: bool,
    batch_size: int,
    title: str | None,
) -> None:
    """Writes the features; without the index, which says that they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    (folder / FEATURES).unlink(missing_ok=True)
    views = 2 if mirrored else 1
    shape = (views, len(paths), *backbone.feature_shape)
    needed, free = 2 * int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"Expected room for {needed / 1e9:.1f} GB of features in {folder}. "
            f"Received: {free / 1e9:.1f} GB free"
        )
    features = np.lib.format.open_memmap(folder / FEATURES, "w+", np.float16, shape)
    program = FeatureProgram(backbone)
    source = PhotoFiles(paths, backbone.image_size, backbone.fit)
    steps = [(view, start) for view in range(views) for start in range(0, len(paths), batch_size)]
    for view, start in track(steps, len(steps), title):
        photos = np.arange(start, min(start + batch_size, len(paths)))
        filled = np.resize(photos, batch_size)
        images = source.load(filled, np.full(batch_size, view, bool))["images"]  # (B,h,w,3)
        with np.errstate(over="ignore"):
            outputs = program.predict_on_batch(images).astype(np.float16)  # (B,S,C)
        if not np.isfinite(outputs).all():
            raise ValueError(
                f"Expected features below {np.finfo(np.float16).max:.0f}, the most that float16 "
                f"holds. Received: larger ones from {backbone.net.name}; train without a cache"
            )
        features[view, photos] = outputs[: len(photos)]
    features.flush()


def kept_rows(folder: Path, index: dict) -> tuple[np.ndarray | None, str]:
    """Where in the features in `folder` those of `index` lie, (P,); or None, and why."""
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        rows = {tuple(key): row for row, key in enumerate(found["photos"])}
        changed = []
        if found["backbone"] != index["backbone"]:
            changed.append("another backbone")
        if index["mirrored"] and not found["mirrored"]:
            changed.append("no mirrored photos")
        if not all(tuple(key) in rows for key in index["photos"]):
            changed.append("other photos")
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None, "no features, or not all of them"
    if changed:
        return None, f"features computed with {' and '.join(changed)}"
    if not (folder / FEATURES).is_file():
        return None, "no features"
    return np.array([rows[tuple(key)] for key in index["photos"]], np.intp), ""


def file_key(path: Path) -> list:
    """What changes when a file does: its path, size and time of modification."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def fingerprint(backbone: Backbone) -> str:
    """A hash of a backbone's layers, preprocessing, image size, fit and weights; names do not
    count, since Keras numbers those of layers anew in each process."""
    layers = [{**layer.get_config(), "name": type(layer).__name__} for layer in backbone.net.layers]
    parts = [vars(backbone.preprocessing), backbone.image_size, backbone.fit, layers]
    state = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for weight in backbone.weights:
        state.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return state.hexdigest()
