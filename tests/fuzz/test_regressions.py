"""Inputs that once went through a decoder and out at its other end, as an error of Python's own."""

from collections.abc import Callable

import pytest

from tests.fuzz.targets import Target, tried

_DEEP = b"[" * 20_000 + b"]" * 20_000

#: By what came out.
REGRESSIONS: dict[str, tuple[str, bytes]] = {
    "RecursionError in the remembered jobs": ("remembered jobs", b'{"x":' + _DEEP + b"}"),
    "RecursionError in a manifest": ("a manifest", b'{"x":' + _DEEP + b"}"),
    "RecursionError in worker.toml": ("worker.toml", b"a = " + _DEEP),
    "RecursionError in tables of worker.toml": ("worker.toml", b"a = {" * 9000),
    "ValueError of a long number": ("worker.toml", b"gpu = " + b"9" * 5000),
    "ValueError of a long number that is shown": ("worker.toml", b"gpu = 0x" + b"f" * 5000),
    "ValueError of a long tag": ("worker.toml", b"[declare]\ntags = [0x" + b"f" * 5000 + b"]"),
    "gigabytes for one key": ("worker.toml", b"a." * 30_000 + b"a = 1"),
    "UnicodeEncodeError of half a character": (
        "a trainer's message",
        b'{"what": "", "event": "epoch_beg\\ud800in", "logs": null, "epoch": 0}',
    ),
    "RecursionError in an exit record": ("an exit record", b'{"x":' + _DEEP + b"}"),
    "ValueError of a configuration without a name": ("a script", b"sleap-nn train -c ''\n"),
    "ValueError of a configuration that is a folder": ("a script", b"sleap-nn train -c ./\n"),
    "ValueError of tracking what is a folder": ("a script", b"sleap-nn track -i .\n"),
    "UnicodeDecodeError in an exit record": ("an exit record", b'{"code":"\xff"}'),
}


@pytest.mark.parametrize("what", REGRESSIONS)
def test_what_once_got_through_is_refused_now(what: str, chosen: Callable[[str], Target]) -> None:
    name, data = REGRESSIONS[what]
    target = chosen(name)
    # those without a refusal say in what they give that there is nothing to read
    assert not tried(target, data) or not target.refusals


@pytest.mark.parametrize("text", ["9" * 5000, "1024", "-1", "x"])
def test_a_gpu_that_is_no_number_is_refused_in_words(
    text: str, chosen: Callable[[str], Target]
) -> None:
    assert not tried(chosen("worker.toml"), f'gpu = "{text}"'.encode())


@pytest.mark.parametrize("port", ["9" * 5000, "65536", "x", ""])
def test_a_port_that_is_no_number_is_refused_in_words(
    port: str, chosen: Callable[[str], Target]
) -> None:
    assert not tried(chosen("worker.toml"), f'listen = "a:{port}"'.encode())
