"""Registry of decoders by `decoder.kind` in hparams."""

from __future__ import annotations

from effcap.decoders.base import Decoder
from effcap.decoders.bert import BERT
from effcap.decoders.gpt2 import GPT2

DECODERS: dict[str, type[Decoder]] = {"gpt2": GPT2, "bert": BERT}
