"""POST /caption: settings, photos and their limits."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import importlib.util
import json
import struct
import zipfile
import zlib
from dataclasses import fields as fields_of
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")

from effcap.samplers.registry import SAMPLERS
from effcap.tools.serving.api import create_api
from effcap.tools.serving.caption_service import CaptionService
from effcap.tools.serving.guard import Guard
from effcap.tools.serving.sampler_settings import parse_sampler, sampler_settings
from effcap.tools.serving.serve_options import ServeOptions
from helpers.serving import BOUNDARY, FakeCaptioner, call, color_words, form, photo_bytes, post

OPTIONS = ServeOptions(
    batch_size=4, queue_size=6, max_photos=5, max_upload=0.01, max_request=0.03, timeout=5
)
RED, BLUE = (200, 16, 16), (16, 16, 200)
RED_TEXT, BLUE_TEXT = " ".join(color_words(RED)), " ".join(color_words(BLUE))


@pytest.fixture
def fake():
    return FakeCaptioner()


def serving(fake, options=OPTIONS, **captioners):
    """Returns the service and the guarded endpoints of a captioner."""
    service = CaptionService({"fake": fake, **captioners}, options)
    return service, Guard(create_api(service), options)


@pytest.fixture
def app(fake):
    service, app = serving(fake)
    yield app
    fake.proceed.set()
    service.close(10)


def run(*calls):
    """Runs coroutines at the same time and returns their results."""

    async def together():
        return await asyncio.gather(*calls)

    answers = asyncio.run(together())
    return answers[0] if len(answers) == 1 else answers


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_forms_and_json_give_the_same_answer(app):
    photos = [photo_bytes(RED), photo_bytes(BLUE)]
    parts = [("photos", "a b.png", photos[0]), ("photos", "ü.png", photos[1])]
    named = [{"name": name, "data": encoded(data)} for _, name, data in parts]
    fields = {"sampler": "beam", "num_captions": 2, "num_beams": 3, "prefix": "a"}
    texts = [(name, None, str(value).encode()) for name, value in fields.items()]
    by_form = run(post(app, *form(*parts, *texts)))
    by_json = run(post(app, {"photos": named, **fields}))
    assert by_form.status == by_json.status == 200
    assert by_form.json == by_json.json
    assert by_json.json["captions"] == [f"a {RED_TEXT}", f"a {BLUE_TEXT}"]
    assert by_json.json["scores"] == [-1.0, -1.0]
    assert [photo["name"] for photo in by_json.json["photos"]] == ["a b.png", "ü.png"]
    assert [c["score"] for c in by_json.json["photos"][1]["captions"]] == [-1.0, -2.0]
    assert by_json.json["sampler"]["num_beams"] == 3


def test_answers_fit_the_published_schema(app, fake):
    document = run(call(app, "GET", "/openapi.json")).json
    operation = document["paths"]["/caption"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = run(post(app, {"photos": [encoded(photo_bytes())], "details": True})).json
    assert set(answer) == set(schema["properties"]) == set(schema["required"])
    caption = schema["properties"]["photos"]["items"]["properties"]["captions"]["items"]
    assert set(answer["photos"][0]["captions"][0]) == set(caption["properties"])
    fields = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    samplers = {field.name for cls in SAMPLERS.values() for field in fields_of(cls)}
    assert samplers | {"photos", "preset", "sampler", "prefix", "details"} == set(fields)


def test_the_page_of_the_endpoint_loads_nothing(app):
    page = run(call(app, "GET", "/docs"))
    assert page.status == 200
    text = page.body.decode()
    assert "num_beams" in text and "413" in text
    limits = text[text.index("<h2>Limits") : text.index("<h2>Answer")]
    for row in ("max_photos</code></th><td>5<", "max_request</code></th><td>0.03<"):
        assert row in limits
    assert "http" not in text.replace("http://127.0.0.1:7860", "")


def test_concurrent_requests_share_a_batch(app, fake):
    fake.proceed.clear()
    first = photo_bytes((0, 240, 0))

    async def together():
        ahead = asyncio.create_task(post(app, {"photos": [encoded(first)]}))
        while not fake.batches:
            await asyncio.sleep(0.001)
        rest = [
            asyncio.create_task(post(app, {"photos": [encoded(photo_bytes(color))]}))
            for color in (RED, BLUE)
        ]
        while (await call(app, "GET", "/health")).json["queue"] < 2:
            await asyncio.sleep(0.001)
        fake.proceed.set()
        return [await task for task in (ahead, *rest)]

    answers = asyncio.run(together())
    assert [answer.json["captions"][0] for answer in answers[1:]] == [RED_TEXT, BLUE_TEXT]
    assert [len(images) for images, _, _ in fake.batches] == [1, 4]  # padded to the full batch
    assert fake.batches[1][2] == [0, 0, 0, 0]  # the index of each photo in its own request


def test_captions_are_those_of_the_captioner(captioner, eager):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (20, 30, 3), np.uint8) for _ in range(2)]

    def png(pixels):
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    service = CaptionService({"tiny": captioner}, ServeOptions(batch_size=2))
    app = create_api(service)
    body = {
        "photos": [encoded(png(photo)) for photo in photos],
        "sampler": "nucleus",
        "seed": 7,
        "max_new_tokens": 3,
        "details": True,
    }
    answer = run(post(app, body)).json
    sampler = SAMPLERS["nucleus"](seed=7, max_new_tokens=3)
    expected = captioner.generate([png(photo) for photo in photos], sampler, details=True)
    assert answer["captions"] == [captions[0].text for captions in expected]
    assert answer["scores"] == pytest.approx([captions[0].score for captions in expected], abs=1e-4)
    entry = answer["photos"][1]["captions"][0]
    assert entry["confidence"] == pytest.approx(expected[1][0].confidence, abs=1e-4)
    assert [t["token"] for t in entry["tokens"]] == [d.token for d in expected[1][0].details]
    service.close(10)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"sampler": "best"}, "beam, greedy, nucleus"),
        ({"num_beams": "many"}, "Expected num_beams as an integer"),
        ({"num_beams": 1.5}, "an integer"),
        ({"num_beams": True}, "an integer"),
        ({"num_beams": 10**9}, "at most 32"),
        ({"num_beams": 2, "num_captions": 3}, "must not exceed"),
        ({"top_p": 0.5}, "requires the sampler nucleus"),
        ({"sampler": "nucleus", "temperature": "1e999"}, "finite"),
        ({"sampler": "nucleus", "temperature": 10**400}, "a number"),
        ({"max_new_tokens": 17}, "at most 16"),
        ({"suppress_tokens": [1000]}, "below"),
        ({"suppress_tokens": {"a": 1}}, "a list of integers"),
        ({"beams": 3}, "Unknown field 'beams'"),
        ({"beams": ""}, "Unknown field 'beams'"),
        ({"preset": "/etc"}, "Expected preset as one of fake"),
        ({"preset": ["fake"]}, "Expected preset as a text"),
        ({"prefix": 3}, "Expected prefix as a text"),
        ({"prefix": "a " * 40}, "prefix of at most"),
        ({"prefix": "a" * 2001}, "at most 2000 characters. Received: 2001"),
        ({"exclude": ["a"] * 33, "include": ["b|c"] * 16}, "64 phrases"),
        ({"exclude": "a" * 999, "include": [["b" * 501, "c" * 501]]}, "at most 2000 characters"),
        ({"suppress_tokens": [1] * 1001}, "at most 1000 suppress_tokens. Received: 1001"),
        ({"sampler": "b" * 79 + "est"}, "bbbe'"),  # shortened
        ({"details": "maybe"}, "true or false"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(app, fake, values, message):
    answer = run(post(app, {"photos": [encoded(photo_bytes())], **values}))
    assert answer.status == 422
    assert message in answer.json["error"]
    assert not fake.batches


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and has no pixels to speak of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def zip_bytes() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("dog.jpg", b"0" * 1000)
    return file.getvalue()


def part_header(*lines: bytes) -> bytes:
    """Returns the beginning of a form with the headers of its first part."""
    return f"--{BOUNDARY}\r\n".encode() + b"\r\n".join(lines) + b"\r\n"


HOSTILE = {
    "empty": b"",
    "truncated": photo_bytes(size=64)[:-30],
    "html": b"<html><script>alert(1)</script></html>",
    "zip": zip_bytes(),
    "bomb": png_header(60_000, 60_000),
    "huge": png_header(20_000, 6_000),
    "wide": png_header(2**31 - 1, 1),
    "path": b"/etc/passwd",
    "random": bytes(range(256)) * 8,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_photo_is_named_with_the_reason(app, fake, name):
    good = ("photos", "good.png", photo_bytes())
    answer = run(post(app, *form(good, ("photos", f"{name} é.jpg", HOSTILE[name]))))
    assert answer.status == 422
    (photo,) = answer.json["photos"]
    assert photo["name"] == f"{name} é.jpg" and photo["error"]
    assert not fake.batches  # nothing is captioned of a request that is refused


def test_a_photo_of_one_pixel_is_captioned(app):
    answer = run(post(app, *form(("photos", "", photo_bytes(RED, size=1)))))
    assert answer.json["captions"] == [RED_TEXT]
    assert answer.json["photos"][0]["name"] == "photo 1"


@pytest.mark.parametrize(
    "body, content_type, status, message",
    [
        (b"", "application/json", 400, "Expected JSON"),
        (b"[" * 60_000, "application/json", 400, "Expected JSON"),
        (b"[" * 100_000, "application/json", 413, "65536 bytes of JSON"),
        (b'{"photos": ["eA=="], "x": "' + b"x" * 65_536 + b'"}', "application/json", 413, "65536"),
        (b'{"photos": [{"name": "' + b"x" * 65_536 + b'"}]}', "application/json", 413, "65536"),
        (b'{"photos": [{"name": "\\ud800", "data": 1}]}', "application/json", 400, "surrogate"),
        (b"\xff\xfe", "application/json", 400, "Expected JSON"),
        (b"[]", "application/json", 400, "JSON object"),
        (b"{}", "application/json", 400, 'a list "photos"'),
        (b'{"photos": []}', "application/json", 400, "at least one photo"),
        (b'{"photos": ["eA=="], "prefix": "\\ud800"}', "application/json", 400, "surrogate"),
        (b'{"photos": [{"name": "\\udc00", "data": ""}]}', "application/json", 400, "surrogate"),
        (b'{"photos": [3]}', "application/json", 400, "base64"),
        (b'{"photos": ["/etc/passwd"]}', "application/json", 400, "never opened"),
        (b'{"photos": ["http://127.0.0.1/"]}', "application/json", 400, "never opened"),
        (b'{"photos": [{"path": "/etc/passwd"}]}', "application/json", 400, "base64"),
        (json.dumps({"photos": [""] * 6}).encode(), "application/json", 413, "at most 5 photos"),
        (photo_bytes(), "image/png", 415, "multipart/form-data or application/json"),
        (photo_bytes(), "", 415, "multipart/form-data or application/json"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x", "multipart/form-data; boundary=" + "b" * 500, 400, "damaged"),
        (b"nothing here", form()[1], 400, "damaged"),
        (form(("photos", "a.png", b"1234"))[0][:-20], form()[1], 400, "truncated"),
        (form()[0], form()[1], 400, "at least one photo"),
        (form(("photos", None, b"/etc/passwd"))[0], form()[1], 400, "never opened"),
        (form(("image", "a.png", b"x"))[0], form()[1], 400, 'in the field "photos"'),
        (form(*[("photos", "a.png", b"x")] * 6)[0], form()[1], 413, "at most 5 photos"),
        (form(*[("f", None, b"x")] * 2)[0], form()[1], 400, "Expected one f"),
        (form(*[(f"f{i}", None, b"x") for i in range(65)])[0], form()[1], 413, "64 fields"),
        (form(("photos", "big.png", b"x" * 11_000))[0], form()[1], 413, "big.png is too large"),
        (part_header(*[b"X: " + b"x" * 3_000] * 3), form()[1], 413, "8192 bytes of headers"),
        (part_header(*[b"X: " + b"x" * 20_000]), form()[1], (400, 413), "eader"),
        (part_header(*[b"X: x"] * 17), form()[1], (400, 413), "header"),
    ],
)  # fmt: skip
def test_damaged_and_large_bodies_are_refused(app, body, content_type, status, message):
    answer = run(post(app, body, content_type))
    statuses = status if isinstance(status, tuple) else (status,)  # by version of the parser
    assert answer.status in statuses and message in answer.json["error"], answer.json


def test_large_bodies_are_refused_while_they_arrive(app, monkeypatch):
    monkeypatch.setattr("effcap.tools.serving.guard.DRAIN_SECONDS", 0.01)
    body, content_type = form(*[("photos", "a.png", b"x" * 9_000)] * 5)
    too_much = OPTIONS.request_bytes // 1000 + 1
    chunks = [body[i : i + 1000] for i in range(0, len(body), 1000)]
    assert too_much < len(chunks)
    answer = run(post(app, [*chunks[:too_much], ...], content_type))  # the rest never arrives
    assert answer.status == 413
    headers = {"Content-Length": str(10**12), "Content-Type": content_type}
    answer = run(call(app, "POST", "/caption", b"x", headers))
    assert answer.status == 413 and "0.03 MB" in answer.json["error"]


def test_bodies_that_stop_arriving_are_refused(fake):
    service, app = serving(fake, ServeOptions(timeout=0.05))
    answer = run(post(app, [b'{"photos":', ...]))
    assert answer.status == 408
    service.close(10)


def test_a_full_queue_says_when_to_try_again(app, fake):
    fake.proceed.clear()
    body = {"photos": [encoded(photo_bytes())] * 5}

    async def together():
        tasks = [asyncio.create_task(post(app, body)) for _ in range(3)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        fake.proceed.set()
        return [await task for task in tasks]

    answers = asyncio.run(together())
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert all(len(a.json["captions"]) == 5 for a in answers if a.status == 200)


def test_captions_that_take_too_long_are_dropped(fake):
    service, app = serving(fake, ServeOptions(timeout=0.3))
    fake.proceed.clear()
    body = {"photos": [encoded(photo_bytes())]}

    async def together():
        first = asyncio.create_task(post(app, body))
        while not fake.batches and not first.done():
            await asyncio.sleep(0.001)
        return await asyncio.gather(first, post(app, body))

    slow, waiting = asyncio.run(together())
    assert slow.status == waiting.status == 504
    assert service.batcher.num_waiting == 0
    fake.proceed.set()
    service.close(10)
    assert [len(images) for images, _, _ in fake.batches] == [1]  # that of the first request


def test_a_failure_of_the_captioner_is_no_traceback(app, fake):
    fake.error = RuntimeError("secret")
    messages = []

    async def recorded(scope, receive, send):
        async def record(message):
            messages.append(message)
            await send(message)

        await app(scope, receive, record)

    with pytest.raises(RuntimeError, match="secret"):  # the server logs it, after the answer
        run(post(recorded, {"photos": [encoded(photo_bytes())]}))
    assert messages[0]["status"] == 500
    body = b"".join(message["body"] for message in messages[1:])
    assert json.loads(body) == {"error": "The server failed; its log says why"}
    fake.error = None
    assert run(post(app, {"photos": [encoded(photo_bytes(RED))]})).json["captions"] == [RED_TEXT]


def test_settings_that_turn_out_to_be_impossible_are_refused(app, fake):
    fake.error = ValueError("there are no tokens for\n'x'")
    answer = run(post(app, {"photos": [encoded(photo_bytes())], "exclude": ["x"]}))
    assert (answer.status, answer.json["error"]) == (422, "there are no tokens for 'x'")


def test_captions_leave_room_for_the_prefix(app, fake):
    for values in ({}, {"sampler": "greedy"}):
        answer = run(post(app, {"photos": [encoded(photo_bytes())], "prefix": "a b c", **values}))
        assert answer.json["sampler"]["max_new_tokens"] == 13  # of 16 positions


def test_health_reports_presets_and_queue(fake):
    service, app = serving(fake, other=FakeCaptioner())
    answer = run(call(app, "GET", "/health")).json
    assert answer["status"] == "ok" and answer["presets"] == ["fake", "other"]
    assert answer["queue"] == 0 and answer["version"]
    service.close(10)


def test_settings_have_the_defaults_of_the_samplers():
    for name, cls in SAMPLERS.items():
        fields = {
            field: setting.defaults[name]
            for field, setting in sampler_settings().items()
            if name in setting.defaults
        }
        assert fields == {field.name: field.default for field in fields_of(cls)}


def test_empty_settings_are_the_sampler_of_the_preset():
    assert parse_sampler(None, {}) is None
    assert parse_sampler("", {"num_beams": "", "seed": ""}) is None
    assert parse_sampler(None, {"num_beams": "3"}) == {"kind": "beam", "num_beams": 3}
    assert parse_sampler("nucleus", {"seed": None}) == {"kind": "nucleus", "seed": None}
    listed = parse_sampler("greedy", {"suppress_tokens": "5, 6"})
    assert listed == {"kind": "greedy", "suppress_tokens": (5, 6)}
    for empty in ("[]", [], ","):
        assert parse_sampler("beam", {"exclude": empty}) == {"kind": "beam", "exclude": ()}
    with pytest.raises(ValueError, match="Expected num_beams as an integer. Received: null"):
        parse_sampler("beam", {"num_beams": None})


def test_without_the_page_the_endpoints_need_no_gradio(fake, monkeypatch):
    from effcap.tools.serving.server import check_packages, create_app

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else find_spec(name)
    )
    check_packages(page=False)
    with pytest.raises(ImportError, match=r"effcap\[serve\].*missing: gradio\); or --no-page"):
        check_packages()
    service = CaptionService({"fake": fake}, dataclasses.replace(OPTIONS, page=False))
    app = create_app(service)
    start, answer = run(
        call(app, "GET", "/"), post(app, *form(("photos", "red.png", photo_bytes(RED))))
    )
    service.close(10)
    assert start.status == 307 and start.headers["location"] == "docs"
    assert answer.json["captions"] == [RED_TEXT]
