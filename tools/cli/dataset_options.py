"""Options of data sets of the Hugging Face hub and Parquet files, and their reading."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.data_options import caption_edit, given_columns
from effcap.tools.cli.options import option_flag

if TYPE_CHECKING:
    from effcap.trainers.data.photos import PhotoDataset

DATA = (
    "data sets of the Hugging Face hub, hf://USER/NAME or hf://USER/NAME@REVISION, and Parquet "
    "files, folders with them or patterns"
)


def add_dataset(group: Any, instead_of: str, others: str = "") -> None:
    """Adds --dataset and --split.

    Args:
        group: parser or argument group.
        instead_of: option that --dataset replaces.
        others: text after the help of --split about other data.
    """
    group.add_argument(
        "--dataset", nargs="+", metavar="DATA", help=f"{DATA}, in place of {instead_of}"
    )
    group.add_argument(
        "--split",
        metavar="NAME",
        help='split of --dataset, such as "train", "train[:90%%]" or, with a configuration, '
        f'"en/train" (default: the only one){others}',
    )


def add_validation_dataset(group: Any) -> None:
    """Adds --val-dataset and --val-split."""
    group.add_argument(
        "--val-dataset", nargs="+", metavar="DATA", help="validation data, if not in --dataset"
    )
    group.add_argument(
        "--val-split",
        metavar="NAME",
        help="validation split of --val-dataset, or of --dataset",
    )


def read_split(
    arguments: argparse.Namespace, sources: list[str], split: str | None
) -> PhotoDataset:
    """Reads a split of data sets, with the columns and the cleaning of the options."""
    from effcap.trainers import read_dataset

    edit = caption_edit(arguments) if "tidy" in arguments else None
    return read_dataset(
        sources, split, images=arguments.images, edit=edit, **given_columns(arguments)
    )


def read_training_splits(
    arguments: argparse.Namespace,
) -> tuple[PhotoDataset, PhotoDataset | None]:
    """Reads the training split and the validation split, if there is one.

    Raises:
        ValueError: photos would be in both.
    """
    sources = arguments.val_dataset or arguments.dataset
    has_validation = bool(arguments.val_dataset or arguments.val_split)
    is_same = set(sources) & set(arguments.dataset) and overlap(
        arguments.split, arguments.val_split
    )
    if is_same and arguments.val_split and arguments.split is None:
        raise ValueError(
            f"--val-split {arguments.val_split} of the training data requires --split, so that no "
            "photo is in both: such as --split 'train[:90%]' --val-split 'train[90%:]'"
        )
    if has_validation and is_same:
        raise ValueError(
            "Expected a validation split other than the training split. "
            f"Received: {arguments.val_split or sources[0]} and {arguments.split or sources[0]}"
        )
    training = read_split(arguments, arguments.dataset, arguments.split)
    if not has_validation:
        return training, None
    return training, read_split(arguments, sources, arguments.val_split)


def overlap(one: str | None, other: str | None) -> bool:
    """Returns whether two splits are the same, or a whole split is in one and a part in the other.

    Two parts of a split, such as train[:90%] and train[90%:], count as different.
    """
    if one is None or other is None:  # the only split
        return True
    parts = [[part.strip() for part in split.split("+")] for split in (one, other)]
    names = [{part.partition("[")[0] for part in split} for split in parts]
    return one == other or bool(set(parts[0]) & names[1] or set(parts[1]) & names[0])


def check_dataset_options(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    """Checks that options of data sets are given with --dataset only.

    Raises:
        ValueError: one is given without it.
    """
    for name in names:
        if not arguments.dataset and getattr(arguments, name) is not None:
            raise ValueError(f"{option_flag(name)} requires --dataset")
