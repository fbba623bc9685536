"""WordPiece tokenizer of BERT."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from effcap.tokenizers.byte_level import check_ids, template_tokens, token_id
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tokenizers.tokenizer_files import TOKENIZER_FILE, parse_backend, read_backend

VOCABULARY_FILE = "vocab.txt"
SETTINGS_FILE = "tokenizer_config.json"
# Characters of Chinese and Japanese, with their punctuation and full-width forms.
CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
SPACE_IN_CJK = re.compile(f"(?<=[{CJK}]) (?=[{CJK}])")
PADDING, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


class WordPieceTokenizer(Tokenizer):
    """WordPiece as in BERT (Devlin et al. 2019), the tokenizer of BLIP and X-VLM.

    Text is normalized, in the usual vocabularies to lower case without accents, and split at
    spaces and punctuation, so `decode(encode(text))` returns similar text. Special tokens are never
    read from text. The methods are those of `Tokenizer`, except `train`.

    Create one with `from_folder`, `from_file` or `from_json`.

    Args:
        backend: WordPiece of the `tokenizers` library. It is modified: pass one that nothing else
            uses.
        source: name of the tokenizer in errors.
        start_token: token fed before a caption, such as "[DEC]" of BLIP, which is appended to the
            vocabulary if it is not there. None for the start token of the file.

    Attributes:
        bos_id: id of the start token ([CLS], 101 in BERT's vocabularies, unless it is given).
        eos_id: id of the token that ends a caption, [SEP] (102) unless the file has another.
        pad_id: id that fills padding, [PAD] (0).

    Raises:
        ValueError: `backend` is not a WordPiece, has gaps in its ids, or lacks a special token.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        source: str = "tokenizer",
        start_token: str | None = None,
    ) -> None:
        check_wordpiece(backend, source)
        template = template_tokens(backend)
        start_token = start_token or next(iter(template), START)
        end_token = template[-1] if len(template) > 1 else END
        special = (PADDING, UNKNOWN, START, END, MASK)
        present = [token for token in special if backend.token_to_id(token) is not None]
        backend.add_special_tokens([*present, start_token, end_token])
        self.bos_id = token_id(backend, start_token)
        self.eos_id = token_id(backend, end_token)
        self.pad_id = token_id(backend, PADDING)
        self.unknown_id = token_id(backend, UNKNOWN)
        self.eos_text = ""
        backend.no_truncation()  # the caller truncates and pads
        backend.no_padding()
        backend.encode_special_tokens = True  # special tokens in text are plain text
        backend.post_processor = processors.TemplateProcessing(
            single=f"{start_token} $A {end_token}",
            pair=f"{start_token} $A {end_token} $B {end_token}",
            special_tokens=[(start_token, self.bos_id), (end_token, self.eos_id)],
        )
        self._backend = backend
        self._fingerprint: str | None = None

    @classmethod
    def from_folder(cls, folder: str | Path, start_token: str | None = None) -> WordPieceTokenizer:
        """Reads `tokenizer.json`, or `vocab.txt` with the letter case in `tokenizer_config.json`.

        Args:
            folder: folder of the files.
            start_token: as in the constructor.

        Raises:
            FileNotFoundError: there is no such folder, or none of these files in it.
            ValueError: a file is damaged or does not describe a WordPiece.
        """
        for name in (TOKENIZER_FILE, VOCABULARY_FILE):
            if (Path(folder) / name).is_file():
                return cls.from_file(Path(folder) / name, start_token)
        raise FileNotFoundError(
            f"No tokenizer in {folder}: it needs {TOKENIZER_FILE} or {VOCABULARY_FILE}"
        )

    @classmethod
    def from_file(cls, path: str | Path, start_token: str | None = None) -> WordPieceTokenizer:
        """Reads a `tokenizer.json`, or a `vocab.txt` with the letter case in the file beside it.

        Args:
            path: path of the file.
            start_token: as in the constructor.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is damaged or does not describe a WordPiece.
        """
        path = Path(path)
        backend = read_vocabulary(path) if path.suffix == ".txt" else read_backend(path)
        return cls(backend, str(path), start_token)

    @classmethod
    def from_json(cls, text: str) -> WordPieceTokenizer:
        """Parses the text returned by `to_json`.

        Raises:
            ValueError: the text does not describe a WordPiece.
        """
        return cls(parse_backend(text, "the JSON text"), "the JSON text")

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        vocabulary_size: int = 8192,
        min_frequency: int = 2,
        special_tokens: Sequence[str] = (),
    ) -> WordPieceTokenizer:
        """Raises NotImplementedError: vocabularies of WordPiece are not learned."""
        raise NotImplementedError(
            "Vocabularies of WordPiece are not learned. Read a published one, or learn a "
            "byte-level vocabulary with Tokenizer.train"
        )

    def decode_caption(self, ids: Iterable[int]) -> str:
        """Returns the text of a generated caption, without the spaces within Chinese.

        WordPiece splits Chinese at every character, and `decode` puts spaces there.
        """
        return SPACE_IN_CJK.sub("", super().decode_caption(ids))

    @property
    def removed_pattern(self) -> str:
        return SPACE_IN_CJK.pattern

    def token_bytes(self) -> list[bytes]:
        special = set(self.special_tokens.values())
        tokens = (self._backend.id_to_token(i) or "" for i in range(self.vocabulary_size))
        texts = (x.removeprefix("##") if x.startswith("##") else f" {x}" for x in tokens)
        return [b"" if i in special else text.encode() for i, text in enumerate(texts)]

    def _splitting(self, content: dict[str, Any]) -> list[Any]:
        model = content["model"]
        return [model["max_input_chars_per_word"], content["normalizer"], content["pre_tokenizer"]]

    def __reduce__(self) -> tuple[Any, ...]:
        return WordPieceTokenizer.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return f"WordPiece{super().__repr__()}"


def check_wordpiece(backend: tokenizers.Tokenizer, source: str) -> None:
    """Checks that a tokenizer is a WordPiece with BERT's special tokens and no gaps in its ids.

    Raises:
        ValueError: it is not; `source` names it in the message.
    """
    if not isinstance(backend.model, models.WordPiece):
        raise ValueError(
            f"Expected a WordPiece in {source}. Received: {type(backend.model).__name__}"
        )
    for token in (PADDING, UNKNOWN, END):
        if backend.token_to_id(token) is None:
            raise ValueError(
                f"Expected {token} in the vocabulary of {source}. Received: "
                f"{backend.get_vocab_size()} tokens without it"
            )
    check_ids(backend, source)


def read_vocabulary(path: Path) -> tokenizers.Tokenizer:
    """Reads a `vocab.txt`, one token a line, and the letter case in the settings beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or a token is there twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no tokenizer file {path}.")
    settings = path.with_name(SETTINGS_FILE)
    try:
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        text = settings.read_text(encoding="utf-8") if settings.is_file() else "{}"
        lowercase = json.loads(text).get("do_lower_case", True)
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(
            f"Expected a vocabulary in {path}, and settings as JSON in {settings.name} if it is "
            f"there. Received: {error}"
        ) from error
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise ValueError(f"Expected every token of {path} once. Received: {twice!r} twice")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.BertNormalizer(lowercase=bool(lowercase))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend
