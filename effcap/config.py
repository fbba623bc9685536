"""Hyperparameters: one JSON per model variant, and how to change one from the command line."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.utils.paths import resource_folder

ABOUT = ("description", "parameters", "needs")  # for people
SECTIONS = ("encoder", "decoder", "training")


def list_variants() -> list[str]:
    """Names of the variants in hparams/."""
    return sorted(path.stem for path in resource_folder("hparams").glob("*.json"))


def load_hparams(variant: str | PathLike) -> dict:
    """The hyperparameters of a variant, by name or by the path of a JSON file.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where the file is not of that form.
    """
    path = Path(variant)
    if path.suffix != ".json":
        path = resource_folder("hparams") / f"{variant}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a variant out of {', '.join(list_variants())}, or a JSON file. "
            f"Received: {str(variant)!r}"
        )
    return read_json(path, required=("encoder", "decoder"))


def read_json(path: Path, required: Iterable[str] = ()) -> dict:
    """A JSON object with at least the `required` keys; ValueError naming the file otherwise."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected JSON in {path}. Received: {error}") from error
    missing = [key for key in required if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise ValueError(f"Expected {', '.join(required)} in {path}. Missing: {', '.join(missing)}")
    return contents


def set_hparams(hparams: dict, settings: Iterable[str]) -> dict:
    """A copy of `hparams` with settings such as "decoder.dropout=0.1" made.

    A value is read as JSON, and as text where it is none.

    Raises:
        ValueError: for a setting without "=", or a path through something that is no section.
    """
    changed = copy.deepcopy(hparams)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, key = path.strip().split(".")
        if not equals or not key or not sections:
            raise ValueError(f"Expected a setting like decoder.dropout=0.1. Received: {setting!r}")
        place: Any = changed
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"Expected {section!r} to be a section. Received: {setting!r}")
        try:
            place[key] = json.loads(text)
        except json.JSONDecodeError:
            place[key] = text
    unknown = set(changed) - {*ABOUT, *SECTIONS}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"Expected settings of {', '.join(SECTIONS)}. Received: {names}")
    return changed


def model_hparams(hparams: dict, tokenizer: Any | None = None) -> tuple[dict, dict]:
    """Copies of the encoder's and decoder's hyperparameters, what may be left out filled in."""
    for section in ("encoder", "decoder"):
        if not isinstance(hparams.get(section), dict):
            raise ValueError(
                f"Expected hyperparameters with a section {section!r}. "
                f"Received: {section}={hparams.get(section)!r}"
            )
    encoder, decoder = copy.deepcopy(hparams["encoder"]), copy.deepcopy(hparams["decoder"])
    if decoder.get("vocabulary_size") is None:
        if tokenizer is None:
            raise ValueError(
                "Expected decoder.vocabulary_size, or a tokenizer to take it from. "
                "Received: neither"
            )
        decoder["vocabulary_size"] = tokenizer.vocabulary_size
    if decoder.get("width") is not None:
        encoder.setdefault("width", decoder["width"])
    return encoder, decoder


def construct(cls: type, arguments: dict, section: str) -> Any:
    """`cls(**arguments)`; ValueError naming those it does not have, and those it lacks."""
    parameters = inspect.signature(cls).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.name not in ("name", "kwargs")]
    needed = [p.name for p in parameters if p.default is p.empty and p.name in known]
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ValueError(
            f"Expected hyperparameters {', '.join(needed)} of {section}. "
            f"Missing: {', '.join(missing)}"
        )
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(
            f"Expected hyperparameters of {section} out of {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )
    return cls(**arguments)
