"""Beam search for captions that contain given words, by dynamic beam allocation.

Source: Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for
Neural Machine Translation".
"""

from __future__ import annotations

from typing import Any

from effcap.samplers.backend import ops
from effcap.samplers.constraints import FORBIDDEN
from effcap.samplers.decode_loop import DecodeLoop
from effcap.samplers.ops import gather, top_k
from effcap.samplers.word_rules import WordRules

MAX_TOKENS_LEFT = 255  # hypotheses with more tokens left share one share of the beams


class WordSearch:
    """Words of W hypotheses in each of B images or groups of beams.

    Args:
        words: rules for the words.
        state: (B, W), state of the words before the next token.
        met: (B, W), groups that are met.
    """

    def __init__(self, words: WordRules, state: Any, met: Any) -> None:
        self.words, self.state, self.met = words, state, met

    def select(self, beams: slice) -> WordSearch:
        """Returns the words of some of the hypotheses."""
        return WordSearch(self.words, self.state[:, beams], self.met[:, beams])

    def after(self, parents: Any, token: Any) -> WordSearch:
        """Returns the words after the token (B, C) that continues a parent (B, C)."""
        state, met = gather(self.state, parents), gather(self.met, parents)
        return WordSearch(self.words, *self.words.after(state, met, token))

    def num_unmet(self) -> Any:
        """Returns the number of groups that are not met, (B, W) float32."""
        return ops.cast(self.words.num_unmet(self.met), "float32")

    def add_advancing(self, logits: Any, best: Any, ids: Any) -> tuple[Any, Any]:
        """Adds the most probable tokens that come closer to a missing word to the candidates.

        Args:
            logits: (B * W, V).
            best: (B * W, N), logits of the best tokens.
            ids: (B * W, N), the best tokens.

        Returns:
            Logits and tokens, (B * W, N + M). Tokens that are there already have a logit of -inf.
        """
        state, met = ops.reshape(self.state, (-1,)), ops.reshape(self.met, (-1,))  # (B * W,)
        advancing = self.words.advancing(state, self.words.unmet(met))  # (B * W, V)
        number = min(2 * (self.words.num_groups + 1), logits.shape[1])  # M
        more, more_ids = top_k(ops.where(advancing, logits, FORBIDDEN), number)  # (B * W, M)
        repeated = ops.any(more_ids[:, :, None] == ids[:, None], axis=-1)  # (B * W, M)
        more = ops.where(repeated, FORBIDDEN, more)
        return ops.concatenate([best, more], axis=1), ops.concatenate([ids, more_ids], axis=1)

    def allocate(self, ranks: Any, steps_left: Any, number: int) -> Any:
        """Selects hypotheses, with a share for each number of tokens left to all words.

        The best hypotheses of all numbers come first, then the second best of all numbers, and so
        on; with too few beams for all numbers, those with the fewest tokens left. Those that cannot
        contain all words in time come last.

        Args:
            ranks: (B, W), ranks of the hypotheses in descending order, -inf for those that are not
                to continue, wherever they are.
            steps_left: scalar, number of steps after this one.
            number: number of hypotheses to select, at most W.

        Returns:
            Indices (B, number) of the selected hypotheses, best first.
        """
        size = ranks.shape[1]
        left = self.words.tokens_left(self.state, self.met)  # (B, W)
        is_late = left > steps_left
        left = ops.minimum(left, MAX_TOKENS_LEFT)
        left = ops.where(ranks > FORBIDDEN, left, MAX_TOKENS_LEFT + 1)
        # A stable sort: hypotheses with the same number of tokens left stay in the order of ranks.
        left, order = top_k(ops.cast(-left, "float32"), size)  # (B, W)
        is_first = ops.concatenate(
            [ops.ones_like(left[:, :1], "bool"), left[:, 1:] != left[:, :-1]], axis=1
        )  # (B, W), the best with its number of tokens left
        index = ops.arange(size, dtype="int32")  # (W,)
        firsts = ops.sort(ops.where(is_first, index, size), axis=1)  # (B, W)
        share = ops.cumsum(ops.cast(is_first, "int32"), axis=1) - 1  # (B, W)
        place = index - gather(firsts, share)  # (B, W), 0 for the best of its share
        place = ops.minimum(place, number)  # those further down are never selected
        place = ops.where(gather(is_late, order), place + number + 1, place)
        key = ops.where(left < -MAX_TOKENS_LEFT, FORBIDDEN, -ops.cast(place, "float32"))
        _, best = top_k(key, number)  # (B, number), of equal places those with fewer tokens left
        return gather(order, best)


def word_search(loop: DecodeLoop, state: tuple) -> WordSearch | None:
    """Returns the words of the hypotheses in the state of a loop; None without `include`."""
    if loop.words is None or not loop.sampler.include:
        return None
    word_state, met = (ops.reshape(field, (loop.batch_size, -1)) for field in state[-2:])  # (B, K)
    return WordSearch(loop.words, word_state, met)


def num_unmet_at_end(loop: DecodeLoop, state: tuple, token: Any) -> Any:
    """Returns the number of groups (B, K) that captions that end after `token` (R,) do not meet.

    Args:
        loop: decode loop.
        state: state before the token.
        token: last tokens; None for those that end with the state.
    """
    search = word_search(loop, state)
    if search is None:
        return ops.zeros((loop.batch_size, loop.sampler.rows_per_image), "float32")
    words, shape = search.words, search.state.shape
    reached = (search.state, search.met)
    if token is not None:
        reached = words.after(*reached, ops.reshape(token, shape))
    end = words.after(*reached, ops.full(shape, loop.eos, "int32"))
    return WordSearch(words, *end).num_unmet()
