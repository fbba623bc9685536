"""A running decoding: the caller's `step`, checked, and the loop that grows each row by itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from effcap.samplers.base import Sampler, Samples, Step
from effcap.samplers.constraints import NextToken, constrain, log_probability


class Decoding:
    """One call of a sampler: prompt and state repeated to R rows, and the steps from there.

    Attributes:
        images: B.
        eos: id of the token that ends a caption.
        token: `(R,)`, the last token of the prompt, which is the first to step from.
        leaves: tuple of the tensors of the state after all of the prompt but its last token.
    """

    def __init__(self, sampler: Sampler, step: Step, prompt: Any, state: Any, eos: int):
        self.sampler = sampler
        self.eos = _checked_eos(eos)
        prompt = _checked_prompt(prompt)
        self.images, self.prompt_tokens = prompt.shape
        self._step = step
        self._structure = state
        leaves = tuple(_checked_leaf(leaf, self.images) for leaf in keras.tree.flatten(state))
        if sampler.rows > 1:
            prompt = ops.repeat(prompt, sampler.rows, axis=0)  # (B, T0) -> (R, T0)
            leaves = tuple(ops.repeat(leaf, sampler.rows, axis=0) for leaf in leaves)
        self._shapes = [tuple(leaf.shape) for leaf in leaves]
        self._dtypes = [keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves]
        self.token = prompt[:, -1]
        self.leaves = self._read_prompt(prompt, leaves)

    def _read_prompt(self, prompt: Any, leaves: tuple) -> tuple:
        """Steps through all tokens of the prompt but the last."""
        if self.prompt_tokens == 1:
            return leaves

        def body(position, leaves):
            token = ops.take(prompt, position, axis=1)  # (R,)
            _, leaves = self._advance(token, position, leaves)
            return position + 1, leaves

        start = ops.convert_to_tensor(0, "int32")
        last = self.prompt_tokens - 1
        return ops.while_loop(lambda position, _: position < last, body, (start, leaves))[1]

    def next(self, token: Any, tokens: Any, count: Any, leaves: tuple) -> tuple[NextToken, tuple]:
        """Steps from `token` (R,), the one before place `count` of the captions `tokens` (R, T)."""
        logits, leaves = self._advance(token, count + (self.prompt_tokens - 1), leaves)
        return constrain(self.sampler, logits, tokens, count, self.eos), leaves

    def write(self, tokens: Any, count: Any, token: Any) -> Any:
        """Puts `token` (...) at place `count` of `tokens` (..., T)."""
        here = ops.arange(self.sampler.max_tokens) == count  # (T,)
        return ops.where(here, ops.expand_dims(token, -1), tokens)

    def samples(self, tokens: Any, scores: Any) -> Samples:
        """Completes tokens (B, captions, T) and scores (B, captions) with the lengths."""
        lengths = ops.sum(ops.cast(tokens != self.eos, "int32"), axis=-1)  # (B, captions)
        return Samples(tokens, scores, lengths)

    def _advance(self, token: Any, position: Any, leaves: tuple) -> tuple[Any, tuple]:
        state = keras.tree.pack_sequence_as(self._structure, list(leaves))
        logits, state = self._step(token, position, state)
        self._check_logits(logits)
        return logits, self._checked_state(state)

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
        if self.sampler.suppress and self.sampler.suppress[-1] >= shape[1]:
            raise ValueError(
                f"`suppress` must hold token ids below the vocabulary size {shape[1]} of the "
                f"logits. Received: suppress={self.sampler.suppress}"
            )

    def _checked_state(self, state: Any) -> tuple:
        try:
            keras.tree.assert_same_structure(self._structure, state)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`step` must return the state in the structure it came in. Received: {error}"
            ) from None
        leaves = []
        for leaf, shape, dtype in zip(
            keras.tree.flatten(state), self._shapes, self._dtypes, strict=True
        ):
            leaf_dtype = keras.backend.standardize_dtype(leaf.dtype)
            same = len(leaf.shape) == len(shape) and all(
                None in (one, other) or one == other
                for one, other in zip(leaf.shape, shape, strict=True)
            )
            if not same or leaf_dtype != dtype:
                raise ValueError(
                    "`step` must return the state in the shapes and dtypes it came in: expected "
                    f"{shape} {dtype}. Received: {tuple(leaf.shape)} {leaf_dtype}"
                )
            # A graph may have forgotten sizes that the loop must know.
            leaves.append(ops.reshape(leaf, shape) if None in tuple(leaf.shape) else leaf)
        return tuple(leaves)


def grow(decoding: Decoding, choose: Callable[[NextToken, Any], Any]) -> Samples:
    """Grows every row by one token per step, on its own, until all have ended.

    Args:
        decoding: the decoding with R = B * captions rows.
        choose: `choose(next, count) -> (R,)` token ids, of which those ruled out become `eos`.

    Returns:
        `Samples` with the captions of an image in the order of their rows, scored by the sum of
        their log-probabilities.
    """
    eos, steps = decoding.eos, decoding.sampler.max_tokens
    rows = decoding.token.shape[0]

    def running(count, token, tokens, scores, ended, leaves):
        return ops.logical_and(count < steps, ops.logical_not(ops.all(ended)))

    def body(count, token, tokens, scores, ended, leaves):
        following, leaves = decoding.next(token, tokens, count, leaves)
        token = ops.cast(choose(following, count), "int32")  # (R,)
        logit = ops.take_along_axis(following.logits, token[:, None], axis=1)  # (R, 1)
        log_prob = log_probability(logit, following.normalizer)[:, 0]  # (R,)
        stuck = log_prob <= -float("inf")
        log_prob = ops.where(stuck, following.last_resort, log_prob)
        token = ops.where(ops.logical_or(stuck, ended), eos, token)
        scores = ops.where(ended, scores, scores + log_prob)
        tokens = decoding.write(tokens, count, token)
        return count + 1, token, tokens, scores, ops.logical_or(ended, token == eos), leaves

    _, _, tokens, scores, _, _ = ops.while_loop(
        running,
        body,
        (
            ops.convert_to_tensor(0, "int32"),
            decoding.token,
            ops.full((rows, steps), eos, "int32"),
            ops.zeros((rows,), "float32"),
            ops.zeros((rows,), "bool"),
            decoding.leaves,
        ),
    )
    captions = decoding.sampler.rows
    return decoding.samples(
        ops.reshape(tokens, (decoding.images, captions, steps)),  # (R, T) -> (B, captions, T)
        ops.reshape(scores, (decoding.images, captions)),  # (R,) -> (B, captions)
    )


def _checked_eos(eos: Any) -> int:
    try:
        if isinstance(eos, bool):
            raise TypeError
        eos = operator.index(eos)
    except TypeError:
        raise TypeError(f"`eos` must be a token id (an integer). Received: eos={eos!r}") from None
    if eos < 0:
        raise ValueError(f"`eos` must be a token id, 0 or above. Received: eos={eos}")
    return eos


def _checked_prompt(prompt: Any) -> Any:
    prompt = ops.convert_to_tensor(prompt)
    dtype = keras.backend.standardize_dtype(prompt.dtype)
    if "int" not in dtype:
        raise TypeError(f"`prompt` must hold token ids (integers). Received: prompt of {dtype}")
    shape = tuple(prompt.shape)
    if len(shape) != 2 or None in shape or shape[0] < 1 or shape[1] < 1:
        raise ValueError(
            "`prompt` must have the shape (B, T0) with T0 >= 1 tokens for each of B >= 1 images, "
            f"both known when the sampler is compiled. Received: prompt of shape {shape}"
        )
    return ops.cast(prompt, "int32")


def _checked_leaf(leaf: Any, images: int) -> Any:
    shape = tuple(getattr(leaf, "shape", ()))
    if not shape or shape[0] != images:
        received = f"a tensor of shape {shape}" if hasattr(leaf, "shape") else repr(leaf)
        raise ValueError(
            "`state` must hold tensors with one row per image, of which the prompt has "
            f"{images}. Received: {received}"
        )
    return ops.convert_to_tensor(leaf)
