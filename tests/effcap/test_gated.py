"""Tests of effcap.decoders.gated."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.decoders.gated import MeshedFusion, ModalityFusion, resurrecting_gate
from effcap.decoders.gpt2 import GPT2
from effcap.encoders.memory import Memory
from helpers.captioners import numpy

RNG = np.random.default_rng(0)
ALPHA = RNG.uniform(size=(4, 6)).astype("float32")
TEXT, ATTENDED = RNG.normal(size=(2, 4, 6)).astype("float32")
SHAPES = [(None, None, 8)]


def memory(rows: int = 2, length: int = 5) -> Memory:
    return Memory(RNG.normal(size=(rows, length, 8)).astype("float32"))


def gpt2(kind: str, memories: int, **fusion) -> GPT2:
    decoder = GPT2(20, 8, hidden_dim=8, num_heads=2, num_layers=2, fusion={"kind": kind, **fusion})
    decoder.build(None, SHAPES * memories)
    for weight in decoder.weights:
        weight.assign(weight + 0.3 * RNG.normal(size=weight.shape))
    return decoder


def test_a_gate_without_threshold_is_a_soft_mix():
    received = numpy(resurrecting_gate(ALPHA, 0.0, TEXT, ATTENDED))
    np.testing.assert_allclose(received, ALPHA * TEXT + (1 - ALPHA) * ATTENDED, rtol=1e-6)


def test_a_gate_with_threshold_one_half_takes_one_of_the_two():
    received = numpy(resurrecting_gate(ALPHA, 0.5, TEXT, ATTENDED))
    expected = np.where(ALPHA > 0.5, ALPHA * TEXT, (1 - ALPHA) * ATTENDED)
    np.testing.assert_allclose(received, expected, rtol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.2, 0.37, 0.5])
def test_a_gate_drops_terms_not_above_the_threshold(tau):
    received = numpy(resurrecting_gate(ALPHA, tau, TEXT, ATTENDED))
    for at in np.ndindex(ALPHA.shape):
        alpha = float(ALPHA[at])
        text = alpha * TEXT[at] if alpha > tau else 0.0
        attended = (1 - alpha) * ATTENDED[at] if 1 - alpha > tau else 0.0
        assert received[at] == pytest.approx(text + attended, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("tau", [-0.1, 1.0, 1.5, "0.2", None, True])
def test_tau_out_of_range_is_refused(tau):
    for fusion in (MeshedFusion, ModalityFusion):
        with pytest.raises(ValueError, match=r"fusion.tau.*Received: tau="):
            fusion(8, 2, tau=tau)


def test_levels_share_one_cross_attention_and_have_a_gate_each():
    decoder = gpt2("meshed", 3)
    fusion = decoder.blocks[0].fusion
    assert len(fusion.gates) == 3
    assert len(fusion.weights) == 2 * (3 + 3)  # query, key_value, c_proj; three gates
    tokens, one = RNG.integers(0, 20, (2, 4)), memory()
    same = numpy(decoder(tokens, (one, one, one)))
    for number in range(3):
        other = [one, one, one]
        other[number] = memory()
        assert np.abs(numpy(decoder(tokens, tuple(other))) - same).max() > 1e-4


def test_meshed_fusion_has_no_residual_connection():
    """With all gates closed to the text, the output does not depend on it."""
    fusion = MeshedFusion(8, 2, tau=0.0)
    fusion.build((None, None, 8), SHAPES * 2)
    for gate in fusion.gates:
        gate.bias.assign(np.full(8, -50.0))
    memory_kv = fusion.precompute_kv((memory(), memory()), lambda x: x)
    first, second = RNG.normal(size=(2, 2, 4, 8)).astype("float32")

    def changed(x):
        return numpy(fusion(x, memory_kv, norm=lambda _: first)[0])

    np.testing.assert_allclose(changed(first), changed(second), atol=1e-6)


def test_each_modality_has_a_cross_attention_of_its_own():
    fusion = gpt2("modalities", 3).blocks[0].fusion
    assert len(fusion.attentions) == 3
    assert len(fusion.weights) == 3 * 6 + 2
    assert len(gpt2("modalities", 3, gate=False).blocks[0].fusion.weights) == 3 * 6


def test_new_ungated_modalities_leave_the_language_model_unchanged():
    decoder = GPT2(
        20, 8, hidden_dim=8, num_heads=2, num_layers=2, fusion={"kind": "modalities", "gate": False}
    )
    decoder.build(None, SHAPES * 2)
    tokens = RNG.integers(0, 20, (2, 4))
    with_memory = numpy(decoder(tokens, (memory(), memory())))
    np.testing.assert_array_equal(with_memory, numpy(decoder(tokens)))


@pytest.mark.parametrize("gate", [True, False])
def test_a_modality_of_nothing_but_padding_has_no_effect(gate):
    decoder, tokens = gpt2("modalities", 2, gate=gate), RNG.integers(0, 20, (2, 4))
    one, hidden = memory(), np.zeros((2, 5), bool)
    first = numpy(decoder(tokens, (one, Memory(memory().values, hidden))))
    second = numpy(decoder(tokens, (one, Memory(memory(2, 3).values, hidden[:, :3]))))
    np.testing.assert_allclose(first, second, atol=1e-6)
    unmasked = numpy(decoder(tokens, (one, memory())))
    assert np.abs(first - unmasked).max() > 1e-4


def test_a_gate_that_is_not_a_boolean_is_refused():
    with pytest.raises(ValueError, match="fusion.gate true or false. Received: gate='off'"):
        ModalityFusion(8, 2, gate="off")


def test_cross_fusion_refuses_several_memories():
    with pytest.raises(ValueError, match=r"encoder.num_levels=1.*'meshed'.*Received: 3 memories"):
        GPT2(20, 8, hidden_dim=8, num_heads=2, num_layers=1, fusion={"kind": "cross"}).build(
            None, SHAPES * 3
        )
