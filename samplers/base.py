"""What all samplers share: the fields, the checks and the shape of what comes back."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


class Samples(NamedTuple):
    """Captions of a batch, best first.

    Attributes:
        tokens: `(B, captions, T)` int32 with `T = max_tokens`. Only what was generated: the prompt
            is not in it, and every place from the end of the caption on holds `eos`.
        scores: `(B, captions)` float32; see the sampler for what it measures.
        lengths: `(B, captions)` int32, the number of generated tokens without the `eos`.
            A caption is complete if its length is below `max_tokens`; at `max_tokens` it was cut.
            (A place for which a beam search has no caption has length 0 and a score of -inf.)
    """

    tokens: Any
    scores: Any
    lengths: Any


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Base of the samplers: turns next-token logits into captions.

    A caption takes at most `max_tokens` decoding steps. The `eos` that completes it is generated in
    one of them, so complete captions have at most `max_tokens - 1` tokens before the `eos`, and one
    that has none after `max_tokens` steps is cut there.

    Constraints count generated tokens only; the prompt is free of them. `suppress`, `min_tokens`
    and `no_repeat_ngram` rule tokens out and leave the log-probabilities of the others as the
    model gave them, so a score is what the model thinks of a caption; only `repetition_penalty`
    changes the distribution. Tokens with a logit of -inf or NaN are ruled out as well. Where
    nothing is left to choose, the caption ends: `eos` is taken even if it is suppressed or
    `min_tokens` is not reached, at the model's log-probability. Log-probabilities are float32 and
    never below -10,000, so scores of captions are finite, and an image whose logits are NaN gets
    an empty caption with a score of -10,000.

    Args:
        min_tokens: `eos` is ruled out before that many tokens. Default 0.
        max_tokens: decoding steps at most; the width T of `Samples.tokens`. Default 40.
        no_repeat_ngram: n, so that no n-gram of the caption occurs twice; 1 means that no token
            occurs twice. 0 (default) is off.
        repetition_penalty: logits of tokens generated before are divided by it where positive and
            multiplied by it where negative (Keskar et al. 2019, CTRL). 1.0 (default) is off.
        suppress: ids of tokens that are never generated. Default none.

    Raises:
        ValueError: a field is out of range.
        TypeError: a field has the wrong type.
    """

    min_tokens: int = 0
    max_tokens: int = 40
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    suppress: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._integer("max_tokens", least=1)
        self._integer("min_tokens", least=0)
        self._integer("no_repeat_ngram", least=0)
        self._number("repetition_penalty", above=0.0)
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                "`min_tokens` must not exceed `max_tokens`. Received: "
                f"min_tokens={self.min_tokens}, max_tokens={self.max_tokens}"
            )
        try:
            suppress = tuple(sorted({operator.index(token) for token in self.suppress}))
        except TypeError:
            raise TypeError(
                f"`suppress` must hold token ids (integers). Received: suppress={self.suppress!r}"
            ) from None
        if suppress and suppress[0] < 0:
            raise ValueError(
                f"`suppress` must hold token ids, 0 or above. Received: suppress={self.suppress!r}"
            )
        object.__setattr__(self, "suppress", suppress)

    @property
    def rows(self) -> int:
        """Rows of `step` per image."""
        return 1

    def __call__(self, step: Step, prompt: Any, state: Any, *, eos: int) -> Samples:
        """Generates captions for a batch of images.

        The decoding is one program with buffers of fixed size, so it can be called eagerly or
        inside `tf.function` and `jax.jit`; B must be known when it is traced.

        Args:
            step: `step(tokens, position, state) -> (logits, state)` with tokens `(R,)` int32,
                position a scalar int32 tensor and logits `(R, V)` of any float dtype, for the token
                that follows. `R = B * rows`, rows of one image adjacent. The state comes back with
                the structure, shapes and dtypes it had.
            prompt: `(B, T0)` integers, `T0 >= 1`; fed token by token at positions 0 to T0 - 1.
            state: any nesting of dicts, lists and tuples of tensors with B rows each, or an empty
                one. Rows are repeated to R here, and follow their hypotheses.
            eos: id of the token that ends a caption.

        Returns:
            `Samples` with tokens `(B, captions, T)`, scores and lengths `(B, captions)`.

        Raises:
            TypeError: `eos` or the prompt are not integers.
            ValueError: a shape, `eos` or an id in `suppress` does not fit.
        """
        raise NotImplementedError

    def _integer(self, field: str, least: int) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"`{field}` must be an integer. Received: {field}={value!r}")
        if value < least:
            raise ValueError(f"`{field}` must be {least} or above. Received: {field}={value}")
        object.__setattr__(self, field, int(value))

    def _number(self, field: str, least: float = -math.inf, above: float = -math.inf) -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"`{field}` must be a number. Received: {field}={value!r}")
        if not math.isfinite(value):
            raise ValueError(f"`{field}` must be finite. Received: {field}={value}")
        if value < least:
            raise ValueError(f"`{field}` must be {least} or above. Received: {field}={value}")
        if value <= above:
            raise ValueError(f"`{field}` must be above {above}. Received: {field}={value}")
        object.__setattr__(self, field, float(value))
