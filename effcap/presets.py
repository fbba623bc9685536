"""Presets: a trained captioner as a folder of plain files.

    config.json        its hyperparameters
    model.weights.h5   its weights, in Keras's own format
    tokenizer.json     its tokenizer, in the `tokenizers` library's format
    training.json      how it was made (written by the trainers)

Loading reads data only: no pickles, no code.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import effcap
from effcap.config import read_json
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.utils.files import check_disk_space, replace_file
from effcap.utils.paths import resource_folder

if TYPE_CHECKING:
    import keras

    from effcap.captioner import Captioner

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.weights.h5", "tokenizer.json"
RECORD = "training.json"
BEST = "best"  # of the presets in the folder of a run
DTYPES = ("float32", "float16")
PER_VARIABLE = 4096  # bytes that HDF5 adds for each variable, at most


def list_presets() -> list[str]:
    """Names of the presets that are shipped."""
    return sorted(path.parent.name for path in resource_folder("res").glob(f"*/{CONFIG}"))


def preset_folder(preset: str | PathLike) -> Path:
    """The folder of a preset given by folder or by name; the folder of a run stands for its best.

    Raises:
        FileNotFoundError: where there is none.
    """
    for folder in (Path(preset), Path(preset) / BEST, resource_folder("res") / preset):
        if (folder / CONFIG).is_file():
            return folder
    raise FileNotFoundError(
        f"Expected a preset: a folder with {CONFIG}, or a name out of "
        f"{', '.join(list_presets()) or 'none shipped'}. Received: {str(preset)!r}"
    )


def save(
    captioner: Captioner,
    folder: str | PathLike,
    dtype: str = "float32",
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes a preset; one that is there already is replaced only once the new one is whole.

    Other files in the folder stay, but for the training.json of the captioner that was there.

    Args:
        captioner: what to save.
        folder: where; made if missing.
        dtype: "float16" stores the weights in half the space; they are float32 again on loading.
        record: how it was trained, for training.json; None for none.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Expected a dtype out of {DTYPES}. Received: dtype={dtype!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        new = Path(temporary)
        tokenizer = captioner.tokenizer
        config = {
            "effcap": effcap.__version__,
            "tokenizer_fingerprint": None if tokenizer is None else tokenizer.fingerprint,
            **captioner.hparams(),
        }
        for name, contents in ((CONFIG, config), (RECORD, record)):
            if contents is not None:
                text = json.dumps(contents, indent=2) + "\n"
                (new / name).write_text(text, encoding="utf-8")
        save_weights(captioner, new / WEIGHTS)
        if dtype == "float16":
            halve(new / WEIGHTS)
        if tokenizer is not None:
            tokenizer.save(new / TOKENIZER)
        for name in (RECORD, WEIGHTS, TOKENIZER, CONFIG):
            if (new / name).exists():
                replace_file(new / name, folder / name)
            else:  # left by an earlier captioner
                (folder / name).unlink(missing_ok=True)


def variables_size(variables: Sequence[keras.Variable]) -> int:
    """Returns the bytes that an HDF5 file of the variables takes, at most."""
    size = sum(math.prod(v.shape) * (8 if "64" in v.dtype else 4) for v in variables)
    return size + PER_VARIABLE * len(variables)


def save_weights(captioner: Captioner, path: Path) -> None:
    """Writes the captioner's weights alone; Keras would add the optimizer's, twice as many."""
    check_disk_space(path, variables_size(captioner.variables))
    optimizer = getattr(captioner, "optimizer", None)
    if optimizer is None:
        captioner.save_weights(path)
        return
    captioner.optimizer = None
    try:
        captioner.save_weights(path)
    finally:
        captioner.optimizer = optimizer


def load(cls: type[Captioner], preset: str | PathLike, hparams: dict | None = None) -> Captioner:
    """The captioner of a preset, by folder or by the name of a shipped one.

    Args:
        preset: folder or name.
        hparams: in place of the preset's own, such as another dropout or other trainable blocks;
            the weights must still fit.

    Raises:
        FileNotFoundError: where there is no preset, or a file of it is missing.
        ValueError: naming the file that is damaged or does not belong to the others.
    """
    folder = preset_folder(preset)
    config = read_json(folder / CONFIG, ("encoder", "decoder"))
    tokenizer = load_tokenizer(folder, config.get("tokenizer_fingerprint"))
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"Expected {WEIGHTS} in {folder}. Found none")
    try:
        captioner = cls.from_hparams(hparams or config, tokenizer)
    except (TypeError, ValueError) as error:
        source = "hparams" if hparams else folder / CONFIG
        raise ValueError(
            f"Expected the hyperparameters of a captioner in {source}. Received: {error}"
        ) from error
    load_weights(captioner, folder / WEIGHTS)
    return captioner


def load_tokenizer(folder: Path, fingerprint: str | None) -> Tokenizer | None:
    """The tokenizer in `folder`, which must be the one with that fingerprint, where it is known."""
    path = folder / TOKENIZER
    if not path.is_file():
        if fingerprint is not None:
            raise FileNotFoundError(f"Expected {TOKENIZER} in {folder}. Found none")
        return None
    tokenizer = Tokenizer.from_file(path)
    if fingerprint not in (None, tokenizer.fingerprint):
        raise ValueError(
            f"Expected the tokenizer with fingerprint {fingerprint} in {path}. "
            f"Received: {tokenizer.fingerprint}"
        )
    return tokenizer


def load_weights(captioner: Captioner, path: Path) -> None:
    """Fills the captioner; ValueError unless all weights of the file find their place."""
    try:
        with h5py.File(path) as file:
            stored = []
            file.visititems(lambda name, item: stored.append((name, item)))
            stored = [
                name
                for name, item in stored
                if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/")
            ]
        if len(stored) != len(captioner.weights):
            raise ValueError(f"{len(stored)} weights for a captioner with {len(captioner.weights)}")
        captioner.load_weights(path)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"Expected {path} to hold the weights of its captioner. Received: {error}"
        ) from error


def fits_float16(array: np.ndarray) -> bool:
    """Whether no value is beyond float16."""
    return bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)


def halve(path: Path) -> None:
    """Rewrites the float32 data sets of an HDF5 file as compressed float16, where they fit."""
    smaller = path.with_suffix(".half")
    with h5py.File(path) as source, h5py.File(smaller, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                new = target.require_group(name)
            elif item.dtype == np.float32 and item.shape and fits_float16(item[()]):
                new = target.create_dataset(
                    name, data=item[()].astype(np.float16), compression="gzip", shuffle=True
                )
            else:
                new = target.create_dataset(name, data=item[()])
            new.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    shutil.move(smaller, path)
