"""Registry of samplers by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from effcap.samplers.base import Sampler
from effcap.samplers.beam import Beam
from effcap.samplers.greedy import Greedy
from effcap.samplers.nucleus import Nucleus

SAMPLERS: dict[str, type[Sampler]] = {"beam": Beam, "greedy": Greedy, "nucleus": Nucleus}


def get(name_or_sampler: str | Sampler | type[Sampler], **fields: Any) -> Sampler:
    """Returns a sampler by name or class, or the given sampler unchanged.

    Args:
        name_or_sampler: `"beam"`, `"greedy"`, `"nucleus"`, a `Sampler` or its class.
        **fields: fields of the sampler named; the others have their defaults.

    Raises:
        ValueError: there is no such sampler, it has no such field, a value is out of range, or
            fields are given with a `Sampler`.
        TypeError: a value has the wrong type.

    Example:

    ```python
    sampler = get("beam", num_beams=3, max_new_tokens=20)
    ```
    """
    if isinstance(name_or_sampler, Sampler):
        if fields:
            raise ValueError(
                "Fields can be set only for a sampler name. Received: "
                f"{name_or_sampler!r} and {_listed(fields)}"
            )
        return name_or_sampler
    names = {id(cls): name for name, cls in SAMPLERS.items()}
    name = names.get(id(name_or_sampler), name_or_sampler)
    if not isinstance(name, str) or name not in SAMPLERS:
        raise ValueError(
            f"A sampler must be one of {', '.join(SAMPLERS)} or a Sampler. "
            f"Received: {name_or_sampler!r}"
        )
    sampler = SAMPLERS[name]
    known = [field.name for field in dataclasses.fields(sampler)]
    unknown = {name: value for name, value in fields.items() if name not in known}
    if unknown:
        raise ValueError(
            f"The {name} sampler has the fields {', '.join(known)}. Received: {_listed(unknown)}"
        )
    return sampler(**fields)


def to_config(sampler: Sampler) -> dict[str, Any]:
    """Returns the kind and the fields of a sampler as JSON can store them; see `from_config`.

    A generator of random numbers is left out: the sampler then draws with a new one.
    """
    kind = next(name for name, cls in SAMPLERS.items() if type(sampler) is cls)
    values = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    plain = (int, float, tuple)
    fields = {
        name: [list(x) if isinstance(x, tuple) else x for x in value]
        if isinstance(value, tuple)
        else value
        for name, value in values.items()
        if isinstance(value, plain)
    }
    return {"kind": kind, **fields}


def from_config(config: Mapping[str, Any]) -> Sampler:
    """Creates the sampler that a config describes.

    Args:
        config: "kind", which is "beam", "greedy" or "nucleus", and fields; the others have their
            defaults.

    Raises:
        ValueError, TypeError: as `get`.
    """
    fields = dict(config)
    return get(fields.pop("kind", None), **fields)


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
