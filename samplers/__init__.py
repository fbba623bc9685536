"""Samplers: turn next-token logits into captions."""

from __future__ import annotations

from effcap.samplers.base import Sampler, Samples, Step
from effcap.samplers.beam import Beam
from effcap.samplers.greedy import Greedy
from effcap.samplers.nucleus import Nucleus
from effcap.samplers.registry import get

__all__ = ["Beam", "Greedy", "Nucleus", "Sampler", "Samples", "Step", "get"]
