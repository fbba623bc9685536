"""The model card of a preset: metadata for the hub, and what people should know."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any

from effcap.preset_files import BACKBONE, BASE
from effcap.presets import preset_name
from effcap.tools.publishing import card_text
from effcap.tools.publishing.card_facts import CardFacts, read_facts
from effcap.tools.publishing.card_options import CardOptions
from effcap.utils.hub import HubName, import_hub, parse_hub_name

TASK, TASK_NAME = "image-to-text", "Image captioning"
OWNER = "USER"  # until the repository is known


def model_card(
    preset: str | PathLike[str], name: str | None = None, options: CardOptions | None = None
) -> str:
    """Returns the model card of a preset as Markdown, with sample captions that it generates.

    It is made from the preset and its record, training.json. What these do not say is left out.

    Args:
        preset: as in `Captioner.from_preset`, except folders of transformers.
        name: name of the repository on the hub, such as "hf://user/name" (default: "hf://USER/" and
            the name of the preset).
        options: license, datasets and scores, which the record does not hold.

    Raises:
        FileNotFoundError: there is no such preset or file of scores.
        ImportError: `huggingface_hub` is not installed.
        OSError: the preset is on the hub and cannot be read.
        ValueError: the preset or a file is damaged, or a value is not valid.

    Example:
        >>> print(effcap.tools.model_card("flickr8k-lite0"))
    """
    import_hub()
    options = options or CardOptions()
    facts = read_facts(preset, options.scores)
    if name is None:
        short = re.sub(r"[^\w.-]+", "-", preset_name(preset).rpartition("/")[2]) or "preset"
        repository = HubName(f"{OWNER}/{short}")
    else:
        repository = parse_hub_name(name)
    return make_card(facts, repository, options)


def make_card(facts: CardFacts, name: HubName, options: CardOptions) -> str:
    """Returns the model card of a loaded preset; see `model_card`."""
    sections = [
        *card_text.introduction(facts, name),
        *card_text.usage(facts, name),
        *card_text.samples(facts),
        *card_text.limits(facts),
        *card_text.training(facts),
        *card_text.scores(facts),
    ]
    metadata = card_metadata(facts, name, options)
    return f"---\n{metadata.to_yaml().strip()}\n---\n\n" + "\n\n".join(sections) + "\n"


def card_metadata(facts: CardFacts, name: HubName, options: CardOptions) -> Any:
    """Returns the metadata of a card, a `ModelCardData`."""
    hub = import_hub()
    scores = facts.measured()
    tags = ["image-captioning"] if facts.inputs in ("photos", "regions") else []
    tags += ["playlist-captioning"] if facts.inputs == "playlists" else []
    tags += ["lora"] if BASE in facts.config else []
    task = {"photos": TASK, "regions": TASK}.get(facts.inputs)
    if BACKBONE in facts.config:
        task = "image-feature-extraction"
    results = [
        hub.EvalResult(
            task_type=task or "text-generation",
            task_name=TASK_NAME if task == TASK else None,
            dataset_type=re.sub(r"\W+", "-", score.data.partition(" (")[0]).strip("-"),
            dataset_name=score.data,
            metric_type=score.metric,
            metric_name=score.name,
            metric_value=round(score.value, 4),
        )
        for score in scores
    ]
    return hub.ModelCardData(
        library_name="keras",
        pipeline_tag=task,
        tags=[*tags, "effcap", "keras"],
        license=options.license,
        datasets=list(options.datasets) or None,
        base_model=facts.base_models or None,
        metrics=list(dict.fromkeys(score.metric for score in scores)) or None,
        model_name=name.repository.partition("/")[2] if results else None,
        eval_results=results or None,
    )
