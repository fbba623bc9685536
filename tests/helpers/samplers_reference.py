"""A toy model whose logits depend on all it has read, and plain searches to compare samplers with.

Everything here works on one image at a time with Python lists and float64, and stops early nowhere.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np
from keras import ops

EOS = 0


class Toy:
    """Next-token logits drawn at random for each image, each history of tokens and each position.

    The history is kept in the state alone, as a number with one digit per token, so that the logits
    are wrong as soon as a row is given the state of another one or a wrong position.
    """

    def __init__(self, images, vocabulary, steps, seed=0, prompt_tokens=1, scale=2.0):
        random = np.random.default_rng(seed)
        self.vocabulary = vocabulary
        self.prompt = random.integers(0, vocabulary, (images, prompt_tokens)).astype("int32")
        histories = (vocabulary + 1) ** (prompt_tokens + steps)
        # Few different rows at many places: a step of 1 in any index gives other logits.
        self.table = (scale * random.normal(size=(9973, vocabulary))).astype("float32")
        self.offsets = random.integers(0, 9973, images).astype("int32")
        self.positions = random.integers(0, 9973, prompt_tokens + steps).astype("int32")
        assert histories < 2**31, "the history must fit into int32"
        self.state = {"history": np.zeros(images, "int32"), "image": [(self.offsets,)]}
        self.calls = 0

    def step(self, tokens, position, state):
        self.calls += 1
        history = state["history"] * (self.vocabulary + 1) + tokens + 1
        image = state["image"][0][0]
        shift = ops.take(ops.convert_to_tensor(self.positions), position)
        row = (history % 9973 + image + shift) % 9973
        logits = ops.take(ops.convert_to_tensor(self.table), row, axis=0)
        return logits, {"history": history, "image": [(image,)]}

    def logits(self, image, generated):
        history = 0
        read = [*self.prompt[image].tolist(), *generated]
        for token in read:
            history = history * (self.vocabulary + 1) + token + 1
        row = history % 9973 + int(self.offsets[image]) + int(self.positions[len(read) - 1])
        return self.table[row % 9973].astype("float64")

    def run(self, sampler, **kwargs):
        return as_numpy(sampler(self.step, self.prompt, self.state, eos=EOS, **kwargs))


def as_numpy(samples):
    return type(samples)(*(ops.convert_to_numpy(part) for part in samples))


def compiled(function, jit=True):
    """Compiles a function without arguments on the backend in use; None where there is no way."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(function, jit_compile=jit)
    if keras.backend.backend() == "jax" and jit:
        import jax

        return jax.jit(function)
    return None


def log_probs(logits, generated, rules):
    """Log-probabilities of the next token, -inf where a rule forbids it."""
    logits = np.array(logits, "float64")
    for token in set(generated):
        logits[token] *= rules.repetition_penalty ** (-1 if logits[token] > 0 else 1)
    probs = np.exp(logits - logits.max())
    logp = np.log(probs / probs.sum())
    allowed = [token for token in range(len(logp)) if permitted(token, generated, rules)]
    result = np.full(len(logp), -np.inf)
    result[allowed or [EOS]] = logp[allowed or [EOS]]
    return result


def permitted(token, generated, rules):
    if token in rules.suppress or (token == EOS and len(generated) < rules.min_tokens):
        return False
    n = rules.no_repeat_ngram
    if n == 0 or len(generated) < n:
        return True
    longer = [*generated, token]
    ngrams = [tuple(longer[i : i + n]) for i in range(len(longer) - n + 1)]
    return len(set(ngrams)) == len(ngrams)


def all_captions(toy, image, rules):
    """Every caption there is: {tokens: log-probability}, complete ones and those that are cut."""
    complete, cut, running = {}, {}, {(): 0.0}
    for _ in range(rules.max_tokens):
        longer = {}
        for tokens, total in running.items():
            logp = log_probs(toy.logits(image, tokens), tokens, rules)
            for token in np.flatnonzero(logp > -np.inf).tolist():
                into = complete if token == EOS else longer
                into[(*tokens, token)] = total + logp[token]
        running = longer
    cut.update(running)
    return complete, cut


def score(tokens, total, length_penalty):
    return total / len(tokens) ** length_penalty


def beam_search(toy, image, sampler):
    """Diverse beam search, of which beam search is the case of one group."""
    width = sampler.beams // sampler.groups
    running = [[((), 0.0)] for _ in range(sampler.groups)]
    done = [[] for _ in range(sampler.groups)]
    for _ in range(sampler.max_tokens):
        chosen = []
        for group in range(sampler.groups):
            candidates = []
            for tokens, total in running[group]:
                logp = log_probs(toy.logits(image, tokens), tokens, sampler)
                for token in np.flatnonzero(logp > -np.inf).tolist():
                    after = total + logp[token]
                    rank = after - sampler.diversity * chosen.count(token)
                    candidates.append((rank, (*tokens, token), after))
            candidates.sort(key=lambda candidate: -candidate[0])
            candidates = candidates[: 2 * width]
            done[group] += [(tokens, total) for _, tokens, total in candidates if tokens[-1] == EOS]
            goes_on = [(tokens, total) for _, tokens, total in candidates if tokens[-1] != EOS]
            running[group] = goes_on[:width]
            chosen += [tokens[-1] for tokens, _ in running[group]]

    def ranked(hypotheses):
        scored = [(score(*one, sampler.length_penalty), one[0]) for one in hypotheses]
        return sorted(scored, key=lambda one: -one[0])

    # (is it cut, score, tokens) per group, best first
    groups = [
        [(False, *one) for one in ranked(done[group])]
        + [(True, *one) for one in ranked(running[group])]
        for group in range(sampler.groups)
    ]
    by_place = [
        sorted(
            (group[place] for group in groups if place < len(group)),
            key=lambda one: (one[0], -one[1]),
        )
        for place in range(min(sampler.captions, width))
    ]
    seen, new, repeated = set(), [], []
    for one in itertools.chain(*by_place):
        (repeated if one[2] in seen else new).append(one)
        seen.add(one[2])
    best = [*sorted(new, key=lambda one: one[0]), *repeated][: sampler.captions]
    return [(one[1], one[2]) for one in sorted(best, key=lambda one: (one[0], -one[1]))]


def assert_captions(samples, image, expected):
    """`expected` is a list of (score, tokens with the final eos), best first."""
    for place, tokens in enumerate(samples.tokens[image].tolist()):
        length = int(samples.lengths[image, place])
        if place >= len(expected):
            assert samples.scores[image, place] == -np.inf
            assert length == 0
            assert set(tokens) == {EOS}
            continue
        wanted_score, wanted = expected[place]
        assert tuple(tokens[: len(wanted)]) == wanted
        assert set(tokens[len(wanted) :]) <= {EOS}
        assert length == len(wanted) - (wanted[-1] == EOS)
        np.testing.assert_allclose(samples.scores[image, place], wanted_score, rtol=1e-4, atol=1e-5)
