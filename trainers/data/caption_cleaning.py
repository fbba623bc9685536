"""Functions that clean captions, for the argument `edit` of the readers."""

from __future__ import annotations

import re

SENTENCE_ENDS = tuple('.!?"…。．！？」』”»؟۔।॥')
# As ALBEF's `pre_caption`: two characters become spaces, and these are removed.
PLAIN_CHARACTERS = str.maketrans("-/", "  ", ",.'!?\"()*#:;~")


def tidy(caption: str) -> str:
    """Cleans the spacing and punctuation of a caption.

    The result has single spaces, none before punctuation, a capital first letter and a full stop,
    unless it ends with a sign that ends sentences in any language.

    >>> tidy("a dog ,  with a ball .")
    'A dog, with a ball.'
    """
    text = re.sub(r"\s+", " ", caption).strip()
    text = re.sub(r"\s+([.,;:!?])", r"\1", text)
    text = re.sub(r"\s+('s|n't)\b", r"\1", text)
    text = text[:1].upper() + text[1:]
    return text if text.endswith(SENTENCE_ENDS) or not text else text + "."


def plain(caption: str) -> str:
    """Converts a caption to lower case without punctuation, but for a full stop at its end.

    These are the words of `pre_caption` of ALBEF (Li et al., 2021) and X-VLM, without a limit of
    their number, and the full stop that ends a caption of ClipCap and OPG. The characters
    , . ' ! ? " ( ) * # : ; ~ are removed, - and / become spaces, <person> becomes person, and white
    space becomes single spaces. All other characters stay, such as the letters of other languages.
    The result is empty if no word is left.

    >>> plain("A  red-haired <PERSON>, smiling!")
    'a red haired person smiling.'
    """
    text = caption.lower().translate(PLAIN_CHARACTERS).replace("<person>", "person")
    text = " ".join(text.split())
    return f"{text}." if text else ""
