"""Fills an `MSDVGG` with the weights that the package musicnn 0.1.0 carries (ISC licence).

They are a TensorFlow 1 checkpoint. The package wants a NumPy older than 1.17, so it is taken
without what it depends on, and its code is not imported.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

INSTALL = (
    "pip install --no-deps musicnn==0.1.0, or give the wheel that pip download --no-deps "
    "musicnn==0.1.0 fetches"
)
FOLDER = "MSD_vgg"
INDEX, DATA = ".index", ".data-00000-of-00001"  # the checkpoint's name is empty
OPTIMIZER = ("/Adam", "/Adam_1", "beta1_power", "beta2_power")
TAGS = "dense/"  # the layer that tells tags


def load_msd_vgg(model: keras.Model, path: str | os.PathLike | None = None) -> None:
    """Fills `model` with the trained weights; all of it or nothing.

    Args:
        model: what `MSDVGG` returned.
        path: the wheel of musicnn 0.1.0, a folder with it, the unpacked package, or the folder of
            the checkpoint. None (default) means the installed package.

    Raises:
        FileNotFoundError: no weights there; the message says what to install.
        ValueError: a damaged wheel or checkpoint, or one whose tensors are not exactly the
            model's: the message names what is left on each side.
    """
    source = Path(path) if path is not None else _installed()
    if source.is_dir() and (folder := _checkpoint_folder(source)):
        tensors = _read(folder, folder)
    else:
        wheel = _wheel(source)
        with tempfile.TemporaryDirectory() as unpacked:
            _unpack(wheel, Path(unpacked))
            tensors = _read(Path(unpacked), wheel)
    try:
        fill_from_checkpoint(model, tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def fill_from_checkpoint(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Fills an `MSDVGG` from tensors in the checkpoint's naming; all of it or nothing.

    Left out are only the optimizer's state and the layer that tells tags (`dense`).

    Args:
        model: what `MSDVGG` returned.
        tensors: names as in "3CNN/kernel" and "batch_normalization_3/moving_mean"; kernels are
            (height, width, in, out) there as here.

    Raises:
        ValueError: a tensor without a variable, a variable without a tensor, another shape, or
            values that are not finite.
    """
    wanted = {
        f"{_checkpoint_layer(layer.name)}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
    problems = [
        f"the checkpoint's {name} {np.shape(tensors[name])} has no variable in the model"
        for name in sorted(tensors)
        if name not in wanted and not name.endswith(OPTIMIZER) and not name.startswith(TAGS)
    ]
    for name, variable in wanted.items():
        shape = tuple(variable.shape)
        if name not in tensors:
            problems.append(f"the model's {variable.path} {shape} has no {name} in the checkpoint")
        elif np.shape(tensors[name]) != shape:
            problems.append(
                f"the model's {variable.path} {shape} does not fit the checkpoint's {name} "
                f"{np.shape(tensors[name])}"
            )
        elif not np.isfinite(tensors[name]).all():
            problems.append(f"the checkpoint's {name} holds values that are not finite")
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"not the weights of MSD_vgg, nothing was loaded; {len(problems)} differences:\n"
            f"  {listed}"
        )
    for name, variable in wanted.items():
        variable.assign(tensors[name])


def _checkpoint_layer(name: str) -> str:
    """The checkpoint's name of a layer: conv3 is 3CNN, bn0 batch_normalization, bn3 with _3."""
    if name.startswith("conv"):
        return f"{name.removeprefix('conv')}CNN"
    return f"batch_normalization_{name.removeprefix('bn')}".removesuffix("_0")


def _installed() -> Path:
    """The folder of the installed package."""
    spec = importlib.util.find_spec("musicnn")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The weights of MSD_vgg are not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def _checkpoint_folder(folder: Path) -> Path | None:
    """Where in `folder` the checkpoint is."""
    places = (folder, folder / FOLDER, folder / "musicnn" / FOLDER)
    return next((place for place in places if (place / INDEX).is_file()), None)


def _wheel(source: Path) -> Path:
    """`source` itself where it is a file, else the wheel in it."""
    if source.is_file():
        return source
    wheels = sorted(source.glob("musicnn-0.1.0-*.whl"))
    if not wheels:
        raise FileNotFoundError(
            f"Expected the wheel of musicnn 0.1.0, a folder with it, or a folder {FOLDER} with "
            f"{INDEX} and {DATA}. Received: {source}. To get them: {INSTALL}"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """The checkpoint of a wheel into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in (INDEX, DATA):
                (folder / name).write_bytes(archive.read(f"musicnn/{FOLDER}/{name}"))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(
            f"Expected the wheel of musicnn 0.1.0. Received: {wheel} ({error})"
        ) from error


def _read(folder: Path, source: Path) -> dict[str, np.ndarray]:
    """All tensors of the checkpoint in `folder`, which came from `source`."""
    import tensorflow as tf

    try:
        reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/")
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a whole TensorFlow checkpoint. Received: {source} ({error})"
        ) from error
