"""Attention weights and prefix words of photos, from a Keras captioner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import keras
import numpy as np

from effcap.attention.photo_attention import PhotoAttention, photo_attention
from effcap.attention.selection import Choice
from effcap.attention.weights import attention_weights
from effcap.caption import Caption, PhotoCaptions
from effcap.caption_generator import CaptionGenerator
from effcap.decoders.prefix_words import MASKED, nearest_tokens
from effcap.decoders.registry import DECODERS
from effcap.encoders.registry import ENCODERS
from effcap.generation import GenerationCache
from effcap.images import as_photos
from effcap.output_vocabulary import caption_tokens, format_tokens, parse_tokens
from effcap.samplers import Sampler
from effcap.samplers.registry import to_config
from effcap.token_mean import TokenMeanModel
from effcap.tokenizers import Tokenizer

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.images import Photo


class CaptioningModel(CaptionGenerator, TokenMeanModel):
    """A model with an encoder, a decoder and a tokenizer that writes captions."""

    encoder: keras.layers.Layer
    decoder: Decoder
    _generation: GenerationCache

    def hparams(self) -> dict:
        """Returns the hyperparameters of this captioner, as in a file of hparams/."""
        hparams = {
            "encoder": {"kind": _kind(ENCODERS, self.encoder), **self.encoder.get_config()},
            "decoder": {"kind": _kind(DECODERS, self.decoder), **self.decoder.get_config()},
        }
        return hparams if self.sampler is None else {**hparams, "sampler": to_config(self.sampler)}

    @property
    def output_tokens(self) -> tuple[int, ...] | None:
        """Tokens that captions may be made of; None for all. See `restrict_vocabulary`."""
        text = self.decoder.output_vocabulary
        return None if text is None else parse_tokens(text)

    def restrict_vocabulary(self, captions: Iterable[str] | None, *, widen: bool = False) -> None:
        """Makes generated captions of the tokens of given captions only, which is faster.

        The output projection is reduced to these tokens. Captions and scores are those of the
        captioner if the logits of all other tokens were -inf: probabilities are normalized over the
        output vocabulary alone, so scores are higher than with the others as `suppress_tokens`,
        whose probability counts. All tokens of a single byte are included, so with a
        byte-level vocabulary every text can be generated. Text that captions continue may
        have any tokens, and words to `include` add theirs to the vocabulary of that call.

        Logits in training are those of all tokens, also the losses of SCST, whose samples have
        these tokens only. Presets and `.keras` files keep the output vocabulary.

        Args:
            captions: captions, such as those of the training data. None for all tokens again.
            widen: add the tokens to those of the present output vocabulary, if there is one.

        Raises:
            ValueError: the captioner has no tokenizer, or there are no captions.

        Example:
            >>> captioner.restrict_vocabulary(["a dog runs", "two dogs play"])
            >>> captioner.restrict_vocabulary(None)
        """
        tokens = None
        if captions is not None:
            tokens = caption_tokens(captions, self._require_tokenizer())
            tokens |= set(self.output_tokens or ()) if widen else set()
        self.decoder.output_vocabulary = None if tokens is None else format_tokens(tokens)
        self._generation.clear()

    def prefix_words(
        self, photos: Photo | Iterable[Photo], *, batch_size: int = 8
    ) -> list[str | None] | list[list[str | None]]:
        """Returns the vocabulary word that is nearest to each position of a photo's prefix.

        Nearest is the token whose embedding has the highest cosine similarity to the prefix
        embedding, as in ClipCap. The words describe the photo only as far as the language model
        was not trained; a tuned one leaves the prefix no reason to resemble words.

        Args:
            photos: as in `generate`.
            batch_size: photos per batch. Default 8.

        Returns:
            One list of P words per photo, with None at positions that are masked. For a single
            photo the list itself.

        Raises:
            UnreadablePhoto: a photo is missing or cannot be decoded.
            ValueError: the captioner has no tokenizer or no prefix, or does not take photos.
        """
        self._check_photos(batch_size)
        tokenizer, decoder = self._require_tokenizer(), self.decoder
        if not decoder.has_prefix:
            raise ValueError(
                "This captioner has no prefix: its decoder.fusion.kind is not 'prefix'"
            )
        size = min(tokenizer.vocabulary_size, decoder.vocabulary_size)
        table = decoder.embed_tokens(np.arange(size, dtype="int32"))  # (V,D)
        all_photos, is_single = as_photos(photos)
        words: list[list[str | None]] = []
        for _, images in self._load_batches(all_photos, batch_size):
            memory = self.encoder({"images": images}, training=False)
            rows = nearest_tokens(decoder.map_prefix(memory, training=False), table)  # (B,P)
            words += [
                [None if token == MASKED else _word(tokenizer, int(token)) for token in row]
                for row in rows
            ]
        return words[0] if is_single else words

    def attention(
        self,
        photo: Photo,
        caption: str | Caption | None = None,
        sampler: str | Sampler | type[Sampler] | None = None,
        *,
        layers: Choice = None,
        heads: Choice = None,
        prefix: str | None = None,
    ) -> PhotoAttention:
        """Computes where the captioner looked for each word of a caption.

        For captioners with cross-attention these are attention weights, at the step that chose the
        word. Captioners with a prefix do not attend to the photo; for them it is Grad-CAM
        (Selvaraju et al. 2017) on the last feature map of the backbone.

        Args:
            photo: a photo as in `generate`.
            caption: the caption, as text or from `generate`. Default the best one of `sampler`.
            sampler: as in `generate`.
            layers: number of a layer of the decoder, from 0 or, negative, from the last; or several
                numbers, whose weights are averaged. Default all.
            heads: number or numbers of heads, likewise. Default all.
            prefix: as in `generate`; its words have no map.

        Returns:
            A `PhotoAttention`, which notebooks show as a picture: `plot()` returns it, and
            `save("attention.png")` or `save("attention.html")` writes it.

        Raises:
            UnreadablePhoto: the photo is missing or cannot be decoded.
            ValueError: the captioner does not take photos, the caption is empty or too long, there
                is no such layer or head, or the backbone's positions form no grid.

        Example:
            >>> captioner.attention("dog.jpg").save("attention.html")
        """
        self._check_photos(1)
        tokenizer = self._require_tokenizer()
        if caption is None:
            options = self.generate(photo, sampler, prefix=prefix, details=True)
            caption = cast("PhotoCaptions", options)[0]
        model = (self.encoder, self.decoder, tokenizer)
        return photo_attention(model, photo, caption, layers, heads)

    def attention_weights(
        self, inputs: dict, captions: Sequence[str | Sequence[int]]
    ) -> tuple[np.ndarray, list[list[np.ndarray]]]:
        """Computes the attention weights on memory for given captions.

        Args:
            inputs: the encoder's inputs, arrays of B rows.
            captions: a caption for each row, as text or tokens.

        Returns:
            The tokens (B, T) of the captions, padded with the end token, and for each layer
            and each memory the weights (B, H, T, S) at the step that chose each token.

        Raises:
            ValueError: the captioner has no tokenizer, or the number of captions is not B.
        """
        tokenizer = self._require_tokenizer()
        return attention_weights(self.encoder, self.decoder, tokenizer, inputs, captions)


def _word(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as text, special tokens included."""
    return tokenizer.decode([token], skip_special_tokens=False).strip()


def _kind(kinds: Mapping[str, type], layer: keras.layers.Layer) -> str:
    return next(kind for kind, cls in kinds.items() if type(layer) is cls)
