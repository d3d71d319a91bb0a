"""What `doctor` finds."""

import asyncio
import json
from pathlib import Path

import pytest

from fsm_worker.cli import checks
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.main import main
from fsm_worker.identity import Identity


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSM_WORKER_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_all_checks_are_made_and_a_finding_is_exit_10(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "client").mkdir(parents=True)
    (home / "client" / "client.key").write_text("no key")
    assert main(["doctor", "--json"]) == ExitCode.FINDINGS
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == len(checks.CHECKS)
    by_name = {entry["name"]: entry for entry in found}
    assert not by_name["keys"]["ok"]
    assert "client.key" in by_name["keys"]["advice"]
    assert all(entry["ok"] or entry["advice"] for entry in found)
    assert by_name["WebRTC"]["ok"], by_name["WebRTC"]


async def test_a_key_that_others_can_read_is_found(home: Path) -> None:
    Identity.load(home / "worker" / "worker.key")
    assert (await checks.keys()).ok
    (home / "worker" / "worker.key").chmod(0o644)
    finding = await checks.keys()
    assert not finding.ok
    assert "chmod 600" in finding.advice


def test_a_state_folder_that_cannot_be_written_is_found(home: Path) -> None:
    assert asyncio.run(checks.state()).ok
    home.rmdir()
    home.write_text("a file")
    finding = asyncio.run(checks.state())
    assert not finding.ok
    assert "FSM_WORKER_STATE" in finding.advice
