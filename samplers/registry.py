"""Samplers by name, as the command line and configurations give them."""

from __future__ import annotations

import dataclasses
from typing import Any

from effcap.samplers.base import Sampler
from effcap.samplers.beam import Beam
from effcap.samplers.greedy import Greedy
from effcap.samplers.nucleus import Nucleus

SAMPLERS: dict[str, type[Sampler]] = {"beam": Beam, "greedy": Greedy, "nucleus": Nucleus}


def get(name: str, **fields: Any) -> Sampler:
    """Makes a sampler from its name and fields.

    Args:
        name: `"beam"`, `"greedy"` or `"nucleus"`.
        **fields: of the sampler; those not given keep their defaults.

    Raises:
        ValueError: there is no such sampler, it has no such field, or a value is out of range.
        TypeError: a value has the wrong type.

    Example:

    ```python
    sampler = get("beam", beams=3, max_tokens=20)
    ```
    """
    if name not in SAMPLERS:
        raise ValueError(f"`name` must be one of {', '.join(SAMPLERS)}. Received: name={name!r}")
    sampler = SAMPLERS[name]
    known = [field.name for field in dataclasses.fields(sampler)]
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise ValueError(
            f"The {name} sampler has the fields {', '.join(known)}. "
            f"Received: {', '.join(f'{field}={fields[field]!r}' for field in unknown)}"
        )
    return sampler(**fields)
