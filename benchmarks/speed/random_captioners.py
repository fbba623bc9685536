"""Writes captioners with random weights as the folders that the engines of benchmarks load.

    v2s-gpt2-124m, v2s-gpt2-355m  EffCap's own: EfficientNetV2-S at 224 px and GPT-2 with
                                  cross-attention in every block; transformers gets ViT-B/16 and
                                  the same GPT-2 with cross-attention
    vit-gpt2, blip-base           captioners of transformers, which EffCap converts: both have the
                                  same weights

All have their published vocabularies.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np

OWN = ("v2s-gpt2-124m", "v2s-gpt2-355m")
PUBLISHED = ("vit-gpt2", "blip-base")
MODELS = (*OWN, *PUBLISHED)
SIDE = 224  # pixels
END = 50256  # GPT-2's start, end and padding token
# Standard deviations that make captions depend on photo and words. Initial ones make them flat.
STDDEV = {"kernel": 0.05, "bias": 0.02, "embeddings": 0.08}


def write(model: str, folder: Path) -> None:
    """Writes a captioner: EffCap's folder "effcap" and that of transformers, "transformers"."""
    for name in ("effcap", "transformers"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if model in OWN:
        write_own(model, folder / "effcap")
        config = json.dumps(vit_gpt2_config(model.removeprefix("v2s-")))
        (folder / "transformers" / "config.json").write_text(config)
        return
    from load_captioner import write as write_weights

    (folder / "effcap").rmdir()
    write_weights("safetensors", folder / "transformers", model)
    write_vocabulary(folder / "transformers", model)
    (folder / "effcap").symlink_to(folder / "transformers", target_is_directory=True)


def write_vocabulary(folder: Path, model: str, size: int = END + 1) -> None:
    """Writes a vocabulary of made-up words for GPT-2, or one as large as BLIP's."""
    from tokenizers import pre_tokenizers

    if model == "blip-base":
        words = [f"word{number}" for number in range(30522)]
        words[0], words[100:103] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]"]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"Ġ{number}" for number in range(size - 1 - len(alphabet)))]
    vocabulary = {word: number for number, word in enumerate([*words, "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def gpt2_tokenizer(size: int = END + 1) -> Any:
    """Returns a tokenizer with a vocabulary as large as GPT-2's, or of another size."""
    from effcap import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(Path(folder), "gpt2", size)
        return Tokenizer.from_folder(folder)


def vit_gpt2_config(size: str) -> dict[str, Any]:
    """Returns the config of transformers for ViT-B/16 and a size of GPT-2."""
    from effcap.config import load_hparams

    hparams = load_hparams(size)["decoder"]
    decoder = {
        "model_type": "gpt2",
        "add_cross_attention": True,
        "n_embd": hparams["hidden_dim"],
        "n_layer": hparams["num_layers"],
        "n_head": hparams["num_heads"],
    }
    return {
        "model_type": "vision-encoder-decoder",
        "encoder": {"model_type": "vit"},
        "decoder": decoder,
    }


def create(size: str) -> Any:
    """Returns a captioner with EfficientNetV2-S and lively random weights.

    Args:
        size: a variant with GPT-2, such as "gpt2-124m".
    """
    import keras

    from effcap import Captioner

    keras.utils.set_random_seed(0)
    backbone = {"network": "efficientnet_v2_s", "image_size": [SIDE, SIDE]}
    captioner = Captioner.from_hparams(size, gpt2_tokenizer(), encoder={"backbone": backbone})
    rng = np.random.default_rng(0)
    for variable in captioner.decoder.variables:
        if variable.name in STDDEV:
            values = rng.standard_normal(variable.shape, np.float32) * STDDEV[variable.name]
            variable.assign(values)
    return captioner


def create_tiny(vocabulary_size: int = 512) -> Any:
    """Returns a captioner that shows in seconds that a script runs."""
    import keras

    from effcap import GPT2, Backbone, Captioner, ImageEncoder

    stages = [
        keras.layers.Conv2D(32, 3, strides=4, padding="same", activation="silu") for _ in range(2)
    ]
    backbone = Backbone(keras.Sequential([keras.Input((64, 64, 3)), *stages]), scale=1 / 128)
    encoder = ImageEncoder(backbone, hidden_dim=64, num_layers=1, num_heads=2)
    decoder = GPT2(vocabulary_size, 64, 64, 2, 2, fusion={"kind": "cross"})
    return Captioner(encoder, decoder, gpt2_tokenizer(vocabulary_size))


def write_own(model: str, folder: Path) -> None:
    """Writes a captioner of EffCap, its ONNX graphs if onnx is installed, and its work."""
    captioner = create(model.removeprefix("v2s-"))
    captioner.save_to_preset(folder)
    (folder / "work.json").write_text(json.dumps(count_work(captioner)))
    try:
        from onnx_graphs import write_graphs
    except ImportError:
        print("no ONNX graphs: pip install onnx onnxruntime", file=sys.stderr)
        return
    write_graphs(captioner, folder)


def count_work(captioner: Any) -> dict[str, int]:
    """Counts the weights that a decoding step reads, and the operations of the encoder.

    Returns:
        "step": weights of a step, each of which is multiplied once per row; "encoder":
        floating-point operations per photo, with those of the keys and values of memory.
    """
    decoder, encoder = captioner.decoder, captioner.encoder
    positions, depth = encoder.backbone.feature_shape  # S, C
    width = decoder.hidden_dim  # D
    keys_and_values = sum(v.shape[0] * v.shape[1] for v in kernels(decoder, "key_value"))
    step = sum(v.shape[0] * v.shape[1] for v in kernels(decoder)) - keys_and_values
    step += width * decoder.vocabulary_size
    blocks = sum(v.shape[0] * v.shape[1] for block in encoder.blocks for v in kernels(block))
    attention = len(encoder.blocks) * 2 * positions * width  # scores and sums, per position
    per_position = 2 * (depth * width + blocks + attention + keys_and_values)
    operations = convolutions(encoder.backbone.net) + positions * per_position
    return {"step": int(step), "encoder": int(operations)}


def kernels(layer: Any, name: str = "") -> list[Any]:
    """Returns the kernels of dense layers whose path contains a name."""
    return [v for v in layer.variables if v.name == "kernel" and name in v.path]


def convolutions(network: Any) -> int:
    """Counts the floating-point operations of a network's convolutions, per photo."""
    total = 0
    for layer in network.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and len(kernel.shape) == 4:
            _, height, width, _ = layer.output.shape
            total += 2 * int(np.prod(kernel.shape)) * height * width
    return total
