"""Captions shards with workers of a Ray cluster, through Ray Data."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effcap.precision import EngineName, PrecisionName, check_engine
from effcap.tools.captioning.results import load_captioner
from effcap.tools.captioning.shard_captions import caption_each
from effcap.tools.captioning.shard_output import ShardCaptions, ShardOutput

if TYPE_CHECKING:
    from effcap.samplers import Sampler


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Options of a Ray cluster.

    Attributes:
        address: address of the cluster, such as auto or ray://HOST:10001. None takes RAY_ADDRESS,
            or else starts Ray on this machine.
        workers: number of Ray workers, each with the model in its memory.
        precision: arithmetic of the captioner: "float32" (default), "bfloat16" or "int8".
        engine: what runs the captioner: "keras" (default) or "openvino".
        gpus_per_worker: GPUs per Ray worker, such as 0.5 for two workers per GPU (default: 1 if the
            cluster has GPUs).

    Raises:
        ValueError: a value is out of range.
    """

    address: str | None = None
    workers: int = 1
    gpus_per_worker: float | None = None
    precision: PrecisionName | None = None
    engine: EngineName | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"Expected workers of at least 1. Received: workers={self.workers}")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise ValueError(
                "Expected gpus_per_worker of at least 0. "
                f"Received: gpus_per_worker={self.gpus_per_worker}"
            )
        check_engine(self.engine or "keras", self.precision or "float32")


class ShardCaptioner:
    """A Ray worker, which loads the preset once and captions whole shards.

    Args:
        preset: folder of the preset.
        folder: folder of the captions.
        sampler: sampler.
        batch_size: photos per batch.
        options: options of the cluster.
    """

    def __init__(
        self,
        preset: str,
        folder: ShardOutput,
        sampler: Sampler,
        batch_size: int,
        options: RayOptions,
    ):
        self.preset, self.folder, self.options = preset, folder, options
        self.sampler, self.batch_size = sampler, batch_size
        self.captioner: Any = None

    def __call__(self, row: dict[str, str]) -> dict[str, Any]:
        """Captions the shard of a row.

        Returns:
            The fields of `ShardCaptions`, and under "failure" an error that stops all workers, or
            "".
        """
        try:
            if self.captioner is None:
                # Several workers may share a GPU.
                os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
                options = self.options
                self.captioner = load_captioner(
                    self.preset, None, options.precision, options.engine
                )
            (result,) = caption_each(
                [row["shard"]], self.folder, self.captioner, self.sampler, self.batch_size
            )
        except (ImportError, OSError, ValueError) as error:
            return {**dataclasses.asdict(ShardCaptions(row["shard"])), "failure": str(error)}
        return {**dataclasses.asdict(result), "failure": ""}


def caption_on_ray(
    shards: Sequence[str],
    folder: ShardOutput,
    preset: str | os.PathLike,
    sampler: Sampler,
    batch_size: int,
    options: RayOptions,
) -> Iterator[ShardCaptions]:
    """Captions shards with the workers of a Ray cluster.

    Each worker takes the next shard when it has finished one. If a worker dies, Ray starts another,
    which repeats its shard from the beginning.

    Args:
        shards: absolute paths and URLs that every worker can read.
        folder: folder of the captions, prepared; every worker can write to it.
        preset: folder of the preset, which every worker can read.
        sampler: sampler.
        batch_size: photos per batch.
        options: options of the cluster.

    Yields:
        The result of each shard as soon as it is finished, in any order.

    Raises:
        ImportError: Ray is not installed.
        ValueError: the preset or the captions cannot be used.
        OSError: the cluster cannot be reached, or captions cannot be written.
    """
    try:
        import ray.data
        import ray.exceptions
    except ImportError:
        raise ImportError(
            "Captioning on a Ray cluster requires Ray: pip install 'effcap[ray]'"
        ) from None
    with ExitStack() as stack:
        if not ray.is_initialized():
            try:
                ray.init(options.address, log_to_driver=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise OSError(
                    f"Cannot connect to Ray at {options.address or 'this machine'}: {error}"
                ) from error
            stack.callback(ray.shutdown)
        num_gpus = options.gpus_per_worker
        if num_gpus is None:
            num_gpus = 1 if ray.cluster_resources().get("GPU") else 0
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # hides lengthy progress messages
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the caller shows one
        rows = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        ).map(
            ShardCaptioner,
            fn_constructor_args=(
                os.path.abspath(preset),
                folder,
                sampler,
                batch_size,
                options,
            ),
            compute=ray.data.ActorPoolStrategy(size=min(options.workers, len(shards))),
            num_gpus=num_gpus,
        )
        try:
            # Prefetching would delay each result until the next one is finished.
            for table in rows.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                for row in table.to_pylist():
                    failure = row.pop("failure")
                    if failure:
                        raise ValueError(failure)
                    yield ShardCaptions(**row)
        except ray.exceptions.RayError as error:
            raise OSError(f"Ray stopped with an error: {error}") from error
