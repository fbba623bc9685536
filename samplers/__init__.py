"""Samplers, which generate captions from next-token logits. May use only Keras."""

from __future__ import annotations

from effcap.samplers.base import Hypotheses, Sampler, Step
from effcap.samplers.beam import Beam
from effcap.samplers.greedy import Greedy
from effcap.samplers.nucleus import Nucleus
from effcap.samplers.registry import SAMPLERS, get

__all__ = ["SAMPLERS", "Beam", "Greedy", "Hypotheses", "Nucleus", "Sampler", "Step", "get"]
