"""Tests of training that starts from a whole captioner of transformers."""

from __future__ import annotations

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.samplers import Beam
from effcap.trainers import RunOptions, read_csv
from effcap.trainers.engine.model import make_captioner
from effcap.trainers.engine.run import run
from helpers.captioner_folders import changed, reference, write_captioner
from helpers.captioners import numpy
from helpers.data_maker import make_photos, write_csv

MODELS = {"vit-gpt2-projected": "vit-gpt2", "blip-large": "blip-base"}


def options_of(tmp_path, source, model="vit-gpt2", **options) -> RunOptions:
    return RunOptions(model=model, out=tmp_path / "run", weights=source, **options)


@pytest.mark.parametrize("model", MODELS)
def test_the_whole_captioner_of_a_folder_is_loaded(model, tmp_path):
    source = write_captioner(tmp_path / "source", model, changed(num_beams=2))
    decoder = {"attention_dropout": 0.2}
    options = options_of(tmp_path, source, MODELS[model], decoder=decoder)
    lines: list[str] = []
    captioner = make_captioner(None, options, lines.append)
    arrays = reference(model).arrays
    received = captioner({"images": arrays["pixels"], "tokens": arrays["text"]})
    np.testing.assert_allclose(numpy(received), arrays["logits"], rtol=0, atol=1e-4)
    assert captioner.sampler == Beam(num_beams=2, length_penalty=1.0, max_new_tokens=16,
                                     min_new_tokens=0, no_repeat_ngram_size=3)  # fmt: skip
    filters = {"vit-gpt2-projected": "lanczos", "blip-large": "bicubic"}
    assert captioner.encoder.resample == filters[model]
    assert (captioner.decoder.dropout, captioner.decoder.attention_dropout) == (0.1, 0.2)
    assert not captioner.encoder.backbone.trainable_weights
    assert lines[0].endswith(")" if model.startswith("vit") else str(source))
    assert options.hparams["decoder"]["hidden_dim"] == 16
    assert options.training_options.learning_rate == 1e-5


@pytest.mark.slow
def test_a_run_trains_the_decoder_and_keeps_preprocessing_and_sampler(tmp_path):
    source = write_captioner(tmp_path / "source", "blip", changed(text_config__num_beams=2))
    photos = make_photos(tmp_path / "photos", 2)
    write_csv(tmp_path / "train.csv", photos)
    dataset = read_csv(tmp_path / "train.csv", tmp_path / "photos")
    training = {"epochs": 1, "batch_size": 2, "num_cider_photos": 0}
    run(dataset, dataset, options_of(tmp_path, source, "blip-base", training=training))
    captioner = Captioner.from_preset(tmp_path / "run")
    assert captioner.sampler.num_beams == 2 and captioner.encoder.resample == "bicubic"
    assert captioner.tokenizer.bos_id == 40
    weights = reference("blip").weights
    kept = weights["vision_model.post_layernorm.weight"]
    norm = captioner.encoder.backbone.net.get_layer("ln_post").gamma
    np.testing.assert_array_equal(numpy(norm), kept)
    table = numpy(captioner.decoder.token_embedding.embeddings)
    moved = table - weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    assert np.abs(moved).max() > 0


def test_the_folder_must_be_of_the_variants_kind(tmp_path):
    source = write_captioner(tmp_path / "source", "blip")
    for model in ("vit-gpt2", "gpt2-124m"):
        with pytest.raises(ValueError, match=f"blip-base or blip-large. Received: {model}"):
            options_of(tmp_path, source, model)
    with pytest.raises(ValueError, match="leave out backbone_weights.*'none'"):
        options_of(tmp_path, source, "blip-base", backbone_weights="none")


def test_a_folder_without_a_tokenizer_needs_another_one(tmp_path):
    source = write_captioner(tmp_path / "source", "blip")
    (source / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match="No tokenizer in .*source"):
        make_captioner(None, options_of(tmp_path, source, "blip-base"), print)
