"""Several devices and hosts: the same losses as one, one run folder, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.data_maker import make_data, tiny_hparams
from helpers.shard_maker import write_shards

from effcap.trainers import RunOptions
from effcap.trainers.distributed.devices import Devices, check_backend, computing_on
from effcap.trainers.distributed.processes import Agreement, check_same

WORKER = Path(__file__).resolve().parents[1] / "helpers" / "devices_worker.py"
# A low limit, so that gradients are clipped; averages, parts with rates of their own.
SETTINGS = [
    "training.ema=0.9",
    "training.learning_rate=0.01",
    "training.clip_norm=0.05",
    "training.backbone_learning_rate=0.1",
    'encoder.backbone.trainable_blocks="all"',
]
MINUTES = 9 * 60  # seconds that a process may take


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CSV files and shards, and a variant without dropout, which differs from device to device."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    hparams = tiny_hparams()
    hparams["encoder"]["dropout"] = 0.0
    hparams["decoder"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    (folder / "tiny.json").write_text(json.dumps(hparams))
    write_shards(folder / "train", (7, 6))  # an odd number: one part has a row less
    write_shards(folder / "dev", (4, 1))
    return folder


RUNNING: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    while RUNNING:
        RUNNING.pop().kill()


def start(out, host: int | None = None, *, backend: str = "jax", **arguments) -> subprocess.Popen:
    """A run in a process of its own; its losses go to a file beside `out`."""
    losses = out.with_name(f"{out.name}{host or 0}.losses")
    given = {"data": "csv", "out": str(out), "losses": str(losses), "settings": SETTINGS}
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles sooner
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    process = subprocess.Popen(
        [sys.executable, str(WORKER), json.dumps(given | arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    RUNNING.append(process)
    return process


def start_two(out, second: dict | None = None, **arguments) -> list[subprocess.Popen]:
    """The same run on two hosts that are both here; `second` are what the second has otherwise."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            out,
            host,
            devices={"hosts": 2, "host": host, "coordinator": coordinator},
            **arguments | (second or {} if host else {}),
        )
        for host in range(2)
    ]


def finish(*processes: subprocess.Popen) -> list[str]:
    """What they said, once all have ended well."""
    said = [process.communicate(timeout=MINUTES)[1] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text[-3000:]
    return said


def losses(out, host: int = 0) -> np.ndarray:
    """The mean loss since the epoch began, after each step (N,)."""
    lines = out.with_name(f"{out.name}{host}.losses").read_text().splitlines()
    return np.array([float(line.split()[1]) for line in lines])


def scores(out) -> list[float]:
    history = json.loads(out.with_name(f"{out.name}0.losses.history").read_text())
    return [value for epoch in history for value in epoch.values()]


def weights(out) -> list[np.ndarray]:
    from effcap.captioner import Captioner

    return [keras.ops.convert_to_numpy(one) for one in Captioner.from_preset(out / "last").weights]


def assert_same_run(one, other) -> None:
    assert len(losses(one)) > 5
    assert losses(one) == pytest.approx(losses(other), abs=1e-5)
    assert scores(one) == pytest.approx(scores(other), abs=1e-5)
    for ours, theirs in zip(weights(one), weights(other), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_two_devices_of_tensorflow_train_as_one_does(folder, tmp_path):
    one = start(tmp_path / "one", backend="tensorflow", folder=str(folder))
    two = start(
        tmp_path / "two",
        backend="tensorflow",
        folder=str(folder),
        devices={"count": 2},
        logical=2,
    )
    finish(one, two)
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("data", ("csv", "shards"))
def test_two_hosts_train_as_one_does_on_their_joint_batches(folder, tmp_path, data):
    pytest.importorskip("jax", reason="jax is not installed")
    arguments = {"folder": str(folder), "data": data, "samples": 2 if data == "csv" else 0}
    arguments["settings"] = [*SETTINGS, "training.gradient_accumulation=2"]
    said = finish(*start_two(tmp_path / "two", **arguments))
    finish(start(tmp_path / "one", joint=2, **arguments))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert losses(tmp_path / "two", 0) == pytest.approx(losses(tmp_path / "two", 1), abs=1e-7)
    assert "epoch 2 of 2" in said[0] and "epoch" not in said[1]  # one tells
    assert (tmp_path / "two" / "log.txt").read_text().count("finished after") == 1
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_hosts_stop_together_and_go_on_as_if_they_had_not(folder, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    arguments = {"folder": str(folder)}
    finish(*start_two(tmp_path / "whole", **arguments))
    for process in start_two(tmp_path / "two", {"stop": 4}, **arguments):
        assert "stopped after step 5" in process.communicate(timeout=MINUTES)[1]
    finish(*start_two(tmp_path / "two", resume=True, **arguments))
    assert losses(tmp_path / "two").tolist() == losses(tmp_path / "whole").tolist()
    for ours, theirs in zip(weights(tmp_path / "two"), weights(tmp_path / "whole"), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.slow
def test_a_host_with_other_options_is_refused(folder, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    other = {"settings": ["decoder.dropout=0.3"]}
    for process in start_two(tmp_path / "two", other, folder=str(folder)):
        said = process.communicate(timeout=MINUTES)[1]
        assert "same on all hosts as on host 0. Received: other options on host 1" in said
    assert not (tmp_path / "two" / "last").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    (
        ({"count": 0}, "devices=0"),
        ({"count": "two"}, "devices='two'"),
        ({"hosts": 0}, "hosts=0"),
        ({"host": 1}, "host from 0 to 0. Received: host=1"),
        ({"hosts": 2, "host": 2, "coordinator": "a:1"}, "from 0 to 1. Received: host=2"),
        ({"hosts": 2}, "coordinator=HOST:PORT.*Received: coordinator=None"),
        ({"hosts": 2, "coordinator": "a"}, "coordinator='a'"),
        ({"coordinator": "a:1"}, "hosts=1, coordinator='a:1'"),
    ),
)
def test_devices_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Devices(**values)


def test_more_devices_than_there_are_are_refused():
    wrong = pytest.raises(ValueError, match=r"devices up to \d+.*Received: devices=99")
    with wrong, computing_on(Devices(count=99), 99):
        pass


def test_several_hosts_ask_for_jax():
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax for hosts=2.*backend tensorflow"):
        check_backend("tensorflow", ("jax",), "hosts=2")


def test_several_hosts_and_a_cache_of_features_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no cache of features with several hosts"):
        RunOptions(
            model=folder / "tiny.json",
            out=tmp_path / "out",
            cache=tmp_path / "cache",
            devices=Devices(hosts=2, coordinator="a:1"),
        )


def test_one_host_agrees_with_itself_at_once():
    agreement = Agreement()
    assert [agreement.hear(said) for said in (False, True, True)] == [False, True, True]
    check_same(options={"seed": 1})
