"""`effcap list`: presets and variants."""

from __future__ import annotations

import argparse

BYTES = 16  # per trained parameter: itself, its gradient and AdamW's two moments, in float32


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `list`."""
    parser = commands.add_parser(
        "list",
        help="list presets and variants",
        description="Lists the presets to caption with and the variants to train.",
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap list`."""
    from rich.console import Console

    from effcap.config import list_variants, load_hparams, read_json
    from effcap.presets import CONFIG, list_presets, preset_folder

    presets = {
        name: read_json(preset_folder(name) / CONFIG, ("encoder", "decoder"))
        for name in list_presets()
    }
    variants = {name: load_hparams(name) for name in list_variants()}
    console = Console(highlight=False)
    show(console, "Presets", "trained: effcap caption PHOTO --model NAME", presets)
    console.print()
    show(console, "Variants", "to train: effcap train csv --model NAME ...", variants)


def show(console, title: str, use: str, models: dict[str, dict]) -> None:
    """Prints a heading and the models under it, what they are beside their names."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text.assemble((title, "bold"), (f"  {use}", "dim")))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    for name, hparams in models.items():
        lines = [Text(summary(hparams))]
        lines += [Text(line, style="dim") for line in about(hparams)]
        table.add_row(f"  {name}", Text("\n").join(lines))
    if models:
        console.print(table)
    else:
        console.print("  none")


def summary(hparams: dict) -> str:
    """A line about encoder and decoder."""
    backbone, decoder = hparams["encoder"].get("backbone", {}), hparams["decoder"]
    network, size = backbone.get("network"), backbone.get("image_size")
    parts = [network if isinstance(network, str) else "a Keras model"]
    if size:
        parts[0] += f" at {size[0]}×{size[1]}"
    parts.append(f"GPT-2 of {decoder.get('layers', 12)} × {decoder.get('width', 768)}")
    if decoder.get("vocabulary_size"):
        parts.append(f"{decoder['vocabulary_size']:,} tokens")
    return ", ".join(parts)


def about(hparams: dict) -> list[str]:
    """What a variant is for, how large it is and what it needs, as far as it says so."""
    lines = [hparams["description"]] if hparams.get("description") else []
    if hparams.get("parameters"):
        count = hparams["parameters"]
        lines.append(
            f"{count / 1e6:,.1f} M parameters; {BYTES * count / 1e9:.1f} GB to train them all, "
            "besides what batches take"
        )
    if hparams.get("needs"):
        lines.append(f"needs {hparams['needs']}")
    return lines
