"""Base class of the samplers, and their result `Hypotheses`."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from effcap.samplers.word_rules import MAX_GROUPS

# step(tokens, position, state) -> (logits, state); see Sampler.__call__ for the shapes.
Step = Callable[[Any, Any, Any], tuple[Any, Any]]


class Hypotheses(NamedTuple):
    """Generated captions of a batch of images, best first.

    Attributes:
        tokens: (B, K, T) int32 with `T = max_new_tokens`, without the prompt. Positions from the
            end of a caption on are filled with `eos`.
        scores: (B, K) float32, the log-probability of the caption in nats: the sum of those of its
            tokens including `eos`, under the model's distribution (after `repetition_penalty`).
            -inf where a beam search has no K-th caption, whose length is then 0.
        lengths: (B, K) int32, number of generated tokens without `eos`. A length below
            `max_new_tokens` means a finished caption, `max_new_tokens` a truncated one.
        token_scores: (B, K, T) float32, the log-probability of each token including the `eos` that
            ends the caption, 0 after it. They sum to `scores`, but are 0 where that is -inf.
    """

    tokens: Any
    scores: Any
    lengths: Any
    token_scores: Any


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Base of the samplers, which generate captions from next-token logits.

    A caption takes at most `max_new_tokens` decoding steps. The `eos` that finishes it takes one of
    them: finished captions have at most `max_new_tokens - 1` tokens before `eos`, and a caption
    without `eos` after `max_new_tokens` steps is truncated.

    Lengths and scores are those of the generated tokens. `no_repeat_ngram_size` and
    `repetition_penalty` take the prompt into account too, except its start token: a caption does
    not repeat what its prefix says. `suppress_tokens`, `min_new_tokens` and `no_repeat_ngram_size`
    forbid tokens and leave the log-probabilities of the others as the model computes them, so a
    score is the model's log-probability; only `repetition_penalty` changes the distribution. Tokens
    with a logit of -inf or NaN are forbidden too. If all tokens are forbidden, the caption ends:
    `eos` is generated at the model's log-probability, even if it is suppressed or `min_new_tokens`
    is not reached. Log-probabilities are float32 and at least -10,000, so scores are finite, and an
    image whose logits are NaN gets an empty caption with a score of -10,000.

    Args:
        min_new_tokens: minimum number of generated tokens before `eos`. 0 allows empty captions.
        max_new_tokens: maximum number of decoding steps per caption. This is the width T of
            `Hypotheses.tokens`.
        no_repeat_ngram_size: size of n-grams that must not occur twice in prefix and caption, 0 for
            no limit. 1 means that no token occurs twice.
        repetition_penalty: divisor of the logits of tokens that occurred before, 1.0 for none.
            Negative logits are multiplied by it (Keskar et al., 2019, CTRL).
        suppress_tokens: ids of tokens that are never generated.
        include: words or phrases that captions contain, such as `["cat", "orange|white"]`: "cat",
            and "orange" or "white". Alternatives are separated by "|" or a list of their own.
        exclude: words or phrases that captions never contain, such as `["a photo of", "cat"]`.

    Phrases occur as whole words, in upper or lower case: "cat" occurs in "Cat." and "cat's", not in
    "cats" or "category". A caption that contains a phrase of every group of `include`, in the text
    that it continues or in its own, is preferred to all others; one that does not is returned only
    if the search finds no better one. `exclude` forbids the tokens after which the text so far
    contains a phrase. Words that begin with the same tokens are lost with it: "caterpillar" with
    "cat", if its tokens are "cat" and "erpillar".

    Raises:
        ValueError: a field is out of range.
        TypeError: a field has the wrong type.
    """

    min_new_tokens: int = 1
    max_new_tokens: int = 40
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = ()
    include: tuple[tuple[str, ...], ...] = ()
    exclude: tuple[str, ...] = ()

    # Numbers that a compiled program takes as inputs: (value without effect, any other value).
    _dynamic: ClassVar[dict[str, tuple[float, float]]] = {"repetition_penalty": (1.0, 2.0)}

    def __post_init__(self) -> None:
        self._check_integer("max_new_tokens", minimum=1)
        self._check_integer("min_new_tokens", minimum=0)
        self._check_integer("no_repeat_ngram_size", minimum=0)
        self._check_number("repetition_penalty", above=0.0)
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                "`min_new_tokens` must not exceed `max_new_tokens`. Received: "
                f"min_new_tokens={self.min_new_tokens}, max_new_tokens={self.max_new_tokens}"
            )
        try:
            tokens = tuple(sorted({operator.index(token) for token in self.suppress_tokens}))
        except TypeError:
            raise TypeError(
                "`suppress_tokens` must be token ids (integers). Received: "
                f"suppress_tokens={self.suppress_tokens!r}"
            ) from None
        if tokens and tokens[0] < 0:
            raise ValueError(
                "`suppress_tokens` must be token ids, 0 or above. Received: "
                f"suppress_tokens={self.suppress_tokens!r}"
            )
        object.__setattr__(self, "suppress_tokens", tokens)
        groups = tuple(
            tuple(self._texts("include", x.split("|") if isinstance(x, str) else x))
            for x in self._listed("include")
        )
        if len(groups) > MAX_GROUPS or not all(groups):
            raise ValueError(
                f"`include` must be at most {MAX_GROUPS} groups of words, none of them empty. "
                f"Received: include={self.include!r}"
            )
        object.__setattr__(self, "include", tuple(dict.fromkeys(groups)))
        excluded = self._texts("exclude", self._listed("exclude"))
        object.__setattr__(self, "exclude", tuple(dict.fromkeys(excluded)))

    @property
    def rows_per_image(self) -> int:
        """Number of rows of `step` per image."""
        return 1

    def program(self) -> Sampler:
        """Returns a sampler with the same program as this one.

        Samplers that differ only in the values of `inputs` have equal programs, and so have those
        that differ only in the words of `include` and `exclude`.
        """
        fields: dict[str, Any] = {
            name: neutral if getattr(self, name) == neutral else other
            for name, (neutral, other) in self._dynamic.items()
        }
        groups = tuple((str(number),) for number in range(len(self.include)))
        return replace(self, **fields, include=groups, exclude=("any",) if self.exclude else ())

    def inputs(self, images: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns the values that `program` needs to generate the captions of this sampler.

        Args:
            images: indices of the B images, which random numbers depend on.

        Returns:
            Scalars float32 by field; and of samplers that draw, "noise" (B, K, T).
        """
        return {name: np.array(getattr(self, name), np.float32) for name in self._dynamic}

    def __call__(
        self,
        step: Step,
        prompt: Any,
        state: Any,
        *,
        eos: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> Hypotheses:
        """Generates captions for a batch of images.

        Decoding is one program with buffers of fixed size: call it eagerly or inside `tf.function`
        or `jax.jit`, with B known at tracing time.

        Args:
            step: `step(tokens, position, state) -> (logits, state)` with tokens (R,) int32,
                position a scalar int32 tensor, and logits (R, V) of any float dtype for the next
                token. `R = B * rows_per_image`, the rows of an image adjacent. The returned state
                has the structure, shapes and dtypes of the received one.
            prompt: (B, 1 + P) integers, the start token and P >= 0 tokens that the captions
                continue. The first step feeds the last of them, at position P.
            state: state after all tokens of the prompt but the last: any nesting of dicts, lists
                and tuples of tensors with B rows each, or an empty one. Rows are repeated to R and
                reordered with their hypotheses.
            eos: id of the token that ends a caption.
            inputs: tensors in place of this sampler's own values, as in `inputs`. A compiled
                function that takes them need not be compiled again for other values. `include` and
                `exclude` require the tables of `effcap.phrases.phrase_tables` in it.

        Returns:
            `Hypotheses` with K captions per image.

        Raises:
            TypeError: `eos` or the prompt are not integers.
            ValueError: a shape, `eos` or an id in `suppress_tokens` does not fit, or words have no
                tables.
        """
        raise NotImplementedError

    def _listed(self, field: str) -> Sequence[Any]:
        value = getattr(self, field)
        if not isinstance(value, list | tuple):
            raise TypeError(f"`{field}` must be a list of words. Received: {field}={value!r}")
        return value

    def _texts(self, field: str, texts: Any) -> list[str]:
        """Returns texts without spaces around them."""
        if not isinstance(texts, list | tuple) or not all(isinstance(x, str) for x in texts):
            raise TypeError(f"`{field}` must be words as text. Received: {field}={texts!r}")
        stripped = [" ".join(text.split()) for text in texts]
        if not all(stripped):
            raise ValueError(f"`{field}` must not have empty words. Received: {field}={texts!r}")
        return stripped

    def _check_integer(self, field: str, minimum: int) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"`{field}` must be an integer. Received: {field}={value!r}")
        if value < minimum:
            raise ValueError(f"`{field}` must be {minimum} or above. Received: {field}={value}")
        object.__setattr__(self, field, int(value))

    def _check_number(
        self, field: str, minimum: float = -math.inf, above: float = -math.inf
    ) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"`{field}` must be a number. Received: {field}={value!r}")
        if not math.isfinite(value):
            raise ValueError(f"`{field}` must be finite. Received: {field}={value}")
        if value < minimum:
            raise ValueError(f"`{field}` must be {minimum} or above. Received: {field}={value}")
        if value <= above:
            raise ValueError(f"`{field}` must be above {above}. Received: {field}={value}")
        object.__setattr__(self, field, float(value))
