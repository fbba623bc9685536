"""Sampler options of `effcap caption` and `effcap evaluate`."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.precision import ENGINES, check_engine, check_openvino
from effcap.tools.captioning.results import DEFAULT_PRESET, load_captioner, preset_sampler
from effcap.tools.cli.options import add_options, given_options, option_flag
from effcap.tools.cli.parsing import add_settings, check_fields, parse_sections
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.samplers import Sampler

SAMPLERS = {"beam": "Beam", "nucleus": "Nucleus", "greedy": "Greedy"}  # modules and their classes
DEFAULT = "beam"
OWN_OPTIONS = {"beam": ("num_beams", "length_penalty"), "nucleus": ("top_p", "temperature", "seed")}
SHARED_OPTIONS = ("max_new_tokens",)  # other fields: --set sampler.FIELD=VALUE
WORD_OPTIONS = {
    "include": ("WORD|WORD", "word or phrase in every caption, or alternatives; may be repeated"),
    "exclude": ("WORD", "word or phrase in no caption; may be repeated"),
}


def add_sampling(parser: argparse.ArgumentParser, *, num_captions: bool = False) -> None:
    """Adds the options of samplers, the prefix, the batch size and the precision.

    Args:
        parser: parser of the command.
        num_captions: whether to add --num-captions.
    """
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--sampler",
        choices=tuple(SAMPLERS),
        help="decoding method (default: that of the preset, otherwise beam)",
    )
    if num_captions:
        add_options(group, sampler_class("beam"), ("num_captions",), unset="{}")
    add_options(group, sampler_class("beam"), SHARED_OPTIONS, unset="{}")
    group.add_argument(
        "--prefix",
        metavar="TEXT",
        help="text that captions begin with and continue (default: that of the preset, if any)",
    )
    for name, (metavar, text) in WORD_OPTIONS.items():
        group.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
    add_settings(group, "sampler.no_repeat_ngram_size=2")
    group.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="inputs captioned per batch"
    )
    add_engine(group)
    for name, fields in OWN_OPTIONS.items():
        group = parser.add_argument_group(f"sampling: {name}")
        add_options(group, sampler_class(name), fields, unset="{}")
    names = dict.fromkeys(
        field.name for name in SAMPLERS for field in dataclasses.fields(sampler_class(name))
    )
    parser.epilog = (
        f"--set sampler.FIELD=VALUE sets any field of the sampler: {', '.join(names)}. "
        "They are documented in effcap.samplers."
    )


def add_engine(group: argparse._ActionsContainer) -> None:
    """Adds --engine and --precision."""
    group.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        help="what runs the captioner: keras, or openvino, which is faster on a processor and "
        "starts without TensorFlow (default: keras)",
    )
    group.add_argument(
        "--precision",
        choices=tuple(dict.fromkeys(name for names in ENGINES.values() for name in names)),
        help="arithmetic of the captioner; bfloat16 keeps the weights in half the memory, int8 in "
        "a quarter, with openvino only (default: float32)",
    )


def start_engine(arguments: argparse.Namespace) -> None:
    """Checks --engine and --precision, and imports Keras for that engine.

    Raises:
        ImportError: the engine is not installed.
        ValueError: the engine does not have the precision, or an option requires Keras.
    """
    check_engine(arguments.engine or "keras", arguments.precision or "float32")
    for name in ("attention", "prefix_words"):
        if arguments.engine == "openvino" and getattr(arguments, name, None):
            raise ValueError(f"{option_flag(name)} requires --engine keras")
    if arguments.engine == "openvino":
        check_openvino()  # before Keras imports it
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "openvino"  # the lightest: no model is run by Keras
    start_keras()


def find_preset(arguments: argparse.Namespace) -> Path:
    """Returns the folder of --model, which is looked up or downloaded once for all of a command.

    Raises:
        FileNotFoundError: there is no such preset.
        OSError: it is on the hub and cannot be read.
    """
    from effcap.presets import preset_folder

    if getattr(arguments, "preset_folder", None) is None:
        arguments.preset_folder = preset_folder(arguments.model or DEFAULT_PRESET)
    return arguments.preset_folder


def chosen_captioner(arguments: argparse.Namespace, preset: str | os.PathLike[str]) -> Any:
    """Returns the captioner of a preset with --prefix, for --engine and --precision."""
    return load_captioner(preset, arguments.prefix, arguments.precision, arguments.engine)


def sampler_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of the sampler that are set.

    Raises:
        ValueError: a field belongs to another sampler or has another type, or the batch size is
            below 1.
    """
    if arguments.batch_size < 1:
        raise ValueError(f"Expected --batch-size of at least 1. Received: {arguments.batch_size}")
    sampler = arguments.sampler or DEFAULT
    cls = sampler_class(sampler)
    known = [field.name for field in dataclasses.fields(cls)]
    options = (*OWN_OPTIONS.values(), SHARED_OPTIONS, WORD_OPTIONS)
    names = [name for fields in options for name in fields]
    if "num_captions" in arguments:
        names.append("num_captions")
    fields = given_options(arguments, names)
    for name in fields:
        if name not in known:
            owners = [sampler for sampler in SAMPLERS if has_field(sampler, name)]
            raise ValueError(
                f"{option_flag(name)} requires --sampler {' or '.join(owners)}. "
                f"Received: --sampler {sampler}"
            )
    settings = parse_sections(arguments.set, ("sampler",))["sampler"]
    check_fields(cls, "sampler", settings)
    return {**settings, **fields}


def make_sampler(arguments: argparse.Namespace) -> Sampler | None:
    """Returns the sampler, or None for that of the preset if no option is given; imports Keras.

    Without --sampler, options change the sampler of the preset if it has them.

    Raises:
        ValueError: an option is out of range or belongs to another sampler.
    """
    from effcap import samplers

    fields = sampler_fields(arguments)
    if arguments.sampler is None and not fields:
        return None
    if arguments.sampler is None:
        own = preset_sampler(find_preset(arguments))
        if own is not None and all(hasattr(own, name) for name in fields):
            return dataclasses.replace(own, **fields)
    return samplers.get(arguments.sampler or DEFAULT, **fields)


def has_field(sampler: str, name: str) -> bool:
    """Returns whether a sampler has a field."""
    return name in [field.name for field in dataclasses.fields(sampler_class(sampler))]


def sampler_class(name: str) -> type:
    """Returns a dataclass with the fields and the docstrings of a sampler.

    It is created from the source code, because importing the samplers imports Keras.
    """
    return stand_in(name, SAMPLERS[name], (stand_in("base", "Sampler", ()),))


def stand_in(module: str, name: str, bases: Sequence[type]) -> type:
    """Returns a dataclass with the fields and the docstring of a class in effcap.samplers."""
    from effcap.utils.paths import resource_folder

    source = (resource_folder("samplers") / f"{module}.py").read_text(encoding="utf-8")
    (node,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    fields = []
    for line in node.body:
        if (
            isinstance(line, ast.AnnAssign)
            and isinstance(line.value, ast.expr)
            and not ast.unparse(line.annotation).startswith("ClassVar")
        ):
            default = ast.literal_eval(line.value)
            kind = int if default is None else type(default)
            fields.append((ast.unparse(line.target), kind, dataclasses.field(default=default)))
    namespace = {"__doc__": ast.get_docstring(node, clean=False)}
    return dataclasses.make_dataclass(name, fields, bases=tuple(bases), namespace=namespace)
