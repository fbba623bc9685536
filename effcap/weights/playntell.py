"""The published weights of PlayNTell (Gabbolini et al., EMNLP 2022), a `.pth` file.

https://github.com/deezer/playntell. Its decoder is VisualGPT's with one cross-attention per
modality.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from effcap.config import load_hparams
from effcap.weights.gpt2.names import gpt2_name_pairs
from effcap.weights.name_pairs import Converter, NamePair, linear, nested, norm
from effcap.weights.torch_file import TorchFile
from effcap.weights.visualgpt import (
    BUFFERS,
    COPIES,
    CROSS_ATTENTION,
    EMBEDDINGS,
    GPT2,
    UNUSED,
    count_layers,
    decoder_sizes,
    matrix_shape,
)

KEY = "encoder.transformations.0.fc.weight"

PROJECTION = [
    *linear("dense", "fc"),
    *norm("norm", "layer_norm"),
]
GATE = linear("gate", "fc_alpha")
# A PlayNTell that adds memory instead of gating it (decoder.fusion.gate=false) uses no gate.
UNUSED_WITHOUT_GATE = re.compile(
    UNUSED.pattern + r"|decoder\.transformer\.h\.\d+\.fc_alpha\.(weight|bias)"
)


def playntell_hparams(file: TorchFile) -> dict:
    """Returns the sections encoder and decoder that fit a file, based on the variant.

    The fusion has a gate if the file has weights for one.

    Raises:
        ValueError: a tensor that defines a size is missing or not a matrix.
    """
    hparams = load_hparams("playntell")
    encoder, decoder = hparams["encoder"], hparams["decoder"] | decoder_sizes(file)
    feature_dims = [
        matrix_shape(file, f"encoder.transformations.{i}.fc.weight")[1]
        for i in range(count_layers(file, "encoder.transformations"))
    ]
    modalities = name_modalities(feature_dims, encoder["modalities"])
    gate = f"{GPT2}.h.0.fc_alpha.weight" in file
    return {
        "encoder": encoder | {"modalities": modalities},
        "decoder": decoder | {"fusion": decoder["fusion"] | {"gate": gate}},
    }


def name_modalities(feature_dims: list[int], known: Mapping[str, int]) -> dict[str, int]:
    """Returns feature widths by modality: known ones by their width, others by their number.

    Args:
        feature_dims: widths in the order of the file.
        known: usual widths by modality.
    """
    remaining = dict(known)
    modalities = {}
    for number, feature_dim in enumerate(feature_dims):
        matching = (name for name, usual in remaining.items() if usual == feature_dim)
        name = next(matching, f"modality{number}")
        remaining.pop(name, None)
        modalities[name] = feature_dim
    return modalities


def playntell_name_pairs(hparams: Mapping[str, Any]) -> list[NamePair]:
    """Returns the pairs of a captioner with these hyperparameters."""
    num_modalities, decoder = len(hparams["encoder"]["modalities"]), hparams["decoder"]
    pairs: list[NamePair] = []
    for k in range(num_modalities):
        pairs += nested(f"encoder.projections.{k}", f"encoder.transformations.{k}", PROJECTION)
    pairs += nested("decoder", GPT2, gpt2_name_pairs(decoder["num_layers"]))
    fusion = [*GATE] if _has_gate(hparams) else []
    for k in range(num_modalities):
        fusion += nested(f"attentions.{k}", f"enc_dec_attn.{k}", CROSS_ATTENTION)
    for i in range(decoder["num_layers"]):
        pairs += nested(f"decoder.blocks.{i}.fusion", f"{GPT2}.h.{i}", fusion)
    return pairs


def _has_gate(hparams: Mapping[str, Any]) -> bool:
    return (hparams["decoder"]["fusion"] or {}).get("gate", True)


def _unused(hparams: Mapping[str, Any]) -> re.Pattern[str]:
    return UNUSED if _has_gate(hparams) else UNUSED_WITHOUT_GATE


PLAYNTELL = Converter(
    key=KEY,
    encoder_kind="modalities",
    hparams=playntell_hparams,
    name_pairs=playntell_name_pairs,
    unused=_unused,
    buffers=BUFFERS,
    embeddings=EMBEDDINGS,
    copies=COPIES,
)
