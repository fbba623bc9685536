"""Settings of an adapter (LoRA), in PEFT's terms."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ATTENTION, MLP = "attention", "mlp"  # groups of the decoder's layers
ALL_LINEAR = "all-linear"  # PEFT's name for all layers but the output projection
BIASES = ("none", "lora_only")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of an adapter.

    Attributes:
        rank: rank r of the updates.
        alpha: numerator of the scale alpha/r of the updates.
        dropout: rate on the input of the updates in training.
        targets: layers that get an update, "attention" and "mlp" for those of the decoder,
            "all-linear", or PEFT's names such as "c_attn" or "crossattention.q_attn". A name
            matches the last parts of a layer's name. A single string other than "all-linear" is a
            regular expression that matches whole names.
        exclude: layers that get none, in the same form.
        bias: biases that are trained: "none", or "lora_only" for those of the layers with an
            update.
        use_rslora: scale by alpha/sqrt(r) (Kalajdzievski 2023).
        rank_pattern: ranks by regular expressions of module names, instead of `rank`.
        alpha_pattern: alphas likewise, instead of `alpha`.

    Raises:
        ValueError: a value is out of range.
    """

    rank: int = 8
    alpha: float = 32
    dropout: float = 0.1
    targets: tuple[str, ...] | str = (ATTENTION, MLP)
    exclude: tuple[str, ...] | str = ()
    bias: str = "none"
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rank in {"rank": self.rank, **self.rank_pattern}.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ValueError(f"Expected LoRA ranks of at least 1. Received: {name}={rank!r}")
        for name, alpha in {"alpha": self.alpha, **self.alpha_pattern}.items():
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not alpha > 0:
                raise ValueError(f"Expected LoRA alphas above 0. Received: {name}={alpha!r}")
        if isinstance(self.dropout, bool) or not 0 <= self.dropout < 1:
            raise ValueError(
                f"Expected a LoRA dropout from 0 to below 1. Received: dropout={self.dropout!r}"
            )
        if self.bias not in BIASES:
            raise ValueError(
                f"Expected bias out of {', '.join(BIASES)}. Received: bias={self.bias!r}"
            )
        for name in ("targets", "exclude"):
            value = getattr(self, name)
            _check_patterns(name, value)
            if not isinstance(value, str):
                value = ALL_LINEAR if tuple(value) == (ALL_LINEAR,) else tuple(value)
                object.__setattr__(self, name, value)
        if not self.targets:
            raise ValueError("Expected targets, such as ('attention', 'mlp'). Received: none")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraConfig:
        """Returns the settings in a dict, as from `to_dict`.

        Raises:
            ValueError: a name is unknown, or a value is out of range.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"Expected LoRA settings out of {', '.join(cls.__dataclass_fields__)}. "
                f"Received: {', '.join(unknown)}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a dict of plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def matches(self, names: Collection[str], group: str | None, is_head: bool = False) -> bool:
        """Returns whether a layer gets an update.

        Args:
            names: PEFT's names of the layer, any of which may match.
            group: "attention" or "mlp" for a layer of the decoder's blocks; None for others.
            is_head: whether the layer is the output projection.
        """
        if any(match_name(name, self.exclude) for name in names):
            return False
        if self.targets == ALL_LINEAR:
            return not is_head
        if group is not None and not isinstance(self.targets, str) and group in self.targets:
            return True
        return any(match_name(name, self.targets) for name in names)

    def rank_of(self, *names: str) -> int:
        """Returns the rank of the update of a layer, by PEFT's names."""
        return _find_pattern(names, self.rank_pattern, self.rank)

    def alpha_of(self, *names: str) -> float:
        """Returns alpha of the update of a layer, by PEFT's names."""
        return _find_pattern(names, self.alpha_pattern, self.alpha)


def match_name(name: str, patterns: tuple[str, ...] | str) -> bool:
    """Returns whether a layer's name matches, by PEFT's rules.

    Args:
        name: such as "decoder.transformer.h.0.attn.c_attn".
        patterns: names that equal it or its last parts, or one regular expression for all of it.
    """
    if isinstance(patterns, str):
        return bool(patterns) and re.fullmatch(patterns, name) is not None
    return any(name == pattern or name.endswith(f".{pattern}") for pattern in patterns)


def _find_pattern(names: Collection[str], patterns: Mapping[str, Any], default: Any) -> Any:
    """Returns the value of the first pattern that matches the last parts of a name."""
    for pattern, value in patterns.items():
        if any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in names):
            return value
    return default


def _check_patterns(name: str, patterns: Any) -> None:
    """Checks that targets are names or a regular expression.

    Raises:
        ValueError: they are not.
    """
    if isinstance(patterns, str):
        try:
            re.compile(patterns)
        except re.error as error:
            raise ValueError(
                f"Expected {name} as names or a regular expression. Received: {patterns!r}, "
                f"which is neither: {error}"
            ) from None
    elif not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError(f"Expected {name} as names of layers. Received: {patterns!r}")
