"""Finds the Parquet files of a split: local ones, or those of a data set on the Hugging Face hub.

Only Parquet files are read. Scripts of a data set are never run: `datasets` refuses them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from effcap.trainers.data.example import one_line
from effcap.utils.files import write_text_atomically
from effcap.utils.progress import print_line

HUB = "hf://"
SUFFIX = ".parquet"
FILES_SPLIT = "train"  # name of the only split of files and patterns
SPLIT_NAME = re.compile(r"\s*(\w+(?:\.\w+)*)\s*(\[[^\[\]]*\])?\s*(\([\w ]+\))?\s*")
HUB_FILE = re.compile(r"hf://datasets/([^@]+)@([^/]+)/(.+)")
HANDLE = re.compile(r"(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
EXPECTED = (
    f"{HUB}USER/NAME or {HUB}USER/NAME@REVISION, a Parquet file, a folder of Parquet files, or a "
    "pattern such as 'data/train-*.parquet'"
)


class SplitFiles(NamedTuple):
    """Parquet files of a split.

    Attributes:
        source: the data as they were given, for messages.
        split: the split, such as "train" or "train[:10%]".
        files: the Parquet files by name of the split.
        folder: folder that paths of photos are relative to; None for a data set of the hub.
    """

    source: str
    split: str
    files: Mapping[str, Sequence[Path]]
    folder: Path | None

    @property
    def first(self) -> Path:
        """The first file."""
        return next(iter(self.files.values()))[0]


def find_split(source: str | os.PathLike[str], split: str | None = None) -> SplitFiles:
    """Finds the Parquet files of a split, and downloads those of the hub.

    Args:
        source: data set of the hub, Parquet file, folder or pattern.
        split: name of a split, with a range such as "train[:10%]" and several joined by "+". A
            configuration of the data set ("subset" on the hub) is named before it, as in
            "en/train". None takes the only split.

    Raises:
        FileNotFoundError: there are no such files, or there is no such data set, or it is private.
        ConnectionError: the hub cannot be reached, and the files are not in the cache.
        ValueError: `source` is malformed, it has no such split or configuration, or no Parquet
            files.
        ImportError: the package `datasets` is not installed.
    """
    text = os.fspath(source)
    config = None
    if split is not None and "/" in split:
        config, _, split = split.rpartition("/")
    if "://" in text:
        if not text.startswith(HUB):
            raise ValueError(f"Expected {EXPECTED}. Received: {text}")
        return _find_hub_split(text, split, config)
    path = Path(text)
    if path.is_dir():
        available = _files_by_split(text, os.path.abspath(path), config)
        local = {name: [Path(file) for file in files] for name, files in available.items()}
        return SplitFiles(text, *_choose_split(text, split, local), path)
    files = [path] if path.is_file() else sorted(Path(name) for name in glob(text))
    if not files:
        raise FileNotFoundError(f"There is no data set {text}. Expected {EXPECTED}")
    if config is not None:
        raise ValueError(
            "Only folders and data sets of the hub have configurations, as in en/train. "
            f"Received: {config}/{split} of {text}"
        )
    if wrong := next((file for file in files if file.suffix.lower() != SUFFIX), None):
        raise ValueError(f"Expected {EXPECTED}. Received: {wrong}")
    return SplitFiles(text, *_choose_split(text, split, {FILES_SPLIT: files}), path.parent)


def import_datasets() -> Any:
    """Returns the module `datasets`.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ImportError(
            "Data sets and Parquet files require datasets: pip install 'effcap[hub]'"
        ) from None
    return datasets


def _choose_split(
    source: str, split: str | None, files: Mapping[str, Sequence[Path | str]]
) -> tuple[str, dict[str, Any]]:
    """Returns the split to read and the files that it needs."""
    there_is = f"{source} has the splits {', '.join(files)}"
    if len(files) == 1:
        there_is = f"{source} has only the split {next(iter(files))}"
    if split is None:
        if len(files) > 1:
            raise ValueError(f"Give a split: {there_is}")
        split = next(iter(files))
    names = []
    for part in split.split("+"):
        match = SPLIT_NAME.fullmatch(part)
        if match is None:
            raise ValueError(
                "Expected a split such as train, train[:90%] or train+validation. "
                f"Received: {split!r}"
            )
        names.append(match[1])
    missing = [name for name in names if name not in files]
    if missing:
        raise ValueError(f"There is no split {missing[0]!r}: {there_is}")
    return split, {name: files[name] for name in names}


def _files_by_split(
    source: str, path: str, config: str | None, revision: str | None = None
) -> dict[str, list[str]]:
    """Returns the Parquet files of each split of a folder, or of a data set of the hub.

    Args:
        source: the data as they were given, for messages.
        path: folder, or USER/NAME.
        config: configuration; None for the default one.
        revision: revision of a data set of the hub.
    """
    datasets = import_datasets()
    hint = "" if HUB not in source else (
        ". The hub converts many data sets to Parquet: try "
        f"{source.partition('@')[0]}@refs/convert/parquet"
    )  # fmt: skip
    try:
        builder = datasets.load_dataset_builder(path, config, revision=revision)
    except (datasets.exceptions.DataFilesNotFoundError, datasets.data_files.EmptyDatasetError):
        raise ValueError(f"There are no Parquet files in {source}{hint}") from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"{source} is a Python script, which EffCap does not run; it reads Parquet files{hint}"
        ) from None
    except ValueError as error:  # an unknown or a missing configuration; the message lists them
        raise ValueError(f"Cannot read {source}: {one_line(str(error))}") from error
    kinds = [parent.__name__ for parent in type(builder).__mro__]
    if "Cache" in kinds:  # what `datasets` makes of a data set without the hub
        raise ConnectionError("the hub cannot be reached, or has no such data set")
    if "Parquet" not in kinds:
        raise ValueError(f"Expected Parquet files in {source}. Received: other files{hint}")
    return {str(name): list(map(str, files)) for name, files in builder.config.data_files.items()}


def _find_hub_split(source: str, split: str | None, config: str | None) -> SplitFiles:
    """Finds the files of a data set of the hub, and downloads those of the split."""
    datasets = import_datasets()
    match = HANDLE.fullmatch(source.removeprefix(HUB))
    if match is None:
        raise ValueError(f"Expected {EXPECTED}. Received: {source}")
    repo, revision = match[1], match[2]
    if os.path.exists(repo):
        raise ValueError(
            f"{source} is ambiguous, because there is {Path(repo).absolute()}; start in another "
            "folder"
        )
    listing = _listing_path(source, config)
    try:
        files = _files_by_split(source, repo, config, revision)
        listing.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(listing, json.dumps(files))
        offline = False
    except datasets.exceptions.DatasetNotFoundError as error:
        login = "" if "Revision" in str(error) else (
            " Private and gated data sets need `hf auth login` or the environment variable HF_TOKEN"
        )  # fmt: skip
        raise FileNotFoundError(f"Cannot read {source}: {one_line(str(error))}{login}") from error
    except (ValueError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # of the HTTP client, of which the hub's package has had several
        if not listing.is_file():
            raise ConnectionError(
                f"Cannot read {source}: the hub cannot be reached, and the files were not "
                f"downloaded before: {one_line(str(error))}"
            ) from error
        files = json.loads(listing.read_text(encoding="utf-8"))
        offline = True
    split, chosen = _choose_split(source, split, files)
    local = {
        name: [_download(source, url, offline) for url in urls] for name, urls in chosen.items()
    }
    if offline:
        print_line(f"{source}: the hub cannot be reached, so earlier downloads are used")
    return SplitFiles(source, split, local, None)


def _listing_path(source: str, config: str | None) -> Path:
    """Returns the file that lists the splits of a data set for later runs without the hub."""
    name = re.sub(r"[^\w.-]", "--", f"{source.removeprefix(HUB)} {config or 'default'}")
    return Path(import_datasets().config.HF_DATASETS_CACHE, "effcap", f"{name}.json")


def _download(source: str, url: str, offline: bool) -> Path:
    """Returns a file in the cache of the hub, after its download."""
    import huggingface_hub

    match = HUB_FILE.fullmatch(url)
    if match is None:
        raise ValueError(f"Expected Parquet files on the hub for {source}. Received: {url}")
    repo, commit, name = match.groups()
    try:
        path = huggingface_hub.hf_hub_download(
            repo, name, repo_type="dataset", revision=commit, local_files_only=offline
        )
    except Exception as error:  # as above
        raise ConnectionError(
            f"Cannot download {name} of {source}: {one_line(str(error))}"
        ) from error
    return Path(path)
