"""The example of an own trainer does what its README says, typed word by word in two terminals."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsm_worker.cli.config import load
from fsm_worker.cli.interrupts import QUESTION

ROOT = Path(__file__).parents[1]
README = (ROOT / "examples/own_trainer/README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/own-trainer.md").read_text(encoding="utf-8")
PATIENCE = 30.0  # seconds until something that was to be seen is missed

pytestmark = pytest.mark.skipif(
    not (Path(sys.prefix) / "bin/activate").exists() or shutil.which("bash") is None,
    reason="the README is about bash and a virtual environment: run it from .venv, as make test",
)


def blocks(heading: str) -> list[str]:
    """The code blocks below a heading, up to the next one."""
    (section,) = re.findall(rf"^## {heading}.*\n((?:(?!^## ).*\n)*)", README, re.MULTILINE)
    return re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Terminal:
    """A person at a bash in a terminal: types, presses keys, and reads what is shown."""

    def __init__(self, folder: Path) -> None:
        self._screen, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.shown = ""
        self._seen = 0
        # The shell must own the terminal, or Ctrl-C would reach nobody.
        own = (
            "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execvp({0!r}, {1!r})"
        )
        shell = ["bash", "--norc", "--noprofile", "-i"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FSM_WORKER_")}
        own_state = {"TERM": "xterm", "PS1": "$ ", "FSM_WORKER_STATE": str(folder / "state")}
        with os.fdopen(other, "rb") as end:
            self.process = subprocess.Popen(
                [sys.executable, "-c", own.format("bash", shell)],
                stdin=end, stdout=end, stderr=end, cwd=folder, start_new_session=True,
                env=kept | own_state,
            )  # fmt: skip

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def sees(self, pattern: str) -> re.Match[str]:
        """Waits until this is shown after all that was seen before."""
        until = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.shown, self._seen)) is None:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._screen], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} was not shown:\n{self.shown}")
            self.shown += os.read(self._screen, 65536).decode(errors="replace")
        self._seen = found.end()
        return found

    def close(self) -> None:
        os.close(self._screen)  # hangs up: whoever still runs there ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples/own_trainer", tmp_path / "examples/own_trainer")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.fixture
def terminals(checkout: Path) -> Iterator[tuple[Terminal, Terminal]]:
    two = Terminal(checkout), Terminal(checkout)
    yield two
    for terminal in two:
        terminal.close()


def test_the_readme_is_true_word_by_word(
    checkout: Path, terminals: tuple[Terminal, Terminal]
) -> None:
    first, second = terminals
    (serve,) = blocks("The first terminal")
    submit, question, look = blocks("The second terminal")
    assert question == f"{QUESTION}s\n"

    first.type(serve)
    session = first.sees(r"submit --session (fsm-worker:\S+) --example")[1]
    assert submit.count("fsm-worker:…") == 1
    second.type(submit.replace("fsm-worker:…", session))
    losses = [float(second.sees(r"epoch \d+/3000\b.*?loss ([\d.e-]+) best")[1]) for _ in range(20)]
    assert losses[-1] < losses[0]
    second.type("\x03")
    second.sees(re.escape(QUESTION.strip()))
    second.type("s\n")
    second.sees("stopped early")
    second.sees(r"results: results/first .*\r\n")
    second.sees(r"\$ ")  # the prompt
    second.type(look)
    second.sees(r"\rexit code 0\r\n")
    line = json.loads(second.sees(r"\r(\{.*\})\r\n")[1])
    example = checkout / "examples/own_trainer"
    assert line == json.loads((example / "results/first/models/line.json").read_text())
    assert line["slope"] > 0
    first.type("\x03")
    first.sees("The worker has stopped")
    first.sees(r"\$ ")


def test_the_example_needs_few_lines() -> None:
    lines = (ROOT / "examples/own_trainer/worker.toml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S))
def test_the_tables_of_the_page_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "worker.toml").write_text(text)
    load({"state": str(tmp_path)}, {})


def test_the_page_shows_every_key_of_the_tables() -> None:
    shown = "\n".join(re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S))
    for key in ("argv", "args", "outputs", "env", "gpu_model", "gpu_memory_mb", "gpu_compute",
                "gpu_count", "tags"):  # fmt: skip
        assert re.search(rf"^{key} = ", shown, re.M), key
