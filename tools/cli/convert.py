"""`effcap convert`: converts published weights to a preset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.config import SECTIONS, read_json
from effcap.precision import STORED_DTYPES
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.parsing import add_config, add_settings, parse_sections
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.captioner import Captioner
    from effcap.weights.swin_checkpoint import SwinCheckpoint

Converted = tuple["Captioner", str, dict[str, Any] | None]  # captioner, message, record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap convert`."""
    parser.description = (
        "Converts published weights to a preset: the folder of a GPT-2, as OpenAI's TensorFlow "
        "checkpoint or Hugging Face's model.safetensors, pytorch_model.bin or tf_model.h5; the "
        "folder of a captioner of transformers, ViT and GPT-2 or BLIP; the .pth file of BLIP's "
        "authors, VisualGPT or PlayNTell, which is a whole captioner, or the .pt file of ClipCap, "
        "which needs CLIP's weights (--clip); or the .pth file of a Swin transformer or "
        "the .th file of X-VLM, for a backbone alone; or a preset, to store it in another --dtype. "
        "A converted GPT-2 generates "
        "the same text as before until it is trained: effcap train csv --model PRESET. A converted "
        "backbone is used by effcap train csv --backbone-weights PRESET."
    )
    parser.add_argument(
        "weights",
        type=Path,
        metavar="FOLDER|FILE",
        help="folder of a GPT-2, a captioner or a preset, or a .pth, .pt or .th file",
    )
    parser.add_argument("preset", type=Path, metavar="PRESET", help="folder to write")
    parser.add_argument(
        "--model",
        metavar="VARIANT",
        help="variant for everything but the decoder's sizes; only with the folder of a GPT-2 "
        "(default: the variant of its size)",
    )
    add_settings(
        parser, "decoder.fusion.tau=0.2", note=", for values that a .pth file does not record"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of the tokenizer (default: FOLDER, or that of BLIP's .pth file; none with "
        "another .pth or .pt file)",
    )
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="FILE|FOLDER",
        help="CLIP model that a ClipCap was trained with: OpenAI's .pt file, or a file or folder "
        "of Hugging Face or open_clip; only with a .pt file of ClipCap",
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="imagenet|none|FILE|PRESET",
        help="weights of the backbone; only with the folder of a GPT-2 (default: imagenet)",
    )
    parser.add_argument(
        "--dtype",
        choices=STORED_DTYPES,
        default=STORED_DTYPES[0],
        help="type of the stored weights; int8 is for large matrices alone, with float32 scales",
    )
    add_config(parser)
    parser.epilog = "`effcap list VARIANT` lists the settings of encoder and decoder for --set."


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap convert`."""
    from effcap.conversion.backbone_weights import is_preset
    from effcap.preset_files import BASE, CONFIG
    from effcap.presets import list_presets, preset_folder
    from effcap.utils.hub import is_hub_name
    from effcap.utils.progress import print_line
    from effcap.weights.captioner_config import is_captioner_folder
    from effcap.weights.swin_checkpoint import find_swin

    if is_hub_name(arguments.weights):
        arguments.weights = preset_folder(arguments.weights)
    preset = arguments.preset
    if preset.exists() and not (preset.is_dir() and next(preset.iterdir(), None) is None):
        raise FileExistsError(f"The folder {preset} exists and is not empty; choose another folder")
    if arguments.weights.is_file() and (checkpoint := find_swin(arguments.weights)) is not None:
        convert_swin(arguments, checkpoint)
        return
    config = arguments.weights / CONFIG
    contents = read_json(config) if config.is_file() else {}
    if BASE in contents:
        raise ValueError(
            f"{arguments.weights} holds an adapter alone, in PEFT's format, whose type stays: "
            f"convert its base {contents[BASE]}"
        )
    if is_preset(str(arguments.weights)) or str(arguments.weights) in list_presets():
        convert_preset(arguments)
        return
    is_whole = arguments.weights.is_file() or is_captioner_folder(arguments.weights)
    convert = convert_published if is_whole else convert_gpt2
    captioner, message, record = convert(arguments)
    captioner.save_to_preset(preset, arguments.dtype, record)
    loaded, *lines = message.splitlines()
    print_line(f"{loaded}, in a captioner of {captioner.count_params() / 1e6:.1f} M")
    for line in lines:
        print_line(line)
    print_line(f"preset: {preset} ({arguments.dtype})")


def convert_gpt2(arguments: argparse.Namespace) -> Converted:
    """Returns a captioner with the GPT-2 of a folder, a message, and no record."""
    from effcap.conversion.backbone_weights import check_backbone_weights
    from effcap.conversion.gpt2_captioner import captioner_hparams, gpt2_captioner
    from effcap.tokenizers.kinds import read_tokenizer_folder
    from effcap.weights.gpt2.formats import find_format

    if arguments.clip is not None:
        raise ValueError("--clip can only be used with a .pt file of ClipCap")
    folder = arguments.weights
    find_format(folder)
    check_backbone_weights(arguments.backbone_weights)
    tokenizer = read_tokenizer_folder(arguments.tokenizer or folder)
    overrides = parse_sections(arguments.set, SECTIONS)
    weights = arguments.backbone_weights
    hparams = captioner_hparams(folder, tokenizer, arguments.model, overrides, weights)
    start_keras()
    return *gpt2_captioner(folder, hparams, tokenizer, weights), None


def convert_published(arguments: argparse.Namespace) -> Converted:
    """Returns the captioner of a folder or a .pth or .pt file, a message, and a record."""
    from effcap.conversion.published_captioner import published_captioner
    from effcap.tokenizers.kinds import read_tokenizer_folder

    for name in ("model", "backbone_weights"):
        if getattr(arguments, name) is not None:
            kind = "a .pth or .pt file" if arguments.weights.is_file() else "a whole captioner"
            raise ValueError(f"{option_flag(name)} cannot be used with {kind}")
    tokenizer = read_tokenizer_folder(arguments.tokenizer) if arguments.tokenizer else None
    overrides = parse_sections(arguments.set, (*SECTIONS, "sampler"))
    start_keras()
    return published_captioner(arguments.weights, tokenizer, overrides, arguments.clip)


def convert_preset(arguments: argparse.Namespace) -> None:
    """Writes a preset again, with weights of another type."""
    from effcap.conversion.stored_preset import convert_stored_preset
    from effcap.utils.progress import print_line

    for name in ("model", "set", "tokenizer", "clip", "backbone_weights"):
        if getattr(arguments, name):
            raise ValueError(f"{option_flag(name)} cannot be used with a preset")
    start_keras()
    size = convert_stored_preset(arguments.weights, arguments.preset, arguments.dtype)
    print_line(f"preset: {arguments.preset} ({arguments.dtype}), {size / 1e6:.1f} MB of weights")


def convert_swin(arguments: argparse.Namespace, checkpoint: SwinCheckpoint) -> None:
    """Writes the preset of a backbone, and prints what was taken and skipped."""
    from effcap.utils.progress import print_line

    for name in ("model", "tokenizer", "backbone_weights", "clip"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"{option_flag(name)} cannot be used with the file of a backbone")
    overrides = parse_sections(arguments.set, SECTIONS)
    settings = overrides.get("encoder", {}).get("backbone", {})
    if {name: values for name, values in overrides.items() if values} not in (
        {},
        {"encoder": {"backbone": settings}},
    ):
        raise ValueError(
            f"Expected settings of encoder.backbone for the file of a backbone. "
            f"Received: {json.dumps(overrides)}"
        )
    start_keras()
    from effcap.backbones.backbone import Backbone
    from effcap.conversion.backbone_preset import save_backbone
    from effcap.weights.swin_weights import load_swin, swin_backbone

    try:
        backbone = Backbone(**{**swin_backbone(checkpoint), **settings})
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot create the backbone of {arguments.weights}: {error}") from error
    message = load_swin(backbone.net, checkpoint)
    record = {
        "source": str(arguments.weights),
        "system": "xvlm" if checkpoint.is_xvlm else "swin",
        "skipped": dict(checkpoint.skipped),
    }
    save_backbone(backbone, arguments.preset, arguments.dtype, record)
    for line in message.splitlines():
        print_line(line)
    name, (height, width) = backbone.net.name, backbone.image_size
    positions, channels = backbone.feature_shape
    print_line(f"{name} for {height}x{width} pixels: {positions} positions of width {channels}")
    print_line(f"preset: {arguments.preset} ({arguments.dtype})")
    print_line(f"next: effcap train csv --model opg-mlp --backbone-weights {arguments.preset} ...")
