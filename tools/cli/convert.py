"""`effcap convert`: published weights into a preset."""

from __future__ import annotations

import argparse
from pathlib import Path

from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `convert`."""
    parser = commands.add_parser(
        "convert",
        help="make a preset of GPT-2's weights",
        description="Makes a captioner's preset of a GPT-2: OpenAI's TensorFlow checkpoint, or "
        "Hugging Face's folder with model.safetensors, pytorch_model.bin or tf_model.h5. It "
        "writes what the GPT-2 writes, until it is trained: effcap train csv --model PRESET.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the GPT-2")
    parser.add_argument("preset", type=Path, metavar="PRESET", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="VARIANT",
        help="variant that everything but the decoder's sizes is taken from (the one of the "
        "GPT-2's size if not given)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change a hyperparameter, such as decoder.dropout=0.1",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of the tokenizer (FOLDER if not given)",
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE",
        help="weights of the backbone (imagenet if not given)",
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
    from effcap.tools.backbone_weights import check_backbone_weights
    from effcap.tools.gpt2_captioner import captioner_hparams, gpt2_captioner
    from effcap.tools.gpt2_files import find_format
    from effcap.tools.tokenizer import Tokenizer

    folder, preset = arguments.folder, arguments.preset
    if preset.exists() and not (preset.is_dir() and next(preset.iterdir(), None) is None):
        raise FileExistsError(f"Expected a new folder for the preset. Received: {preset}")
    find_format(folder)
    check_backbone_weights(arguments.backbone_weights)
    tokenizer = Tokenizer.from_folder(arguments.tokenizer or folder)
    hparams = captioner_hparams(folder, tokenizer, arguments.model, arguments.set)
    start_keras()
    from effcap.trainers.progress import say

    captioner, loaded = gpt2_captioner(folder, hparams, tokenizer, arguments.backbone_weights)
    captioner.save_to_preset(preset, arguments.dtype)
    say(f"{loaded}, in a captioner of {captioner.count_params() / 1e6:.1f} M")
    say(f"preset: {preset} ({arguments.dtype})")
