"""Hyperparameters: one JSON file per model variant, and changes to them."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from effcap.utils.paths import resource_folder

SECTIONS = ("encoder", "decoder", "training")
PYTHON_CONSTANTS = ("True", "False", "None")
NOTES = ("description", "parameters", "needs")  # shown to people, not read by the model


def list_variants() -> list[str]:
    """Returns the names of the variants in hparams/."""
    return sorted(path.stem for path in resource_folder("hparams").glob("*.json"))


def load_hparams(variant: str | PathLike) -> dict:
    """Reads the hyperparameters of a variant, by name or from a JSON file.

    Raises:
        FileNotFoundError: there is no such variant or file.
        ValueError: the file is not a JSON object with `encoder` and `decoder`.
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
    """Reads a JSON object with at least the `required` keys.

    Raises:
        ValueError: the file is not JSON, or lacks a key.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    missing = [key for key in required if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return contents


def parse_settings(settings: Iterable[str]) -> dict:
    """Parses settings such as "decoder.dropout=0.1" into nested dicts.

    A value is read as JSON, and as text where it is not JSON.

    Raises:
        ValueError: a setting has no "=" or no section, contradicts another one, or has Python's
            True, False or None as its value.
    """
    parsed: dict = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, key = path.strip().split(".")
        if not equals or not key or not sections or not all(sections):
            raise ValueError(f"Expected a setting like decoder.dropout=0.1. Received: {setting!r}")
        section: Any = parsed
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ValueError(f"Two settings set {name!r}. Received: {setting!r}")
        if text in PYTHON_CONSTANTS:  # as text, "False" would count as true
            raise ValueError(
                f"Expected a value in JSON, such as true, false or null. Received: {setting!r}"
            )
        try:
            section[key] = json.loads(text)
        except json.JSONDecodeError:
            section[key] = text
    return parsed


def merge_hparams(hparams: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict:
    """Returns a copy of `hparams` with nested `overrides` applied.

    Args:
        hparams: hyperparameters with the sections encoder, decoder and optionally training.
        overrides: changed values in the same nesting, such as `{"decoder": {"dropout": 0.2}}`.

    Raises:
        ValueError: there is no such section, or a value is given where a section is expected.
    """
    unknown = sorted(set(overrides) - set(SECTIONS))
    if unknown:
        raise ValueError(
            f"Expected settings of {', '.join(SECTIONS)}. Received: {', '.join(unknown)}"
        )
    return _merge(copy.deepcopy(dict(hparams)), overrides, "")


def _merge(target: dict, overrides: Mapping[str, Any], path: str) -> dict:
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            section = target.get(key) or {}
            if not isinstance(section, dict):
                raise ValueError(
                    f"{path}{key} is a value, not a section. Received: {path}{key}={dict(value)!r}"
                )
            target[key] = _merge(section, value, f"{path}{key}.")
        else:
            target[key] = copy.deepcopy(value)
    return target


def model_hparams(hparams: dict, tokenizer: Any | None = None) -> tuple[dict, dict]:
    """Returns copies of the encoder's and the decoder's hyperparameters.

    Args:
        hparams: hyperparameters with the sections encoder and decoder.
        tokenizer: sets `decoder.vocabulary_size` if it is null.

    Raises:
        ValueError: a section is missing, or the vocabulary size is not known.
    """
    for section in ("encoder", "decoder"):
        if not isinstance(hparams.get(section), dict):
            raise ValueError(
                f"Expected hyperparameters with a section {section!r}. "
                f"Received: {section}={hparams.get(section)!r}"
            )
    encoder, decoder = copy.deepcopy(hparams["encoder"]), copy.deepcopy(hparams["decoder"])
    if decoder.get("vocabulary_size") is None:
        if tokenizer is None:
            raise ValueError("decoder.vocabulary_size is null and there is no tokenizer to set it")
        decoder["vocabulary_size"] = tokenizer.vocabulary_size
    return encoder, decoder


def create(
    section: str,
    kinds: Mapping[str, type],
    arguments: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Creates the encoder or decoder configured by a section of hyperparameters.

    Args:
        section: name of the section, for messages.
        kinds: classes by kind.
        arguments: `kind`, and the arguments of that class.
        defaults: values of arguments that are not given, for the classes that have them.

    Raises:
        ValueError: the kind is unknown, or an argument is unknown, missing or out of range.
    """
    arguments = dict(arguments)
    kind = arguments.pop("kind", None)
    if kind not in kinds:
        raise ValueError(
            f"Expected {section}.kind out of {sorted(kinds)}. Received: {section}.kind={kind!r}"
        )
    parameters = inspect.signature(kinds[kind]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.name not in ("name", "kwargs")]
    required = [p.name for p in parameters if p.default is p.empty and p.name in known]
    arguments = {k: v for k, v in (defaults or {}).items() if k in known} | arguments
    missing = [name for name in required if name not in arguments]
    if missing:
        raise ValueError(f"{section} lacks the hyperparameters {', '.join(missing)}")
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(
            f"Expected hyperparameters of {section} out of {', '.join(known)}. "
            f"Received: {', '.join(unknown)}"
        )
    return kinds[kind](**arguments)
