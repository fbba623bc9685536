"""Averages attention weights over layers and heads, all or chosen ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Choice = int | Sequence[int] | None


def select_weights(
    weights: Sequence[np.ndarray], layers: Choice = None, heads: Choice = None
) -> tuple[np.ndarray, str]:
    """Averages the attention weights of layers and heads.

    Args:
        weights: for each of L layers, weights (H, T, S).
        layers: numbers of the layers from 0, negative ones from the last. None for all.
        heads: numbers of the heads, likewise. None for all.

    Returns:
        Weights (T, S), and a description of what they are the mean of.

    Raises:
        ValueError: there is no such layer or head.
    """
    layer_numbers = _numbers("layers", layers, len(weights))
    head_numbers = _numbers("heads", heads, len(weights[0]))
    chosen = [weights[layer][head_numbers] for layer in layer_numbers]  # (h,T,S)
    mean = np.mean(np.stack(chosen).astype(np.float32), axis=(0, 1))  # (l,h,T,S) -> (T,S)
    names = [
        _description("layer", layer_numbers, len(weights)),
        _description("head", head_numbers, len(weights[0])),
    ]
    return mean, "Cross-attention, " + ", ".join(names)


def _numbers(name: str, choice: Choice, size: int) -> list[int]:
    """Returns chosen numbers, from 0 to `size` - 1."""
    if choice is None:
        return list(range(size))
    numbers = [choice] if isinstance(choice, int) else list(choice)
    if not numbers or not all(
        isinstance(number, int) and not isinstance(number, bool) and -size <= number < size
        for number in numbers
    ):
        raise ValueError(
            f"Expected {name} from 0 to {size - 1}, or negative ones from the last. "
            f"Received: {name}={choice!r}"
        )
    return sorted({number % size for number in numbers})


def _description(name: str, numbers: Sequence[int], size: int) -> str:
    """Describes a choice, such as "mean of 4 layers" or "layer 3 of 0 to 3"."""
    if len(numbers) == size > 1:
        return f"mean of all {size} {name}s"
    if len(numbers) == 1:
        return f"the only {name}" if size == 1 else f"{name} {numbers[0]} of 0 to {size - 1}"
    listed = ", ".join(map(str, numbers))
    return f"mean of the {name}s {listed} of 0 to {size - 1}"
