"""The models of a captioner in OpenVINO: written once from Keras, then read without it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from effcap.engines.openvino_graph import (
    fuse_cached_attention,
    fuse_gelus,
    fuse_norms,
    keep_cache,
)
from effcap.engines.openvino_weights import compress_weights, prepare_weights
from effcap.engines.traced_models import (
    LOGITS,
    MASK,
    MEMORY,
    POSITIONS,
    TOKENS,
    DecoderModel,
    EncoderModel,
    Traced,
)
from effcap.output_vocabulary import parse_tokens
from effcap.utils.quiet import quiet

if TYPE_CHECKING:
    from effcap.captioning import CaptioningModel

ENCODER, DECODER = "encoder.xml", "decoder.xml"
FILES = tuple(name for model in (ENCODER, DECODER) for name in (model, model[:-3] + "bin"))
# Precisions, with the arithmetic that OpenVINO uses where the processor has it.
PRECISIONS = {
    "float32": {"encoder": "f32", "decoder": "f32"},
    "bfloat16": {"encoder": "bf16", "decoder": "bf16"},
    "int8": {"encoder": "bf16", "decoder": "f32"},
}


def write_openvino(captioner: CaptioningModel, folder: Path, precision: str) -> None:
    """Writes the encoder and the decoder of a Keras captioner as OpenVINO models.

    Args:
        captioner: the captioner.
        folder: existing folder, which gets the files `FILES`.
        precision: key of `PRECISIONS`. "int8" stores the weights of matrix products in 8 bits, and
            "bfloat16" all weights in 16.
    """
    encoder = EncoderModel(captioner.encoder, captioner.decoder)
    save_openvino(encoder, folder / ENCODER, precision)
    decoder = DecoderModel(captioner.decoder, encoder.memory_specs, output_tokens(captioner))
    save_openvino(decoder, folder / DECODER, precision)


def save_openvino(traced: Traced, path: Path, precision: str) -> None:
    """Writes a Keras model as an OpenVINO model whose cache, if it has one, is its state.

    Args:
        traced: an encoder, or one step of a decoder.
        path: file to write, in an existing folder; its weights get the extension .bin.
        precision: as in `write_openvino`.
    """
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as temporary:
        exported = Path(temporary) / path.name
        with quiet():
            signature = traced.signature()
            traced.export(
                str(exported), format="openvino", verbose=False, input_signature=signature
            )
        model = openvino.Core().read_model(exported)
        prepare_weights(model)
        fuse_norms(model)
        fuse_gelus(model)
        if isinstance(traced, DecoderModel):
            fuse_cached_attention(model)
            keep_cache(model)
        if precision == "int8":
            compress_weights(model)
        openvino.save_model(model, path, compress_to_fp16=precision == "bfloat16")


def output_tokens(captioner: CaptioningModel) -> list[int] | None:
    """Returns the tokens of an output vocabulary in the order of `CallVocabulary`; None for all."""
    text = captioner.decoder.output_vocabulary
    if text is None:
        return None
    assert captioner.tokenizer is not None
    return sorted({*parse_tokens(text), captioner.tokenizer.eos_id})


class OpenVinoModels:
    """The compiled models of a captioner, with the memory and the cache of one batch.

    Args:
        folder: folder written by `write_openvino`.
        precision: key of `PRECISIONS`, the one that was written.

    Raises:
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path, precision: str):
        import openvino

        self._openvino = openvino
        requests = []
        for name, kind in ((ENCODER, "encoder"), (DECODER, "decoder")):
            settings = {
                "INFERENCE_PRECISION_HINT": PRECISIONS[precision][kind],
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,  # threads that wait for one busy core delay all
                # int8: inputs of a product that share a scale. 32, the default, is slower.
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128,
                "KV_CACHE_PRECISION": "f32",  # by default it is rounded to 8 bits
            }
            try:
                model = openvino.compile_model(folder / name, "CPU", settings)
            except RuntimeError as error:
                raise ValueError(f"Cannot read {folder / name}: {error}") from None
            requests.append(model.create_infer_request())
        self._encoder, self._decoder = requests
        names = [port.any_name for port in self._decoder.model_inputs]
        self._memory = [name for name in names if name.startswith(MEMORY[:-5])]

    def start(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Computes the memory of a batch, and empties the cache.

        Args:
            inputs: the encoder's inputs, B rows.
        """
        for name, array in inputs.items():
            tensor = self._openvino.Tensor(np.ascontiguousarray(array, np.float32))
            self._encoder.set_tensor(name, tensor)
        self._encoder.infer()
        for name in self._memory:
            self._decoder.set_tensor(name, self._encoder.get_tensor(name))
        self._decoder.reset_state()

    def extend(self, tokens: np.ndarray, positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Decodes tokens (B, T) after those of the earlier calls; see `Decoder.extend`.

        Args:
            tokens: (B, T) int32.
            positions: (T,) int32.
            mask: (B, T, S + T) bool.

        Returns:
            Logits (B, T, V), valid until the next call.
        """
        for name, array in ((TOKENS, tokens), (POSITIONS, positions), (MASK, mask)):
            self._decoder.set_tensor(name, self._openvino.Tensor(np.ascontiguousarray(array)))
        self._decoder.infer()
        return self._decoder.get_tensor(LOGITS).data
