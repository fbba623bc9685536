"""The published weights of VisualGPT (Chen et al., CVPR 2022), a `.pth` file.

https://github.com/Vision-CAIR/VisualGPT
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from effcap.config import load_hparams
from effcap.weights.gpt2.names import gpt2_name_pairs
from effcap.weights.name_pairs import Converter, NamePair, conv1d, linear, nested, norm
from effcap.weights.torch_file import TorchFile

HEAD_DIM = 64  # in every size of GPT-2
GPT2 = "decoder.transformer"
KEY = "encoder.layers.0.mhatt.attention.fc_q.weight"

PROJECTION = [
    *linear("projection.dense", "fc"),
    *norm("projection.norm", "layer_norm"),
]
ENCODER_BLOCK = [
    *linear(
        "attn.c_attn",
        "mhatt.attention.fc_q",
        "mhatt.attention.fc_k",
        "mhatt.attention.fc_v",
    ),
    *linear("attn.c_proj", "mhatt.attention.fc_o"),
    *norm("ln_1", "mhatt.layer_norm"),
    *linear("mlp.c_fc", "pwff.fc1"),
    *linear("mlp.c_proj", "pwff.fc2"),
    *norm("ln_2", "pwff.layer_norm"),
]
CROSS_ATTENTION = [
    *linear("query", "fc_q"),
    *linear("key_value", "fc_k", "fc_v"),
    *conv1d("c_proj", "c_proj"),
]

# Parameters that the original's forward pass does not use.
UNUSED = re.compile(
    r"encoder\.layers\.\d+\.mhatt\.attention\.c_attn_(query|key|value)\.(weight|bias)"
    r"|decoder\.transformer\.h\.\d+\.enc_dec_attn\.(\d+\.)?c_attn\.(weight|bias)"
)
# Causal masks, and the state of the original's generation: empty buffers that PyTorch saves too.
BUFFERS = re.compile(
    r"decoder\.transformer\.h\.\d+\.(attn|enc_dec_attn(\.\d+)?)\.(bias|masked_bias)"
    r"|(encoder|decoder(\.transformer(\.h\.\d+\.attn)?)?)\.running_\w+"
    r"|(encoder|decoder)\.\w*position_ids"
)
EMBEDDINGS = f"{GPT2}.wte.weight"
START_TOKEN = "<?"  # of both originals, an ordinary token of GPT-2's vocabulary
COPIES = ("decoder.lm_head.weight", "decoder.lm_head.decoder.weight")


def visualgpt_hparams(file: TorchFile) -> dict:
    """Returns the sections encoder and decoder that fit a file, based on the variant.

    The variant's tau is that of the original's training command.

    Raises:
        ValueError: a tensor that defines a size is missing or not a matrix.
    """
    hparams = load_hparams("visualgpt")
    decoder = hparams["decoder"] | gpt2_sizes(file, GPT2)
    encoder = hparams["encoder"] | {
        "feature_dim": matrix_shape(file, "encoder.fc.weight")[1],
        "num_layers": count_layers(file, "encoder.layers"),
        "num_heads": decoder["num_heads"],
        "intermediate_dim": matrix_shape(file, "encoder.layers.0.pwff.fc1.weight")[0],
    }
    return {"encoder": encoder, "decoder": decoder}


def visualgpt_name_pairs(hparams: Mapping[str, Any]) -> list[NamePair]:
    """Returns the pairs of a captioner with these hyperparameters."""
    encoder, num_layers = hparams["encoder"], hparams["decoder"]["num_layers"]
    pairs = nested("encoder", "encoder", PROJECTION)
    for i in range(encoder["num_layers"]):
        pairs += nested(f"encoder.blocks.{i}", f"encoder.layers.{i}", ENCODER_BLOCK)
    pairs += nested("decoder", GPT2, gpt2_name_pairs(num_layers))
    gates = [
        pair
        for level in range(encoder["num_levels"])
        for pair in linear(f"gates.{level}", f"fc_alpha{level + 1}")
    ]
    fusion = [*nested("attention", "enc_dec_attn", CROSS_ATTENTION), *gates]
    for i in range(num_layers):
        pairs += nested(f"decoder.blocks.{i}.fusion", f"{GPT2}.h.{i}", fusion)
    return pairs


def gpt2_sizes(file: TorchFile, prefix: str) -> dict[str, int]:
    """Returns the sizes of the GPT-2 in a file, by our names, with 64-wide heads.

    Args:
        file: file of a published captioner.
        prefix: prefix of the names of its GPT-2, such as "decoder.transformer".
    """
    vocabulary_size, hidden_dim = matrix_shape(file, f"{prefix}.wte.weight")
    return {
        "vocabulary_size": vocabulary_size,
        "max_sequence_length": matrix_shape(file, f"{prefix}.wpe.weight")[0],
        "hidden_dim": hidden_dim,
        "num_heads": max(1, hidden_dim // HEAD_DIM),
        "num_layers": count_layers(file, f"{prefix}.h"),
        "intermediate_dim": matrix_shape(file, f"{prefix}.h.0.mlp.c_fc.weight")[1],
    }


def matrix_shape(file: TorchFile, name: str) -> tuple[int, int]:
    """Returns the shape of a tensor that must be a matrix.

    Raises:
        ValueError: there is no such tensor, or it is not a matrix.
    """
    if name not in file:
        raise ValueError(f"{file.name} has no tensor {name}")
    shape = file.shape(name)
    if len(shape) != 2:
        raise ValueError(f"Expected a matrix {name} in {file.name}. Received: shape {shape}")
    return shape[0], shape[1]


def count_layers(file: TorchFile, prefix: str) -> int:
    """Returns one more than the highest layer number that follows `prefix` in a name."""
    matches = map(re.compile(rf"{re.escape(prefix)}\.(\d+)\.").match, file)
    return 1 + max((int(match.group(1)) for match in matches if match), default=-1)


VISUALGPT = Converter(
    title="VisualGPT",
    keys=(KEY,),
    encoder_kind="regions",
    hparams=visualgpt_hparams,
    name_pairs=visualgpt_name_pairs,
    undetermined=lambda hparams: ("encoder.num_heads", "decoder.num_heads", "decoder.fusion.tau"),
    unused=lambda hparams: UNUSED,
    buffers=BUFFERS,
    embeddings=EMBEDDINGS,
    start_token=START_TOKEN,
    copies=COPIES,
)
