"""Checkpoints: the whole state of a run in one file, for bit-exact resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np

from effcap.trainers.options.training import VALIDATION_SCORES
from effcap.utils.files import check_disk_space, replace_file
from effcap.weight_files import variables_size

if TYPE_CHECKING:
    from effcap.captioner import Captioner


@dataclass
class TrainState:
    """Progress of a run.

    Attributes:
        step: steps taken since the start of the run.
        history: scores of each finished epoch.
        best: best validation score so far, with the sign of `VALIDATION_SCORES`; None before the
            first.
        stale: epochs since the best.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    stale: int = 0

    @property
    def epoch(self) -> int:
        """Index of the current epoch, from 0."""
        return len(self.history)

    def end_epoch(self, scores: dict[str, float]) -> bool:
        """Adds the scores of an epoch.

        Returns:
            Whether it is the best epoch; without validation scores, each is.
        """
        self.history.append(scores)
        values = (sign * scores[name] for name, sign in VALIDATION_SCORES if name in scores)
        value = next(values, None)
        is_best = value is None or self.best is None or value > self.best
        self.best = value if is_best else self.best
        self.stale = 0 if is_best else self.stale + 1
        return is_best


class Checkpoint:
    """One file with everything that changes in training, and the `TrainState`.

    It holds the weights, their moving averages, the state of the optimizer, the random generators
    of dropout, and the running means of the metrics. A new file replaces the old one only once it
    is completely on disk.

    Args:
        path: path of the file.
        identity: options and data that must be the same when the run is resumed, as JSON values by
            dotted name.
        metrics: metrics of the objective.
        is_writer: whether this process writes the file; the others only read it.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any] | None = None,
        metrics: Sequence[keras.metrics.Metric] = (),
        *,
        is_writer: bool = True,
    ) -> None:
        self.path, self.metrics, self.is_writer = path, metrics, is_writer
        self.identity = dict(identity or {})

    def write(self, captioner: Captioner, state: TrainState) -> None:
        """Writes the file.

        Raises:
            OSError: the disk is full; the old file is kept.
        """
        if not self.is_writer:
            return
        new = self.path.with_suffix(".new")
        variables = self._variables(captioner)
        try:
            check_disk_space(new, variables_size(variables))
            with h5py.File(new, "w") as file:
                file.attrs["identity"] = json.dumps(self.identity)
                file.attrs["state"] = json.dumps(asdict(state))
                for number, variable in enumerate(variables):
                    file[f"{number:06}"] = _to_array(variable)
            replace_file(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise OSError(
                f"Cannot write a checkpoint in {self.path.parent}; the previous one is intact: "
                f"{error}"
            ) from error

    def remove(self) -> None:
        """Removes the file of a finished run."""
        if self.is_writer:
            self.path.unlink(missing_ok=True)

    def read_state(self) -> TrainState | None:
        """Reads the state of the run; None if there is no file.

        Raises:
            ValueError: the file is damaged, or belongs to a run with other options or data.
        """
        if not self.path.exists():
            return None
        try:
            with h5py.File(self.path) as file:
                identity = json.loads(file.attrs["identity"])
                state = TrainState(**json.loads(file.attrs["state"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"Expected a checkpoint. Received: {self.path}: {error}") from error
        changed = [
            f"{name} was {identity.get(name)!r} and is {self.identity.get(name)!r}"
            for name in sorted({*identity, *self.identity})
            if identity.get(name) != self.identity.get(name)
        ]
        if changed:
            raise ValueError(
                f"{self.path} belongs to another run: {'; '.join(changed)}. Resume with the same "
                "options and data, or choose another folder"
            )
        return state

    def restore(self, captioner: Captioner) -> None:
        """Restores the state in the file into a compiled and built captioner.

        Raises:
            ValueError: the file is damaged, or belongs to a captioner of another shape.
        """
        variables = self._variables(captioner)
        try:
            with h5py.File(self.path) as file:
                names = sorted(file)
                if len(names) != len(variables):
                    raise ValueError(f"{len(names)} arrays for {len(variables)} variables")
                for name, variable in zip(names, variables, strict=True):
                    array = file[name][()]
                    if array.shape != tuple(variable.shape):
                        raise ValueError(
                            f"{variable.path} of shape {array.shape}, not {tuple(variable.shape)}"
                        )
                    variable.assign(array)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.path} does not fit the captioner: {error}") from error

    def _variables(self, captioner: Captioner) -> list[keras.Variable]:
        """Returns every variable that training changes."""
        variables = [*captioner.variables, *captioner.optimizer.variables]
        if captioner.adapters:  # all other weights are in the preset that they were added to
            base = {id(weight) for weight in captioner.base_weights()}
            variables = [variable for variable in variables if id(variable) not in base]
        # Keras lists the compiled metrics only after the first step.
        for metric in (*captioner.metrics, *self.metrics):
            variables += metric.variables
        return list({id(variable): variable for variable in variables}.values())


def _to_array(variable: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable)
    # HDF5 has no bfloat16; float32 holds each of its values.
    return array.astype(np.float32) if variable.dtype == "bfloat16" else array


def check_finite(scores: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """Returns scores as floats.

    Raises:
        ValueError: a score is NaN or infinite, because training diverged.
    """
    values = {name: float(value) for name, value in scores.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"Training diverged in epoch {epoch + 1}: {name} is {value}. Try a lower learning "
                "rate. Saved presets are intact"
            )
    return values
