"""Base classes of datasets."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.data.example import Example, Problem, check_problems, subset
from effcap.trainers.options.batches import BatchOptions, batch_options

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.captioner import Captioner
    from effcap.tokenizers import Tokenizer
    from effcap.trainers.batching.in_memory import CaptionBatches, InputLoader
    from effcap.trainers.batching.packed import PackedBatches

Dataset = TypeVar("Dataset", bound="ExampleDataset")


class CaptionDataset(ABC):
    """Base class of datasets that `run` trains on; readers such as `read_csv` return them."""

    @abstractmethod
    def subset(self, fraction: float, seed: int) -> CaptionDataset:
        """Returns a random fraction of the photos, selected by the seed.

        Raises:
            ValueError: `fraction` is not above 0 and at most 1.
        """

    @abstractmethod
    def captions(self) -> list[str]:
        """Returns captions to train a tokenizer on."""

    @abstractmethod
    def references(self) -> Iterator[Sequence[str]]:
        """Yields the captions of each photo."""

    @abstractmethod
    def batches(self, captioner: Captioner, **options: Any) -> PackedBatches:
        """Makes batches for `captioner.fit`.

        Args:
            captioner: captioner whose tokenizer, decoder length and encoder inputs to use.
            **options: fields of `BatchOptions`, such as `batch_size=16`.

        Returns:
            Batches with the `problems` that were left out and their `summary`.

        Raises:
            TypeError: an option is unknown.
            ValueError: an option is out of range, the captioner takes other inputs, or there are no
                usable captions.
            TooManyProblems: more than `max_bad` of the captions cannot be used.
        """


class CheckedExamples(NamedTuple):
    """Examples that can be used.

    Attributes:
        examples: usable examples.
        loader: loader of the encoder inputs of these examples; None without examples.
        problems: problems of the other examples.
        note: line to add to the summary, or "".
    """

    examples: list[Example]
    loader: InputLoader | None
    problems: list[Problem]
    note: str = ""


@dataclass(frozen=True)
class ExampleDataset(CaptionDataset):
    """Base class of datasets whose captions are in memory.

    Attributes:
        examples: photos, or other inputs, with captions.
        problems: what could not be read.
    """

    examples: list[Example]
    problems: list[Problem]

    @property
    def num_captions(self) -> int:
        """Number of captions, usable or not."""
        num_bad = sum(problem.num_captions for problem in self.problems)
        return num_bad + sum(len(example.captions) for example in self.examples)

    def subset(self: Dataset, fraction: float, seed: int = 0) -> Dataset:
        """Returns a random fraction of the examples; see `effcap.trainers.subset`."""
        examples, problems = subset(self.examples, self.problems, fraction, seed)
        return replace(self, examples=examples, problems=problems)

    def captions(self) -> list[str]:
        """Returns all captions, with their prefixes."""
        return [
            f"{example.prefix} {text}" if example.prefix else text
            for example in self.examples
            for text in example.captions
        ]

    def references(self) -> Iterator[Sequence[str]]:
        """Yields the captions of each example."""
        return (example.captions for example in self.examples)

    @abstractmethod
    def check(self, captioner: Captioner, options: BatchOptions) -> CheckedExamples:
        """Checks the encoder inputs of all examples.

        Raises:
            ValueError: the captioner takes other inputs, or an option does not apply.
        """

    def batches(self, captioner: Captioner, **options: Any) -> CaptionBatches:
        """Makes batches of all usable examples; see `CaptionDataset.batches`.

        All inputs are checked once, with a progress bar. Without a run folder, what is left out is
        reported as a warning.
        """
        from effcap.trainers.batching.in_memory import CaptionBatches

        settings, tokenizer = batch_options(options), tokenizer_of(captioner)
        examples, loader, problems, note = self.check(captioner, settings)
        problems = self.problems + problems
        if not examples or loader is None:
            self._summarize(problems, settings)
            raise ValueError(f"The {settings.name} data has no captions")
        max_text_length = captioner.decoder.max_text_length
        batches = CaptionBatches(examples, loader, tokenizer, max_text_length, settings)
        batches.problems = problems + batches.problems
        summary = self._summarize(batches.problems, settings)
        batches.summary = "\n".join(filter(None, (summary, note)))
        if batches.summary and settings.folder is None:
            warnings.warn(batches.summary, stacklevel=2)
        return batches

    def _summarize(self, problems: list[Problem], options: BatchOptions) -> str:
        return check_problems(
            options.name, problems, self.num_captions, options.max_bad, options.problems_file
        )


def tokenizer_of(captioner: Captioner) -> Tokenizer:
    """Returns the tokenizer of a captioner.

    Raises:
        ValueError: the captioner has no tokenizer.
    """
    if captioner.tokenizer is None:
        raise ValueError("The captioner has no tokenizer; pass one to Captioner(...)")
    return captioner.tokenizer


def photo_encoder(captioner: CaptionGenerator) -> Any:
    """Returns the encoder of a captioner of photos.

    Raises:
        ValueError: the captioner takes other inputs.
    """
    if "images" not in captioner.encoder.input_keys:
        raise ValueError(
            "Expected a captioner of photos. Received: a captioner of "
            f"{' and '.join(captioner.encoder.input_keys)}"
        )
    return captioner.encoder


def check_no_augmentation(augmentation: Augmentation, inputs: str) -> None:
    """Checks that no augmentation of photos is set.

    Args:
        augmentation: augmentation to check.
        inputs: the encoder inputs, such as "region features", for the message.

    Raises:
        ValueError: an augmentation is set.
    """
    if augmentation != Augmentation():
        raise ValueError(
            "horizontal_flip, random_crop and color_jitter apply to photos, not to "
            f"{inputs}. Received: {augmentation}"
        )
