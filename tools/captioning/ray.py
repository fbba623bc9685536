"""Shards captioned by the workers of a Ray cluster, which Ray Data starts, feeds and restarts."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from effcap.tools.captioning.parquet import CaptionFolder, ShardCaptions

if TYPE_CHECKING:
    from effcap.samplers.base import Sampler


class ShardCaptioner:
    """A worker: loads the preset once, then captions whole shards."""

    def __init__(self, preset: str, folder: CaptionFolder, sampler: Sampler, batch_size: int):
        self.preset, self.folder = preset, folder
        self.sampler, self.batch_size = sampler, batch_size
        self.captioner: Any = None

    def __call__(self, row: dict[str, str]) -> dict[str, Any]:
        """A shard to what captioning it came to, or under "error" to what all must stop for."""
        try:
            if self.captioner is None:
                # Several workers may share a GPU.
                os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
                from effcap.captioner import Captioner

                self.captioner = Captioner.from_preset(self.preset)
            from effcap.tools.captioning.shards import caption_into

            work = (self.captioner, [row["shard"]], self.sampler, self.batch_size)
            (done,) = caption_into(self.folder, *work)
        except (OSError, ValueError) as error:
            return {**dataclasses.asdict(ShardCaptions(row["shard"])), "error": str(error)}
        return {**dataclasses.asdict(done), "error": ""}


def caption_on_ray(
    preset: str | os.PathLike,
    shards: Sequence[str],
    folder: CaptionFolder,
    sampler: Sampler,
    batch_size: int = 8,
    address: str | None = None,
    workers: int = 1,
    gpus_per_worker: float | None = None,
) -> Iterator[ShardCaptions]:
    """Captions shards as `effcap.tools.caption_shards` does, by the workers of a Ray cluster.

    Each worker takes a shard when it has done the one before. Where one dies, Ray starts another,
    which does the shard again from its beginning; what is written stays.

    Args:
        preset: folder that every worker can read; so must be the shards.
        shards: absolute paths and URLs; those not captioned yet, see `CaptionFolder.find`.
        folder: prepared; every worker can write to it.
        sampler: of `effcap.samplers`.
        batch_size: photos captioned at once.
        address: of the cluster, as `ray.init` takes it; by default that in RAY_ADDRESS, or else
            this machine alone.
        workers: how many there are, each with the model in its memory.
        gpus_per_worker: a part such as 0.5 lets workers share one; by default 1 where the cluster
            has any, else 0.

    Returns:
        What it came to for each shard, as they are done, in any order.

    Raises:
        ValueError: without Ray, or for a preset or captions that cannot be used.
        OSError: when the cluster cannot be reached, or captions cannot be written.
    """
    if workers < 1:
        raise ValueError(f"Expected at least 1 worker. Received: workers={workers}")
    if gpus_per_worker is not None and gpus_per_worker < 0:
        raise ValueError(
            f"Expected 0 or more GPUs per worker. Received: gpus_per_worker={gpus_per_worker}"
        )
    try:
        import ray.data
        import ray.exceptions
    except ImportError:
        raise ValueError(
            "Expected the package ray[data] (pip install 'effcap[ray]'). Received: none"
        ) from None
    with ExitStack() as stack:
        if not ray.is_initialized():
            try:
                ray.init(address, log_to_driver=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise OSError(
                    f"Expected a Ray cluster at {address or 'this machine'}. Received: {error}"
                ) from error
            stack.callback(ray.shutdown)
        if gpus_per_worker is None:
            gpus_per_worker = 1 if ray.cluster_resources().get("GPU") else 0
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells what it does, at length
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the caller draws one
        rows = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        ).map(
            ShardCaptioner,
            fn_constructor_args=(os.path.abspath(preset), folder, sampler, batch_size),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(shards))),
            num_gpus=gpus_per_worker,
        )
        try:
            # Read ahead, a result would be held back until the next one is there.
            for table in rows.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    error = row.pop("error")
                    if error:
                        raise ValueError(error)
                    yield ShardCaptions(**row)
        except ray.exceptions.RayError as error:
            raise OSError(f"Expected Ray's workers to do their work. Received: {error}") from error
