"""Tests of effcap.weights.download against local servers, some of them faulty."""

from __future__ import annotations

import base64
import hashlib
import math
import shutil
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from effcap.weights import download
from effcap.weights.download import download_gpt2
from helpers.gpt2_writers import shapes_of, write_folder

CONFIG = {"vocab_size": 31, "n_positions": 50, "n_embd": 16, "n_head": 4, "n_layer": 3}
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """Returns the contents of OpenAI's files for one size, by name."""
    shapes, rng = shapes_of(CONFIG), np.random.default_rng(0)
    folder = write_folder(
        "checkpoint",
        tmp_path_factory.mktemp("published"),
        CONFIG,
        shapes,
        lambda name: rng.normal(size=shapes[name]).astype(np.float32),
    )
    for name in ("encoder.json", "vocab.bpe", "model.ckpt.meta"):
        (folder / name).write_bytes(rng.bytes(1000))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Server(ThreadingHTTPServer):
    """Serves files as Azure's storage does, with configurable faults."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.md5 = {name: hashlib.md5(content).digest() for name, content in files.items()}
        self.ranges = True  # whether it supports Range
        self.drops: dict[
            str, int
        ] = {}  # number of bytes after which it closes the connection, once
        self.status: dict[str, int] = {}  # instead of 200
        self.lengths = True  # whether it sends Content-Length
        self.requests: list[tuple[str, str, str | None]] = []  # method, name, Range
        self.sent: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/models"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, name = self.server, self.path.removeprefix("/models/124M/")
        byte_range = self.headers.get("Range")
        server.requests.append((self.command, name, byte_range))
        if name not in server.files or name in server.status:
            self.send_error(server.status.get(name, 404))
            return
        content, start = server.files[name], 0
        if byte_range and server.ranges:
            start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
            if name in server.md5:
                self.send_header("Content-MD5", base64.b64encode(server.md5[name]).decode())
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            end = start + server.drops.pop(name, len(content))
            server.sent[name] += len(content[start:end])  # before the client receives them
            self.wfile.write(content[start:end])


@pytest.fixture
def server(published, monkeypatch):
    checksums = {
        name: hashlib.sha256(published[name]).hexdigest() for name in ("encoder.json", "vocab.bpe")
    }
    monkeypatch.setattr(download, "SHA256", checksums)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with Server(published) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def assert_complete(folder, published):
    """Checks that a folder contains exactly the published files."""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == published


def test_all_files_are_downloaded(server, published, tmp_path):
    folder = download_gpt2("124M", tmp_path / "new" / "gpt2", server.address)
    assert_complete(folder, published)
    assert set(published) == set(download.FILES)


def test_correct_files_are_not_downloaded_again(server, published, tmp_path):
    download_gpt2("124M", tmp_path, server.address)
    (tmp_path / DATA).write_bytes(published[DATA][::-1])
    server.sent.clear()
    download_gpt2("124M", tmp_path, server.address)
    assert_complete(tmp_path, published)
    assert server.sent == {DATA: len(published[DATA])}


def test_a_closed_connection_is_resumed(server, published, tmp_path):
    server.drops = {DATA: 5000, "hparams.json": 0}
    download_gpt2("124M", tmp_path, server.address)
    assert_complete(tmp_path, published)
    assert ("GET", DATA, "bytes=5000-") in server.requests
    assert server.sent[DATA] == len(published[DATA])


def test_an_interrupted_download_is_resumed(server, published, tmp_path):
    (tmp_path / f"{DATA}.part").write_bytes(published[DATA][:7000])
    (tmp_path / "vocab.bpe.part").write_bytes(published["vocab.bpe"])  # complete, not yet renamed
    (tmp_path / "encoder.json.part").write_bytes(b"x" * 2000)  # too long
    download_gpt2("124M", tmp_path, server.address)
    assert_complete(tmp_path, published)
    assert server.sent[DATA] == len(published[DATA]) - 7000
    assert server.sent["vocab.bpe"] == 0


def test_a_server_without_range_requests_sends_the_whole_file(server, published, tmp_path):
    server.ranges, server.drops = False, {DATA: 5000}
    download_gpt2("124M", tmp_path, server.address)
    assert_complete(tmp_path, published)
    assert server.sent[DATA] == 5000 + len(published[DATA])


def test_a_server_without_md5_works(server, published, tmp_path):
    server.md5.clear()
    download_gpt2("124M", tmp_path, server.address)
    assert_complete(tmp_path, published)


@pytest.mark.parametrize(("name", "kind"), ((DATA, "MD5"), ("vocab.bpe", "SHA-256")))
def test_a_file_with_another_checksum_is_removed(name, kind, server, published, tmp_path):
    server.files[name] = published[name][::-1]
    if kind == "SHA-256":
        server.md5.clear()
    with pytest.raises(ValueError, match=f"{name} with {kind} .* Received: .* removed"):
        download_gpt2("124M", tmp_path, server.address)
    assert not (tmp_path / name).exists() and not (tmp_path / f"{name}.part").exists()


def test_repeatedly_closed_connections_are_an_error_that_keeps_the_part(
    server, tmp_path, monkeypatch
):
    class Dropping(dict):
        def pop(self, name, default):
            return (
                3000 if name == DATA and server.sent[DATA] == 0 else 0 if name == DATA else default
            )

    server.drops = Dropping()
    with pytest.raises(ConnectionError, match=f"{DATA}: the server closed the connection.*resume"):
        download_gpt2("124M", tmp_path, server.address)
    assert (tmp_path / f"{DATA}.part").stat().st_size == 3000


@pytest.mark.parametrize("status", (404, 403, 500))
def test_http_errors_are_reported(status, server, tmp_path):
    server.status = {"vocab.bpe": status}
    with pytest.raises(OSError, match=f"vocab.bpe: HTTP {status} "):
        download_gpt2("124M", tmp_path, server.address)


def test_a_server_without_content_length_is_an_error(server, tmp_path):
    server.lengths = False
    with pytest.raises(OSError, match="no Content-Length for .*hparams.json"):
        download_gpt2("124M", tmp_path, server.address)


def test_no_connection_is_an_error_with_the_address(tmp_path):
    with socket.socket() as free:  # a port without a server
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"Cannot download {address}/355M/hparams.json: "):
        download_gpt2("355M", tmp_path, address)


def test_too_little_disk_space_is_an_error_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="Not enough disk space in .*: 0 MB needed, 0 MB free"):
        download_gpt2("124M", tmp_path, server.address)
    assert server.sent.total() == 0


def test_an_unknown_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="124M, 355M, 774M, 1558M. Received: size='125M'"):
        download_gpt2("125M", tmp_path)


@pytest.mark.parametrize("file", (DATA, "model.ckpt.index", "hparams.json"))
def test_damage_of_a_downloaded_checkpoint_is_detected(file, published, tmp_path):
    for name, content in published.items():
        (tmp_path / name).write_bytes(content)
    assert download.check_checkpoint(tmp_path) == sum(map(math.prod, shapes_of(CONFIG).values()))
    damaged = bytearray(published[file])
    if file == "hparams.json":
        damaged = damaged.replace(b'"n_layer": 3', b'"n_layer": 4')
    else:
        damaged[len(damaged) // 2] ^= 1
    (tmp_path / file).write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged|Expected .* parameters"):
        download.check_checkpoint(tmp_path)


def test_the_checksums_are_those_of_openais_files():
    folder = Path(__file__).resolve().parents[3] / "shared" / "gpt2_bpe"
    if not folder.is_dir():
        pytest.skip("needs GPT-2's own encoder.json and vocab.bpe in ../shared/gpt2_bpe")
    for name, checksum in download.SHA256.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum
