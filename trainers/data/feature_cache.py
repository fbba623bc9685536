"""Cache of the features of a frozen backbone on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from effcap.backbones.backbone import Backbone
from effcap.images import StoredPhoto
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.dataset import CaptionDataset
from effcap.trainers.data.photos import PhotoDataset, PhotoFiles, photo_key
from effcap.utils.files import check_free_space
from effcap.utils.progress import print_line, track

if TYPE_CHECKING:
    from effcap.captioner import Captioner

FEATURES, INDEX = "features.npy", "index.json"


class CachedFeatures:
    """Backbone features in a file on disk, in place of the photos; an `InputLoader`.

    Args:
        features: features (V, N, S, C) float16 of N photos: unflipped, and flipped if V is 2.
        fingerprint: a hash of what they were computed from.
        rows: indices of the photos among the N, (P,); None for all in their order.
    """

    def __init__(self, features: np.ndarray, fingerprint: str, rows: np.ndarray | None = None):
        self.features, self.fingerprint = features, fingerprint
        self.rows = np.arange(features.shape[1]) if rows is None else rows
        self.can_flip = len(features) > 1

    def load(
        self, indices: np.ndarray, flip: np.ndarray, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Loads features.

        Args:
            indices: indices of the photos, (B,).
            flip: which photos to take the flipped features of, (B,) bool.
            draws: ignored.

        Returns:
            {"features": (B, S, C) float16}.
        """
        features = self.features[flip.astype(int), self.rows[indices]]  # (B,S,C)
        return {"features": np.asarray(features)}


class FeatureExtractor(keras.Model):
    """A compiled model of the backbone only."""

    def __init__(self, backbone: Backbone):
        super().__init__(name="feature_extractor")
        self.backbone = backbone
        self.built = True
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, images: Any) -> Any:
        """Returns features (B, S, C) of images (B, h, w, 3)."""
        return self.backbone(images, training=False)  # (B,S,C)


def cache_features(
    backbone: Backbone,
    photos: Sequence[Path | StoredPhoto],
    folder: str | PathLike[str],
    flipped: bool = False,
    batch_size: int = 32,
    title: str | None = None,
) -> CachedFeatures:
    """Reads the features of photos from a folder, or computes and writes them.

    Features are computed again if a photo file, the backbone or its weights have changed. A folder
    with features of more photos, or of flipped photos too, is reused.

    Args:
        backbone: a frozen backbone.
        photos: files of the photos, or stored photos, all of them readable.
        folder: folder of the features, which take 2 * S * C bytes per photo and view.
        flipped: whether features of the flipped photos are needed too.
        batch_size: photos per step.
        title: title of a progress bar; None for no bar.

    Raises:
        ValueError: the backbone is not frozen, or a feature exceeds the range of float16.
        OSError: there is not enough disk space.
    """
    check_frozen(backbone)
    folder = Path(folder)
    index: dict[str, Any] = {
        "backbone": backbone_fingerprint(backbone),
        "flipped": flipped,
        "photos": [_cache_key(photo) for photo in photos],
    }
    rows, reason = _find_rows(folder, index)
    if rows is None:
        if title is not None:
            print_line(f"{title}: {reason} in {folder}; computing them")
        compute_features(backbone, photos, folder, flipped, batch_size, title)
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    # Without paths and modification times: copies of the photos have the same features.
    content = [index["backbone"], flipped, [size for _, size, _ in index["photos"]]]
    state = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    features = np.load(folder / FEATURES, mmap_mode="r")[: 2 if flipped else 1]  # (V,N,S,C)
    return CachedFeatures(features, state, rows)


def check_cacheable(
    captioner: Captioner, augmentation: Augmentation, datasets: Iterable[CaptionDataset | None]
) -> None:
    """Checks that training can use cached features.

    Args:
        captioner: captioner to train.
        augmentation: augmentation of the photos.
        datasets: training and validation data; None is ignored.

    Raises:
        ValueError: the captioner has no frozen backbone, photos are cropped or their colors
            changed, or a dataset does not consist of photo files.
    """
    check_frozen(getattr(captioner.encoder, "backbone", None))
    if augmentation.random_crop < 1 or augmentation.color_jitter > 0:
        raise ValueError(
            "Cached features are those of whole photos, without random_crop and color_jitter. "
            f"Received: random_crop={augmentation.random_crop}, "
            f"color_jitter={augmentation.color_jitter}; use random_crop=1 and color_jitter=0, or "
            "no feature cache"
        )
    for dataset in datasets:
        if dataset is not None and not isinstance(dataset, PhotoDataset):
            raise ValueError(
                "Expected photo files to cache features of. Received: "
                f"{type(dataset).__name__}; train without --feature-cache"
            )


def check_frozen(backbone: Backbone | None) -> None:
    """Checks that a backbone is frozen.

    Raises:
        ValueError: the backbone is trainable, or None.
    """
    if backbone is None:
        raise ValueError(
            "Expected a captioner of photos to cache features of. Received: a captioner without a "
            "backbone; train without --feature-cache"
        )
    if backbone.trainable_weights:
        raise ValueError(
            "Expected a frozen backbone to cache features of. "
            f"Received: trainable_blocks={backbone.trainable_blocks!r}"
        )


def compute_features(
    backbone: Backbone,
    photos: Sequence[Path | StoredPhoto],
    folder: Path,
    flipped: bool,
    batch_size: int,
    title: str | None,
) -> None:
    """Computes and writes features; the caller writes the index, which marks them as complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    (folder / FEATURES).unlink(missing_ok=True)
    num_views = 2 if flipped else 1
    shape = (num_views, len(photos), *backbone.feature_shape)
    check_free_space(folder, 2 * int(np.prod(shape)))
    features = np.lib.format.open_memmap(folder / FEATURES, "w+", np.float16, shape)  # (V,N,S,C)
    extractor = FeatureExtractor(backbone)
    loader = PhotoFiles(photos, backbone.image_size, backbone.fit, resample=backbone.resample)
    starts = range(0, len(photos), batch_size)
    steps = [(view, start) for view in range(num_views) for start in starts]
    for view, start in track(steps, len(steps), title):
        indices = np.arange(start, min(start + batch_size, len(photos)))
        filled = np.resize(indices, batch_size)  # (B,) repeats photos to fill the batch
        images = loader.load(filled, np.full(batch_size, view, bool))["images"]  # (B,h,w,3)
        with np.errstate(over="ignore"):
            outputs = extractor.predict_on_batch(images).astype(np.float16)  # (B,S,C)
        if not np.isfinite(outputs).all():
            raise ValueError(
                f"Expected features below {np.finfo(np.float16).max:.0f}, the maximum of float16. "
                f"Received: larger ones from {backbone.net.name}; train without --feature-cache"
            )
        features[view, indices] = outputs[: len(indices)]
    features.flush()


def _find_rows(folder: Path, index: dict[str, Any]) -> tuple[np.ndarray | None, str]:
    """Finds the photos of `index` among the features in a folder.

    Returns:
        (rows (P,), ""), or (None, the reason why the features cannot be used).
    """
    try:
        existing = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        rows = {tuple(key): row for row, key in enumerate(existing["photos"])}
        changes = []
        if existing["backbone"] != index["backbone"]:
            changes.append("another backbone")
        if index["flipped"] and not existing["flipped"]:
            changes.append("no flipped photos")
        if not all(tuple(key) in rows for key in index["photos"]):
            changes.append("other photos")
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None, "no complete features"
    if changes:
        return None, f"features computed with {' and '.join(changes)}"
    if not (folder / FEATURES).is_file():
        return None, "no features"
    return np.array([rows[tuple(key)] for key in index["photos"]], np.intp), ""


def _cache_key(photo: Path | StoredPhoto) -> list[Any]:
    """Returns resolved path, or name of a stored photo, size and modification time."""
    return list(photo_key(photo if isinstance(photo, StoredPhoto) else photo.resolve()))


def backbone_fingerprint(backbone: Backbone) -> str:
    """Computes a hash of a backbone's layers, preprocessing, image size, fit, filter and weights.

    Layer names are left out because Keras numbers layers anew in each process.
    """
    layers = [{**layer.get_config(), "name": type(layer).__name__} for layer in backbone.net.layers]
    config = [vars(backbone.preprocessing), backbone.image_size, backbone.fit, layers]
    if backbone.resample is not None:
        config.append(backbone.resample)
    state = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for weight in backbone.weights:
        state.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return state.hexdigest()
