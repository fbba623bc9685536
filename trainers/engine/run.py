"""A whole training run: from data and a model's name to a run folder."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import keras

import effcap
from effcap.captioner import Captioner
from effcap.tokenizers.tokenizer import Tokenizer
from effcap.tools import load_gpt2
from effcap.trainers.batching.packed import PackedBatches
from effcap.trainers.data.example import one_line
from effcap.trainers.data.feature_cache import (
    cache_features,
    check_files,
    check_frozen,
    check_mirrored_only,
)
from effcap.trainers.data.preparation import DataSource, PhotoData
from effcap.trainers.data.text_files import Data
from effcap.trainers.distributed.devices import Scope, computing_on
from effcap.trainers.distributed.processes import check_same, host, hosts, leads
from effcap.trainers.engine.run_folder import finished, note
from effcap.trainers.engine.train import train
from effcap.trainers.objectives.rewards import Reward
from effcap.trainers.objectives.scst import SelfCritic
from effcap.trainers.options.run import RunOptions
from effcap.trainers.options.training import PRECISIONS
from effcap.utils.files import write_text_atomically
from effcap.utils.progress import say
from effcap.weights.backbone_weights import load_backbone_weights

SAMPLES = 8  # photos whose captions TensorBoard shows
CHOSEN = "photos_training.txt"  # names the photos, where a share of them is trained on


def run(
    training: Data | DataSource, validation: Data | DataSource | None, options: RunOptions
) -> list[dict[str, float]]:
    """Checks the data, makes the captioner and trains it, or goes on where an earlier call stopped.

    Args:
        training, validation: photos with captions and what was wrong with the rest, as `read_csv`
            returns them, or another `DataSource`, such as the shards of `read_shards`.
        options: everything else.

    Returns:
        The scores of each epoch, as `train` does; none of a run that had ended before.

    Raises:
        FileNotFoundError: for weights that are not there.
        ValueError: for settings that do not fit, or more unusable data than `max_bad`.
        KeyboardInterrupt: when asked to stop, after a checkpoint.
    """
    if options.resume and finished(options.folder):
        say(f"the run in {options.folder} has come to its end already")
        return []
    how = options.training
    keras.utils.set_random_seed(how.seed)
    with computing_in(how.precision), computing_on(options.devices, how.batch_size) as scope:
        return _run(as_source(training), validation and as_source(validation), options, scope)


def as_source(data: Data | DataSource) -> DataSource:
    """Data in the form that a run asks for its batches."""
    return PhotoData(*data) if isinstance(data, tuple) else data


def _run(
    training: DataSource, validation: DataSource | None, options: RunOptions, scope: Scope
) -> list[dict[str, float]]:
    how = options.training
    check_same(options=[options.hparams, options.resume, options.train_percentage])
    training = training.subset(options.train_percentage, how.seed)
    with scope():
        captioner = make_captioner(training, options)
    if options.cache is not None:
        check_frozen(getattr(captioner.encoder, "backbone", None))
        check_mirrored_only(how.augmentation)
        check_files(training, validation)
    batches = make_batches("training", training, captioner, options)
    held_out = None
    if validation is not None:
        held_out = make_batches("validation", validation, captioner, options)
    if options.train_percentage < 1 and leads():
        options.folder.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{one_line(name)}\n" for name in batches.names)
        write_text_atomically(options.folder / CHOSEN, names)
    samples = (held_out or batches).samples(SAMPLES)
    if options.cache is not None:
        for name, part in (("training", batches), ("validation", held_out)):
            if part is not None:
                part.source = cache_features(
                    captioner.encoder.backbone,
                    part.source.paths,
                    options.cache / name,
                    part.source.mirrored,
                    title=f"features of {name} photos",
                )
    tell(
        options,
        f"{batches.images} photos an epoch, {batches.padding:.1%} padding, "
        f"{captioner.count_params() / 1e6:.1f} M parameters, run folder {options.out}",
    )
    critic = None
    if options.scst is not None:
        file = options.folder / "frequencies.npz"
        reward = Reward(Reward.count(training.references(), file), options.scst.reward)
        critic = SelfCritic(captioner, batches, reward, options.scst)
    return train(
        captioner,
        batches,
        held_out,
        options.folder,
        how,
        make_record(captioner, batches, held_out, options),
        samples,
        critic=critic,
        resume=options.resume,
        checkpoint_minutes=options.checkpoint_minutes,
        checkpoint_steps=options.checkpoint_steps,
    )


def tell(options: RunOptions, line: str) -> None:
    """Tells people, and the run's log; of several hosts, one does."""
    if leads():
        say(line)
        note(options.folder, line)


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Within it, new layers compute in that precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_captioner(training: DataSource, options: RunOptions) -> Captioner:
    """A new captioner with a pretrained backbone, or the preset's with the settings made."""
    try:
        if options.preset is not None:
            return Captioner.from_preset(options.preset, options.hparams)
        tokenizer = make_tokenizer(training, options)
        check_same(tokenizer=tokenizer.fingerprint)
        captioner = Captioner.from_hparams(options.hparams, tokenizer)
    except (TypeError, ValueError) as error:
        settings = f" with {', '.join(options.settings)}" if options.settings else ""
        raise ValueError(f"Cannot make {options.model}{settings}: {error}") from error
    backbone = getattr(captioner.encoder, "backbone", None)
    load_backbone_weights(backbone, options.backbone_weights)
    if options.weights is not None:
        tell(options, load_gpt2(captioner, options.weights))
    return captioner


def make_tokenizer(training: DataSource, options: RunOptions) -> Tokenizer:
    """The tokenizer asked for, or one trained on the captions."""
    if options.tokenizer_folder is not None:
        return Tokenizer.from_folder(options.tokenizer_folder)
    return Tokenizer.train(training.captions(), options.vocabulary_size or 4096)


def make_batches(
    name: str, data: DataSource, captioner: Captioner, options: RunOptions
) -> PackedBatches:
    """Batches of what can be used, or this host's part of them; says what cannot."""
    part = {"parts": hosts(), "part": host()} if hosts() > 1 else {}
    if not leads():  # which has its own lists of what cannot be used
        options = replace(options, out=options.folder / f"host{host()}")
    batches, summary = data.batches(name, captioner, options, **part)
    if summary:
        tell(options, summary)
    return batches


def make_record(
    captioner: Captioner,
    training: PackedBatches,
    validation: PackedBatches | None,
    options: RunOptions,
) -> dict[str, Any]:
    """All that the run came about by, for run.json and the presets' training.json."""
    parts = {"training": training, "validation": validation}
    return {
        "command": shlex.join(map(str, options.command)),
        "flags": dict(options.flags),
        "hparams": {**captioner.hparams(), "training": asdict(options.training)},
        "train_percentage": options.train_percentage,
        **({"scst": asdict(options.scst)} if options.scst else {}),
        "tokenizer": captioner.tokenizer.fingerprint,
        "data": {
            name: {
                "photos": part.images,
                "captions": part.captions_left,
                "left_out": sum(problem.captions for problem in part.problems),
                "padding": round(float(part.padding), 4),
            }
            for name, part in parts.items()
            if part is not None
        },
        "versions": {
            "effcap": effcap.__version__,
            "keras": keras.__version__,
            keras.backend.backend(): _backend_version(),
            "python": platform.python_version(),
        },
    }


def _backend_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(keras.backend.backend())
    except PackageNotFoundError:  # such as tensorflow-cpu
        return "unknown"
