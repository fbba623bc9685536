"""Presets: a trained captioner as a folder of plain files.

    config.json        hyperparameters
    model.weights.h5   weights, in Keras's own format
    tokenizer.json     tokenizer, in the format of the `tokenizers` library
    training.json      data, command and scores (written by the trainers)

A preset may hold an adapter alone, for the weights and the tokenizer of another preset:

    config.json        hyperparameters, and the path of the other preset
    adapter_*          adapter, in PEFT's format

A preset on the Hugging Face hub is named hf://USER/NAME or hf://USER/NAME@REVISION.

Loading reads data only: no pickles, no code.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import read_json
from effcap.precision import STORED_DTYPES
from effcap.preset_files import (
    BACKBONE,
    BASE,
    CONFIG,
    OWN_FILES,
    RECORD,
    TOKENIZER,
    WEIGHTS,
    wanted_files,
)
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import read_tokenizer
from effcap.utils.files import replace_file
from effcap.utils.hub import (
    HubName,
    HubRepository,
    is_hub_name,
    parse_hub_name,
    snapshot_name,
)
from effcap.utils.paths import resource_folder
from effcap.version import __version__
from effcap.weight_files import convert_weights, save_weights

if TYPE_CHECKING:
    import keras

BEST = "best"  # best preset in a run folder
WEIGHTS_DTYPE = "weights_dtype"  # in the config.json of a preset in int8
FINGERPRINT_VALUES = 1000  # of each variable


def list_presets() -> list[str]:
    """Returns the names of the shipped presets."""
    return sorted(path.parent.name for path in resource_folder("res").glob(f"*/{CONFIG}"))


def preset_folder(preset: str | PathLike) -> Path:
    """Returns the folder of a preset.

    Args:
        preset: a folder, the name of a shipped preset, or a run folder, for its best preset; or
            hf://USER/NAME or hf://USER/NAME@REVISION, which is downloaded unless it is in the hub's
            cache.

    Raises:
        FileNotFoundError: there is no such preset.
        HubError: the repository on the hub does not exist or holds no preset, or there is neither a
            connection nor a copy in the cache.
        ImportError: `huggingface_hub` is not installed.
    """
    if is_hub_name(preset):
        return download_preset(parse_hub_name(preset))
    for folder in (Path(preset), Path(preset) / BEST, resource_folder("res") / preset):
        if (folder / CONFIG).is_file():
            return folder
    raise FileNotFoundError(
        f"Expected a preset: a folder with {CONFIG}, or a name out of "
        f"{', '.join(list_presets()) or 'none shipped'}. Received: {str(preset)!r}"
    )


def download_preset(name: HubName) -> Path:
    """Returns the folder of a preset in the hub's cache, after downloading what is missing there.

    Only files of presets, and of captioners of transformers, are downloaded: no pickles, no code.

    Raises:
        HubError: the repository does not exist or holds no preset, or there is neither a connection
            nor a copy in the cache.
        ImportError: `huggingface_hub` is not installed.
    """
    repository = HubRepository(name)
    folder = repository.fetch([CONFIG], is_quiet=True) if CONFIG in repository.files else None
    return repository.fetch(wanted_files(name, repository.files, folder))


def portable_name(folder: Path) -> str | None:
    """Returns a name of a preset that is the same on all machines, or None.

    It is the name of a shipped preset, or hf://USER/NAME@COMMIT of one in the hub's cache.
    """
    if folder.resolve().parent == resource_folder("res").resolve():
        return folder.resolve().name
    name = snapshot_name(folder)
    return None if name is None else str(name)


def preset_name(preset: str | PathLike[str]) -> str:
    """Returns a short name of a preset; of the best or last one of a run, such as "run/best"."""
    if is_hub_name(preset):
        return parse_hub_name(preset).repository
    path = Path(preset)
    name = snapshot_name(path)
    if name is not None:
        return name.repository
    return "/".join(path.parts[-2:]) if path.name in (BEST, "last") else path.name


def read_config(folder: Path) -> dict:
    """Reads the hyperparameters of the preset in `folder`.

    Raises:
        ValueError: config.json is damaged, or the preset holds a backbone alone, or its weights are
            of a type that this version cannot read.
    """
    config = read_json(folder / CONFIG)
    if BACKBONE in config:
        raise ValueError(
            f"{folder} holds a backbone alone, not a captioner: use it with --backbone-weights"
        )
    config = read_json(folder / CONFIG, ("encoder", "decoder"))
    check_weights_dtype(folder, config)
    return config


def check_weights_dtype(folder: Path, config: Mapping[str, Any]) -> None:
    """Checks that this version can read the weights of a preset with this config.json.

    Raises:
        ValueError: it cannot.
    """
    dtype = config.get(WEIGHTS_DTYPE, "float32")
    if dtype not in STORED_DTYPES:
        raise ValueError(
            f"{folder} was written by EffCap {config.get('effcap')}, with weights in {dtype!r}. "
            f"Version {__version__} reads {', '.join(STORED_DTYPES)}: install a newer one"
        )


def read_record(folder: Path) -> dict:
    """Reads the training record of the preset in `folder`; {} if there is none.

    Raises:
        ValueError: training.json is damaged.
    """
    path = folder / RECORD
    return read_json(path) if path.is_file() else {}


def save_preset(
    model: keras.Model,
    folder: str | PathLike,
    hparams: Mapping[str, Any],
    tokenizer: Tokenizer | None,
    dtype: str = "float32",
    record: Mapping[str, Any] | None = None,
) -> None:
    """Writes a preset; an existing one is replaced only once the new one is complete.

    Other files in the folder are kept, except those of the replaced preset.

    Args:
        model: model whose weights are saved.
        folder: folder of the preset, created if missing.
        hparams: hyperparameters of the model.
        tokenizer: tokenizer of the model, if it has one.
        dtype: "float16" stores the weights in half the space, "int8" the large matrices in a
            quarter; they are float32 again once loaded.
        record: record of the training, written to training.json.

    Raises:
        ValueError: there is no such `dtype`, or weights are not finite and `dtype` is "int8".
        OSError: there is too little disk space.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(f"Expected a dtype out of {STORED_DTYPES}. Received: dtype={dtype!r}")

    def write(new: Path) -> None:
        save_weights(model, new / WEIGHTS)
        stored = {str(weight.dtype) for weight in model.weights}
        if dtype != "float32" or "bfloat16" in stored:
            convert_weights(new / WEIGHTS, dtype)
        if tokenizer is not None:
            tokenizer.save(new / TOKENIZER)

    fingerprint = None if tokenizer is None else tokenizer.fingerprint
    config = {"tokenizer_fingerprint": fingerprint, **hparams}
    if dtype == "int8":  # which versions without it cannot read
        config = {WEIGHTS_DTYPE: dtype, **config}
    write_preset(Path(folder), config, record, write)


def save_adapter_preset(
    folder: str | PathLike,
    base: str | PathLike,
    config: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    write: Callable[[Path], None],
) -> None:
    """Writes a preset that holds adapters alone, and the preset that they were added to.

    Args:
        folder: folder of the preset, created if missing.
        base: name or folder of the preset with all other weights and the tokenizer.
        config: hyperparameters, adapters, and the fingerprints of the base.
        record: record of the training, written to training.json.
        write: writes the adapters to a folder.
    """
    path = str(base)
    if not is_hub_name(base) and Path(base).is_dir():
        path = portable_name(Path(base)) or str(Path(base).resolve())
    write_preset(Path(folder), {BASE: path, **config}, record, write)


def find_base(folder: Path, config: Mapping[str, Any]) -> Path:
    """Returns the preset that the adapter of a preset was added to.

    Args:
        folder: folder of the preset with the adapter.
        config: its config.json.

    Raises:
        FileNotFoundError: it is no longer there.
        HubError: it is on the hub and cannot be read.
        ValueError: config.json names no preset; or it is one from the hub, and names a folder.
    """
    base = config[BASE]
    if not isinstance(base, str):
        raise ValueError(f"Expected {BASE} in {folder / CONFIG} to name a preset. Received: {base}")
    if is_hub_name(base):
        return _whole_preset(folder, preset_folder(base))
    if snapshot_name(folder) is not None and base not in list_presets():
        raise ValueError(
            f"{preset_name(folder)} holds an adapter alone, and its base {base} is not on the hub: "
            "ask its author to push it again with --base hf://USER/NAME"
        )
    for path in (base, folder / Path(base).name, folder.parent / Path(base).name):
        try:
            found = preset_folder(path)
        except FileNotFoundError:
            continue
        return _whole_preset(folder, found)
    raise FileNotFoundError(
        f"{folder} holds an adapter alone, and its base {base} is not there. Put it back, or "
        f"beside {folder} as {Path(base).name}"
    )


def _whole_preset(folder: Path, base: Path) -> Path:
    """Returns the base of the adapter in `folder`, which must hold all weights.

    Raises:
        ValueError: it holds an adapter alone, and might name the other one as its base.
    """
    if BASE in read_json(base / CONFIG):
        raise ValueError(
            f"{folder} holds an adapter alone, whose base {base} holds an adapter alone too: name "
            f"the preset with all weights as {BASE} in {folder / CONFIG}"
        )
    return base


def weights_fingerprint(variables: Iterable[keras.Variable]) -> str:
    """Returns a fingerprint of weights, from up to 1000 values of each."""
    from keras import ops

    digest = hashlib.sha256()
    for variable in variables:
        flat = ops.reshape(variable, (-1,))  # (N,)
        step = max(1, flat.shape[0] // FINGERPRINT_VALUES)
        values = ops.convert_to_numpy(ops.cast(flat[::step], "float32"))
        digest.update(str(tuple(variable.shape)).encode() + values.tobytes())
    return digest.hexdigest()


def write_preset(
    folder: Path,
    config: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    write: Callable[[Path], None],
) -> None:
    """Writes the files of a preset, and replaces those of an earlier one once all are complete.

    Args:
        folder: folder of the preset, created if missing.
        config: contents of config.json, which is replaced last.
        record: contents of training.json. None for none.
        write: writes the other files to a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        new = Path(temporary)
        for name, contents in ((CONFIG, {"effcap": __version__, **config}), (RECORD, record)):
            if contents is not None:
                text = json.dumps(contents, indent=2) + "\n"
                (new / name).write_text(text, encoding="utf-8")
        write(new)
        for name in OWN_FILES:
            if (new / name).exists():
                replace_file(new / name, folder / name)
            else:  # of an earlier preset
                (folder / name).unlink(missing_ok=True)


def load_tokenizer(folder: Path, fingerprint: str | None) -> Tokenizer | None:
    """Reads the tokenizer of the preset in `folder`.

    Args:
        folder: folder of the preset.
        fingerprint: fingerprint that the tokenizer must have. None takes any, or none at all.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it has another fingerprint.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        if fingerprint is not None:
            raise FileNotFoundError(f"{TOKENIZER} is missing in {folder}")
        return None
    tokenizer = read_tokenizer(path)
    if fingerprint not in (None, tokenizer.fingerprint):
        raise ValueError(
            f"Expected the tokenizer with fingerprint {fingerprint} in {path}. "
            f"Received: {tokenizer.fingerprint}"
        )
    return tokenizer
