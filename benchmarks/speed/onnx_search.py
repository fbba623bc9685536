"""Captions by ONNX Runtime: greedy and beam search around the graphs of `onnx_graphs`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from limits import num_cores

MASKED = np.float32(-1e30)


class OnnxCaptioner:
    """The graphs of a captioner in ONNX Runtime, on a CPU.

    Args:
        folder: folder with encoder.onnx and step.onnx.
        precision: "float32", or "int8" for the matrix products of the step, quantized dynamically.
        end: the start and end token.
    """

    def __init__(self, folder: Path, precision: str, end: int) -> None:
        import onnxruntime

        step = folder / "step.onnx"
        if precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            step = folder / "step.int8.onnx"
            quantize_dynamic(
                folder / "step.onnx",
                step,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                # Activations of 8 bits by weights of 8 bits overflow without VNNI.
                reduce_range=not has_vnni(),
                extra_options={"MatMulConstBOnly": True},
            )
        elif precision != "float32":
            raise NotImplementedError(f"ONNX Runtime has no {precision} on CPUs")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = num_cores()  # by default it ignores the process's affinity
        providers = ["CPUExecutionProvider"]
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._encoder, self._step = (
            onnxruntime.InferenceSession(path, options, providers=providers)
            for path in (folder / "encoder.onnx", step)
        )
        self._memory = [output.name for output in self._encoder.get_outputs()]
        self._outputs = [output.name for output in self._step.get_outputs()]
        self._caches = [name for name in self._outputs if name.startswith("new_")]
        values = next(x for x in self._step.get_inputs() if x.name.startswith("past_"))
        self._heads, self._dim = values.shape[1], values.shape[3]
        self._end = end

    def generate(self, images: np.ndarray, beams: int, tokens: int) -> np.ndarray:
        """Returns the best captions (B, tokens) of images (B,h,w,3), none of which ends earlier."""
        rows, beam = len(images), np.arange(beams)
        pixels = self._value(images.astype(np.float32))
        memory = self._encoder.run_with_ort_values(self._memory, {"images": pixels})
        fixed = dict(zip(self._memory, memory, strict=True))
        empty = self._value(np.zeros((rows, self._heads, 0, self._dim), np.float32))
        caches = {name.replace("new", "past"): empty for name in self._caches}
        last = np.full((rows, beams), self._end)  # (B,K)
        captions = np.zeros((rows, beams, 0), np.int64)
        ancestors = np.zeros((rows, beams, 0), np.int64)  # row of each earlier token's cache
        sums = np.broadcast_to(np.where(beam, MASKED, 0), (rows, beams))  # one hypothesis at first
        for position in range(tokens):
            ancestors = np.concatenate(
                [ancestors, np.broadcast_to(beam[None, :, None], (rows, beams, 1))], axis=2
            )  # (B,K,T)
            mask = np.where(ancestors[..., None] == beam, np.float32(0), MASKED)  # (B,K,T,K)
            inputs = {
                "tokens": last,
                "position": np.array([position]),
                "count": np.array([beams + 1]),
                "mask": mask.reshape(rows, 1, beams, -1),  # (B,1,K,T*K)
            }
            inputs = {
                name: self._value(np.ascontiguousarray(array)) for name, array in inputs.items()
            }
            values = self._step.run_with_ort_values(self._outputs, {**inputs, **fixed, **caches})
            results = dict(zip(self._outputs, values, strict=True))
            caches = {name.replace("new", "past"): results[name] for name in self._caches}
            ids, log_probs = results["ids"].numpy(), results["log_probs"].numpy()  # (B,K,K+1)
            log_probs = np.where(ids == self._end, MASKED, log_probs)
            candidates = (sums[..., None] + log_probs).reshape(rows, -1)  # (B,K*(K+1))
            best = np.argsort(-candidates, axis=1, kind="stable")[:, :beams]  # (B,K)
            parents = best // (beams + 1)
            sums = np.take_along_axis(candidates, best, 1)
            last = np.take_along_axis(ids.reshape(rows, -1), best, 1)
            captions = np.take_along_axis(captions, parents[..., None], 1)
            captions = np.concatenate([captions, last[..., None]], axis=2)  # (B,K,T)
            ancestors = np.take_along_axis(ancestors, parents[..., None], 1)
        return captions[:, 0]


def has_vnni() -> bool:
    """Returns whether the processor multiplies bytes without overflow, as Linux reports it."""
    path = Path("/proc/cpuinfo")
    return path.is_file() and any(flag in path.read_text() for flag in ("avx512_vnni", "avx_vnni"))
