"""Reads the default generation of transformers as fields of a sampler. Imports no Keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from effcap.config import read_json

GENERATION_CONFIG = "generation_config.json"
# Settings of transformers with their defaults; config.json may record them all.
DEFAULTS: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "do_sample": False,
    "top_k": 50,
    "top_p": 1.0,
    "temperature": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "suppress_tokens": None,
    # The following have no counterpart.
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "early_stopping": False,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "min_p": None,
    "penalty_alpha": None,
    "renormalize_logits": False,
    "sequence_bias": None,
    "typical_p": 1.0,
}
UNSUPPORTED = tuple(DEFAULTS)[tuple(DEFAULTS).index("bad_words_ids") :]
NO_REPEAT_NGRAM_SIZE = 3  # where the folder sets none


def read_generation_settings(folder: Path, sections: Iterable[Any]) -> dict[str, Any]:
    """Reads the settings of generation that differ from the defaults of transformers.

    Args:
        folder: folder with or without generation_config.json.
        sections: sections of config.json that record such settings too, the most important first.

    Raises:
        ValueError: a file is not a JSON object.
    """
    path = folder / GENERATION_CONFIG
    sources = [read_json(path)] if path.is_file() else []
    settings: dict[str, Any] = {}
    for source in [*sources, *sections]:
        if not isinstance(source, Mapping):
            raise ValueError(f"Expected a JSON object in {path}. Received: {source!r}")
        for name, default in DEFAULTS.items():
            if source.get(name) not in (None, default):
                settings.setdefault(name, source[name])
    return settings


def default_sampler(
    settings: Mapping[str, Any], max_text_length: int
) -> tuple[dict[str, Any], list[str]]:
    """Returns the sampler that generates captions as transformers does by default.

    The length in transformers counts the start token. Repeated trigrams are forbidden unless the
    settings forbid n-grams of another size.

    Args:
        settings: from `read_generation_settings`.
        max_text_length: maximum number of tokens that the decoder can generate.

    Returns:
        The sampler's kind and fields, and messages about what has no counterpart.
    """
    values = {**DEFAULTS, **settings}
    length = values["max_new_tokens"] or values["max_length"] - 1
    fields: dict[str, Any] = {
        "max_new_tokens": max(1, min(length, max_text_length)),
        "repetition_penalty": values["repetition_penalty"],
        "no_repeat_ngram_size": values["no_repeat_ngram_size"] or NO_REPEAT_NGRAM_SIZE,
        "suppress_tokens": list(values["suppress_tokens"] or ()),
    }
    least = values["min_new_tokens"] or max(0, values["min_length"] - 1)
    fields["min_new_tokens"] = min(least, fields["max_new_tokens"])
    ignored = [name for name in UNSUPPORTED if name in settings]
    if values["num_beams"] > 1:
        kind = "beam"
        names: tuple[str, ...] = ("num_beams", "length_penalty")
        if values["num_beam_groups"] > 1:
            names += ("num_beam_groups", "diversity_penalty")
        ignored += ["do_sample"] if values["do_sample"] else []
    elif values["do_sample"]:
        kind, names = "nucleus", ("top_p", "top_k", "temperature")
    else:
        kind, names = "greedy", ()
    fields |= {name: values[name] for name in names}
    listed = ", ".join(f"{name}={settings[name]!r}" for name in ignored)
    notes = [f"settings of generation that have no counterpart: {listed}"] if ignored else []
    return {"kind": kind, **fields}, notes
