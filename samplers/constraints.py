"""Constraints on the next token, applied to the logits of all rows at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from effcap.samplers.backend import ops
from effcap.samplers.base import Sampler

FORBIDDEN = float("-inf")
MIN_LOG_PROB = -1e4  # lowest log-probability of a token that can be generated
MAX_LOGIT = 1e30  # replaces a logit of +inf, which has no softmax


class NextToken(NamedTuple):
    """Constrained logits of the next token in each row.

    Attributes:
        logits: (R, V) float32, -inf for forbidden tokens.
        normalizer: (R, 1), log-sum-exp of all logits before tokens are forbidden. The
            log-probability of a token is its logit minus this.
        eos_log_prob: (R,), log-probability of `eos`, for rows where all tokens are forbidden.
    """

    logits: Any
    normalizer: Any
    eos_log_prob: Any


def constrain(
    sampler: Sampler,
    logits: Any,
    tokens: Any,
    length: Any,
    eos: int,
    repetition_penalty: Any,
    prefix: Any = None,
) -> NextToken:
    """Applies the enabled constraints of a sampler.

    Args:
        sampler: the sampler.
        logits: (R, V), output of the model.
        tokens: (R, T), of which the first `length` are generated; none of them is `eos` in
            unfinished rows.
        length: scalar, number of tokens generated so far.
        eos: id of the token that ends a caption.
        repetition_penalty: value of the sampler's field.
        prefix: (R, P), tokens before the caption that repetitions refer to as well. None for none.
    """
    text, text_length = tokens, length
    if prefix is not None:
        text = ops.concatenate([prefix, tokens], axis=1)  # (R, P+T)
        text_length = length + prefix.shape[1]
    logits = ops.cast(logits, "float32")
    logits = ops.cond(
        ops.all(logits <= MAX_LOGIT),  # False for NaN too
        lambda: logits,
        lambda: ops.where(logits > FORBIDDEN, ops.minimum(logits, MAX_LOGIT), FORBIDDEN),
    )
    if sampler.repetition_penalty != 1.0:
        logits = penalize_repetition(logits, text, text_length, repetition_penalty, eos)
    normalizer = ops.logsumexp(logits, axis=-1, keepdims=True)  # (R, 1)
    normalizer = ops.maximum(normalizer, -MAX_LOGIT)  # finite even if no logit is
    eos_log_prob = log_probability(logits[:, eos], normalizer[:, 0])  # (R,)
    eos_log_prob = ops.maximum(eos_log_prob, MIN_LOG_PROB)
    if sampler.suppress_tokens or sampler.min_new_tokens:
        logits = forbid_tokens(logits, sampler.suppress_tokens, sampler.min_new_tokens, length, eos)
    if sampler.no_repeat_ngram_size:
        size = sampler.no_repeat_ngram_size
        logits = forbid_repeated_ngrams(logits, text, text_length, size, eos)
    return NextToken(logits, normalizer, eos_log_prob)


def log_probability(logits: Any, normalizer: Any) -> Any:
    """Computes log-probabilities in [-10,000, 0], or -inf for forbidden tokens."""
    log_probs = ops.clip(logits - normalizer, MIN_LOG_PROB, 0.0)
    return ops.where(logits > FORBIDDEN, log_probs, FORBIDDEN)


def penalize_repetition(logits: Any, tokens: Any, length: Any, penalty: Any, eos: int) -> Any:
    """Divides positive logits of the first `length` tokens by `penalty`, multiplies negative ones.

    Source: Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model", section 4.1.
    """
    occurred = ops.arange(tokens.shape[1]) < length  # (T,)
    has_eos = ops.any(ops.logical_and(occurred, tokens == eos), axis=1, keepdims=True)  # (R, 1)
    ids = ops.where(occurred, tokens, eos)  # (R, T)
    before = ops.take_along_axis(logits, ids, axis=1)  # (R, T)
    after = ops.where(before > 0, before / penalty, before * penalty)
    return _scatter(logits, ids, ops.where(ops.logical_or(occurred, has_eos), after, before))


def forbid_tokens(
    logits: Any, suppress_tokens: tuple[int, ...], min_new_tokens: int, length: Any, eos: int
) -> Any:
    """Forbids `suppress_tokens` always and `eos` before `min_new_tokens`."""
    suppressed, is_eos = np.zeros((2, logits.shape[-1]), "bool")  # (V,), (V,)
    suppressed[list(suppress_tokens)] = True
    is_eos[eos] = True
    forbidden = ops.convert_to_tensor(suppressed)
    if min_new_tokens:
        early = ops.logical_and(ops.convert_to_tensor(is_eos), length < min_new_tokens)
        forbidden = ops.logical_or(forbidden, early)
    return ops.where(forbidden, FORBIDDEN, logits)  # (R, V)


def forbid_repeated_ngrams(logits: Any, tokens: Any, length: Any, n: int, eos: int) -> Any:
    """Forbids each token that would repeat an n-gram of the first `length` tokens."""
    starts = tokens.shape[1] - n + 1  # number of positions where an n-gram can begin
    if starts < 1:
        return logits
    lasts = tokens[:, n - 1 :]  # (R, T) -> (R, starts)
    matches = ops.arange(n - 1, tokens.shape[1]) < length  # (starts,)
    matches = ops.broadcast_to(matches, ops.shape(lasts))  # (starts,) -> (R, starts)
    for offset in range(n - 1):
        position = ops.maximum(length - n + 1 + offset, 0)
        current = ops.take(tokens, ops.reshape(position, (1,)), axis=1)  # (R, 1)
        matches = ops.logical_and(matches, tokens[:, offset : offset + starts] == current)
    # Where nothing is forbidden, the logit of eos is written, which a prefix may contain.
    ends = ops.any(ops.logical_and(matches, lasts == eos), axis=1, keepdims=True)  # (R, 1)
    ids = ops.where(matches, lasts, eos)  # (R, starts)
    forbidden = ops.logical_or(matches, ends)
    return _scatter(logits, ids, ops.where(forbidden, FORBIDDEN, logits[:, eos : eos + 1]))


def _scatter(logits: Any, ids: Any, values: Any) -> Any:
    """Replaces the logits (R, V) at ids (R, N) by values (R, N)."""
    rows = ops.broadcast_to(ops.arange(ids.shape[0])[:, None], ids.shape)  # (R, N)
    indices = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))  # (R, N, 2) -> (R * N, 2)
    return ops.scatter_update(logits, indices, ops.reshape(values, (-1,)))
