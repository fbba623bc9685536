"""Options of training, as dataclasses that check their values and import no Keras."""

from effcap.trainers.options.batches import BatchOptions
from effcap.trainers.options.devices import DeviceOptions
from effcap.trainers.options.run import RunOptions
from effcap.trainers.options.scst import ScstOptions
from effcap.trainers.options.training import TrainingOptions

__all__ = ["BatchOptions", "DeviceOptions", "RunOptions", "ScstOptions", "TrainingOptions"]
