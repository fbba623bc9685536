"""Registry of mappers by `decoder.fusion.mapper.kind` in hparams."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from effcap.decoders.mappers import ClipCapMLPMapper, LinearMapper, Mapper, MLPMapper
from effcap.decoders.transformer_mappers import ClipCapTransformerMapper, TransformerMapper

MAPPERS: dict[str, type[Mapper]] = {
    "linear": LinearMapper,
    "mlp": MLPMapper,
    "transformer": TransformerMapper,
    "clipcap-mlp": ClipCapMLPMapper,
    "clipcap-transformer": ClipCapTransformerMapper,
}


def create_mapper(hidden_dim: int, arguments: Mapping[str, Any]) -> Mapper:
    """Creates a mapper.

    Args:
        hidden_dim: model width D.
        arguments: `kind`, and the arguments of that class.

    Raises:
        ValueError: there is no such kind or argument, or an argument is out of range.
    """
    kind = arguments.get("kind")
    if kind not in MAPPERS:
        raise ValueError(
            f"Expected a mapper out of {sorted(MAPPERS)}. "
            f"Received: decoder.fusion.mapper.kind={kind!r}"
        )
    given = {name: value for name, value in arguments.items() if name != "kind"}
    known = set(inspect.signature(MAPPERS[kind]).parameters) - {"hidden_dim", "kwargs"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(
            f"Expected settings of the mapper {kind!r} out of {', '.join(sorted(known)) or 'none'}."
            f" Received: {', '.join(unknown)}"
        )
    return MAPPERS[kind](hidden_dim=hidden_dim, name="mapper", **given)
