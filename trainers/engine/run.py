"""Runs training, from datasets and options to a run folder; see `loop.py` for the epochs."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import keras

from effcap.captioner import Captioner
from effcap.metrics.tokenize import language_note
from effcap.precision import PRECISIONS, dtype_policy
from effcap.trainers import objectives
from effcap.trainers.data.dataset import CaptionDataset
from effcap.trainers.data.example import one_line
from effcap.trainers.data.feature_cache import cache_features, check_cacheable
from effcap.trainers.distributed.devices import computing_on
from effcap.trainers.distributed.processes import (
    check_same,
    is_main_process,
    process_count,
    process_index,
)
from effcap.trainers.engine.checkpoint import Checkpoint, TrainState
from effcap.trainers.engine.loop import Loop, RunBatches, count_steps
from effcap.trainers.engine.model import make_captioner, restrict_vocabulary
from effcap.trainers.engine.optimizer import make_optimizer
from effcap.trainers.engine.record import make_record, run_identity
from effcap.trainers.engine.run_folder import RunFolder
from effcap.trainers.objectives.base import Objective
from effcap.trainers.options.run import SCST, RunOptions
from effcap.utils.progress import print_line
from effcap.utils.replicas import strategy_scope

NUM_PREVIEWS = 8  # photos whose captions are logged
TRAINING_PHOTOS = "photos_training.txt"  # names of the training photos, if only a fraction is used


def run(
    training: CaptionDataset, validation: CaptionDataset | None, options: RunOptions
) -> list[dict[str, float]]:
    """Trains a captioner, or resumes an earlier run.

    Args:
        training: training data, as `read_csv` and the other readers return them.
        validation: validation data; None to train without validation.
        options: options of the run.

    Returns:
        The scores of each epoch; none if the run in the folder is already finished. With
        cross-entropy they are loss, cross_entropy, npair (with an n-pair weight), val_loss,
        val_cross_entropy, val_cider and val_distinct; with SCST loss, reward, baseline, length,
        distinct, val_cider and val_distinct. The best epoch has the highest val_cider, or without
        it the lowest val_cross_entropy.

    Raises:
        FileNotFoundError: weights are missing.
        TooManyProblems: more than `max_bad` of the captions cannot be used.
        ValueError: options do not fit, training diverged, or the checkpoint is from another run.
        KeyboardInterrupt: the run was interrupted, after a checkpoint.
    """
    if options.resume and RunFolder(options.folder).is_finished():
        print_line(f"the run in {options.folder} is already finished")
        return []
    settings = options.training_options
    keras.utils.set_random_seed(settings.seed)
    with (
        dtype_policy(PRECISIONS[settings.precision].training_policy),
        computing_on(options.devices, settings.batch_size) as device_scope,
    ):
        check_same(options=[options.hparams, options.resume, options.train_fraction])
        folder = RunFolder(options.folder, options.adapter_base, is_writer=is_main_process())
        training = training.subset(options.train_fraction, settings.seed)
        with device_scope():
            captioner = make_captioner(training, options, folder.log)
        captioner.prefix = options.text_prefix
        restrict_vocabulary(captioner, training, options)
        if captioner.output_tokens is not None:
            size = captioner.decoder.vocabulary_size
            folder.log(f"captions are made of {len(captioner.output_tokens)} of {size} tokens")
        batches = make_batches(captioner, training, validation, folder, options)
        folder.log(
            f"{batches.training.num_images} photos per epoch, {batches.training.padding:.1%} "
            f"padding, {describe_parameters(captioner)}, run folder {options.folder}"
        )
        if validation is not None or options.objective == SCST:
            references = chain.from_iterable((validation or training).references())
            if note := language_note(references, settings.tokenization):
                folder.log(note)
        objective = objectives.get(options.objective, options, training)
        return train(captioner, objective, batches, folder, options)


def train(
    captioner: Captioner,
    objective: Objective,
    batches: RunBatches,
    folder: RunFolder,
    options: RunOptions,
) -> list[dict[str, float]]:
    """Trains a captioner on batches, or resumes from the checkpoint in the run folder.

    A resumed run ends with the weights that it would have had without the interruption; on a CPU
    they are equal to the bit.

    Args:
        captioner: captioner to train.
        objective: training objective.
        batches: training and validation batches.
        folder: run folder.
        options: options of the run.

    Returns:
        The scores of each epoch.

    Raises:
        ValueError: training diverged, or the checkpoint is from another run.
        KeyboardInterrupt: the run was interrupted, after a checkpoint.
    """
    settings = options.training_options
    num_steps = count_steps(settings, batches.training)
    keras.utils.set_random_seed(settings.seed)
    with strategy_scope(captioner):
        objective.build(captioner)
        captioner.compile(
            make_optimizer(settings, num_steps, captioner),
            objective.loss,
            list(objective.weighted_metrics),
            # XLA would compile the step again for each row length.
            jit_compile=keras.backend.backend() == "jax",
        )
        captioner.optimizer.build(captioner.trainable_variables)  # for checkpoints of step 0

    identity = run_identity(captioner, objective, batches, options)
    checkpoint = Checkpoint(
        folder.checkpoint, identity, objective.metrics, is_writer=folder.is_writer
    )
    state = (checkpoint.read_state() if options.resume else None) or TrainState()
    check_same(options_or_data=identity, checkpoint=state.step)
    folder.begin(make_record(captioner, batches, options), state)
    return Loop(captioner, objective, batches, folder, checkpoint, state, options).run()


def make_batches(
    captioner: Captioner,
    training: CaptionDataset,
    validation: CaptionDataset | None,
    folder: RunFolder,
    options: RunOptions,
) -> RunBatches:
    """Makes the batches of a run, optionally with cached features, and logs what is left out.

    With several processes, each makes its own rows of every batch.

    Raises:
        TooManyProblems: more than `max_bad` of the captions cannot be used.
        ValueError: the captioner takes other inputs, or features cannot be cached.
    """
    cache = options.feature_cache
    if cache is not None:
        augmentation = options.training_options.make_augmentation()
        check_cacheable(captioner, augmentation, (training, validation))
    batches = {}
    for name, dataset in (("training", training), ("validation", validation)):
        if dataset is not None:
            fields = {**options.batch_options(name), **process_options(options)}
            batches[name] = dataset.batches(captioner, **fields)
            if batches[name].summary:
                folder.log(batches[name].summary)
    if options.train_fraction < 1:
        names = "".join(f"{one_line(name)}\n" for name in batches["training"].names)
        folder.write(TRAINING_PHOTOS, names)
    previews = batches.get("validation", batches["training"]).previews(NUM_PREVIEWS)
    if cache is not None:
        for name, photo_batches in batches.items():
            photo_batches.loader = cache_features(
                captioner.encoder.backbone,
                photo_batches.loader.photos,
                cache / name,
                photo_batches.loader.can_flip,
                title=f"features of {name} photos",
            )
    return RunBatches(batches["training"], batches.get("validation"), previews)


def describe_parameters(captioner: Captioner) -> str:
    """Returns the number of parameters, and of those of adapters if only they are trained."""
    total = f"{captioner.count_params() / 1e6:.1f} M parameters"
    if not captioner.adapters:
        return total
    tensors = captioner.trainable_weights
    count = sum(math.prod(tensor.shape) for tensor in tensors)
    return f"{total}, of which {count:,} in {len(tensors)} tensors of adapters are trained"


def process_options(options: RunOptions) -> dict[str, Any]:
    """Returns the fields of `BatchOptions` that differ between processes; none for one process.

    Processes other than 0 write the lists of what was left out to their own folders.
    """
    if process_count() == 1:
        return {}
    fields: dict[str, Any] = {"num_processes": process_count(), "process_index": process_index()}
    if not is_main_process():
        fields["folder"] = options.folder / f"process{process_index()}"
    return fields
