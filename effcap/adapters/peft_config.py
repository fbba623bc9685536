"""Settings of a PEFT adapter (adapter_config.json), read to ours and written from ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from effcap.adapters.lora_config import LoraConfig
from effcap.adapters.modules import LoraModule, short_name

FILE = "adapter_config.json"
# PEFT's names and ours.
NAMES = {
    "r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "bias": "bias",
    "use_rslora": "use_rslora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "target_modules": "targets",
    "exclude_modules": "exclude",
}
DEFAULTS = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}  # PEFT's, for what a file leaves out
# Settings that do not change the output of a loaded adapter.
IGNORED = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",  # each layer has its own orientation
    "inference_mode",
    "init_lora_weights",  # checked on its own
    "layers_pattern",
    "layers_to_transform",  # read on its own
    "lora_bias",  # seen from the tensors
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
INITIALIZATIONS = (True, False, "gaussian")  # of A and B alone; others change the kernels, too


class PeftConfig(NamedTuple):
    """Settings of an adapter.

    Attributes:
        lora: settings that are ours, too.
        layers: numbers of the layers that have updates. None for all.
    """

    lora: LoraConfig
    layers: frozenset[int] | None

    def matches(self, module: LoraModule) -> bool:
        """Returns whether the adapter has an update of a module."""
        if not self.lora.matches((module.name, module.old_name), None, module.is_head):
            return False
        numbers = [int(part) for part in module.name.split(".") if part.isdigit()]
        return self.layers is None or bool(numbers and numbers[-1] in self.layers)


def read_peft_config(path: Path) -> PeftConfig:
    """Reads the settings of an adapter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, the adapter is not a LoRA, or uses something that is not
            supported, such as DoRA.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Expected the folder of a PEFT adapter, with {FILE}. Received: {path.parent}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"Expected {path} to hold an object. Received: {type(values).__name__}")
    check_supported(values, path)
    values = {**DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    settings = {ours: values[name] for name, ours in NAMES.items() if name in values}
    layers = values.get("layers_to_transform")
    try:
        numbers = [layers] if isinstance(layers, int) else layers
        chosen = None if numbers is None else frozenset(map(int, numbers))
        return PeftConfig(LoraConfig.from_dict(settings), chosen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def check_supported(values: Mapping[str, Any], path: Path) -> None:
    """Checks that an adapter is a LoRA that is computed as ours is.

    Raises:
        ValueError: it is not; the message names the setting.
    """
    kind = values.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"Expected a LoRA adapter (peft_type LORA). Received: {kind!r} in {path}")
    initialization = values.get("init_lora_weights", True)
    if not any(initialization is known or initialization == known for known in INITIALIZATIONS):
        raise ValueError(
            f"{path}: init_lora_weights={initialization!r} changes the base model's weights, or "
            "needs them; only true, false and 'gaussian' are supported. Convert the adapter with "
            "PEFT's path_initial_model_for_weight_conversion"
        )
    unsupported = {
        name: value
        for name, value in values.items()
        if value and name not in IGNORED and name not in NAMES
    }
    if unsupported:
        names = ", ".join(f"{name}={value!r}" for name, value in unsupported.items())
        hint = "; merge it in PEFT (merge_and_unload) and convert the whole model"
        raise ValueError(f"{path}: {names} is not supported{hint}")


def write_peft_config(
    path: Path,
    config: LoraConfig,
    modules: Sequence[LoraModule],
    all_modules: Sequence[LoraModule],
    base_model: str | None,
) -> None:
    """Writes the settings of an adapter, so that PEFT reads them.

    Args:
        path: file to write.
        config: settings.
        modules: modules with an update.
        all_modules: all modules of the captioner.
        base_model: what PEFT records as the name or path of the base model.
    """
    values = {theirs: getattr(config, ours) for theirs, ours in NAMES.items()}
    values |= {
        "target_modules": target_modules(modules, all_modules),
        "exclude_modules": None,  # the targets are exact
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "auto_mapping": auto_mapping(all_modules),
        "base_model_name_or_path": base_model,
        "fan_in_fan_out": any("decoder.transformer." in module.name for module in modules),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_bias": False,
        "modules_to_save": None,
        "peft_type": "LORA",
        # With another type, PEFT passes inputs that captioners do not take.
        "task_type": None,
        "use_dora": False,
    }
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def target_modules(modules: Sequence[LoraModule], all_modules: Sequence[LoraModule]) -> list[str]:
    """Returns names that match the modules with an update and no others, short if possible."""
    chosen = {module.name for module in modules}
    targets = set()
    for name in chosen:
        short = short_name(name)
        alike = [m.name for m in all_modules if m.name == short or m.name.endswith(f".{short}")]
        targets.add(short if chosen.issuperset(alike) else name)
    return sorted(targets)


def auto_mapping(modules: Sequence[LoraModule]) -> dict[str, str] | None:
    """Returns the class of transformers whose modules have these names."""
    names = {module.name.split(".")[0] for module in modules}
    if "text_decoder" in names:
        return {
            "base_model_class": "BlipForConditionalGeneration",
            "parent_library": "transformers.models.blip.modeling_blip",
        }
    return {
        "base_model_class": "VisionEncoderDecoderModel",
        "parent_library": (
            "transformers.models.vision_encoder_decoder.modeling_vision_encoder_decoder"
        ),
    }
