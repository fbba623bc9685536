"""Decodes photos with NVIDIA DALI, on the CPU (no driver needed) or on the GPU.

The pipeline gets bytes rather than reading shards itself: the order of an epoch stays EffCap's own,
and a photo that cannot be decoded, which stops a DALI pipeline, does not affect the others.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from effcap.images import Fit, Region, Resample, UnreadablePhoto, upright_size, visible_box
from effcap.trainers.data.augmentation import View
from effcap.trainers.data.shards.image_decoder import Decoded, PillowDecoder

JPEG = b"\xff\xd8\xff"
# DALI's filters by those of Pillow; all of them are antialiased.
FILTERS = {"bilinear": "LINEAR", "bicubic": "CUBIC", "lanczos": "LANCZOS3"}
SAME_COLORS = np.eye(3, 4, dtype=np.float32)  # (3, 4)


def has_dali() -> bool:
    """Returns whether DALI is installed, without importing it."""
    return bool(find_spec("nvidia")) and find_spec("nvidia.dali") is not None


def has_dali_gpu() -> bool:
    """Returns whether DALI can use a GPU."""
    from nvidia.dali import backend

    try:
        return backend.GetCUDADeviceCount() > 0  # type: ignore[attr-defined]
    except RuntimeError:  # no driver
        return False


class DaliDecoder:
    """Decodes JPEGs with DALI, and other formats or JPEGs that fail there with Pillow.

    Orientation, antialiased resizing, crops, colors and flips equal `PillowDecoder`
    up to rounding.

    Args:
        image_size: height and width in pixels.
        fit: see `effcap.images.load_photo`.
        batch_size: maximum number of photos decoded at once.
        num_threads: threads of the pipeline.
        device: "cpu" or "gpu"; None uses the GPU if there is one.
        resample: "bilinear", "bicubic" or "lanczos"; None for bicubic.

    Raises:
        ValueError: `device` is "gpu" and there is none, or DALI has no such filter.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        fit: Fit = "squash",
        batch_size: int = 32,
        num_threads: int = 2,
        device: str | None = None,
        resample: Resample | None = None,
    ):
        if resample not in (None, *FILTERS):
            raise ValueError(
                f"The image decoder 'dali' has the filters {', '.join(FILTERS)}; use 'pillow'. "
                f"Received: resample={resample!r}"
            )
        has_gpu = has_dali_gpu()
        if device == "gpu" and not has_gpu:
            raise ValueError(
                "The image decoder 'dali-gpu' requires a GPU with its driver; 'dali-cpu' does not"
            )
        self.device = device or ("gpu" if has_gpu else "cpu")
        self.name = f"dali-{self.device}"
        self.image_size, self.fit, self.resample = image_size, fit, resample
        self.batch_size, self.num_threads = batch_size, num_threads
        self.fallback = PillowDecoder(image_size, fit, resample)
        self._lock = threading.Lock()
        self._pipelines: dict[bool, Any] = {}  # by whether colors change

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], flip: np.ndarray
    ) -> Decoded:
        """Decodes photos; see `ImageDecoder.decode`."""
        jpegs = {row: photo for row, photo in enumerate(encoded) if photo and photo[:3] == JPEG}
        with self._lock:
            images = self._try(jpegs, views, flip) if jpegs else None
            if images is not None and len(jpegs) == len(encoded):
                return self._to_backend(images), {}
            if images is not None:
                decoded = dict(zip(jpegs, self._to_host(images), strict=True))
            else:  # at least one of them cannot be decoded
                single = {row: self._try({row: jpegs[row]}, views, flip) for row in jpegs}
                decoded = {row: self._to_host(image)[0] for row, image in single.items() if image}
        batch = np.zeros((len(encoded), *self.image_size, 3), np.uint8)  # (B, h, w, 3)
        failures = {}
        for row, photo in enumerate(encoded):
            if row in decoded:
                batch[row] = decoded[row]
            elif photo is not None:
                try:
                    batch[row] = self.fallback.decode_one(photo, views[row], flip[row])
                except UnreadablePhoto as error:
                    failures[row] = error.reason
        return batch, failures

    def _try(self, jpegs: Mapping[int, bytes], views: Sequence[View], flip: np.ndarray) -> Any:
        """Returns DALI's images (n, h, w, 3) of JPEGs by row; None if one cannot be decoded."""
        rows = list(jpegs)
        has_jitter = any(views[row].color_matrix is not None for row in rows)
        if has_jitter not in self._pipelines:
            self._pipelines[has_jitter] = self._make_pipeline(has_jitter)
        pipeline = self._pipelines[has_jitter]
        frames = [self._frame(jpegs[row], views[row]) for row in rows]
        if None in frames:
            return None
        regions = np.array([frame[0] for frame in frames if frame], np.float32)  # (n, 4)
        sizes = np.array([frame[1] for frame in frames if frame], np.float32)  # (n, 2)
        pipeline.feed_input("size", sizes)
        if self.fit == "pad":
            bars = np.array(self.image_size) - sizes  # (n, 2)
            offsets = np.where(bars > 0, bars // 2 / np.maximum(bars, 1), 0.5)  # (n, 2)
            offsets = offsets.astype(np.float32)
            pipeline.feed_input("y", offsets[:, 0].copy())  # DALI rejects strided arrays
            pipeline.feed_input("x", offsets[:, 1].copy())
        pipeline.feed_input("encoded", [np.frombuffer(jpegs[row], np.uint8) for row in rows])
        pipeline.feed_input("start", np.ascontiguousarray(regions[:, 1::-1]))  # top, left
        pipeline.feed_input("end", np.ascontiguousarray(regions[:, :1:-1]))  # bottom, right
        pipeline.feed_input("flip", np.asarray(flip, np.int32)[rows])
        if has_jitter:
            pipeline.feed_input("colors", np.stack([_color_matrix(views[row]) for row in rows]))
        try:
            (images,) = pipeline.run()
        except RuntimeError:
            del self._pipelines[has_jitter]  # unusable after an error
            return None
        return images

    def _frame(self, photo: bytes, view: View) -> tuple[Region, tuple[int, int]] | None:
        """Returns the relative region to read and its (height, width) after resizing.

        Returns None if the photo cannot be read.
        """
        if self.fit == "squash":
            return view.region, self.image_size
        try:
            size = upright_size(photo)
        except UnreadablePhoto:
            return None
        box, (width, height) = visible_box(size, self.image_size, self.fit, view.region)
        left, top, right, bottom = (edge / side for edge, side in zip(box, 2 * size, strict=True))
        return (left, top, right, bottom), (height, width)

    def _make_pipeline(self, has_jitter: bool) -> Any:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline

        height, width = self.image_size
        on_gpu = self.device == "gpu"
        pipeline = Pipeline(
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device_id=0 if on_gpu else None,
            prefetch_queue_depth=1,  # batches are prefetched elsewhere
        )
        with pipeline:
            encoded = fn.external_source(name="encoded", no_copy=True, dtype=types.UINT8, ndim=1)
            start = fn.external_source(name="start", dtype=types.FLOAT, ndim=1)
            end = fn.external_source(name="end", dtype=types.FLOAT, ndim=1)
            flip = fn.external_source(name="flip", dtype=types.INT32, ndim=0)
            images = fn.decoders.image(
                encoded, device="mixed" if on_gpu else "cpu", output_type=types.RGB
            )
            images = fn.resize(
                images,
                size=fn.external_source(name="size", dtype=types.FLOAT, ndim=1),
                roi_start=start,
                roi_end=end,
                roi_relative=True,
                interp_type=getattr(types, f"INTERP_{FILTERS[self.resample or 'bicubic']}"),
                antialias=True,
            )
            if self.fit == "pad":
                offsets = {
                    f"crop_pos_{axis}": fn.external_source(name=axis, dtype=types.FLOAT, ndim=0)
                    for axis in "xy"
                }
                images = fn.crop(
                    images, crop=[height, width], out_of_bounds_policy="pad", **offsets
                )
            if has_jitter:
                colors = fn.external_source(name="colors", dtype=types.FLOAT, ndim=2)
                images = fn.coord_transform(images, MT=colors, dtype=types.UINT8)
            pipeline.set_outputs(fn.flip(images, horizontal=flip))
        pipeline.build()
        return pipeline

    def _to_host(self, images: Any) -> np.ndarray:
        """Returns DALI's images (n, h, w, 3) in host memory, on the CPU without a copy."""
        return np.from_dlpack((images.as_cpu() if self.device == "gpu" else images).as_tensor())

    def _to_backend(self, images: Any) -> Any:
        """Returns DALI's images (B, h, w, 3) for Keras's backend, without a copy by DLPack.

        For TensorFlow, images are in host memory.
        """
        backend = keras.backend.backend()
        if self.device == "cpu" or backend == "tensorflow":
            return self._to_host(images)
        if backend == "jax":
            from jax.dlpack import from_dlpack
        else:
            from torch import from_dlpack
        return from_dlpack(images.as_tensor())


def _color_matrix(view: View) -> np.ndarray:
    """Returns the color transform (3, 4) of a view."""
    if view.color_matrix is None:
        return SAME_COLORS
    return np.asarray(view.color_matrix, np.float32).reshape(3, 4)
