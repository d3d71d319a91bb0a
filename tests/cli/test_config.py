"""Where a worker's settings come from."""

import tomllib
from pathlib import Path

import pytest

from fsm_worker.cli.config import KEYS, load
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_text('name = "file"\ngpu = 1\nstun = "off"\n')
    environ = {"FSM_WORKER_STATE": str(tmp_path), "FSM_WORKER_GPU": "2", "FSM_WORKER_NAME": "env"}
    config = load({"name": "flag"}, environ)
    origins = {entry["name"]: entry["origin"] for entry in config.objects()}
    assert (config["name"], origins["name"]) == ("flag", "--name")
    assert (config["gpu"], origins["gpu"]) == ("2", "FSM_WORKER_GPU")
    assert (config["stun"], origins["stun"]) == ("off", str(tmp_path / "worker.toml"))
    assert (config["listen"], origins["listen"]) == ("127.0.0.1:0", "default")


def test_what_is_shown_can_be_put_into_the_file(tmp_path: Path) -> None:
    shown = load({"name": 'a "b" \\ c', "state": str(tmp_path)}, {}).lines()
    assert len(shown) == len(KEYS)
    (tmp_path / "again.toml").write_text("\n".join(shown), encoding="utf-8")
    assert tomllib.loads("\n".join(shown))["name"] == 'a "b" \\ c'
    assert load({}, {}, tmp_path / "again.toml")["name"] == 'a "b" \\ c'


def test_the_shared_storage_has_a_flag_a_variable_and_a_line(tmp_path: Path) -> None:
    state = {"FSM_WORKER_STATE": str(tmp_path)}
    assert load({}, state)["shared_storage"] == ""
    (tmp_path / "worker.toml").write_text('shared_storage = "/mnt/file"\n')
    assert load({}, state)["shared_storage"] == "/mnt/file"
    named = state | {"FSM_WORKER_SHARED_STORAGE": "/mnt/environment"}
    assert load({}, named)["shared_storage"] == "/mnt/environment"
    assert load({"shared_storage": "/mnt/flag"}, named)["shared_storage"] == "/mnt/flag"


def test_a_rooms_token_is_not_shown(tmp_path: Path) -> None:
    flags = {"state": str(tmp_path), "room": "r", "token": "t0ken", "signaling": "ws://h:1"}
    config = load(flags, {})
    assert config["token"] == "t0ken"
    assert "t0ken" not in "\n".join(config.lines()) + repr(config.objects())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('nmae = "x"', "did you mean 'name'"),
        ("listening = 1", "did you mean 'listen'"),
        ("gpu = true", "gpu must be a text or a number"),
        ("gpu = -1", "gpu: '-1' is no number of a GPU"),
        ('name = ""', "name: is empty"),
        ("name = ", "no TOML"),
        ('listen = "8080"', "listen: '8080' is no address"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(text)
    with pytest.raises(CommandFailed) as failed:
        load({"state": str(tmp_path)}, {})
    assert failed.value.exit_code is ExitCode.USAGE
    assert str(file) in failed.value.sentence
    assert said in failed.value.sentence


@pytest.mark.parametrize(
    "flags",
    [
        {"room": "r"},
        {"room": "r", "token": "t"},
        {"signaling": "ws://h:1", "listen": "127.0.0.1:0"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, flags: dict[str, str]
) -> None:
    with pytest.raises(CommandFailed) as failed:
        load({"state": str(tmp_path), **flags}, {})
    assert failed.value.exit_code is ExitCode.USAGE


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="is not there"):
        load({}, {}, tmp_path / "none.toml")
