"""Captions photos, or arrays in .npz files, without Keras: python run.py [--greedy] FILE ..."""

import json
import re
import sys
from operator import itemgetter
from pathlib import Path

import numpy as np
from graphs import Graphs
from photos import load_photo
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent
MANIFEST = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
SEARCH, EOS = MANIFEST["search"], MANIFEST["eos_id"]
RANK = itemgetter(0)


def forbid(scores, texts):
    """Sets log-probabilities (B,K,V) of what must not follow texts (B,K,T) to -inf."""
    end, size = scores[..., EOS].copy(), SEARCH["no_repeat_ngram_size"]
    if texts.shape[2] < len(MANIFEST["prompt"]) - 1 + SEARCH["min_new_tokens"]:
        scores[..., EOS] = -np.inf
    if 0 < size <= texts.shape[2]:
        grams = np.lib.stride_tricks.sliding_window_view(texts, size, axis=2)  # (B,K,N,size)
        repeats = grams[..., :-1] == texts[:, :, None, texts.shape[2] - size + 1 :]
        for row, beam, n in np.argwhere(repeats.all(axis=3)):
            scores[row, beam, grams[row, beam, n, -1]] = -np.inf
    stuck = np.isneginf(scores).all(axis=2)  # (B,K): all that is left is to end
    scores[stuck, EOS] = end[stuck]


def search(graphs, inputs, beams):
    """Returns the best caption of each row: rank, tokens with the prompt, and whether it ended."""
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
        totals, number = (sums[..., None] + scores).reshape(rows, -1), 2 * beams  # (B,K*V)
        top = np.sort(np.argpartition(-totals, number, axis=1)[:, :number], axis=1)  # (B,2K)
        order = np.argsort(-np.take_along_axis(totals, top, 1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, 1)[:, : number if beams > 1 else 1]
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
        rest = sums.max(axis=1)  # (B,)
        reach = np.maximum(rest / min(n + 1, steps) ** power, rest / steps**power)
        if all(
            r <= (rank[1] if rank[0] else -np.inf)
            for r, (rank, *_) in zip(reach, best, strict=True)
        ):
            break
    for row, k in enumerate(sums.argmax(axis=1)):
        truncated = ((False, sums[row, k] / steps**power), texts[row, k], False)
        best[row] = max(best[row], truncated, key=RANK)
    return best


if __name__ == "__main__":
    files = [name for name in sys.argv[1:] if name != "--greedy"]
    graphs, tokenizer = Graphs(FOLDER), Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for names in (files[start : start + 8] for start in range(0, len(files), 8)):
        if MANIFEST["photo"]:
            rows = [{"images": load_photo(name, MANIFEST["photo"])[None]} for name in names]
        else:
            rows = [np.load(name) for name in names]
        inputs = {x: np.concatenate([row[x] for row in rows]) for x in MANIFEST["inputs"]}
        found = search(graphs, inputs, 1 if "--greedy" in sys.argv else SEARCH["num_beams"])
        for name, (_, tokens, has_ended) in zip(names, found, strict=True):
            text = tokenizer.decode(tokens).rstrip("\ufffd") + MANIFEST["end_text"] * has_ended
            print(name, re.sub(MANIFEST["removed"], "", text).strip(), sep="\t")
