"""Vision transformers (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

One builder serves ViT, the image towers of BLIP (Li et al. 2022, https://arxiv.org/abs/2201.12086)
and those of CLIP (`clip_vit.py`).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from effcap.backbones.vit_sizes import ViTVariant
from effcap.layers.attention import INITIALIZER_STDDEV
from effcap.layers.embedding import Embedding
from effcap.layers.transformer import TransformerBlock, find_activation


def VisionTransformer(  # noqa: N802  named as in keras.applications
    variant: ViTVariant,
    image_size: tuple[int, int],
    embedding: bool = False,
    name: str = "vit",
) -> keras.Model:
    """Creates a vision transformer with random weights.

    Args:
        variant: the sizes.
        image_size: height and width in pixels, multiples of the patch size.
        embedding: whether the output is the projected image vector instead of the tokens.
        name: name of the model.

    Returns:
        A functional model from preprocessed images (B, height, width, 3) to the tokens
        (B, 1 + height * width / patch_size**2, D) after the last layer norm, the class token
        first, or to the image vector (B, 1, E), which is not normalized.

    Raises:
        ValueError: the image is not a whole number of patches.
    """
    patch, hidden_dim = variant.patch_size, variant.hidden_dim
    height, width = image_size
    check_multiple(image_size, patch)
    num_patches = (height // patch) * (width // patch)

    images = keras.Input((height, width, 3), name="images")
    x = layers.Conv2D(
        hidden_dim,
        patch,
        strides=patch,
        use_bias=variant.has_patch_bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=INITIALIZER_STDDEV),
        name="conv1",
    )(images)  # (B,height/patch,width/patch,D)
    x = layers.Reshape((num_patches, hidden_dim), name="patches")(x)  # (B,S-1,D)
    x = ClassAndPositions(num_patches + 1, hidden_dim, name="embeddings")(x)  # (B,S,D)
    if variant.has_pre_norm:
        x = layers.LayerNormalization(epsilon=variant.epsilon, name="ln_pre")(x)
    for i in range(variant.num_layers):
        block = ViTBlock(
            hidden_dim,
            variant.num_heads,
            variant.num_layers,
            variant.activation,
            variant.epsilon,
            variant.intermediate_dim,
            variant.qkv_bias,
            name=f"block_{i}",
        )
        block.build(x.shape)
        x, *_ = block(x)  # (B,S,D)
    if embedding:
        x = layers.Cropping1D((0, num_patches), name="class_token")(x)  # (B,1,D)
    x = layers.LayerNormalization(epsilon=variant.epsilon, name="ln_post")(x)
    if embedding:
        x = layers.Dense(
            variant.embedding_dim,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=hidden_dim**-0.5),
            name="projection",
        )(x)  # (B,1,E)
    return keras.Model(images, x, name=name)


def check_multiple(image_size: tuple[int, int], step: int) -> None:
    """Checks that height and width are multiples of `step`.

    Raises:
        ValueError: they are not.
    """
    if image_size[0] % step or image_size[1] % step:
        raise ValueError(
            f"Expected an image_size of multiples of {step} pixels. "
            f"Received: image_size={tuple(image_size)}"
        )


@keras.saving.register_keras_serializable("effcap")
class ClassAndPositions(layers.Layer):
    """Puts the learned class token before a sequence and adds learned positions.

    Args:
        num_positions: length S of the sequence with the class token.
        hidden_dim: width D.

    Call arguments:
        x: (B, S - 1, D).

    Returns:
        (B, S, D).
    """

    def __init__(self, num_positions: int, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_positions, self.hidden_dim = num_positions, hidden_dim
        self.position_embedding = Embedding(num_positions, hidden_dim, name="position_embedding")

    def build(self, shape: Any = None) -> None:
        self.class_embedding = self.add_weight(
            shape=(self.hidden_dim,),
            initializer=keras.initializers.RandomNormal(stddev=INITIALIZER_STDDEV),
            name="class_embedding",
        )
        self.position_embedding.build()
        self.built = True

    def call(self, x: Any) -> Any:
        token = ops.cast(self.class_embedding, x.dtype)
        token = ops.broadcast_to(token, (ops.shape(x)[0], 1, self.hidden_dim))  # (B,1,D)
        x = ops.concatenate([token, x], axis=1)  # (B,S,D)
        return x + ops.cast(self.position_embedding.embeddings, x.dtype)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return (shape[0], self.num_positions, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        sizes = {"num_positions": self.num_positions, "hidden_dim": self.hidden_dim}
        return super().get_config() | sizes


@keras.saving.register_keras_serializable("effcap")
class ViTBlock(TransformerBlock):
    """A pre-norm transformer block that can be saved as part of a Keras model.

    Args:
        hidden_dim: width D.
        num_heads: number of heads.
        num_layers: number of blocks in the stack, by which initial output projections are scaled.
        activation: key of `effcap.layers.transformer.ACTIVATIONS`.
        epsilon: epsilon of the layer norms.
        intermediate_dim: width of the MLP's hidden layer. None takes 4*D.
        qkv_bias: whether queries, keys and values have biases.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_layers: int,
        activation: str = "gelu",
        epsilon: float = 1e-12,
        intermediate_dim: int | None = None,
        qkv_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            hidden_dim,
            num_heads,
            intermediate_dim,
            num_layers=num_layers,
            activation=find_activation(activation),
            epsilon=epsilon,
            qkv_bias=qkv_bias,
            **kwargs,
        )
        self.hidden_dim, self.num_heads, self.num_layers = hidden_dim, num_heads, num_layers
        self.activation, self.epsilon = activation, epsilon
        self.intermediate_dim, self.qkv_bias = intermediate_dim, qkv_bias

    def get_config(self) -> dict[str, Any]:
        names = ["hidden_dim", "num_heads", "num_layers", "activation", "epsilon"]
        names += ["intermediate_dim", "qkv_bias"]
        return keras.layers.Layer.get_config(self) | {name: getattr(self, name) for name in names}
