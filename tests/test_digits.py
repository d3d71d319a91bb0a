"""The example trainer: real data, real training, and it stops when asked."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm_worker.examples.digits import __main__ as digits
from fsm_worker.examples.digits import build_package, options, training

DATA = Path(str(resources.files("fsm_worker.examples.digits").joinpath("digits.npz")))


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """`main` arms Ctrl-C; give it back to pytest."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def train(folder: Path, *args: str) -> dict[str, Any]:
    assert digits.main(["--data", str(DATA), "--output", str(folder), *args]) == 0
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
    return metrics


def test_the_loss_really_falls_and_the_model_reads_digits_it_has_never_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = train(tmp_path, "--epochs", "8")
    losses = [epoch["loss"] for epoch in metrics["history"]]
    assert losses[0] > 1 > 0.15 > losses[-1]
    assert metrics["val"]["accuracy"] > 0.9
    assert metrics["val"]["loss"] == metrics["history"][-1]["val_loss"]
    assert (metrics["train"]["images"], metrics["val"]["images"]) == (1438, 359)
    assert not metrics["stopped_early"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == [f"{n}/8" for n in range(1, 9)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "model.npz"]


def test_the_saved_model_alone_gives_the_accuracy_that_was_reported(tmp_path: Path) -> None:
    metrics = train(tmp_path, "--epochs", "3", "--seed", "5")
    data = training.load(DATA, np.random.default_rng(5))
    images, labels = data.val
    with np.load(tmp_path / "model.npz") as m:
        assert float(m["scale"]) == 16
        scores = np.maximum(images @ m["w1"] + m["b1"], 0) @ m["w2"] + m["b2"]
    assert (scores.argmax(axis=1) == labels).mean() == metrics["val"]["accuracy"]


def test_validation_images_are_never_trained_on() -> None:
    data = training.load(DATA, np.random.default_rng(0))
    with np.load(DATA) as whole:
        pixels = whole["images"].reshape(1797, 64)
        assert np.bincount(whole["labels"]).tolist() == [
            *(178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
        ]
    both = np.concatenate([data.train[0], data.val[0]]) * 16
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, pixels.tolist()))


def test_a_seed_decides_everything_and_the_pace_nothing_but_the_time(tmp_path: Path) -> None:
    started = time.monotonic()
    train(tmp_path / "slow", "--epochs", "2", "--pace", "0.2")
    assert time.monotonic() - started >= 0.4
    for name, seed in (("again", "0"), ("other", "1")):
        train(tmp_path / name, "--epochs", "2", "--seed", seed)
    models = {p.name: (p / "model.npz").read_bytes() for p in tmp_path.iterdir()}
    assert models["slow"] == models["again"] != models["other"]


def test_a_diverging_run_ends_normally_and_writes_json_without_nan(tmp_path: Path) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(name)

    with np.errstate(all="ignore"):
        train(tmp_path, "--epochs", "3", "--lr", "10", "--momentum", "0.999", "--hidden", "512")
    json.loads((tmp_path / "metrics.json").read_bytes(), parse_constant=no_constant)


def in_a_process(folder: Path, *args: str, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "fsm_worker.examples.digits", "--data", str(DATA), *args],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
    )


def test_a_stop_over_zmq_ends_it_after_the_batch_with_the_model_kept(tmp_path: Path) -> None:
    """An epoch takes 10 s at this pace, a batch 0.2 s: only a stop between batches ends it soon."""
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as heard,
        context.socket(zmq.XPUB) as control,
    ):
        heard.subscribe(b"")
        ports = [s.bind_to_random_port("tcp://127.0.0.1") for s in (heard, control)]
        with in_a_process(
            tmp_path,
            *("--epochs", "50", "--pace", "10"),
            FSM_WORKER_PUBLISH=f"tcp://127.0.0.1:{ports[0]}",
            FSM_WORKER_CONTROL=f"tcp://127.0.0.1:{ports[1]}",
        ) as process:
            begin, epoch = (json.loads(heard.recv()) for _ in range(2))
            assert (begin["event"], begin["max_epochs"]) == ("train_begin", 50)
            assert (epoch["event"], epoch["epoch"]) == ("epoch_begin", 0)
            assert control.recv() == b"\x01"
            asked = time.monotonic()
            control.send(b'{"command": "stop"}')
            end, last = (json.loads(heard.recv()) for _ in range(2))
            assert (end["event"], end["epoch"], last["event"]) == ("epoch_end", 0, "train_end")
            assert set(end["logs"]) == {"loss", "val/loss", "val/accuracy"}
            out, _ = process.communicate()
            assert process.returncode == 0
            assert time.monotonic() - asked < 5
    assert b"stopped early as asked: the model is " in out
    metrics = json.loads((tmp_path / "results/metrics.json").read_bytes())
    assert (metrics["stopped_early"], metrics["epochs"]) == (True, 1)
    assert metrics["history"][0]["loss"] == end["logs"]["loss"]
    with np.load(tmp_path / "results/model.npz") as model:
        assert set(model) == {"scale", "w1", "b1", "w2", "b2"}


def test_ctrl_c_means_the_same_as_a_stop(tmp_path: Path) -> None:
    with in_a_process(tmp_path, "--epochs", "1000", "--pace", "0.2") as process:
        assert process.stdout is not None
        for _ in range(2):  # the first line of an epoch is printed after Ctrl-C is armed
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith(b"results/model.npz\n")
        assert process.wait() == 0
    assert (tmp_path / "results/model.npz").is_file()


def npz(**arrays: "np.typing.NDArray[Any]") -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=True, **arrays)
    return file.getvalue()


IMAGES, LABELS = np.zeros((20, 2, 2)), np.zeros(20, np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        npz(images=IMAGES),
        npz(images=IMAGES, labels=LABELS[:19]),
        npz(images=IMAGES[:, 0], labels=LABELS),
        npz(images=IMAGES[:5], labels=LABELS[:5]),
        npz(images=IMAGES[:, :0], labels=LABELS),
        npz(images=IMAGES, labels=LABELS + 0.5),
        npz(images=IMAGES, labels=LABELS.astype(int) - 1),
        npz(images=IMAGES, labels=LABELS.astype(int) + 1000),
        npz(images=IMAGES * np.nan, labels=LABELS),
        npz(images=np.full((20, 2, 2), "x"), labels=LABELS),
        npz(images=np.full((20, 2, 2), None), labels=LABELS),
    ],
)
def test_data_that_can_not_be_trained_on_is_a_sentence_and_exit_code_2(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    args = ["--data", str(tmp_path / "x.npz"), "--output", str(tmp_path / "out")]
    assert digits.main(args) == 2
    assert str(tmp_path / "x.npz") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


SMALL = npz(images=IMAGES, labels=LABELS)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=5))
def test_no_damage_to_the_data_raises_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(SMALL)
    for at, value in changes:
        damaged[at] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(damaged)
    try:
        training.load(path, np.random.default_rng(0))
    except training.DataRefused as refused:
        assert str(path) in str(refused)


def test_options_out_of_range_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        ["--epochs", "0"],
        ["--lr", "nan"],
        ["--pace", "x"],
        ["--data", ""],
        ["--epo", "3"],
    ):
        with pytest.raises(SystemExit) as left:
            digits.main(["--data", str(DATA), *wrong])
        assert left.value.code == 2
    assert "'0' is not a whole number from 1 to 10000" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options.build_parser().parse_args(["--help"])
    assert "slow enough for a person to watch" in " ".join(capsys.readouterr().out.split())


def test_the_package_holds_one_command_and_its_data(tmp_path: Path) -> None:
    package = build_package(tmp_path / "new/package", epochs=3, pace=0.5)
    command = b"digits train --epochs 3 --data digits.npz --pace 0.5\n"
    assert (package / "train-script.sh").read_bytes() == b"#!/bin/bash\n" + command
    assert (package / "digits.npz").read_bytes() == DATA.read_bytes()
    assert len(list(package.iterdir())) == 2
    with pytest.raises(FileExistsError):
        build_package(package)
    with zipfile.ZipFile(DATA) as data:
        assert data.testzip() is None
