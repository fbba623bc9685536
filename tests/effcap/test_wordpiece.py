"""Tests of effcap.tokenizers.wordpiece, against transformers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from effcap.captioner import Captioner
from effcap.samplers import Greedy
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import parse_tokenizer, read_tokenizer
from effcap.tokenizers.wordpiece import WordPieceTokenizer
from helpers.captioners import example_inputs, tiny_hparams

DATA = Path(__file__).resolve().parents[1] / "data"
REFERENCE = json.loads((DATA / "wordpiece_reference.json").read_text(encoding="utf-8"))
VOCABULARY = REFERENCE["vocabulary"]
# Words of BERT's vocabulary of 30,522 tokens, by their ids.
BERT_WORDS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"} | {
    1037: "a", 1996: "the", 1997: "of", 2006: "on", 2007: "with", 2014: "her", 2450: "woman",
    3509: "beach", 3564: "sitting", 3861: "picture", 3899: "dog",
}  # fmt: skip


def write_vocabulary(folder: Path, tokens=VOCABULARY, **settings) -> Path:
    """Writes a vocab.txt, with a tokenizer_config.json if there are settings."""
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    path = folder / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


@pytest.fixture
def wordpiece(tmp_path) -> WordPieceTokenizer:
    return WordPieceTokenizer.from_folder(write_vocabulary(tmp_path).parent)


def test_ids_and_texts_equal_those_of_transformers(wordpiece):
    texts = [text for text, _, _ in REFERENCE["texts"]]
    for (_, expected, decoded), ids in zip(
        REFERENCE["texts"], wordpiece.encode_batch(texts), strict=True
    ):
        assert [wordpiece.bos_id, *ids, wordpiece.eos_id] == expected
        assert wordpiece.decode(ids) == wordpiece.decode(expected) == decoded
    assert wordpiece.encode(texts[1]) == REFERENCE["texts"][1][1][1:-1]


def test_a_tokenizer_json_of_transformers_equals_the_vocabulary(wordpiece, tmp_path):
    saved = REFERENCE["tokenizer"]
    saved["model"]["vocab"] = {token: i for i, token in enumerate(VOCABULARY)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    assert WordPieceTokenizer.from_folder(tmp_path) == wordpiece
    assert read_tokenizer(tmp_path / "tokenizer.json").bos_id == wordpiece.bos_id == 2


def test_captions_of_blip_start_with_a_token_of_their_own(tmp_path):
    """Ids as in the published vocabulary."""
    tokens = [BERT_WORDS.get(i, f"[unused{i}]") for i in range(30522)]
    path = write_vocabulary(tmp_path, tokens)
    tokenizer = WordPieceTokenizer.from_file(path, start_token="[DEC]")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (30522, 102, 0)
    assert tokenizer.add_special_tokens(["[ENC]"]) == [30523]
    assert (tokenizer.vocabulary_size, tokenizer.base_vocabulary_size) == (30524, 30522)
    ids = [1037, 2450, 3564, 2006, 1996, 3509, 2007, 2014, 3899]
    caption = "a woman sitting on the beach with her dog"
    assert tokenizer.encode(caption) == ids
    assert tokenizer.decode([30522, *ids, 102, 0]) == caption
    assert tokenizer.encode_prefix("A picture of ") == [1037, 3861, 1997]
    with pytest.raises(ValueError, match="Received: 'a 🐕 of', with the unknown '🐕'"):
        tokenizer.encode_prefix("a 🐕 of")
    assert WordPieceTokenizer.from_file(path).bos_id == 101


def test_a_saved_tokenizer_is_read_as_its_kind(wordpiece, tmp_path):
    tokenizer = WordPieceTokenizer.from_file(tmp_path / "vocab.txt", "[DEC]")
    assert tokenizer.fingerprint != wordpiece.fingerprint
    tokenizer.save(tmp_path / "saved.json")
    copies = (
        read_tokenizer(tmp_path / "saved.json"),
        parse_tokenizer(tokenizer.to_json()),
        WordPieceTokenizer.from_json(tokenizer.to_json()),
        pickle.loads(pickle.dumps(tokenizer)),
    )
    for copy in copies:
        assert type(copy) is WordPieceTokenizer and copy == tokenizer
        assert copy.bos_id == tokenizer.bos_id == len(VOCABULARY)
    assert repr(tokenizer).startswith("WordPieceTokenizer(vocabulary_size=")
    byte_level = Tokenizer.train(["a dog"], 260)
    assert type(parse_tokenizer(byte_level.to_json())) is Tokenizer


def test_letter_case_is_that_of_the_settings(tmp_path):
    path = write_vocabulary(tmp_path, [*VOCABULARY, "Dog"], do_lower_case=False)
    tokenizer = WordPieceTokenizer.from_file(path)
    assert tokenizer.decode(tokenizer.encode("a Dog")) == "a Dog"


def test_captions_in_chinese_have_no_spaces_between_characters(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"草地上的猫，。ねこ", "cat", "##s", "."]
    tokenizer = WordPieceTokenizer.from_file(write_vocabulary(tmp_path, tokens))
    for text in ("草地上的猫，猫。", "ね猫", "cats cat."):
        ids = tokenizer.encode(text)
        assert tokenizer.unknown_id not in ids
        assert tokenizer.decode_caption(ids) == text
    assert tokenizer.decode_caption(tokenizer.encode("猫 cats 猫")) == "猫 cats 猫"
    assert tokenizer.decode(tokenizer.encode("草地")) == "草 地"  # as transformers


def test_vocabularies_are_not_learned():
    with pytest.raises(NotImplementedError, match="Tokenizer.train"):
        WordPieceTokenizer.train(["a dog"])


@pytest.mark.parametrize(
    "tokens, message",
    [
        (VOCABULARY[1:], r"Expected \[PAD\] in the vocabulary"),
        ([*VOCABULARY, "dog"], "every token .*once. Received: 'dog' twice"),
    ],
)
def test_damaged_vocabularies_are_refused(tokens, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_file(write_vocabulary(tmp_path, tokens))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"needs tokenizer.json or vocab.txt"):
        WordPieceTokenizer.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokenizer file"):
        WordPieceTokenizer.from_file(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="Expected a WordPiece in the JSON text. Received: BPE"):
        WordPieceTokenizer.from_json(Tokenizer.train(["a dog"], 260).to_json())
    path = write_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(ValueError, match=r"settings as JSON in tokenizer_config.json"):
        WordPieceTokenizer.from_file(path)


@pytest.mark.slow
def test_a_captioner_with_bert_survives_its_preset_and_its_config(wordpiece, tmp_path):
    hparams = tiny_hparams()
    hparams["decoder"] = {
        "kind": "bert", "max_sequence_length": 16, "hidden_dim": 16, "num_heads": 2,
        "num_layers": 2,
    }  # fmt: skip
    captioner = Captioner.from_hparams(hparams, wordpiece)
    assert captioner.decoder.vocabulary_size == len(VOCABULARY)
    captioner.save_to_preset(tmp_path / "preset")
    loaded = Captioner.from_preset(tmp_path / "preset")
    rebuilt = Captioner.from_config(captioner.get_config())
    for copy in (loaded, rebuilt):
        assert type(copy.tokenizer) is WordPieceTokenizer and copy.tokenizer == wordpiece
    inputs, sampler = example_inputs(captioner.encoder, 2), Greedy(max_new_tokens=5)
    expected = captioner.generate_batch(inputs, sampler)
    assert loaded.generate_batch(inputs, sampler) == expected
