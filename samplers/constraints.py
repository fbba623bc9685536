"""Rules on the next token, applied to the logits of all rows at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from effcap.samplers.base import Sampler

RULED_OUT = float("-inf")
FLOOR = -1e4  # the lowest log-probability of a token that can be generated
CEILING = 1e30  # stands for a logit of +inf, which has no softmax


class NextToken(NamedTuple):
    """What may come next in each row.

    Attributes:
        logits: `(R, V)` float32, -inf where a token is ruled out.
        normalizer: `(R, 1)`, log of the sum of exp of all logits, the ruled-out ones included:
            a token's log-probability is its logit less this.
        last_resort: `(R,)`, log-probability of `eos` for rows where everything is ruled out.
    """

    logits: Any
    normalizer: Any
    last_resort: Any


def constrain(rules: Sampler, logits: Any, tokens: Any, count: Any, eos: int) -> NextToken:
    """Applies the rules of a sampler; those switched off cost nothing.

    Args:
        rules: the sampler.
        logits: `(R, V)` of the model.
        tokens: `(R, T)`, of which the first `count` are generated and, in rows still running,
            none is `eos`.
        count: scalar, tokens generated so far.
        eos: id of the token that ends a caption.
    """
    logits = ops.cast(logits, "float32")
    # NaN fails the comparison as well.
    logits = ops.where(logits > RULED_OUT, ops.minimum(logits, CEILING), RULED_OUT)
    if rules.repetition_penalty != 1.0:
        logits = penalize_repetition(logits, tokens, count, rules.repetition_penalty, eos)
    normalizer = ops.logsumexp(logits, axis=-1, keepdims=True)  # (R, 1)
    normalizer = ops.maximum(normalizer, -CEILING)  # finite where no logit is
    last_resort = log_probability(logits[:, eos], normalizer[:, 0])  # (R,)
    last_resort = ops.maximum(last_resort, FLOOR)
    if rules.suppress or rules.min_tokens:
        logits = rule_out_tokens(logits, rules.suppress, rules.min_tokens, count, eos)
    if rules.no_repeat_ngram:
        logits = rule_out_repeated_ngrams(logits, tokens, count, rules.no_repeat_ngram, eos)
    return NextToken(logits, normalizer, last_resort)


def log_probability(logits: Any, normalizer: Any) -> Any:
    """Log-probabilities within [-10,000, 0]; -inf where a token is ruled out."""
    return ops.where(logits > RULED_OUT, ops.clip(logits - normalizer, FLOOR, 0.0), RULED_OUT)


def penalize_repetition(logits: Any, tokens: Any, count: Any, penalty: float, eos: int) -> Any:
    """Divides positive logits of the first `count` tokens by `penalty`, multiplies negative ones.

    Source: Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model", section 4.1.
    """
    generated = ops.arange(tokens.shape[1]) < count  # (T,)
    ids = ops.where(generated, tokens, eos)  # (R, T)
    before = ops.take_along_axis(logits, ids, axis=1)  # (R, T)
    after = ops.where(before > 0, before / penalty, before * penalty)
    return _write(logits, ids, ops.where(generated, after, before))


def rule_out_tokens(
    logits: Any, suppress: tuple[int, ...], min_tokens: int, count: Any, eos: int
) -> Any:
    """Rules out `suppress` always and `eos` before `min_tokens`."""
    suppressed, ends = np.zeros((2, logits.shape[-1]), "bool")  # (V,), (V,)
    suppressed[list(suppress)] = True
    ends[eos] = True
    ruled_out = ops.convert_to_tensor(suppressed)
    if min_tokens:
        early = ops.logical_and(ops.convert_to_tensor(ends), count < min_tokens)
        ruled_out = ops.logical_or(ruled_out, early)
    return ops.where(ruled_out, RULED_OUT, logits)  # (R, V)


def rule_out_repeated_ngrams(logits: Any, tokens: Any, count: Any, n: int, eos: int) -> Any:
    """Rules out each token that would complete an n-gram of the first `count` tokens again."""
    starts = tokens.shape[1] - n + 1  # places T where an n-gram can begin
    if starts < 1:
        return logits
    lasts = tokens[:, n - 1 :]  # (R, starts)
    seen = ops.arange(n - 1, tokens.shape[1]) < count  # (starts,)
    seen = ops.broadcast_to(seen, ops.shape(lasts))  # (R, starts)
    for offset in range(n - 1):
        place = ops.maximum(count - n + 1 + offset, 0)
        current = ops.take(tokens, ops.reshape(place, (1,)), axis=1)  # (R, 1)
        seen = ops.logical_and(seen, tokens[:, offset : offset + starts] == current)
    # eos is in no running row, so its own logit can be written for all that stays as it is.
    ids = ops.where(seen, lasts, eos)
    return _write(logits, ids, ops.where(seen, RULED_OUT, logits[:, eos : eos + 1]))


def _write(logits: Any, ids: Any, values: Any) -> Any:
    """Replaces the logits (R, V) at ids (R, N) by values (R, N)."""
    rows = ops.broadcast_to(ops.arange(ids.shape[0])[:, None], ids.shape)  # (R, N)
    places = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))  # (R * N, 2)
    return ops.scatter_update(logits, places, ops.reshape(values, (-1,)))
