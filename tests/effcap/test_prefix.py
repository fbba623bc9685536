"""Tests of effcap.decoders.prefix, its mappers and its mask."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from effcap.captioner import Captioner
from effcap.decoders.base import Prefix
from effcap.decoders.gpt2 import GPT2
from effcap.decoders.mapper_registry import MAPPERS, create_mapper
from effcap.decoders.prefix import PrefixFusion
from effcap.decoders.sparse_mask import SparseMask
from effcap.encoders.memory import Memory
from effcap.encoders.unprojected import BackboneEncoder
from effcap.images import load_photos
from helpers.captioners import example_inputs, numpy, randomize, tiny_hparams
from helpers.published_shapes import weight

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("EFFCAP_SHARED", REPOSITORY.parent / "shared")) / "goldens"
RNG = np.random.default_rng(0)
CLIPCAP = {"kind": "clipcap-transformer", "prefix_length": 3, "clip_length": 2, "num_layers": 1}
ATOL = 1e-5


def random(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


class Golden:
    """Outputs of OPG's modules, and the weights they were computed with."""

    def __init__(self) -> None:
        with np.load(GOLDENS / "opg.npz") as file:
            self.outputs = dict(file)
        shapes = json.loads((GOLDENS / "opg_names.json").read_text())
        self.weights = {name: weight(name, tuple(shape)) for name, shape in shapes.items()}
        sizes = ("B", "P", "C", "D", "seed")
        self.images, self.length, self.feature_dim, self.width, seed = (
            int(self.outputs[name]) for name in sizes
        )
        rng = np.random.default_rng(seed)
        shape = (self.images, self.length, self.feature_dim)
        self.features = rng.standard_normal(shape).astype(np.float32)  # (B,P,C)

    def dense(self, layer: keras.layers.Dense, name: str) -> None:
        """Assigns the weights of a PyTorch Linear."""
        layer.kernel.assign(self.weights[f"{name}.weight"].T)
        if layer.use_bias:
            layer.bias.assign(self.weights[f"{name}.bias"])

    def norm(self, layer: keras.layers.LayerNormalization, name: str) -> None:
        layer.gamma.assign(self.weights[f"{name}.weight"])
        layer.beta.assign(self.weights[f"{name}.bias"])


@pytest.fixture(scope="module")
def golden() -> Golden:
    if not GOLDENS.is_dir():
        pytest.skip("needs the outputs of the original implementations")
    return Golden()


def test_the_mlp_equals_the_original(golden):
    mapper = create_mapper(golden.width, {"kind": "mlp"})
    mapper.build((None, *golden.features.shape[1:]))
    golden.dense(mapper.fc1, "clip_project.mlp.model.0")
    golden.dense(mapper.fc2, "clip_project.mlp.model.2")
    prefix, _ = mapper(golden.features)
    np.testing.assert_allclose(numpy(prefix), golden.outputs["mlp"], rtol=0, atol=ATOL)


def test_the_transformer_equals_the_original(golden):
    num_layers = int(golden.outputs["layers"])
    arguments = {"kind": "transformer", "num_layers": num_layers, "prefix_length": golden.length}
    mapper = create_mapper(golden.width, arguments)
    mapper.build((None, *golden.features.shape[1:]))
    name = "clip_project.transformer"
    golden.dense(mapper.linear, f"{name}.linear")
    mapper.constants.embeddings.assign(golden.weights[f"{name}.prefix_const"])
    for number, block in enumerate(mapper.blocks):
        layer = f"{name}.transformer.layers.{number}"
        for mine, theirs in (
            (block.query, "attn.to_queries"),
            (block.key_value, "attn.to_keys_values"),
            (block.c_proj, "attn.project"),
            (block.fc1, "mlp.fc1"),
            (block.fc2, "mlp.fc2"),
        ):
            golden.dense(mine, f"{layer}.{theirs}")
        golden.norm(block.norm1, f"{layer}.norm1")
        golden.norm(block.norm2, f"{layer}.norm2")
    prefix, _ = mapper(golden.features)
    np.testing.assert_allclose(numpy(prefix), golden.outputs["transformer"], rtol=0, atol=ATOL)


def test_the_mask_equals_the_original(golden):
    layer = SparseMask(threshold=float(golden.outputs["threshold"]))
    layer.build((None, golden.length, golden.width))
    golden.dense(layer.key, "linear1")
    golden.dense(layer.value, "linear2")
    golden.norm(layer.norm, "norm")
    layer.query.assign(10 * weight("prefix_mask", (golden.length,)))
    mask, scores = layer(golden.outputs["mlp"])
    np.testing.assert_array_equal(numpy(mask), golden.outputs["mask"])
    assert numpy(scores).min() > 0.1 and numpy(scores).max() < 0.9


@pytest.mark.parametrize("prefix_length", (1, 7))
@pytest.mark.parametrize("kind", sorted(MAPPERS))
def test_prefixes_have_the_requested_length(kind, prefix_length):
    per_position = kind in ("linear", "mlp")
    arguments = {"kind": kind} | ({} if per_position else {"prefix_length": prefix_length})
    if "transformer" in kind:
        arguments |= {"num_layers": 1, "num_heads": 4}
    length = 1 if "clipcap" in kind else prefix_length if per_position else 5
    mapper = create_mapper(8, arguments)
    mapper.build((None, length, 6))
    prefix, mask = mapper(random(2, length, 6))
    assert prefix.shape == (2, prefix_length, 8) and mapper.prefix_length == prefix_length
    assert mask is None


def test_clipcap_appends_its_constants_to_the_projected_vector():
    """A constant's output depends on the vector, and on the other constants."""
    mapper = create_mapper(8, CLIPCAP)
    mapper.build((None, 1, 6))
    assert tuple(mapper.linear.kernel.shape) == (6, 2 * 8)
    vector = random(2, 1, 6)
    before = numpy(mapper(vector)[0])
    assert np.abs(numpy(mapper(vector + 1)[0]) - before).max() > 1e-3
    constants = numpy(mapper.constants.embeddings).copy()
    constants[0] = random(8)
    mapper.constants.embeddings.assign(constants)
    assert np.abs(numpy(mapper(vector)[0]) - before)[:, 1:].max() > 1e-4


def test_padding_of_the_memory_does_not_change_a_transformers_prefix():
    mapper = create_mapper(8, {"kind": "transformer", "prefix_length": 3, "num_layers": 2})
    mapper.build((None, None, 6))
    x = random(2, 5, 6)
    padded = np.concatenate([x, random(2, 2, 6)], axis=1)
    mask = np.arange(7)[None].repeat(2, 0) < 5
    expected = numpy(mapper(x)[0])
    np.testing.assert_allclose(numpy(mapper(padded, mask)[0]), expected, atol=ATOL)
    assert np.abs(numpy(mapper(padded)[0]) - expected).max() > 1e-3


def decoder_with(sparse_mask: dict | None, prefix_length: int = 4) -> GPT2:
    fusion = {"kind": "prefix", "dropout": 0.0, "sparse_mask": sparse_mask}
    decoder = GPT2(20, 16, 8, 2, 2, dropout=0.0, attention_dropout=0.0, fusion=fusion)
    decoder.build(None, [(None, prefix_length, 6)])
    for variable in decoder.weights:
        variable.assign(variable + 0.3 * random(*variable.shape))
    return decoder


def scores_of(decoder: GPT2, memory: tuple[Memory]) -> np.ndarray:
    """Returns the scores (B, P) of the prefix positions."""
    fusion = decoder.prefix_fusion
    return numpy(fusion.sparse_mask(fusion.mapper(memory[0].values)[0])[1])


def test_masked_positions_have_no_effect():
    decoder = decoder_with({"threshold": 0.5})
    memory = (Memory(random(2, 4, 6)),)
    masked = scores_of(decoder, memory) <= 0.5
    assert masked.any() and not masked.all()
    prefix = decoder.map_prefix(memory)
    np.testing.assert_array_equal(numpy(prefix.mask), ~masked)
    changed = np.where(masked[..., None], random(2, 4, 8), numpy(prefix.values))
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    expected = numpy(decoder(tokens, prefix))
    received = numpy(decoder(tokens, Prefix(changed, prefix.mask)))
    np.testing.assert_allclose(received, expected, atol=ATOL)
    np.testing.assert_allclose(numpy(decoder(tokens, memory)), expected, atol=ATOL)
    attended = numpy(decoder(tokens, Prefix(prefix.values)))
    assert np.abs(attended - expected).max() > 1e-3


def test_a_prefix_masked_altogether_gives_the_text_alone():
    decoder = decoder_with({"threshold": 0.5, "straight_through": True})
    decoder.prefix_fusion.sparse_mask.norm.gamma.assign(np.zeros(4))
    decoder.prefix_fusion.sparse_mask.norm.beta.assign(np.full(4, -5.0))
    memory, tokens = (Memory(random(2, 4, 6)),), np.array([[1, 2, 3], [4, 5, 6]])
    assert not numpy(decoder.map_prefix(memory).mask).any()
    logits, weights = decoder.call_with_attention(tokens, memory, training=True)
    assert np.isfinite(numpy(logits)).all()
    assert all((numpy(layer[0]) == 0).all() for layer in weights)
    other = numpy(decoder(tokens, (Memory(random(2, 4, 6)),)))
    np.testing.assert_allclose(numpy(logits), other, atol=ATOL)


@pytest.mark.parametrize("straight_through", (False, True))
def test_the_mask_is_trained_only_with_the_straight_through_estimator(tokenizer, straight_through):
    sparse_mask = {"threshold": 0.5, "straight_through": straight_through}
    fusion = {"kind": "prefix", "sparse_mask": sparse_mask}
    hparams = tiny_hparams(fusion=fusion, max_sequence_length=40)
    keras.utils.set_random_seed(0)
    captioner = randomize(Captioner.from_hparams(hparams, tokenizer))
    inputs = example_inputs(captioner.encoder, 3)
    inputs["tokens"] = np.array([[1, 2, 3]] * 3)
    logits = numpy(captioner(inputs, training=True))
    np.testing.assert_allclose(logits, numpy(captioner(inputs, training=False)), atol=ATOL)
    layer = captioner.decoder.prefix_fusion.sparse_mask
    before = [numpy(variable).copy() for variable in layer.weights]
    others = [numpy(v).copy() for v in captioner.decoder.prefix_fusion.mapper.weights]
    captioner.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    captioner.train_on_batch(inputs, np.array([[4, 5, 6]] * 3), np.ones((3, 3), "float32"))
    changes = [np.abs(numpy(v) - old).max() for v, old in zip(layer.weights, before, strict=True)]
    assert all((change > 0) == straight_through for change in changes), changes
    mapper = captioner.decoder.prefix_fusion.mapper
    assert all((numpy(v) != old).any() for v, old in zip(mapper.weights, others, strict=True))


def test_the_straight_through_gradient_is_that_of_a_soft_gate():
    """Compared with finite differences of attention weighted by gates."""
    from effcap.layers.attention import gate_gradient

    scores = random(2, 2, 3, 5)  # (R,H,T,P+S)
    gate = np.array([[1, 0, 1], [0, 0, 1]], "float32")  # (R,P)
    upstream = random(*scores.shape)

    def gated(values):
        exp = np.exp(scores)
        full = np.concatenate([values, np.ones((2, 2), "float32")], axis=1)  # (R,P+S)
        weights = exp * full[:, None, None]
        return (weights / weights.sum(-1, keepdims=True) * upstream).sum()

    expected = np.zeros_like(gate)
    for at in np.ndindex(gate.shape):
        step = np.zeros_like(gate)
        step[at] = 1e-2
        expected[at] = (gated(gate + step) - gated(gate - step)) / 2e-2
    variable = keras.Variable(gate)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.gate = self.add_weight(shape=gate.shape, name="gate")
            self.gate.assign(gate)
            self.built = True

        def call(self, x):
            return ops.sum(gate_gradient(x, self.gate, "float32") * upstream)

    model = Model()
    assert float(model(scores)) == 0
    model.compile(
        keras.optimizers.SGD(1.0), loss=lambda y, y_pred: ops.sum(y_pred), jit_compile=False
    )
    model.train_on_batch(scores, np.zeros(2))
    received = numpy(variable) - numpy(model.gate)
    np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "fusion, message",
    (
        ({"mapper": {"kind": "conv"}}, "mapper out of.*Received.*kind='conv'"),
        ({"mapper": {"kind": "mlp", "prefix_length": 3}}, "intermediate_dim.*: prefix_length"),
        ({"mapper": {"kind": "transformer", "prefix_length": 0}}, "Received: prefix_length=0"),
        ({"mapper": {"kind": "clipcap-mlp"}}, "pooling='mean'.*Received: memory of 16 positions"),
        ({"sparse_mask": {"threshold": 1.0}}, "threshold from 0.*Received: threshold=1.0"),
    ),
)
def test_settings_that_do_not_fit_are_explained(tokenizer, fusion, message):
    hparams = tiny_hparams(fusion={"kind": "prefix", **fusion}, max_sequence_length=40)
    with pytest.raises(ValueError, match=message):
        Captioner.from_hparams(hparams, tokenizer)


def test_memory_of_varying_length_needs_a_transformer():
    with pytest.raises(ValueError, match="fixed length.*'transformer'"):
        PrefixFusion(8).build([(None, None, 6)])
    fusion = PrefixFusion(8, mapper={"kind": "transformer", "prefix_length": 3})
    fusion.build([(None, None, 6)])
    assert fusion.prefix_length == 3


def words_captioner(tokenizer, **fusion) -> Captioner:
    fusion = {"kind": "prefix", "mapper": {"kind": "transformer", "prefix_length": 3}, **fusion}
    fusion["mapper"] |= {"num_layers": 1, "num_heads": 2}
    hparams = tiny_hparams(fusion=fusion, max_sequence_length=40, num_special_tokens=2)
    return randomize(Captioner.from_hparams(hparams, tokenizer))


def test_prefix_words_are_the_tokens_of_highest_cosine_similarity(tokenizer):
    captioner = words_captioner(tokenizer)
    photos = list(RNG.integers(0, 256, (3, 40, 30, 3), dtype=np.uint8))
    received = captioner.prefix_words(photos, batch_size=2)
    assert [len(words) for words in received] == [3] * 3
    one = captioner.prefix_words(photos[1])
    assert one == received[1]
    table = numpy(captioner.decoder.embed_tokens(np.arange(tokenizer.vocabulary_size)))  # (V,D)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    images = load_photos(photos, captioner.encoder.image_size, captioner.encoder.fit)
    memory = captioner.encoder({"images": images}, training=False)
    tokens = (numpy(captioner.decoder.map_prefix(memory).values) @ table.T).argmax(-1)  # (B,P)
    expected = [[tokenizer.decode([t], False).strip() for t in row] for row in tokens]
    assert received == expected


def test_masked_positions_have_no_prefix_word(tokenizer):
    captioner = words_captioner(tokenizer, sparse_mask={})
    layer = captioner.decoder.prefix_fusion.sparse_mask
    layer.norm.gamma.assign(np.zeros(3))
    layer.norm.beta.assign(np.array([1.0, -1.0, 1.0]))
    words = captioner.prefix_words(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    assert [word is None for word in words] == [False, True, False]


def test_prefix_words_need_a_prefix(captioner):
    with pytest.raises(ValueError, match="no prefix"):
        captioner.prefix_words(np.zeros((40, 30, 3), np.uint8))


def test_frozen_gpt2_trains_its_prefix_alone(tokenizer):
    captioner = words_captioner(tokenizer)
    fusion = captioner.decoder.prefix_fusion
    hparams = {**captioner.hparams(), "decoder": captioner.hparams()["decoder"]}
    hparams["decoder"]["frozen"] = "pretrained"
    decoder = Captioner.from_hparams(hparams, tokenizer).decoder
    added = {v.path for v in (*fusion.weights, *decoder.special_embedding.weights)}
    assert {variable.path for variable in decoder.trainable_variables} == added


@pytest.mark.parametrize("pooling, normalize", (("mean", False), ("first", True), (None, True)))
def test_a_backbone_encoder_gives_pooled_features(tokenizer, pooling, normalize):
    backbone = tiny_hparams()["encoder"]["backbone"]
    encoder = BackboneEncoder(backbone, pooling, normalize)
    encoder.build(None)
    features = example_inputs(encoder, 2)["features"]  # (B,S,C)
    expected = {"mean": features.mean(1, keepdims=True), "first": features[:, :1], None: features}
    expected = expected[pooling]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
    ((received, mask),) = encoder({"features": features})
    np.testing.assert_allclose(numpy(received), expected, atol=ATOL)
    assert mask is None and encoder.memory_shapes == [(None, *expected.shape[1:])]
    with pytest.raises(ValueError, match="Received: pooling='max'"):
        BackboneEncoder(backbone, "max")
