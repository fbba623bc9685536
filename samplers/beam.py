"""Beam search and diverse beam search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from effcap.samplers.backend import ops
from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.constraints import FORBIDDEN, NextToken, log_probability
from effcap.samplers.decode_loop import DecodeLoop, decode_greedily
from effcap.samplers.ops import gather, top_k
from effcap.samplers.ranking import MISSING, Candidates, best_by_kind, best_captions
from effcap.samplers.word_search import WordSearch, num_unmet_at_end, word_search


class _Group(NamedTuple):
    """The W hypotheses of one group of beams, and its F best finished ones that are not empty."""

    parents: Any  # (B, W) row within the group that each hypothesis continues
    words: WordSearch | None  # words of the hypotheses before the next token
    token: Any  # (B, W) last token
    tokens: Any  # (B, W, T)
    token_scores: Any  # (B, W, T) their log-probabilities
    sums: Any  # (B, W) sum of log-probabilities, -inf where there is no hypothesis
    empty_sums: Any  # (B, 1) log-probability of the empty caption, -inf if it is not generated
    finished_tokens: Any  # (B, F, T)
    finished_token_scores: Any  # (B, F, T)
    finished_sums: Any  # (B, F) sum of log-probabilities
    finished_scores: Any  # (B, F) by which they are ranked, -inf where there is none
    finished_unmet: Any  # (B, F) number of groups of words that they lack


@dataclass(frozen=True, kw_only=True)
class Beam(Sampler):
    """Beam search: extends the `num_beams` most probable hypotheses of each image in parallel.

    At each step the candidates of an image are its `2 * num_beams` best continuations. Those that
    end in `eos` compete by score for the slots of finished hypotheses, which are separate from the
    running ones: only a finished hypothesis with a higher score replaces a finished one. The best
    `num_beams` of the other candidates continue. The search stops as soon as no running hypothesis
    of any image can reach the score of a kept finished one. This test is exact for every
    `length_penalty`; smaller penalties stop earlier.

    R = B * `num_beams` rows, K = `num_captions`. Captions compete by their log-probability divided
    by `length ** length_penalty`, where the length includes `eos`, and are returned best first;
    truncated and empty ones come after all others, and only if fewer than `num_captions` finished;
    those that lack words of `include` come after those that lack fewer.
    If an image has fewer possible captions than requested, the remaining slots are empty with a
    score of -inf. Of equal candidates the one of the better hypothesis is preferred, then the lower
    token id. A search with one beam is greedy decoding; with `include` it has 5 beams.

    With several groups this is diverse beam search with Hamming diversity (Vijayakumar et al.,
    2016): groups of `num_beams / num_beam_groups` hypotheses select tokens one after the other, and
    the log-probability of a token is reduced by `diversity_penalty` for each selection of it by an
    earlier group in the same step. Scores do not include this reduction. The captions selected are
    the best of each group, then the second best and so on, repeated ones last; they are returned
    best first.

    Args:
        num_beams: number of hypotheses per image.
        length_penalty: exponent of the length. 0 ranks captions by probability, 1 by the mean
            log-probability per token; higher values prefer longer captions.
        num_captions: number of captions returned per image, at most `num_beams`.
        num_beam_groups: number of groups of beams, a divisor of `num_beams`.
        diversity_penalty: reduction of a token's log-probability per use in an earlier group, 0 or
            above.
    """

    num_beams: int = 5
    length_penalty: float = 0.7
    num_captions: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0

    _dynamic: ClassVar[dict[str, tuple[float, float]]] = {
        **Sampler._dynamic,
        "length_penalty": (1.0, 1.0),
        "diversity_penalty": (0.0, 1.0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_integer("num_beams", minimum=1)
        self._check_number("length_penalty")
        self._check_integer("num_captions", minimum=1)
        self._check_integer("num_beam_groups", minimum=1)
        self._check_number("diversity_penalty", minimum=0.0)
        if self.num_captions > self.num_beams:
            raise ValueError(
                "`num_captions` must not exceed `num_beams`. Received: "
                f"num_captions={self.num_captions}, num_beams={self.num_beams}"
            )
        if self.num_beams % self.num_beam_groups:
            raise ValueError(
                "`num_beams` must be divisible by `num_beam_groups`. Received: "
                f"num_beams={self.num_beams}, num_beam_groups={self.num_beam_groups}"
            )
        if self.diversity_penalty and self.num_beam_groups == 1:
            raise ValueError(
                "`diversity_penalty` requires `num_beam_groups` above 1. Received: "
                f"diversity_penalty={self.diversity_penalty}, num_beam_groups=1"
            )

    @property
    def rows_per_image(self) -> int:
        return Beam.num_beams if self.num_beams == 1 and self.include else self.num_beams

    def __call__(
        self,
        step: Step,
        prompt: Any,
        state: Any,
        *,
        eos: int,
        inputs: Mapping[str, Any] | None = None,
    ) -> Hypotheses:
        if self.num_beams == 1 and self.include:
            several = replace(self, num_beams=self.rows_per_image)
            return several(step, prompt, state, eos=eos, inputs=inputs)
        loop = DecodeLoop(self, step, prompt, state, eos, inputs)
        if self.num_beams == 1:
            return decode_greedily(loop)
        batch_size, beams, steps = loop.batch_size, self.num_beams, self.max_new_tokens
        width = beams // self.num_beam_groups  # W
        kept = min(self.num_captions, width)  # F

        def unfinished(length: Any, active: Any, *_: Any) -> Any:
            return ops.logical_and(length < steps, active)

        def body(
            length: Any,
            active: Any,
            token: Any,
            tokens: Any,
            token_scores: Any,
            sums: Any,
            empty_sums: Any,
            finished_tokens: Any,
            finished_token_scores: Any,
            finished_sums: Any,
            finished_scores: Any,
            finished_unmet: Any,
            state: Any,
        ) -> tuple:
            rows = ops.reshape(tokens, (-1, steps))  # (B, K, T) -> (R, T)
            next_token, state = loop.next_token(token, rows, length, state)
            words = word_search(loop, state)
            groups: list[_Group] = []
            for index in range(self.num_beam_groups):
                beam_slice = slice(index * width, (index + 1) * width)
                kept_slice = slice(index * kept, (index + 1) * kept)
                group = _Group(
                    parents=None,
                    words=words and words.select(beam_slice),
                    token=None,
                    tokens=tokens[:, beam_slice],
                    token_scores=token_scores[:, beam_slice],
                    sums=sums[:, beam_slice],
                    empty_sums=empty_sums[:, index : index + 1],
                    finished_tokens=finished_tokens[:, kept_slice],
                    finished_token_scores=finished_token_scores[:, kept_slice],
                    finished_sums=finished_sums[:, kept_slice],
                    finished_scores=finished_scores[:, kept_slice],
                    finished_unmet=finished_unmet[:, kept_slice],
                )
                group_next_token = _select_rows(next_token, batch_size, beams, beam_slice)
                groups.append(self._extend(loop, length, group, group_next_token, groups))
            active = self._can_improve(length + 1, groups, loop)
            parents = [group.parents + index * width for index, group in enumerate(groups)]
            parents = ops.concatenate(parents, axis=1)  # (B, K)
            parents = parents + ops.arange(batch_size, dtype="int32")[:, None] * beams
            parents = ops.reshape(parents, (-1,))  # (B, K) -> (R,)
            state = tuple(ops.take(tensor, parents, axis=0) for tensor in state)
            _, _, token, *rest = (
                field[0] if field[0] is None else ops.concatenate(field, axis=1)
                for field in zip(*groups, strict=True)
            )
            return length + 1, active, ops.reshape(token, (-1,)), *rest, state

        # Each group starts from one hypothesis; the others would be duplicates of it.
        first_only = ops.where(ops.arange(beams) % width == 0, 0.0, FORBIDDEN)  # (K,)
        slots = self.num_beam_groups * kept
        _, _, token, tokens, token_scores, sums, empty_sums, *finished, state = ops.while_loop(
            unfinished,
            body,
            (
                ops.convert_to_tensor(0, "int32"),
                ops.convert_to_tensor(True, "bool"),
                loop.token,
                ops.full((batch_size, beams, steps), eos, "int32"),
                ops.zeros((batch_size, beams, steps), "float32"),
                ops.broadcast_to(ops.cast(first_only, "float32"), (batch_size, beams)),
                ops.full((batch_size, self.num_beam_groups), FORBIDDEN, "float32"),
                ops.full((batch_size, slots, steps), eos, "int32"),
                ops.zeros((batch_size, slots, steps), "float32"),
                ops.full((batch_size, slots), FORBIDDEN, "float32"),
                ops.full((batch_size, slots), FORBIDDEN, "float32"),
                ops.zeros((batch_size, slots), "float32"),
                loop.state,
            ),
        )
        empty_tokens = ops.full((batch_size, self.num_beam_groups, steps), eos, "int32")
        empty_token_scores = ops.zeros(empty_tokens.shape, "float32")  # (B, G, T)
        empty_token_scores = loop.write_token(empty_token_scores, 0, empty_sums)
        scores = _score(sums, steps, loop)  # (B, K)
        unmet = num_unmet_at_end(loop, state, token)  # (B, K)
        empty_unmet = num_unmet_at_end(loop, loop.state, None)[:, ::width]  # (B, G)
        best = best_captions(
            Candidates(*finished),
            Candidates(tokens, token_scores, sums, scores, unmet),
            Candidates(empty_tokens, empty_token_scores, empty_sums, empty_sums, empty_unmet),
            num_groups=self.num_beam_groups,
            num_captions=self.num_captions,
            eos=eos,
        )
        return loop.hypotheses(best.tokens, best.sums, best.token_scores)

    def _extend(
        self,
        loop: DecodeLoop,
        length: Any,
        group: _Group,
        next_token: NextToken,
        earlier: list[_Group],
    ) -> _Group:
        """Extends the hypotheses of a group by one token, after those of the `earlier` groups."""
        width, kept = group.sums.shape[1], group.finished_scores.shape[1]
        parents, token, log_probs, sums, ranks = self._candidates(next_token, group, earlier, loop)
        tokens = loop.write_token(gather(group.tokens, parents), length, token)  # (B, C, T)
        token_scores = gather(group.token_scores, parents)  # (B, C, T)
        token_scores = loop.write_token(token_scores, length, log_probs)
        ended = token == loop.eos  # (B, C)

        # Kept hypotheses come first, so that a new one with an equal score does not replace them.
        empty = ops.logical_and(ended, length == 0)  # (B, C)
        empty_sums = ops.max(ops.where(empty, sums, FORBIDDEN), axis=1, keepdims=True)  # (B, 1)
        competing = ops.logical_and(ended, length > 0)  # (B, C)
        scores = ops.where(competing, _score(sums, length + 1, loop), FORBIDDEN)  # (B, C)
        ranks = ops.where(ended, FORBIDDEN, ranks)
        unmet = ops.zeros(scores.shape, "float32")  # (B, C)
        if group.words is None:
            _, best = top_k(ranks, width)  # (B, W)
        else:
            words = group.words.after(parents, token)  # (B, C)
            unmet = words.num_unmet()
            best = words.allocate(ranks, self.max_new_tokens - length - 1, width)  # (B, W)
        finished_unmet = ops.concatenate([group.finished_unmet, unmet], axis=1)  # (B, F + C)
        finished_scores = ops.concatenate([group.finished_scores, scores], axis=1)  # (B, F + C)
        finished_sums = ops.concatenate([group.finished_sums, sums], axis=1)  # (B, F + C)
        finished_tokens = ops.concatenate([group.finished_tokens, tokens], axis=1)  # (B, F + C, T)
        finished_token_scores = ops.concatenate(
            [group.finished_token_scores, token_scores], axis=1
        )  # (B, F + C, T)
        if group.words is None:
            _, best_finished = top_k(finished_scores, kept)  # (B, F)
        else:
            kinds = ops.where(finished_scores > FORBIDDEN, finished_unmet, MISSING)
            best_finished = best_by_kind(kinds, finished_scores, kept)  # (B, F)

        return _Group(
            parents=gather(parents, best),
            words=None,
            token=gather(token, best),
            tokens=gather(tokens, best),
            token_scores=gather(token_scores, best),
            sums=gather(ops.where(ended, FORBIDDEN, sums), best),
            empty_sums=ops.maximum(group.empty_sums, empty_sums),
            finished_tokens=gather(finished_tokens, best_finished),  # (B, F, T)
            finished_token_scores=gather(finished_token_scores, best_finished),  # (B, F, T)
            finished_sums=gather(finished_sums, best_finished),  # (B, F)
            finished_scores=gather(finished_scores, best_finished),  # (B, F)
            finished_unmet=gather(finished_unmet, best_finished),  # (B, F)
        )

    def _candidates(
        self, next_token: NextToken, group: _Group, earlier: list[_Group], loop: DecodeLoop
    ) -> tuple[Any, Any, Any, Any, Any]:
        """Returns the C best continuations of W hypotheses; with words more, also towards those.

        Returns:
            parents, tokens, their log-probabilities, sums and ranks (sums reduced by the diversity
            penalty), all (B, C).
        """
        batch_size, width = group.sums.shape
        vocabulary_size = next_token.logits.shape[-1]
        most = min(2 * width, vocabulary_size)
        # One hypothesis has at most `most` of the candidates: the rest of its row is dropped.
        penalized = self._penalize_earlier(next_token.logits, width, earlier, loop)  # (B * W, V)
        ranked, ids = top_k(penalized, most)  # (B * W, most)
        number = 2 * width  # C
        if group.words is not None:
            ranked, ids = group.words.add_advancing(penalized, ranked, ids)
            most = ids.shape[1]
            number = width * most  # all of them: the best with few words left may be far down
        logits = ranked
        if earlier:
            logits = ops.take_along_axis(next_token.logits, ids, axis=1)  # (B * W, most)
            logits = ops.where(ranked > FORBIDDEN, logits, FORBIDDEN)

        # Where all tokens are forbidden, eos is the only continuation.
        stuck = ops.logical_and(ranked[:, :1] <= FORBIDDEN, ops.arange(most) == 0)
        ids = ops.where(stuck, loop.eos, ids)  # (B * W, most)
        eos_log_prob = next_token.eos_log_prob[:, None]  # (B * W, 1)

        def extended_sums(logits: Any) -> tuple[Any, Any]:
            log_probs = log_probability(logits, next_token.normalizer)  # (B * W, most)
            log_probs = ops.where(stuck, eos_log_prob, log_probs)
            log_probs = ops.reshape(log_probs, (batch_size, width, most))  # -> (B, W, most)
            new_sums = group.sums[:, :, None] + log_probs  # (B, W, most)
            new_sums = ops.reshape(new_sums, (batch_size, -1))  # (B, W * most)
            return new_sums, ops.reshape(log_probs, (batch_size, -1))  # (B, W * most)

        new_sums, log_probs = extended_sums(logits)
        ranks = extended_sums(ranked)[0] if earlier else new_sums
        ranks, best = top_k(ranks, min(number, width * most))  # (B, C)
        token = gather(ops.reshape(ids, (batch_size, -1)), best)  # (B, C)
        return best // most, token, gather(log_probs, best), gather(new_sums, best), ranks

    def _penalize_earlier(
        self, logits: Any, width: int, earlier: list[_Group], loop: DecodeLoop
    ) -> Any:
        """Reduces logits (B * W, V) by `diversity_penalty` per use of the token so far."""
        if not earlier or not self.diversity_penalty:
            return logits
        ids = ops.concatenate([group.token for group in earlier], axis=1)  # (B, N)
        sums = ops.concatenate([group.sums for group in earlier], axis=1)  # (B, N)
        penalty = ops.cast(loop.values["diversity_penalty"], "float32")
        penalties = ops.where(sums > FORBIDDEN, -penalty, 0.0)  # (B, N)
        ids = ops.repeat(ids, width, axis=0)  # (B, N) -> (B * W, N)
        penalties = ops.repeat(penalties, width, axis=0)  # (B, N) -> (B * W, N)
        rows = ops.broadcast_to(ops.arange(ids.shape[0], dtype="int32")[:, None], ids.shape)
        indices = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))  # (B * W * N, 2)
        return ops.scatter_update(logits, indices, ops.reshape(penalties, (-1,)), reduction="add")

    def _can_improve(self, length: Any, groups: list[_Group], loop: DecodeLoop) -> Any:
        """Returns whether a hypothesis of `length` tokens can still replace a finished one.

        One that lacks words may be replaced by any. Sums only decrease, so the best reachable score
        is the current sum with the best reachable length: the maximum or, for a negative penalty,
        the next.
        """
        improvable = []
        for group in groups:
            best = ops.max(group.sums, axis=1)  # (B,)
            reachable = ops.maximum(
                _score(best, ops.minimum(length + 1, self.max_new_tokens), loop),
                _score(best, self.max_new_tokens, loop),
            )
            kept = ops.where(group.finished_unmet > 0, FORBIDDEN, group.finished_scores)  # (B, F)
            improvable.append(ops.any(reachable > ops.min(kept, axis=1)))
        return ops.any(ops.stack(improvable))


def _score(sums: Any, length: Any, loop: DecodeLoop) -> Any:
    """Computes the scores by which captions compete, from sums of log-probabilities."""
    return sums / ops.power(ops.cast(length, "float32"), loop.values["length_penalty"])


def _select_rows(next_token: NextToken, batch_size: int, beams: int, group: slice) -> NextToken:
    """Selects the rows of one group: (B * K, ...) -> (B * W, ...)."""
    if group.stop - group.start == beams:
        return next_token
    fields = []
    for field in next_token:
        rest = tuple(field.shape[1:])
        field = ops.reshape(field, (batch_size, beams, *rest))[:, group]  # -> (B, W, ...)
        fields.append(ops.reshape(field, (-1, *rest)))  # (B, W, ...) -> (B * W, ...)
    return NextToken(*fields)
