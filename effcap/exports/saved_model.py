"""Exports captioners as a SavedModel, whose signatures also caption photos from bytes to tokens."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from effcap.exports.photo_bytes import load_photo_bytes
from effcap.generation import GenerationModel
from effcap.generation_call import Call, Rows
from effcap.samplers import Beam, Greedy, Sampler
from effcap.utils.quiet import quiet

if TYPE_CHECKING:
    from effcap.exports.exported_models import ExportedParts

SAVED_MODEL = "saved_model"


class SavedModelWriter:
    """Writes all graphs as signatures of one SavedModel, and "greedy" and "beam".

    Args:
        folder: existing folder.
        dtype: "float32".
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self._folder = folder
        self._signatures: dict[str, Any] = {}

    def add(self, name: str, model: Any) -> None:
        specs = {key: tensor_spec(spec) for key, spec in model.signature()[0].items()}
        function = tf.function(lambda **inputs: model(inputs), autograph=False)
        with quiet():
            self._signatures[name] = function.get_concrete_function(**specs)

    def close(self, parts: ExportedParts) -> None:
        common = {field.name: getattr(parts.sampler, field.name) for field in fields(Sampler)}
        beam = parts.sampler if isinstance(parts.sampler, Beam) else Beam(**common)
        module = tf.Module()
        # Keras's own archive stores every variable twice.
        module.weights = [weight.value for weight in parts.captioner.weights]
        with quiet():
            for name, sampler in (("greedy", Greedy(**common)), ("beam", beam)):
                self._signatures[name] = caption_function(parts, sampler)
            tf.saved_model.save(module, str(self._folder / SAVED_MODEL), self._signatures)


def tensor_spec(spec: keras.InputSpec) -> tf.TensorSpec:
    """Returns the specification of TensorFlow for one of Keras."""
    return tf.TensorSpec(spec.shape, spec.dtype, spec.name)


def caption_function(parts: ExportedParts, sampler: Sampler) -> Any:
    """Returns a traced function from B photos, or other inputs, to the tokens of captions.

    It takes "photos", bytes (B,) of JPEG, PNG, GIF or BMP files, or the inputs of an encoder that
    takes no photos; and returns "tokens" (B, T) without the prompt, filled up with the end token,
    "lengths" (B,) without it, and "scores" (B,), log-probabilities in nats.
    """
    captioner, encoder = parts.captioner, parts.captioner.encoder
    assert captioner.tokenizer is not None
    model = GenerationModel(encoder, captioner.decoder, captioner.tokenizer, sampler)
    takes_photos = "images" in encoder.input_keys
    signature = parts.encoder.signature()[0]
    specs = {name: tensor_spec(spec) for name, spec in signature.items()}
    if takes_photos:
        specs = {"photos": tf.TensorSpec((None,), "string", "photos")}
    rows = Rows({}, [0], [parts.prompt[1:]])
    call = Call.create(sampler, captioner.decoder, captioner.tokenizer, rows)
    constants: dict[str, Any] = {"prompt": call.prompt, "sampler": call.values}
    if call.vocabulary is not None:
        tokens, can_output = call.vocabulary.tokens, call.vocabulary.can_output
        constants |= {"tokens": tokens, "can_output": can_output}
    constants = keras.tree.map_structure(np.asarray, constants)

    def caption_one(row: dict) -> dict:
        """Captions one photo: the search is traced for a known number of rows."""
        if takes_photos:
            image = load_photo_bytes(
                row["photos"], encoder.image_size, encoder.fit, encoder.resample
            )
            row = {"images": image}
        inputs = {name: tf.expand_dims(x, 0) for name, x in row.items()}  # (1,...)
        found = model({"encoder": inputs, **constants})
        return {
            "tokens": found["tokens"][0, 0],
            "lengths": found["lengths"][0, 0],
            "scores": found["scores"][0, 0],
        }

    types = {"tokens": tf.int32, "lengths": tf.int32, "scores": tf.float32}

    outputs = {
        name: tf.TensorSpec((sampler.max_new_tokens,) if name == "tokens" else (), dtype)
        for name, dtype in types.items()
    }
    function = tf.function(
        lambda **inputs: tf.map_fn(caption_one, inputs, fn_output_signature=outputs),
        autograph=False,
    )
    return function.get_concrete_function(**specs)
