"""Reads what a model card states of a preset: its parts, its record and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from effcap.backbones.backbone import Backbone
from effcap.captioner import Captioner
from effcap.config import read_json
from effcap.conversion.backbone_preset import load_backbone
from effcap.preset_files import ADAPTERS, BACKBONE, BASE, CONFIG, WEIGHTS
from effcap.presets import preset_folder, preset_name, read_record
from effcap.utils.hub import is_hub_name, parse_hub_name

# Scores of `effcap evaluate` with their names on the hub.
METRICS = {
    "BLEU-1": "bleu",
    "BLEU-2": "bleu",
    "BLEU-3": "bleu",
    "BLEU-4": "bleu",
    "ROUGE-L": "rouge",
    "METEOR": "meteor",
    "CIDEr": "cider",
    "SPICE": "spice",
}
VALIDATION = "val_"  # start of the names of validation scores
KINDS = {"gpt2": "GPT-2", "bert": "BERT"}


class Score(NamedTuple):
    """A score that a card states.

    Attributes:
        metric: name of the metric on the hub.
        name: name of the score, such as "BLEU-4".
        value: the score.
        data: name of the captioned data.
        note: how the captions were generated.
    """

    metric: str
    name: str
    value: float
    data: str
    note: str


@dataclass(frozen=True)
class CardFacts:
    """Holds what a model card states of a preset.

    Attributes:
        folder: folder of the preset.
        config: its config.json.
        record: its training.json; empty if it has none.
        model: the loaded captioner, or the backbone of a preset that holds a backbone alone.
        scores: contents of a file of scores.
    """

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    model: Captioner | Backbone
    scores: Mapping[str, Any]

    @property
    def inputs(self) -> str:
        """Names what it captions: "photos", "regions" or "playlists"; "" for a backbone."""
        if isinstance(self.model, Backbone):
            return ""
        keys = self.model.encoder.input_keys
        return {"images": "photos", "regions": "regions"}.get(keys[0], "playlists")

    @property
    def weights_file(self) -> str:
        """Name of the file with the weights."""
        return ADAPTERS[1] if BASE in self.config else WEIGHTS

    @property
    def num_parameters(self) -> int:
        """Number of parameters, those of the base of an adapter too."""
        is_backbone = isinstance(self.model, Backbone)
        return (self.model.net if is_backbone else self.model).count_params()

    @property
    def base_models(self) -> list[str]:
        """Repositories of the presets that it was trained from, as far as they are on the hub."""
        names = (self.config.get(BASE), self.record.get("model"))
        on_hub = [name for name in names if isinstance(name, str) and is_hub_name(name)]
        return list(dict.fromkeys(parse_hub_name(name).repository for name in on_hub))

    @property
    def commands(self) -> list[str]:
        """Commands of the training."""
        commands = self.record.get("commands") or [self.record.get("command")]
        return [command for command in commands if isinstance(command, str) and command]

    @property
    def seed(self) -> Any:
        """Seed of the training; None if it is not recorded."""
        training = section(self.record, "hparams", "training")
        return self.record.get("seed", training.get("seed"))

    def count(self, data: str, name: str) -> int | None:
        """Returns the number of photos or captions of "training" or "validation" data."""
        number = section(self.record, "data", data).get(name)
        return number if isinstance(number, int) else None

    def parts(self) -> Iterator[str]:
        """Yields descriptions of the encoder and the decoder."""
        is_backbone = isinstance(self.model, Backbone)
        backbone = self.model if is_backbone else getattr(self.model.encoder, "backbone", None)
        if backbone is not None:
            height, width = backbone.image_size
            yield f"{backbone.net.name}, photos of {height} x {width} pixels"
        if isinstance(self.model, Backbone):
            return
        if backbone is None:
            yield f"an encoder of {', '.join(self.model.encoder.input_keys)}"
        decoder = self.model.hparams()["decoder"]
        number = decoder["num_layers"]
        yield (
            f"{KINDS.get(decoder['kind'], decoder['kind'])} of {number} "
            f"layer{'' if number == 1 else 's'} and width {decoder['hidden_dim']}, "
            f"{self.model.decoder.vocabulary_size:,} tokens"
        )

    def measured(self) -> list[Score]:
        """Returns the scores of this preset: those of the file, and of the validation.

        Scores of several runs in one record are not of this preset, and left out.
        """
        scores = []
        if self.scores:
            references = [Path(path).name for path in self.scores.get("references") or ()]
            photos = section(self.scores, "counts").get("photos")
            data = ", ".join(references) + (f" ({photos:,} photos)" if photos else "")
            sampler = section(self.scores, "sampler").get("name")
            note = f"sampler {sampler}" if sampler else ""
            for name, value in section(self.scores, "scores").items():
                if name in METRICS and is_number(value):
                    scores.append(Score(METRICS[name], name, float(value), data, note))
        cider: Any = section(self.record, "scores").get(f"{VALIDATION}cider")
        if is_number(cider):
            files = section(self.record, "config").get("val-csv") or ()
            data = ", ".join(Path(path).name for path in files) or "validation data of the training"
            total = self.count("validation", "photos")
            limit = section(self.record, "hparams", "training").get("num_cider_photos")
            counts = [number for number in (total, limit) if isinstance(number, int)]
            data += f" ({min(counts):,} photos)" if total else ""
            scores.append(Score("cider", "CIDEr-D, greedy", cider, data, "greedy, during training"))
        return scores


def section(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Returns a section of nested mappings, empty if it is missing or of another type."""
    for name in names:
        inner = values.get(name)
        values = inner if isinstance(inner, Mapping) else {}
    return values


def is_number(value: Any) -> bool:
    """Returns whether a value is a number, not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_facts(preset: Any, scores: Path | None = None) -> CardFacts:
    """Loads a preset and reads its record.

    Args:
        preset: as for `preset_folder`.
        scores: file written by `effcap evaluate --json`.

    Raises:
        FileNotFoundError: there is no such preset or file of scores.
        ValueError: the preset or the file of scores is damaged.
    """
    folder = preset_folder(preset)
    config = read_json(folder / CONFIG)
    record = read_record(folder)
    if not isinstance(record, Mapping):
        raise ValueError(f"Expected a JSON object in the training.json of {preset_name(folder)}")
    measured = {} if scores is None else read_scores(scores)
    is_backbone = BACKBONE in config
    model = load_backbone(folder) if is_backbone else Captioner.from_preset(folder)
    return CardFacts(folder, config, record, model, measured)


def read_scores(path: Path) -> dict[str, Any]:
    """Reads a file of scores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it was not written by `effcap evaluate`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of scores {path}")
    contents = read_json(path)
    if not isinstance(contents, dict) or not any(
        name in METRICS and is_number(value) for name, value in section(contents, "scores").items()
    ):
        raise ValueError(f"Expected scores written by effcap evaluate --json. Received: {path}")
    return contents
