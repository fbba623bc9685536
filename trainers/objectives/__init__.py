"""Training objectives: cross-entropy on references, or rewards of sampled captions.

A new objective subclasses `Objective` and is added to `OBJECTIVES`, and its name to
`effcap.trainers.options.run.OBJECTIVES`.
"""

from __future__ import annotations

from effcap.trainers.data.dataset import CaptionDataset
from effcap.trainers.objectives.base import Objective
from effcap.trainers.objectives.cross_entropy import CrossEntropy
from effcap.trainers.objectives.scst import Scst
from effcap.trainers.options.run import RunOptions

OBJECTIVES: dict[str, type[Objective]] = {"cross-entropy": CrossEntropy, "scst": Scst}


def get(name: str, options: RunOptions, dataset: CaptionDataset) -> Objective:
    """Returns the objective of a run.

    Args:
        name: name of the objective.
        options: options of the run.
        dataset: training dataset, whose references may be needed.

    Raises:
        ValueError: there is no such objective.
    """
    if name not in OBJECTIVES:
        raise ValueError(
            f"Expected an objective out of {', '.join(OBJECTIVES)}. Received: {name!r}"
        )
    return OBJECTIVES[name].from_options(options, dataset)
