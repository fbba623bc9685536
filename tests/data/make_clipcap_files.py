"""Writes clipcap_files/, the references of test_clipcap_file.py, as ClipCap's programs do.

    pip install torch==2.14.1 numpy==2.4.6 && python tests/data/make_clipcap_files.py
    pip install torch==1.9.1 numpy==1.24.4 && python tests/data/make_clipcap_files.py  # Python 3.9

ClipCap pickles a dict of a tensor and a list in the default protocol: 3 or 4, by Python's version.
The test computes the same values.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch

PHOTOS = ("391895", "522418", "184613")


def captions() -> list:
    """Returns two captions of each photo, each with a vector of its own, as parse_coco.py does."""
    return [
        {"image_id": name, "id": 10 * row, "caption": f"Photo {name}.", "clip_embedding": row}
        for row, name in enumerate(PHOTOS * 2)
    ]


def vectors() -> np.ndarray:
    """Returns the vectors (N, C): equal ones of the captions of a photo."""
    return np.arange(24, dtype=np.float32).reshape(6, 4) % 12 + 1


if __name__ == "__main__":
    folder = Path(__file__).parent / "clipcap_files"
    folder.mkdir(exist_ok=True)
    half = {"clip_embedding": torch.tensor(vectors()).half(), "captions": captions()}
    entries = captions()
    for entry in entries:
        entry["clip_embedding"] = np.int64(entry["clip_embedding"])
        entry["image_id"] = np.str_(entry["image_id"])
    array = {"clip_embedding": np.asfortranarray(vectors()), "captions": entries}
    torch_name, numpy_name = f"torch{torch.__version__[0]}", f"numpy{np.__version__[0]}"
    for protocol in (2, 3, 4, 5):
        for name, content in ((torch_name, half), (numpy_name, array)):
            path = folder / f"{name}_protocol{protocol}.pkl"
            path.write_bytes(pickle.dumps(content, protocol))
    torch.save(half, folder / f"{torch_name}_saved.pkl")
    bfloat16 = {**half, "clip_embedding": torch.tensor(vectors()).bfloat16()}
    (folder / f"{torch_name}_bfloat16.pkl").write_bytes(pickle.dumps(bfloat16))
