"""Writes wordpiece_reference.json: ids and texts of transformers' BertTokenizer.

    pip install transformers==5.24.0
    python tests/data/make_wordpiece_reference.py

"vocabulary" lists the tokens; "texts" has lists of a text, its ids with [CLS] and [SEP], and the
text decoded from them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from transformers import BertTokenizer

FOLDER = Path(__file__).parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "a",
    "dog",
    "##s",
    "run",
    "##ning",
    "cafe",
    "##bra",
    "ze",
    "don",
    "woman",
    "two",
    "犬",
    "ß",
]
SIGNS = list(".,'!?-[]()\"#") + ["sep", "…", "2", "##2"]
TEXTS = [
    "a dog",
    "A Dog's running, two dogs run!",
    "  a   dog\trunning\n",
    "Café ZEBRA (don't!)",
    "a dog[SEP] a [sep] dog [MASK]",
    "犬a犬 dog…",
    "a straße 22-2",
    "a 🐕 dog\u200b\u00ad \x00 dog",
    "é" * 90 + " " + "a" * 120,
    "",
]


def main() -> None:
    vocabulary = [*SPECIAL, *WORDS, *SIGNS]
    vocabulary += [f"{prefix}{x}" for prefix in ("", "##") for x in LETTERS]
    vocabulary = list(dict.fromkeys(vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
        tokenizer = BertTokenizer.from_pretrained(folder)
        texts = []
        for text in TEXTS:
            # Special tokens in text are text in EffCap; transformers reads them.
            ids = tokenizer(text, split_special_tokens=True)["input_ids"]
            texts.append([text, ids, tokenizer.decode(ids, skip_special_tokens=True)])
        tokenizer.save_pretrained(folder)
        saved = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    contents = {"vocabulary": vocabulary, "texts": texts, "tokenizer": saved}
    contents["tokenizer"]["model"]["vocab"] = None
    text = json.dumps(contents, ensure_ascii=False, indent=1)
    (FOLDER / "wordpiece_reference.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
