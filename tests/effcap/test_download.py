"""Tests of effcap.weights.download against servers on this computer, good and bad ones."""

from __future__ import annotations

import base64
import hashlib
import math
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers.cli_errors import fails
from helpers.gpt2_writers import shapes_of, write_folder

from effcap.tools import download_gpt2
from effcap.tools.cli import main
from effcap.weights import download

CONFIG = {"vocab_size": 31, "n_positions": 50, "n_embd": 16, "n_head": 4, "n_layer": 3}
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """What OpenAI's server has for one size."""
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
    """Serves files as Azure's storage does, and can be told to behave badly."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.md5 = {name: hashlib.md5(content).digest() for name, content in files.items()}
        self.ranges = True  # whether it heeds Range
        self.drops: dict[str, int] = {}  # bytes after which it breaks off, once
        self.status: dict[str, int] = {}  # in place of 200
        self.lengths = True  # whether it tells Content-Length
        self.asked: list[tuple[str, str, str | None]] = []  # method, name, Range
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
        wanted = self.headers.get("Range")
        server.asked.append((self.command, name, wanted))
        if name not in server.files or name in server.status:
            self.send_error(server.status.get(name, 404))
            return
        content, start = server.files[name], 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
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
            server.sent[name] += len(content[start:end])  # before the client can look
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


def assert_whole(folder, published):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == published


def test_all_files_arrive(server, published, tmp_path):
    folder = download_gpt2("124M", tmp_path / "new" / "gpt2", server.address)
    assert_whole(folder, published)
    assert set(published) == set(download.FILES)


def test_files_that_are_there_and_right_do_not_come_again(server, published, tmp_path):
    download_gpt2("124M", tmp_path, server.address)
    (tmp_path / DATA).write_bytes(published[DATA][::-1])
    server.sent.clear()
    download_gpt2("124M", tmp_path, server.address)
    assert_whole(tmp_path, published)
    assert server.sent == {DATA: len(published[DATA])}


def test_a_broken_connection_is_taken_up_where_it_broke(server, published, tmp_path):
    server.drops = {DATA: 5000, "hparams.json": 0}
    download_gpt2("124M", tmp_path, server.address)
    assert_whole(tmp_path, published)
    assert ("GET", DATA, "bytes=5000-") in server.asked
    assert server.sent[DATA] == len(published[DATA])


def test_an_earlier_download_is_taken_up(server, published, tmp_path):
    (tmp_path / f"{DATA}.part").write_bytes(published[DATA][:7000])
    (tmp_path / "vocab.bpe.part").write_bytes(published["vocab.bpe"])  # whole, not yet in place
    (tmp_path / "encoder.json.part").write_bytes(b"x" * 2000)  # of something longer
    download_gpt2("124M", tmp_path, server.address)
    assert_whole(tmp_path, published)
    assert server.sent[DATA] == len(published[DATA]) - 7000
    assert server.sent["vocab.bpe"] == 0


def test_a_server_that_sends_all_of_it_again_is_understood(server, published, tmp_path):
    server.ranges, server.drops = False, {DATA: 5000}
    download_gpt2("124M", tmp_path, server.address)
    assert_whole(tmp_path, published)
    assert server.sent[DATA] == 5000 + len(published[DATA])


def test_a_server_without_md5_is_no_hindrance(server, published, tmp_path):
    server.md5.clear()
    download_gpt2("124M", tmp_path, server.address)
    assert_whole(tmp_path, published)


@pytest.mark.parametrize(("name", "kind"), ((DATA, "MD5"), ("vocab.bpe", "SHA-256")))
def test_a_file_with_another_checksum_is_not_kept(name, kind, server, published, tmp_path):
    server.files[name] = published[name][::-1]
    if kind == "SHA-256":
        server.md5.clear()
    with pytest.raises(ValueError, match=f"{name} with {kind} .* Received: .* removed"):
        download_gpt2("124M", tmp_path, server.address)
    assert not (tmp_path / name).exists() and not (tmp_path / f"{name}.part").exists()


def test_a_server_that_breaks_off_for_good_is_told_and_the_part_kept(server, tmp_path, monkeypatch):
    class Dropping(dict):
        def pop(self, name, default):
            return (
                3000 if name == DATA and server.sent[DATA] == 0 else 0 if name == DATA else default
            )

    server.drops = Dropping()
    with pytest.raises(ConnectionError, match=f"{DATA}.*the server broke off.*goes on where"):
        download_gpt2("124M", tmp_path, server.address)
    assert (tmp_path / f"{DATA}.part").stat().st_size == 3000


@pytest.mark.parametrize("status", (404, 403, 500))
def test_a_refusal_is_told(status, server, tmp_path):
    server.status = {"vocab.bpe": status}
    with pytest.raises(OSError, match=f"vocab.bpe. Received: HTTP {status} "):
        download_gpt2("124M", tmp_path, server.address)


def test_a_server_that_tells_no_length_is_refused(server, tmp_path):
    server.lengths = False
    with pytest.raises(OSError, match="to tell the length of .*hparams.json"):
        download_gpt2("124M", tmp_path, server.address)


def test_no_server_is_one_clear_line(tmp_path, capsys, monkeypatch):
    with socket.socket() as free:  # a port that nobody listens at
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("effcap.weights.download.download_gpt2.__defaults__", (address,))
    line = fails(["download", "gpt2-355M", "--to", str(tmp_path)], capsys)
    assert f"Expected a connection to download {address}/355M/hparams.json. Received: " in line


def test_a_full_disk_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    from shutil import _ntuple_diskusage

    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: _ntuple_diskusage(9, 9, 0))
    with pytest.raises(OSError, match="GB of free disk"):
        download_gpt2("124M", tmp_path, server.address)
    assert server.sent.total() == 0


def test_an_unknown_size_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="124M, 355M, 774M, 1558M. Received: '125M'"):
        download_gpt2("125M", tmp_path)
    assert "invalid choice: 'gpt2-125M'" in fails(["download", "gpt2-125M", "--to", "x"], capsys)


def test_the_command_reads_what_has_arrived(server, published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("effcap.weights.download.download_gpt2.__defaults__", (server.address,))
    assert main(["download", "gpt2-124M", "--to", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "0.0 M parameters, all of them read and right" in lines[-2]
    assert f"effcap convert {tmp_path} PRESET" in lines[-1]


@pytest.mark.parametrize("file", (DATA, "model.ckpt.index", "hparams.json"))
def test_a_checkpoint_that_is_damaged_where_it_lies_is_found_out(file, published, tmp_path):
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


def test_the_built_in_checksums_are_those_of_openais_own_files():
    folder = Path(__file__).resolve().parents[3] / "shared" / "gpt2_bpe"
    if not folder.is_dir():
        pytest.skip("needs GPT-2's own encoder.json and vocab.bpe in ../shared/gpt2_bpe")
    for name, checksum in download.SHA256.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum
