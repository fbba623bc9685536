"""Tests of effcap.weights.clipcap against a ClipCap of PyTorch modules and transformers' GPT-2."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.conversion.published_captioner import published_captioner
from effcap.samplers import Greedy
from effcap.tokenizers import Tokenizer
from effcap.tools.cli import main
from helpers.captioners import numpy
from helpers.clip_files import DATA, read_reference, write_weights
from helpers.torch_writer import write_state_dict

KINDS = ("mlp", "transformer")
HEADS = {"decoder": {"num_heads": 4}}
MAX_TOKENS = 67
STOP = 13
ATOL = 1e-5


@cache
def reference(kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the weights and the outputs of a mapper's ClipCap."""
    with np.load(DATA / "clipcap_reference.npz") as file:
        names = [name.removeprefix(f"{kind}/") for name in file.files if name.startswith(kind)]
        arrays = {name: file[f"{kind}/{name}"] for name in names}
    prefix = "weights/"
    weights = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    return weights, {n: a for n, a in arrays.items() if not n.startswith(prefix)}


def write_clipcap(folder: Path, weights: dict[str, np.ndarray]) -> Path:
    path = folder / "clipcap.pt"
    path.write_bytes(write_state_dict(weights))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A folder of Hugging Face with the CLIP whose vectors the references were computed from."""
    weights = read_reference("hugging_face").weights
    return write_weights("hugging_face", tmp_path_factory.mktemp("clip"), weights)


@pytest.fixture(scope="module")
def vocabulary() -> Tokenizer:
    texts = ["a dog runs on grass .", "a cat sits under tables .", "two men ride bikes ."]
    return Tokenizer.train(texts * 4, 280)  # as many tokens as the references have


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def captioner(kind, clip, vocabulary, tmp_path_factory) -> Captioner:
    """The captioner of a preset written by `effcap convert`."""
    folder = tmp_path_factory.mktemp(kind)
    vocabulary.save(folder / "tokenizer.json")
    # Older versions of transformers store causal masks.
    buffers = {
        "gpt.transformer.h.0.attn.bias": np.tri(80, dtype=np.uint8)[None, None],
        "gpt.transformer.h.0.attn.masked_bias": np.float32(-1e4),
    }
    file = write_clipcap(folder, reference(kind)[0] | buffers)
    words = ["convert", file, folder / "preset", "--clip", clip, "--tokenizer", folder]
    assert main([*map(str, words), "--set", "decoder.num_heads=4"]) == 0
    return Captioner.from_preset(folder / "preset")


def test_the_prefix_of_a_photo_equals_the_original(kind, captioner):
    memory = captioner.encoder({"images": read_reference("hugging_face").arrays["images"]})
    prefix = captioner.decoder.map_prefix(memory).values
    np.testing.assert_allclose(numpy(prefix), reference(kind)[1]["prefix"], rtol=0, atol=ATOL)


def test_the_logits_equal_the_original_from_the_end_of_the_prefix_on(kind, captioner):
    outputs = reference(kind)[1]
    tokens = outputs["tokens"]  # (B,T)
    inputs = np.pad(tokens, ((0, 0), (1, 0)), constant_values=7)  # any start token: it is not fed
    memory = captioner.encoder({"images": read_reference("hugging_face").arrays["images"]})
    logits = numpy(captioner.decoder(inputs, memory))
    np.testing.assert_allclose(logits, outputs["logits"], rtol=0, atol=1e-4)


def test_captions_equal_the_original_and_end_with_its_full_stop(kind, captioner):
    images = read_reference("hugging_face").arrays["images"]
    captions = captioner.generate(images, Greedy(max_new_tokens=MAX_TOKENS), details=True)
    for row, (caption,) in enumerate(captions):
        expected = reference(kind)[1][f"greedy/{row}"]
        assert (*caption.tokens, STOP) == tuple(expected)
        assert caption.text.endswith(".") and not caption.text.endswith("..")


def test_captions_that_are_cut_off_end_without_a_full_stop(captioner):
    image = read_reference("hugging_face").arrays["images"][0]
    (caption,) = captioner.generate(image, Greedy(max_new_tokens=2), details=True)
    assert len(caption.tokens) == 2 and not caption.text.endswith(".")


def test_the_preset_knows_its_end_token_and_no_start_token(kind, captioner):
    assert captioner.tokenizer.eos_id == STOP != captioner.tokenizer.bos_id
    fusion = captioner.decoder.fusion
    assert fusion["start_token"] is False and fusion["mapper"]["prefix_length"] == 3
    assert captioner.encoder.normalize == (kind == "transformer")
    assert captioner.encoder.fit == "crop" and captioner.encoder.image_size == (32, 32)


def test_a_preset_is_trained_on_captions_with_one_full_stop_each(captioner):
    encoded = captioner.tokenizer.encode_captions(["a dog.", "a dog", "a dog..", "."])
    assert encoded[0] == encoded[1] == encoded[2] and encoded[3] == []
    assert captioner.tokenizer.decode(encoded[0]) == "a dog"


def test_a_prefix_must_not_contain_the_full_stop_that_ends_captions(captioner):
    assert captioner.tokenizer.encode_prefix("a dog ") == captioner.tokenizer.encode("a dog")
    with pytest.raises(ValueError, match="without '.', which ends the captions"):
        captioner.tokenizer.encode_prefix("a dog. It")


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (
            lambda w: w.pop("gpt.transformer.h.1.ln_1.bias"),
            "missing: gpt.transformer.h.1.ln_1.bias",
        ),
        (lambda w: w.update(extra=np.zeros(3, np.float32)), r"unexpected: extra \(3,\)"),
        (
            lambda w: w.update({"clip_project.model.0.bias": np.zeros(5, np.float32)}),
            r"of another shape: clip_project.model.0.bias \(5,\) for \(48,\)",
        ),
        (
            lambda w: w.update({"gpt.lm_head.weight": np.zeros((280, 32), np.float32)}),
            "differ from the token embeddings: gpt.lm_head.weight",
        ),
        (
            lambda w: w["gpt.transformer.wpe.weight"].fill(np.nan),
            "not finite: gpt.transformer.wpe.weight",
        ),
    ),
)
def test_tensors_that_do_not_fit_are_named(change, message, clip, tmp_path):
    weights = {name: array.copy() for name, array in reference("mlp")[0].items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        published_captioner(write_clipcap(tmp_path, weights), None, HEADS, clip)


def test_a_clipcap_without_its_clip_is_an_error(clip, tmp_path):
    file = write_clipcap(tmp_path, reference("mlp")[0])
    with pytest.raises(ValueError, match="is a ClipCap, whose backbone is CLIP.*--clip"):
        published_captioner(file)
    resnet = write_weights("safetensors", tmp_path / "resnet", read_reference("resnet").weights)
    weights = dict(reference("mlp")[0])
    weights["clip_project.model.0.weight"] = np.zeros((48, 512), np.float32)
    file = write_clipcap(tmp_path, weights)
    with pytest.raises(ValueError, match=r"vectors of width 512.*resnet.*whose width is 24"):
        published_captioner(file, clip=resnet)


def test_other_networks_of_clip_are_found_from_their_files(tmp_path):
    file = write_clipcap(tmp_path, reference("mlp")[0])
    # Heads of open_clip's transformer are recorded beside a file of a folder.
    for name, form in (("resnet", "safetensors"), ("script", "open_clip")):
        path = write_weights(form, tmp_path / name, read_reference(name).weights)
        loaded = published_captioner(file, None, HEADS, path)
        images = read_reference(name).arrays["images"]
        vectors = numpy(loaded.captioner.encoder({"images": images})[0].values)  # (B,1,E)
        expected = read_reference(name).arrays["embedding"].reshape(vectors.shape)
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
