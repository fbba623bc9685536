"""The published weights of PlayNTell (Gabbolini et al., EMNLP 2022), a `.pth` file.

https://github.com/deezer/playntell. Its decoder is VisualGPT's with one cross-attention per
modality.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effcap.config import load_hparams, read_json
from effcap.weights.gpt2.names import gpt2_name_pairs
from effcap.weights.name_pairs import Converter, NamePair, linear, nested, norm
from effcap.weights.torch_file import TorchFile
from effcap.weights.visualgpt import (
    BUFFERS,
    COPIES,
    CROSS_ATTENTION,
    EMBEDDINGS,
    GPT2,
    START_TOKEN,
    UNUSED,
    count_layers,
    gpt2_sizes,
    matrix_shape,
)

KEY = "encoder.transformations.0.fc.weight"
TAU = 0.0  # default of the original's training program, whose documented command gives no other
PARAMS = "params.json"  # options of the training, which the original writes beside its best.pth

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

    The fusion has a gate if the file has weights for one. The original has them even where it was
    trained without a gate.

    Raises:
        ValueError: a tensor that defines a size is missing or not a matrix.
    """
    hparams = load_hparams("playntell")
    encoder, decoder = hparams["encoder"], hparams["decoder"] | gpt2_sizes(file, GPT2)
    modalities = name_modalities(modality_widths(file), encoder["modalities"])
    gate = f"{GPT2}.h.0.fc_alpha.weight" in file
    return {
        "encoder": encoder | {"modalities": modalities},
        "decoder": decoder | {"fusion": decoder["fusion"] | {"gate": gate, "tau": TAU}},
    }


def modality_widths(file: TorchFile) -> list[int]:
    """Returns the feature widths of the modalities, in the order of the file."""
    return [
        matrix_shape(file, f"encoder.transformations.{i}.fc.weight")[1]
        for i in range(count_layers(file, "encoder.transformations"))
    ]


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


def undetermined_settings(hparams: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the dotted names of the settings that no tensor determines.

    Without weights for a gate there is none, and no threshold.
    """
    gate = ("decoder.fusion.gate", "decoder.fusion.tau") if _has_gate(hparams) else ()
    return ("encoder.modalities", "decoder.num_heads", *gate)


def recorded_settings(file: TorchFile) -> tuple[Path, dict[str, Any]] | None:
    """Returns the path of the original's params.json beside a file, and the settings it records.

    Raises:
        ValueError: params.json is damaged, or lists other modalities than the file has.
    """
    path = Path(file.name).with_name(PARAMS)
    params = read_json(path) if Path(file.name).is_file() and path.is_file() else None
    features = params.get("playlist_feature") if isinstance(params, dict) else None
    if params is None or not isinstance(features, str) or not {"tau", "no_srau"} <= set(params):
        return None
    widths, names = modality_widths(file), features.split("_")
    known = load_hparams("playntell")["encoder"]["modalities"]
    if [known.get(name) for name in names] != widths:
        raise ValueError(
            f"Expected modalities of the widths {widths} in {path}, as {file.name} has them. "
            f"Received: playlist_feature={features!r}"
        )
    return path, {
        "encoder.modalities": dict(zip(names, widths, strict=True)),
        "decoder.fusion.gate": not params["no_srau"],
        "decoder.fusion.tau": params["tau"],
    }


def _notes(hparams: Mapping[str, Any]) -> list[str]:
    if "audio" not in hparams["encoder"]["modalities"]:
        return []
    return ["compute audio features with --audio-pooling musicnn, as the original did"]


def _has_gate(hparams: Mapping[str, Any]) -> bool:
    return (hparams["decoder"]["fusion"] or {}).get("gate", True)


def _unused(hparams: Mapping[str, Any]) -> re.Pattern[str]:
    return UNUSED if _has_gate(hparams) else UNUSED_WITHOUT_GATE


PLAYNTELL = Converter(
    title="PlayNTell",
    keys=(KEY,),
    encoder_kind="modalities",
    hparams=playntell_hparams,
    name_pairs=playntell_name_pairs,
    undetermined=undetermined_settings,
    unused=_unused,
    buffers=BUFFERS,
    embeddings=EMBEDDINGS,
    start_token=START_TOKEN,
    copies=COPIES,
    recorded=recorded_settings,
    notes=_notes,
)
