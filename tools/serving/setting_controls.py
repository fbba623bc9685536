"""Controls of the page for a preset, a sampler and its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio

from effcap.samplers import get
from effcap.samplers.registry import SAMPLERS, to_config
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.sampler_settings import DEFAULT_SAMPLER, Setting, sampler_settings
from effcap.tools.serving.served_captioners import CaptionSettings, ServedCaptioners

MAIN = (
    "num_captions", "num_beams", "length_penalty", "top_p", "temperature", "seed",
    "include", "exclude",
)  # fmt: skip


@dataclass(frozen=True)
class SettingControls:
    """The controls of one column of captions.

    Attributes:
        preset, sampler, prefix: controls of these.
        fields: control of each field of a sampler, by name.
    """

    preset: gradio.Dropdown
    sampler: gradio.Radio
    prefix: gradio.Textbox
    fields: dict[str, Any]

    @property
    def inputs(self) -> list[Any]:
        """All controls, in the order in which `read` takes their values."""
        return [self.preset, self.sampler, self.prefix, *self.fields.values()]

    def read(self, captioners: ServedCaptioners, values: Sequence[Any]) -> CaptionSettings:
        """Returns the settings that values of `inputs` stand for.

        Raises:
            RequestError: a value is wrong.
        """
        preset, sampler, prefix, *others = values
        known = sampler_settings()
        try:
            fields = {
                name: value
                for name, value in zip(self.fields, others, strict=True)
                if is_changed(known[name], sampler, value)
            }
        except ValueError as error:
            raise RequestError(422, str(error)) from None
        return captioners.settings(preset, sampler, fields, prefix or "")


def add_controls(captioners: ServedCaptioners, *, second: bool = False) -> SettingControls:
    """Adds the controls of one column to the page.

    Args:
        captioners: the captioners to choose from.
        second: start with the second captioner, or else with another sampler.
    """
    names = captioners.names
    preset = names[1] if second and len(names) > 1 else names[0]
    initial = preset_sampler(captioners, preset)
    kinds = list(SAMPLERS)
    if second and len(names) == 1:
        initial = {"kind": next(kind for kind in kinds if kind != initial["kind"])}
    presets = gradio.Dropdown(names, value=preset, label="Preset", visible=len(names) > 1)
    sampler = gradio.Radio(kinds, value=initial["kind"], label="Sampler")
    prefix = gradio.Textbox(
        captioners.by_name[preset].prefix,
        label="Prefix",
        placeholder="a picture of",
        info="text that captions begin with",
        max_lines=1,
    )
    settings = sampler_settings()
    controls: dict[str, Any] = {}
    with gradio.Row(elem_classes="ec-fields"):
        for name in MAIN:
            if name in settings:
                controls[name] = field_control(settings[name], initial)
    with gradio.Accordion("More settings", open=False), gradio.Row(elem_classes="ec-fields"):
        for name, setting in settings.items():
            if name not in MAIN:
                controls[name] = field_control(setting, initial)
    result = SettingControls(presets, sampler, prefix, controls)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    sampler.change(
        lambda chosen: [gradio.update(visible=shown(settings[name], chosen)) for name in controls],
        sampler,
        list(controls.values()),
        **quiet,
    )
    presets.input(
        lambda chosen: preset_values(captioners, chosen, list(controls)),
        presets,
        [sampler, prefix, *controls.values()],
        **quiet,
    )
    return result


def preset_sampler(captioners: ServedCaptioners, preset: str) -> dict[str, Any]:
    """Returns the kind and the fields of the sampler of a preset."""
    return to_config(captioners.by_name[preset].sampler or get(DEFAULT_SAMPLER))


def preset_values(captioners: ServedCaptioners, preset: str, names: Sequence[str]) -> list[Any]:
    """Returns the values of the controls when a preset is chosen.

    Args:
        captioners: the captioners to choose from.
        preset: name of one of them.
        names: names of the fields of samplers that have controls.

    Returns:
        Sampler and prefix of the preset, and for each field an update of its control.
    """
    config, settings = preset_sampler(captioners, preset), sampler_settings()
    updates = [
        gradio.update(
            value=field_value(settings[name], config), visible=shown(settings[name], config["kind"])
        )
        for name in names
    ]
    return [config["kind"], captioners.by_name[preset].prefix, *updates]


def is_changed(setting: Setting, sampler: str, value: Any) -> bool:
    """Returns whether the value of a control is another than the default of the sampler.

    Defaults are left out, because `ServedCaptioners` reduces that of `max_new_tokens` to the
    captioner's room for text.
    """
    if sampler not in setting.defaults or value in (None, ""):
        return False
    return setting.parse(value) != setting.defaults[sampler]


def shown(setting: Setting, sampler: str) -> bool:
    """Returns whether a sampler has a setting."""
    return sampler in setting.defaults


def field_control(setting: Setting, initial: dict[str, Any]) -> Any:
    """Returns the control of a field.

    Args:
        setting: the field.
        initial: kind and fields of the sampler that the page starts with.
    """
    common = {
        "label": setting.name.replace("num_", "number_of_").replace("_", " ").capitalize(),
        "info": setting.help,
        "visible": shown(setting, initial["kind"]),
        "min_width": 150,
    }
    value = field_value(setting, initial)
    if setting.kind in ("integers", "texts"):
        return gradio.Textbox(value, placeholder="separated by commas", max_lines=1, **common)
    if setting.optional:  # Gradio's numbers have no empty value
        return gradio.Textbox(value, placeholder="none", max_lines=1, **common)
    step = 1 if setting.kind == "integer" else 0.05
    return gradio.Number(
        value, precision=0 if setting.kind == "integer" else None, step=step, **common
    )


def field_value(setting: Setting, config: Mapping[str, Any]) -> Any:
    """Returns the value of the control of a field, which is a text except for plain numbers.

    Args:
        setting: the field.
        config: kind and fields of a sampler; without the field, its default is returned.
    """
    default = next(iter(setting.defaults.values()))
    value = config.get(setting.name, setting.defaults.get(config["kind"], default))
    if setting.kind in ("integers", "texts"):
        return ", ".join(
            "|".join(item) if isinstance(item, list | tuple) else str(item) for item in value
        )
    if setting.optional:
        return "" if value is None else str(value)
    return value
