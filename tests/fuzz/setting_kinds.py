"""Settings, and files that a program wrote for itself: in order, and not."""

import json
from typing import Any

from hypothesis import strategies as st

from fsm_worker.client import remembered
from fsm_worker.services.launch import ExitRecord
from tests.fuzz.archive_kinds import FILE, STEM
from tests.fuzz.kinds import Kind, Kinds, of_json, of_struct, of_text
from tests.fuzz.of_types import WORDS, as_json
from tests.fuzz.word_kinds import COMPUTE, NAME

# --- Files --------------------------------------------------------------------------------------

_PLAIN = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=9)
_RUNNER_NAME = st.from_regex(r"\A[A-Z][A-Za-z0-9_-]{0,63}\Z")
_RUNNER = st.fixed_dictionaries(
    {"argv": st.lists(STEM | st.just("--x=1"), max_size=3).map(lambda words: ["true", *words])},
    optional={
        "args": st.booleans(),
        "outputs": st.lists(FILE | st.just("."), min_size=1, max_size=2),
        "env": st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,9}\Z"), WORDS.map(
            lambda text: text.replace("\0", "")), max_size=2),
    },
)  # fmt: skip
_NO_RUNNER = st.sampled_from(
    ({"argv": []}, {"argv": "true"}, {"argv": [1]}, {"argv": ["no-such-program-here"]},
     {"argv": ["true", "./no.py"]}, {"argv": ["true", "train.py"]}, {"argv": [""]},
     {"argv": ["sh", "-c"], "args": True}, {"args": 1}, {"args": "yes"}, {"outputs": []},
     {"outputs": ["../x"]}, {"outputs": ["/x"]}, {"outputs": "x"}, {"env": []},
     {"env": {"a b": ""}},
     {"env": {"CUDA_VISIBLE_DEVICES": "0"}}, {"env": {"A": 1}}, {"env": {"A": "\0"}}, {"x": 1},
     {"argv": ["true"] * 65}, {"argv": ["x" * 4097]}, {"argv": ["~nobody-here/x"]})
)  # fmt: skip
_DECLARED = st.fixed_dictionaries(
    {},
    optional={
        "gpu_model": _PLAIN, "gpu_memory_mb": st.integers(1, 2**30),
        "gpu_compute": COMPUTE, "gpu_count": st.integers(1, 64),
        "tags": st.lists(NAME, max_size=3),
    },
)  # fmt: skip
_NO_DECLARED = st.sampled_from(
    ({"gpu_model": 1}, {"gpu_model": "x" * 101}, {"gpu_model": "\u200b"}, {"gpu_memory_mb": 0},
     {"gpu_memory_mb": 2**30 + 1}, {"gpu_memory_mb": True}, {"gpu_compute": 8}, {"gpu_count": 65},
     {"gpu_compute": "8.x"}, {"gpu_count": -1}, {"tags": "a"}, {"tags": ["-"]}, {"tags": [1]},
     {"tags": ["a"] * 65}, {"runners": {}}, {"no": 1})
)  # fmt: skip
_RUNNERS = st.dictionaries(_RUNNER_NAME, _RUNNER, max_size=2)
_NO_RUNNERS = st.one_of(
    st.builds(lambda name, one, bad: {name: {**one, **bad}}, _RUNNER_NAME, _RUNNER, _NO_RUNNER),
    st.sampled_from(("digits", "sleap-nn", "python", "-a", "a b", "", "é", "x" * 65)).map(
        lambda name: {name: {"argv": ["true"]}}
    ),
    st.builds(lambda name, bad: {name: bad}, _RUNNER_NAME, st.sampled_from((1, "true", ["true"]))),
)
_MAYBE_DECLARED = _DECLARED.map(lambda table: {"declare": table} if table else {})
_WORSE_DECLARED = st.builds(
    lambda table, bad: {"declare": {**table, **bad}}, _DECLARED, _NO_DECLARED
)
_TABLES = st.builds(dict.__or__, _RUNNERS, _MAYBE_DECLARED)
_NO_TABLES = st.builds(dict.__or__, _NO_RUNNERS, _MAYBE_DECLARED) | st.builds(
    dict.__or__, _RUNNERS, _WORSE_DECLARED
)

# --- worker.toml --------------------------------------------------------------------------------

_SWITCH = st.booleans() | st.sampled_from(("on", "off", "true", "false"))
_TEXT = _PLAIN.map("x{}".format)
_OWN = st.fixed_dictionaries(
    {},
    optional={
        "gpu": st.integers(0, 1023) | st.integers(0, 1023).map(str), "name": _TEXT, "state": _TEXT,
        "listen": st.builds("{}:{}".format, st.sampled_from(("127.0.0.1", "[::1]", "localhost")),
                            st.integers(0, 65535)),
        "jwt_key": _TEXT, "api_keys": _TEXT, "shared_storage": _TEXT, "sleap_nn": _TEXT,
        "room_secret": _TEXT, "stun": st.just("off") | STEM.map("stun:{}".format),
        "allow_sleap_rtc": _SWITCH, "allow_package_code": _SWITCH,
    },
)  # fmt: skip
_ROOM = st.just({}) | st.fixed_dictionaries(
    {
        "signaling": st.builds("{}://h:{}".format, st.sampled_from(("ws", "wss")),
                               st.integers(1, 65535)),
        "room": _TEXT, "token": _TEXT,
    }
)  # fmt: skip
_NO_SETTING = st.sampled_from(
    ({"gpu": -1}, {"gpu": 1024}, {"gpu": "x"}, {"gpu": "٣x"}, {"gpu": 0.5}, {"gpu": True},
     {"listen": "a"}, {"listen": "a:65536"}, {"listen": ":1"}, {"signaling": "http://x"},
     {"signaling": "ws://"}, {"signaling": "ws://h:x"}, {"signaling": "ws://h/p"}, {"stun": "x"},
     {"room": ""}, {"token": " "}, {"token": "x" * 4097}, {"name": []}, {"name": ""}, {"name": 1.5},
     {"allow_sleap_rtc": "yes"}, {"allow_package_code": 1}, {"rom": "x"}, {"": "x"})
)  # fmt: skip
_SETTINGS = st.builds(dict.__or__, _OWN, _ROOM)
_ALONE = st.sampled_from(("room", "token", "signaling"))


def toml_value(value: Any) -> str:
    """A value of JSON as TOML has it; what TOML does not have is written all the same."""
    match value:
        case dict():
            pairs = (f"{json.dumps(key)} = {toml_value(one)}" for key, one in value.items())
            return f"{{ {', '.join(pairs)} }}"
        case list():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_lines(table: dict[str, Any]) -> list[str]:
    """The lines of one table, without its header."""
    return [f"{json.dumps(key)} = {toml_value(value)}" for key, value in table.items()]


def _toml(settings: dict[str, Any], tables: dict[str, Any]) -> bytes:
    lines = toml_lines(settings)
    for name, table in tables.items():
        header = name if name == "declare" else f"runners.{json.dumps(name)}"
        # a table that is none is a value of the table above it
        lines += [f"[{header}]", *toml_lines(table)] if isinstance(table, dict) else [
            "[runners]", f"{json.dumps(name)} = {toml_value(table)}"
        ]  # fmt: skip
    return "\n".join(lines).encode()


_NO_TOML = st.sampled_from(
    (b"\xff", b"gpu", b"gpu = ", b"gpu = 0\ngpu = 1", b'name = "\n"', b"[runners", b"[[declare]]",
     b"name = 1979-05-27", b"runners = 1", b"declare = []", b"[no]", b"a.b = 1")
)  # fmt: skip
_BAD_TOML = st.one_of(
    _NO_TOML,
    st.builds(_toml, st.builds(dict.__or__, _SETTINGS, _NO_SETTING), _TABLES),
    st.builds(_toml, _SETTINGS, _NO_TABLES),
    st.builds(lambda own, room, key: _toml({**own, key: room}, {}), _OWN, _TEXT, _ALONE),
)

# --- Files that a program wrote for itself ------------------------------------------------------

_KEY = st.from_regex(r"\A[!-~]{16,40}\Z")
_KEY_LINES = st.dictionaries(_KEY, NAME.map(lambda name: name.replace(" ", "_")), max_size=3).map(
    lambda found: [f"{name} {key}" for key, name in found.items()]
)
_NO_KEY_LINES = st.sampled_from(
    ("name", "name short", "a b " + "k" * 40, "x" * 129 + " " + "k" * 40, "\x01 " + "k" * 40,
     "a " + "k" * 40 + "\nb " + "k" * 40)
)  # fmt: skip


def _lines(lines: list[str]) -> str:
    return "\n".join(("# mine", *lines, "", "  "))


_CLIENTS = st.dictionaries(WORDS, st.lists(st.sampled_from(("submit", "operate")) | WORDS))

SETTINGS: dict[str, Kinds] = {
    "worker.toml": {"": Kind(st.builds(_toml, _SETTINGS, _TABLES), _BAD_TOML)},
    "tables": {"": Kind(_TABLES.map(as_json), _NO_TABLES.map(as_json))},
    # nothing is refused of these two: what can't be read says so, or is as if it were not there
    "remembered jobs": {"": of_struct(remembered._File, lambda got: not got.complaint)},
    "an exit record": {"": of_struct(ExitRecord)},
    "known clients": {
        "": of_json(
            _CLIENTS,
            st.dictionaries(WORDS, st.sampled_from((None, "submit", [1], {})), min_size=1)
            | st.sampled_from((None, [], 1, "x")),
        )
    },
    "API keys": {
        "": of_text(
            _KEY_LINES.map(_lines),
            st.builds(lambda good, bad: _lines([*good, bad]), _KEY_LINES, _NO_KEY_LINES),
        )
    },
}
