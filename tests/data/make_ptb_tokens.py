"""Writes ptb_tokens.json, the reference of test_metrics_tokenize.py: captions and their PTB tokens.

    pip install pycocoevalcap==1.2
    python tests/data/make_ptb_tokens.py

The captions are WHOLE, and the words of hard_words.txt in FRAMES. The tokenizer is Stanford CoreNLP
3.4.1 from pycocoevalcap; it needs Java.
"""

from __future__ import annotations

import json
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

FRAMES = (
    "A man with {} in the street.",
    "{} is on the table",
    'Two dogs near a sign that says "{}".',
    "a photo of {}",
)
WHOLE = (
    "A clock reads 11:43 p.m.",
    "Street signs from the corner of 8th ave. and 22 3/4 st.",
    "A man stands by 3 1/2 pizzas , 2 dogs and 1 cat .",
    "vitamin C. The dog",
    "plan b. In the yard",
    "I. the end",
    "He is no. 5 of no. one. No. 7 too",
    "see fig. 3 and pp. 4 of art. 5, but chap. 6",
    "call (555) 555-1234 or 800 555 1234 or 555.123.4567",
    "dog . . . dog . . dog",
    "A   caption\twith odd\u00a0spaces ",
    "it 's a dog and it does n't run",
    "don 't it' s",
    "...",
    "",
    " . , ! ",
    "A RED BUS CAN'T PARK HERE!",
    "A 'No Parking' sign is on a traffic cone.",
    "Said the boy: 'I am a dog' and 'a cat' and 'u'.",
    "A cow's, a dog's; the horse's: all men's!",
)


def main() -> None:
    """Writes the file."""
    words = Path(__file__).with_name("hard_words.txt").read_text(encoding="utf-8").split()
    captions = [FRAMES[i % len(FRAMES)].format(word) for i, word in enumerate(words)]
    captions += WHOLE
    # The tokenizer gets one text, in which the next caption may change the last token of this one.
    separated = [text for caption in captions for text in (caption, "zebra")]
    entries = {i: [{"caption": text}] for i, text in enumerate(separated)}
    tokens = PTBTokenizer().tokenize(entries)
    pairs = [[caption, tokens[2 * i][0].split()] for i, caption in enumerate(captions)]
    lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs)
    path = Path(__file__).with_name("ptb_tokens.json")
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
