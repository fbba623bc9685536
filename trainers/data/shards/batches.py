"""Batches of the photos in shards: planned, fetched and decoded in the order of the plan."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np

from effcap.trainers.batching.packed import Batch, PackedBatches, Preview, Source
from effcap.trainers.data.augmentation import View
from effcap.trainers.data.example import TooManyProblems
from effcap.trainers.data.shards.batch_planner import BatchPlanner, Block, Row
from effcap.trainers.data.shards.image_decoder import ImageDecoder, fill_missing
from effcap.trainers.data.shards.order import PhotoId
from effcap.trainers.data.shards.photo_fetcher import PhotoFetcher, UnavailablePhoto
from effcap.trainers.data.shards.skipped import SkippedSamples

PREVIEW_STREAM = -1  # number of the stream of previews; those of processes start at 0
PREVIEW_CANDIDATES = 8  # photos per preview, since some may be unreadable


class FetchedBlock(NamedTuple):
    """A block with the encoded photos of its remote shards."""

    plan: Block
    photos: dict[PhotoId, bytes | UnavailablePhoto]


class ShardBatches(PackedBatches):
    """Batches of photos in webdataset shards; see `PackedBatches` for the format.

    Photos that cannot be read are skipped: their rows have weight 0.

    Args:
        planner: selects the photos, captions and views of each batch.
        fetcher: returns encoded photos.
        image_decoder: decodes them.
        skipped: counts photos that cannot be used.
    """

    def __init__(
        self,
        planner: BatchPlanner,
        fetcher: PhotoFetcher,
        image_decoder: ImageDecoder,
        skipped: SkippedSamples,
    ):
        super().__init__(planner.tokenizer, planner.max_text_length, planner.options)
        self.planner, self.fetcher = planner, fetcher
        self.image_decoder, self.skipped = image_decoder, skipped
        self.row_lengths = planner.row_lengths
        # One thread makes all blocks in order, because a remote shard can only be read forwards.
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="blocks")
        self._blocks: dict[tuple[int, int], Future[FetchedBlock]] = {}  # by epoch and number
        self._max_blocks = 3 + (self.workers + self.max_queue_size) // planner.block_batches
        self._lock = threading.Lock()
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Starts an epoch; see `PackedBatches.start_epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.planner.num_batches

    def __getitem__(self, index: int) -> Batch:
        number, position = divmod(index, self.planner.block_batches)
        try:
            block = self._block(number)
            length, rows = block.plan.batches[position]
            rows = rows[self.own_rows()]
            images, is_real = self._load(rows, block)
        except (TooManyProblems, ImportError) as error:
            self.failure = error  # Keras hides it in a long traceback
            raise
        captions = [
            row.captions if row is not None and real else []
            for row, real in zip(rows, is_real, strict=True)
        ]
        prefixes = [self.planner.prefix] * len(rows)
        tokens, targets, segments, weights = self.pack(captions, prefixes, length)  # each (B, T)
        segments[~is_real, 0] = 1  # rows of weight 0 must attend to something
        return {"images": images, "tokens": tokens, "segments": segments}, targets, weights

    def _load(self, rows: Sequence[Row | None], block: FetchedBlock) -> tuple[Any, np.ndarray]:
        """Returns images (B, h, w, 3) of rows, and which rows have their own photo (B,)."""
        encoded: list[bytes | None] = []
        failures: dict[int, str] = {}
        for i, row in enumerate(rows):
            photo = None if row is None else self._fetch(row.photo, block)
            if isinstance(photo, UnavailablePhoto):
                failures[i], photo = str(photo), None
            encoded.append(photo)
        views = [View() if row is None else self.planner.view(row) for row in rows]
        flip = np.array([row is not None and row.flip for row in rows])  # (B,)
        images, undecoded = self.image_decoder.decode(encoded, views, flip)  # (B, h, w, 3)
        failures |= undecoded
        for i, row in enumerate(rows):
            if row is not None and i in failures:
                self.skipped.add(self.planner.name(row.photo), failures[i])
        is_real = np.array([row is not None and i not in failures for i, row in enumerate(rows)])
        if not is_real.all():
            fill_missing(images, is_real, self.rows_per_process)
        return images, is_real

    def _fetch(self, photo: PhotoId, block: FetchedBlock) -> bytes | UnavailablePhoto:
        return block.photos[photo] if photo in block.photos else self.fetcher.fetch(photo)

    def _block(self, number: int) -> FetchedBlock:
        """Returns a block of this epoch and starts to make the next one."""
        with self._lock:
            for n in (number, number + 1):
                exists = n * self.planner.block_batches < len(self)
                if exists and (self.epoch, n) not in self._blocks:
                    future = self._maker.submit(self._make_block, self.epoch, n)
                    self._blocks[self.epoch, n] = future
            block = self._blocks[self.epoch, number]
            while len(self._blocks) > self._max_blocks:
                del self._blocks[next(iter(self._blocks))]
        return block.result()

    def _make_block(self, epoch: int, number: int) -> FetchedBlock:
        """Plans a block and fetches the photos of its remote shards."""
        plan = self.planner.block(epoch, number)
        photos: dict[PhotoId, bytes | UnavailablePhoto] = {}
        for process, own_photos in enumerate(plan.photos):
            if self.options.process_index in (None, process):
                photos |= self.fetcher.stream(own_photos, process)
        for photo in plan.too_long:
            reason = f"no caption of fewer than {self.max_text_length} tokens"
            self.skipped.add(self.planner.name(photo), reason)
        return FetchedBlock(plan, photos)

    def skipped_summary(self) -> str:
        """Returns a line about photos that were skipped; "" if there are none."""
        return self.skipped.summary()

    @property
    def num_images(self) -> int:
        """Number of photos in an epoch."""
        return len(self.planner.collection)

    @property
    def num_captions(self) -> int:
        """Number of captions of the photos that are used."""
        return self.planner.num_captions

    @property
    def max_prefix_length(self) -> int:
        """Number of tokens of the prefix."""
        return len(self.planner.prefix)

    @property
    def caption_length(self) -> int:
        """Length of the longest rows, which almost no caption exceeds."""
        return int(self.row_lengths[-1])

    @property
    def padding(self) -> float:
        """Fraction of token positions that hold padding, in the first block of the epoch."""
        return self._block(0).plan.padding

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the batches of all epochs depend on."""
        state = {**self.planner.state(), "image_decoder": self.image_decoder.name}
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def previews(self, count: int) -> list[Preview]:
        """Returns the first `count` photos that can be read, without augmentation."""
        previews: list[Preview] = []
        for photo in self.planner.first_photos(PREVIEW_CANDIDATES * count):
            streamed = self.fetcher.stream([photo], PREVIEW_STREAM)
            encoded = streamed[photo] if streamed else self.fetcher.fetch(photo)
            if isinstance(encoded, bytes):
                images, failures = self.image_decoder.decode([encoded], [View()], np.array([False]))
                if not failures:
                    image = keras.ops.convert_to_numpy(images)[0]  # (h, w, 3)
                    previews.append(
                        Preview(
                            {"images": image},
                            encoded,
                            self.options.prefix,
                            self.planner.name(photo),
                            self.planner.captions(photo),
                        )
                    )
            if len(previews) == count:
                break
        self.fetcher.close(PREVIEW_STREAM)
        return previews

    def source(self, index: int, row: int) -> Source:
        """Returns where a row comes from; photos of remote shards are not read again."""
        number, position = divmod(index, self.planner.block_batches)
        _, rows = self._block(number).plan.batches[position]
        member = rows[self.own_rows()][row]
        if member is None:
            raise IndexError(f"Row {row} of batch {index} is empty")
        photo = member.photo
        return Source(self.planner.name(photo), lambda: self._local_photo(photo))

    def _local_photo(self, photo: PhotoId) -> bytes | None:
        """Returns an encoded photo; None if its shard is remote or cannot be read."""
        if photo.shard in self.fetcher.remote:
            return None
        encoded = self.fetcher.fetch(photo)
        return encoded if isinstance(encoded, bytes) else None
