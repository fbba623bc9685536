"""The page of the server: its cards, its runs, and the whole of it in a browser."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effcap.caption import Caption
from effcap.tools.serving.heatmaps import caption_words, word_heatmaps
from effcap.tools.serving.result_cards import Column, error_card, photo_card
from effcap.tools.serving.serve_options import ServeOptions
from helpers.chromium import Chromium
from helpers.serving import FakeCaptioner, color_words, photo_bytes

PHOTOS = Path(__file__).resolve().parents[2] / "res" / "photos"


def test_cards_escape_names_and_captions_and_keep_the_text():
    evil = '<img src=x onerror="alert(1)">'
    caption = Caption(f"a {evil} dog", -1.5, (1,))
    column = Column("p", "beam", [caption, caption], [evil, "dog"], "0-0")
    card = photo_card(evil, photo_bytes(), [column])
    assert evil not in card and evil not in error_card(evil, evil)
    (first, _) = re.findall(r"<p dir=\"auto\">(.*?)</p>", card)
    assert html.unescape(re.sub(r"<[^>]+>", "", first)) == caption.text
    words = re.findall(r'data-number="(\d+)">(.*?)</span>', first)
    assert [(n, html.unescape(word)) for n, word in words] == [("0", evil), ("1", "dog")]
    (rows,) = re.findall(r'data-rows="([^"]*)"', card)
    row = [evil, "p", "beam", 1, caption.text, -1.5, caption.confidence]
    assert json.loads(html.unescape(rows)) == [row, [*row[:3], 2, *row[4:]]]


def test_heatmaps_cover_the_photo_with_a_picture_per_word(captioner, eager):
    data = photo_bytes(size=32)
    caption = Caption("a dog runs", -1.0, tuple(captioner.tokenizer.encode_captions(["a dog"])[0]))
    maps = word_heatmaps(captioner, data, caption)
    assert [word for word, _ in maps] == caption_words(captioner, caption) == ["a", "dog"]
    expected = captioner.attention(data, caption).maps  # (W,h,w)
    for heat, (_, address) in zip(expected, maps, strict=True):
        image = Image.open(BytesIO(b64decode(address.partition(",")[2])))
        assert image.mode == "RGBA" and max(image.size) == 48
        alpha = np.asarray(image.getchannel("A").resize(heat.shape[::-1], Image.Resampling.BOX))
        assert np.corrcoef(alpha.ravel(), heat.ravel())[0, 1] > 0.95


@pytest.mark.slow  # imports Gradio
class TestPage:
    """Runs of the page with a captioner that answers at once."""

    @pytest.fixture(autouse=True)
    def page(self, monkeypatch):
        pytest.importorskip("gradio")
        monkeypatch.setattr("effcap.tools.serving.page_app.caption_words", lambda *_: [])
        from effcap.tools.serving.caption_service import CaptionService

        options = ServeOptions(batch_size=2, queue_size=4, max_photos=3, timeout=5)
        self.fake = FakeCaptioner()
        self.service = CaptionService({"fake": self.fake}, options)
        yield
        self.fake.proceed.set()
        self.service.close(10)

    def run(self, *photos, columns=1):
        """Returns the (status, results, maps) that the page shows after each step."""
        from effcap.tools.serving.caption_service import Upload
        from effcap.tools.serving.page_app import ResultPage

        settings = self.service.captioners.settings("fake", None, {}, None)
        uploads = [Upload(f"{number} é.png", data) for number, data in enumerate(photos)]

        async def states():
            page = ResultPage(self.service, uploads, [settings] * columns)
            return [state async for state in page.run()]

        return asyncio.run(states())

    def test_cards_are_added_one_by_one(self):
        colors = [(0, 0, 240), (0, 240, 0), (240, 0, 0)]
        states = self.run(*map(photo_bytes, colors), columns=2)
        results = [state[1] for state in states]
        assert all(later.startswith(earlier) for earlier, later in pairwise(results))
        assert [text.count("<article") for text in results] == [0, 1, 2, 3, 3][: len(results)]
        for color in colors:
            assert results[-1].count(f"{' '.join(color_words(color))}</p>") == 2

    def test_a_photo_that_cannot_be_read_gets_a_card_of_its_own(self):
        last = self.run(b"no photo", photo_bytes())[-1]
        assert last[1].count('role="alert"') == 1 and "not an image" in last[1]
        assert last[1].count("ec-best") == 1

    def test_photos_are_counted_and_measured_before_they_are_read(self, tmp_path):
        from effcap.tools.serving.page_app import caption_page

        def status(*paths):
            async def states():
                return [state[0] async for state in caption_page(self.service, paths, [], [])]

            return asyncio.run(states())

        missing = [str(tmp_path / f"{number}.png") for number in range(4)]
        assert "At most 3 photos at once. Received: 4" in status(*missing)[0]
        assert "Drop them again" in status(*missing[:3])[0]
        self.service.options = ServeOptions(max_upload=1, max_request=1.5)
        for path in missing:
            with open(path, "wb") as file:
                file.truncate(2**20)
        assert "at most 1.5 MB together. Received: 2 MB" in status(*missing[:2])[0]

    def test_a_failing_batch_leaves_the_other_photos(self, monkeypatch, capsys):
        generate = self.fake.generate_batch

        def fail_on_black(inputs, *arguments, **options):
            if not inputs["images"][0].any():
                raise RuntimeError("out of\nmemory")
            return generate(inputs, *arguments, **options)

        monkeypatch.setattr(self.fake, "generate_batch", fail_on_black)
        black, red = (0, 0, 0), (240, 0, 0)
        last = self.run(*map(photo_bytes, (black, black, red)))[-1]  # batches of two
        assert last[1].count("The server failed; its log says why") == 2
        assert last[1].count("<article") == 3 and " ".join(color_words(red)) in last[1]
        assert "fake failed: RuntimeError: out of memory\n" in capsys.readouterr().err

    def test_a_failing_map_leaves_the_others(self, monkeypatch, capsys):
        done = []

        def maps(captioner, data, caption):
            done.append(caption.text)
            if len(done) == 1:
                raise RuntimeError("no gradient")
            return [("word", "data:,x")]

        monkeypatch.setattr("effcap.tools.serving.page_app.caption_words", lambda *_: ["word"])
        monkeypatch.setattr("effcap.tools.serving.caption_service.word_heatmaps", maps)
        *_, last = self.run(photo_bytes(), photo_bytes())
        assert re.findall('data-maps="(.*?)"', last[2]) == ["1-0"]
        assert last[1].count("ec-best") == 2
        assert "RuntimeError: no gradient" in capsys.readouterr().err

    def test_a_preset_brings_its_own_sampler_and_prefix(self):
        import gradio

        from effcap.samplers import Beam, Nucleus
        from effcap.tools.serving.served_captioners import ServedCaptioners
        from effcap.tools.serving.setting_controls import add_controls, preset_values

        fakes = {name: FakeCaptioner() for name in ("first", "second")}
        fakes["first"].sampler = Beam(num_beams=2, exclude=("x",), max_new_tokens=9)
        fakes["second"].sampler = Nucleus(
            top_p=0.25, seed=3, include=(("a", "b"), "c"), max_new_tokens=8
        )
        fakes["second"].prefix = "my"
        captioners = ServedCaptioners(fakes)
        with gradio.Blocks():
            controls = add_controls(captioners)
        for name, fake in fakes.items():
            values = preset_values(captioners, name, list(controls.fields))
            values = [one["value"] if isinstance(one, dict) else one for one in values]
            settings = controls.read(captioners, [name, *values])
            assert (settings.prefix, settings.sampler) == (fake.prefix, fake.sampler)

    def test_stopping_and_clearing_cancel_all_runs(self):
        from effcap.tools.serving.page_app import create_blocks

        events = create_blocks(self.service).get_config_file()["dependencies"]
        runs = {event["id"] for event in events if len(event["inputs"]) > 2}
        assert len(runs) == 2  # of dropped photos and of the sample photos
        cancelled = [set(event["cancels"]) for event in events if event["cancels"]]
        assert cancelled == [runs, runs]

    def test_a_full_queue_and_a_timeout_are_reported(self, monkeypatch):
        self.fake.proceed.clear()
        self.service.options = ServeOptions(timeout=0.05)
        assert "took longer" in self.run(photo_bytes())[-1][1]
        monkeypatch.setattr(self.service.batcher, "_queue_size", 0)
        assert "queue is full" in self.run(photo_bytes())[-1][0]


@pytest.fixture(scope="module")
def server():
    """A server of a captioner that answers at once, without looking."""
    for package in ("gradio", "uvicorn"):
        pytest.importorskip(package)
    from effcap.tools import serve

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("effcap.tools.serving.page_app.caption_words", lambda _, c: c.text.split())
        patch.setattr(
            "effcap.tools.serving.caption_service.word_heatmaps",
            lambda _, data, c: [(word, f"data:,{word}") for word in c.text.split()],
        )
        options = ServeOptions(port=0, max_upload=0.1)
        with serve({"fake": FakeCaptioner()}, options, block=False) as running:
            yield running


@pytest.mark.slow
def test_a_photo_dropped_in_a_browser_is_captioned(server, tmp_path):
    bad = tmp_path / "no photo é.jpg"
    bad.write_bytes(b"no photo")
    with Chromium(tmp_path / "profile") as browser:
        browser.open(server.url)
        browser.wait_for("document.querySelector('#photos input[type=file]')")
        browser.choose_files("#photos input[type=file]", [PHOTOS / "cat.jpg", bad])
        browser.wait_for("document.querySelector('[data-maps=\"0-0\"]')")
        text = browser.evaluate("document.querySelector('.ec-best p').innerText")
        assert re.fullmatch(r"r\d+ g\d+ b\d+", text)
        assert "not an image" in browser.evaluate("document.querySelector('.ec-error').innerText")
        browser.hover(".ec-word[data-number='1']")
        browser.wait_for("document.querySelector('.ec-on .ec-heat').src.startsWith('data:,g')")
        browser.evaluate("document.querySelector('#compare input').click()")
        browser.wait_for("document.querySelectorAll('input[type=radio]').length == 6")
        browser.evaluate("document.querySelector('#run').click()")
        browser.wait_for("document.querySelectorAll('.ec-columns h3').length == 2")
        assert browser.evaluate("document.querySelectorAll('.ec-failed').length") == 0
        assert [u for u in browser.requested if not u.startswith(server.url)] == []
        assert browser.problems == []


@pytest.mark.slow
def test_gradio_reads_no_file_and_fetches_no_address(server):
    config = json.load(urllib.request.urlopen(f"{server.url}/config"))
    types = {component["id"]: component["type"] for component in config["components"]}
    run = next(
        dependency
        for dependency in config["dependencies"]
        if any(types[number] == "file" for number in dependency["inputs"])
    )
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", str(PHOTOS / "cat.jpg"), f"{server.url}/health", "../x"):
        data = [[{**file, "path": path}] for _ in run["inputs"]]
        body = {"data": data, "fn_index": run["id"], "session_hash": "s"}
        request = urllib.request.Request(
            f"{server.url}/gradio_api/queue/join",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
    for path in ("gradio_api/file=/etc/passwd", "static/..%2f..%2f..%2fetc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.url}/{path}")
        assert refused.value.code == 404


@pytest.mark.slow
def test_stopping_finishes_requests_and_frees_the_port():
    for package in ("gradio", "uvicorn"):
        pytest.importorskip(package)
    from effcap.tools import serve
    from effcap.tools.serving.server import listen

    fake, answers = FakeCaptioner(), []
    server = serve({"fake": fake}, ServeOptions(port=0, batch_size=1), block=False)
    fake.proceed.clear()
    done = len(fake.batches)
    body = json.dumps({"photos": [b64encode(photo_bytes()).decode()]}).encode()

    def client():
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.url}/caption", body, headers)
        answers.append(urllib.request.urlopen(request, timeout=20).status)

    thread = threading.Thread(target=client)
    thread.start()
    while len(fake.batches) == done:
        time.sleep(0.01)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", server.port)
    threading.Timer(0.2, fake.proceed.set).start()
    server.close()
    thread.join(20)
    assert answers == [200]
    listen("127.0.0.1", server.port).close()


def small_server(monkeypatch, app):
    """Returns a server of an application without a page."""
    for package in ("gradio", "uvicorn"):
        pytest.importorskip(package)
    from effcap.tools.serving.guard import Guard
    from effcap.tools.serving.server import Server

    monkeypatch.setattr(
        "effcap.tools.serving.server.create_app", lambda service: Guard(app, service.options)
    )
    return Server({"fake": FakeCaptioner()}, ServeOptions(port=0))


def test_an_application_that_does_not_start_is_an_error(monkeypatch):
    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no resources"})

    server = small_server(monkeypatch, broken)
    server.start()
    with pytest.raises(RuntimeError, match="the application did not start"):
        server.wait()


def test_a_second_interrupt_cuts_the_requests_that_the_first_one_finishes(monkeypatch):
    waiting, answers = threading.Event(), []

    async def endless(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            waiting.set()
            await asyncio.Event().wait()

    server = small_server(monkeypatch, endless)
    former = signal.getsignal(signal.SIGINT)

    def client():
        try:
            urllib.request.urlopen(f"{server.url}/health", timeout=20)
        except OSError as error:
            answers.append(error)

    def interrupt():
        waiting.wait(20)
        while signal.getsignal(signal.SIGINT) is former:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        answers.append("first")
        os.kill(os.getpid(), signal.SIGINT)

    server.start()
    threads = [threading.Thread(target=target) for target in (client, interrupt)]
    for thread in threads:
        thread.start()
    server.wait()
    for thread in threads:
        thread.join(20)
    assert answers[0] == "first" and len(answers) == 2
    assert signal.getsignal(signal.SIGINT) is former
