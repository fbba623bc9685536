"""Grad-CAM (Selvaraju et al. 2017): what in a photo raises the probability of a word.

It takes the place of attention weights for captioners with a prefix, in which text attends to a
prefix and not to the positions of the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from effcap.attention.caption_words import Word
from effcap.backbones.backbone import find_grid
from effcap.utils.gradients import gradient

if TYPE_CHECKING:
    from effcap.backbones.backbone import Backbone
    from effcap.decoders.base import Decoder
    from effcap.encoders.base import PhotoEncoder
    from effcap.tokenizers import Tokenizer

Rest = Callable[[Any], Any]  # from activations to the features (B, S, C) of the backbone


def grad_cam(
    model: tuple[PhotoEncoder, Decoder, Tokenizer],
    images: np.ndarray,
    tokens: Sequence[int],
    words: Sequence[Word],
) -> tuple[np.ndarray, str]:
    """Computes a map for each of W words: where activations raise its log-probability.

    With the activations A (h, w, C) of the last layer that the caption depends on at more than
    one position, the map is relu(sum over c of mean(dy/dA_c) * A_c), where y is the sum of the
    log-probabilities of the word's tokens after the words before it.

    Args:
        model: encoder, decoder and tokenizer of a captioner with a prefix.
        images: (1, h, w, 3), pixels 0..255.
        tokens: T tokens of the caption.
        words: the words to explain.

    Returns:
        Maps (W, h, w), not negative, and a description of them.

    Raises:
        ValueError: the backbone has no such layer, or its positions form no grid.
    """
    encoder, decoder, tokenizer = model
    inputs = np.array([[tokenizer.bos_id, *tokens[:-1]]], np.int32)  # (1,T)
    is_word = np.zeros((len(words), len(tokens)), np.float32)  # (W,T)
    for row, word in enumerate(words):
        is_word[row, word.start : word.stop] = 1
    targets, selection = np.array(tokens)[None, :, None], ops.convert_to_tensor(is_word)

    def log_probabilities(features: Any, repeats: int) -> Any:
        """Returns the log-probabilities (W, T) of the tokens, from features (W, S, C)."""
        memory = encoder({"features": features}, training=False)
        logits = decoder(np.repeat(inputs, repeats, axis=0), memory, training=False)
        log_probs = ops.log_softmax(logits, axis=-1)  # (W,T,V)
        chosen = ops.convert_to_tensor(np.repeat(targets, repeats, axis=0), "int32")  # (W,T,1)
        return ops.take_along_axis(log_probs, chosen, axis=2)[..., 0]  # (W,T)

    for name, activations, rest in _cuts(encoder.backbone, images):
        repeated = np.repeat(activations, len(words), axis=0)  # (W,h,w,C) or (W,S,C)

        def score(x: Any, rest: Rest = rest) -> Any:
            return ops.sum(log_probabilities(rest(x), len(words)) * selection)

        gradients = gradient(score, repeated)  # as `repeated`
        maps = _maps(encoder.image_size, activations, gradients)
        if maps is not None:
            height, width = maps.shape[1:]
            return maps, (
                f"Grad-CAM of each word's log-probability on {height} x {width} activations "
                f"of {name}"
            )
    raise ValueError(
        f"The captions depend on no feature map of {encoder.backbone.net.name} that "
        "Grad-CAM could explain"
    )


def _cuts(backbone: Backbone, images: np.ndarray) -> Iterator[tuple[str, np.ndarray, Rest]]:
    """Yields layers from the last, with their activations for the photo and what follows them."""
    net = backbone.net
    pixels = backbone.preprocessing(ops.cast(images, backbone.compute_dtype))  # (1,H,W,3)

    def as_features(x: Any) -> Any:
        return ops.reshape(x, (-1, *backbone.feature_shape))  # (B,S,C)

    yield net.name, ops.convert_to_numpy(net(pixels, training=False)), as_features
    for layer in reversed(net.layers):
        outputs = getattr(layer, "output", None)  # a network that is no graph has none
        output = next(iter(keras.tree.flatten(outputs)), None)  # a block also returns its cache
        if not _is_spatial(output) or output is net.output:
            continue
        try:
            front, rest = keras.Model(net.inputs, output), keras.Model(output, net.output)
        except ValueError:  # another path leads around the layer
            continue

        def continue_from(x: Any, rest: keras.Model = rest) -> Any:
            return as_features(rest(x, training=False))

        activations = ops.convert_to_numpy(front(pixels, training=False))
        yield f"{net.name} at {layer.name}", activations, continue_from


def _is_spatial(tensor: Any) -> bool:
    """Returns whether a layer's output is a feature map (B, h, w, C) or a sequence (B, S, C)."""
    if not isinstance(tensor, keras.KerasTensor) or len(tensor.shape) not in (3, 4):
        return False
    return None not in tensor.shape[1:] and int(np.prod(tensor.shape[1:-1])) > 1


def _maps(
    image_size: tuple[int, int], activations: np.ndarray, gradients: np.ndarray
) -> np.ndarray | None:
    """Computes maps (W, h, w); None if the caption depends on one position only."""
    shape = activations.shape[1:-1]  # (h,w) or (S,)
    num_channels = activations.shape[-1]
    gradients = gradients.reshape(len(gradients), -1, num_channels)  # (W,S,C)
    flat = activations.reshape(-1, num_channels)  # (S,C)
    if np.count_nonzero(np.abs(gradients).sum(axis=(0, 2))) < 2:
        return None
    grid, leading = find_grid(shape, image_size)
    gradients, flat = gradients[:, leading:], flat[leading:]  # (W,hw,C), (hw,C)
    weights = gradients.mean(axis=1)  # (W,C)
    return np.maximum(weights @ flat.T, 0).reshape(-1, *grid)  # (W,hw) -> (W,h,w)
