"""Samplers: turn next-token logits into captions."""

from __future__ import annotations

from effcap.samplers.beam import Beam
from effcap.samplers.greedy import Greedy
from effcap.samplers.names import get
from effcap.samplers.nucleus import Nucleus
from effcap.samplers.sampler import Sampler, Samples, Step

__all__ = ["Beam", "Greedy", "Nucleus", "Sampler", "Samples", "Step", "get"]
