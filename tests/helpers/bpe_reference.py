"""A second implementation of GPT-2's byte-pair encoding, as a reference for the tokenizer."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def byte_to_character() -> dict[int, str]:
    """Returns GPT-2's table: visible Latin-1 characters map to themselves, others to 256 and up."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}


class ReferenceBPE:
    """GPT-2's algorithm in its simplest form, without regard to speed."""

    def __init__(self, folder: Path) -> None:
        self.ids = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
        self.cache: dict[str, list[int]] = {}

    @staticmethod
    def kind(character: str) -> str:
        category = unicodedata.category(character)
        if character.isspace():
            return "space"
        return category[0] if category[0] in "LN" else "other"

    def words(self, text: str) -> list[str]:
        """Splits a text by GPT-2's pattern.

        's|'t|'re|'ve|'m|'ll|'d| ?letters| ?numbers| ?others|spaces before a space or the end
        """
        words, at = [], 0
        while at < len(text):
            contraction = next((c for c in CONTRACTIONS if text.startswith(c, at)), None)
            start = at + (text[at] == " ")
            if contraction:
                end = at + len(contraction)
            elif start < len(text) and self.kind(text[start]) != "space":
                end = start
                while end < len(text) and self.kind(text[end]) == self.kind(text[start]):
                    end += 1
            else:
                end = next(
                    (i for i in range(at, len(text)) if self.kind(text[i]) != "space"), len(text)
                )
                if end < len(text) and end - at > 1:
                    end -= 1  # the last space belongs to what follows
            words.append(text[at:end])
            at = end
        return words

    def encode(self, text: str) -> list[int]:
        return [i for word in self.words(text) for i in self.encode_word(word)]

    def encode_word(self, word: str) -> list[int]:
        if word not in self.cache:
            table = byte_to_character()
            parts = [table[byte] for byte in word.encode("utf-8")]
            while len(parts) > 1:
                ranked = [
                    (self.ranks.get(pair, 10**9), pair)
                    for pair in zip(parts, parts[1:], strict=False)
                ]
                rank, pair = min(ranked)
                if rank == 10**9:
                    break
                merged, i = [], 0
                while i < len(parts):
                    both = tuple(parts[i : i + 2]) == pair
                    merged.append("".join(pair) if both else parts[i])
                    i += 2 if both else 1
                parts = merged
            self.cache[word] = [self.ids[part] for part in parts]
        return self.cache[word]
