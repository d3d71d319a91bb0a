"""Needs, scripts, session strings and tokens that are in order, and that are not."""

import base64
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as mi

from fsm_worker.services.script import MAX_SCRIPT_BYTES
from protocol.proof import SessionString
from protocol.sleap_rtc import MAX_TEXT
from tests.fuzz.archive_kinds import STEM
from tests.fuzz.kinds import Kind, Kinds, of_json, of_text
from tests.fuzz.of_types import WORDS, Bytes, Values, as_json, sound, unsound

Texts = st.SearchStrategy[str]

# --- Words --------------------------------------------------------------------------------------

NAME = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 ._+/()-]{0,20}[A-Za-z0-9]\Z")
_SIZE = st.builds("{}{}{}".format, st.integers(0, 10**9 - 1), st.sampled_from(("", " ", ".5")),
                  st.sampled_from(("GiB", "MiB", "tib", "GB", "mb")))  # fmt: skip
_DIGITS = st.integers(0, 99_999).map(str)
COMPUTE = st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,3})?\Z")
_NEEDS: dict[str, Texts] = {
    "gpu": st.integers(0, 99).map(str) | NAME, "vram": _SIZE, "compute": COMPUTE,
    "runner": NAME, "disk": _SIZE, "memory": _SIZE, "cpus": _DIGITS, "tag": NAME,
}  # fmt: skip
_NO_NEEDS = (
    "", "gpu", "=1", "gpu=", "vram=16", "vram=1XiB", "disk=-1GiB", "memory=٣GiB", "cpus=-1",
    "cpus=1.5", "cpus=100000", "compute=8.0.0", "compute=x", "tag=\x1b[2J", "tag=-a", "runner=a;b",
    "gpu=é", "no=1", "Gpu=1", "tag=" + "x" * 65, "tag=" + "x" * 1000,
)  # fmt: skip


@st.composite
def _need(draw: st.DrawFn) -> list[str]:
    names = draw(st.lists(st.sampled_from(sorted(_NEEDS)), min_size=1, max_size=5, unique=True))
    return [f"{name}={draw(_NEEDS[name])}" for name in names]


_COMMA = st.sampled_from((",", " , ", ",  "))
_NEED = of_text(
    st.builds(str.join, _COMMA, _need()),
    st.builds(
        lambda comma, parts, bad: comma.join([*parts, bad]), _COMMA, _need(),
        st.sampled_from(_NO_NEEDS),
    ) | _need().map(lambda parts: ",".join([*parts, parts[0]])),
)  # fmt: skip

_COMMANDS = st.one_of(
    st.builds("digits train --data {} --epochs {}".format, STEM, st.integers(1, 99)),
    st.builds("python {}.py --lr '{}'".format, STEM, st.text("abc |;&<>*", max_size=8)),
    st.builds('sleap-nn track --data_path "{}.slp" -o \\\n  {}.slp'.format, STEM, STEM),
    st.builds("sleap-nn-track -i {} --model {}".format, STEM, STEM),
    st.builds("sleap-nn train --config-name {}.yaml -d {} 'a=[{}]'".format, STEM, STEM, STEM),
    st.builds("sleap-nn-train {}.yml trainer_config.max_epochs={}".format, STEM, st.integers(1)),
)
_NO_COMMANDS = st.sampled_from(
    ("rm -rf /", "digits train; ls", "digits train --data $HOME", "python train.py | tee x",
     "python -c 'x'", "python ../x.py", "python 'a", "python a.py > x", "A=1 python a.py",
     "digits train `ls`", "python a.py &", "python \x00.py", "python \u202e.py", "python a.py\r\r",
     "python a{b,c}.py", "curl x", "digits", "python a.\\\npy", "digits train --data d --epochs x",
     "digits train --epochs 1", "digits train --data /d", "digits train --no x --data d",
     "sleap-nn train", "sleap-nn train -c", "sleap-nn train -c ''", "sleap-nn train -c ./",
     "sleap-nn train -c a hydra.run.dir=x", "sleap-nn train -c /a", "sleap-nn train a.yaml --x",
     "sleap-nn track", "sleap-nn track -i .", "sleap-nn track -i ''", "sleap-nn track -i ~/a",
     "sleap-nn track -i a --video_index 1", "sleap-nn export a", "sleap-nn")
)  # fmt: skip
_BESIDE = st.sampled_from(("", "# a word", "   ", "\t# $HOME; ls"))


@st.composite
def _script(draw: st.DrawFn, *others: Texts) -> str:
    lines = [*draw(st.lists(_COMMANDS, min_size=1, max_size=3)), *draw(st.lists(_BESIDE))]
    lines = draw(st.permutations([*lines, *map(draw, others)]))
    return draw(st.sampled_from(("\n", "\r\n"))).join((*lines, ""))


def _session(inside: Bytes) -> Bytes:
    return inside.map(lambda data: b"fsm-worker:" + base64.urlsafe_b64encode(data).rstrip(b"="))


_SESSION = of_json(sound(mi.type_info(SessionString)), unsound(mi.type_info(SessionString)))
assert _SESSION.unsound is not None
_NO_SESSION = st.sampled_from((b"", b"fsm-worker", b"fsm-worker:", b"fsm-worker:\xff", b"x:e30"))
_LONG = st.sampled_from((b"\xff", b"x" * (MAX_TEXT + 1), b"\xed\xa0\x80"))
_OUTPUT = st.sampled_from((b"", b"JOB_", b"\x1b[1m", b"FILE_META::", b"PROGRESS_REPORT::x")) | (
    WORDS.map(str.encode)
)

# --- JWTs ---------------------------------------------------------------------------------------

_ACCOUNT = st.from_regex(r"\A[A-Za-z0-9é日 @.-]{1,128}\Z") | st.integers(0, 2**53)
_CLAIMS = st.fixed_dictionaries(
    {"sub": _ACCOUNT, "exp": st.floats(1, 9e15) | st.integers(1, 2**53)},
    optional={"username": WORDS, "nbf": st.floats(-9e15, 60), "iat": st.integers(0, 9)},
)
_NO_CLAIMS = st.sampled_from(
    ({"exp": 0}, {"exp": -1}, {"nbf": 61}, {"nbf": 9e15}, {"sub": []}, {"sub": True},
     {"exp": "9"}, {"aud": 1}, {"aud": [1]}, {"username": 7}, {"exp": [9e9]})
)  # fmt: skip
#: These are refused where a signature is asked for.
_NO_SIGNED = _NO_CLAIMS | st.sampled_from(
    ({"exp": None}, {"aud": "x"}, {"aud": ["x", "y"]}, {"sub": ""}, {"sub": "a\n"},
     {"sub": "x" * 129}, {"sub": None, "username": None})
)  # fmt: skip


def _part(value: Any) -> bytes:
    return base64.urlsafe_b64encode(as_json(value)).rstrip(b"=")


def _jwt(claims: Values) -> Bytes:
    head = st.fixed_dictionaries(
        {"alg": st.sampled_from(("HS256", "RS256", "EdDSA", "none"))},
        optional={"typ": st.just("JWT"), "kid": WORDS},
    )
    return st.builds(
        lambda first, then, end: b".".join((_part(first), _part(then), end)),
        head, claims, st.binary(max_size=32).map(base64.urlsafe_b64encode),
    ).map(lambda token: token.rstrip(b"="))  # fmt: skip


_NO_TOKEN = st.sampled_from((b"", b".", b"..", b"e30.W10.", b"e30.e30", b"\xff.e30.", b"a" * 9000))
_JWT = Kind(_jwt(_CLAIMS), _NO_TOKEN | _jwt(st.builds(dict.__or__, _CLAIMS, _NO_CLAIMS)))

_SIGNED = of_json(
    _CLAIMS,
    st.builds(dict.__or__, _CLAIMS, _NO_SIGNED),
)

WORD_KINDS: dict[str, Kinds] = {
    "a need in words": {"": _NEED},
    "a session string": {
        "": Kind(_session(_SESSION.sound), _session(_SESSION.unsound) | _NO_SESSION)
    },
    "a session string, inside": {"": _SESSION},
    "a script": {"": of_text(_script(), _script(_NO_COMMANDS))},
    "output for sleap-rtc": {
        "": Kind(_OUTPUT, st.builds(bytes.__add__, _OUTPUT, _LONG)),
    },
    "output for a terminal": {"": Kind(_OUTPUT | st.binary(max_size=60), None)},
    "a JWT": {"": _JWT},
    "a signed JWT": {"": _SIGNED},
    "a script's file": {
        "": of_text(_script() | WORDS, st.just("x" * (MAX_SCRIPT_BYTES + 1))),
    },
    "a log's file": {"": Kind(_OUTPUT | st.binary(max_size=60), None)},
}
