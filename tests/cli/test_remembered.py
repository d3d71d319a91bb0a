"""The file that leads from a job's id back to its worker."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.session import Client
from fsm_worker.client.remembered import MOST, Remembered
from protocol.proof import BadSessionString, SessionString

WRITER = """
import sys
from pathlib import Path
from fsm_worker.client.remembered import Remembered
for n in range(10):
    Remembered(Path(sys.argv[1])).remember("s", f"{sys.argv[2]}-{n}")
"""


def session(peer: str) -> str:
    return SessionString(url="ws://127.0.0.1:1", room="r", token="t", peer=peer, key="k").encode()


def test_a_job_leads_back_to_its_worker(tmp_path: Path) -> None:
    memory = Remembered(tmp_path / "deep" / "remembered.json")
    memory.remember("one", "job-1", "first")
    memory.remember("two", "job-2")
    memory.remember("one", "job-3")
    again = Remembered(memory.path)
    assert again.complaint == ""
    assert again.job("job-2").session == "two"
    assert again.job("job-1").name == "first"
    assert again.job("job-9") is None
    assert again.last().job == "job-3"
    assert again.last_job("two").job == "job-2"
    assert again.last_job("three") is None


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    memory = Remembered(tmp_path / "remembered.json")
    memory.remember("s", "job-1")
    if os.name == "posix":
        assert stat.S_IMODE(memory.path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"remembered.json", "remembered.lock"}


def test_the_newest_are_kept_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "remembered.json"
    entries = [{"session": "s", "job": f"job-{n}"} for n in range(MOST)]
    path.write_text(json.dumps({"jobs": entries}))
    memory = Remembered(path)
    memory.remember("s", "job-5")
    memory.remember("s", "job-new")
    jobs = [entry.job for entry in Remembered(path).entries]
    assert len(jobs) == len(set(jobs)) == MOST
    assert jobs[0] == "job-1"
    assert jobs[-2:] == ["job-5", "job-new"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"jobs": [{"job": 1}]}'])
def test_damage_costs_a_sentence_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "remembered.json"
    path.write_bytes(damage)
    memory = Remembered(path)
    assert memory.entries == []
    assert "--session" in memory.complaint
    memory.remember("s", "job-1")
    assert Remembered(path).last().job == "job-1"
    assert path.with_suffix(".json.damaged").read_bytes() == damage


def test_commands_that_end_in_one_moment_lose_no_job(tmp_path: Path) -> None:
    path = tmp_path / "remembered.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], cwd=Path.cwd())
        for name in ("a", "b")
    ]
    assert [writer.wait(30) for writer in writers] == [0, 0]
    jobs = {entry.job for entry in Remembered(path).entries}
    assert jobs == {f"{name}-{n}" for name in ("a", "b") for n in range(10)}


def test_the_session_of_a_command_is_given_or_of_its_job_or_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FSM_WORKER_SESSION", raising=False)
    client = Client(Console(), tmp_path)
    with pytest.raises(CommandFailed) as failed:
        client.worker(None)
    assert failed.value.exit_code is ExitCode.USAGE
    client.memory.remember(session("one"), "job-1")
    client.memory.remember(session("two"), "job-2")
    assert client.worker(None).session.peer == "two"
    assert client.job(None, None).job == "job-2"
    assert client.job("job-1", None).session.peer == "one"
    assert client.job(None, session("one")).job == "job-1"
    monkeypatch.setenv("FSM_WORKER_SESSION", session("env"))
    assert client.worker(None).session.peer == "env"
    assert client.worker(session("flag")).session.peer == "flag"
    assert client.job("job-1", None).session.peer == "one"
    with pytest.raises(CommandFailed, match="which job"):
        client.job(None, None)
    with pytest.raises(BadSessionString):
        client.worker("fsm-worker:x")
