"""Where a run stands, on disk: enough to go on as if it had never stopped."""

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

from effcap.presets import variables_size
from effcap.utils.files import check_disk_space, replace_file

if TYPE_CHECKING:
    from effcap.captioner import Captioner

# What makes an epoch the best: the first of these that is known, and whether more of it is better.
MERITS = (("val_cider", 1), ("val_cross_entropy", -1))


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        steps: steps taken, since the beginning of the run.
        history: scores of each epoch that has ended.
        best: the highest merit of an epoch so far (see `MERITS`); None before there is one.
        stale: epochs since the best.
    """

    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    stale: int = 0

    @property
    def epoch(self) -> int:
        """The epoch being trained, counted from 0."""
        return len(self.history)

    def end_epoch(self, scores: dict[str, float]) -> bool:
        """Takes down an epoch's scores; whether it is the best, or the last without validation."""
        self.history.append(scores)
        value = next((sign * scores[name] for name, sign in MERITS if name in scores), None)
        is_best = value is None or self.best is None or value > self.best
        self.best = value if is_best else self.best
        self.stale = 0 if is_best else self.stale + 1
        return is_best


class Checkpoint:
    """One file with all that changes in training: weights, their averages, the optimizer's state,
    the random generators of dropout, running means of metrics, and the run's position.

    A new one takes the old one's place only once it is on the disk as a whole.

    Args:
        path: of the file.
        identity: what must be the same for a run to go on: flat, of JSON values.
        metrics: those that the captioner is compiled with.
        writes: whether this process writes it; others only read.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any] | None = None,
        metrics: Sequence[keras.metrics.Metric] = (),
        *,
        writes: bool = True,
    ):
        self.path, self.metrics, self.writes = path, metrics, writes
        self.identity = dict(identity or {})

    def write(self, captioner: Captioner, position: Position) -> None:
        """Raises an OSError when there is no room; the old file then stays."""
        if not self.writes:
            return
        new = self.path.with_suffix(".new")
        try:
            check_disk_space(new, variables_size(self._state(captioner)))
            with h5py.File(new, "w") as file:
                file.attrs["identity"] = json.dumps(self.identity)
                file.attrs["position"] = json.dumps(asdict(position))
                for number, variable in enumerate(self._state(captioner)):
                    file[f"{number:06}"] = _stored(variable)
            replace_file(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise OSError(
                f"Expected room for a checkpoint in {self.path.parent}; the one before is still "
                f"there. Received: {error}"
            ) from error

    def remove(self) -> None:
        """Removes the file of a run that has ended."""
        if self.writes:
            self.path.unlink(missing_ok=True)

    def position(self) -> Position | None:
        """The position of the run in the file; None where there is no file.

        Raises:
            ValueError: for a damaged file, or one of a run that is not this one.
        """
        if not self.path.exists():
            return None
        try:
            with h5py.File(self.path) as file:
                found = json.loads(file.attrs["identity"])
                position = Position(**json.loads(file.attrs["position"]))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"Expected a checkpoint. Received: {self.path}: {error}") from error
        changed = [
            f"{name} was {found.get(name)!r} and is {self.identity.get(name)!r}"
            for name in sorted({*found, *self.identity})
            if found.get(name) != self.identity.get(name)
        ]
        if changed:
            raise ValueError(
                f"Expected the run that {self.path} is of. Received another: {'; '.join(changed)}. "
                "Go on with the same options and data, or choose another folder"
            )
        return position

    def _state(self, captioner: Captioner) -> list[keras.Variable]:
        """Every variable that training changes."""
        found = [*captioner.variables, *captioner.optimizer.variables]
        for metric in (*captioner.metrics, *self.metrics):  # Keras knows some only after a step
            found += metric.variables
        return list({id(variable): variable for variable in found}.values())

    def restore(self, captioner: Captioner) -> None:
        """Gives a compiled and built captioner the state in the file.

        Raises:
            ValueError: for a damaged file, or one of a captioner of another shape.
        """
        variables = self._state(captioner)
        try:
            with h5py.File(self.path) as file:
                names = sorted(file)
                if len(names) != len(variables):
                    raise ValueError(f"{len(names)} arrays for {len(variables)} variables")
                for name, variable in zip(names, variables, strict=True):
                    variable.assign(_restored(file[name][()], variable))
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"Expected {self.path} to fit the captioner. Received: {error}"
            ) from error


def _stored(variable: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable)
    # HDF5 knows no bfloat16; every value of it is a float32.
    return array.astype(np.float32) if variable.dtype == "bfloat16" else array


def _restored(array: np.ndarray, variable: keras.Variable) -> np.ndarray:
    if array.shape != tuple(variable.shape):
        raise ValueError(f"{variable.path} of shape {array.shape}, not {tuple(variable.shape)}")
    return array


def finite(scores: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """Scores as plain numbers; ValueError where one is none, and training has come apart."""
    found = {name: float(value) for name, value in scores.items()}
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(
                f"Training came apart in epoch {epoch + 1}: {name} is {value}. Try a lower "
                "learning rate. What was saved before is in place."
            )
    return found
