"""Phrases that captions contain or do not contain, followed token by token in every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from effcap.samplers.backend import ops

FORBIDDEN = float("-inf")
DEAD, START = 0, 1  # states: an excluded phrase is complete; the beginning of a text
MAX_GROUPS = 31  # bits of an int32


class WordRules:
    """A finite automaton over tokens that knows which phrases a caption contains.

    Each row has a state of the automaton and a number `met`, a bit for each group of which the
    caption contains a phrase.

    Args:
        tables: tables of N states, C classes of tokens and G groups, tensors or arrays int32:
            "word_classes" (V,), class of each token; "word_next" (N, C), next state; and for G > 0
            "word_hits" (N, C), bits of the groups of which the token completes a phrase,
            "word_advances" (N, C), bits of those of which a phrase comes closer with the token,
            "word_distances" (N, G), number of tokens to a phrase, and "word_ends" (V,), 1 for the
            tokens that end a sentence.
        num_groups: number G of groups to include.
        eos: id of the token that ends a caption.

    Raises:
        ValueError: there are no tables.
    """

    def __init__(self, tables: Mapping[str, Any], num_groups: int, eos: int) -> None:
        if "word_next" not in tables:
            raise ValueError(
                "`include` and `exclude` are text, which a sampler cannot read: use it with "
                "`Captioner.generate`, or pass `effcap.phrases.phrase_tables(...)` in `inputs`."
            )
        self.num_groups, self.eos = num_groups, eos
        self.classes = ops.convert_to_tensor(tables["word_classes"])
        self._next = ops.convert_to_tensor(tables["word_next"])
        self._width = self._next.shape[1]
        if num_groups:
            self._hits = ops.convert_to_tensor(tables["word_hits"])
            self._advances = ops.convert_to_tensor(tables["word_advances"])
            self._distances = ops.convert_to_tensor(tables["word_distances"])
            self._ends = ops.convert_to_tensor(tables["word_ends"]) > 0  # (V,)
            self._bits = ops.convert_to_tensor(2 ** np.arange(num_groups, dtype=np.int32))  # (G,)

    def start(self, prefix: Any) -> tuple[Any, Any]:
        """Returns state and met groups after the tokens of a prefix (R, P), both (R,)."""
        state = ops.full((prefix.shape[0],), START, "int32")
        met = ops.zeros((prefix.shape[0],), "int32")
        for position in range(prefix.shape[1]):
            state, met = self.after(state, met, prefix[:, position])
        return state, met

    def after(self, state: Any, met: Any, token: Any) -> tuple[Any, Any]:
        """Returns state and met groups after a token; all have the same shape (...)."""
        index = state * self._width + ops.take(self.classes, token)
        if self.num_groups:
            met = ops.bitwise_or(met, ops.take(ops.reshape(self._hits, (-1,)), index))
        return ops.take(ops.reshape(self._next, (-1,)), index), met

    def forbid(self, logits: Any, state: Any) -> Any:
        """Forbids the tokens (R, V) after which a text that ends contains an excluded phrase.

        A search that could write "cat" only as the beginning of a longer word would continue it to
        some word, in place of giving it up.
        """
        at_end = ops.take(self._next, ops.take(self.classes, self.eos), axis=1) == DEAD  # (N,)
        forbidden = ops.take(at_end, ops.take(self._next, state, axis=0))  # (R, C)
        return ops.where(self._of_tokens(forbidden), FORBIDDEN, logits)

    def ends(self, token: Any) -> Any:
        """Returns whether tokens (...) end a sentence."""
        return ops.take(self._ends, token)

    def advancing(self, state: Any, groups: Any) -> Any:
        """Returns (R, V), whether a token comes closer to a phrase of `groups` (R,), bits."""
        advances = ops.take(self._advances, state, axis=0)  # (R,) -> (R, C)
        return self._of_tokens(ops.bitwise_and(advances, groups[:, None]) != 0)

    def advanced(self, state: Any, token: Any) -> Any:
        """Returns the bits of the groups of which a phrase comes closer with a token (R,)."""
        index = state * self._width + ops.take(self.classes, token)
        return ops.take(ops.reshape(self._advances, (-1,)), index)

    def unmet(self, met: Any) -> Any:
        """Returns the bits of the groups that are not met."""
        return ops.bitwise_xor(met, 2**self.num_groups - 1)

    def num_unmet(self, met: Any) -> Any:
        """Returns the number of groups (...) that are not met."""
        return ops.sum(self._unmet_groups(met), axis=-1)  # (..., G) -> (...)

    def tokens_left(self, state: Any, met: Any) -> Any:
        """Returns the number of tokens (...) that the groups that are not met take."""
        distances = ops.take(self._distances, state, axis=0)  # (...) -> (..., G)
        return ops.sum(distances * self._unmet_groups(met), axis=-1)

    def _unmet_groups(self, met: Any) -> Any:
        """Returns 1 for each group that is not met and 0 for the others, (..., G)."""
        bits = ops.bitwise_and(ops.expand_dims(self.unmet(met), -1), self._bits)
        return ops.cast(bits != 0, "int32")

    def _of_tokens(self, of_classes: Any) -> Any:
        """Returns the values of the classes of all tokens, (R, C) -> (R, V)."""
        return ops.take(of_classes, self.classes, axis=1)
