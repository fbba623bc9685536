"""Scores captions written by `effcap caption --out` with pycocoevalcap (needs Java).

    pip install 'effcap[metrics]'
    effcap caption 'flickr8k/dev/*.jpg' --out dev.json
    python benchmarks/score_captions.py dev.json flickr8k/dev.csv

BLEU-4, ROUGE-L and CIDEr on tokens of Stanford's PTB tokenizer, as COCO's server computes them.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("captions", type=Path, help="JSON written by effcap caption --out")
    parser.add_argument("references", type=Path, help="CSV with the columns image and caption")
    arguments = parser.parse_args()

    references = defaultdict(list)
    with arguments.references.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            references[row["image"]].append({"caption": row["caption"]})
    captions = {
        Path(entry["image"]).name: [{"caption": entry["caption"]}]
        for entry in json.loads(arguments.captions.read_text(encoding="utf-8"))
    }
    missing = sorted(set(captions) - set(references))
    if missing:
        parser.error(f"expected references for every photo; there are none for {missing[:3]}")

    tokenizer = PTBTokenizer()
    candidates = tokenizer.tokenize(captions)
    targets = tokenizer.tokenize({image: references[image] for image in captions})
    words = [caption[0] for caption in candidates.values()]
    print(f"photos            {len(captions)}")
    print(f"distinct captions {len(set(words)) / len(words):.3f}")
    print(f"mean length       {sum(len(text.split()) for text in words) / len(words):.2f}")
    bleu, _ = Bleu(4).compute_score(targets, candidates, verbose=0)
    print(f"BLEU-4            {bleu[3]:.4f}")
    print(f"ROUGE-L           {Rouge().compute_score(targets, candidates)[0]:.4f}")
    print(f"CIDEr             {Cider().compute_score(targets, candidates)[0]:.4f}")


if __name__ == "__main__":
    main()
