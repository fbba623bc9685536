"""Decoding with NVIDIA DALI, on the CPU without a driver or on the GPU.

The pipeline takes bytes rather than reading shards itself: the order of an epoch stays EffCap's
own, and a photo that cannot be decoded, which ends a DALI pipeline, costs that photo alone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np

from effcap.images import Fit, Region, UnreadablePhoto, framed, upright_size
from effcap.trainers.data.augmentation import View
from effcap.trainers.data.shards.image_decoder import Decoded, PillowDecoder

JPEG = b"\xff\xd8\xff"
PLAIN_COLOURS = np.eye(3, 4, dtype=np.float32)  # (3,4)


def dali_is_there() -> bool:
    """Whether DALI is installed."""
    return bool(find_spec("nvidia")) and find_spec("nvidia.dali") is not None


def dali_sees_a_gpu() -> bool:
    """Whether DALI has a GPU to decode on."""
    from nvidia.dali import backend

    try:
        return backend.GetCUDADeviceCount() > 0
    except RuntimeError:  # no driver
        return False


class DaliDecoder:
    """Decodes JPEGs with DALI, and what is no JPEG or fails there with Pillow.

    Photos are turned upright, resized with an antialiased bicubic filter, cropped, coloured and
    mirrored like Pillow's, to within rounding.

    Args:
        image_size: height and width in pixels.
        fit: as in `load_photo`.
        batch_size: the most photos decoded at once.
        threads: of the pipeline.
        device: "cpu" or "gpu"; None for the GPU where there is one.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        fit: Fit = "squash",
        batch_size: int = 32,
        threads: int = 2,
        device: str | None = None,
    ):
        sees_gpu = dali_sees_a_gpu()
        if device == "gpu" and not sees_gpu:
            raise ValueError(
                "Expected a GPU and its driver for the decoder 'dali-gpu'. Received: none; "
                "'dali-cpu' needs neither"
            )
        self.device = device or ("gpu" if sees_gpu else "cpu")
        self.name = f"dali-{self.device}"
        self.image_size, self.fit = image_size, fit
        self.batch_size, self.threads = batch_size, threads
        self.others = PillowDecoder(image_size, fit)
        self._lock = threading.Lock()
        self._pipelines: dict[bool, Any] = {}  # by whether colours change

    def decode(
        self, encoded: Sequence[bytes | None], views: Sequence[View], mirror: np.ndarray
    ) -> Decoded:
        """See `Decoder`."""
        jpegs = [row for row, photo in enumerate(encoded) if photo and photo[:3] == JPEG]
        with self._lock:
            images = self._try(encoded, views, mirror, jpegs) if jpegs else None
            if images is not None and len(jpegs) == len(encoded):
                return self._to_backend(images), {}
            if images is not None:
                found = dict(zip(jpegs, self._to_host(images), strict=True))
            else:  # one of them, at least, cannot be decoded
                alone = {row: self._try(encoded, views, mirror, [row]) for row in jpegs}
                found = {row: self._to_host(one)[0] for row, one in alone.items() if one}
        whole = np.zeros((len(encoded), *self.image_size, 3), np.uint8)  # (B,h,w,3)
        failures = {}
        for row, photo in enumerate(encoded):
            if row in found:
                whole[row] = found[row]
            elif photo is not None:
                try:
                    whole[row] = self.others.decode_one(photo, views[row], mirror[row])
                except UnreadablePhoto as error:
                    failures[row] = error.reason
        return whole, failures

    def _try(
        self,
        encoded: Sequence[bytes | None],
        views: Sequence[View],
        mirror: np.ndarray,
        rows: Sequence[int],
    ) -> Any:
        """DALI's images of those rows; None where one of them cannot be decoded."""
        coloured = any(views[row].colours is not None for row in rows)
        if coloured not in self._pipelines:
            self._pipelines[coloured] = self._make_pipeline(coloured)
        pipeline = self._pipelines[coloured]
        frames = [self._frame(encoded[row], views[row]) for row in rows]
        if None in frames:
            return None
        regions = np.array([region for region, _ in frames], np.float32)  # (n,4)
        sizes = np.array([size for _, size in frames], np.float32)  # (n,2)
        pipeline.feed_input("size", sizes)
        if self.fit == "pad":
            bars = np.array(self.image_size) - sizes  # (n,2)
            places = np.where(bars > 0, bars // 2 / np.maximum(bars, 1), 0.5).astype(np.float32)
            pipeline.feed_input("y", places[:, 0].copy())  # DALI takes no strides
            pipeline.feed_input("x", places[:, 1].copy())
        pipeline.feed_input("encoded", [np.frombuffer(encoded[row], np.uint8) for row in rows])
        pipeline.feed_input("start", np.ascontiguousarray(regions[:, 1::-1]))  # top, left
        pipeline.feed_input("end", np.ascontiguousarray(regions[:, :1:-1]))  # bottom, right
        pipeline.feed_input("mirror", np.asarray(mirror, np.int32)[list(rows)])
        if coloured:
            pipeline.feed_input("colours", np.stack([_colours(views[row]) for row in rows]))
        try:
            (images,) = pipeline.run()
        except RuntimeError:
            del self._pipelines[coloured]  # it may not go on after an error
            return None
        return images

    def _frame(self, photo: bytes, view: View) -> tuple[Region, tuple[int, int]] | None:
        """The region, in shares, and the (height, width) it is resized to; None for no photo."""
        if self.fit == "squash":
            return view.region, self.image_size
        try:
            size = upright_size(photo)
        except UnreadablePhoto:
            return None
        box, (width, height) = framed(size, self.image_size, self.fit, view.region)
        region = tuple(place / side for place, side in zip(box, 2 * size, strict=True))
        return region, (height, width)

    def _make_pipeline(self, coloured: bool) -> Any:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline

        height, width = self.image_size
        on_gpu = self.device == "gpu"
        pipeline = Pipeline(
            batch_size=self.batch_size,
            num_threads=self.threads,
            device_id=0 if on_gpu else None,
            prefetch_queue_depth=1,  # batches are prepared ahead outside
        )
        with pipeline:
            encoded = fn.external_source(name="encoded", no_copy=True, dtype=types.UINT8, ndim=1)
            start = fn.external_source(name="start", dtype=types.FLOAT, ndim=1)
            end = fn.external_source(name="end", dtype=types.FLOAT, ndim=1)
            mirror = fn.external_source(name="mirror", dtype=types.INT32, ndim=0)
            images = fn.decoders.image(
                encoded, device="mixed" if on_gpu else "cpu", output_type=types.RGB
            )
            images = fn.resize(
                images,
                size=fn.external_source(name="size", dtype=types.FLOAT, ndim=1),
                roi_start=start,
                roi_end=end,
                roi_relative=True,
                interp_type=types.INTERP_CUBIC,
                antialias=True,
            )
            if self.fit == "pad":
                places = {
                    f"crop_pos_{axis}": fn.external_source(name=axis, dtype=types.FLOAT, ndim=0)
                    for axis in "xy"
                }
                images = fn.crop(images, crop=[height, width], out_of_bounds_policy="pad", **places)
            if coloured:
                colours = fn.external_source(name="colours", dtype=types.FLOAT, ndim=2)
                images = fn.coord_transform(images, MT=colours, dtype=types.UINT8)
            pipeline.set_outputs(fn.flip(images, horizontal=mirror))
        pipeline.build()
        return pipeline

    def _to_host(self, images: Any) -> np.ndarray:
        """DALI's images (n, h, w, 3) in the host's memory; on the CPU without a copy."""
        return np.from_dlpack((images.as_cpu() if self.device == "gpu" else images).as_tensor())

    def _to_backend(self, images: Any) -> Any:
        """DALI's images (B, h, w, 3) where Keras's backend uses them, by DLPack, without a copy.

        Under TensorFlow, all batches come from the host's memory.
        """
        backend = keras.backend.backend()
        if self.device == "cpu" or backend == "tensorflow":
            return self._to_host(images)
        if backend == "jax":
            from jax.dlpack import from_dlpack
        else:
            from torch import from_dlpack
        return from_dlpack(images.as_tensor())


def _colours(view: View) -> np.ndarray:
    if view.colours is None:
        return PLAIN_COLOURS
    return np.asarray(view.colours, np.float32).reshape(3, 4)
