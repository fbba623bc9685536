"""A toy model whose logits depend on the whole history, and reference searches for the samplers.

The searches work on one image at a time with Python lists and float64, and never stop early.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np

from effcap.samplers.backend import numpy_arrays, ops

EOS = 0


class Toy:
    """Random next-token logits per image, history of tokens and position.

    The history is kept only in the state, as a number with one digit per token: logits differ as
    soon as a row gets another row's state or a wrong position. The first state has the history of
    all prompt tokens but the last, as after `Decoder.prefill`.
    """

    def __init__(self, images, vocabulary, steps, seed=0, prompt_tokens=1, scale=2.0):
        random = np.random.default_rng(seed)
        self.vocabulary = vocabulary
        self.prompt = random.integers(0, vocabulary, (images, prompt_tokens)).astype("int32")
        histories = (vocabulary + 1) ** (prompt_tokens + steps)
        # A change of 1 in any index selects other logits.
        self.table = (scale * random.normal(size=(9973, vocabulary))).astype("float32")
        self.offsets = random.integers(0, 9973, images).astype("int32")
        self.positions = random.integers(0, 9973, prompt_tokens + steps).astype("int32")
        assert histories < 2**31, "the history must fit into int32"
        history = np.zeros(images, "int32")
        for tokens in self.prompt.T[:-1]:
            history = history * (vocabulary + 1) + tokens + 1
        self.state = {"history": history, "image": [(self.offsets,)]}
        self.calls = 0

    def step(self, tokens, position, state):
        self.calls += 1
        history = state["history"] * (self.vocabulary + 1) + tokens + 1
        image = state["image"][0][0]
        shift = ops.take(ops.convert_to_tensor(self.positions), position)
        row = (history % 9973 + image + shift) % 9973
        logits = ops.take(ops.convert_to_tensor(self.table), row, axis=0)
        return logits, {"history": history, "image": [(image,)]}

    def prefix(self, image):
        return tuple(self.prompt[image, 1:].tolist())

    def logits(self, image, generated):
        history = 0
        read = [*self.prompt[image].tolist(), *generated]
        for token in read:
            history = history * (self.vocabulary + 1) + token + 1
        row = history % 9973 + int(self.offsets[image]) + int(self.positions[len(read) - 1])
        return self.table[row % 9973].astype("float64")

    def run(self, sampler, **kwargs):
        """Returns the hypotheses, which are the same with Keras's and with NumPy's operations."""
        hypotheses = as_numpy(sampler(self.step, self.prompt, self.state, eos=EOS, **kwargs))
        if not isinstance(getattr(sampler, "seed", 0), int):  # draws anew at every call
            return hypotheses
        calls = self.calls
        with numpy_arrays():
            arrays = sampler(self.step, self.prompt, self.state, eos=EOS, **kwargs)
        self.calls = calls
        for name, field, array in zip(hypotheses._fields, hypotheses, arrays, strict=True):
            assert isinstance(array, np.ndarray) and array.dtype == field.dtype, name
            np.testing.assert_allclose(array, field, rtol=2e-5, atol=2e-5, err_msg=name)
        return hypotheses


def as_numpy(hypotheses):
    """Returns hypotheses as NumPy arrays."""
    return type(hypotheses)(*(ops.convert_to_numpy(field) for field in hypotheses))


def compiled(function, jit=True):
    """Returns a compiled function without arguments; None if the backend cannot compile it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(function, jit_compile=jit)
    if keras.backend.backend() == "jax" and jit:
        import jax

        return jax.jit(function)
    return None


def log_probs(logits, generated, rules, prefix=()):
    """Returns log-probabilities of the next token, -inf where a rule forbids it."""
    logits = np.array(logits, "float64")
    for token in {*prefix, *generated}:
        logits[token] *= rules.repetition_penalty ** (-1 if logits[token] > 0 else 1)
    probs = np.exp(logits - logits.max())
    logp = np.log(probs / probs.sum())
    allowed = [token for token in range(len(logp)) if permitted(token, generated, rules, prefix)]
    result = np.full(len(logp), -np.inf)
    result[allowed or [EOS]] = logp[allowed or [EOS]]
    return result


def permitted(token, generated, rules, prefix=()):
    if token in rules.suppress_tokens or (token == EOS and len(generated) < rules.min_new_tokens):
        return False
    n = rules.no_repeat_ngram_size
    if n == 0 or len(prefix) + len(generated) < n:
        return True
    longer = [*prefix, *generated, token]
    *ngrams, last = [tuple(longer[i : i + n]) for i in range(len(longer) - n + 1)]
    return last not in ngrams


def all_captions(toy, image, rules):
    """Returns all finished and all cut captions, as dictionaries of log-probabilities."""
    complete, cut, running = {}, {}, {(): 0.0}
    for _ in range(rules.max_new_tokens):
        longer = {}
        for tokens, total in running.items():
            logp = log_probs(toy.logits(image, tokens), tokens, rules, toy.prefix(image))
            for token in np.flatnonzero(logp > -np.inf).tolist():
                into = complete if token == EOS else longer
                into[(*tokens, token)] = total + logp[token]
        running = longer
    cut.update(running)
    return complete, cut


def score(tokens, total, length_penalty):
    return total / len(tokens) ** length_penalty


def beam_search(toy, image, sampler):
    """Returns the captions of diverse beam search; beam search is the case of one group."""
    width = sampler.num_beams // sampler.num_beam_groups
    num_candidates = 2 * width if sampler.num_beams > 1 else 1  # one beam is greedy
    running = [[((), 0.0)] for _ in range(sampler.num_beam_groups)]
    done = [[] for _ in range(sampler.num_beam_groups)]
    for _ in range(sampler.max_new_tokens):
        chosen = []
        for group in range(sampler.num_beam_groups):
            candidates = []
            for tokens, total in running[group]:
                logp = log_probs(toy.logits(image, tokens), tokens, sampler, toy.prefix(image))
                for token in np.flatnonzero(logp > -np.inf).tolist():
                    after = total + logp[token]
                    rank = after - sampler.diversity_penalty * chosen.count(token)
                    candidates.append((rank, (*tokens, token), after))
            candidates.sort(key=lambda candidate: -candidate[0])
            candidates = candidates[:num_candidates]
            done[group] += [(tokens, total) for _, tokens, total in candidates if tokens[-1] == EOS]
            unfinished = [(tokens, total) for _, tokens, total in candidates if tokens[-1] != EOS]
            running[group] = unfinished[:width]
            chosen += [tokens[-1] for tokens, _ in running[group]]

    groups = [
        ranked(done[group] + running[group], sampler.length_penalty)
        for group in range(sampler.num_beam_groups)
    ]
    by_rank = [
        sorted(
            (group[rank] for group in groups if rank < len(group)),
            key=lambda caption: (caption[0], -caption[1]),
        )
        for rank in range(min(sampler.num_captions, width))
    ]
    distinct, new, repeated = set(), [], []
    for caption in itertools.chain(*by_rank):
        (repeated if caption[2] in distinct else new).append(caption)
        distinct.add(caption[2])
    best = [*sorted(new, key=lambda caption: caption[0]), *repeated][: sampler.num_captions]
    best.sort(key=lambda caption: (caption[0], -caption[1]))
    return [(caption[3], caption[2]) for caption in best]


def ranked(captions, length_penalty):
    """Ranks (tokens, log-probability) as (cut or empty, score, tokens, log-probability)."""
    scored = [
        (tokens[-1] != EOS or len(tokens) == 1, score(tokens, total, length_penalty), tokens, total)
        for tokens, total in captions
    ]
    return sorted(scored, key=lambda caption: (caption[0], -caption[1]))


def assert_token_scores(toy, hypotheses, rules):
    """Compares the log-probability of every token with that of the model after the rules."""
    assert hypotheses.token_scores.shape == hypotheses.tokens.shape
    for image, place in np.ndindex(hypotheses.scores.shape):
        tokens, total = hypotheses.tokens[image, place].tolist(), hypotheses.scores[image, place]
        length, expected = int(hypotheses.lengths[image, place]), np.zeros(len(tokens))
        if total > -np.inf:
            for i, token in enumerate(tokens[: length + 1]):
                before = tokens[:i]
                logp = log_probs(toy.logits(image, before), before, rules, toy.prefix(image))
                expected[i] = logp[token]
            np.testing.assert_allclose(expected.sum(), total, rtol=1e-4, atol=1e-5)
        received = hypotheses.token_scores[image, place]
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def assert_captions(samples, image, expected):
    """Compares hypotheses with (log-probability, tokens including the final eos), best first."""
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
