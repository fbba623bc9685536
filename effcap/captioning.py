"""Captions, attention weights and prefix words of photos, from a captioner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import count, islice, repeat
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np

from effcap.attention.photo_attention import PhotoAttention, photo_attention
from effcap.attention.selection import Choice
from effcap.attention.weights import attention_weights
from effcap.caption import Caption, CaptionedPhotos, PhotoCaptions, TokenDetail
from effcap.decoders.prefix_words import MASKED, nearest_tokens
from effcap.decoders.registry import DECODERS
from effcap.encoders.registry import ENCODERS
from effcap.generation import GenerationCache, check_sampler
from effcap.images import as_photos, load_photos
from effcap.output_vocabulary import caption_tokens, format_tokens, parse_tokens
from effcap.phrases import contains, missing_groups
from effcap.samplers import Hypotheses, Sampler, get
from effcap.samplers.registry import to_config
from effcap.token_mean import TokenMeanModel
from effcap.tokenizers import Tokenizer

if TYPE_CHECKING:
    from effcap.decoders.base import Decoder
    from effcap.images import Photo


class CaptioningModel(TokenMeanModel):
    """A model with an encoder, a decoder and a tokenizer that writes captions."""

    encoder: keras.layers.Layer
    decoder: Decoder
    tokenizer: Tokenizer | None
    sampler: Sampler | None
    prefix: str
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

    def generate(
        self,
        photos: Photo | Iterable[Photo],
        sampler: str | Sampler | type[Sampler] | None = None,
        *,
        prefix: str | Iterable[str | None] | None = None,
        details: bool = False,
        batch_size: int = 8,
    ) -> str | list[str] | PhotoCaptions | CaptionedPhotos:
        """Generates captions for photos.

        Args:
            photos: a photo, an iterable of photos, or a batch (B, h, w, 3). A photo is a path, a
                PIL image, bytes, or an array or tensor (h, w, 3) of pixels 0..255.
            sampler: "beam", "nucleus", "greedy", or a sampler or sampler class of
                `effcap.samplers`. Default the captioner's own sampler, or "beam" if it has none.
            prefix: text that the captions continue and begin with, such as "a photo of"; one for
                all photos, or an iterable with one for each. "" for none. None, also for one photo,
                takes the captioner's own `prefix`, which few have. Each caption is the same as
                without the other photos.
            details: return scores and tokens as well, and all captions of the sampler.
            batch_size: photos per batch. Default 8.

        Returns:
            One `str` per photo, or with `details=True` one list of `Caption` per photo, best
            first. For a single photo the `str` or the list itself. Notebooks show these lists with
            the photos, which they keep if these are paths or came in a list or an array.

        Raises:
            UnreadablePhoto: a photo is missing or cannot be decoded.
            ValueError: the captioner has no tokenizer, or does not take photos; its decoder does
                not fit the sampler and the prefix; or there is not one prefix for each photo.
        """
        self._check_photos(batch_size)
        self._get_sampler(sampler)  # reports errors before photos are read
        all_photos, is_single = as_photos(photos)
        if prefix is None or isinstance(prefix, str):
            rows = zip(count(), repeat(prefix))
        else:
            all_photos, prefixes = list(all_photos), list(prefix)
            order = self.order_by_prefix(prefixes, len(all_photos))
            all_photos = [all_photos[i] for i in order]
            rows = zip(order, [prefixes[i] for i in order], strict=True)
        # Other iterables may read photos on demand, which do not fit in memory together.
        keeps_all = isinstance(photos, Sequence) or is_single or hasattr(photos, "__array__")
        by_index: dict[int, PhotoCaptions] = {}
        for batch, images in self._load_batches(all_photos, batch_size):
            indices, batch_prefixes = zip(*islice(rows, len(images)), strict=True)
            captions = self.generate_batch(
                {"images": images}, sampler, batch_size, indices, prefix=batch_prefixes
            )
            for i, photo, options in zip(indices, batch, captions, strict=True):
                is_kept = details and (keeps_all or isinstance(photo, str | PathLike))
                by_index[i] = PhotoCaptions(options, photo if is_kept else None)
        results = CaptionedPhotos(by_index[i] for i in range(len(by_index)))
        if is_single:
            return results[0] if details else results[0][0].text
        return results if details else [options[0].text for options in results]

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

    def _check_photos(self, batch_size: int) -> None:
        """Checks that the captioner takes photos, and the batch size."""
        if batch_size < 1:
            raise ValueError(
                f"Expected batch_size of at least 1. Received: batch_size={batch_size}"
            )
        if "images" not in self.encoder.input_keys:
            raise ValueError(
                f"{type(self.encoder).__name__} takes {', '.join(self.encoder.input_keys)}, not "
                "photos: call generate_batch with these."
            )

    def _load_batches(
        self, photos: Iterable[Photo], batch_size: int
    ) -> Iterator[tuple[list[Photo], np.ndarray]]:
        """Yields batches of photos, and their pixels (B, h, w, 3) as the encoder takes them."""
        stream = iter(photos)
        while batch := list(islice(stream, batch_size)):
            encoder = self.encoder
            pixels = load_photos(batch, encoder.image_size, encoder.fit, resample=encoder.resample)
            yield batch, pixels  # (B,h,w,3)

    def generate_batch(
        self,
        inputs: Mapping[str, Any],
        sampler: str | Sampler | type[Sampler] | None = None,
        batch_size: int | None = None,
        indices: Sequence[int] | None = None,
        *,
        prefix: str | Sequence[str | None] | None = None,
    ) -> list[list[Caption]]:
        """Generates captions for one batch of the encoder's inputs.

        Args:
            inputs: the encoder's inputs, arrays or tensors of B rows.
            sampler: as in `generate`.
            batch_size: maximum size to pad the batch to, if such a size is already compiled.
                Default B.
            indices: index of each row in the whole call, which the random numbers of a `Nucleus`
                sampler with a seed depend on. Default 0 to B - 1.
            prefix: text that the captions continue, one for all rows or one for each, as in
                `generate`. Each caption is the same as without the other rows.

        Returns:
            One list of `Caption` per row, best first.

        Raises:
            ValueError: the captioner has no tokenizer, the encoder takes other inputs, there is no
                such sampler, or it does not fit the decoder and the prefix.
        """
        tokenizer = self._require_tokenizer()
        arrays = {name: np.asarray(values) for name, values in inputs.items()}
        lengths = {len(array) for array in arrays.values()}
        if not set(arrays) & set(self.encoder.input_keys) or len(lengths) != 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(
                f"Expected inputs out of {', '.join(self.encoder.input_keys)}, with one row per "
                f"photo. Received: {shapes or 'no inputs'}"
            )
        (rows,) = lengths
        indices = range(rows) if indices is None else indices
        prefixes = self._encode_prefixes(prefix, rows)
        samplers = {n: self._get_sampler(sampler, n) for n in sorted(set(map(len, prefixes)))}
        for tokens in {tuple(prefix) for prefix in prefixes}:
            self._check_prefix_words(samplers[len(tokens)], tokens)
        captions: list[list[Caption]] = [[] for _ in range(rows)]
        for one in dict.fromkeys(samplers.values()):  # several where prefixes leave less room
            group = [row for row in range(rows) if samplers[len(prefixes[row])] == one]
            hypotheses = self._generation.generate(
                {name: array[group] for name, array in arrays.items()},
                tokenizer,
                one,
                batch_size or rows,
                [indices[row] for row in group],
                [prefixes[row] for row in group],
            )
            for number, row in enumerate(group):
                found = _captions(tokenizer, hypotheses, number, prefixes[row])
                captions[row] = [
                    replace(caption, missing=missing_groups(caption.text, one.include))
                    for caption in found
                ]
        return captions

    def order_by_prefix(self, prefixes: Sequence[str | None], rows: int) -> list[int]:
        """Returns the indices of rows in an order in which prefixes of one length share batches.

        Args:
            prefixes: prefix of each row, as in `generate`.
            rows: number of rows.

        Raises:
            ValueError: there is another number of prefixes, or a text cannot be a prefix.
        """
        lengths = [len(tokens) for tokens in self._encode_prefixes(prefixes, rows)]
        return sorted(range(rows), key=lengths.__getitem__)

    def _encode_prefixes(
        self, prefix: str | Sequence[str | None] | None, rows: int
    ) -> list[list[int]]:
        """Returns the tokens of the prefix of each row."""
        tokenizer = self._require_tokenizer()
        if prefix is None or isinstance(prefix, str):
            prefix = [prefix] * rows
        check_prefixes(prefix, rows)
        texts = [self.prefix if text is None else text for text in prefix]
        tokens = {text: tokenizer.encode_prefix(text) for text in dict.fromkeys(texts)}
        return [tokens[text] for text in texts]

    def _get_sampler(
        self, sampler: str | Sampler | type[Sampler] | None, prefix_length: int = 0
    ) -> Sampler:
        """Returns a sampler that fits the decoder, also from its name or class, or the default."""
        tokenizer = self._require_tokenizer()
        longest = max(self.decoder.max_text_length - prefix_length, 1)
        if sampler is None and self.sampler is not None:
            shorter = min(self.sampler.max_new_tokens, longest)
            sampler = replace(self.sampler, max_new_tokens=shorter)
        elif not isinstance(sampler, Sampler):
            shorter = min(Sampler().max_new_tokens, longest)
            sampler = get(sampler or "beam", max_new_tokens=shorter)
        check_sampler(sampler, self.decoder, tokenizer, prefix_length)
        return sampler

    def _check_prefix_words(self, sampler: Sampler, prefix: Sequence[int]) -> None:
        """Raises a `ValueError` for a prefix that contains what the sampler excludes."""
        text = self._require_tokenizer().decode_caption(prefix)
        for phrase in sampler.exclude:
            if contains(text, phrase):
                raise ValueError(
                    f"Expected a prefix without the excluded {phrase!r}. Received: {text!r}"
                )

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

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("This captioner has no tokenizer, so it cannot encode or decode text.")
        return self.tokenizer


def check_prefixes(prefixes: Sized, rows: int) -> None:
    """Checks that there is one text, or as many prefixes as photos.

    Raises:
        ValueError: there is another number of prefixes.
    """
    if not isinstance(prefixes, str) and len(prefixes) != rows:
        raise ValueError(
            f"Expected one prefix, or one for each of {rows} photos. Received: {len(prefixes)}"
        )


def _captions(
    tokenizer: Tokenizer, hypotheses: Hypotheses, row: int, prefix: Sequence[int]
) -> list[Caption]:
    """Decodes the hypotheses of one row of a batch, which continue the tokens of a prefix."""
    captions, start = [], tokenizer.decode_caption(prefix).strip()
    end_text = tokenizer.decode([tokenizer.eos_id], skip_special_tokens=False)
    for tokens, score, length, token_scores in zip(
        *(np.asarray(field)[row] for field in hypotheses), strict=True
    ):
        ids = (*prefix, *(int(token) for token in tokens[:length]))
        is_finished = bool(length < len(tokens))
        end = tokenizer.eos_text if is_finished else ""
        text = (tokenizer.decode_caption(ids) + end).strip()
        pieces = tokenizer.caption_pieces(ids, len(prefix)) + [end_text] * is_finished
        generated = tokens[: len(pieces)].tolist()
        details = tuple(map(TokenDetail, generated, pieces, token_scores.tolist()))
        if not np.isfinite(score):  # there is no such caption
            details = ()
        captions.append(Caption(text, float(score), ids, start, is_finished, details))
    return captions


def _word(tokenizer: Tokenizer, token: int) -> str:
    """Returns a token as text, special tokens included."""
    return tokenizer.decode([token], skip_special_tokens=False).strip()


def _kind(kinds: Mapping[str, type], layer: keras.layers.Layer) -> str:
    return next(kind for kind, cls in kinds.items() if type(layer) is cls)
