"""Fixtures that the tests of several floors share."""

from __future__ import annotations

import keras
import pytest
from helpers.captioners import CAPTIONS, randomize, tiny_hparams

from effcap.captioner import Captioner
from effcap.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocabulary_size=290)


@pytest.fixture
def captioner(tokenizer) -> Captioner:
    """A tiny captioner with random weights in every part."""
    keras.utils.set_random_seed(0)
    return randomize(Captioner.from_hparams(tiny_hparams(), tokenizer))
