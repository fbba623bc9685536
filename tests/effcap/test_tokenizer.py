"""Tokenizer: GPT-2's published ids, exact round trips, special tokens, files and training."""

from __future__ import annotations

import copy
import csv
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from effcap.tokenizers import Tokenizer
from effcap.tokenizers.byte_level import ALPHABET, END_OF_TEXT, make_backend
from helpers.bpe_reference import ReferenceBPE, byte_to_character

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared"))
GPT2 = SHARED / "gpt2_bpe"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="requires shared/gpt2_bpe")
needs_flickr = pytest.mark.skipif(
    not (SHARED / "flickr8k" / "train.csv").is_file(), reason="requires shared/flickr8k"
)

CAPTIONS = [
    "A brown dog runs through the grass .", "Two dogs run on the beach .",
    "A child in a pink dress climbs the stairs .", "The dog's ball is red, isn't it?",
    "A man rides a bike through the grass .", "Two children run through the water .",
]  # fmt: skip


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return Tokenizer.from_folder(GPT2)


@pytest.fixture
def small() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocabulary_size=280)


CLUSTERS = ["👩‍👩‍👧‍👦", "👍🏽", "🇨🇭", "é", "e\u0301", "ﬁ", "Å", "ｶﾞ", "가", "각",
            "שלום", "مرحبا", "\u202eabc\u202c", "\u200b", "\ufeff", "ß"]  # fmt: skip
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", " .", " n't", "'s"]
LOOKALIKES = [END_OF_TEXT, "<|", "|>", "<|photo|>", "dog", " A", "Ġ", "Ċ"]


def random_text(dice: random.Random) -> str:
    """Returns code points of all planes, and clusters that normalization would change."""
    pieces = []
    for _ in range(dice.randrange(1, 30)):
        kind = dice.randrange(6)
        if kind == 0:
            code = dice.randrange(0x110000)
            pieces.append("\ufffe" if 0xD800 <= code < 0xE000 else chr(code))
        elif kind == 1:
            pieces.append(chr(dice.randrange(0x20)))
        elif kind == 2:
            pieces.append(chr(dice.randrange(0x20, 0x3000)))
        elif kind == 3:
            pieces.append(dice.choice(CLUSTERS))
        elif kind == 4:
            pieces.append(dice.choice(SPACES))
        else:
            pieces.append(dice.choice(LOOKALIKES))
    return "".join(pieces)


# GPT-2's ids


@needs_gpt2
@pytest.mark.parametrize(
    ("text", "ids"),
    [("Hello world", [15496, 995]), ("Hello world!", [15496, 995, 0]), (" a dog", [257, 3290]),
     ("a dog", [64, 3290]), ("", []), ("hello  world", [31373, 220, 995]), ("\n", [198])],
)  # fmt: skip
def test_gpt2_ids_match_the_published_ones(gpt2, text, ids):
    assert gpt2.encode(text) == ids


@needs_gpt2
def test_gpt2_uses_end_of_text_as_start_end_and_padding(gpt2):
    assert (gpt2.bos_id, gpt2.eos_id, gpt2.pad_id) == (50256, 50256, 50256)
    assert gpt2.vocabulary_size == gpt2.base_vocabulary_size == 50257
    assert gpt2.special_tokens == {END_OF_TEXT: 50256}


@needs_gpt2
@needs_flickr
def test_gpt2_ids_of_captions_match_a_reference_implementation(gpt2):
    with (SHARED / "flickr8k" / "train.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    captions = captions[:4000] + [" " + caption for caption in captions[-1000:]]
    reference = ReferenceBPE(GPT2)
    assert gpt2.encode_batch(captions) == [reference.encode(caption) for caption in captions]


@needs_gpt2
def test_gpt2_ids_of_unusual_text_match_a_reference_implementation(gpt2):
    texts = [
        "it's we've I'll 'tis 'S", "  leading, trailing  ", "tabs\t\tand\n\n lines\r\n", "x" * 99,
        "Größe 3½ m² ٣٤ Ⅷ", "日本語のテキスト", "🐕🏽‍🦺 👩‍👩‍👧", "a\u0301 naïve ﬁn",
        f"a{END_OF_TEXT}b", "100,000.00 $5 #tag @you", "\u00a0\u2003x", "'", "' ", " '", "   ",
    ]  # fmt: skip
    reference = ReferenceBPE(GPT2)
    assert [gpt2.encode(text) for text in texts] == [reference.encode(text) for text in texts]


# Round trip


@pytest.mark.parametrize("which", ["small", pytest.param("gpt2", marks=needs_gpt2)])
def test_any_unicode_text_survives_a_round_trip(which, request):
    tokenizer = request.getfixturevalue(which)
    dice = random.Random(0)
    texts = [random_text(dice) for _ in range(2000)] + ["", " ", "\x00"]
    ids = tokenizer.encode_batch(texts)
    assert tokenizer.decode_batch(ids) == texts
    assert ids[:50] == [tokenizer.encode(text) for text in texts[:50]]
    assert all(0 <= i < tokenizer.base_vocabulary_size - 1 for row in ids for i in row)


def test_every_code_point_survives_a_round_trip(small):
    for plane in range(17):
        codes = [c for c in range(plane << 16, (plane + 1) << 16) if not 0xD800 <= c < 0xE000]
        texts = ["".join(map(chr, codes[i : i + 256])) for i in range(0, len(codes), 256)]
        assert small.decode_batch(small.encode_batch(texts)) == texts


@pytest.mark.parametrize("text", ["\ud800", "dog \udfff", "\ude00\ud83d"])
def test_lone_surrogates_raise_value_error(small, text):
    with pytest.raises(ValueError, match=r"lone surrogate U\+D"):
        small.encode(text)
    with pytest.raises(ValueError, match="text 1 .* lone surrogate"):
        small.encode_batch(["fine", text])


@pytest.mark.parametrize("text", [None, 3, b"dog", ["dog"], float("nan")])
def test_non_text_raises_type_error(small, text):
    with pytest.raises(TypeError, match="Received: "):
        small.encode(text)
    with pytest.raises(TypeError, match="Expected text 1"):
        small.encode_batch(["fine", text])


def test_a_string_in_place_of_a_list_raises_type_error(small):
    with pytest.raises(TypeError, match="use encode"):
        small.encode_batch("a dog")
    with pytest.raises(TypeError, match="list of names"):
        small.add_special_tokens("<|photo|>")
    with pytest.raises(TypeError, match="several texts"):
        Tokenizer.train("a dog")


# Special tokens


def test_special_tokens_in_text_are_encoded_as_plain_text(small):
    small.add_special_tokens(["<|photo|>"])
    for text in (END_OF_TEXT, f"a dog{END_OF_TEXT}", "<|photo|> <|photo|>"):
        ids = small.encode(text)
        assert not set(ids) & set(small.special_tokens.values())
        assert small.decode(ids) == text


def test_decode_skips_special_tokens_by_default(small):
    photo = small.add_special_tokens(["<|photo|>"])
    ids = [small.bos_id, *photo, *small.encode("a dog"), small.eos_id, small.pad_id]
    assert small.decode(ids) == "a dog"
    assert small.decode(small.encode("é")[:1]) == "\ufffd"  # half a character
    assert (
        small.decode(ids, skip_special_tokens=False)
        == f"{END_OF_TEXT}<|photo|>a dog{END_OF_TEXT}{END_OF_TEXT}"
    )


def test_special_tokens_are_appended_after_the_base_vocabulary(small):
    base = small.vocabulary_size
    assert small.add_special_tokens(["<|a|>", "<|b|>"]) == [base, base + 1]
    assert small.add_special_tokens(["<|b|>", "<|c|>", "<|c|>"]) == [base + 1, base + 2, base + 2]
    assert (small.base_vocabulary_size, small.vocabulary_size) == (base, base + 3)
    assert list(small.special_tokens) == [END_OF_TEXT, "<|a|>", "<|b|>", "<|c|>"]


@pytest.mark.parametrize("name", ["", "two words", "é", "a\n", "e", 7, None])
def test_invalid_special_token_names_raise_and_change_nothing(small, name):
    size = small.vocabulary_size
    with pytest.raises(ValueError, match="special"):
        small.add_special_tokens(["<|good|>", name])
    assert small.vocabulary_size == size


# Decoding


def test_ids_may_be_an_array(small):
    ids = small.encode("a dog")
    assert small.decode(np.array(ids, np.int32)) == small.decode(tuple(ids)) == "a dog"
    assert small.decode_batch(np.array([ids, ids])) == ["a dog", "a dog"]


def test_ids_outside_the_vocabulary_raise_value_error(small):
    for bad in (-1, small.vocabulary_size):
        with pytest.raises(ValueError, match=f"Received: {bad}"):
            small.decode([0, bad])


@pytest.mark.parametrize("ids", [[1.5], ["1"], [[1, 2]], np.ones((2, 2), int), 5])
def test_ids_of_wrong_type_raise_type_error(small, ids):
    with pytest.raises(TypeError, match="integers in one dimension"):
        small.decode(ids)


# Training


def test_training_learns_frequent_words_of_the_captions():
    tokenizer = Tokenizer.train(CAPTIONS * 10, vocabulary_size=400)
    assert len(tokenizer.encode(" dog")) == len(tokenizer.encode(" through")) == 1
    total = sum(map(len, tokenizer.encode_batch(CAPTIONS)))
    assert total < sum(len(caption) for caption in CAPTIONS) / 2.5


def test_trained_vocabulary_has_all_bytes_and_ends_with_end_of_text(small):
    assert small.vocabulary_size == 280
    assert small.eos_id == small.bos_id == small.pad_id == 279
    assert set(byte_to_character().values()) == set(ALPHABET)
    bytes_alone = Tokenizer.train(["dog"], vocabulary_size=257)
    assert bytes_alone.vocabulary_size == 257
    assert len(bytes_alone.encode("dög 🐕")) == len("dög 🐕".encode())


def test_vocabulary_size_is_a_maximum_that_includes_special_tokens():
    assert 257 < Tokenizer.train(CAPTIONS, vocabulary_size=50000).vocabulary_size < 600
    tokenizer = Tokenizer.train(CAPTIONS, vocabulary_size=280, special_tokens=["<|a|>", "<|b|>"])
    assert (tokenizer.base_vocabulary_size, tokenizer.vocabulary_size) == (278, 280)
    assert tokenizer.special_tokens == {END_OF_TEXT: 277, "<|a|>": 278, "<|b|>": 279}


@pytest.mark.parametrize("size", [0, 256, 257])
def test_vocabulary_size_too_small_for_bytes_and_special_tokens_raises(size):
    with pytest.raises(ValueError, match=f"at least 258.*Received: vocabulary_size={size}"):
        Tokenizer.train(CAPTIONS, vocabulary_size=size, special_tokens=["<|a|>"])


def test_training_requires_captions_that_are_text():
    with pytest.raises(ValueError, match="No captions"):
        Tokenizer.train(iter([]))
    with pytest.raises(ValueError, match="No captions"):
        Tokenizer.train(["", ""])
    with pytest.raises(TypeError, match="Expected caption 1 to be a str"):
        Tokenizer.train(["a dog", float("nan")])
    with pytest.raises(ValueError, match="min_frequency"):
        Tokenizer.train(CAPTIONS, min_frequency=0)


def test_training_is_independent_of_caption_order_and_process(small):
    dice = random.Random(3)
    shuffled = dice.sample(CAPTIONS, len(CAPTIONS))
    assert Tokenizer.train(iter(shuffled), vocabulary_size=280).to_json() == small.to_json()
    program = (
        "from effcap.tokenizers import Tokenizer; "
        f"print(Tokenizer.train({CAPTIONS!r}, vocabulary_size=280).fingerprint)"
    )
    for threads in ("1", "4"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=environment,
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == small.fingerprint


# Files


@pytest.mark.parametrize("which", ["small", pytest.param("gpt2", marks=needs_gpt2)])
def test_loaded_tokenizers_give_the_same_ids(which, request, tmp_path):
    tokenizer = Tokenizer.from_json(request.getfixturevalue(which).to_json())
    tokenizer.add_special_tokens(["<|photo|>", "<|tag|>"])
    tokenizer.save(tmp_path / "tokenizer.json")
    dice = random.Random(1)
    texts = [random_text(dice) for _ in range(300)]
    copies = [Tokenizer.from_folder(tmp_path), pickle.loads(pickle.dumps(tokenizer))]
    if which == "small":  # slower variants of the same two
        copies += [Tokenizer.from_json(tokenizer.to_json()), copy.deepcopy(tokenizer)]
    for loaded in copies:
        assert loaded == tokenizer and loaded.to_json() == tokenizer.to_json()
        assert loaded.encode_batch(texts) == tokenizer.encode_batch(texts)
        assert loaded.special_tokens == tokenizer.special_tokens
        assert loaded.base_vocabulary_size == tokenizer.base_vocabulary_size
        assert repr(loaded) == repr(tokenizer)


def test_saved_file_adds_start_end_and_padding_in_the_tokenizers_library(small, tmp_path):
    small.save(tmp_path / "tokenizer.json")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    long, short = (small.encode(text) for text in ("a brown dog", "dog"))
    end = small.eos_id
    rows = [encoding.ids for encoding in library.encode_batch(["a brown dog", "dog"])]
    assert rows[0] == [end, *long, end]
    assert rows[1] == [end, *short, end] + [end] * (len(long) - len(short))


def test_start_end_and_padding_may_be_different_tokens(small):
    library = tokenizers.Tokenizer.from_str(small.to_json())
    library.add_special_tokens(["<s>", "</s>", "<pad>"])
    start, end, pad = map(library.token_to_id, ("<s>", "</s>", "<pad>"))
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", start), ("</s>", end)]
    )
    library.enable_padding(pad_id=pad, pad_token="<pad>")
    tokenizer = Tokenizer(library)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (start, end, pad)
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer != small


def test_truncation_padding_and_dropout_in_a_file_are_ignored(small):
    library = tokenizers.Tokenizer.from_str(small.to_json())
    library.enable_truncation(2)
    library.enable_padding(length=50, pad_token=END_OF_TEXT)
    library.model.dropout = 0.9
    assert Tokenizer(library).encode_batch(CAPTIONS) == small.encode_batch(CAPTIONS)


@needs_gpt2
def test_hugging_face_files_give_the_same_tokenizer(gpt2, tmp_path):
    (tmp_path / "vocab.json").write_bytes((GPT2 / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((GPT2 / "vocab.bpe").read_bytes())
    assert Tokenizer.from_folder(tmp_path) == gpt2
    added = tmp_path / "added_tokens.json"
    added.write_text('{"<b>": 50258, "<|endoftext|>": 50256, "<a>": 50257}')
    specials = {END_OF_TEXT: 50256, "<a>": 50257, "<b>": 50258}
    assert Tokenizer.from_folder(tmp_path).special_tokens == specials
    added.write_text('{"<a>": 60000}')
    with pytest.raises(ValueError, match="follow the vocabulary from 50257 on"):
        Tokenizer.from_folder(tmp_path)
    # As the file in Hugging Face's repository: byte-level post-processing, no padding.
    content = json.loads(gpt2.to_json())
    content |= {
        "padding": None,
        "post_processor": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": False,
            "use_regex": True,
        },
    }
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path) == gpt2


def test_missing_tokenizer_files_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="It contains nothing"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as error:
        Tokenizer.from_folder(tmp_path)
    message = str(error.value)
    assert "it needs tokenizer.json, or encoder.json + vocab.bpe, or vocab.json" in message
    assert "It contains encoder.json" in message
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        Tokenizer.from_folder(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="use Tokenizer.from_file"):
        Tokenizer.from_folder(tmp_path / "encoder.json")
    with pytest.raises(FileNotFoundError, match="use Tokenizer.from_folder"):
        Tokenizer.from_file(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no tokenizer file"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"not json", b"\xff\xfe", b'{"model": 3}'])
def test_errors_name_the_damaged_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json.*Received"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "encoder.json")
    (tmp_path / "vocab.bpe").write_bytes(b"#version: 0.2\na b\n")
    with pytest.raises(ValueError, match=r"encoder\.json.*Received"):
        Tokenizer.from_folder(tmp_path)


def test_tokenizers_that_are_not_lossless_byte_level_bpe_raise(small):
    content = json.loads(small.to_json())

    def error_message(**changes) -> str:
        with pytest.raises(ValueError) as error:
            Tokenizer.from_json(json.dumps(content | changes))
        return str(error.value)

    wordpiece = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
                 "max_input_chars_per_word": 100, "vocab": {"a": 0}}  # fmt: skip
    assert "Received: WordPiece" in error_message(model=wordpiece)
    assert "Lowercase" in error_message(normalizer={"type": "Lowercase"})
    assert "NFC" in error_message(normalizer={"type": "NFC"})
    spaced = content["pre_tokenizer"] | {"add_prefix_space": True}
    assert "unchanged" in error_message(pre_tokenizer=spaced)
    assert "unchanged" in error_message(pre_tokenizer={"type": "Whitespace"})
    vocabulary = dict(content["model"]["vocab"])
    del vocabulary[END_OF_TEXT]
    without_end = error_message(model=content["model"] | {"vocab": vocabulary}, added_tokens=[],
                          post_processor=None, padding=None)  # fmt: skip
    assert "'<|endoftext|>'" in without_end
    del vocabulary["!"]
    model = content["model"] | {"vocab": vocabulary, "merges": []}
    assert "256 bytes" in error_message(model=model)


# Identity


def test_fingerprint_distinguishes_tokenizers(small):
    same = Tokenizer.train(CAPTIONS, vocabulary_size=280)
    other = Tokenizer.train(CAPTIONS, vocabulary_size=279)
    assert small == same and small.fingerprint == same.fingerprint
    assert small != other and small.fingerprint != other.fingerprint
    assert small != "tokenizer"
    same.add_special_tokens(["<|photo|>"])
    assert small != same
    assert len(small.fingerprint) == 12 and int(small.fingerprint, 16) >= 0
    assert small.fingerprint in repr(small)


@needs_gpt2
def test_fingerprint_is_stable_across_library_versions(gpt2):
    # Presets and datasets of different library versions must agree.
    assert gpt2.fingerprint == "c6cbc467261b"


def test_tokenizers_import_no_keras_backend():
    program = (
        "import sys, effcap.tokenizers; "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ("犬が走る。", "कुत्ता", "كلب يجري", "🐕🏽"))
def test_a_caption_that_is_cut_within_a_character_ends_before_it(text):
    tokenizer = Tokenizer.train(["a dog"], 257)  # a token per byte
    ids = tokenizer.encode(text)
    starts = [i for i in range(len(ids) + 1) if "\ufffd" not in tokenizer.decode(ids[:i])]
    assert len(starts) == len(text) + 1
    for length in range(len(ids) + 1):
        whole = max(start for start in starts if start <= length)
        assert tokenizer.decode_caption(ids[:length]) == tokenizer.decode(ids[:whole])


@pytest.mark.parametrize("name", ("tokenizer_config.json", "special_tokens_map.json"))
def test_start_and_end_tokens_are_those_of_hugging_faces_settings(tmp_path, name):
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *ALPHABET])}
    backend = make_backend(tokenizers.models.BPE(vocabulary, []))
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="Expected '<|endoftext|>' in the vocabulary"):
        Tokenizer.from_folder(tmp_path)
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": None}
    (tmp_path / name).write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.decode([0, 1])) == (0, 1, "")
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer
    (tmp_path / name).write_text('{"eos_token": "</s>"}')
    assert Tokenizer.from_folder(tmp_path).bos_id == 1
    (tmp_path / name).write_text("[")
    with pytest.raises(ValueError, match="Expected .*JSON in"):
        Tokenizer.from_folder(tmp_path)
