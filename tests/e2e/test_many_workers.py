"""Two workers and one signaling server, each a process: a job goes to the worker that fits."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.e2e.test_commands import Shell, until


@contextlib.asynccontextmanager
async def a_process(shell: Shell, *words: str) -> AsyncIterator[dict[str, str]]:
    """Runs until the block ends; gives what it says when it is ready."""
    process = await shell.start(*words, "--json")
    try:
        yield await until(process, type="ready")
    finally:
        process.send_signal(signal.SIGTERM)
        if words[0] == "worker":  # it may wait for a client that is still there
            process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def declares(folder: Path, name: str, model: str, memory_mb: int) -> list[str]:
    """The words that start a worker with a GPU by its operator's word."""
    file = folder / f"{name}.toml"
    file.write_text(f'[declare]\ngpu_model = "{model}"\ngpu_memory_mb = {memory_mb}\n')
    return ["worker", "--name", name, "--state", str(folder / name), "--config", str(file)]


async def test_a_job_with_a_need_lands_on_the_worker_that_meets_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    async with (
        asyncio.timeout(90),
        a_process(shell, "signal", "--listen", "127.0.0.1:0") as server,
        a_process(shell, *declares(tmp_path, "small", "T4", 16384),
                  "--signaling", server["url"]) as small,
        a_process(shell, *declares(tmp_path, "large", "H100", 81559),
                  "--signaling", server["url"]) as large,
    ):  # fmt: skip
        both = ("--session", small["session"], "--session", large["session"])
        digits = ("submit", "--example", "digits", *both)
        code, out, err = await shell.run(*digits, "--need", "vram=40GiB,runner=digits")
        assert (code, err) == (0, "")
        assert "large keeps its slot for this job" in out
        assert "goes to large" in out

        code, out, err = await shell.run(*digits, "--need", "vram=1TiB,tag=lab-z,cpus=1", "--json")
        assert code == 6
        said = [json.loads(line) for line in out.splitlines()]
        reasons = {one["worker"]: one["reasons"] for one in said if one["type"] == "refused"}
        assert {name: len(found) for name, found in reasons.items()} == {"small": 2, "large": 2}
        assert "vram=1TiB" in err
        assert "lab-z" in err

        code, out, _ = await shell.run("workers", *both)
        assert code == 0
        assert sorted((line.split()[0] for line in out.splitlines()[1:]), reverse=True) == [
            "small",
            "large",
        ]
        assert "81559 MiB" in out

        folder = ("--state", str(tmp_path / "small"))
        code, out, _ = await shell.run("drain", *folder, "--reason", "a new driver")
        assert (code, "maintenance" in out) == (0, True)
        code, out, _ = await shell.run(*digits, "--need", "gpu=1", "--detach")
        assert (code, "large keeps" in out) == (9, True)
        code, out, _ = await shell.run("workers", *both, "--json")
        states = {one["name"]: one["state"] for one in map(json.loads, out.splitlines())}
        assert states["small"] == "maintenance"
        code, out, _ = await shell.run("undrain", *folder)
        assert (code, "it takes jobs" in out) == (0, True)


async def test_workers_that_are_gone_are_named(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    async with asyncio.timeout(60):
        async with a_process(shell, "worker", "--name", "lab") as worker:
            pass
        code, out, _ = await shell.run("workers", "--session", worker["session"])
        assert (code, "is not reached" in out or "can't" in out or "no " in out) == (6, True)
        code, _, err = await shell.run("workers")
        assert (code, "which workers" in err) == (2, True)


async def test_a_signaling_server_that_is_started_again_has_its_worker_back(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    folder = ("--state", str(tmp_path / "signal"))
    async with asyncio.timeout(120):
        async with contextlib.AsyncExitStack() as stack:
            first = contextlib.AsyncExitStack()
            server = await first.enter_async_context(
                a_process(shell, "signal", "--listen", "127.0.0.1:0", *folder)
            )
            place = server["url"].removeprefix("ws://")
            worker = await stack.enter_async_context(
                a_process(shell, "worker", "--name", "lab", "--signaling", server["url"])
            )
            await first.aclose()
            await stack.enter_async_context(a_process(shell, "signal", "--listen", place, *folder))
            submit = ("submit", "--example", "digits", "--session", worker["session"])
            code = 6
            while code == 6:  # until the worker is back in its room
                code, out, err = await shell.run(*submit)
            assert (code, err) == (0, "")
            assert "every hash verified" in out
        assert (tmp_path / "signal" / "server.key").stat().st_mode & 0o777 == 0o600
