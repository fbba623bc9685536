"""`effcap export`: writes a captioner as graphs for a runtime without Keras."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from effcap.tools.cli.parsing import add_settings, check_fields, parse_sections
from effcap.tools.cli.terminal import start_keras

FORMATS = ("savedmodel", "litert", "onnx", "openvino")
DTYPES = ("float32", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap export`."""
    parser.description = (
        "Writes a captioner as graphs for TensorFlow, LiteRT, ONNX Runtime or OpenVINO, with a "
        "manifest and a runner that needs neither Keras nor EffCap: python OUT/run.py photo.jpg"
    )
    parser.add_argument("preset", metavar="PRESET", help="preset or run folder to export")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--format", choices=FORMATS, required=True, help="format of the graphs")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="type of the stored weights; int8 takes a quarter of the space and changes a few "
        "captions, not with savedmodel",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="text that captions begin with and continue (default: that of the preset, if any)",
    )
    parser.add_argument(
        "--sampler",
        choices=("beam", "greedy"),
        help="search of the runner (default: that of the preset, otherwise beam)",
    )
    add_settings(parser, "sampler.num_beams=3")


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap export`."""
    settings = parse_sections(arguments.set, ("sampler",))["sampler"]
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that writes all formats
    start_keras()
    from effcap.captioner import Captioner
    from effcap.exports.exported_captioner import check_format, export_captioner
    from effcap.utils.progress import print_line

    check_format(arguments.format, arguments.dtype)
    captioner = Captioner.from_preset(arguments.preset)
    if arguments.prefix is not None:
        captioner.prefix = arguments.prefix
    sampler = None
    if arguments.sampler is not None or settings:
        tokenizer = captioner.tokenizer
        length = 0 if tokenizer is None else len(tokenizer.encode_prefix(captioner.prefix))
        sampler = captioner.find_sampler(arguments.sampler, length)
        check_fields(type(sampler), "sampler", settings)
        sampler = dataclasses.replace(sampler, **settings)
    folder = export_captioner(captioner, arguments.out, arguments.format, arguments.dtype, sampler)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print_line(f"{folder}: {arguments.format}, {arguments.dtype}, {size / 1e6:.1f} MB")
    name = "photo.jpg" if "images" in captioner.encoder.input_keys else "inputs.npz"
    print_line(f"next: python {folder / 'run.py'} {name}")
