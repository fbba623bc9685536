"""Options of the batches that a dataset makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from effcap.trainers.data.augmentation import Augmentation


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options of the batches that a dataset makes.

    Attributes:
        name: name of the data in messages and file names, such as "training" or "validation".
        batch_size: photos per batch, over all processes.
        captions_per_photo: maximum number of captions per photo and epoch, sampled anew each epoch.
            None uses all.
        shuffle: whether order, choice of captions and augmentation change from epoch to epoch.
        seed: seed of order, choice and augmentation.
        passes_per_epoch: passes over the photos in an epoch.
        augmentation: random changes of photos.
        prefix: text that captions continue whose examples have no prefix of their own.
        max_bad: raise an error if more than this fraction of the captions is unusable.
        folder: run folder, for the list of what was left out and the record of checked files. None
            writes neither.
        resume: whether to continue the list of skipped photos in `folder`.
        num_threads: batches prepared in parallel. None takes one per CPU core, from 2 to 8.
        num_buckets: number of different row lengths.
        num_processes: processes that share each batch.
        process_index: index of this process. None makes the rows of all processes.

    Raises:
        ValueError: a value is out of range.
    """

    name: str = "training"
    batch_size: int = 32
    captions_per_photo: int | None = None
    shuffle: bool = True
    seed: int = 0
    passes_per_epoch: int = 1
    augmentation: Augmentation = Augmentation()
    prefix: str = ""
    max_bad: float = 0.01
    folder: Path | None = None
    resume: bool = False
    num_threads: int | None = None
    num_buckets: int = 8
    num_processes: int = 1
    process_index: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "passes_per_epoch", "num_buckets", "num_processes"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Expected {name} of at least 1. Received: {name}={getattr(self, name)}"
                )
        for name in ("captions_per_photo", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"Expected {name} of at least 1, or None. Received: {name}={value}"
                )
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"Expected max_bad from 0 to 1. Received: max_bad={self.max_bad}")
        if self.batch_size % self.num_processes:
            raise ValueError(
                f"Expected a batch_size that {self.num_processes} processes can share evenly. "
                f"Received: batch_size={self.batch_size}"
            )
        index = self.process_index
        if index is not None and not 0 <= index < self.num_processes:
            raise ValueError(
                f"Expected process_index from 0 to {self.num_processes - 1}. "
                f"Received: process_index={index}"
            )

    @property
    def problems_file(self) -> Path | None:
        """File that lists what was left out; None without a run folder."""
        return None if self.folder is None else Path(self.folder) / f"left_out_{self.name}.txt"

    @property
    def skipped_file(self) -> Path | None:
        """File that lists photos skipped while reading; None without a run folder."""
        return None if self.folder is None else Path(self.folder) / f"skipped_{self.name}.tsv"

    def record_file(self, suffix: str) -> Path | None:
        """Returns the file that records checked inputs; None without a run folder."""
        return None if self.folder is None else Path(self.folder) / f"checked_{self.name}{suffix}"


def batch_options(options: Mapping[str, Any]) -> BatchOptions:
    """Creates `BatchOptions` from keyword arguments.

    Raises:
        TypeError: an option is unknown; the message lists all options.
        ValueError: a value is out of range.
    """
    names = [field.name for field in fields(BatchOptions)]
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(f"Expected options among {', '.join(names)}. Received: {unknown[0]}")
    return BatchOptions(**options)
