"""Tests of `effcap download`; effcap.weights.download has its own."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from effcap.tools.cli import main
from helpers.cli_errors import fails
from helpers.gpt2_writers import shapes_of, write_folder

CONFIG = {"vocab_size": 31, "n_positions": 50, "n_embd": 16, "n_head": 4, "n_layer": 3}


@pytest.fixture
def offline(monkeypatch):
    """Writes a small checkpoint instead of a download."""

    def write_checkpoint(size, folder):
        shapes = shapes_of(CONFIG)
        values = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        return write_folder("checkpoint", folder, CONFIG, shapes, values.__getitem__)

    monkeypatch.setattr("effcap.weights.download.download_gpt2", write_checkpoint)


def test_the_command_verifies_the_checkpoint(offline, tmp_path, capsys):
    assert main(["download", "gpt2-124M", "--to", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("0.0 M parameters") and str(tmp_path) in lines[-2]
    assert f"effcap convert {tmp_path} PRESET" in lines[-1]


def test_a_damaged_checkpoint_is_an_error_of_the_command(tmp_path, capsys, monkeypatch):
    def write_damaged(size, folder):
        shapes = shapes_of(CONFIG)
        values = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        write_folder("checkpoint", folder, CONFIG, shapes, values.__getitem__)
        data = folder / "model.ckpt.data-00000-of-00001"
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        return folder

    monkeypatch.setattr("effcap.weights.download.download_gpt2", write_damaged)
    assert "damaged" in fails(["download", "gpt2-124M", "--to", str(tmp_path)], capsys)


def test_no_connection_is_one_line(tmp_path, capsys, monkeypatch):
    with socket.socket() as free:  # a port without a server
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("effcap.weights.download.download_gpt2.__defaults__", (address,))
    line = fails(["download", "gpt2-355M", "--to", str(tmp_path)], capsys)
    assert f"Cannot download {address}/355M/hparams.json: " in line


def test_an_unknown_size_is_an_error(capsys):
    assert "invalid choice: 'gpt2-125M'" in fails(["download", "gpt2-125M", "--to", "x"], capsys)
