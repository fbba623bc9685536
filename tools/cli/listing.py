"""`effcap list`: lists presets and variants, or the settings of one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from rich.console import Console

TRAINING_BYTES = 16  # per parameter: weight, gradient and AdamW's two moments, in float32

DECODER_NAMES = {"gpt2": "GPT-2", "bert": "BERT"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap list`."""
    parser.description = (
        "Lists the presets to caption with and the variants to train; or the settings of one that "
        "`effcap train --set NAME=VALUE` can change."
    )
    parser.add_argument(
        "model", nargs="?", metavar="VARIANT|PRESET", help="variant or preset to list settings of"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap list`."""
    from rich.console import Console

    console = Console(highlight=False)
    if arguments.model:
        show_settings(console, arguments.model)
    else:
        show_models(console)


def show_settings(console: Console, model: str) -> None:
    """Prints the settings of a variant or preset with their values."""
    from rich.table import Table
    from rich.text import Text

    start_keras()
    from effcap.tools.reports.settings import list_settings

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", overflow="fold")
    table.add_column()
    for setting in list_settings(model):
        table.add_row(Text(setting.assignment), Text(setting.text))
    console.print(table)


def show_models(console: Console) -> None:
    """Prints all presets and variants."""
    from effcap.config import list_variants, load_hparams
    from effcap.presets import list_presets, preset_folder, read_config

    presets = {name: read_config(preset_folder(name)) for name in list_presets()}
    variants = {name: load_hparams(name) for name in list_variants()}
    show(console, "Presets", "trained: effcap caption PHOTO --model NAME", presets)
    console.print()
    show(console, "Variants", "to train: effcap train csv --model NAME ...", variants)


def show(console: Console, title: str, usage: str, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a heading and a table of models."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((title, "bold"), (f"  {usage}", "dim")))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, hparams in models.items():
        lines = [Text(summarize(hparams))]
        lines += [Text(line, style="dim") for line in notes(hparams)]
        table.add_row(f"  {name}", Text("\n").join(lines))
    if models:
        console.print(table)
    else:
        console.print("  none")


def summarize(hparams: Mapping[str, Any]) -> str:
    """Returns a line about the encoder and the decoder."""
    encoder, decoder = hparams["encoder"], hparams["decoder"]
    words = [encoder_name(encoder)]
    layers, width = decoder.get("num_layers", 12), decoder.get("hidden_dim", 768)
    kind = decoder.get("kind", "gpt2")
    words.append(f"{DECODER_NAMES.get(kind, kind)} of {layers} × {width}")
    if decoder.get("vocabulary_size"):
        words.append(f"{decoder['vocabulary_size']:,} tokens")
    return ", ".join(words)


def encoder_name(encoder: Mapping[str, Any]) -> str:
    """Returns the network and its image size, or the features that the encoder takes."""
    backbone = encoder.get("backbone")
    if backbone is None:
        return f"features: {', '.join(encoder.get('modalities', [encoder['kind']]))}"
    network, size = backbone.get("network"), backbone.get("image_size")
    name = network if isinstance(network, str) else "a Keras model"
    return f"{name} at {size[0]}×{size[1]}" if size else name


def notes(hparams: Mapping[str, Any]) -> list[str]:
    """Returns lines about the purpose, the size and the requirements of a variant."""
    lines = [hparams["description"]] if hparams.get("description") else []
    if hparams.get("parameters"):
        count = hparams["parameters"]
        lines.append(
            f"{count / 1e6:,.1f} M parameters; {TRAINING_BYTES * count / 1e9:.1f} GB to train all "
            "of them, plus memory for the batches"
        )
    if hparams.get("needs"):
        lines.append(f"needs {hparams['needs']}")
    return lines
