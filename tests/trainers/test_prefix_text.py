"""Training on captions that continue a prefix: data, masked loss, validation, SCST and presets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.metrics import CiderD, tokenize
from effcap.samplers import Greedy
from effcap.trainers import (
    BatchOptions,
    CaptionBatches,
    Example,
    PhotoFiles,
    RunOptions,
    ScstOptions,
    read_csv,
    read_json,
    read_shards,
)
from effcap.trainers.engine.logger import caption_previews
from effcap.trainers.engine.run import run
from effcap.trainers.engine.validation import CiderValidator
from effcap.trainers.objectives.scst import Scst
from helpers.captioners import numpy, randomize
from helpers.data_maker import make_captioner, make_data, make_photos, make_variant
from helpers.shard_maker import write_shards

PREFIXES = ("a picture of", "", "two dogs: ")
CAPTIONS = (("a red square.", "a square"), ("a blue square",), ("a cat", "green at night."))


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    texts = [text for captions in CAPTIONS for text in captions]
    captioner = make_captioner([*texts, *PREFIXES[:1]], dropout=0.0, attention_dropout=0.0)
    return randomize(captioner)


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> list[Example]:
    folder = tmp_path_factory.mktemp("photos")
    make_photos(folder, 3)
    return [
        Example(folder / f"{i}.jpg", captions, "", prefix)
        for i, (captions, prefix) in enumerate(zip(CAPTIONS, PREFIXES, strict=True))
    ]


def make(examples, captioner, **options) -> CaptionBatches:
    loader = PhotoFiles([example.path for example in examples], captioner.encoder.image_size)
    settings = BatchOptions(**{"batch_size": 4, "shuffle": False, "num_buckets": 1, **options})
    length = captioner.decoder.max_text_length
    return CaptionBatches(examples, loader, captioner.tokenizer, length, settings)


@pytest.fixture(scope="module")
def batches(examples, captioner) -> CaptionBatches:
    return make(examples, captioner)


def test_rows_hold_start_prefix_caption_and_end_with_the_prefix_masked(
    examples, captioner, batches
):
    inputs, targets, weights = batch = batches[0]
    tokenizer = captioner.tokenizer
    for row, example in enumerate(examples):
        prefix = tokenizer.encode_prefix(example.prefix)
        for segment, caption in enumerate(example.captions, 1):
            here = inputs["segments"][row] == segment
            whole = f"{example.prefix.strip()} {caption}".strip()
            (ids,) = tokenizer.encode_captions([whole])
            assert inputs["tokens"][row][here].tolist() == [tokenizer.bos_id, *ids]
            assert targets[row][here].tolist() == [*ids, tokenizer.eos_id]
            expected = [0] * len(prefix) + [1] * (len(ids) + 1 - len(prefix))
            assert weights[row][here].tolist() == expected
    texts = [[text.strip() for text in row] for row in batches.texts(batch)]
    assert texts == [list(example.captions) for example in examples] + [[]]
    prefixes = [tokenizer.encode_prefix(example.prefix) for example in examples]
    assert batches.prefixes(batch) == [*prefixes, prefixes[0]]
    assert batches.max_prefix_length == max(map(len, prefixes))


def test_the_loss_is_the_mean_over_the_tokens_after_the_prefixes(examples, captioner, batches):
    inputs, targets, weights = batches[0]
    total, count = 0.0, 0
    for row, example in enumerate(examples):
        memory = captioner.encoder({"images": inputs["images"][row : row + 1]})
        prefix = captioner.tokenizer.encode_prefix(example.prefix)
        for caption in example.captions:
            rest = captioner.tokenizer.encode(f" {caption}" if prefix else caption)
            tokens = np.array([[captioner.tokenizer.bos_id, *prefix, *rest]])
            logits = numpy(captioner.decoder(tokens, memory))[0, len(prefix) :]  # (T,V)
            log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            chosen = [*rest, captioner.tokenizer.eos_id]
            total -= log_probs[np.arange(len(chosen)), chosen].sum()
            count += len(chosen)
    captioner.compile("sgd", run_eagerly=True)
    loss = captioner.evaluate(inputs, targets, sample_weight=weights, verbose=0)
    assert float(np.ravel(loss)[0]) == pytest.approx(total / count, rel=1e-4)


def test_a_prefix_of_all_is_that_of_examples_without_one(examples, captioner):
    batches = make(examples, captioner, prefix="two")
    expected = [captioner.tokenizer.encode_prefix(text) for text in ("a picture of", "two")]
    assert batches.prefixes(batches[0])[:2] == expected
    assert [preview.prefix for preview in batches.previews(2)] == ["a picture of", "two"]
    assert batches.fingerprint != make(examples, captioner).fingerprint


def test_captions_that_do_not_fit_after_their_prefix_are_problems(examples, captioner):
    length = captioner.decoder.max_text_length
    long = replace(examples[0], prefix="x " * (length // 2))
    batches = make([long, examples[1]], captioner)
    assert batches.num_images == 1 and len(batches.problems) == 2
    assert "expected a caption of at most" in batches.problems[0].reason


def test_prefixes_are_read_from_a_column_or_field(tmp_path):
    lines = [
        "image,caption,prefix",
        "a.jpg,one,in short: ",
        "a.jpg,two,",
        "./a.jpg,three,in short:",
    ]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    records = [
        {"image": "a.jpg", "caption": ["one", "three"], "prefix": "in short:"},
        {"image": "a.jpg", "text": "two", "prefix": None},
        {"image": "b.jpg", "text": "four", "prefix": 4},
    ]
    (tmp_path / "x.json").write_text(json.dumps(records))
    expected = [(("one", "three"), "in short:"), (("two",), "")]
    for dataset in (read_csv(tmp_path / "x.csv"), read_json(tmp_path / "x.json")):
        assert [(x.captions, x.prefix) for x in dataset.examples] == expected
    assert "expected a prefix. Received: 4" in str(dataset.problems[0])
    assert dataset.captions() == ["in short: one", "in short: three", "two"]
    with pytest.raises(ValueError, match="Expected a column 'style'"):
        read_csv(tmp_path / "x.csv", prefix_column="style")
    with pytest.raises(ValueError, match="'caption' for captions and prefixes"):
        read_csv(tmp_path / "x.csv", prefix_column="caption")


def test_flips_depend_on_the_prefix_too():
    assert not Example(Path("a.jpg"), ("a dog",), "", "on the left,").can_flip


def test_validation_scores_the_text_after_the_prefix_of_each_photo(examples, captioner, batches):
    received, worst, num_photos = CiderValidator(captioner, batches, 3).validate()
    images = {"images": batches[0][0]["images"][:3]}
    longest = captioner.decoder.max_text_length - batches.max_prefix_length
    sampler = Greedy(max_new_tokens=min(30, longest))
    captions = captioner.generate_batch(images, sampler, prefix=PREFIXES)
    references = [[tokenize(text) for text in captions] for captions in CAPTIONS]
    texts = [tokenize(options[0].continuation) for options in captions]
    scores = CiderD(references).score(texts)
    assert received["val_cider"] == pytest.approx(scores.mean(), abs=1e-5) and num_photos == 3
    ((source, text, of_photo, cider),) = worst  # a third of the photos
    index = int(np.argmin(scores))
    assert source.name == examples[index].name and tuple(of_photo) == examples[index].captions
    assert text == captions[index][0].continuation.strip() and cider == pytest.approx(scores[index])


def test_validation_has_room_for_the_longest_captions(examples, captioner):
    long = replace(examples[0], captions=("night " * 7,))
    validator = CiderValidator(captioner, make([long, *examples[1:]], captioner), 3)
    (tokens,) = captioner.tokenizer.encode_captions(long.captions)
    assert 30 < len(tokens) < validator.sampler.max_new_tokens


@pytest.mark.slow
def test_previews_begin_with_their_prefixes(captioner, batches):
    texts = caption_previews(captioner, batches.previews(3))
    assert all(text.startswith(p.strip()) for text, p in zip(texts, PREFIXES, strict=True))


@pytest.mark.slow
def test_samples_of_scst_continue_the_prefixes_which_have_no_weight(captioner, batches):
    rewarded = []

    def reward(captions, finished, references):
        rewarded.append((captions, references))
        return np.random.default_rng(0).random((len(captions), len(captions[0])))

    objective = Scst(reward, ScstOptions(num_samples=2, max_new_tokens=5))
    objective.build(captioner)
    inputs, targets, weights = objective.sample_batch(batches, batches[0], 0)
    ((captions, references),) = rewarded
    assert [[text.strip() for text in row] for row in references] == [list(c) for c in CAPTIONS]
    for row, prefix in enumerate(batches.prefixes(batches[0])[:3]):
        for segment in (1, 2):
            here = inputs["segments"][row] == segment
            assert inputs["tokens"][row][here][1 : len(prefix) + 1].tolist() == prefix
            assert targets[row][here][: len(prefix)].tolist() == prefix
            assert not weights[row][here][: len(prefix)].any()
            generated = inputs["tokens"][row][here][len(prefix) + 1 :]
            assert captioner.tokenizer.decode(generated) == captions[row][segment - 1]
            assert weights[row][here][len(prefix) : len(prefix) + len(generated)].all()


def test_batches_of_shards_take_one_prefix(captioner, tmp_path):
    shards = write_shards(tmp_path / "shards", (5,))
    dataset = read_shards(shards, image_decoder="pillow")
    plain, batches = (dataset.batches(captioner, batch_size=4, prefix=p) for p in ("", "two "))
    prefix = captioner.tokenizer.encode_prefix("two")
    for batch in (batches[i] for i in range(len(batches))):
        assert batches.prefixes(batch) == [prefix] * 4
    assert batches.previews(1)[0].prefix == "two "
    assert batches.fingerprint != plain.fingerprint
    received = [[t.strip() for t in row] for row in batches.texts(batches[0])]
    assert received == [[t.strip() for t in row] for row in plain.texts(plain[0])]


@pytest.mark.slow
def test_presets_of_a_run_begin_their_captions_with_its_prefix(tmp_path):
    data = make_data(tmp_path / "data", 4)
    training = read_csv(data / "train.csv", data / "photos")
    options = RunOptions(
        model=make_variant(data / "tiny.json"),
        out=tmp_path / "run",
        decoder={"vocabulary_size": 300},
        training={"steps": 1, "num_cider_photos": 0},
        prefix="a picture of ",
    )
    run(training, None, options)
    best = tmp_path / "run" / "best"
    assert Captioner.from_preset(best).prefix == "a picture of"
    assert json.loads((best / "training.json").read_text())["prefix"] == "a picture of"
    assert RunOptions(model=best, out=tmp_path / "next").text_prefix == "a picture of"
    assert RunOptions(model=best, out=tmp_path / "next", prefix="").text_prefix == ""
