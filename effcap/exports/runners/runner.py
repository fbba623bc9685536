"""Captions photos, or arrays in .npz files, without Keras: python run.py [--greedy] FILE ..."""

import json
import re
import sys
from operator import itemgetter
from pathlib import Path

import numpy as np
from graphs import Graphs
from photos import load_inputs
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
SEARCH, EOS = MANIFEST["search"], MANIFEST["eos_id"]
RANK = itemgetter(0)


def forbid(scores, texts):
    """Sets log-probabilities (B,K,V) of what must not follow texts (B,K,T) to -inf."""
    end, size = scores[..., EOS].copy(), SEARCH["no_repeat_ngram_size"]
    least = len(MANIFEST["prompt"]) - 1 + SEARCH["min_new_tokens"]
    if texts.shape[2] < least or SEARCH["suppress_eos"]:
        scores[..., EOS] = -np.inf
    if 0 < size <= texts.shape[2]:
        grams = np.lib.stride_tricks.sliding_window_view(texts, size, axis=2)  # (B,K,N,size)
        repeats = grams[..., :-1] == texts[:, :, None, texts.shape[2] - size + 1 :]
        for row, beam, n in np.argwhere(repeats.all(axis=3)):
            scores[row, beam, grams[row, beam, n, -1]] = -np.inf
    stuck = np.isneginf(scores).all(axis=2)  # (B,K): all that is left is to end
    scores[stuck, EOS] = end[stuck]


def highest(scores, number):
    """Returns the indices of the highest of scores (N,), the lower index of equal ones first."""
    found = np.flatnonzero(scores >= np.partition(scores, -number)[-number])
    return found[np.argsort(-scores[found], kind="stable")][:number]


def search(graphs, inputs, beams):
    """Returns the best caption of each row: its rank, tokens with the prompt, and if it ended.

    A rank is whether the caption ended and is not empty, then its score.
    """
    prompt, steps, power = MANIFEST["prompt"], SEARCH["max_new_tokens"], SEARCH["length_penalty"]
    rows, past, beam = len(next(iter(inputs.values()))), len(prompt) - 1, np.arange(beams)
    graphs.start(inputs)
    if past:
        graphs.extend([prompt[:-1]] * rows, range(past), [np.tri(past, dtype=bool)] * rows)
    texts, last = np.tile(prompt[1:], (rows, beams, 1)).astype(int), [[prompt[-1]] * beams] * rows
    origins = np.zeros((rows, beams, 0), int)  # the beam that has computed each token
    sums = np.tile(np.where(beam, -np.inf, 0.0), (rows, 1))  # (B,K)
    best = [((False, -np.inf), (), False)] * rows
    for n in range(1, steps + 1):
        origins = np.concatenate([origins, np.tile(beam[:, None], (rows, 1, 1))], axis=2)  # (B,K,n)
        own = (origins[..., None] == beam).reshape(rows, beams, -1)  # (B,K,n*K)
        mask = np.concatenate([np.ones((rows, beams, past), bool), own], axis=2)
        scores = graphs.extend(last, [past + n - 1] * beams, mask).copy()  # (B,K,V)
        forbid(scores, texts)
        totals = (sums[..., None] + scores).reshape(rows, -1)  # (B,K,V) -> (B,K*V)
        number = min(2 * beams, totals.shape[1]) if beams > 1 else 1
        top = np.stack([highest(row, number) for row in totals])  # (B,2K)
        sums, (parents, last) = np.take_along_axis(totals, top, 1), divmod(top, scores.shape[2])
        ends = last == EOS
        for row, k in np.argwhere(ends & np.isfinite(sums)):
            rank = (n > 1, sums[row, k] / n**power)  # an empty caption is the last resort
            best[row] = max(best[row], (rank, texts[row, parents[row, k]], True), key=RANK)
        kept = np.argsort(ends, axis=1, kind="stable")[:, :beams]  # (B,K)
        sums = np.where(ends, -np.inf, sums)
        sums, parents, last = (np.take_along_axis(x, kept, 1) for x in (sums, parents, last))
        texts, origins = (np.take_along_axis(x, parents[..., None], 1) for x in (texts, origins))
        texts = np.concatenate([texts, last[..., None]], axis=2)
        rest = sums.max(axis=1)  # (B,); sums only fall, so these are the best reachable scores:
        reach = np.maximum(rest / min(n + 1, steps) ** power, rest / steps**power)
        limits = [rank[1] if rank[0] else -np.inf for rank, *_ in best]
        if (reach <= limits).all():
            break
    for row, k in enumerate(sums.argmax(axis=1)):
        truncated = ((False, sums[row, k] / steps**power), texts[row, k], False)
        best[row] = max(truncated, best[row], key=RANK)
    return best


if __name__ == "__main__":
    files = [name for name in sys.argv[1:] if name != "--greedy"]
    if not files:
        sys.exit(__doc__)
    graphs, tokenizer = Graphs(FOLDER), Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    size = 8 if MANIFEST["photo"] else 1  # other inputs may differ in length
    for start in range(0, len(files), size):
        loaded = {name: load_inputs(name, MANIFEST) for name in files[start : start + size]}
        loaded = {name: inputs for name, inputs in loaded.items() if inputs}
        if loaded:
            rows = loaded.values()
            inputs = {key: np.concatenate([x[key] for x in rows]) for key in MANIFEST["inputs"]}
            found = search(graphs, inputs, 1 if "--greedy" in sys.argv else SEARCH["num_beams"])
            for name, (_, tokens, has_ended) in zip(loaded, found, strict=True):
                text = tokenizer.decode(tokens).rstrip("\ufffd") + MANIFEST["end_text"] * has_ended
                print(name, re.sub(MANIFEST["removed"], "", text).strip(), sep="\t")
