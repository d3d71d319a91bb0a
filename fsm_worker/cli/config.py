"""A worker's settings: from flags, then the environment, then `worker.toml`, then defaults."""

import difflib
import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from fsm_worker.cli.addresses import parse_listen, parse_signaling, parse_stun
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode

_HIDDEN = "(hidden)"


def _gpu(text: str) -> str:
    if not text.isdecimal() or int(text) > 1023:
        raise ValueError(f"{text[:40]!r} is no number of a GPU: write 0, 1, …")
    return text


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
    Key("room", "ID", "room to join on that server (makes one)"),
    Key("token", "TOKEN", "of that room", secret=True),
    Key("name", "NAME", "of this worker, for people (this machine's)",
        default=lambda: socket.gethostname() or "worker"),
    Key("gpu", "N", "which GPU, as nvidia-smi counts (0)", _gpu, lambda: "0"),
    Key("state", "DIR", "folder for its key, its jobs and their results (the user's own)",
        default=_state),
    Key("sleap_nn", "PATH", "the sleap-nn program (the one on the PATH)"),
    Key("stun", "URL|off", "STUN server (used only where signaling is on another machine)",
        parse_stun),
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
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        """The value; empty where it is not set."""
        return self._values[name].text

    def lines(self) -> list[str]:
        """Each setting as a line of `worker.toml`, with its origin behind it."""
        shown = []
        for key in KEYS:
            value = self._values[key.name]
            text = _HIDDEN if key.secret and value.text else value.text
            quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            line = f"{key.name} = {quoted}" if text else f"# {key.name} is not set"
            shown.append(f"{line:<50} # {value.origin}")
        return shown

    def objects(self) -> list[dict[str, str]]:
        """The same for programs."""
        return [
            {
                "name": key.name,
                "value": _HIDDEN if key.secret and self[key.name] else self[key.name],
                "origin": self._values[key.name].origin,
            }
            for key in KEYS
        ]


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
    from_file = _read(path, required=file is not None)
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
    config = Config(values)
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


def _read(path: Path, *, required: bool) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise CommandFailed(ExitCode.USAGE, f"{path} is not there: check --config") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(ExitCode.USAGE, f"{path} is no TOML: {error}") from None
    except OSError as error:
        raise CommandFailed(ExitCode.USAGE, f"{path}: {error.strerror}") from None
    values = {}
    for name, value in found.items():
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0)[0]
            raise CommandFailed(
                ExitCode.USAGE,
                f"{path}: there is no setting {name[:100]!r}; did you mean {near!r}?",
            )
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise CommandFailed(ExitCode.USAGE, f"{path}: {name} must be a text or a number")
        values[name] = str(value)
    return values
