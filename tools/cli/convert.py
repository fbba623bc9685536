"""`effcap convert`: converts published weights to a preset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import SECTIONS
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.parsing import add_config, add_settings, parse_sections
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.captioner import Captioner

Converted = tuple["Captioner", str, dict[str, Any] | None]  # captioner, message, record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap convert`."""
    parser.description = (
        "Converts published weights to a preset: the folder of a GPT-2, as OpenAI's TensorFlow "
        "checkpoint or Hugging Face's model.safetensors, pytorch_model.bin or tf_model.h5; or a "
        ".pth file of VisualGPT or PlayNTell, which is a whole captioner. A converted GPT-2 "
        "generates the same text as before until it is trained: effcap train csv --model PRESET."
    )
    parser.add_argument(
        "weights", type=Path, metavar="FOLDER|FILE", help="folder of a GPT-2, or a .pth file"
    )
    parser.add_argument("preset", type=Path, metavar="PRESET", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="VARIANT",
        help="variant for everything but the decoder's sizes; only with a folder (default: the "
        "variant of the GPT-2's size)",
    )
    add_settings(
        parser, "decoder.fusion.tau=0.2", note=", for values that a .pth file does not record"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of the tokenizer (default: FOLDER; none with a .pth file)",
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE",
        help="weights of the backbone; only with a folder (default: imagenet)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the stored weights",
    )
    add_config(parser)
    parser.epilog = "`effcap list VARIANT` lists the settings of encoder and decoder for --set."


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap convert`."""
    preset = arguments.preset
    if preset.exists() and not (preset.is_dir() and next(preset.iterdir(), None) is None):
        raise FileExistsError(f"The folder {preset} exists and is not empty; choose another folder")
    convert = convert_published if arguments.weights.is_file() else convert_gpt2
    captioner, message, record = convert(arguments)
    from effcap.utils.progress import print_line

    captioner.save_to_preset(preset, arguments.dtype, record)
    loaded, *lines = message.splitlines()
    print_line(f"{loaded}, in a captioner of {captioner.count_params() / 1e6:.1f} M")
    for line in lines:
        print_line(line)
    print_line(f"preset: {preset} ({arguments.dtype})")


def convert_gpt2(arguments: argparse.Namespace) -> Converted:
    """Returns a captioner with the GPT-2 of a folder, a message, and no record."""
    from effcap.tokenizers import Tokenizer
    from effcap.weights.backbone_weights import check_backbone_weights
    from effcap.weights.gpt2 import captioner_hparams, gpt2_captioner
    from effcap.weights.gpt2.formats import find_format

    folder = arguments.weights
    find_format(folder)
    check_backbone_weights(arguments.backbone_weights)
    tokenizer = Tokenizer.from_folder(arguments.tokenizer or folder)
    overrides = parse_sections(arguments.set, SECTIONS)
    hparams = captioner_hparams(folder, tokenizer, arguments.model, overrides)
    start_keras()
    return *gpt2_captioner(folder, hparams, tokenizer, arguments.backbone_weights), None


def convert_published(arguments: argparse.Namespace) -> Converted:
    """Returns the captioner of a .pth file, a message, and a record of what was assumed."""
    from effcap.tokenizers import Tokenizer
    from effcap.weights.published import (
        assumed_settings,
        load_published,
        open_published,
        published_hparams,
    )
    from effcap.weights.start_token import published_tokenizer

    for name in ("model", "backbone_weights"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"{option_flag(name)} cannot be used with a .pth file")
    system, file = open_published(arguments.weights)
    tokenizer, start = None, None
    if arguments.tokenizer:
        tokenizer, start = published_tokenizer(system, Tokenizer.from_folder(arguments.tokenizer))
    overrides = parse_sections(arguments.set, SECTIONS)
    hparams = published_hparams(system, file, overrides)
    start_keras()
    from effcap.captioner import Captioner

    try:
        captioner = Captioner.from_hparams(hparams, tokenizer)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot create {system} of {arguments.weights}: {error}") from error
    message = load_published(captioner, file, overrides)
    record = {
        "source": str(arguments.weights),
        "system": system,
        "assumed": assumed_settings(system, file, overrides),
    }
    return captioner, message if start is None else f"{message}\n{start}", record
