"""The files of examples/deploy say what the program does."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from fsm_worker.cli.config import KEYS, Config, load
from fsm_worker.cli.durations import parse_duration
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.parsers import build_parser
from fsm_worker.events import Timer
from fsm_worker.machines.defaults import SECONDS
from fsm_worker.services.declared import Declared

DEPLOY = Path(__file__).parents[1] / "examples" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
#: Defaults that are the same on every machine.
FIXED = {key.name: key.default() for key in KEYS if key.name not in {"name", "state"}}

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def settings(unit: Path) -> dict[str, list[str]]:
    """What a unit sets, by key; a line that is neither is a mistake."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, equals, value = line.partition("=")
            assert equals, line
            assert re.fullmatch(r"[A-Z][A-Za-z]+", key), line
            found[key].append(value)
    return found


def one(unit: Path, key: str) -> str:
    (value,) = settings(unit)[key]
    return value


# --- the units -------------------------------------------------------------------------------


@every_unit
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: the other tests read the unit by themselves")
    # It looks for the program, which is not installed here.
    text = unit.read_text(encoding="utf-8").replace("/opt/fsm-worker/bin/python", sys.executable)
    (tmp_path / unit.name).write_text(text)
    found = subprocess.run(
        (analyze, "verify", tmp_path / unit.name), capture_output=True, text=True, check=False
    )
    mine = [line for line in found.stderr.splitlines() if unit.name in line]
    assert (mine, found.returncode) == ([], 0)


@every_unit
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    program, *words = shlex.split(one(unit, "ExecStart"))
    assert program == "/opt/fsm-worker/bin/python"
    assert words[:2] == ["-m", "fsm_worker"]
    build_parser().parse_args(words[2:])


def test_the_unit_of_a_worker_drains_on_sigterm() -> None:
    worker = DEPLOY / "fsm-worker.service"
    assert one(worker, "KillSignal") == "SIGTERM"
    # the worker alone hears it: a job that got it too would end in its middle
    assert one(worker, "KillMode") == "mixed"
    lingers = float(str(SECONDS[Timer.LINGER])) + float(str(SECONDS[Timer.COLLECT]))
    assert parse_duration(one(worker, "TimeoutStopSec")) >= 24 * 3600 + lingers
    # a mistake of the operator is not tried again; a worker that drained has not failed
    assert one(worker, "Restart") == "on-failure"
    assert one(worker, "RestartPreventExitStatus") == str(int(ExitCode.USAGE))
    assert one(worker, "OOMPolicy") == "continue"


def test_the_unit_of_a_worker_hides_no_gpu_and_lets_it_write_where_it_writes() -> None:
    worker = DEPLOY / "fsm-worker.service"
    breaks_cuda = {
        "DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute", "PrivateDevices", "ProcSubset",
        "ProtectClock", "ProtectProc",
    }  # fmt: skip
    assert not breaks_cuda & set(settings(worker))
    assert one(worker, "ProtectSystem") == "strict"
    state = f"/var/lib/{one(worker, 'StateDirectory')}"
    assert one(worker, "Environment") == f"FSM_WORKER_STATE={state}"
    assert "AF_NETLINK" in one(worker, "RestrictAddressFamilies").split()


# --- worker.toml -----------------------------------------------------------------------------

TOML = (DEPLOY / "worker.toml").read_text(encoding="utf-8")
#: A line that is a setting when its `#` is taken away: nothing else has no space after it.
UNCOMMENTED = re.sub(r"^#(?=[\w\[])", "", TOML, flags=re.MULTILINE)


def read(folder: Path, text: str) -> Config:
    (folder / "train.py").touch()  # the runner's program, which stands beside the file
    (folder / "worker.toml").write_text(text, encoding="utf-8")
    return load({}, {}, folder / "worker.toml")


def test_as_it_stands_the_file_sets_nothing(tmp_path: Path) -> None:
    assert tomllib.loads(TOML) == {}
    config = read(tmp_path, TOML)
    assert [value["origin"] for value in config.objects()] == ["default"] * len(KEYS)


def test_every_setting_is_in_the_file_and_can_be_set_by_taking_its_mark_away(
    tmp_path: Path,
) -> None:
    config = read(tmp_path, UNCOMMENTED)
    origins = {value["name"]: value["origin"] for value in config.objects()}
    assert origins == {
        **{key.name: str(tmp_path / "worker.toml") for key in KEYS},
        **dict.fromkeys(("runners.mine", "declare"), str(tmp_path / "worker.toml")),
    }
    assert set(tomllib.loads(UNCOMMENTED)["runners"]["mine"]) == {"argv", "args", "outputs", "env"}
    assert set(config.declared.names) == set(vars(Declared()))


def test_a_default_that_is_shown_is_the_default(tmp_path: Path) -> None:
    config = read(tmp_path, UNCOMMENTED)
    shown = {name: config[name] for name, default in FIXED.items() if default}
    assert shown == {name: default for name, default in FIXED.items() if default}


@pytest.mark.parametrize("name", [key.name for key in KEYS])
def test_every_setting_is_explained_above_it(name: str) -> None:
    above = TOML.partition(f"\n#{name} = ")[0].rpartition("\n\n")[2]
    assert above.startswith("# ")
    assert len(above) > 20


# --- the proxies -----------------------------------------------------------------------------


def test_the_proxies_pass_to_where_the_signaling_server_listens_and_let_websockets_through() -> (
    None
):
    words = shlex.split(one(DEPLOY / "fsm-signal.service", "ExecStart"))[3:]
    listen = str(build_parser().parse_args(words).listen)
    nginx = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    assert f"proxy_pass http://{listen};" in nginx
    assert f"reverse_proxy {listen}\n" in (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    for line in (
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
    ):
        assert line in nginx


def test_the_readme_names_every_file_and_no_other() -> None:
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([\w.-]+)\)", readme))
    assert named == {path.name for path in DEPLOY.iterdir() if path.name != "README.md"}
