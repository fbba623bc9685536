"""Options of a training run, checked without importing Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

from effcap.adapters.lora_config import LoraConfig
from effcap.config import list_variants, load_hparams, merge_hparams
from effcap.conversion.backbone_weights import adopt_backbone, check_backbone_weights
from effcap.presets import (
    BASE,
    BEST,
    find_base,
    list_presets,
    preset_folder,
    preset_name,
    read_config,
)
from effcap.trainers.data.augmentation import Augmentation
from effcap.trainers.options.devices import DeviceOptions
from effcap.trainers.options.scst import ScstOptions
from effcap.trainers.options.training import TrainingOptions
from effcap.utils.hub import is_hub_name
from effcap.weights.captioner_config import adopt_captioner, is_captioner_folder

CROSS_ENTROPY, SCST = "cross-entropy", "scst"
OBJECTIVES = (CROSS_ENTROPY, SCST)
SCST_TRAINING = {"learning_rate": 5e-5, "epochs": 5}  # defaults for a trained captioner
LAST, CHECKPOINT = "last", "checkpoint.h5"  # in a run folder
ALL, CAPTIONS = VOCABULARIES = ("all", "captions")
VOCABULARY_SIZE = 4096  # default, of a tokenizer trained on the captions
Log = Literal["tensorboard", "wandb"]
CHECKPOINT_FIELDS = ("checkpoint_minutes", "checkpoint_steps")  # fields set by --set run.NAME


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a training run, except its data.

    Attributes:
        model: variant to train from scratch, or preset to fine-tune. A variant may be a JSON file,
            and a preset a folder or hf://USER/NAME.
        out: run folder (default: runs/MODEL). A folder with an earlier run requires `resume`.
        objective: training objective, "cross-entropy" or "scst". Self-critical sequence training
            (SCST) fine-tunes a trained captioner.
        lora: settings of an adapter, which is trained in place of the captioner (default: train
            the captioner, or the adapter that a preset holds).
        encoder: changed hyperparameters of the encoder, such as {"dropout": 0.2}.
        decoder: changed hyperparameters of the decoder. "vocabulary_size" is also the size of a
            tokenizer trained on the captions (default: 4096).
        training: changed fields of `TrainingOptions`, such as {"epochs": 3}.
        scst: options of the objective "scst".
        devices: devices and processes to train on.
        resume: resume from the checkpoint in `out`, if there is one.
        tokenizer: folder of a tokenizer for a variant (default: train one on the captions).
        weights: folder of pretrained weights for a variant: a GPT-2, or a whole captioner of ViT
            and GPT-2 or of BLIP, with its sizes, preprocessing and default sampler. Their tokenizer
            is used as well, unless another is given.
        vocabulary: tokens that generated captions are made of, "all" or those of the training
            "captions", which makes captioning faster (default: "all"; of a preset with fewer
            tokens, those and the ones of the captions). All tokens are trained; see
            `Captioner.restrict_vocabulary`.
        backbone_weights: backbone weights of a variant, "imagenet", "none", a file, a folder or a
            preset (default: "imagenet" if the backbone is known by name; CLIP and Swin have no
            default). A preset of a backbone alone replaces the variant's network.
        feature_cache: folder that caches the features of a frozen backbone (default: no cache).
        prefix: text that all captions continue, such as the prompt "a picture of", in training and
            validation (default: that of the preset, if any). It is not learned: the loss is that of
            the captions after it. The presets of the run begin their captions with it.
        train_fraction: fraction of the training photos to use. The seed selects them.
        max_bad: abort if more than this fraction of the captions is unusable.
        log: tools to log losses, scores and captioned photos with: "tensorboard", "wandb" or both.
        checkpoint_minutes: minutes between two checkpoints. Each epoch also ends with one.
        checkpoint_steps: steps between two checkpoints, instead of minutes.
        command: command line, for the record in run.json.
        config: contents of a `--config` file that repeats the run, for the record in run.json.

    The following attributes are computed from the others:
        preset: folder of the preset to fine-tune; None for a variant.
        default_hparams: hyperparameters of the variant or preset.
        hparams: hyperparameters with all changes.
        training_options: options of the optimization with all changes.

    Raises:
        FileExistsError: `out` is a file or holds an earlier run.
        FileNotFoundError: the model, a tokenizer or weights are missing.
        OSError: a preset is on the hub and cannot be read.
        ValueError: an option is out of range or conflicts with another.
    """

    model: str | PathLike[str]
    out: str | PathLike[str] | None = None
    objective: str = CROSS_ENTROPY
    lora: LoraConfig | None = None
    encoder: Mapping[str, Any] = field(default_factory=dict)
    decoder: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scst: ScstOptions = ScstOptions()
    devices: DeviceOptions = DeviceOptions()
    resume: bool = False
    tokenizer: Path | None = None
    weights: Path | None = None
    vocabulary: Literal["all", "captions"] | None = None
    backbone_weights: str | None = None
    feature_cache: Path | None = None
    prefix: str | None = None
    train_fraction: float = 1.0
    max_bad: float = 0.01
    log: Sequence[Log] = ("tensorboard",)
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int | None = None
    command: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    preset: Path | None = field(init=False, repr=False, compare=False)
    default_hparams: dict[str, Any] = field(init=False, repr=False, compare=False)
    hparams: dict[str, Any] = field(init=False, repr=False, compare=False)
    training_options: TrainingOptions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.out is None:
            name = Path(self.model).stem
            if is_hub_name(self.model):
                name = preset_name(self.model).rpartition("/")[2]
            object.__setattr__(self, "out", Path("runs", name))
        self._check_folder()
        object.__setattr__(self, "preset", find_preset(self.model))
        self._check_weights()
        self._check_adapter()
        self._check_objective()
        self._check_vocabulary()
        self._check_log()
        object.__setattr__(self, "default_hparams", self._default_hparams())
        object.__setattr__(self, "hparams", merge_hparams(self.default_hparams, self.changes))
        training = self.hparams.get("training", {})
        options = TrainingOptions.from_dict({**self.training_defaults, **training})
        object.__setattr__(self, "training_options", options)

    def _check_numbers(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"Expected max_bad from 0 to 1. Received: max_bad={self.max_bad}")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(
                "Expected train_fraction above 0 and up to 1. "
                f"Received: train_fraction={self.train_fraction}"
            )
        if not self.checkpoint_minutes > 0:
            raise ValueError(
                "Expected checkpoint_minutes above 0. "
                f"Received: checkpoint_minutes={self.checkpoint_minutes}"
            )
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ValueError(
                "Expected checkpoint_steps of at least 1. "
                f"Received: checkpoint_steps={self.checkpoint_steps}"
            )

    def _check_folder(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"The run folder {self.folder} is a file")
        names = (CHECKPOINT, LAST, BEST)
        if not self.resume and any((self.folder / name).exists() for name in names):
            raise FileExistsError(
                f"The run folder {self.folder} holds an earlier run. Resume it (--resume), choose "
                "another folder, or remove it"
            )

    def _check_weights(self) -> None:
        if self.preset is not None:
            for name in ("tokenizer", "backbone_weights", "weights"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} applies to variants only: the preset {str(self.model)!r} has its "
                        f"own. Received: {name}={str(getattr(self, name))!r}"
                    )
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            raise FileNotFoundError(f"There is no folder {self.tokenizer} with a tokenizer")
        if self.weights is not None and not Path(self.weights).is_dir():
            raise FileNotFoundError(f"There is no folder {self.weights} with pretrained weights")
        if self.backbone_weights is not None and is_captioner_folder(self.weights):
            raise ValueError(
                f"{self.weights} holds a captioner with its backbone: leave out backbone_weights. "
                f"Received: backbone_weights={self.backbone_weights!r}"
            )
        check_backbone_weights(self.backbone_weights)
        if self.feature_cache is not None and self.devices.num_processes > 1:
            raise ValueError(
                "feature_cache requires a single process. "
                f"Received: num_processes={self.devices.num_processes}"
            )

    def _check_adapter(self) -> None:
        if self.lora is None:
            return
        if self.adapter_base is None:
            raise ValueError(
                "lora requires a trained captioner, because all but the adapter is frozen, and "
                f"{str(self.model)!r} is a variant: train it first and choose its preset as model, "
                "or give weights of a whole captioner, ViT and GPT-2 or BLIP"
            )
        if self.preset is None and self.tokenizer is not None:
            raise ValueError(
                "lora takes the tokenizer in the folder of weights. For another, convert the "
                f"folder first: effcap convert {self.weights} PRESET --tokenizer {self.tokenizer}"
            )
        if self.base is not None:
            raise ValueError(
                f"The preset {str(self.model)!r} holds an adapter already: leave lora out to train "
                "it further, or merge it into a preset with merge_and_unload and save_to_preset"
            )

    def _check_objective(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"Expected objective out of {', '.join(OBJECTIVES)}. "
                f"Received: objective={self.objective!r}"
            )
        if self.objective != SCST and self.scst != ScstOptions():
            raise ValueError(
                f"scst options require objective='scst'. Received: objective={self.objective!r}"
            )
        if self.objective == SCST and (self.devices.num_processes, self.devices.count) != (1, 1):
            raise ValueError(
                "objective='scst' requires a single device. Received: "
                f"devices={self.devices.count}, num_processes={self.devices.num_processes}"
            )

    def _check_vocabulary(self) -> None:
        if self.vocabulary not in (None, *VOCABULARIES):
            raise ValueError(
                f"Expected vocabulary out of {', '.join(VOCABULARIES)}. "
                f"Received: vocabulary={self.vocabulary!r}"
            )

    def _check_log(self) -> None:
        unknown = [name for name in self.log if name not in get_args(Log)]
        if unknown or isinstance(self.log, str):
            raise ValueError(
                f"Expected log as a list out of {', '.join(get_args(Log))}. "
                f"Received: log={self.log!r}"
            )
        if "wandb" in self.log and find_spec("wandb") is None:
            raise ImportError("--log wandb requires wandb: pip install 'effcap[wandb]'")

    def _default_hparams(self) -> dict[str, Any]:
        if self.preset is None:
            hparams = adopt_backbone(load_variant(self.model), self.backbone_weights)
            return adopt_captioner(hparams, self.weights, str(self.model))
        config = read_config(self.preset)
        return {name: config[name] for name in ("encoder", "decoder")}

    @property
    def training_defaults(self) -> dict[str, Any]:
        """Defaults of the objective for fields of `TrainingOptions`."""
        return SCST_TRAINING if self.objective == SCST else {}

    @property
    def changes(self) -> dict[str, Mapping[str, Any]]:
        """Changed hyperparameters by section."""
        sections = {"encoder": self.encoder, "decoder": self.decoder, "training": self.training}
        return {name: changes for name, changes in sections.items() if changes}

    @property
    def base(self) -> Path | None:
        """Preset that the adapter of the preset was added to; None if it holds all weights."""
        if self.preset is None:
            return None
        config = read_config(self.preset)
        return find_base(self.preset, config) if BASE in config else None

    @property
    def adapter_base(self) -> Path | None:
        """Preset or folder whose weights the run leaves unchanged; None without an adapter."""
        if self.lora is None or self.base is not None:
            return self.base
        whole = self.weights if is_captioner_folder(self.weights) else None
        return self.preset or whole

    @property
    def folder(self) -> Path:
        """Run folder."""
        return Path(self.out or ".")

    @property
    def tokenizer_folder(self) -> Path | None:
        """Folder of the tokenizer, by default that of GPT-2's weights; None to train one."""
        return self.tokenizer or self.weights

    @property
    def text_prefix(self) -> str:
        """Text that captions continue, by default that of the preset; "" for none."""
        if self.prefix is None and self.preset is not None:
            return read_config(self.preset).get("prefix", "")
        return (self.prefix or "").strip()

    def batch_options(self, name: str) -> dict[str, Any]:
        """Returns the fields of `BatchOptions` for "training" or "validation" data."""
        training, is_training = self.training_options, name == "training"
        return {
            "name": name,
            "batch_size": training.batch_size,
            "captions_per_photo": training.captions_per_photo,
            "shuffle": is_training,
            "seed": training.seed,
            "passes_per_epoch": training.passes_per_epoch if is_training else 1,
            "augmentation": training.make_augmentation() if is_training else Augmentation(),
            "prefix": self.text_prefix,
            "max_bad": self.max_bad,
            "folder": self.folder,
            "resume": self.resume,
        }


def find_preset(model: str | PathLike[str]) -> Path | None:
    """Returns the folder of a preset, given its folder, its run folder or its name, or None.

    A folder of transformers is none: it may have the name of a variant that takes its weights.
    """
    try:
        folder = preset_folder(model)
    except FileNotFoundError:
        return None
    return None if is_captioner_folder(folder) else folder


def load_variant(model: str | PathLike[str]) -> dict[str, Any]:
    """Returns the hyperparameters of a variant.

    Raises:
        FileNotFoundError: there is neither a variant nor a preset of that name.
        ValueError: there is a folder of transformers of that name.
    """
    try:
        return load_hparams(model)
    except FileNotFoundError:
        if is_captioner_folder(preset_folder(model) if is_hub_name(model) else model):
            raise ValueError(
                f"{model} is a folder of transformers: give it as weights, with a variant such as "
                "vit-gpt2 or blip-base as model"
            ) from None
        presets = ", ".join(list_presets())
        raise FileNotFoundError(
            f"Expected a variant ({', '.join(list_variants())}), a preset "
            f"({presets + ', or ' if presets else ''}the folder of one), or a JSON file of "
            f"hyperparameters. Received: {str(model)!r}"
        ) from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values of nested mappings with dotted names, such as "decoder.dropout".

    Serialized Keras networks are left out, because their layer names differ between processes.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            if "class_name" not in value:
                yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
