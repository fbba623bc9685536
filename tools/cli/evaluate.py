"""`effcap evaluate`: scores of a captioner, or of captions that anyone made."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.cli.captioning import (
    DEFAULT_PRESET,
    SAMPLING,
    add_sampling,
    caption_photos,
    model_name,
    sampler_fields,
    write_json,
)
from effcap.tools.cli.data_arguments import add_features, open_features
from effcap.tools.cli.evaluate_playlists import (
    add_playlists,
    captions_of_playlists,
    check_playlist_options,
)
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.terminal import start_keras

if TYPE_CHECKING:
    from effcap.metrics import Scores
    from effcap.tools.cli.results import References
    from effcap.trainers import CaptionedPhoto

REFERENCES = ("csv", "references", "playlists")
SHOWN = 8  # photos in each section of the page


@dataclass
class Evaluated:
    """Photos with captions, and what there is to say of them.

    Attributes:
        photos: with their references.
        captions: of each photo, one or several.
        about: what made the captions: for `scores.json`.
        counts: of what could not be scored.
        likelihoods: of each photo, its captions' scores by the sampler, where a model made them.
    """

    photos: list[CaptionedPhoto]
    captions: list[Sequence[str]]
    about: dict[str, Any]
    counts: dict[str, int]
    likelihoods: list[list[float]] = field(default_factory=list)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="score a captioner, or captions from a file",
        description="Captions photos and scores the captions against references; or scores "
        "--captions that anyone made. BLEU, ROUGE-L and CIDEr as COCO's evaluation computes them.",
    )
    parser.set_defaults(run=run, parser=parser)
    data = parser.add_argument_group("references")
    data.add_argument(
        "--csv", nargs="+", type=Path, metavar="FILE", help="CSV with a photo and a caption a line"
    )
    data.add_argument(
        "--references",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="in place of --csv: CSV, COCO's captions_*.json, or JSON of photos",
    )
    data.add_argument("--image-column", default="image", metavar="NAME", help="column of the photo")
    data.add_argument(
        "--caption-column", default="caption", metavar="NAME", help="column of the caption"
    )
    data.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the photos; by default the file's own"
    )
    add_playlists(parser.add_argument_group("playlists"))
    scored = parser.add_argument_group("what is scored")
    scored.add_argument(
        "--model",
        metavar="PRESET",
        help=f"folder or name of a preset ({DEFAULT_PRESET} if not given)",
    )
    add_features(scored)
    scored.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="score these and not a model's: COCO's results, or a list of image and caption",
    )
    scored.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="captions per photo, to see how much they differ (beam, nucleus)",
    )
    scored.add_argument("--meteor", action="store_true", help="METEOR, too (needs Java)")
    scored.add_argument(
        "--spice", action="store_true", help="SPICE, too (needs Java, and jars it downloads)"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write scores.json, captions.json, and index.html with the best, the worst and random "
        "photos",
    )
    results.add_argument("--json", type=Path, metavar="FILE", help="write the scores alone")
    add_config(parser)
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap evaluate`."""
    from effcap.metrics import score_captions
    from effcap.metrics.java import check_available
    from effcap.utils.progress import say, track

    paths, fields = check(arguments)
    extra = [name for name in ("METEOR", "SPICE") if vars(arguments)[name.lower()]]
    for name in extra:
        check_available(name)
    evaluated = find_captions(arguments, paths, fields)
    if len(evaluated.photos) == 1:
        say("CIDEr compares with other photos' references: of one photo it is always 0")
    if extra:
        say(f"{' and '.join(extra)} may take minutes")
    scores = score_captions(
        evaluated.captions,
        [photo.captions for photo in evaluated.photos],
        extra,
        lambda texts, total: track(texts, total, "reading words"),
    )
    show(scores, evaluated)
    write(arguments, scores, evaluated)


def find_captions(arguments: argparse.Namespace, paths: list[Path], fields: dict) -> Evaluated:
    """What is to be scored."""
    from effcap.tools.cli.results import read_references

    if arguments.playlists:
        return Evaluated(*captions_of_playlists(arguments, fields))
    columns = (arguments.image_column, arguments.caption_column)
    references = read_references(paths, arguments.images, columns)
    if arguments.captions:
        return captions_of_file(arguments, references)
    if arguments.features:
        return captions_of_regions(arguments, references, fields)
    return captions_of_model(arguments, references, fields)


def check(arguments: argparse.Namespace) -> tuple[list[Path], dict]:
    """(files of references, the sampler's fields); ValueError for options that do not agree."""
    sources = [name for name in REFERENCES if vars(arguments)[name]]
    if len(sources) != 1:
        received = " and ".join(sources) or "none"
        raise ValueError(f"Expected --csv, --references or --playlists. Received: {received}")
    check_playlist_options(arguments)
    if arguments.samples < 1:
        raise ValueError(f"Expected --samples of at least 1. Received: {arguments.samples}")
    if arguments.out and arguments.out.exists() and not arguments.out.is_dir():
        raise NotADirectoryError(f"Expected a folder for --out. Received: {arguments.out}, a file")
    if arguments.json and arguments.json.is_dir():
        raise IsADirectoryError(f"Expected a file for --json. Received: {arguments.json}, a folder")
    fields = sampler_fields(arguments)
    if arguments.samples > 1:
        if arguments.sampler == "greedy":
            raise ValueError("Expected --sampler beam or nucleus with --samples. Received: greedy")
        fields["captions"] = arguments.samples
    if arguments.captions:
        given = [f"--{flag}" for flag, *_ in SAMPLING if flag.replace("-", "_") in fields]
        given += ["--samples"] * (arguments.samples > 1) + ["--model"] * bool(arguments.model)
        given += ["--features"] * bool(arguments.features)
        if given:
            raise ValueError(f"Expected no {given[0]}, which makes captions, with --captions")
    return vars(arguments)[sources[0]], fields


def captions_of_file(arguments: argparse.Namespace, references: References) -> Evaluated:
    """Captions that are there."""
    from effcap.tools.cli.results import SHOWN, match, read_results
    from effcap.utils.progress import say

    results = read_results(arguments.captions)
    found, missing, extra = match(results, references)
    for names, text in (
        (missing, f"of {len(references.photos)} photos with references have no caption"),
        (extra, f"of {len(results)} captioned photos have no references"),
    ):
        if names:
            more = ", ..." if len(names) > SHOWN else ""
            say(f"not scored: {len(names)} {text}: {', '.join(names[:SHOWN])}{more}")
    return Evaluated(
        [references.photos[place] for place in found],
        [result.captions for result in found.values()],
        {"captions": str(arguments.captions)},
        {"photos without captions": len(missing), "captions without references": len(extra)},
    )


def captions_of_model(
    arguments: argparse.Namespace, references: References, fields: dict
) -> Evaluated:
    """Captions of a preset."""
    from effcap.presets import preset_folder

    model = arguments.model or DEFAULT_PRESET
    preset = preset_folder(model)
    photos = {photo.path: photo for photo in references.photos}
    if not any(path.is_file() for path in photos):
        raise FileNotFoundError(
            f"Expected photos such as {next(iter(photos))}; give their folder with --images. "
            "Received: none of them is there"
        )
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner

    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    found = list(caption_photos(captioner, list(photos), sampler, arguments.batch_size))
    return Evaluated(
        [photos[path] for path, _ in found],
        [[caption.text for caption in options] for _, options in found],
        {"model": model, "sampler": {"name": arguments.sampler, **fields}},
        {"unreadable photos": len(photos) - len(found)},
        [[caption.score for caption in options] for _, options in found],
    )


def captions_of_regions(
    arguments: argparse.Namespace, references: References, fields: dict
) -> Evaluated:
    """Captions of a preset that takes region features."""
    from effcap.presets import preset_folder
    from effcap.tools.cli.caption_regions import caption_regions, trained_regions
    from effcap.trainers.data.regions.region_file import keys_of
    from effcap.utils.progress import say

    model = arguments.model or DEFAULT_PRESET
    preset = preset_folder(model)
    file = open_features(arguments, trained_regions(preset))
    ids = {place: number for number, place in references.ids.items()}
    found = {
        file.find(keys_of(photo.name, ids.get(place))): photo
        for place, photo in enumerate(references.photos)
    }
    missing = found.pop(None, None)
    if not found:
        raise ValueError(
            f"Expected features of photos such as {references.photos[0].name} in {file.path}. "
            f"Received: features of others, such as {file.example}"
        )
    if missing is not None:
        say(f"not all photos have features in {file.path}, such as {missing.name}")
    start_keras()
    from effcap import samplers
    from effcap.captioner import Captioner

    sampler = samplers.get(arguments.sampler, **fields)
    captioner = Captioner.from_preset(preset)
    captions = list(caption_regions(captioner, file, list(found), sampler, arguments.batch_size))
    return Evaluated(
        [found[name] for name, _ in captions],
        [[caption.text for caption in options] for _, options in captions],
        {
            "model": model,
            "features": str(arguments.features),
            "sampler": {"name": arguments.sampler, **fields},
        },
        {"photos not captioned": len(references.photos) - len(captions)},
        [[caption.score for caption in options] for _, options in captions],
    )


def show(scores: Scores, evaluated: Evaluated) -> None:
    """Prints the scores as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, number in {**counted(evaluated), **scores.corpus}.items():
        if number or not isinstance(number, int):
            table.add_row(name, written(name, number))
    Console(highlight=False).print(table)


def counted(evaluated: Evaluated) -> dict[str, int]:
    """How many photos, captions and references there are, and what was left out."""
    return {
        "photos": len(evaluated.photos),
        "captions": sum(map(len, evaluated.captions)),
        "references": sum(len(photo.captions) for photo in evaluated.photos),
        **evaluated.counts,
    }


def written(name: str, number: float) -> str:
    """A score as a table has it."""
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:.2f}" if name == "mean length" else f"{number:.4f}"


def write(arguments: argparse.Namespace, scores: Scores, evaluated: Evaluated) -> None:
    """Writes what was asked for."""
    from effcap.utils.progress import say

    record = {
        "scores": scores.corpus,
        "counts": counted(evaluated),
        **evaluated.about,
        "references": [str(path) for name in REFERENCES for path in vars(arguments)[name] or ()],
        "command": ["effcap", *arguments.arguments],
    }
    if arguments.json:
        write_json(arguments.json, record)
        say(f"scores: {arguments.json}")
    if arguments.out:
        write_json(arguments.out / "scores.json", record)
        write_json(arguments.out / "captions.json", entries(scores, evaluated))
        page = None if arguments.playlists else write_evaluation_page(arguments, scores, evaluated)
        say(f"scores, captions{' and page' if page else ''}: {page or arguments.out}")


def entries(scores: Scores, evaluated: Evaluated) -> list[dict]:
    """Photos with their captions and scores, in a form that --captions takes."""
    found = []
    for i, (photo, captions) in enumerate(zip(evaluated.photos, evaluated.captions, strict=True)):
        entry: dict[str, Any] = {"image": photo.name}
        several = len(captions) > 1
        entry["captions" if several else "caption"] = list(captions) if several else captions[0]
        if evaluated.likelihoods:
            likelihoods = evaluated.likelihoods[i]
            entry["scores" if several else "score"] = likelihoods if several else likelihoods[0]
        entry |= {name: float(values[i]) for name, values in scores.images.items()}
        found.append(entry)
    return found


def write_evaluation_page(
    arguments: argparse.Namespace, scores: Scores, evaluated: Evaluated
) -> Path | None:
    """The best, the worst and random photos by CIDEr; None where no photo is there to be shown."""
    from effcap.tools.reports.page import write_page
    from effcap.utils.progress import say

    sections = sections_by(scores.images["CIDEr"])
    chosen = [i for places in sections.values() for i in places]
    photos = [evaluated.photos[i] for i in chosen]
    if not any(photo.path.is_file() for photo in photos):
        say(f"no page: there is no photo such as {photos[0].path}; give the folder with --images")
        return None
    headings, start = {}, 0
    for heading, places in sections.items():
        headings[start] = heading
        start += len(places)
    single = [len(evaluated.captions[i]) == 1 for i in chosen]
    columns = {
        "caption and its CIDEr" if all(single) else "captions and their mean CIDEr": [
            [*evaluated.captions[i][:-1], (evaluated.captions[i][-1], scores.images["CIDEr"][i])]
            for i in chosen
        ],
        "references": [photo.captions for photo in photos],
    }
    told = ", ".join(f"{name} {written(name, scores.corpus[name])}" for name in ("CIDEr", "BLEU-4"))
    return write_page(
        arguments.out / "index.html",
        [photo.path for photo in photos],
        columns,
        title=model_name(evaluated.about.get("model") or arguments.captions.stem),
        note=f"{told} on {len(evaluated.photos):,} photos",
        names=[photo.name for photo in photos],
        headings=headings,
    )


def sections_by(cider: Sequence[float]) -> dict[str, list[int]]:
    """Places of the best, the worst and random others, each at most once; no empty sections."""
    import numpy as np

    order = [int(i) for i in np.argsort(-np.asarray(cider), kind="stable")]
    size = min(SHOWN, max(1, len(order) // 3))
    best, worst = order[:size], order[size:][-size:][::-1]
    others = order[size : len(order) - size]
    drawn = np.random.default_rng(0).permutation(others)[:size].tolist() if others else []
    sections = {"Best": best, "Worst": worst, "At random": drawn}
    return {heading: places for heading, places in sections.items() if places}
