"""Loads the published `.pth` file of a whole captioner, strictly in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.weights.name_pairs import Converter, find_variable, raise_mismatches
from effcap.weights.overrides import override_model_hparams
from effcap.weights.playntell import PLAYNTELL
from effcap.weights.torch_file import TorchFile, read_torch
from effcap.weights.visualgpt import VISUALGPT

if TYPE_CHECKING:
    from effcap.captioner import Captioner

CONVERTERS: dict[str, Converter] = {"visualgpt": VISUALGPT, "playntell": PLAYNTELL}


def open_published(path: str | PathLike) -> tuple[str, TorchFile]:
    """Opens a `.pth` file: a state dict, or a training checkpoint that contains one.

    Returns:
        The name of the system in `CONVERTERS`, which is also its variant, and the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another system.
    """
    file = read_torch(path)
    for system, converter in CONVERTERS.items():
        for name in file:
            if name == converter.key or name.endswith(f".{converter.key}"):
                prefix = name.removesuffix(converter.key)
                return system, read_torch(path, prefix) if prefix else file
    keys = " or ".join(converter.key for converter in CONVERTERS.values())
    raise ValueError(
        f"Expected weights of VisualGPT or PlayNTell, with a tensor {keys}. "
        f"Received: {path}, whose {len(file)} tensors start {', '.join(list(file)[:3])}"
    )


def published_hparams(
    system: str, file: TorchFile, overrides: Mapping[str, Any] | None = None
) -> dict:
    """Returns the hyperparameters of the captioner that a file's weights fit.

    Sizes are those of the tensors; heads are 64 wide, as in GPT-2. Values that the file does not
    define, such as tau, are taken from the variant.

    Args:
        system: from `open_published`.
        file: from `open_published`.
        overrides: changed values, such as `{"decoder": {"fusion": {"tau": 0.2}}}`.

    Raises:
        ValueError: a tensor that defines a size is missing, or an override is of another section
            than encoder or decoder.
    """
    return override_model_hparams(CONVERTERS[system].hparams(file), overrides)


def load_published(captioner: Captioner, file: TorchFile) -> str:
    """Fills a captioner with the weights of a file: all of them, or none on an error.

    Every parameter of the file must fill one variable of the same shape, and every variable must
    be filled. These are skipped: parameters without effect in the original's forward pass, which
    are listed in the result, causal masks, and a copy of the token embeddings.

    Args:
        captioner: created from `published_hparams`.
        file: from `open_published`.

    Returns:
        A message: the number of parameters, and the names of the skipped ones.

    Raises:
        ValueError: there are no published weights for this kind of captioner, or tensors do not
            fit; the message lists names and shapes on both sides.
    """
    hparams = captioner.hparams()
    converter = _converter_of(hparams["encoder"]["kind"])
    pairs = [(pair, find_variable(captioner, pair.ours)) for pair in converter.name_pairs(hparams)]
    expected = {name: pair.shape(variable) for pair, variable in pairs for name in pair.theirs}
    unused = [name for name in file if converter.unused(hparams).fullmatch(name)]
    copies = [name for name in converter.copies if name in file and converter.embeddings in file]
    skipped = {*unused, *copies, *filter(converter.buffers.fullmatch, file)}
    raise_mismatches(
        file.name,
        {
            "missing": [f"{name} {shape}" for name, shape in expected.items() if name not in file],
            "unexpected": [
                f"{name} {file.shape(name)}"
                for name in file
                if name not in expected and name not in skipped
            ],
            "of another shape": [
                f"{name} {file.shape(name)} for {shape}"
                for name, shape in expected.items()
                if name in file and file.shape(name) != shape
            ],
            "that differ from the token embeddings": [
                name
                for name in copies
                if not np.array_equal(file[name], file[converter.embeddings])
            ],
        },
    )
    infinite = [name for name in expected if not np.isfinite(np.asarray(file[name], float)).all()]
    raise_mismatches(file.name, {"with values that are not finite": infinite})
    for pair, variable in pairs:
        variable.assign(pair.read(file))
    count = sum(int(np.prod(variable.shape)) for _, variable in pairs)
    message = f"{count / 1e6:.1f} M parameters from {file.name}"
    if unused:
        message += f"; skipped, unused in the original's forward pass: {', '.join(unused)}"
    return message


def _converter_of(encoder_kind: str) -> Converter:
    """Returns the converter to captioners with a kind of encoder.

    Raises:
        ValueError: there is none.
    """
    converters = {converter.encoder_kind: converter for converter in CONVERTERS.values()}
    if encoder_kind not in converters:
        raise ValueError(
            f"Expected a captioner with encoder.kind out of {', '.join(converters)}. "
            f"Received: encoder.kind={encoder_kind!r}"
        )
    return converters[encoder_kind]
