"""The published weights of ClipCap (Mokady et al., 2021), a `.pt` file.

https://github.com/rmokady/CLIP_prefix_caption. The file has the mapper and GPT-2; CLIP's image
tower is a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from effcap.config import load_hparams
from effcap.weights.gpt2.names import gpt2_name_pairs
from effcap.weights.name_pairs import Converter, NamePair, linear, nested, norm
from effcap.weights.torch_file import TorchFile
from effcap.weights.visualgpt import count_layers, gpt2_sizes, matrix_shape

GPT2 = "gpt.transformer"
MAPPER = "decoder.prefix_fusion.mapper"
MLP_KEY = "clip_project.model.0.weight"
TRANSFORMER_KEY = "clip_project.linear.weight"
CONSTANTS = "clip_project.prefix_const"
LAYERS = "clip_project.transformer.layers"
BUFFERS = re.compile(r"gpt\.transformer\.h\.\d+\.attn\.(bias|masked_bias)")
NOTHING = re.compile(r"(?!)")
END_TOKEN = "."

MLP = [
    *linear("fc1", "model.0"),
    *linear("fc2", "model.2"),
]
MAPPER_BLOCK = [
    *norm("norm1", "norm1"),
    NamePair("query.kernel", ("attn.to_queries.weight",), transposed=True),
    NamePair("key_value.kernel", ("attn.to_keys_values.weight",), transposed=True),
    *linear("c_proj", "attn.project"),
    *norm("norm2", "norm2"),
    *linear("fc1", "mlp.fc1"),
    *linear("fc2", "mlp.fc2"),
]


def clipcap_hparams(file: TorchFile) -> dict:
    """Returns the sections encoder and decoder that fit a file, based on the mapper's variant.

    The backbone is that of the variant; CLIP's file determines it. CLIP's vector is normalized for
    the transformer and not for the MLP, as in the original's notebooks.

    Raises:
        ValueError: a tensor that defines a size is missing, not a matrix, or its size is not a
            multiple of GPT-2's width.
    """
    sizes = gpt2_sizes(file, GPT2)
    is_mlp = MLP_KEY in file
    hparams = load_hparams("clipcap-mlp" if is_mlp else "clipcap-transformer")
    fusion = hparams["decoder"]["fusion"]
    if is_mlp:
        length = _positions(file, "clip_project.model.2.weight", sizes["hidden_dim"])
        mapper = {"prefix_length": length}
    else:
        mapper = {
            "prefix_length": matrix_shape(file, CONSTANTS)[0],
            "clip_length": _positions(file, TRANSFORMER_KEY, sizes["hidden_dim"]),
            "num_layers": count_layers(file, LAYERS),
        }
    fusion = {**fusion, "mapper": {**fusion["mapper"], **mapper}}
    return {
        "encoder": hparams["encoder"],
        "decoder": {**hparams["decoder"], **sizes, "fusion": fusion},
    }


def vector_width(file: TorchFile) -> int:
    """Returns the width of CLIP's projected image vector that a file's mapper takes."""
    return matrix_shape(file, MLP_KEY if MLP_KEY in file else TRANSFORMER_KEY)[1]


def _positions(file: TorchFile, name: str, hidden_dim: int) -> int:
    """Returns how many vectors of GPT-2's width a linear layer computes."""
    outputs = matrix_shape(file, name)[0]
    if outputs == 0 or outputs % hidden_dim:
        raise ValueError(
            f"Expected {name} of {file.name} with a multiple of GPT-2's width {hidden_dim} as its "
            f"first axis. Received: {outputs}"
        )
    return outputs // hidden_dim


def clipcap_name_pairs(hparams: Mapping[str, Any]) -> list[NamePair]:
    """Returns the pairs of a captioner with these hyperparameters."""
    decoder = hparams["decoder"]
    mapper = decoder["fusion"]["mapper"]
    pairs = nested("decoder", GPT2, gpt2_name_pairs(decoder["num_layers"]))
    if mapper["kind"] == "clipcap-mlp":
        return pairs + nested(MAPPER, "clip_project", MLP)
    pairs += nested(MAPPER, "clip_project", linear("linear", "linear"))
    pairs.append(NamePair(f"{MAPPER}.constants.embeddings", (CONSTANTS,)))
    for i in range(mapper["num_layers"]):
        pairs += nested(f"{MAPPER}.blocks.{i}", f"{LAYERS}.{i}", MAPPER_BLOCK)
    return pairs


def undetermined_settings(hparams: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the dotted names of the settings that no tensor determines."""
    is_mlp = hparams["decoder"]["fusion"]["mapper"]["kind"] == "clipcap-mlp"
    heads = () if is_mlp else ("decoder.fusion.mapper.num_heads",)
    return ("encoder.normalize", "decoder.num_heads", *heads)


CLIPCAP = Converter(
    title="ClipCap",
    keys=(MLP_KEY, TRANSFORMER_KEY),
    encoder_kind="backbone",
    hparams=clipcap_hparams,
    name_pairs=clipcap_name_pairs,
    undetermined=undetermined_settings,
    unused=lambda hparams: NOTHING,
    buffers=BUFFERS,
    embeddings=f"{GPT2}.wte.weight",
    end_token=END_TOKEN,
    needs_clip=True,
    copies=("gpt.lm_head.weight",),
)
