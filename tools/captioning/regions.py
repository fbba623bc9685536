"""Captions photos from their region features, skipping features that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.presets import preset_folder, read_record
from effcap.tools.captioning.results import (
    DEFAULT_PRESET,
    CaptionResults,
    check_batch_size,
    load_captioner,
)
from effcap.trainers.data.regions.feature_input import FeatureInput, feature_input
from effcap.trainers.data.regions.region_checks import check_max_regions
from effcap.trainers.data.regions.region_file import (
    MAX_REGIONS,
    RegionFile,
    UnusableRegions,
    candidate_keys,
)
from effcap.utils.progress import ProgressBar

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.samplers import Sampler


def caption_regions(
    features: RegionFile | str | PathLike[str],
    captioner: CaptionGenerator | str | PathLike[str] = DEFAULT_PRESET,
    sampler: str | Sampler | None = None,
    *,
    keys: Sequence[str] | None = None,
    max_regions: int | None = None,
    batch_size: int = 8,
) -> CaptionResults[str]:
    """Captions photos from their region features under a progress bar.

    Args:
        features: HDF5 file, see `RegionFile`, or its path.
        captioner: captioner, or the name or folder of a preset.
        sampler: sampler, or its name (default: that of the captioner).
        keys: photos to caption, by COCO id or name. None captions all.
        max_regions: regions per photo, if `features` is a path. None uses as many as the preset was
            trained on, or 50.
        batch_size: photos per batch.

    Returns:
        Keys of photos with captions, and keys of skipped photos with the reason.

    Raises:
        FileNotFoundError: the file or the preset does not exist.
        ValueError: there are no features of a key, none can be used, or the captioner takes other
            inputs.
    """
    check_batch_size(batch_size)
    if not isinstance(features, RegionFile):
        features = open_regions(features, captioner, max_regions)
    datasets = find_datasets(features, keys)
    return caption_datasets(features, datasets, load_captioner(captioner), sampler, batch_size)


def open_regions(
    path: str | PathLike[str],
    captioner: CaptionGenerator | str | PathLike[str],
    max_regions: int | None = None,
) -> RegionFile:
    """Opens a file of region features with as many regions as a preset was trained on.

    Args:
        path: HDF5 file, see `RegionFile`.
        captioner: name or folder of the preset, or a captioner, for which 50 regions are used.
        max_regions: regions per photo, in place of that number.
    """
    if max_regions is None and isinstance(captioner, str | PathLike):
        max_regions = trained_regions(preset_folder(captioner))
    return RegionFile(path, MAX_REGIONS if max_regions is None else max_regions)


def trained_regions(preset: Path) -> int | None:
    """Returns the regions per photo that a preset was trained on, if recorded."""
    return read_record(preset).get("config", {}).get("max-regions")


def find_datasets(file: RegionFile, keys: Sequence[str] | None) -> dict[str, str]:
    """Returns the keys of photos by the datasets of their features.

    Args:
        file: features.
        keys: photos, by COCO id or name. None returns all in the file.

    Raises:
        ValueError: there are no features of a key, or none at all.
    """
    datasets: dict[str, str] = {}
    for key in file.photo_keys() if keys is None else keys:
        dataset = file.find_dataset([key] if keys is None else candidate_keys(key))
        if dataset is None:
            raise ValueError(
                f"There are no features of {key} in {file.path}, only of photos such as "
                f"{file.example_name}"
            )
        datasets[dataset] = key
    if not datasets:
        raise ValueError(f"There are no features in {file.path}")
    return datasets


def caption_datasets(
    file: RegionFile,
    datasets: Mapping[str, str],
    captioner: CaptionGenerator,
    sampler: str | Sampler | None,
    batch_size: int,
) -> CaptionResults[str]:
    """Captions photos by the datasets of their features; see `caption_regions`.

    Args:
        file: features.
        datasets: keys of photos by dataset.
        captioner: captioner of region features, or of photos whose backbone has such features.
        sampler: sampler, or its name (default: that of the captioner).
        batch_size: photos per batch.
    """
    expected = feature_input(captioner)
    check_max_regions(file, expected)
    num_regions = expected.num_positions or file.grid or file.max_regions
    results: CaptionResults[str] = CaptionResults([], [])
    numbers = {dataset: number for number, dataset in enumerate(datasets)}
    with ProgressBar("captioning", len(datasets)) as bar:
        for batch in usable_batches(file, datasets, expected, batch_size, results.skipped):
            features = file.load(batch, num_regions, expected.feature_dim)  # (B,N,C)
            inputs = {expected.name: features}
            indices = [numbers[name] for name in batch]
            captions = captioner.generate_batch(inputs, sampler, batch_size, indices)
            keys = [datasets[name] for name in batch]
            results.captions.extend(zip(keys, captions, strict=True))
            bar.advance(steps=len(batch))
    if not results.captions:
        reason = results.skipped[0][1]
        raise ValueError(f"None of the features of {len(datasets)} photos can be used: {reason}")
    return results


def usable_batches(
    file: RegionFile,
    datasets: Mapping[str, str],
    expected: FeatureInput,
    batch_size: int,
    skipped: list[tuple[str, str]],
) -> Iterator[list[str]]:
    """Yields batches of datasets that can be used; adds the keys of the others to `skipped`."""
    batch: list[str] = []
    for dataset, key in datasets.items():
        try:
            file.read(dataset, expected.feature_dim, expected.num_positions)
        except UnusableRegions as error:
            skipped.append((key, str(error)))
            continue
        batch.append(dataset)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
