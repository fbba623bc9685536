"""Beam search and diverse beam search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from keras import ops

from effcap.samplers.base import Sampler, Samples, Step
from effcap.samplers.constraints import RULED_OUT, NextToken, log_probability
from effcap.samplers.decode_loop import Decoding
from effcap.samplers.ops import gather, top_k
from effcap.samplers.ranking import best_captions


class _Group(NamedTuple):
    """A group of W of an image's K hypotheses, or all of them; F of its finished ones are kept."""

    parents: Any  # (B, W) which of the group's rows each hypothesis continues
    token: Any  # (B, W) its last token
    tokens: Any  # (B, W, T)
    sums: Any  # (B, W) sum of its log-probabilities; -inf where there is no hypothesis
    done_tokens: Any  # (B, F, T)
    done_scores: Any  # (B, F), -inf where there is none


@dataclass(frozen=True, kw_only=True)
class Beam(Sampler):
    """Follows the `beams` most probable hypotheses of each image side by side.

    At each step the `2 * beams` best continuations of an image are its candidates. Those that end
    in `eos` compete, by score, for the places of finished hypotheses, which are apart from the
    running ones: a finished hypothesis only ever yields to a finished one with a higher score. The
    best `beams` of the others run on. The search stops as soon as no running hypothesis of any
    image can reach the score of those kept, which is decided exactly for every `length_penalty`:
    the smaller the penalty, the earlier.

    R = B * beams rows. The score is `sum of log-probabilities / length ** length_penalty` under the
    model's distribution (after `repetition_penalty`), where both the sum and the length include
    the `eos`. Captions come best first; those cut at `max_tokens` come after all complete ones and
    only where fewer than `captions` were completed. If an image has fewer possible captions than
    asked for, the places left are empty with a score of -inf. Of equal candidates the one of the
    better hypothesis, then of the lower token id is preferred.

    With `groups` above 1 this is diverse beam search with Hamming diversity (Vijayakumar et al.
    2016): groups of `beams / groups` hypotheses choose one after the other, and a token is
    `diversity` less in log-probability for each time that an earlier group chose it in the same
    step. Scores are free of that. The captions are the best of each group, then the second best
    and so on, repeated ones last, and are returned by score.

    Args:
        beams: hypotheses per image. Default 5.
        length_penalty: exponent of the length. 0 ranks by probability, 1 by the mean
            log-probability of a token; higher favours longer captions. Default 0.7.
        captions: captions returned per image, at most `beams`. Default 1.
        groups: groups of beams, a divisor of `beams`. Default 1.
        diversity: strength of the diversity between groups, 0 or above. Default 0.0.
    """

    beams: int = 5
    length_penalty: float = 0.7
    captions: int = 1
    groups: int = 1
    diversity: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._integer("beams", least=1)
        self._number("length_penalty")
        self._integer("captions", least=1)
        self._integer("groups", least=1)
        self._number("diversity", least=0.0)
        if self.captions > self.beams:
            raise ValueError(
                "`captions` must not exceed `beams`. Received: "
                f"captions={self.captions}, beams={self.beams}"
            )
        if self.beams % self.groups:
            raise ValueError(
                "`beams` must be divisible by `groups`. Received: "
                f"beams={self.beams}, groups={self.groups}"
            )
        if self.diversity and self.groups == 1:
            raise ValueError(
                "`diversity` takes effect between groups: set `groups` above 1. Received: "
                f"diversity={self.diversity}, groups=1"
            )

    @property
    def rows(self) -> int:
        return self.beams

    def __call__(self, step: Step, prompt: Any, state: Any, *, eos: int) -> Samples:
        decoding = Decoding(self, step, prompt, state, eos)
        images, beams, steps = decoding.images, self.beams, self.max_tokens
        width = beams // self.groups  # W
        kept = min(self.captions, width)  # F

        def running(count, active, *_):
            return ops.logical_and(count < steps, active)

        def body(count, active, token, tokens, sums, done_tokens, done_scores, leaves):
            rows = ops.reshape(tokens, (-1, steps))  # (B, K, T) -> (R, T)
            following, leaves = decoding.next(token, rows, count, leaves)
            groups: list[_Group] = []
            for first in range(0, beams, width):
                of_group = slice(first, first + width)
                of_done = slice(first // width * kept, first // width * kept + kept)
                group = _Group(
                    parents=None,
                    token=None,
                    tokens=tokens[:, of_group],
                    sums=sums[:, of_group],
                    done_tokens=done_tokens[:, of_done],
                    done_scores=done_scores[:, of_done],
                )
                following_group = _rows(following, images, beams, of_group)
                groups.append(self._advance(decoding, count, group, following_group, groups))
            active = self._can_improve(count + 1, groups)
            parents = [group.parents + index * width for index, group in enumerate(groups)]
            parents = ops.concatenate(parents, axis=1)  # (B, K)
            parents = parents + ops.arange(images, dtype="int32")[:, None] * beams
            parents = ops.reshape(parents, (-1,))  # (B, K) -> (R,)
            leaves = tuple(ops.take(leaf, parents, axis=0) for leaf in leaves)
            _, token, *rest = (
                ops.concatenate(parts, axis=1) for parts in zip(*groups, strict=True)
            )
            return count + 1, active, ops.reshape(token, (-1,)), *rest, leaves

        first_only = ops.where(ops.arange(beams) % width == 0, 0.0, RULED_OUT)  # (K,)
        done = self.groups * kept
        _, _, _, tokens, sums, done_tokens, done_scores, _ = ops.while_loop(
            running,
            body,
            (
                ops.convert_to_tensor(0, "int32"),
                ops.convert_to_tensor(True, "bool"),
                decoding.token,
                ops.full((images, beams, steps), eos, "int32"),
                ops.broadcast_to(ops.cast(first_only, "float32"), (images, beams)),
                ops.full((images, done, steps), eos, "int32"),
                ops.full((images, done), RULED_OUT, "float32"),
                decoding.leaves,
            ),
        )
        tokens, scores = best_captions(
            done_tokens,
            done_scores,
            tokens,
            self._score(sums, steps),
            groups=self.groups,
            captions=self.captions,
            eos=eos,
        )
        return decoding.samples(tokens, scores)

    def _score(self, sums: Any, length: Any) -> Any:
        return sums / ops.power(ops.cast(length, "float32"), self.length_penalty)

    def _advance(
        self,
        decoding: Decoding,
        count: Any,
        group: _Group,
        following: NextToken,
        earlier: list[_Group],
    ) -> _Group:
        """Takes one step with the hypotheses of a group, after those of `earlier` groups."""
        eos = decoding.eos
        width, kept = group.sums.shape[1], group.done_scores.shape[1]
        parents, token, sums, ranks = self._candidates(following, group.sums, earlier, eos)
        tokens = decoding.write(gather(group.tokens, parents), count, token)  # (B, C, T)
        ended = token == eos  # (B, C)

        # Those kept come first, so that a new one of the same score does not replace them.
        scores = ops.where(ended, self._score(sums, count + 1), RULED_OUT)
        done_scores = ops.concatenate([group.done_scores, scores], axis=1)  # (B, F + C)
        done_tokens = ops.concatenate([group.done_tokens, tokens], axis=1)  # (B, F + C, T)
        done_scores, best = top_k(done_scores, kept)  # (B, F)
        done_tokens = gather(done_tokens, best)  # (B, F, T)

        _, best = top_k(ops.where(ended, RULED_OUT, ranks), width)  # (B, W)
        return _Group(
            parents=gather(parents, best),
            token=gather(token, best),
            tokens=gather(tokens, best),
            sums=gather(ops.where(ended, RULED_OUT, sums), best),
            done_tokens=done_tokens,
            done_scores=done_scores,
        )

    def _candidates(
        self, following: NextToken, sums: Any, earlier: list[_Group], eos: int
    ) -> tuple[Any, Any, Any, Any]:
        """The C best continuations of W hypotheses: parents, tokens, sums and ranks, all (B, C)."""
        images, width = sums.shape
        vocabulary = following.logits.shape[-1]
        most = min(2 * width, vocabulary)
        # One hypothesis has at most `most` of the candidates, so the rest of its row can go.
        diverse = self._less_of_earlier(following.logits, width, earlier)
        ranked, ids = top_k(diverse, most)  # (B * W, most)
        logits = ops.take_along_axis(following.logits, ids, axis=1) if earlier else ranked

        ends_here = ops.logical_and(ranked[:, :1] <= RULED_OUT, ops.arange(most) == 0)
        ids = ops.where(ends_here, eos, ids)
        last_resort = following.last_resort[:, None]  # (B * W, 1)

        def extended(logits: Any) -> Any:
            log_probs = log_probability(logits, following.normalizer)
            log_probs = ops.where(ends_here, last_resort, log_probs)
            log_probs = ops.reshape(log_probs, (images, width, most))  # (B * W, most) -> ...
            return ops.reshape(sums[:, :, None] + log_probs, (images, -1))  # (B, W * most)

        sums_after = extended(logits)
        ranks = extended(ranked) if earlier else sums_after
        ranks, best = top_k(ranks, min(2 * width, width * most))  # (B, C)
        token = gather(ops.reshape(ids, (images, -1)), best)
        return best // most, token, gather(sums_after, best), ranks

    def _less_of_earlier(self, logits: Any, width: int, earlier: list[_Group]) -> Any:
        """Lowers logits (B * W, V) by `diversity` for each earlier choice of the token."""
        if not earlier or not self.diversity:
            return logits
        ids = ops.concatenate([group.token for group in earlier], axis=1)  # (B, N)
        sums = ops.concatenate([group.sums for group in earlier], axis=1)  # (B, N)
        less = ops.where(sums > RULED_OUT, -self.diversity, 0.0)
        ids, less = (ops.repeat(part, width, axis=0) for part in (ids, less))  # (B * W, N)
        rows = ops.broadcast_to(ops.arange(ids.shape[0], dtype="int32")[:, None], ids.shape)
        places = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))  # (B * W * N, 2)
        return ops.scatter_update(logits, places, ops.reshape(less, (-1,)), reduction="add")

    def _can_improve(self, count: Any, groups: list[_Group]) -> Any:
        """Whether a hypothesis of `count` tokens can still end with a score that is kept.

        A sum only falls from here on, so the best score within reach is today's sum over the
        length that divides it best: the longest or, with a negative penalty, the next.
        """
        within_reach = []
        for group in groups:
            best = ops.max(group.sums, axis=1)  # (B,)
            reach = ops.maximum(
                self._score(best, ops.minimum(count + 1, self.max_tokens)),
                self._score(best, self.max_tokens),
            )
            within_reach.append(ops.any(reach > ops.min(group.done_scores, axis=1)))
        return ops.any(ops.stack(within_reach))


def _rows(following: NextToken, images: int, beams: int, group: slice) -> NextToken:
    """The rows of a group of W hypotheses: (B * K, ...) -> (B * W, ...)."""
    if group.stop - group.start == beams:
        return following
    parts = []
    for part in following:
        rest = tuple(part.shape[1:])
        part = ops.reshape(part, (images, beams, *rest))[:, group]  # (B * K, ...) -> (B, W, ...)
        parts.append(ops.reshape(part, (-1, *rest)))  # (B, W, ...) -> (B * W, ...)
    return NextToken(*parts)
