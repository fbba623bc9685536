"""Captions the photos of a request: settings, decoding, batches and their results."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effcap.images import UnreadablePhoto
from effcap.tools.serving.batcher import Batcher, QueueClosed, QueueFull
from effcap.tools.serving.heatmaps import word_heatmaps
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.serve_options import ServeOptions
from effcap.tools.serving.served_captioners import CaptionSettings, ServedCaptioners
from effcap.utils.progress import track

if TYPE_CHECKING:
    from effcap.caption import Caption
    from effcap.caption_generator import CaptionGenerator

RETRY_AFTER = 5  # seconds


@dataclass(frozen=True)
class Upload:
    """A photo of a request.

    Attributes:
        name: name of the file, as the client gives it; never opened.
        data: its contents.
    """

    name: str
    data: bytes


@dataclass(frozen=True, eq=False)
class MapJob:
    """Where a captioner looked for each word of a caption; never shares a batch.

    Attributes:
        preset: name of the captioner.
        caption: the caption.
    """

    preset: str
    caption: Caption


class CaptionService:
    """Captions photos of concurrent requests; the page and the endpoint share it.

    Args:
        captioners: captioners by name.
        options: limits.
    """

    def __init__(self, captioners: Mapping[str, CaptionGenerator], options: ServeOptions) -> None:
        self.captioners = ServedCaptioners(captioners)
        self.options = options
        self.batcher = Batcher(self._run_batch, options.batch_size, options.queue_size)
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "decoder")

    def _run_batch(self, key: CaptionSettings | MapJob, items: list) -> list:
        """Runs a batch in the worker thread, the only one that uses the captioners."""
        if isinstance(key, CaptionSettings):
            return self.captioners.caption_batch(key, items, self.options.batch_size)
        captioner = self.captioners.by_name[key.preset]
        return [word_heatmaps(captioner, data, key.caption) for data in items]

    def compile(self, title: str | None = "compiling") -> None:
        """Compiles the default sampler of each captioner for one photo and for a full batch.

        Args:
            title: text before the progress bar. None for no bar.
        """
        sizes = sorted({1, min(2, self.options.batch_size)})  # two rows are padded to a full batch
        names = self.captioners.names
        jobs = [(name, size) for name in names for size in sizes]
        for name, size in track(jobs, len(jobs), title):
            settings = self.captioners.settings(name, None, {}, None)
            rows = [(0, self.captioners.blank(name))] * size
            self._run_batch(settings, rows)

    async def decode(self, uploads: Sequence[Upload], preset: str) -> list:
        """Decodes photos in threads.

        Returns:
            For each photo its pixels (h, w, 3), or the `UnreadablePhoto` that was raised.
        """
        loop = asyncio.get_running_loop()
        limit = self.options.max_megapixels
        tasks = [
            loop.run_in_executor(self._decoders, self.captioners.load, upload.data, preset, limit)
            for upload in uploads
        ]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, UnreadablePhoto):
                raise result
        return list(results)

    def submit(self, settings: CaptionSettings, pixels: Sequence) -> list[asyncio.Future]:
        """Queues decoded photos.

        Args:
            settings: settings of all photos.
            pixels: photos (h, w, 3).

        Returns:
            A future for the captions of each photo. Cancel it to drop the photo.

        Raises:
            RequestError: the queue is full, or the server is shutting down.
        """
        return self._queue(settings, list(enumerate(pixels)))

    def submit_maps(self, preset: str, data: bytes, caption: Caption) -> asyncio.Future:
        """Queues the computation of `word_heatmaps`.

        Args:
            preset: name of the captioner.
            data: contents of the photo's file.
            caption: one of its captions.

        Raises:
            RequestError: as `submit`.
        """
        return self._queue(MapJob(preset, caption), [data])[0]

    def _queue(self, key: CaptionSettings | MapJob, items: list) -> list[asyncio.Future]:
        try:
            futures = self.batcher.submit(key, items)
        except QueueFull:
            raise RequestError(
                503, "The queue is full. Try again in some seconds", retry_after=RETRY_AFTER
            ) from None
        except QueueClosed:
            raise RequestError(503, "The server is shutting down") from None
        return [asyncio.wrap_future(future) for future in futures]

    async def caption(
        self, settings: CaptionSettings, uploads: Sequence[Upload]
    ) -> list[list[Caption]]:
        """Captions all photos of a request.

        Raises:
            RequestError: a photo cannot be read, which refuses the whole request; the captioner
                cannot generate what the settings ask for; or the queue is full.
        """
        decoded = await self.decode(uploads, settings.preset)
        unreadable = [
            (upload.name, result.reason)
            for upload, result in zip(uploads, decoded, strict=True)
            if isinstance(result, UnreadablePhoto)
        ]
        if unreadable:
            name, reason = unreadable[0]
            more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
            raise RequestError(422, f"Cannot read {name}: {reason}{more}", unreadable)
        try:
            return list(await asyncio.gather(*self.submit(settings, decoded)))
        except ValueError as error:
            raise refusal(error) from None

    def close(self, timeout: float = 0.0) -> None:
        """Finishes the photos that wait, for at most `timeout` seconds, and stops the threads.

        The batch that runs is finished in any case: TensorFlow would abort the process if it ended
        in the middle of one.
        """
        self.batcher.close(timeout)
        self.batcher.join()
        self._decoders.shutdown(wait=False, cancel_futures=True)


def refusal(error: ValueError) -> RequestError:
    """Returns the error for settings that turn out to be impossible when photos are captioned."""
    return RequestError(422, " ".join(str(error).split()))
