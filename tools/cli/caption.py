"""`effcap caption`: captions photos, shards, region features or playlists."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effcap.tools.captioning.caption_writer import WritePlan
from effcap.tools.captioning.results import (
    DEFAULT_PRESET,
    CaptionResults,
    check_min_confidence,
    model_name,
)
from effcap.tools.cli.caption_attention import (
    add_attention,
    check_attention_options,
    check_number_of_photos,
    write_attention,
)
from effcap.tools.cli.caption_playlists import (
    add_playlists,
    check_playlist_options,
    run_playlists,
)
from effcap.tools.cli.caption_regions import (
    add_regions,
    check_region_options,
    run_regions,
)
from effcap.tools.cli.caption_shards import add_shards, check_options, run_shards
from effcap.tools.cli.caption_sidecars import (
    add_sidecars,
    check_sidecar_options,
    make_writer,
    print_written,
)
from effcap.tools.cli.outputs import (
    check_file,
    check_table_file,
    print_missing,
    print_skipped,
    print_uncertain,
    refuse_prefix_words,
    write_captions,
)
from effcap.tools.cli.parsing import add_config
from effcap.tools.cli.sampling import (
    add_sampling,
    chosen_captioner,
    find_preset,
    make_sampler,
    sampler_fields,
    start_engine,
)
from effcap.tools.reports.tables import read_table, valid_text

if TYPE_CHECKING:
    from effcap.caption import Caption

MASKED_WORD = "-"  # printed for a masked position of a prefix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `effcap caption`."""
    parser.description = (
        "Captions photos, webdataset shards, region features or playlists. Captions are printed, "
        "or written to --out; those of shards are Parquet files in a folder."
    )
    parser.add_argument(
        "photos", nargs="*", metavar="PHOTO", help="file, folder, or pattern in quotes"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_PRESET,
        metavar="PRESET",
        help="name or folder of a preset, or hf://USER/NAME on the Hugging Face hub",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file of captions and scores to write: .json, .jsonl, .csv or .parquet; with "
        "--shards, a folder",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="table of what became of each photo to write, in the formats of --out",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="HTML page of photos and captions to write"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="file of an earlier --out, whose captions the page shows for comparison",
    )
    parser.add_argument(
        "--prefix-words",
        action="store_true",
        help="also the words nearest to the photo's prefix, for captioners with a prefix",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        metavar="X",
        help="leave photos for a person whose best caption has a lower confidence, in 0..1: they "
        "are listed and get no caption",
    )
    add_attention(parser)
    add_sidecars(parser)
    add_config(parser)
    add_shards(parser)
    add_regions(parser)
    add_playlists(parser)
    add_sampling(parser, num_captions=True)


def run(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption`."""
    check_options(arguments)
    check_region_options(arguments)
    check_playlist_options(arguments)
    refuse_prefix_words(arguments)
    check_attention_options(arguments)
    check_sidecar_options(arguments)
    if arguments.shards:
        run_shards(arguments)
    elif arguments.features:
        run_regions(arguments)
    elif arguments.playlist:
        run_playlists(arguments)
    else:
        run_photos(arguments)


def run_photos(arguments: argparse.Namespace) -> None:
    """Runs `effcap caption PHOTO ...`."""
    if not arguments.photos:
        arguments.parser.error(
            "the following arguments are required: PHOTO, --shards, --features or --playlist"
        )
    from effcap.utils.find_files import find_photos

    check_table_file(arguments.out, "--out")
    check_table_file(arguments.report, "--report")
    check_file(arguments.page, "--page")
    if arguments.beside and not arguments.page:
        raise ValueError("--beside requires --page")
    minimum = arguments.min_confidence or 0.0
    check_min_confidence(minimum)
    sampler_fields(arguments)  # reports errors before Keras is imported
    preset = find_preset(arguments)
    paths = find_photos(arguments.photos)
    earlier = read_earlier_captions(arguments.beside) if arguments.beside else None
    writer = make_writer(arguments)
    check_number_of_photos(arguments, len(paths))
    plan = None if writer is None else writer.plan(paths)
    if plan is not None and len(plan.left_out) == len(paths):
        finish(arguments, CaptionResults([], plan.refused, plan.existing), plan, len(paths))
        return
    start_engine(arguments)
    from effcap.tools.captioning.photos import caption_paths

    captioner = chosen_captioner(arguments, preset)
    batch_size = arguments.batch_size
    if arguments.prefix_words and not captioner.decoder.prefix_length:
        raise ValueError(f"--prefix-words requires a captioner with a prefix. Received: {preset}")
    results = caption_paths(
        paths,
        captioner,
        make_sampler(arguments),
        batch_size,
        plan=plan,
        min_confidence=minimum,
    )
    entries = [caption_entry(path, captions) for path, captions in results.captions]
    if arguments.prefix_words:
        photos = [path for path, _ in results.captions]
        words = captioner.prefix_words(photos, batch_size=batch_size)
        for entry, photo_words in zip(entries, words, strict=True):
            entry["prefix_words"] = photo_words
    write(arguments, entries, earlier)
    finish(arguments, results, plan, len(paths))
    write_attention(arguments, captioner, results)


def finish(
    arguments: argparse.Namespace,
    results: CaptionResults[Path],
    plan: WritePlan | None,
    num_photos: int,
) -> None:
    """Prints what was written and what was not, and writes the table of --report.

    Raises:
        ValueError: no photo could be captioned.
    """
    from effcap.tools.captioning.results import check_some_used

    if plan is not None:
        print_written(plan, results)
        if results.existing:
            print_without_existing(arguments, results)
    print_missing(results.captions + results.uncertain)
    print_uncertain(results, num_photos, arguments.min_confidence or 0.0)
    reason = "cannot be read" if plan is None else "were skipped"
    print_skipped(results.skipped, num_photos, reason)
    write_report(arguments.report, results)
    if plan is not None and not plan.existing:
        check_some_used(num_photos, results.skipped)


def print_without_existing(arguments: argparse.Namespace, results: CaptionResults[Path]) -> None:
    """Says of each file of captions that it is without those of earlier runs."""
    from effcap.utils.progress import print_line

    for option in ("out", "page", "attention"):
        path = getattr(arguments, option)
        if path is not None and results.captions:
            print_line(f"{path} has the {len(results.captions)} new captions only")
        elif path is not None:
            print_line(f"{path} is not written: there are no new captions")


def write_report(path: Path | None, results: CaptionResults[Path]) -> None:
    """Writes the table of --report and prints its path."""
    from effcap.tools.reports.tables import write_table
    from effcap.utils.progress import print_line

    if path is not None:
        write_table(path, results.outcomes())
        print_line(f"report: {path}")


def caption_entry(path: Path, captions: Sequence[Caption]) -> dict[str, Any]:
    """Returns the entry of a photo in a file of captions."""
    if len(captions) == 1:
        (best,) = captions
        scores = {"score": best.score, "confidence": best.confidence}
        return {"image": str(path), "caption": best.text, **scores}
    return {
        "image": str(path),
        "captions": [x.text for x in captions],
        "scores": [x.score for x in captions],
        "confidences": [x.confidence for x in captions],
    }


def best_caption(entry: Mapping[str, Any]) -> tuple[str, float]:
    """Returns the first caption of an entry, and its score."""
    if "captions" in entry:
        return entry["captions"][0], entry["scores"][0]
    return entry["caption"], entry["score"]


def write(
    arguments: argparse.Namespace,
    entries: Sequence[dict[str, Any]],
    earlier: Mapping[str, tuple[str, float]] | None,
) -> None:
    """Writes captions to --out or prints them, and writes the page."""
    from effcap.utils.progress import print_line

    if arguments.out:
        write_captions(arguments.out, entries)
    elif not arguments.sidecar and not arguments.write:
        for entry in entries:
            for caption in entry.get("captions") or [entry["caption"]]:
                shown = [entry["image"], caption]
                if "prefix_words" in entry:
                    shown.append(" ".join(word or MASKED_WORD for word in entry["prefix_words"]))
                print(*map(valid_text, shown), sep="\t")
    if arguments.page:
        from effcap.tools.reports.page import write_page

        columns = page_columns(arguments, entries, earlier)
        write_page(arguments.page, [entry["image"] for entry in entries], columns)
        print_line(f"page: {arguments.page}")


def page_columns(
    arguments: argparse.Namespace,
    entries: Sequence[dict[str, Any]],
    earlier: Mapping[str, tuple[str, float]] | None,
) -> dict[str, list[Any]]:
    """Returns the columns of the page: earlier captions, named after their file, and new ones."""
    scored = [best_caption(entry) for entry in entries]
    if earlier is None:
        return {model_name(arguments.model): scored}
    before = [earlier.get(os.path.abspath(entry["image"])) for entry in entries]
    if entries and not any(before):
        raise ValueError(
            f"Expected captions of these photos in {arguments.beside}. Received: captions of "
            f"others, such as {next(iter(earlier), 'none')}"
        )
    names = [arguments.beside.stem, arguments.out.stem if arguments.out else "now"]
    if names[0] == names[1]:
        names = [str(arguments.beside), str(arguments.out or "now")]
    return dict(zip(names, (before, scored), strict=True))


def read_earlier_captions(path: Path) -> dict[str, tuple[str, float]]:
    """Reads (caption, score) by absolute path of the photo from a file written by --out.

    Raises:
        ValueError: the file has another format.
    """
    try:
        entries = read_table(path)
        return {os.path.abspath(entry["image"]): best_caption(entry) for entry in entries}
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(
            f"Expected captions written by --out in {path}. Received: {error!r}"
        ) from None
