"""Checks and runs the caller's `step`, and decodes rows independently of each other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.constraints import FORBIDDEN, NextToken, constrain, log_probability


class DecodeLoop:
    """The steps of one sampler call, with prompt and state repeated to R rows.

    The state is carried through the loop as a flat tuple of its tensors.

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
        logits, state = self._run_step(token, length + self.prefix.shape[1], state)
        penalty = self.values["repetition_penalty"]
        next_token = constrain(
            self.sampler, logits, tokens, length, self.eos, penalty, prefix=self.prefix
        )
        return next_token, state

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

    def unfinished(
        length: Any, token: Any, tokens: Any, token_scores: Any, finished: Any, state: Any
    ) -> Any:
        return ops.logical_and(length < steps, ops.logical_not(ops.all(finished)))

    def body(
        length: Any, token: Any, tokens: Any, token_scores: Any, finished: Any, state: Any
    ) -> tuple:
        next_token, state = loop.next_token(token, tokens, length, state)
        token = ops.cast(choose(next_token, length), "int32")  # (R,)
        logit = ops.take_along_axis(next_token.logits, token[:, None], axis=1)  # (R, 1)
        log_prob = log_probability(logit, next_token.normalizer)[:, 0]  # (R,)
        forbidden = log_prob <= FORBIDDEN
        log_prob = ops.where(forbidden, next_token.eos_log_prob, log_prob)
        token = ops.where(ops.logical_or(forbidden, finished), eos, token)
        log_prob = ops.where(finished, 0.0, log_prob)
        tokens = loop.write_token(tokens, length, token)
        token_scores = loop.write_token(token_scores, length, log_prob)
        finished = ops.logical_or(finished, token == eos)
        return length + 1, token, tokens, token_scores, finished, state

    _, _, tokens, token_scores, _, _ = ops.while_loop(
        unfinished,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            loop.token,
            ops.full((rows, steps), eos, "int32"),
            ops.zeros((rows, steps), "float32"),
            ops.zeros((rows,), "bool"),
            loop.state,
        ),
    )
    shape = (loop.batch_size, loop.sampler.rows_per_image, steps)
    tokens = ops.reshape(tokens, shape)  # (R, T) -> (B, K, T)
    token_scores = ops.reshape(token_scores, shape)  # (R, T) -> (B, K, T)
    return loop.hypotheses(tokens, ops.sum(token_scores, axis=-1), token_scores)


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
