"""Several devices and processes: the losses of one device, one run folder, rejected settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from effcap.captioner import Captioner
from effcap.trainers import DeviceOptions
from effcap.trainers.distributed.devices import check_backend, computing_on
from effcap.trainers.distributed.processes import AnyProcess, check_same
from helpers.data_maker import make_data, make_randomized_captioner, tiny_hparams
from helpers.shard_maker import write_shards

WORKER = Path(__file__).with_name("devices_worker.py")
# A low limit, so that gradients are clipped; averages; parts with learning rates of their own.
TRAINING = {
    "ema_momentum": 0.9,
    "learning_rate": 0.01,
    "clip_norm": 0.05,
    "backbone_learning_rate": 0.1,
    "num_cider_photos": 0,  # several processes do not compute CIDEr
}
OPTIONS = {
    "training": TRAINING,
    "encoder": {"backbone": {"trainable_blocks": "all"}},
    "decoder": {"vocabulary_size": 300},
}
TIMEOUT = 9 * 60  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CSV files, shards, and a variant without dropout, which differs between devices."""
    folder = make_data(tmp_path_factory.mktemp("data"))
    hparams = tiny_hparams()
    hparams["encoder"]["dropout"] = 0.0
    hparams["decoder"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    (folder / "tiny.json").write_text(json.dumps(hparams))
    write_shards(folder / "train", (7, 6))  # an odd number: one process has a row less
    write_shards(folder / "dev", (4, 1))
    return folder


class Runs:
    """Training runs in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def start(
        self,
        out: Path,
        *,
        options: dict | None = None,
        devices: dict | None = None,
        backend: str = "jax",
        **test: Any,
    ) -> subprocess.Popen:
        """Starts a run; its losses go to a file beside `out`."""
        index = (devices or {}).get("process_index", 0)
        arguments = {
            "data": str(self.folder),
            "losses": str(losses_file(out, index)),
            "options": {**OPTIONS, "out": str(out), **(options or {})},
            "devices": devices or {},
            **test,
        }
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles faster
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def start_two(self, out: Path, second: dict | None = None, **arguments) -> list:
        """Starts two processes of a run; `second` are other arguments of the second one."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        processes = []
        for index, changes in enumerate(({}, second or {})):
            devices = {"num_processes": 2, "process_index": index, "coordinator": coordinator}
            processes.append(self.start(out, devices=devices, **{**arguments, **changes}))
        return processes


@pytest.fixture
def runs(folder):
    runs = Runs(folder)
    yield runs
    for process in runs.processes:
        process.kill()


def read_stderr(process) -> str:
    return process.communicate(timeout=TIMEOUT)[1]


def finish(*processes) -> list[str]:
    """Returns the stderr of processes once all have succeeded."""
    texts = [read_stderr(process) for process in processes]
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text[-3000:]
    return texts


def losses_file(out: Path, index: int = 0) -> Path:
    return out.with_name(f"{out.name}{index}.losses")


def read_losses(out: Path, index: int = 0) -> np.ndarray:
    """Returns the mean loss of the epoch so far after each step, (N,)."""
    lines = losses_file(out, index).read_text().splitlines()
    return np.array([float(line.split()[1]) for line in lines])


def read_scores(out: Path) -> list[float]:
    history = json.loads(Path(f"{losses_file(out)}.history").read_text())
    return [value for epoch in history for value in epoch.values()]


def read_weights(out: Path) -> list[np.ndarray]:
    captioner = Captioner.from_preset(out / "last")
    return [keras.ops.convert_to_numpy(weight) for weight in captioner.weights]


def assert_same_run(first: Path, second: Path) -> None:
    assert len(read_losses(first)) > 5
    assert read_losses(first) == pytest.approx(read_losses(second), abs=1e-5)
    assert read_scores(first) == pytest.approx(read_scores(second), abs=1e-5)
    for one, other in zip(read_weights(first), read_weights(second), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.slow
def test_two_tensorflow_devices_train_as_one_does(runs, tmp_path):
    one = runs.start(tmp_path / "one", backend="tensorflow")
    two = runs.start(
        tmp_path / "two", backend="tensorflow", devices={"count": 2}, logical_devices=2
    )
    finish(one, two)
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ("tensorflow", "jax"))
def test_two_devices_train_an_adapter_as_one_does(runs, folder, tmp_path, backend):
    captioner = make_randomized_captioner(dropout=0.0, attention_dropout=0.0)
    captioner.save_to_preset(tmp_path / "base")
    options = {
        "model": str(tmp_path / "base"),
        "encoder": {"dropout": 0.0},
        "decoder": {},
        "training": {"learning_rate": 0.01, "clip_norm": 0.05, "num_cider_photos": 0},
        "lora": {"rank": 2, "dropout": 0.0, "bias": "lora_only"},
    }
    if backend == "jax":
        pytest.importorskip("jax", reason="jax is not installed")
        finish(*runs.start_two(tmp_path / "two", options=options))
        finish(runs.start(tmp_path / "one", options=options, joint=2))
    else:
        two = {"devices": {"count": 2}, "logical_devices": 2}
        finish(
            runs.start(tmp_path / "one", options=options, backend=backend),
            runs.start(tmp_path / "two", options=options, backend=backend, **two),
        )
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert Captioner.from_preset(tmp_path / "two").active_adapters == ("default",)


@pytest.mark.slow
def test_a_notebook_trains_on_two_tensorflow_devices_as_on_one():
    worker = WORKER.with_name("mirrored_worker.py")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [sys.executable, worker],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    differences = json.loads(result.stdout.splitlines()[-1])
    assert {"cross_entropy", "loss", "trained_npair", "weights"} <= set(differences)
    assert max(map(abs, differences.values())) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("shards", (False, True))
def test_two_processes_train_as_one_does_on_their_joint_batches(runs, tmp_path, shards):
    pytest.importorskip("jax", reason="jax is not installed")
    training = {**TRAINING, "gradient_accumulation_steps": 2}
    arguments = {
        "options": {"training": training},
        "shards": shards,
        "num_previews": 0 if shards else 2,
    }
    texts = finish(*runs.start_two(tmp_path / "two", **arguments))
    finish(runs.start(tmp_path / "one", joint=2, **arguments))
    assert_same_run(tmp_path / "one", tmp_path / "two")
    first, second = (read_losses(tmp_path / "two", index) for index in (0, 1))
    assert first == pytest.approx(second, abs=1e-7)
    assert "epoch 2 of 2" in texts[0] and "epoch" not in texts[1]  # one process prints
    assert (tmp_path / "two" / "log.txt").read_text().count("finished after") == 1
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_exactly(runs, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    finish(*runs.start_two(tmp_path / "whole"))
    for process in runs.start_two(tmp_path / "two", {"stop_step": 4}):
        assert "stopped after step 5" in read_stderr(process)
    finish(*runs.start_two(tmp_path / "two", options={"resume": True}))
    assert read_losses(tmp_path / "two").tolist() == read_losses(tmp_path / "whole").tolist()
    weights = zip(read_weights(tmp_path / "two"), read_weights(tmp_path / "whole"), strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)


@pytest.mark.slow
def test_a_process_with_other_options_is_rejected(runs, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    decoder = {**OPTIONS["decoder"], "dropout": 0.3}
    for process in runs.start_two(tmp_path / "two", {"options": {"decoder": decoder}}):
        assert "Received: other options of process 1 than process 0" in read_stderr(process)
    assert not (tmp_path / "two" / "last").exists()


def test_more_devices_than_there_are_are_rejected():
    error = pytest.raises(ValueError, match=r"devices up to \d+.*Received: devices=99")
    with error, computing_on(DeviceOptions(count=99), 99):
        pass


def test_several_processes_require_jax():
    with pytest.raises(ValueError, match="num_processes=2 requires KERAS_BACKEND=jax"):
        check_backend("tensorflow", ("jax",), "num_processes=2")


def test_a_single_process_agrees_with_itself_at_once():
    any_process = AnyProcess()
    assert [any_process.update(flag) for flag in (False, True, True)] == [False, True, True]
    check_same(options={"seed": 1})
