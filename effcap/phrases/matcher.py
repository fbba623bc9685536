"""A finite automaton that finds phrases as whole words in text, character by character."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from effcap.phrases.characters import (
    NUM_SYMBOLS,
    OTHER,
    SPACE,
    UNKNOWN,
    WORD,
    is_word_character,
)

BEGINNING = -1  # in place of the kind of a character
DEAD, START = 0, 1  # states: an excluded phrase has occurred; the beginning of a text

_State = tuple[int, frozenset[tuple[int, int]]]  # kind of the last character, (phrase, position)s


class Matcher(NamedTuple):
    """Transitions of N states by A symbols.

    Attributes:
        symbols: symbol of each character of the phrases; see `characters`.
        next: (N, A) int32, the state after a symbol.
        hits: (N, A) int32, a bit for each group of which a phrase is complete with the symbol. A
            phrase that ends with a letter is complete with the next character that is none.
    """

    symbols: dict[str, int]
    next: np.ndarray
    hits: np.ndarray


def build_matcher(groups: Sequence[Sequence[str]], excluded: Sequence[str]) -> Matcher:
    """Builds the automaton of normalized phrases.

    Args:
        groups: phrases to find; the i-th group has the bit `1 << i`.
        excluded: phrases after which the state is DEAD.
    """
    return _Builder(groups, excluded).build()


class _Builder:
    """The subset construction over the positions within all phrases."""

    def __init__(self, groups: Sequence[Sequence[str]], excluded: Sequence[str]) -> None:
        self.phrases = [(text, 1 << i) for i, group in enumerate(groups) for text in group]
        self.phrases += [(text, 0) for text in excluded]
        characters = sorted({x for text, _ in self.phrases for x in text if x != " "})
        self.symbols = {x: NUM_SYMBOLS + i for i, x in enumerate(characters)}
        # The kind of each symbol, which decides where words begin and end.
        self.kinds = [SPACE, OTHER, WORD, UNKNOWN]
        self.kinds += [WORD if is_word_character(x) else OTHER for x in characters]
        self.by_first: dict[int, list[int]] = defaultdict(list)
        for number, (text, _) in enumerate(self.phrases):
            self.by_first[self.symbols[text[0]]].append(number)

    def build(self) -> Matcher:
        states: dict[_State, int] = {(BEGINNING, frozenset()): START}
        rows = [[(DEAD, 0)] * len(self.kinds)]  # DEAD is never left
        queue = list(states)
        for state in queue:  # grows while new states are found
            row = []
            for symbol in range(len(self.kinds)):
                target, hit = self._step(state, symbol)
                if target is not None and target not in states:
                    states[target] = len(states) + 1
                    queue.append(target)
                row.append((DEAD if target is None else states[target], hit))
            rows.append(row)
        table = np.array(rows, np.int32)  # (N, A, 2)
        return Matcher(self.symbols, table[..., 0], table[..., 1])

    def _step(self, state: _State, symbol: int) -> tuple[_State | None, int]:
        """Returns the state after a symbol, None for DEAD, and the bits of complete groups."""
        before, active = state
        kind, hit, after = self.kinds[symbol], 0, set()
        begun = [(number, 0) for number in self.by_first.get(symbol, ())]
        for number, position in [*active, *begun]:
            text, bit = self.phrases[number]
            is_complete = False
            if position == len(text):
                is_complete = self._is_boundary(kind, bit)
            elif (
                position == 0 and is_word_character(text[0]) and not self._is_boundary(before, bit)
            ):
                continue
            elif symbol == (SPACE if text[position] == " " else self.symbols[text[position]]):
                if position + 1 == len(text) and not is_word_character(text[-1]):
                    is_complete = True
                else:
                    after.add((number, position + 1))
            elif symbol == SPACE and text[position - 1] == " ":
                after.add((number, position))  # several spaces are as good as one
            if is_complete and not bit:
                return None, 0
            hit |= bit * is_complete
        return (kind, frozenset(after)), hit

    @staticmethod
    def _is_boundary(kind: int, bit: int) -> bool:
        """Returns whether a word can begin after, or end before, a character of this kind.

        If that is unknown, the excluded phrases have occurred, and the others have not.
        """
        return kind != WORD and (kind != UNKNOWN or not bit)
