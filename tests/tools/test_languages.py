"""A GPT-2 and captions of another language than English, from conversion to scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from effcap.captioner import Captioner
from effcap.tokenizers import Tokenizer
from effcap.tools.cli import main
from helpers.data_maker import make_photos, make_variant, write_csv
from helpers.gpt2_writers import shapes_of, write_folder

# Captions of photos of a red, green, blue and white square.
CAPTIONS = {
    "japanese": "芝生の上の赤い四角。|通りの緑の四角。|海辺の青い四角。|夜の白い四角。",
    "arabic": "مربع أحمر على العشب.|مربع أخضر في الشارع.|مربع أزرق على البحر.|مربع أبيض في الليل.",
}
TOKENIZATION = {"japanese": "char", "arabic": "unicode"}


def write_gpt2(folder: Path, captions: Sequence[str]) -> None:
    """Writes a random GPT-2 with a tokenizer of its own, as Hugging Face's libraries do."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    backend.train_from_iterator(
        [*captions, *captions],
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    config = {"n_positions": 64, "n_embd": 32, "n_head": 2, "n_layer": 1}
    config["vocab_size"] = backend.get_vocab_size()
    rng = np.random.default_rng(0)
    shapes = shapes_of(config)
    weights = {name: rng.normal(0, 0.1, shape).astype("float32") for name, shape in shapes.items()}
    write_folder("safetensors", folder, config, shapes, weights.__getitem__)
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def run(*words: object) -> None:
    assert main([*map(str, words)]) == 0, words


@pytest.mark.parametrize(
    ("language", "steps"),
    (pytest.param(*case, marks=pytest.mark.slow) for case in (("japanese", 1), ("arabic", 300))),
)
def test_a_gpt2_of_another_language_learns_to_caption(
    language, steps, tmp_path, monkeypatch, request
):
    monkeypatch.chdir(tmp_path)
    if steps == 1:
        request.getfixturevalue("eager")
    captions, tokenize = CAPTIONS[language].split("|"), ["--tokenize", TOKENIZATION[language]]
    names = [name for name, _ in make_photos(tmp_path / "photos", 4 if steps == 1 else 16)]
    write_csv(tmp_path / "train.csv", [(n, [captions[i % 4]]) for i, n in enumerate(names)])
    write_gpt2(tmp_path / "gpt2", captions)
    make_variant(tmp_path / "tiny.json")
    run("convert", "gpt2", "preset", "--model", "tiny.json")
    tokenizer = Captioner.from_preset("preset").tokenizer
    assert tokenizer == Tokenizer.from_folder("gpt2") and tokenizer.bos_id != tokenizer.eos_id
    data = ["--csv", "train.csv", "--images", "photos"]
    run(
        *("train", "csv", *data, "--val-csv", "train.csv", "--model", "preset", "--out", "run"),
        *("--steps", steps, "--batch-size", 16, "--learning-rate", 1e-2, *tokenize),
        *("--set", "encoder.backbone.trainable_blocks=all"),
        *("--set", "training.passes_per_epoch=50", "--seed", 0),
    )
    record = json.loads(Path("run", "best", "training.json").read_text())
    assert record["hparams"]["training"]["tokenization"] == TOKENIZATION[language]
    assert "Latin" not in Path("run", "log.txt").read_text(encoding="utf-8")
    options = ["--model", "run", "--out", "captions.json", "--sampler", "greedy"]
    run("caption", "photos", *options, "--max-new-tokens", 7 if steps == 1 else 40)
    results = json.loads(Path("captions.json").read_text(encoding="utf-8"))
    if steps > 1:
        assert {result["caption"] for result in results} <= set(captions)
    assert not any(result["caption"].endswith("\ufffd") for result in results)
    run("evaluate", *data, *tokenize, "--captions", "captions.json", "--json", "scores.json")
    scores = json.loads(Path("scores.json").read_text())
    assert scores["tokenization"] == TOKENIZATION[language]
    assert scores["scores"]["BLEU-4"] > (0 if steps == 1 else 0.4)
