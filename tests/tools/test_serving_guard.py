"""What the server refuses before the application sees it."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("fastapi")

from effcap.tools.serving.guard import Guard
from effcap.tools.serving.page_files import PageFiles
from effcap.tools.serving.serve_options import ServeOptions
from effcap.tools.serving.upload_folder import delete_old_files
from helpers.serving import call

JSON = {"Content-Type": "application/json"}


async def echo(scope, receive, send):
    """Answers with the body of the request."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def answer(path, headers=None, method="GET", body=b"", app=echo, options=None):
    return asyncio.run(call(Guard(app, options or ServeOptions()), method, path, body, headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": "http://127.0.0.1:7860.evil.example"},
        {"Origin": "http://user@127.0.0.1:7860"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Host": "evil.example"},
        {"Host": "evil.example:7860", "Origin": "http://evil.example:7860"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
    ],
)
def test_pages_of_other_sites_are_refused(headers):
    for method, path in (("POST", "/caption"), ("GET", "/health")):
        refused = answer(path, headers, method)
        assert refused.status == 403
        assert not any(name.startswith("access-control") for name in refused.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:7860"},
        {"Host": "localhost:7860", "Origin": "http://localhost:7860"},
        {"Host": "[::1]:7860"},
        {"Host": "192.168.1.20"},
        {"Host": "captions.example", "Origin": "https://captions.example"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},  # a link to the page
    ],
)
def test_programs_and_the_page_itself_are_served(headers):
    options = ServeOptions(allow_host=("captions.example",))
    assert answer("/health", headers, options=options).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/component_server",
        "/gradio_api/run/predict",
        "/gradio_api/call/x",
        "/assets/../../etc/passwd",
        "/assets//etc/passwd",
        "/static/..\\secret",
        "/assetsx",
        "/anything",
        "//health",
    ],
)
def test_paths_that_the_page_does_not_need_do_not_exist(path):
    for method in ("GET", "POST"):
        assert answer(path, method=method).status == 404


def test_other_methods_are_refused():
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        assert answer("/caption", method=method).status == 405
    assert answer("/caption").status == 405
    assert answer("/health", method="POST").status == 405


def test_answers_forbid_to_load_from_elsewhere():
    for path in ("/health", "/nothing"):
        policy = answer(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy and "http://" not in policy.split("frame-")[0]


def test_uploads_share_a_limited_memory():
    options = ServeOptions(max_request=0.01)
    guard = Guard(echo, options)
    guard._buffered = 8 * options.request_bytes - 10
    refused = asyncio.run(call(guard, "POST", "/caption", b"x" * 11))
    assert refused.status == 503 and refused.headers["retry-after"]
    assert asyncio.run(call(guard, "POST", "/caption", b"x" * 10)).status == 200
    assert guard._buffered == 8 * options.request_bytes - 10


def test_streams_end_when_the_server_stops():
    async def forever(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.Event().wait()

    async def stopped():
        guard = Guard(forever, ServeOptions())
        task = asyncio.create_task(call(guard, "GET", "/gradio_api/queue/data"))
        await asyncio.sleep(0.01)
        guard.closing.set()
        return await asyncio.wait_for(task, 5)

    assert asyncio.run(stopped()).body == b"one"


def test_files_that_were_not_uploaded_are_refused(tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "a b é.jpg").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (uploads / "link").symlink_to(tmp_path / "secret")
    app = PageFiles(echo, uploads)

    def join(*paths):
        files = [{"path": str(path), "meta": {"_type": "gradio.FileData"}} for path in paths]
        body = json.dumps({"data": [[files], "text"], "fn_index": 0}).encode()
        sent = answer("/gradio_api/queue/join", JSON, "POST", body, app)
        assert sent.status != 200 or sent.body == body
        return sent.status

    assert join(uploads / "a b é.jpg") == join() == 200
    for path in (
        tmp_path / "secret",
        uploads / ".." / "secret",
        uploads / "link",
        uploads,
        uploads / "missing",
        "/etc/passwd",
        "etc/passwd",
        "http://127.0.0.1/a.jpg",
        "",
        "a\0b",
        "x" * 5000,
    ):
        assert join(uploads / "a b é.jpg", path) == 403, path
    for body in (b"", b"[" * 100_000, b'{"path": 3}'):
        assert answer("/gradio_api/queue/join", JSON, "POST", body, app).status in (400, 403)


def test_uploads_are_refused_while_the_folder_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("effcap.tools.serving.page_files.MAX_BYTES", 10)
    app = PageFiles(echo, tmp_path)
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "a b é.jpg").write_bytes(b"x" * 10)
    assert answer("/gradio_api/upload", method="POST", body=b"photo", app=app).body == b"photo"
    (tmp_path / "broken off").write_bytes(b"x")
    chunks = [b"photo", b"photo"]
    refused = answer("/gradio_api/upload", method="POST", body=chunks, app=app)
    assert refused.status == 503 and refused.headers["retry-after"]
    assert answer("/gradio_api/queue/join", JSON, "POST", b"{}", app).status == 200


def test_old_uploads_are_deleted(tmp_path):
    (tmp_path / "hash").mkdir()
    for name in ("hash/a b é.jpg", "broken off"):
        (tmp_path / name).write_bytes(b"x" * 10)
    assert delete_old_files(tmp_path) == 20
    assert delete_old_files(tmp_path, max_age=-60) == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
