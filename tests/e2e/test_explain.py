"""`explain`, asked of a worker and read beside it: while it runs, and after it has ended."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.test_commands import Shell, a_worker, slow_package, until


def told(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert found["type"] == "explained"
    return found


async def test_why_a_job_runs_and_why_it_ended_can_be_asked_and_read(tmp_path: Path) -> None:
    async with asyncio.timeout(120), a_worker(tmp_path) as (shell, words):
        state = str(tmp_path / "state")
        session, package = words[1:3], str(slow_package(tmp_path))
        submit = await shell.start("submit", package, *session, "--json")
        job = (await until(submit, type="job_state", state="running"))["job"]

        code, out, err = await shell.run("explain", "--json")  # the last job
        assert code == 0, err
        asked = told(out)
        assert (asked["job"], asked["state"]) == (job, "running")
        assert [step["row"] for step in asked["steps"]][:3] == ["J1", "J10", "J14"]
        ready = next(step for step in asked["steps"] if step["row"] == "J23")
        assert ready["guards"] == {"gpu_free": True}
        assert "recv_cancel" in asked["awaits"]

        code, out, err = await shell.run("explain", job, "--state", state, "--json")
        assert code == 0, err
        assert told(out)["steps"][: len(asked["steps"])] == asked["steps"]

        code, out, err = await shell.run("explain", "worker")
        assert code == 0, err
        assert out.startswith("the worker is busy, because:\n")
        assert "starting -> available" in out
        assert job not in out

        code, _, err = await shell.run("explain", "job-of-nobody", *session)
        assert (code, "no job of yours" in err) == (2, True)

        code, _, err = await shell.run("cancel", job)
        assert code == 5, err
        await submit.communicate()
        assert submit.returncode == 5

    for what, end in ((job, "done"), ("worker", "stopped")):  # the worker has ended
        code, out, err = await shell.run("explain", what, "--state", state)
        assert code == 0, err
        assert f" is {end}, because:\n" in out
    code, out, _ = await shell.run("explain", "--state", state)
    assert (code, out.splitlines()[0]) == (0, "the worker is stopped, because:")


async def test_what_can_not_be_explained_is_said_with_what_to_do(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    code, _, err = await shell.run("explain", "worker", "--state", str(tmp_path / "nowhere"))
    assert (code, "--state" in err) == (2, True)
    code, _, err = await shell.run("explain")
    assert (code, "which" in err) == (2, True)
