"""Fields of the samplers as settings of requests and of the page, derived from the dataclasses."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from effcap.samplers import Sampler
from effcap.samplers.registry import SAMPLERS
from effcap.tools.docstrings import field_docs, first_sentence

DEFAULT_SAMPLER = "beam"
MAX_ROWS = 32  # captions or beams per photo, which memory is proportional to
MAX_PHRASES = 64  # of include and exclude, whose tables have a row per token of each
MAX_PHRASE_CHARACTERS = 2000  # of all of them
MAX_SUPPRESSED = 1000  # tokens
Kind = Literal["integer", "number", "integers", "texts"]


@dataclass(frozen=True)
class Setting:
    """A field of one or several samplers.

    Attributes:
        name: name of the field.
        kind: type of its value.
        optional: whether None is a value.
        defaults: default of each sampler that has the field, by name of the sampler.
        help: first sentence of its documentation.
    """

    name: str
    kind: Kind
    optional: bool
    defaults: Mapping[str, Any]
    help: str

    def parse(self, value: Any) -> Any:
        """Converts a JSON value, or text of a form that is not empty, to the value of the field.

        Raises:
            ValueError: the value has another type.
        """
        if value is None and self.optional:
            return None
        if self.kind in ("integers", "texts"):
            return self._parse_list(value)
        return self._parse_number(value, self.kind)

    def _parse_list(self, value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            listed = json_list(value)
            words = [item for item in value.split(",") if item.strip()]
            value = words if listed is None else listed
        if not isinstance(value, list | tuple):
            self._refuse(value)
        if self.kind == "integers":
            return tuple(self._parse_number(item, "integer") for item in value)
        return tuple(self._parse_text(item) for item in value)

    def _parse_text(self, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)  # alternatives
        if not isinstance(value, str):
            self._refuse(value)
        return value.strip()

    def _parse_number(self, value: Any, kind: str) -> int | float:
        number = parse_json_number(value) if isinstance(value, str) else value
        if kind == "integer" and isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, int) and not isinstance(number, bool) and kind == "integer":
            return number
        if not isinstance(number, int | float) or isinstance(number, bool) or kind == "integer":
            self._refuse(value)
        try:
            return float(number)
        except OverflowError:
            self._refuse(value)

    def _refuse(self, value: Any) -> typing.NoReturn:
        expected = {
            "integer": "an integer",
            "number": "a number",
            "integers": "a list of integers",
            "texts": "a list of texts",
        }[self.kind]
        shown = json.dumps(value, default=str)[:80]
        raise ValueError(f"Expected {self.name} as {expected}. Received: {shown}")

    def schema(self) -> dict[str, Any]:
        """Returns the JSON schema of the values."""
        items = {"integers": {"type": "integer"}, "texts": {"type": "string"}}
        of = " and ".join(self.defaults)
        schema: dict[str, Any] = {"description": f"{self.help} ({of})."}
        if self.kind in items:
            schema |= {"type": "array", "items": items[self.kind]}
        else:
            schema["type"] = self.kind
        defaults = list(self.defaults.values())
        if all(default == defaults[0] for default in defaults) and defaults[0] not in (None, ()):
            schema["default"] = defaults[0]
        return schema


def sampler_settings() -> dict[str, Setting]:
    """Returns the settings of all samplers by name, in the order of their use."""
    found: dict[str, Setting] = {}
    for sampler, cls in SAMPLERS.items():
        hints, docs = typing.get_type_hints(cls), field_docs(cls)
        for field in dataclasses.fields(cls):
            if field.name in found:
                known = found[field.name]
                defaults = {**known.defaults, sampler: field.default}
                found[field.name] = dataclasses.replace(known, defaults=defaults)
                continue
            kind, optional = field_kind(hints[field.name])
            help = first_sentence(docs[field.name]).replace("`", "")
            found[field.name] = Setting(field.name, kind, optional, {sampler: field.default}, help)
    shared = [field.name for field in dataclasses.fields(Sampler)]
    return {name: found[name] for name in sorted(found, key=lambda name: name in shared)}


def field_kind(annotation: Any) -> tuple[Kind, bool]:
    """Returns the kind of a field's values, and whether None is one.

    Raises:
        TypeError: a field of this type cannot be a setting.
    """
    if typing.get_origin(annotation) in (list, tuple):
        return ("integers" if int in typing.get_args(annotation) else "texts"), False
    members = typing.get_args(annotation) or (annotation,)
    optional = type(None) in members
    for member in members:
        if typing.get_origin(member) in (list, tuple):
            return field_kind(member)[0], optional
    if float in members:
        return "number", optional
    if int in members:
        return "integer", optional
    raise TypeError(f"Expected a field of numbers or texts. Received: {annotation}")


def parse_sampler(name: str | None, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the kind and the fields of a sampler for `effcap.samplers.registry.from_config`.

    Args:
        name: "beam", "nucleus" or "greedy". None for the default.
        values: values of fields, as JSON or as text of a form, where "" stands for no value.

    Returns:
        None for the sampler of the preset, if neither a name nor a value is given.

    Raises:
        ValueError: there is no such sampler or field, a value has another type, or values exceed a
            limit.
    """
    settings = sampler_settings()
    for field in values:
        if field not in settings:
            known = ", ".join(settings)
            raise ValueError(f"Unknown field {field[:80]!r}. The fields of samplers are {known}")
    values = {field: value for field, value in values.items() if value != ""}
    if name in (None, "") and not values:
        return None
    name = name or DEFAULT_SAMPLER
    if name not in SAMPLERS:
        raise ValueError(
            f"Expected sampler as one of {', '.join(SAMPLERS)}. Received: {name[:80]!r}"
        )
    fields = {}
    for field, value in values.items():
        if name not in settings[field].defaults:
            owners = " or ".join(settings[field].defaults)
            raise ValueError(f"{field} requires the sampler {owners}. Received: {name}")
        fields[field] = settings[field].parse(value)
    for field in ("num_beams", "num_captions"):
        if fields.get(field, 0) > MAX_ROWS:
            raise ValueError(f"Expected {field} of at most {MAX_ROWS}. Received: {fields[field]}")
    check_lists(fields)
    return {"kind": name, **fields}


def check_lists(fields: Mapping[str, Any]) -> None:
    """Checks the sizes of the lists among the fields of a sampler.

    Raises:
        ValueError: they are too large for a server.
    """
    count = len(fields.get("suppress_tokens", ()))
    if count > MAX_SUPPRESSED:
        raise ValueError(f"Expected at most {MAX_SUPPRESSED} suppress_tokens. Received: {count}")
    phrases = [
        phrase
        for item in (*fields.get("include", ()), *fields.get("exclude", ()))
        for phrase in (item.split("|") if isinstance(item, str) else item)
    ]
    if len(phrases) > MAX_PHRASES:
        raise ValueError(
            f"Expected at most {MAX_PHRASES} phrases in include and exclude together. "
            f"Received: {len(phrases)}"
        )
    characters = sum(map(len, phrases))
    if characters > MAX_PHRASE_CHARACTERS:
        raise ValueError(
            f"Expected at most {MAX_PHRASE_CHARACTERS} characters in include and exclude together. "
            f"Received: {characters}"
        )


def parse_json_number(text: str) -> int | float | None:
    """Returns the number that a text is, or None."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def json_list(text: str) -> list[Any] | None:
    """Returns the list that a text is in JSON, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None
