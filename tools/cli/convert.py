"""`effcap convert`: published weights into a preset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.captioner import Captioner


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `convert`."""
    parser = commands.add_parser(
        "convert",
        help="make a preset of published weights",
        description="Makes a captioner's preset of a GPT-2: OpenAI's TensorFlow checkpoint, or "
        "Hugging Face's folder with model.safetensors, pytorch_model.bin or tf_model.h5. It "
        "writes what the GPT-2 writes, until it is trained: effcap train csv --model PRESET. "
        "Or of VisualGPT's or PlayNTell's weights, a .pth file: a whole captioner of regions or "
        "playlists.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "weights", type=Path, metavar="FOLDER|FILE", help="folder of a GPT-2, or a .pth file"
    )
    parser.add_argument("preset", type=Path, metavar="PRESET", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="VARIANT",
        help="variant that everything but the decoder's sizes is taken from (the one of the "
        "GPT-2's size if not given); only with a folder",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change a hyperparameter, such as decoder.fusion.tau=0.2, which no .pth file tells",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of the tokenizer (FOLDER if not given); a .pth file has none, and without "
        "one the preset has none",
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE",
        help="weights of the backbone (imagenet if not given); only with a folder",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="how the preset stores weights",
    )
    add_config(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap convert`."""
    preset = arguments.preset
    if preset.exists() and not (preset.is_dir() and next(preset.iterdir(), None) is None):
        raise FileExistsError(f"Expected a new folder for the preset. Received: {preset}")
    convert = convert_published if arguments.weights.is_file() else convert_gpt2
    captioner, loaded = convert(arguments)
    from effcap.utils.progress import say

    captioner.save_to_preset(preset, arguments.dtype)
    say(f"{loaded}, in a captioner of {captioner.count_params() / 1e6:.1f} M")
    say(f"preset: {preset} ({arguments.dtype})")


def convert_gpt2(arguments: argparse.Namespace) -> tuple[Captioner, str]:
    """A captioner with the GPT-2 of a folder, and a line about it."""
    from effcap.tokenizers.tokenizer import Tokenizer
    from effcap.weights.backbone_weights import check_backbone_weights
    from effcap.weights.gpt2.assemble import captioner_hparams, gpt2_captioner
    from effcap.weights.gpt2.formats import find_format

    folder = arguments.weights
    find_format(folder)
    check_backbone_weights(arguments.backbone_weights)
    tokenizer = Tokenizer.from_folder(arguments.tokenizer or folder)
    hparams = captioner_hparams(folder, tokenizer, arguments.model, arguments.set)
    start_keras()
    return gpt2_captioner(folder, hparams, tokenizer, arguments.backbone_weights)


def convert_published(arguments: argparse.Namespace) -> tuple[Captioner, str]:
    """The captioner of a .pth file, and a line about it."""
    from effcap.tokenizers.tokenizer import Tokenizer
    from effcap.weights.published import load_published, open_published, published_hparams

    for name in ("model", "backbone_weights"):
        if getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"Expected no {option} with a .pth file. Received: {option}")
    variant, file = open_published(arguments.weights)
    tokenizer = Tokenizer.from_folder(arguments.tokenizer) if arguments.tokenizer else None
    hparams = published_hparams(variant, file, arguments.set)
    start_keras()
    from effcap.captioner import Captioner

    try:
        captioner = Captioner.from_hparams(hparams, tokenizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot make {variant} of {arguments.weights}: {error}") from error
    return captioner, load_published(captioner, file)
