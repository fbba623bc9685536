"""Adapters of a captioner: adds, switches, merges and removes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import keras

from effcap.adapters.lora_config import LoraConfig
from effcap.adapters.modules import LoraModule, find_modules, short_name
from effcap.adapters.peft import fill_adapter, read_adapter, write_adapter
from effcap.captioning import CaptioningModel
from effcap.layers.lora import LowRankUpdate
from effcap.utils.replicas import strategy_scope

DEFAULT = "default"  # PEFT's name of an adapter


class AdaptableModel(CaptioningModel):
    """A captioner that can be fine-tuned through adapters (LoRA, Hu et al. 2021).

    With adapters, only the active ones are trained; everything else is frozen. An adapter adds
    updates to dense layers; their kernels are neither copied nor changed, until adapters are
    merged.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._adapters: dict[str, LoraConfig] = {}
        self._active: tuple[str, ...] = ()
        self._merged: tuple[str, ...] = ()
        self._base_trainable: frozenset[int] | None = None  # `id`s of the variables

    @property
    def adapters(self) -> dict[str, LoraConfig]:
        """Settings of the adapters, by name."""
        return dict(self._adapters)

    @property
    def active_adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are added to the output."""
        return self._active

    @property
    def merged_adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are part of the kernels."""
        return self._merged

    def adapter_modules(self, name: str | None = None) -> list[LoraModule]:
        """Returns the modules that take updates, in the order of encoder and decoder.

        Args:
            name: adapter whose modules to return. None for all modules of the captioner.

        Raises:
            ValueError: there is no such adapter.
        """
        modules = find_modules(self.encoder, self.decoder)
        if name is None:
            return modules
        self._check_names([name])
        return [module for module in modules if module.update(name) is not None]

    def add_adapter(
        self, name: str = DEFAULT, config: LoraConfig | None = None, **settings: Any
    ) -> None:
        """Adds an adapter, and activates it alone.

        A new adapter changes nothing until it is trained. Call `compile` before training, because
        other variables are trained.

        Args:
            name: name of the adapter. Default "default".
            config: settings. None takes `settings`.
            **settings: fields of `LoraConfig`, such as `rank=8`, `alpha=32`, `dropout=0.1`,
                `targets=["attention", "mlp"]`.

        Raises:
            ValueError: there is such an adapter, no layer matches the targets, or a setting is
                unknown or out of range; or adapters are merged.

        Example:
            >>> captioner.add_adapter("news", rank=8, alpha=32, targets=["attention", "mlp"])
            >>> captioner.compile("adamw")
        """
        if config is not None and settings:
            raise ValueError(
                f"Expected config or single settings, not both. Received: {', '.join(settings)}"
            )
        config = LoraConfig.from_dict(settings) if config is None else config
        self._check_new(name)
        modules = self.adapter_modules()
        targets = [m for m in modules if config.matches((m.name, m.old_name), m.group, m.is_head)]
        if not targets:
            examples = ", ".join(dict.fromkeys(short_name(m.name) for m in modules))
            raise ValueError(
                "Expected targets that match layers of the captioner: 'attention', 'mlp', or "
                f"names out of {examples}. Received: targets={config.targets!r}, "
                f"exclude={config.exclude!r}"
            )
        if self._base_trainable is None:
            self._base_trainable = frozenset(id(v) for v in self.weights if v.trainable)
        with strategy_scope(self):
            for module in targets:
                update = LowRankUpdate(
                    module.units,
                    config.rank_of(module.name, module.old_name),
                    config.alpha_of(module.name, module.old_name),
                    config.dropout,
                    config.use_rslora,
                    use_bias=config.bias != "none" and module.bias is not None,
                    adapter=name,
                    start=module.start,
                    dtype=self.decoder.dtype_policy,
                    name=_layer_name(name, module.start),
                )
                module.layer.add_update(update)
        self._adapters[name] = config
        self.set_adapter(name)

    def set_adapter(self, names: str | Sequence[str] | None) -> None:
        """Sets which adapters are added to the output and trained.

        Call `compile` before training again.

        Args:
            names: name of an adapter, or several, whose updates are added up. None for none: the
                captioner is as without adapters.

        Raises:
            ValueError: there is no such adapter, or adapters are merged.
        """
        names = (names,) if isinstance(names, str) else tuple(names or ())
        self._check_names(names)
        self._check_unmerged("switching adapters")
        self._active = tuple(dict.fromkeys(names))
        for layer in self._adaptable_layers():
            layer.active = self._active
        self._set_trainable()

    def delete_adapter(self, name: str) -> None:
        """Removes an adapter.

        Without further adapters, the captioner trains as before the first was added.

        Raises:
            ValueError: there is no such adapter, or it is merged.
        """
        self._check_names([name])
        self._check_unmerged("deleting an adapter")
        self._remove([name])

    def merge_adapter(self) -> None:
        """Adds the updates of the active adapters to the kernels, which makes decoding as fast as
        without adapters.

        Raises:
            ValueError: adapters are merged already, or one updates the output projection, whose
                kernel is the table of token embeddings.
        """
        self._check_unmerged("merging")
        modules = self.adapter_modules()
        heads = [
            name
            for name in self._active
            for module in modules
            if module.is_head and module.update(name) is not None
        ]
        if heads:
            raise ValueError(
                f"The adapter {heads[0]!r} updates the output projection, whose kernel is also the "
                "table of token embeddings: it cannot be merged. Use it unmerged"
            )
        for layer in self._adaptable_layers():
            if layer.updates_of(self._active):
                layer.merge(self._active)
        self._merged = self._active
        self._reset()

    def unmerge_adapter(self) -> None:
        """Subtracts the updates of merged adapters from the kernels, up to rounding errors."""
        for layer in self._adaptable_layers():
            if layer.merged:
                layer.unmerge()
        self._merged = ()
        self._reset()

    def merge_and_unload(self) -> None:
        """Merges the active adapters for good, and removes all adapters.

        The captioner has the same output as before, and no adapters. It trains as before the first
        was added.

        Raises:
            ValueError: as for `merge_adapter`.
        """
        if not self._merged:
            self.merge_adapter()
        self._merged = ()
        self._remove(list(self._adapters))

    def quantize(self, *arguments: Any, **options: Any) -> None:
        """Quantizes the kernels, as `keras.Model.quantize` does.

        Raises:
            ValueError: there are adapters.
        """
        if self._adapters:
            raise ValueError(
                "Expected a captioner without adapters to quantize. Received: "
                f"{', '.join(map(repr, self._adapters))}; call merge_and_unload before"
            )
        super().quantize(*arguments, **options)

    def save_adapter(
        self, folder: str | PathLike, name: str = DEFAULT, base_model: str | None = None
    ) -> None:
        """Writes an adapter in PEFT's format: adapter_config.json, adapter_model.safetensors.

        PEFT loads the adapter of a converted ViT+GPT-2 or BLIP on the model of transformers. Layers
        that transformers does not have are named by the captioner's own attributes.

        Args:
            folder: folder to write, created if missing.
            name: name of the adapter, which the files do not record. Default "default".
            base_model: name or path of the base model, for the record. Default None.

        Raises:
            ValueError: there is no such adapter.
        """
        self._check_names([name])
        write_adapter(folder, name, self._adapters[name], self.adapter_modules(), base_model)

    def load_adapter(self, folder: str | PathLike, name: str = DEFAULT) -> str:
        """Adds an adapter from files in PEFT's format, and activates it alone.

        All of its tensors are used, or an error is raised and the captioner is unchanged.

        Args:
            folder: folder with adapter_config.json, and adapter_model.safetensors or the
                adapter_model.bin of older versions, which is read without running its pickle.
            name: name of the new adapter. Default "default".

        Returns:
            A message with the number of layers and parameters.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or the adapter does not fit the captioner or uses
                something that is not supported, such as DoRA.
        """
        self._check_new(name)
        modules = self.adapter_modules()
        stored = read_adapter(folder, modules, self.decoder)
        self.add_adapter(name, stored.config)
        fill_adapter(name, modules, stored.arrays)
        return f"adapter {name!r}: {stored.message}"

    def single_adapter(self) -> str:
        """Returns the name of the only adapter.

        Raises:
            ValueError: there are none or several, or it is merged.
        """
        if len(self._adapters) != 1:
            raise ValueError(
                "Expected a captioner with one adapter. Received: "
                f"{', '.join(map(repr, self._adapters)) or 'none'}"
            )
        self._check_unmerged("saving it alone")
        return next(iter(self._adapters))

    def base_weights(self) -> list[keras.Variable]:
        """Returns the weights that are not those of adapters."""
        added = {
            id(weight)
            for layer in self._adaptable_layers()
            for update in layer.updates
            for weight in update.weights
        }
        return [weight for weight in self.weights if id(weight) not in added]

    def adapter_config(self) -> dict[str, Any]:
        """Returns the adapters' settings and which are active and merged; {} without adapters."""
        if not self._adapters:
            return {}
        return {
            "configs": {name: config.to_dict() for name, config in self._adapters.items()},
            "active": list(self._active),
            "merged": list(self._merged),
        }

    def restore_adapters(self, config: Mapping[str, Any]) -> None:
        """Adds adapters as in the result of `adapter_config`, with new weights.

        The kernels are expected to be those of the captioner that the result is from.

        Raises:
            ValueError: settings do not fit the captioner.
        """
        if not config:
            return
        for name, settings in config["configs"].items():
            self.add_adapter(name, LoraConfig.from_dict(settings))
        self.set_adapter(config["active"])
        self._merged = tuple(config["merged"])
        for layer in self._adaptable_layers():
            if layer.updates_of(self._merged):
                layer.merged = self._merged
        self._reset()

    def _adaptable_layers(self) -> list[Any]:
        """Returns the layers that can have updates, each once."""
        return list({id(m.layer): m.layer for m in self.adapter_modules()}.values())

    def _remove(self, names: Sequence[str]) -> None:
        """Removes adapters from the layers."""
        layers = self._adaptable_layers()
        for name in names:
            for layer in layers:
                layer.remove_updates(name)
            del self._adapters[name]
        self._active = tuple(name for name in self._active if name in self._adapters)
        self._set_trainable()

    def _set_trainable(self) -> None:
        """Makes the active adapters trainable, and all else frozen; without adapters, the base."""
        if self._base_trainable is None:
            return
        if self._adapters:
            trained = frozenset(
                id(weight)
                for layer in self._adaptable_layers()
                for update in layer.updates_of(self._active)
                for weight in update.weights
            )
        else:
            trained, self._base_trainable = self._base_trainable, None
        for weight in self.weights:
            weight.trainable = id(weight) in trained
        self._reset()

    def _reset(self) -> None:
        """Forgets compiled functions, and that the captioner was compiled for other variables."""
        self._generation.clear()
        self.train_function = self.test_function = self.predict_function = None
        self.compiled = False

    def _check_new(self, name: str) -> None:
        """Checks that an adapter can be added.

        Raises:
            ValueError: it cannot.
        """
        if not isinstance(name, str) or not name or "." in name or "/" in name:
            raise ValueError(
                f"Expected a name of an adapter without '.' and '/'. Received: {name!r}"
            )
        if name in self._adapters:
            raise ValueError(
                f"There is an adapter {name!r} already: choose another name, or call "
                "delete_adapter before"
            )
        self._check_unmerged("adding an adapter")

    def _check_names(self, names: Sequence[str]) -> None:
        """Checks that there are such adapters.

        Raises:
            ValueError: there are not.
        """
        for name in names:
            if name not in self._adapters:
                known = ", ".join(map(repr, self._adapters)) or "none"
                raise ValueError(f"Expected an adapter out of {known}. Received: {name!r}")

    def _check_unmerged(self, action: str) -> None:
        """Checks that no adapters are merged.

        Raises:
            ValueError: some are.
        """
        if self._merged:
            raise ValueError(
                f"Adapters are merged ({', '.join(self._merged)}): call unmerge_adapter before "
                f"{action}"
            )


def _layer_name(adapter: str, start: int) -> str:
    """Returns the name of an update's layer."""
    return f"{adapter}_{start}" if start else adapter
