"""Writes GPT-2 weights in all published formats, tensor by tensor and without PyTorch.

Names and shapes are independent of the reader's, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

Shapes = Mapping[str, tuple[int, ...]]
Values = Callable[[str], np.ndarray]
OPENAI_NAMES = {
    "vocab_size": "n_vocab",
    "n_positions": "n_ctx",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
    "n_inner": "n_inner",
}


def shapes_of(config: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a GPT-2's tensors by their Hugging Face name."""
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    shapes = {
        "wte.weight": (config["vocab_size"], width),
        "wpe.weight": (config["n_positions"], width),
    }
    kernels = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    for i in range(config["n_layer"]):
        for name, shape in kernels.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{name}.weight": (width,), f"h.{i}.{name}.bias": (width,)}
    return shapes | {"ln_f.weight": (width,), "ln_f.bias": (width,)}


def write_safetensors(
    folder: Path, shapes: Shapes, values: Values, name: str = "model.safetensors"
) -> None:
    """Writes one safetensors file of float32 tensors."""
    header, position = {}, 0
    for tensor, shape in shapes.items():
        end = position + 4 * int(np.prod(shape))
        header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / name).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in shapes:
            file.write(values(tensor).tobytes())


def write_sharded_safetensors(folder: Path, shapes: Shapes, values: Values) -> None:
    """Writes two safetensors files and their index."""
    names, places = list(shapes), {}
    for number, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        part = f"model-{number:05}-of-00002.safetensors"
        write_safetensors(folder, {tensor: shapes[tensor] for tensor in half}, values, part)
        places |= dict.fromkeys(half, part)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_torch(folder: Path, shapes: Shapes, values: Values) -> None:
    """Writes a state dict as torch.save does, opcode by opcode."""

    def plain(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]  # without protocol and stop

    entries = b""
    for key, (tensor, shape) in enumerate(shapes.items()):
        count = int(np.prod(shape))
        storage = plain("storage") + b"ctorch\nFloatStorage\n" + plain(str(key)) + plain("cpu")
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        hooks = b"ccollections\nOrderedDict\n)R"
        entries += plain(tensor) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        entries += storage + plain(count) + b"tQ"
        entries += plain(0) + plain(tuple(shape)) + plain(strides) + plain(False) + hooks + b"tR"
    content = b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("pytorch_model/data.pkl", content)
        archive.writestr("pytorch_model/byteorder", "little")
        for key, tensor in enumerate(shapes):
            with archive.open(f"pytorch_model/data/{key}", "w", force_zip64=True) as file:
                file.write(values(tensor).tobytes())
        archive.writestr("pytorch_model/version", "3\n")


def hdf5_tensor(name: str, array: np.ndarray, embedding: str) -> tuple[str, np.ndarray]:
    """Returns a tensor's name and values in an HDF5 file, where biases of kernels have two axes.

    Args:
        name: Hugging Face's name.
        array: values.
        embedding: name of the token embeddings' variable: "weight" before transformers 4.30, and
            "embeddings" since.
    """
    *path, kind = name.split(".")
    if path[0] == "h":
        path = [f"h_._{path[1]}", *path[2:]]
    if path[-1].startswith("ln"):
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    elif path[-1] == "wpe":
        kind = "embeddings"
    elif path[-1] == "wte":
        kind = embedding
    elif kind == "bias":
        array = array[None]
    return "/".join([*path, f"{kind}:0"]), array


# Groups above the layers', and the name of the token embeddings' variable.
HDF5_LAYOUTS = {
    "published": ("transformer/tfgp_t2lm_head_model/transformer", "weight"),
    "older": ("transformer/tfgpt2lm_head_model/transformer", "weight"),
    "older without head": ("transformer/tfgpt2_model/transformer", "weight"),
    "newer": ("transformer/tfgpt2lm_head_model/transformer", "embeddings"),
    "newer without head": ("transformer/tfgpt2_model_1/transformer", "embeddings"),
    "layer in a Keras model": ("model_weights/transformer/transformer", "embeddings"),
    "older layer in a Keras model": ("model_weights/transformer/transformer", "weight"),
    "model in a Keras model": ("model_weights/gpt2/gpt2/transformer", "embeddings"),
}


def write_hdf5(folder: Path, shapes: Shapes, values: Values, layout: str = "published") -> None:
    """Writes the HDF5 file of transformers' TFGPT2LMHeadModel, or of a Keras model around it.

    A Keras model's file has an optimizer's state too.
    """
    root, embedding = HDF5_LAYOUTS[layout]
    names = []
    with h5py.File(folder / "tf_model.h5", "w") as file:
        for tensor in shapes:
            name, array = hdf5_tensor(tensor, values(tensor), embedding)
            names.append(f"{root}/{name}")
            file.create_dataset(names[-1], data=array)
            if root.startswith("model_weights"):
                for moment in "mv":
                    moments = f"optimizer_weights/Adam/{moment}/transformer/{name}"
                    file.create_dataset(moments, data=np.zeros_like(array))
        # As Keras 2 wrote them.
        group = file
        if root.startswith("model_weights"):
            file.create_dataset("optimizer_weights/iteration:0", data=np.int64(1))
            group = file["model_weights"]
            names = [name.removeprefix("model_weights/") for name in names]
        layer = root.removeprefix("model_weights/").partition("/")[0]
        for attributes in (file.attrs, group.attrs):
            attributes["backend"] = b"tensorflow"
        group.attrs["layer_names"] = [layer.encode()]
        group.create_group("top_level_model_weights").attrs["weight_names"] = []
        inside = [name.removeprefix(f"{layer}/").encode() for name in names]
        group[layer].attrs["weight_names"] = inside


def write_newer_hdf5(folder: Path, shapes: Shapes, values: Values) -> None:
    """Writes the HDF5 file of TFGPT2LMHeadModel in transformers 4.30 to 4.57."""
    write_hdf5(folder, shapes, values, "newer")


def write_sharded_hdf5(folder: Path, shapes: Shapes, values: Values) -> None:
    """Writes two HDF5 files of transformers and their index, which has the model's name too."""
    names, places = list(shapes), {}
    for number, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = f"tf_model-{number:05}-of-00002.h5"
        with h5py.File(folder / shard, "w") as file:
            for tensor in half:
                name, array = hdf5_tensor(tensor, values(tensor), "embeddings")
                file.create_dataset(f"transformer/{name}", data=array)
                places[f"tfgpt2lm_head_model/transformer/{name}"] = shard
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "tf_model.h5.index.json").write_text(json.dumps(index))


def write_checkpoint(folder: Path, shapes: Shapes, values: Values) -> None:
    """Writes an OpenAI TensorFlow checkpoint, whose kernels have three axes."""
    import tensorflow as tf

    tensors = {}
    for tensor in shapes:
        *path, kind = tensor.split(".")
        if path[0] == "h":
            path = [f"h{path[1]}", *path[2:]]
        array = values(tensor)
        if path[-1].startswith("ln"):
            path.append({"weight": "g", "bias": "b"}[kind])
        elif not path[-1].startswith("w"):
            path.append({"weight": "w", "bias": "b"}[kind])
            array = array[None] if kind == "weight" else array
        with tf.device("CPU"):
            tensors["model/" + "/".join(path)] = tf.constant(array)
    names = sorted(tensors)  # required by the format
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tensors[name] for name in names],
    )
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')


WRITERS: dict[str, Callable[[Path, Shapes, Values], None]] = {
    "safetensors": write_safetensors,
    "sharded": write_sharded_safetensors,
    "torch": write_torch,
    "hdf5": write_hdf5,
    "checkpoint": write_checkpoint,
}
HDF5_WRITERS: dict[str, Callable[[Path, Shapes, Values], None]] = {
    "newer_hdf5": write_newer_hdf5,
    "sharded_hdf5": write_sharded_hdf5,
}


def write_folder(
    form: str, folder: Path, config: Mapping[str, int], shapes: Shapes, values: Values
) -> Path:
    """Writes weights and configuration in a format of either table; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    {**WRITERS, **HDF5_WRITERS}[form](folder, shapes, values)
    if form == "checkpoint":
        sizes = {OPENAI_NAMES[name]: value for name, value in config.items()}
        (folder / "hparams.json").write_text(json.dumps(sizes))
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **config}))
    return folder
