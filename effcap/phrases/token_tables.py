"""Tables over tokens for the samplers: which tokens continue, complete or violate phrases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from effcap.phrases.characters import normalize, read_symbols, split_prefixes
from effcap.phrases.matcher import DEAD, START, build_matcher

if TYPE_CHECKING:
    from effcap.tokenizers import Tokenizer

UNREACHABLE = 10_000  # a number of tokens that no caption has
MIN_SIZE = 64  # states and classes of tables; enough for a few words
END = b"\0"  # ends a word
SENTENCE_ENDS = (b".", b"!", b"?", "\u3002".encode())

Groups = tuple[tuple[str, ...], ...]


class Spelling(NamedTuple):
    """Tokens that spell a phrase, by which a search writes it.

    Attributes:
        group: index of the phrase's group.
        tokens: token ids.
        first: True for the first words of a text, False for later ones, None for both.
    """

    group: int
    tokens: tuple[int, ...]
    first: bool | None


class _TokenAutomaton(NamedTuple):
    """Transitions of N states by C classes of tokens; see `build_tables`."""

    classes: np.ndarray  # (V,)
    next: np.ndarray  # (N, C)
    hits: np.ndarray  # (N, C)
    start: int


def phrase_tables(
    include: Groups, exclude: tuple[str, ...], tokenizer: Tokenizer, vocabulary_size: int
) -> dict[str, np.ndarray]:
    """Returns the tables by which a sampler includes and excludes phrases.

    Args:
        include: groups of phrases, of which a caption contains one each.
        exclude: phrases that a caption does not contain.
        tokenizer: tokenizer of the captions.
        vocabulary_size: number V of tokens that the decoder has, at least the tokenizer's.

    Returns:
        Arrays by name, as `effcap.samplers.word_rules.WordRules` takes them; none without phrases.

    Raises:
        ValueError: the vocabulary has no tokens for a phrase, or what is included is excluded.
    """
    if not include and not exclude:
        return {}
    return dict(_cached_tables(include, exclude, _Hashable(tokenizer), vocabulary_size))


def phrase_tokens(include: Groups, tokenizer: Tokenizer) -> set[int]:
    """Returns the tokens by which a sampler writes the phrases that it is to include."""
    spellings = (_spellings(0, text, tokenizer) for group in include for text in group)
    return {token for phrase in spellings for spelling in phrase for token in spelling.tokens}


class _Hashable:
    """A tokenizer as a key of the cache, equal to others with the same fingerprint."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __hash__(self) -> int:
        return hash(self.tokenizer.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and (
            self.tokenizer.fingerprint == other.tokenizer.fingerprint
        )


@lru_cache(maxsize=16)
def _cached_tables(
    include: Groups, exclude: tuple[str, ...], key: _Hashable, vocabulary_size: int
) -> dict[str, np.ndarray]:
    tokenizer = key.tokenizer
    pieces = tokenizer.token_bytes()
    pieces += [b""] * (vocabulary_size - len(pieces))
    groups = [[_as_written(text, tokenizer, pieces) for text in group] for group in include]
    excluded = [_as_written(text, tokenizer, pieces) for text in exclude]
    spellings = [
        spelling
        for number, group in enumerate(include)
        for text in group
        for spelling in _spellings(number, text, tokenizer)
    ]
    tables = build_tables(groups, excluded, pieces, tokenizer.eos_id, spellings)
    for group, tokens in zip(
        include, tables.get("word_distances", np.zeros((0, 0))).T, strict=True
    ):
        if tokens[START] >= UNREACHABLE:
            raise ValueError(
                f"Expected words to include that are not excluded. Received: "
                f"include={'|'.join(group)!r}, exclude={exclude}"
            )
    return tables


def _as_written(text: str, tokenizer: Tokenizer, pieces: Sequence[bytes]) -> str:
    """Returns a phrase normalized as captions spell it, with WordPiece's spaces in "t - shirt"."""
    ids = tokenizer.encode(text)
    written = normalize(b"".join(pieces[i] for i in ids).decode(errors="replace"))
    if not written or tokenizer.unknown_id in ids:
        raise ValueError(f"Expected words that the vocabulary has tokens for. Received: {text!r}")
    return written


def _spellings(group: int, text: str, tokenizer: Tokenizer) -> list[Spelling]:
    """Returns the tokens of a phrase as given, in lower case, and with a capital."""
    text = " ".join(text.split())
    cases = dict.fromkeys((text, text.lower(), text[:1].upper() + text[1:]))
    spellings = []
    for case in cases:
        first, later = tokenizer.encode(case), tokenizer.encode(f" {case}")
        if first == later:
            spellings.append(Spelling(group, tuple(first), None))
        else:
            spellings += [Spelling(group, tuple(first), True), Spelling(group, tuple(later), False)]
    return list(dict.fromkeys(spellings))


def build_tables(
    groups: Sequence[Sequence[str]],
    excluded: Sequence[str],
    pieces: Sequence[bytes],
    eos: int,
    spellings: Sequence[Spelling],
) -> dict[str, np.ndarray]:
    """Builds the tables of normalized phrases for tokens with the given bytes.

    All tokens that spell a phrase, in whatever way, are followed. The `spellings` are only those by
    which a search that is to include a phrase writes it.

    Args:
        groups: at most 31 groups of phrases to include.
        excluded: phrases to exclude.
        pieces: V texts of tokens in UTF-8, which need not be whole characters.
        eos: id of the token that ends a caption, and the last word in it.
        spellings: tokens of the phrases to include.

    Returns:
        Tables for N states and C classes of tokens: "word_classes" (V,), "word_next" (N, C), and if
        there are groups "word_hits" (N, C), "word_advances" (N, C), bits of groups of which a
        phrase comes closer with the token, "word_distances" (N, G), numbers of tokens to a phrase,
        and "word_ends" (V,), 1 for tokens that end a sentence. N and C are padded to powers of 2,
        so that few shapes are compiled.
    """
    automaton = _follow_tokens(groups, excluded, pieces, eos, spellings)
    next_states, hits = automaton.next, automaton.hits
    size = tuple(max(MIN_SIZE, 1 << (n - 1).bit_length()) for n in next_states.shape)
    tables = {"word_classes": automaton.classes, "word_next": _pad(next_states, size)}
    if groups:
        distances, advances = _distances(automaton, len(groups), eos, spellings)
        tables |= {"word_hits": _pad(hits, size), "word_advances": _pad(advances, size)}
        tables["word_distances"] = _pad(distances, (size[0], len(groups)))
        ends = [
            token == eos or piece.strip() in SENTENCE_ENDS for token, piece in enumerate(pieces)
        ]
        tables["word_ends"] = np.array(ends)
    return {name: table.astype(np.int32) for name, table in tables.items()}


def _pad(table: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return np.pad(table, [(0, to - n) for to, n in zip(size, table.shape, strict=True)])


def _follow_tokens(
    groups: Sequence[Sequence[str]],
    excluded: Sequence[str],
    pieces: Sequence[bytes],
    eos: int,
    spellings: Sequence[Spelling],
) -> _TokenAutomaton:
    """Runs the automaton of characters over the bytes of each token, from every state."""
    matcher = build_matcher(groups, excluded)
    pending = [b"", *split_prefixes(matcher.symbols)]
    spelled = {token for spelling in spellings for token in spelling.tokens}
    reads: dict[tuple, int] = {}
    kinds = np.zeros(len(pieces), np.int64)  # (V,), index of what a token reads
    for token, piece in enumerate(pieces):
        text = piece + END if token == eos else piece
        read = tuple(read_symbols(text, matcher.symbols, first, pending) for first in pending)
        own = token if token in spelled or token == eos else None
        kinds[token] = reads.setdefault((own, *read), len(reads))
    num_states, num_pending = len(matcher.next), len(pending)
    # State s with pending bytes p has the index 1 + (s - 1) * P + p; that of DEAD is 0.
    next_states = np.zeros((1 + (num_states - 1) * num_pending, len(reads)), np.int32)  # (N, U)
    hits = np.zeros_like(next_states)
    for index, _ in enumerate(pending):
        read_from = [read[1 + index] for read in reads]
        states, found = _run(matcher.next, matcher.hits, [symbols for symbols, _ in read_from])
        rest = np.array([pending.index(after) for _, after in read_from])  # (U,)
        indices = np.where(states == DEAD, DEAD, 1 + (states - 1) * num_pending + rest)
        next_states[1 + index :: num_pending] = indices[1:]
        hits[1 + index :: num_pending] = found[1:]
    # Tokens that read different symbols may be alike for these phrases.
    columns = np.concatenate([next_states, hits]).T.copy()  # (U, 2N)
    alike: dict[tuple, int] = {}
    keys = [(read[0], column.tobytes()) for read, column in zip(reads, columns, strict=True)]
    merged = np.array([alike.setdefault(key, len(alike)) for key in keys])  # (U,)
    _, kept = np.unique(merged, return_index=True)  # (C,)
    return _TokenAutomaton(merged[kinds], next_states[:, kept], hits[:, kept], START)


def _run(
    next_states: np.ndarray, hits: np.ndarray, sequences: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the states (N, U) after U sequences of symbols, and the bits found on the way."""
    num_states = len(next_states)
    states = np.repeat(
        np.arange(num_states, dtype=np.int32)[None], len(sequences), axis=0
    )  # (U, N)
    found = np.zeros_like(states)
    lengths = np.array([len(sequence) for sequence in sequences])
    for position in range(max(lengths, default=0)):
        longer = np.flatnonzero(lengths > position).tolist()
        symbols = np.array([sequences[row][position] for row in longer])[:, None]  # (U', 1)
        before = states[longer]  # (U', N)
        found[longer] |= hits[before, symbols]
        states[longer] = next_states[before, symbols]
    return states.T, np.where(states == DEAD, 0, found).T


def _distances(
    automaton: _TokenAutomaton, num_groups: int, eos: int, spellings: Sequence[Spelling]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of tokens to each group (N, G), and the bits of the tokens towards it (N, C).

    The token that ends the last word of a phrase counts as well.
    """
    classes, next_states, hits, start = automaton
    end, num_states = classes[eos], len(next_states)
    distances = np.full((num_states, num_groups), UNREACHABLE)  # (N, G)
    advances = hits.copy()
    for group in range(num_groups):
        distances[hits[:, end] >> group & 1 == 1, group] = 1
    paths = []
    for group, tokens, first in spellings:
        states = np.arange(1, num_states)
        if first is not None:
            states = states[(states == start) == first]
        path, found = [states], np.zeros(len(states), bool)
        for token in tokens:
            found = hits[states, classes[token]] >> group & 1 == 1
            states = next_states[states, classes[token]]
            path.append(states)
        found &= states != DEAD
        spelled = found | (hits[states, end] >> group & 1 == 1)
        for position, states in enumerate(path[:-1]):
            tokens_left = len(tokens) - position + np.where(found, 0, 1)
            reached = np.where(spelled, tokens_left, UNREACHABLE)
            np.minimum.at(distances[:, group], states, reached)
        paths.append((group, tokens, path, found, spelled))
    for group, tokens, path, found, spelled in paths:
        for position, token in enumerate(tokens):
            before, after = path[position], path[position + 1]
            is_last = position + 1 == len(tokens)
            reached = np.where(found & is_last, 0, distances[after, group])
            closer = spelled & (reached < distances[before, group])
            np.bitwise_or.at(advances[:, classes[token]], before[closer], 1 << group)
    distances[DEAD] = UNREACHABLE
    return distances, advances
