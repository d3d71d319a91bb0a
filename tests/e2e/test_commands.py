"""The command line as a user has it: a process for the worker, and one for each command."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.examples.digits.package import build_package


class Shell:
    """Runs commands with a state of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "FSM_WORKER_STATE": str(folder / "state"),
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fsm_worker", *words,
            cwd=self.folder, env=self.env, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def a_worker(folder: Path, *settings: str) -> AsyncIterator[tuple[Shell, list[str]]]:
    """A worker's process; gives the words of the very line that it printed."""
    shell = Shell(folder)
    process = await shell.start("worker", "--listen", "127.0.0.1:0", "--name", "lab", *settings)
    assert process.stdout is not None
    try:
        line = ""
        while " submit " not in line:
            line = (await process.stdout.readline()).decode()
            assert line, "the worker ended before it said how to reach it"
        yield shell, line.split()[3:]
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


async def objects(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


async def until(process: asyncio.subprocess.Process, **wanted: object) -> dict[str, Any]:
    async for found in objects(process):
        if wanted.items() <= found.items():
            return found
    raise AssertionError(f"the command ended without {wanted}")


def slow_package(folder: Path) -> Path:
    return build_package(folder / "slow", epochs=2000, pace=0.05)


async def test_the_line_that_the_worker_printed_gives_a_verified_result(tmp_path: Path) -> None:
    async with asyncio.timeout(60), a_worker(tmp_path) as (shell, words):
        assert words[0] == "submit"
        assert words[-2:] == ["--example", "digits"]
        code, out, err = await shell.run(*words, "--output", "results/here")
        assert (code, err) == (0, "")
        assert "every hash verified" in out
        assert list((tmp_path / "results" / "here").rglob("model.npz"))
        losses = [float(line.split()[3]) for line in out.splitlines() if line.startswith("epoch ")]
        assert losses[-1] < losses[0] / 2
        code, out, _ = await shell.run("jobs")
        assert code == 0
        assert "succeeded" in out


async def test_stop_is_exit_0_with_a_model_and_cancel_is_exit_5(tmp_path: Path) -> None:
    async with asyncio.timeout(60), a_worker(tmp_path) as (shell, words):
        session, package = words[1:3], str(slow_package(tmp_path))
        watching = await shell.start("submit", package, *session, "--output", "kept", "--json")
        await until(watching, type="progress", event="epoch_end")
        code, out, _ = await shell.run("stop")
        assert code == 0
        assert "stopped early" in out
        assert (await until(watching, type="ended"))["outcome"] == "stopped_early"
        assert await watching.wait() == 0
        assert list((tmp_path / "kept").rglob("model.npz"))

        watching = await shell.start("submit", package, *session, "--json")
        await until(watching, type="progress", event="epoch_end")
        code, _, _ = await shell.run("cancel")
        assert code == 5
        assert (await until(watching, type="ended"))["outcome"] == "cancelled"
        assert await watching.wait() == 5
        code, out, _ = await shell.run("cancel")
        assert code == 5  # asked again, the same answer
        assert "cancelled" in out


async def test_a_refused_script_is_exit_3_with_its_line(tmp_path: Path) -> None:
    package = tmp_path / "bad"
    package.mkdir()
    (package / "train-script.sh").write_text("#!/bin/bash\n\nsleap-nn train a; curl b\n")
    async with asyncio.timeout(60), a_worker(tmp_path) as (shell, words):
        code, _, err = await shell.run("submit", str(package), *words[1:3])
        assert code == 3
        assert "line 3" in err


async def test_a_client_that_is_killed_is_replaced_by_attach_and_fetch(tmp_path: Path) -> None:
    package = str(build_package(tmp_path / "short", epochs=60, pace=0.05))
    async with asyncio.timeout(90), a_worker(tmp_path) as (shell, words):
        watching = await shell.start("submit", package, *words[1:3], "--json")
        job = (await until(watching, type="submitted"))["job"]
        await until(watching, type="progress", event="epoch_end")
        watching.kill()
        await watching.communicate()
        code, out, _ = await shell.run("attach", job)
        assert code == 0
        shown = [line for line in out.splitlines() if "epoch" in line and "60" in line]
        assert any("1/60" in line for line in shown)  # the whole log, from the start
        assert any("60/60" in line for line in shown)
        code, out, _ = await shell.run("fetch", job, "--output", "fetched")
        assert code == 0
        assert list((tmp_path / "fetched").rglob("model.npz"))


async def test_a_first_interrupt_without_a_terminal_detaches(tmp_path: Path) -> None:
    async with asyncio.timeout(60), a_worker(tmp_path) as (shell, words):
        watching = await shell.start("submit", str(slow_package(tmp_path)), *words[1:3], "--json")
        await until(watching, type="progress", event="epoch_end")
        watching.send_signal(signal.SIGINT)
        assert (await until(watching, type="detached"))["exit_code"] == 9
        assert await watching.wait() == 9
        code, _, _ = await shell.run("cancel")
        assert code == 5


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["submit"], 2, "submit what"),
        (["submit", "--example", "digits"], 2, "which worker"),
        (["submit", "--example", "digits", "--session", "fsm-worker:x"], 2, "damaged"),
        (["nonsense"], 2, "invalid choice"),
        (["attach", "job-12345678"], 2, "which worker"),
        (["worker", "--signaling", "ws://127.0.0.1:9"], 8, "127.0.0.1:9"),
    ],
)
async def test_a_wrong_command_says_what_to_do(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    async with asyncio.timeout(30):
        got, _, err = await Shell(tmp_path).run(*words)
    assert got == code, err
    assert said in err
    assert "Traceback" not in err
