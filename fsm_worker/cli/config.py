"""A worker's settings: from flags, then the environment, then `worker.toml`, then defaults."""

import difflib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from fsm_worker.cli.addresses import parse_listen, parse_signaling, parse_stun
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.tables import HIDDEN, TABLES, Tables, as_toml, read_tables
from fsm_worker.cli.toml_file import NotToml, read_toml
from fsm_worker.services.declared import Declared
from fsm_worker.services.package_code import package_code
from fsm_worker.services.recipe import Runner

_SWITCH = {"on": "on", "true": "on", "off": "off", "false": "off"}


def _gpu(text: str) -> str:
    if not text.isdecimal() or len(text) > 4 or int(text) > 1023:
        raise ValueError(f"{text[:40]!r} is no number of a GPU: write 0, 1, …")
    return text


def _switch(text: str) -> str:
    if text not in _SWITCH:
        raise ValueError(f"{text[:40]!r} is neither on nor off")
    return _SWITCH[text]


def _text(text: str) -> str:
    if not text.strip() or len(text) > 4096:
        raise ValueError("is empty, or far too long")
    return text


def _kept(check: Callable[[str], object]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        check(text)
        return text.strip()

    return parse


@dataclass(frozen=True)
class Key:
    """One setting.

    Args:
        name: in `worker.toml`; the flag and the environment's name follow from it.
        metavar: what its value is, for `--help`.
        about: for `--help`.
        check: gives the value to keep, or raises ValueError with what was expected.
        default: makes it; an empty one means not set.
        secret: its value is not shown.
    """

    name: str
    metavar: str
    about: str
    check: Callable[[str], str] = _text
    default: Callable[[], str] = str
    secret: bool = False

    @property
    def flag(self) -> str:
        """Without its dashes."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Of the environment."""
        return f"FSM_WORKER_{self.name.upper()}"


def _state() -> str:
    return str(platformdirs.user_state_path("fsm-worker", appauthor=False))


KEYS = (
    Key("signaling", "URL", "signaling server, wss://HOST or ws://HOST:PORT (brings its own)",
        _kept(parse_signaling)),
    Key("listen", "ADDR:PORT", "where its own signaling server listens (127.0.0.1:0)",
        _kept(parse_listen), lambda: "127.0.0.1:0"),
    Key("jwt_key", "FILE|unchecked", "JWTs that its own signaling server believes (none)"),
    Key("api_keys", "FILE", "API keys that its own signaling server believes (none)"),
    Key("room", "ID", "room to join on that server (makes one)"),
    Key("token", "TOKEN", "of that room", secret=True),
    Key("name", "NAME", "of this worker, for people (this machine's)",
        default=lambda: socket.gethostname() or "worker"),
    Key("gpu", "N", "which GPU, as nvidia-smi counts (0)", _gpu, lambda: "0"),
    Key("state", "DIR", "folder for its key, its jobs and their results (the user's own)",
        default=_state),
    Key("shared_storage", "DIR",
        "root of a storage that clients see, too: jobs may name paths in it (none)"),
    Key("sleap_nn", "PATH", "the sleap-nn program (the one on the PATH)"),
    Key("stun", "URL|off", "STUN server (used only where signaling is on another machine)",
        parse_stun),
    Key("allow_sleap_rtc", "on|off",
        "clients of sleap-rtc may come in, and whoever is in the room is one "
        "(on where signaling is on this machine)", _switch),
    Key("room_secret", "SECRET", "that clients of sleap-rtc must prove to hold (none)",
        secret=True),
    Key("allow_package_code", "on|off",
        "run `python FILE.py` of a package: clients run what they like then, as you (off)",
        _switch, lambda: "off"),
)  # fmt: skip
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True)
class Value:
    """A setting's value and where it comes from."""

    text: str
    origin: str


class Config:
    """All settings of a worker.

    Args:
        values: by name; made by `load`.
        tables: of the file.
    """

    def __init__(self, values: Mapping[str, Value], tables: Tables) -> None:
        self._values = dict(values)
        self._tables = tables

    def __getitem__(self, name: str) -> str:
        """The value; empty where it is not set."""
        return self._values[name].text

    @property
    def runners(self) -> dict[tuple[str, ...], Runner]:
        """The runners that this worker has beside the built-in ones, by the words that ask."""
        own = {(name,): runner for name, runner in self._tables.runners.items()}
        return own | (package_code() if self["allow_package_code"] == "on" else {})

    @property
    def declared(self) -> Declared:
        """What the operator says of the machine."""
        return self._tables.declared

    def lines(self) -> list[str]:
        """All as lines of `worker.toml`, with their origins behind them."""
        shown = []
        for key in KEYS:
            value = self._values[key.name]
            text = HIDDEN if key.secret and value.text else value.text
            line = f"{key.name} = {as_toml(text)}" if text else f"# {key.name} is not set"
            shown.append(f"{line:<50} # {value.origin}")
        return shown + self._tables.lines()

    def objects(self) -> list[dict[str, object]]:
        """The same for programs."""
        settings: list[dict[str, object]] = [
            {
                "name": key.name,
                "value": HIDDEN if key.secret and self[key.name] else self[key.name],
                "origin": self._values[key.name].origin,
            }
            for key in KEYS
        ]
        return settings + self._tables.objects()


def load(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Config:
    """Puts the settings together.

    Args:
        flags: by name; None where a flag was not given.
        environ: the environment.
        file: instead of `worker.toml`, which is looked for in the state folder that a flag or
            the environment names, else in the user's configuration folder.

    Raises:
        CommandFailed: a value or the file can't be used.
    """
    path = file or _usual_file(flags, environ)
    found = _read(path, required=file is not None)
    from_file = _settings(found, path)
    values = {}
    for key in KEYS:
        flag, variable = flags.get(key.name), environ.get(key.variable)
        if flag is not None:
            origin, text = f"--{key.flag}", flag
        elif variable:
            origin, text = key.variable, variable
        elif key.name in from_file:
            origin, text = str(path), from_file[key.name]
        else:
            values[key.name] = Value(key.default(), "default")
            continue
        try:
            values[key.name] = Value(key.check(text), origin)
        except ValueError as error:
            where = f"{origin}: {key.name}" if origin == str(path) else origin
            raise CommandFailed(ExitCode.USAGE, f"{where}: {error}") from None
    config = Config(values, read_tables(found, path))
    if bool(config["room"]) != bool(config["token"]):
        raise CommandFailed(ExitCode.USAGE, "a room and its token belong together: give both")
    if config["room"] and not config["signaling"]:
        raise CommandFailed(
            ExitCode.USAGE, "a room is on a signaling server: give --signaling with --room"
        )
    if flags.get("signaling") and flags.get("listen"):
        raise CommandFailed(
            ExitCode.USAGE,
            "--signaling uses another server, --listen brings an own one: leave one of them out",
        )
    return config


def _usual_file(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Path:
    state = flags.get("state") or environ.get(_BY_NAME["state"].variable)
    folder = Path(state) if state else platformdirs.user_config_path("fsm-worker", appauthor=False)
    return folder / "worker.toml"


def _read(path: Path, *, required: bool) -> dict[str, object]:
    try:
        return read_toml(path)
    except FileNotFoundError:
        if required:
            raise CommandFailed(ExitCode.USAGE, f"{path} is not there: check --config") from None
        return {}
    except NotToml as error:
        raise CommandFailed(ExitCode.USAGE, f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise CommandFailed(ExitCode.USAGE, f"{path}: {error.strerror}") from None


def _settings(found: Mapping[str, object], path: Path) -> dict[str, str]:
    """What stands outside the tables, as texts."""
    values = {}
    for name, value in found.items():
        if name in TABLES:
            continue
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, (*_BY_NAME, *TABLES), n=1, cutoff=0)[0]
            raise CommandFailed(
                ExitCode.USAGE,
                f"{path}: there is no setting {name[:100]!r}; did you mean {near!r}?",
            )
        if isinstance(value, bool) and _BY_NAME[name].check is _switch:
            values[name] = "on" if value else "off"
        elif isinstance(value, bool) or not isinstance(value, str | int):
            raise CommandFailed(ExitCode.USAGE, f"{path}: {name} must be a text or a number")
        else:
            values[name] = str(value)
    return values
