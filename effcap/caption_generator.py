"""Captions of photos, from an encoder, a decoder and a sampler, whatever computes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import count, islice, repeat
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from effcap.caption import Caption, CaptionedPhotos, PhotoCaptions, TokenDetail
from effcap.generation import Generation
from effcap.generation_call import check_sampler
from effcap.images import as_photos, load_ahead, load_photo
from effcap.phrases import contains, missing_groups
from effcap.samplers import Hypotheses, Sampler, get
from effcap.tokenizers import Tokenizer

if TYPE_CHECKING:
    from effcap.images import Photo


class CaptionGenerator:
    """Writes captions of photos, or of other inputs of an encoder.

    Attributes:
        encoder: has `input_keys` and, for photos, `image_size`, `fit` and `resample`, as
            `PhotoEncoder` does.
        decoder: has `vocabulary_size` and `max_text_length`, as `Decoder` does.
        tokenizer: tokenizer; None for a captioner that generates no text.
        sampler: default sampler; None for beam search with its defaults.
        prefix: text that captions begin with unless `generate` is given another.
    """

    encoder: Any
    decoder: Any
    tokenizer: Tokenizer | None
    sampler: Sampler | None
    prefix: str
    _generation: Generation

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
        self.find_sampler(sampler)  # reports errors before photos are read
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
        encoder = self.encoder

        def load(photo: Photo) -> np.ndarray:
            return load_photo(photo, encoder.image_size, encoder.fit, encoder.resample)  # (h,w,3)

        for batch, pixels in load_ahead(photos, load, batch_size):
            yield batch, np.stack(pixels)  # (B,h,w,3)

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
        samplers = {n: self.find_sampler(sampler, n) for n in sorted(set(map(len, prefixes)))}
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

    def find_sampler(
        self, sampler: str | Sampler | type[Sampler] | None, prefix_length: int = 0
    ) -> Sampler:
        """Returns a sampler that fits the decoder.

        Args:
            sampler: a sampler, its name or its class, as in `generate`. None for the default one.
            prefix_length: number of tokens of a prefix text. Default 0.

        Raises:
            ValueError: there is no such sampler, or it does not fit the decoder and the prefix.
        """
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
