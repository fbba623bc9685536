"""The published weights of VisualGPT and PlayNTell, `.pth` files, into a captioner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from effcap.config import load_hparams, set_hparams
from effcap.weights.torch_file import TorchFile, read_torch

if TYPE_CHECKING:
    import keras

    from effcap.captioner import Captioner

# A tensor that only this system's files hold, and the variant that it is.
MARKS = {
    "encoder.layers.0.mhatt.attention.fc_q.weight": "visualgpt",
    "encoder.transformations.0.fc.weight": "playntell",
}
HEAD_WIDTH = 64  # of a head, in every size of GPT-2
GPT2 = "decoder.transformer."
# Parameters of the originals that their forward pass never looks at.
UNUSED = re.compile(
    r"encoder\.layers\.\d+\.mhatt\.attention\.c_attn_(query|key|value)\.(weight|bias)"
    r"|decoder\.transformer\.h\.\d+\.enc_dec_attn\.(\d+\.)?c_attn\.(weight|bias)"
)
# And of a PlayNTell that adds what it sees, in place of gating it (`decoder.fusion.gate=false`).
UNUSED_GATE = re.compile(r"decoder\.transformer\.h\.\d+\.fc_alpha\.(weight|bias)")
# What is no parameter: causal masks, and the state of a decoding.
BUFFERS = re.compile(
    r"decoder\.transformer\.h\.\d+\.(attn|enc_dec_attn(\.\d+)?)\.(bias|masked_bias)"
    r"|(encoder|decoder)\.(running_\w+|\w*position_ids)"
)
TIED = ("decoder.lm_head.weight", "decoder.lm_head.decoder.weight")  # copies of the embeddings


@dataclass(frozen=True)
class Target:
    """A variable and the tensors it is made of, side by side along its last axis.

    Attributes:
        variable: to fill.
        names: of the tensors.
        transposed: whether they are a torch Linear's (out, in).
    """

    variable: keras.Variable
    names: tuple[str, ...]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each of the tensors, as the file must have it."""
        *rest, last = self.variable.shape
        shape = (*rest, last // len(self.names))
        return shape[::-1] if self.transposed else shape

    def values(self, file: TorchFile) -> np.ndarray:
        """The variable's values."""
        arrays = [np.asarray(file[name], np.float32) for name in self.names]
        return np.concatenate([a.T if self.transposed else a for a in arrays], axis=-1)


def open_published(path: str | PathLike) -> tuple[str, TorchFile]:
    """(variant, tensors) of a `.pth` file: a state dict, or a training checkpoint with one in it.

    Raises:
        FileNotFoundError: without such a file.
        ValueError: for a file that is damaged, or of another system.
    """
    file = read_torch(path)
    for mark, variant in MARKS.items():
        for name in file:
            if name == mark or name.endswith(f".{mark}"):
                prefix = name.removesuffix(mark)
                return variant, read_torch(path, prefix) if prefix else file
    raise ValueError(
        f"Expected weights of VisualGPT or PlayNTell, with a tensor {' or '.join(MARKS)}. "
        f"Received: {path}, whose {len(file)} tensors begin {', '.join(list(file)[:3])}"
    )


def published_hparams(variant: str, file: TorchFile, settings: Sequence[str] = ()) -> dict:
    """Hyperparameters of the captioner that a file's weights fit.

    Sizes come from the shapes, and heads are 64 wide, as in GPT-2. What the shapes do not tell, as
    the gates' tau, and whether a gate that has weights is used, is as in the variant, or in
    `settings`.

    Raises:
        ValueError: for a file without the tensors that tell sizes, or settings that do not fit.
    """
    hparams = load_hparams(variant)
    encoder, decoder = dict(hparams["encoder"]), dict(hparams["decoder"])
    shape = _shapes(file)
    vocabulary, width = shape(f"{GPT2}wte.weight")
    layers = _count(file, rf"{re.escape(GPT2)}h\.(\d+)\.")
    decoder |= {
        "vocabulary_size": vocabulary,
        "positions": shape(f"{GPT2}wpe.weight")[0],
        "width": width,
        "heads": max(1, width // HEAD_WIDTH),
        "layers": layers,
        "inner": shape(f"{GPT2}h.0.mlp.c_fc.weight")[1],
    }
    if variant == "visualgpt":
        inner, _ = shape("encoder.layers.0.pwff.fc1.weight")
        encoder |= {
            "channels": shape("encoder.fc.weight")[1],
            "layers": _count(file, r"encoder\.layers\.(\d+)\."),
            "heads": decoder["heads"],
            "inner": inner,
        }
    else:
        widths = [
            shape(f"encoder.transformations.{i}.fc.weight")[1]
            for i in range(_count(file, r"encoder\.transformations\.(\d+)\."))
        ]
        encoder["modalities"] = _modalities(widths, encoder["modalities"])
        gate = f"{GPT2}h.0.fc_alpha.weight" in file
        decoder["fusion"] = {**decoder["fusion"], "gate": gate}
    made = set_hparams({"encoder": encoder, "decoder": decoder}, settings)
    if set(made) != {"encoder", "decoder"}:
        raise ValueError(
            "Expected settings of encoder and decoder: a preset has no others. "
            f"Received: {', '.join(settings)}"
        )
    return made


def _shapes(file: TorchFile):
    def shape(name: str) -> tuple[int, int]:
        if name not in file or len(file.shape(name)) != 2:
            found = f"one of shape {file.shape(name)}" if name in file else "none"
            raise ValueError(f"Expected a matrix {name} in {file.name}. Received: {found}")
        return file.shape(name)

    return shape


def _count(file: TorchFile, pattern: str) -> int:
    """How many layers there are: one more than the highest number in a name."""
    found = [int(match.group(1)) for match in map(re.compile(pattern).match, file) if match]
    return max(found, default=-1) + 1


def _modalities(widths: list[int], usual: dict[str, int]) -> dict[str, int]:
    """Modalities by name: the usual ones by their width, others by their number."""
    left = dict(usual)
    named = {}
    for number, width in enumerate(widths):
        name = next((name for name in left if left[name] == width), f"modality{number}")
        left.pop(name, None)
        named[name] = width
    return named


def load_published(captioner: Captioner, file: TorchFile) -> str:
    """Fills a captioner of the file's system and sizes; all of it or nothing.

    Every parameter of the file lands in one variable of the same shape, and every variable is
    filled. Left out, and named, are parameters that the original's forward pass never looks at;
    causal masks, and a copy of the token embeddings, are no parameters.

    Args:
        captioner: made by `published_hparams`.
        file: from `open_published`.

    Returns:
        A line for people: how many parameters, and which were left out.

    Raises:
        ValueError: names and shapes of what is left on either side.
    """
    from effcap.weights.gpt2.loader import refuse

    targets = [*_encoder_targets(captioner.encoder), *_decoder_targets(captioner.decoder)]
    wanted = {name: target.shape for target in targets for name in target.names}
    unused = [name for name in file if UNUSED.fullmatch(name)]
    if captioner.decoder.fusion.get("gate") is False:
        unused += [name for name in file if UNUSED_GATE.fullmatch(name)]
    beside = {name for name in file if BUFFERS.fullmatch(name)} | {n for n in TIED if n in file}
    problems = {
        "missing": [f"{name} {shape}" for name, shape in wanted.items() if name not in file],
        "not of this captioner": [
            f"{name} {file.shape(name)}"
            for name in file
            if name not in wanted and name not in beside and name not in unused
        ],
        "of another shape": [
            f"{name} {file.shape(name)} for {shape}"
            for name, shape in wanted.items()
            if name in file and file.shape(name) != shape
        ],
        "not the token embeddings": [
            name
            for name in TIED
            if name in file and not np.array_equal(file[name], file[f"{GPT2}wte.weight"])
        ],
    }
    refuse(f"in {file.name}", problems)
    refuse(
        f"in {file.name}",
        {"not finite": [n for n in wanted if not np.isfinite(np.asarray(file[n], float)).all()]},
    )
    for target in targets:
        target.variable.assign(target.values(file))
    count = sum(int(np.prod(target.variable.shape)) for target in targets)
    line = f"{count / 1e6:.1f} M parameters from {file.name}"
    if unused:
        line += "; left out, since the original's forward pass never looks at them: "
        line += ", ".join(unused)
    return line


def _linear(layer: keras.layers.Layer, *names: str) -> Iterator[Target]:
    """A dense layer made of torch Linears side by side."""
    yield Target(layer.kernel, tuple(f"{name}.weight" for name in names), transposed=True)
    yield Target(layer.bias, tuple(f"{name}.bias" for name in names))


def _same(layer: keras.layers.Layer, name: str) -> Iterator[Target]:
    """A layer norm, or a dense layer made of one of GPT-2's Conv1D, which is (in, out) as here."""
    first, bias = layer.weights
    yield Target(first, (f"{name}.weight",))
    yield Target(bias, (f"{name}.bias",))


def _encoder_targets(encoder: keras.layers.Layer) -> Iterator[Target]:
    from effcap.encoders.regions import RegionEncoder

    if not isinstance(encoder, RegionEncoder):
        for number, branch in enumerate(encoder.branches):
            yield from _projection(branch, f"encoder.transformations.{number}")
        return
    yield from _projection(encoder.projection, "encoder")
    for number, block in enumerate(encoder.blocks):
        name = f"encoder.layers.{number}"
        attention = f"{name}.mhatt.attention"
        yield from _linear(block.attn.c_attn, *(f"{attention}.fc_{part}" for part in "qkv"))
        yield from _linear(block.attn.c_proj, f"{attention}.fc_o")
        yield from _same(block.ln_1, f"{name}.mhatt.layer_norm")
        yield from _linear(block.mlp.c_fc, f"{name}.pwff.fc1")
        yield from _linear(block.mlp.c_proj, f"{name}.pwff.fc2")
        yield from _same(block.ln_2, f"{name}.pwff.layer_norm")


def _projection(projection: keras.layers.Layer, name: str) -> Iterator[Target]:
    yield from _linear(projection.project, f"{name}.fc")
    yield from _same(projection.norm, f"{name}.layer_norm")


def _decoder_targets(decoder: keras.layers.Layer) -> Iterator[Target]:
    from effcap.decoders.gated import MeshedFusion
    from effcap.weights.gpt2.loader import pretrained_by_name

    for name, variable in pretrained_by_name(decoder).items():
        yield Target(variable, (GPT2 + name,))
    for number, block in enumerate(decoder.blocks):
        name, fusion = f"{GPT2}h.{number}", block.fusion
        if isinstance(fusion, MeshedFusion):
            yield from _cross(fusion.attention, f"{name}.enc_dec_attn")
            for level, gate in enumerate(fusion.gates, 1):
                yield from _linear(gate, f"{name}.fc_alpha{level}")
            continue
        for modality, attention in enumerate(fusion.attentions):
            yield from _cross(attention, f"{name}.enc_dec_attn.{modality}")
        if fusion.gate is not None:
            yield from _linear(fusion.gate, f"{name}.fc_alpha")


def _cross(attention: keras.layers.Layer, name: str) -> Iterator[Target]:
    yield from _linear(attention.query, f"{name}.fc_q")
    yield from _linear(attention.key_value, f"{name}.fc_k", f"{name}.fc_v")
    yield from _same(attention.c_proj, f"{name}.c_proj")
