"""Laws of the state folder: nobody else reads it, and one worker at a time has it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fsm_worker.folders import StateInUse, claimed, make_private

CLAIM = "import sys; from pathlib import Path; from fsm_worker.folders import claimed\n"


def test_a_state_folder_is_its_owner_s_alone_also_one_that_was_open(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "deep" / "new"
    old.mkdir()
    old.chmod(0o755)
    for folder in (old, new):
        make_private(folder)
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_worker_on_one_folder_is_told_so(tmp_path: Path) -> None:
    with claimed(tmp_path):
        with pytest.raises(StateInUse, match="another --state"), claimed(tmp_path):
            pass
        take = f"{CLAIM}with claimed(Path(sys.argv[1])): pass"
        other = subprocess.run(
            [sys.executable, "-c", take, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert other.returncode != 0
        assert "StateInUse" in other.stderr
    with claimed(tmp_path):
        pass


def test_a_worker_that_was_killed_holds_its_folder_no_more(tmp_path: Path) -> None:
    hold = f"{CLAIM}with claimed(Path(sys.argv[1])): print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateInUse), claimed(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with claimed(tmp_path):
            pass
