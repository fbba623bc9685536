"""Checks and runs the caller's `step`, and decodes rows independently of each other."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras

from effcap.samplers.backend import ops
from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.constraints import FORBIDDEN, NextToken, constrain, log_probability
from effcap.samplers.word_rules import WordRules

LIKELY = 0.01  # relative to the most probable token, enough for a token of a word to include


class DecodeLoop:
    """The steps of one sampler call, with prompt and state repeated to R rows.

    The state is carried through the loop as a flat tuple of its tensors. With `include` or
    `exclude`, the last two are the state of the words and the groups that are met, both (R,).

    Args:
        sampler: the sampler.
        step, prompt, state, eos, inputs: as in `Sampler.__call__`.

    Attributes:
        values: the dynamic fields of the sampler by name, numbers or scalars.
        batch_size: B.
        eos: id of the token that ends a caption.
        token: (R,), last token of the prompt, the input of the first decoding step.
        prefix: (R, P), the tokens of the prompt after the start token.
        state: flat state after all tokens of the prompt but the last.
        words: rules for `include` and `exclude`; None without these.
    """

    def __init__(
        self,
        sampler: Sampler,
        step: Step,
        prompt: Any,
        state: Any,
        eos: int,
        inputs: Mapping[str, Any] | None,
    ):
        self.sampler = sampler
        self.values = {name: getattr(sampler, name) for name in sampler._dynamic}
        self.values.update(inputs or {})
        self.eos = _check_eos(eos)
        prompt = _check_prompt(prompt)
        self.batch_size = prompt.shape[0]
        self._step = step
        self._structure = state
        rows = sampler.rows_per_image
        flat_state = tuple(_check_tensor(x, self.batch_size) for x in keras.tree.flatten(state))
        if rows > 1:
            prompt = ops.repeat(prompt, rows, axis=0)  # (B, 1+P) -> (R, 1+P)
            flat_state = tuple(ops.repeat(x, rows, axis=0) for x in flat_state)
        self._shapes = [tuple(x.shape) for x in flat_state]
        self._dtypes = [keras.backend.standardize_dtype(x.dtype) for x in flat_state]
        self.token, self.prefix = prompt[:, -1], prompt[:, 1:]  # (R,), (R, P)
        self.state = flat_state
        self.words: WordRules | None = None
        if sampler.include or sampler.exclude:
            self.words = WordRules(self.values, len(sampler.include), self.eos)
            self.state = (*flat_state, *self.words.start(self.prefix))

    def next_token(
        self, token: Any, tokens: Any, length: Any, state: tuple
    ) -> tuple[NextToken, tuple]:
        """Computes the constrained logits after `token` (R,), the last of `length` + prompt.

        Args:
            token: (R,), input of the step.
            tokens: (R, T), captions, of which `length` tokens are generated.
            length: scalar, number of tokens generated so far.
            state: flat state.
        """
        step_state, word_state = state[: len(self._shapes)], state[len(self._shapes) :]
        logits, step_state = self._run_step(token, length + self.prefix.shape[1], step_state)
        penalty = self.values["repetition_penalty"]
        next_token = constrain(
            self.sampler, logits, tokens, length, self.eos, penalty, prefix=self.prefix
        )
        if self.words is not None:
            self._check_words(self.words, logits)
            words, met = word_state
            following = self.words.after(words, met, token)
            words = ops.where(length > 0, following[0], words)  # starts after the prompt
            met = ops.where(length > 0, following[1], met)
            if self.sampler.exclude:
                allowed = self.words.forbid(next_token.logits, words)
                next_token = next_token._replace(logits=allowed)
            word_state = (words, met)
        return next_token, (*step_state, *word_state)

    def write_token(self, tokens: Any, length: Any, token: Any) -> Any:
        """Writes `token` (...), or its score, at index `length` of `tokens` (..., T)."""
        at_end = ops.arange(self.sampler.max_new_tokens) == length  # (T,)
        return ops.where(at_end, ops.expand_dims(token, -1), tokens)

    def hypotheses(self, tokens: Any, scores: Any, token_scores: Any) -> Hypotheses:
        """Returns `Hypotheses` with the lengths of the captions.

        Args:
            tokens: (B, K, T).
            scores: (B, K), log-probabilities of captions.
            token_scores: (B, K, T), log-probabilities of tokens.
        """
        lengths = ops.sum(ops.cast(tokens != self.eos, "int32"), axis=-1)  # (B, K, T) -> (B, K)
        return Hypotheses(tokens, scores, lengths, token_scores)

    def _run_step(self, token: Any, position: Any, state: tuple) -> tuple[Any, tuple]:
        nested = keras.tree.pack_sequence_as(self._structure, list(state))
        logits, nested = self._step(token, position, nested)
        self._check_logits(logits)
        return logits, self._check_state(nested)

    @staticmethod
    def _check_words(words: WordRules, logits: Any) -> None:
        if words.classes.shape[0] != logits.shape[1]:
            raise ValueError(
                f"The tables of words must be those of the {logits.shape[1]} tokens of the logits. "
                f"Received: tables of {words.classes.shape[0]} tokens"
            )

    def _check_logits(self, logits: Any) -> None:
        rows = self.token.shape[0]
        shape = tuple(logits.shape)
        if len(shape) != 2 or shape[0] not in (rows, None) or shape[1] is None:
            raise ValueError(
                f"`step` must return logits of shape (R, V) with R={rows} rows. "
                f"Received: logits of shape {shape}"
            )
        if self.eos >= shape[1]:
            raise ValueError(
                f"`eos` must be a token id below the vocabulary size {shape[1]} of the logits. "
                f"Received: eos={self.eos}"
            )
        if self.sampler.suppress_tokens and self.sampler.suppress_tokens[-1] >= shape[1]:
            raise ValueError(
                f"`suppress_tokens` must be token ids below the vocabulary size {shape[1]} of the "
                f"logits. Received: suppress_tokens={self.sampler.suppress_tokens}"
            )

    def _check_state(self, state: Any) -> tuple:
        """Returns the flat state if its structure, shapes and dtypes are unchanged."""
        try:
            keras.tree.assert_same_structure(self._structure, state)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`step` must return the state in the structure it received. Received: {error}"
            ) from None
        flat_state = []
        for tensor, shape, dtype in zip(
            keras.tree.flatten(state), self._shapes, self._dtypes, strict=True
        ):
            received = keras.backend.standardize_dtype(tensor.dtype)
            same = len(tensor.shape) == len(shape) and all(
                None in sizes or sizes[0] == sizes[1]
                for sizes in zip(tensor.shape, shape, strict=True)
            )
            if not same or received != dtype:
                raise ValueError(
                    "`step` must return the state in the shapes and dtypes it received: expected "
                    f"{shape} {dtype}. Received: {tuple(tensor.shape)} {received}"
                )
            # A traced graph may have lost static sizes that the loop needs.
            lost = None in tuple(tensor.shape)
            flat_state.append(ops.reshape(tensor, shape) if lost else tensor)
        return tuple(flat_state)


def decode_greedily(loop: DecodeLoop) -> Hypotheses:
    """Decodes every row by its most probable tokens, the lower id of equal ones."""
    return decode_rows(loop, lambda next_token, length: ops.argmax(next_token.logits, axis=-1))


def decode_rows(loop: DecodeLoop, choose: Callable[[NextToken, Any], Any]) -> Hypotheses:
    """Decodes every row independently, one token per step, until all rows are finished.

    Args:
        loop: decode loop with R = B * K rows.
        choose: `choose(next_token, length)` returns token ids (R,); forbidden ones become `eos`.

    Returns:
        `Hypotheses` in the order of the rows, scored by the sum of their log-probabilities.
    """
    eos, steps = loop.eos, loop.sampler.max_new_tokens
    rows = loop.token.shape[0]

    def unfinished(length: Any, token: Any, tokens: Any, token_scores: Any, *rest: Any) -> Any:
        return ops.logical_and(length < steps, ops.logical_not(ops.all(rest[0])))

    def body(
        length: Any,
        token: Any,
        tokens: Any,
        token_scores: Any,
        finished: Any,
        begun: Any,
        state: Any,
    ) -> tuple:
        next_token, state = loop.next_token(token, tokens, length, state)
        token = ops.cast(choose(next_token, length), "int32")  # (R,)
        if loop.sampler.include:
            token, begun = _write_words(loop, choose, next_token, length, token, begun, state[-2:])
        logit = ops.take_along_axis(next_token.logits, token[:, None], axis=1)  # (R, 1)
        log_prob = log_probability(logit, next_token.normalizer)[:, 0]  # (R,)
        forbidden = log_prob <= FORBIDDEN
        log_prob = ops.where(forbidden, next_token.eos_log_prob, log_prob)
        token = ops.where(ops.logical_or(forbidden, finished), eos, token)
        log_prob = ops.where(finished, 0.0, log_prob)
        tokens = loop.write_token(tokens, length, token)
        token_scores = loop.write_token(token_scores, length, log_prob)
        finished = ops.logical_or(finished, token == eos)
        return length + 1, token, tokens, token_scores, finished, begun, state

    _, _, tokens, token_scores, *_ = ops.while_loop(
        unfinished,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            loop.token,
            ops.full((rows, steps), eos, "int32"),
            ops.zeros((rows, steps), "float32"),
            ops.zeros((rows,), "bool"),
            ops.zeros((rows,), "int32"),
            loop.state,
        ),
    )
    shape = (loop.batch_size, loop.sampler.rows_per_image, steps)
    tokens = ops.reshape(tokens, shape)  # (R, T) -> (B, K, T)
    token_scores = ops.reshape(token_scores, shape)  # (R, T) -> (B, K, T)
    return loop.hypotheses(tokens, ops.sum(token_scores, axis=-1), token_scores)


def _write_words(
    loop: DecodeLoop,
    choose: Callable[[NextToken, Any], Any],
    next_token: NextToken,
    length: Any,
    token: Any,
    begun: Any,
    word_state: tuple,
) -> tuple[Any, Any]:
    """Replaces tokens (R,) where words to include are to be written.

    That is where the next token of such a word is likely, or the sentence would end or become too
    long without it; and for the rest of a word that has been begun.

    Args:
        loop, choose: as in `decode_rows`.
        next_token: logits of the next token.
        length: scalar, number of tokens generated so far.
        token: (R,), chosen tokens.
        begun: (R,), bits of the groups of which a phrase has been begun.
        word_state: states of the words before the token, and groups that are met, both (R,).

    Returns:
        Tokens and `begun` after them, both (R,).
    """
    words, logits = loop.words, next_token.logits
    assert words is not None
    state, met = word_state
    groups = ops.where(begun > 0, begun, words.unmet(met))  # (R,)
    closer = ops.logical_and(words.advancing(state, groups), logits > FORBIDDEN)  # (R, V)
    _, met_at_end = words.after(state, met, ops.full_like(token, loop.eos))
    is_eos = ops.arange(logits.shape[1]) == loop.eos  # (V,)
    too_early = ops.logical_and(is_eos, words.unmet(met_at_end)[:, None] > 0)  # (R, V)
    closer = ops.logical_and(closer, ops.logical_not(too_early))
    threshold = ops.max(logits, axis=-1, keepdims=True) + math.log(LIKELY)  # (R, 1)
    likely = ops.logical_and(closer, logits >= threshold)  # (R, V)
    is_likely = ops.any(likely, axis=-1)  # (R,)
    after, after_met = words.after(state, met, token)
    is_end = ops.logical_and(words.ends(token), words.unmet(after_met) > 0)
    steps_left = loop.sampler.max_new_tokens - length - 1
    is_late = words.tokens_left(after, after_met) > steps_left
    is_needed = ops.logical_or(ops.logical_or(is_late, is_end), begun > 0)
    is_written = ops.logical_and(ops.logical_or(is_needed, is_likely), ops.any(closer, axis=-1))
    kept = ops.where(is_likely[:, None], likely, closer)  # (R, V)
    written = choose(next_token._replace(logits=ops.where(kept, logits, FORBIDDEN)), length)
    token = ops.where(is_written, ops.cast(written, "int32"), token)
    _, met = words.after(state, met, token)
    begun = ops.bitwise_and(ops.bitwise_and(groups, words.advanced(state, token)), words.unmet(met))
    return token, ops.where(is_written, begun, 0)


def _check_eos(eos: Any) -> int:
    try:
        if isinstance(eos, bool):
            raise TypeError
        eos = operator.index(eos)
    except TypeError:
        raise TypeError(f"`eos` must be a token id (an integer). Received: eos={eos!r}") from None
    if eos < 0:
        raise ValueError(f"`eos` must be a token id, 0 or above. Received: eos={eos}")
    return eos


def _check_prompt(prompt: Any) -> Any:
    prompt = ops.convert_to_tensor(prompt)
    dtype = keras.backend.standardize_dtype(prompt.dtype)
    if "int" not in dtype:
        raise TypeError(f"`prompt` must be token ids (integers). Received: prompt of {dtype}")
    shape = tuple(prompt.shape)
    if len(shape) != 2 or None in shape or shape[0] < 1 or shape[1] < 1:
        raise ValueError(
            "`prompt` must have the shape (B, 1+P) with B >= 1 images and P >= 0 tokens, both "
            f"known when the sampler is compiled. Received: prompt of shape {shape}"
        )
    return ops.cast(prompt, "int32")


def _check_tensor(tensor: Any, batch_size: int) -> Any:
    shape = tuple(getattr(tensor, "shape", ()))
    if not shape or shape[0] != batch_size:
        received = f"a tensor of shape {shape}" if hasattr(tensor, "shape") else repr(tensor)
        raise ValueError(
            "`state` must contain tensors with one row per image of the prompt, "
            f"{batch_size} rows. Received: {received}"
        )
    return ops.convert_to_tensor(tensor)
