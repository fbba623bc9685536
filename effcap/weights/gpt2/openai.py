"""Reads OpenAI's TensorFlow checkpoints of GPT-2."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from effcap.weights.gpt2.stored_tensor import NORMS, Shape, StoredTensor, damaged


def stored_in_checkpoint(name: str, shape: Shape) -> tuple[str, Shape]:
    """Returns a tensor's name and shape in a checkpoint.

    Examples are model/h0/attn/c_attn/w, which is (1, in, out), and model/h0/ln_1/g.
    """
    *path, kind = name.split(".")
    if path[0] == "h":
        path[:2] = [f"h{path[1]}"]
    if path[-1] in ("wte", "wpe"):
        return "/".join(["model", *path]), shape
    kind = {"weight": "g" if path[-1] in NORMS else "w", "bias": "b"}[kind]
    return "/".join(["model", *path, kind]), (1, *shape) if kind == "w" else shape


def open_checkpoint(folder: Path) -> Iterable[StoredTensor]:
    """Returns the tensors of the checkpoint in a folder.

    Raises:
        FileNotFoundError: the checkpoint is missing or ambiguous.
        ValueError: the checkpoint is damaged.
    """
    import tensorflow as tf

    prefix = checkpoint_prefix(folder)
    path = prefix.with_name(f"{prefix.name}.index")
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except Exception as error:  # a damaged file can raise anything
        raise damaged(path, error) from error
    return [
        StoredTensor(path, name, tuple(shape), dtypes[name].name, reader.get_tensor)
        for name, shape in sorted(shapes.items())
    ]


def checkpoint_prefix(folder: Path) -> Path:
    """Returns the path of the checkpoint in a folder, without suffix.

    Of several checkpoints it is the one that the file `checkpoint` names.

    Raises:
        FileNotFoundError: there is none, or the choice is ambiguous.
    """
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if len(prefixes) > 1:
        text = (folder / "checkpoint").read_text(encoding="utf-8", errors="replace")
        latest = re.search(r'^model_checkpoint_path: "(?:.*/)?([^/"]+)"', text, re.MULTILINE)
        prefixes = [path for path in prefixes if latest and path.name == latest.group(1)]
    if len(prefixes) != 1:
        raise FileNotFoundError(
            f"No model.ckpt.index in {folder}, or several *.index of which the file `checkpoint` "
            "names none"
        )
    return prefixes[0]
