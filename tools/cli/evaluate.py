"""`effcap evaluate`: scores a captioner, or captions from a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.metrics.tokenize import TOKENIZATIONS
from effcap.tools.captioning.results import DEFAULT_PRESET, preset_sampler
from effcap.tools.cli.caption_regions import add_features
from effcap.tools.cli.data_options import add_columns, add_images, columns
from effcap.tools.cli.dataset_options import add_dataset, read_split
from effcap.tools.cli.evaluate_playlists import (
    add_playlists,
    check_playlist_options,
    run_playlists,
)
from effcap.tools.cli.options import option_flag
from effcap.tools.cli.outputs import check_file, check_folder
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.sampling import (
    DEFAULT,
    add_sampling,
    chosen_captioner,
    find_preset,
    make_sampler,
    sampler_fields,
    start_engine,
)

if TYPE_CHECKING:
    from effcap.tools.evaluation.evaluate import Evaluation
    from effcap.tools.evaluation.references import References

REFERENCES = ("csv", "references", "dataset", "playlists")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap evaluate`."""
    parser.description = (
        "Captions photos and scores the captions against references, or scores captions from a "
        "file: BLEU, ROUGE-L and CIDEr as COCO's evaluation computes them."
    )
    data = parser.add_argument_group("references")
    data.add_argument(
        "--csv", nargs="+", type=Path, metavar="FILE", help="CSV files, one caption per line"
    )
    data.add_argument(
        "--references",
        nargs="+",
        type=Path,
        metavar="FILE|DIR",
        help="CSV files, COCO's captions_*.json, JSON of photos, or folders as for effcap train "
        "folder, in place of --csv",
    )
    add_dataset(data, "--csv", "; of --playlists, test by default")
    add_columns(data)
    add_images(data)
    add_playlists(parser.add_argument_group("playlists"))
    scored = parser.add_argument_group("captions to score")
    scored.add_argument(
        "--model",
        metavar="PRESET",
        help=f"name, folder or hf:// name of a preset (default: {DEFAULT_PRESET})",
    )
    add_features(scored)
    scored.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="JSON file of captions to score in place of a preset: COCO results, or records "
        '{"image", "caption"}',
    )
    scored.add_argument(
        "--tokenize",
        choices=tuple(TOKENIZATIONS),
        default="ptb",
        help="words that are counted: ptb for English as COCO's evaluation, unicode for other "
        "languages, char for scripts without spaces",
    )
    scored.add_argument("--meteor", action="store_true", help="add METEOR, which requires Java")
    scored.add_argument(
        "--spice", action="store_true", help="add SPICE, which requires Java and downloads jars"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for scores.json, captions.json and index.html with the best, the worst and "
        "random photos",
    )
    results.add_argument("--json", type=Path, metavar="FILE", help="file for the scores only")
    add_config(parser)
    add_sampling(parser, num_captions=True)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap evaluate`."""
    from effcap.metrics.java import check_available
    from effcap.metrics.scores import check_extra
    from effcap.utils.progress import print_line

    fields = check(arguments)
    metrics = requested_metrics(arguments)
    check_extra(metrics, arguments.tokenize)
    for metric in metrics:
        check_available(metric)
    if metrics:
        print_line(f"{' and '.join(metrics)} may take minutes")
    record: dict[str, Any] = {"sampler": sampler_record(arguments, fields)}
    if arguments.prefix is not None:
        record["prefix"] = arguments.prefix
    if arguments.precision is not None:
        record["precision"] = arguments.precision
    if arguments.playlists:
        evaluation, fields = run_playlists(arguments, metrics)
        record = {**fields, **record}
    elif arguments.captions:
        evaluation = run_captions(arguments)
        record = {"captions": str(arguments.captions)}
    else:
        evaluation = run_model(arguments)
        record["model"] = arguments.model or DEFAULT_PRESET
        if arguments.features:
            record["features"] = str(arguments.features)
    record["references"] = [
        str(path) for name in REFERENCES for path in getattr(arguments, name) or ()
    ]
    record["tokenization"] = arguments.tokenize
    record["command"] = ["effcap", *arguments.arguments]
    show(evaluation)
    write(arguments, evaluation, record)


def sampler_record(arguments: argparse.Namespace, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the name and the fields of the sampler, for the record of the scores."""
    if arguments.sampler is None and not arguments.captions:
        from effcap.samplers.registry import to_config  # imports Keras

        own = preset_sampler(find_preset(arguments))
        sampler = own and (make_sampler(arguments) or own)
        if own is not None and type(sampler) is type(own):
            config = to_config(sampler)
            return {"name": config["kind"], **{k: v for k, v in config.items() if k != "kind"}}
    return {"name": arguments.sampler or DEFAULT, **fields}


def requested_metrics(arguments: argparse.Namespace) -> list[str]:
    """Returns the names of the metrics to add."""
    return [name for name in ("METEOR", "SPICE") if getattr(arguments, name.lower())]


def check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of the sampler; raises a `ValueError` for options in conflict."""
    sources = [name for name in REFERENCES if getattr(arguments, name)]
    if len(sources) != 1:
        received = " and ".join(f"--{name}" for name in sources) or "none"
        *first, last = (f"--{name}" for name in REFERENCES)
        raise ValueError(f"Give one of {', '.join(first)} and {last}. Received: {received}")
    if arguments.split is not None and not (arguments.dataset or arguments.playlists):
        raise ValueError("--split requires --dataset or --playlists")
    check_playlist_options(arguments)
    check_folder(arguments.out, "--out")
    check_file(arguments.json, "--json")
    if arguments.max_regions is not None and not arguments.features:
        raise ValueError("--max-regions requires --features")
    fields = sampler_fields(arguments)
    if arguments.captions:
        for name in ("model", "features", "prefix", "precision", *fields):
            if name in fields or getattr(arguments, name) is not None:
                raise ValueError(f"{option_flag(name)} cannot be used with --captions")
    return fields


def find_references(arguments: argparse.Namespace) -> References:
    """Reads the files of --csv or --references, or the data of --dataset."""
    from effcap.tools.evaluation.references import dataset_references, read_references

    if arguments.dataset:
        return dataset_references(read_split(arguments, arguments.dataset, arguments.split))

    return read_references(
        arguments.csv or arguments.references,
        arguments.images,
        **columns(arguments),
    )


def run_captions(arguments: argparse.Namespace) -> Evaluation:
    """Scores captions from a file, without Keras."""
    from effcap.tools.evaluation.evaluate import evaluate

    references = find_references(arguments)
    if not arguments.captions.is_file():
        raise FileNotFoundError(f"There is no file of captions {arguments.captions}")
    return evaluate(
        arguments.captions,
        references,
        metrics=requested_metrics(arguments),
        tokenization=arguments.tokenize,
    )


def run_model(arguments: argparse.Namespace) -> Evaluation:
    """Scores the captions of a preset."""
    from effcap.tools.evaluation.evaluate import check_photos_exist, evaluate

    references = find_references(arguments)
    preset = find_preset(arguments)
    features = None
    if arguments.features:
        from effcap.tools.captioning.regions import open_regions

        features = open_regions(arguments.features, preset, arguments.max_regions)
    else:
        check_photos_exist(references)
    start_engine(arguments)
    return evaluate(
        chosen_captioner(arguments, preset),
        references,
        make_sampler(arguments),
        features=features,
        batch_size=arguments.batch_size,
        metrics=requested_metrics(arguments),
        tokenization=arguments.tokenize,
    )


def show(evaluation: Evaluation) -> None:
    """Prints the notes, and the scores as a table."""
    from rich.console import Console
    from rich.table import Table

    from effcap.tools.evaluation.report import format_score
    from effcap.utils.progress import print_line

    for note in evaluation.captions.notes:
        print_line(note)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, number in {**evaluation.counts, **evaluation.scores.corpus}.items():
        if number or not isinstance(number, int):
            table.add_row(name, format_score(name, number))
    Console(highlight=False).print(table)


def write(arguments: argparse.Namespace, evaluation: Evaluation, record: dict[str, Any]) -> None:
    """Writes the files of --json and --out."""
    from effcap.tools.evaluation.report import score_record, write_report
    from effcap.tools.reports.json_files import write_json
    from effcap.utils.progress import print_line

    if arguments.json:
        write_json(arguments.json, score_record(evaluation, record))
        print_line(f"scores: {arguments.json}")
    if arguments.out:
        path = write_report(evaluation, arguments.out, record)
        if path.suffix == ".html":
            print_line(f"scores, captions and page: {path}")
            return
        print_line(f"scores and captions: {path}")
        if not arguments.playlists:
            example = evaluation.captions.photos[0].path
            print_line(f"no page: there is no photo such as {example}; set --images")
