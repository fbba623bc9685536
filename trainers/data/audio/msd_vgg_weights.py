"""Loads the trained weights of MSD_vgg, which the package musicnn 0.1.0 contains (ISC license).

They are a TensorFlow 1 checkpoint. The package requires NumPy below 1.17, so it is installed
without its dependencies, and its code is not imported.
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
    "pip install --no-deps musicnn==0.1.0, or pass the wheel from "
    "pip download --no-deps musicnn==0.1.0"
)
FOLDER = "MSD_vgg"
INDEX, DATA = ".index", ".data-00000-of-00001"  # the checkpoint's name is empty
OPTIMIZER = ("/Adam", "/Adam_1", "beta1_power", "beta2_power")
TAGS = "dense/"  # the layer that predicts tags


def load_msd_vgg(model: keras.Model, path: str | os.PathLike | None = None) -> None:
    """Fills a model with the trained weights: all of them, or none on an error.

    Args:
        model: returned by `MSDVGG`.
        path: the wheel of musicnn 0.1.0, a folder that contains it, the unpacked package, or the
            folder of the checkpoint (default: the installed package).

    Raises:
        FileNotFoundError: there are no weights; the message names the package to install.
        ValueError: the wheel or the checkpoint is damaged, or tensors do not fit; the message
            lists names and shapes on both sides.
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
    """Fills a model from a checkpoint's tensors: all of it, or nothing on an error.

    Only the optimizer's state and the layer that predicts tags (`dense`) are skipped.

    Args:
        model: returned by `MSDVGG`.
        tensors: arrays by name, such as "3CNN/kernel" and "batch_normalization_3/moving_mean";
            kernels are (h, w, in, out), as in Keras.

    Raises:
        ValueError: a tensor has no variable, a variable has no tensor, shapes differ, or values
            are not finite.
    """
    targets = {
        f"{_checkpoint_layer(layer.name)}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
    problems = [
        f"the checkpoint's {name} {np.shape(tensors[name])} has no variable in the model"
        for name in sorted(tensors)
        if name not in targets and not name.endswith(OPTIMIZER) and not name.startswith(TAGS)
    ]
    for name, variable in targets.items():
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
            "these are not the weights of MSD_vgg, nothing was loaded; "
            f"{len(problems)} differences:\n  {listed}"
        )
    for name, variable in targets.items():
        variable.assign(tensors[name])


def _checkpoint_layer(name: str) -> str:
    """Returns the checkpoint's name of a layer: "3CNN" of conv3, "batch_normalization_3" of bn3.

    The first one, bn0, is "batch_normalization".
    """
    if name.startswith("conv"):
        return f"{name.removeprefix('conv')}CNN"
    return f"batch_normalization_{name.removeprefix('bn')}".removesuffix("_0")


def _installed() -> Path:
    """Returns the folder of the installed package."""
    spec = importlib.util.find_spec("musicnn")  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The weights of MSD_vgg are not installed: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def _checkpoint_folder(folder: Path) -> Path | None:
    """Returns the folder of the checkpoint in `folder`, or None."""
    candidates = (folder, folder / FOLDER, folder / "musicnn" / FOLDER)
    return next((path for path in candidates if (path / INDEX).is_file()), None)


def _wheel(source: Path) -> Path:
    """Returns `source` if it is a file, otherwise the wheel in it."""
    if source.is_file():
        return source
    wheels = sorted(source.glob("musicnn-0.1.0-*.whl"))
    if not wheels:
        raise FileNotFoundError(
            f"Expected the wheel of musicnn 0.1.0, a folder with it, or a folder {FOLDER} with "
            f"{INDEX} and {DATA}. Received: {source}. To get the weights: {INSTALL}"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """Extracts the checkpoint of a wheel into `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in (INDEX, DATA):
                (folder / name).write_bytes(archive.read(f"musicnn/{FOLDER}/{name}"))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(
            f"Expected the wheel of musicnn 0.1.0. Received: {wheel} ({error})"
        ) from error


def _read(folder: Path, source: Path) -> dict[str, np.ndarray]:
    """Reads all tensors of the checkpoint in `folder`; errors name `source`."""
    import tensorflow as tf

    try:
        reader = tf.compat.v1.train.NewCheckpointReader(f"{folder}/")
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a complete TensorFlow checkpoint. Received: {source} ({error})"
        ) from error
