"""Writes torch_file_zip.pth and torch_file_legacy.pth, the references of test_torch_file.py.

    pip install torch==2.13.0 numpy
    python tests/data/make_torch_file.py

The test computes the same values: `row` is 0, 1, ..., 23.
"""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import torch

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]
DTYPES += ["bool", "complex64", "complex128", "uint16", "uint32", "uint64"]


def checkpoint(legacy: bool) -> dict:
    """Returns a checkpoint like those of training programs: weights of all kinds, and more."""
    row = torch.arange(24, dtype=torch.float32)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for number, value in enumerate(layer.state_dict().values()):
            value.fill_(number)
    weights = {
        "contiguous": row.reshape(2, 3, 4),
        "transposed": row.reshape(2, 3, 4).permute(2, 0, 1),
        "every_second": row[1::2],
        "column": row.reshape(4, 6)[:, 5],
        "expanded": row[3:4].expand(5),
        "scalar": torch.tensor(7.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(row[4:10].reshape(2, 3)),
        "channels_last": row.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    }
    for dtype in DTYPES:
        if not (legacy and dtype in ("uint16", "uint32", "uint64")):  # not in the older format
            weights[dtype] = torch.tensor([0, 1, 100]).to(getattr(torch, dtype))
    optimizer = torch.optim.Adam(layer.parameters())
    return {
        "state_dict": collections.OrderedDict(weights),
        "layer": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": np.float64(1.25),
        "random": ("MT19937", np.arange(3, dtype=np.uint32), 0),
        "shape": torch.Size([2, 3]),
        "history": [torch.tensor([1.0]), {"loss": torch.tensor(0.5)}],
    }


if __name__ == "__main__":
    folder = Path(__file__).parent
    torch.save(checkpoint(legacy=False), folder / "torch_file_zip.pth")
    torch.save(
        checkpoint(legacy=True),
        folder / "torch_file_legacy.pth",
        _use_new_zipfile_serialization=False,
    )
