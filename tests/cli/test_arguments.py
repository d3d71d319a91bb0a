"""What can be written on the command line, and what is said about what can't."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm_worker.cli import addresses
from fsm_worker.cli.durations import amount, duration, parse_duration
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.main import MODULES, main
from fsm_worker.cli.parsers import PROG, build_parser

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", MODULES)
def test_every_command_explains_itself_with_an_example_that_parses(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    example = said.rpartition("example:\n")[2].strip()
    assert example.startswith(f"{PROG} {command}")
    options = build_parser().parse_args(shlex.split(example.removeprefix(PROG)))
    assert options.command == command
    assert "--json" in said


def test_the_help_names_every_command_and_every_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert set(MODULES) <= set(re.findall(r"^    (\w+) ", said, re.M))
    assert all(f"{code.value:>2}  {code.meaning}" in said for code in ExitCode)


def test_help_waits_for_nothing_slow() -> None:
    program = (
        "import sys\nfrom fsm_worker.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stderr.split())
    assert not loaded & {"aiortc", "numpy", "rich", "uvicorn", "transitions", "zmq", "asyncio"}


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "x", "--wall", "soon"],
        ["submit", "x", "--stun", "http://h"],
        ["demo", "--pace", "-1"],
        ["signal", "--listen", "8080"],
        ["jobs", "-q", "-v"],
        ["worker", "--sess", "x"],
        ["no-such-command"],
    ],
)
def test_a_usage_error_is_one_line_and_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == ExitCode.USAGE
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--help" in said.err


def test_without_a_command_it_is_a_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fsm-worker", "--show-config", "--state", str(tmp_path)])
    assert main() == 0
    assert f'state = "{tmp_path}"' in capsys.readouterr().out


def test_a_foreign_protocol_package_is_named_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "protocol.py").write_text("VERSION = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "fsm_worker", "--help"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.returncode == ExitCode.USAGE
    assert str(tmp_path / "protocol.py") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_gets_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fsm_worker", "worker", "--show-config"],
            stdout=writer, stderr=subprocess.PIPE, check=False, cwd=ROOT,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.DETACHED, b"")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1.5D", 129600)],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=12))
def test_what_is_no_duration_is_refused_with_a_sentence(text: str) -> None:
    try:
        assert parse_duration(text) > 0
    except ValueError as error:
        assert "write" in str(error)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min")],
)
def test_durations_are_shown_without_a_carry_left_over(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_amounts_have_binary_units() -> None:
    assert [amount(1023), amount(1536), amount(3 * 2**20), amount(5 * 2**40)] == [
        "1023 B",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 TiB",
    ]


@pytest.mark.parametrize("text", ["127.0.0.1:0", "0.0.0.0:8080", "[::1]:9000", "lab.example:1"])
def test_an_address_to_listen_on_is_read_and_written_alike(text: str) -> None:
    assert str(addresses.parse_listen(text)) == text


@pytest.mark.parametrize("text", ["", "8080", ":8080", "h:", "h:x", "h:65536", "h:-1"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8080"):
        addresses.parse_listen(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("wss://h.example", "wss://h.example:443"),
        ("ws://h.example", "ws://h.example:80"),
        ("ws://user:secret@h:1/", "ws://h:1"),
        ("ws://[::1]:5", "ws://[::1]:5"),
    ],
)
def test_a_signaling_server_is_host_and_port_and_nothing_else(text: str, url: str) -> None:
    assert str(addresses.parse_signaling(text)) == url


@pytest.mark.parametrize("text", ["http://h", "ws://", "ws://h/path", "ws://h:x", "h:1"])
def test_what_is_no_signaling_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wss://HOST"):
        addresses.parse_signaling(text)


@pytest.mark.parametrize(
    ("stun", "host", "servers"),
    [
        ("", "127.0.0.1", ()),
        ("", "::1", ()),
        ("", "localhost", ()),
        ("", "lab.example", (addresses.DEFAULT_STUN,)),
        ("off", "lab.example", ()),
        ("stun:h:1", "127.0.0.1", ("stun:h:1",)),
    ],
)
def test_stun_is_asked_only_where_signaling_is_elsewhere(
    stun: str, host: str, servers: tuple[str, ...]
) -> None:
    assert addresses.ice_servers(stun, host) == servers


def test_every_address_stands_for_one_that_others_can_use() -> None:
    assert addresses.own_address("10.1.2.3") == "10.1.2.3"
    for everywhere in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        assert not addresses.is_everywhere(addresses.own_address(everywhere))
