"""The captioner of a run: a variant with pretrained parts, or a preset to fine-tune."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

from effcap.captioner import Captioner
from effcap.conversion.backbone_weights import load_backbone_weights
from effcap.tokenizers import Tokenizer
from effcap.tokenizers.kinds import read_tokenizer_folder
from effcap.trainers.data.dataset import CaptionDataset
from effcap.trainers.distributed.processes import check_same
from effcap.trainers.options.run import ALL, CAPTIONS, VOCABULARY_SIZE, RunOptions, flatten
from effcap.weights.captioner_config import is_captioner_folder
from effcap.weights.captioner_folder import (
    describe_settings,
    open_captioner_file,
)
from effcap.weights.captioner_tokenizer import captioner_tokenizer
from effcap.weights.gpt2 import load_gpt2

MODEL_SECTIONS = ("encoder", "decoder")


def make_captioner(
    training: CaptionDataset, options: RunOptions, log: Callable[[str], None]
) -> Captioner:
    """Creates the captioner of a run.

    Args:
        training: training data, for a tokenizer trained on its captions.
        options: options of the run.
        log: function that receives messages.

    Returns:
        A preset's captioner with changed hyperparameters, or a variant's with a pretrained backbone
        and, if `options.weights` are given, a pretrained decoder.

    Raises:
        FileNotFoundError: weights are missing.
        ValueError: a hyperparameter or a weights file does not fit.
    """
    try:
        if options.preset is not None:
            captioner = Captioner.from_preset(
                options.preset, encoder=options.encoder, decoder=options.decoder
            )
            return with_adapter(captioner, options)
        if options.weights is not None and is_captioner_folder(options.weights):
            return with_adapter(load_whole_captioner(options.weights, options, log), options)
        tokenizer = make_tokenizer(training, options)
        check_same(tokenizer=tokenizer.fingerprint)
        decoder = {}
        if options.tokenizer_folder is None and "vocabulary_size" in options.decoder:
            # Few captions give fewer tokens than requested.
            decoder = {"vocabulary_size": tokenizer.vocabulary_size}
        captioner = Captioner.from_hparams(options.hparams, tokenizer, decoder=decoder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Cannot create {describe(options)}: {error}") from error
    backbone = getattr(captioner.encoder, "backbone", None)
    loaded = load_backbone_weights(backbone, options.backbone_weights)
    for line in (loaded or "").splitlines():
        log(line)
    if options.weights is not None:
        log(load_gpt2(captioner, options.weights))
    return captioner


def restrict_vocabulary(
    captioner: Captioner, training: CaptionDataset, options: RunOptions
) -> Captioner:
    """Sets the output vocabulary of a run's captioner, and returns the captioner.

    That of a preset is widened by the tokens of the captions unless the options set another, so
    that all tokens that are trained can be generated.
    """
    if options.vocabulary == ALL:
        captioner.restrict_vocabulary(None)
    elif options.vocabulary == CAPTIONS or captioner.output_tokens is not None:
        captions = chain.from_iterable(training.references())
        captioner.restrict_vocabulary(captions, widen=options.vocabulary is None)
        check_same(output_vocabulary=captioner.decoder.output_vocabulary)
    return captioner


def with_adapter(captioner: Captioner, options: RunOptions) -> Captioner:
    """Adds the adapter of a run to a captioner, if it has one, and returns the captioner."""
    if options.lora is not None:
        captioner.add_adapter(config=options.lora)
    return captioner


def load_whole_captioner(
    folder: Path, options: RunOptions, log: Callable[[str], None]
) -> Captioner:
    """Returns the captioner of ViT and GPT-2 or of BLIP in a folder of transformers.

    Raises:
        FileNotFoundError: there is no tokenizer.
        ValueError: weights or tokenizer do not fit.
    """
    file = open_captioner_file(folder)
    if file is None:
        raise ValueError(f"Expected a captioner of transformers. Received: {folder}")
    tokenizer = read_tokenizer_folder(options.tokenizer or folder)
    tokenizer = captioner_tokenizer(file.config, tokenizer)
    check_same(tokenizer=tokenizer.fingerprint)
    captioner, message = Captioner.from_captioner_file(file, tokenizer, options.hparams)
    changes = options.changes
    for line in [message, *describe_settings(file.config, captioner, changes, MODEL_SECTIONS)]:
        log(line)
    return captioner


def make_tokenizer(training: CaptionDataset, options: RunOptions) -> Tokenizer:
    """Returns the tokenizer of `options`, or trains one on the captions."""
    if options.tokenizer_folder is not None:
        return read_tokenizer_folder(options.tokenizer_folder)
    vocabulary_size = options.decoder.get("vocabulary_size") or VOCABULARY_SIZE
    return Tokenizer.train(training.captions(), vocabulary_size)


def describe(options: RunOptions) -> str:
    """Returns the model's name and its changed hyperparameters, for messages."""
    changes = {"encoder": options.encoder, "decoder": options.decoder}
    settings = ", ".join(f"{name}={value}" for name, value in flatten(changes))
    return f"{options.model} with {settings}" if settings else str(options.model)
