"""The README and the documents say what is true."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fsm_worker.cli.config import KEYS
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.parsers import build_parser
from fsm_worker.compat.__main__ import _parser as compat_parser
from fsm_worker.diagrams.machine import machine_page
from fsm_worker.diagrams.picture import pictures
from fsm_worker.events import Timer
from fsm_worker.machines.defaults import SECONDS, STOP_STEPS
from fsm_worker.machines.registry import MACHINES
from protocol.proof import SessionString
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import GOOD, digits

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
#: Other files that show commands.
FILES = sorted((ROOT / "examples").rglob("*.toml"))
README, TRAINER, OPERATING, MOVING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/own-trainer.md", "docs/operating.md", "docs/from-sleap-rtc.md")
)
ROW = re.compile(r"^\| [A-Z]+\d+ \|.*$", re.MULTILINE)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_test_that_a_page_names_is_there() -> None:
    named = [
        (page, name) for page in PAGES for name in re.findall(r"\btests/[a-z_0-9/.]+", _text(page))
    ]
    assert len(named) > 10
    assert [str(name) for _, name in named if not (ROOT / name).exists()] == []


# --- the tables ------------------------------------------------------------------------------


def test_the_rows_in_the_readme_are_rows_of_the_table() -> None:
    rows = ROW.findall(README)
    assert len(rows) == 4
    page = re.sub(r"\[(\w+)\]\([^)]*\)", r"\1", machine_page("job"))  # without the links
    assert set(rows) <= set(ROW.findall(page))


def test_the_picture_in_the_readme_is_drawn_from_the_table() -> None:
    (drawn,) = _blocks(README, "mermaid")
    assert drawn in {picture.mermaid for picture in pictures(MACHINES["job"])}


@every_page
def test_every_row_that_is_named_is_in_a_table(page: Path) -> None:
    known = {row.id for table in MACHINES.values() for row in table.rows}
    assert set(re.findall(r"\brows? ([A-Z]+\d+)\b", _text(page))) <= known


def test_the_exit_codes_in_the_readme_are_those_of_the_program() -> None:
    shown = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert shown == [(str(int(code)), code.meaning) for code in ExitCode]


def test_the_durations_in_the_documents_are_those_of_the_program() -> None:
    steps = r"SIGINT (\d+) s after.*SIGTERM after (\d+) s more, SIGKILL after (\d+) s more"
    assert re.findall(steps, TRAINER.replace("\n", " ")) == [
        tuple(f"{step:.0f}" for step in STOP_STEPS)
    ]
    assert f"SIGTERM, after {SECONDS[Timer.KILL]:.0f} s SIGKILL" in OPERATING
    assert f"{SECONDS[Timer.RETENTION] / 86400:.0f} days after" in OPERATING
    assert f"up to {SECONDS[Timer.LINGER] / 60:.0f} minutes" in OPERATING


# --- names -----------------------------------------------------------------------------------


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", _text(page)):
        if "://" not in target:
            path, _, heading = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            assert not heading or heading in _anchors(found), target


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_every_module_that_is_named_exists(page: Path) -> None:
    ours = {
        f"/{path.relative_to(ROOT).as_posix()}"
        for folder in ("fsm_worker", "protocol", "tests", "bench", "examples")
        for path in (ROOT / folder).rglob("*.py")
    }
    for name in re.findall(r"`([\w/]+\.py)`", _text(page)):
        assert any(path.endswith(f"/{name}") for path in ours), name


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^\$ |^)make ([a-z-]+)", _text(page), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


# --- commands --------------------------------------------------------------------------------


def _commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each `python -m fsm_worker`, in blocks and in sentences."""
    text = _text(page)
    program = r"[\w/.-]*python3? -m fsm_worker(?![.\w])"
    shown = re.findall(rf"^(?:\$ )?{program}(.*)$", text, re.MULTILINE)
    for arguments in (*shown, *re.findall(rf"`{program}([^`]*)`", text)):
        words = shlex.split(arguments, comments=True)
        # as `main` does it
        yield words if words and not words[0].startswith("-") else ["worker", *words]


@pytest.mark.parametrize("page", [*PAGES, *FILES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_can_be_given(page: Path) -> None:
    for words in _commands(page):
        build_parser().parse_args(words)


@every_page
def test_every_program_of_sleap_rtc_that_is_shown_is_named_as_the_command_takes_it(
    page: Path,
) -> None:
    for arguments in re.findall(r"^python -m fsm_worker\.compat (.*)$", _text(page), re.MULTILINE):
        options = compat_parser().parse_args(shlex.split(arguments))
        assert options.module or options.program, arguments


def _options() -> set[str]:
    known = {"--help", "--json"}
    for action in build_parser()._subparsers._group_actions:
        for parser in action.choices.values():
            known |= set(parser._option_string_actions)
    return known


@pytest.mark.parametrize(
    "page",
    # what is left out names options of other programs: of sleap-rtc, systemd and sleap-nn
    [
        page
        for page in PAGES
        if page.name != "from-sleap-rtc.md"
        and not {"deploy", "sleap"} & set(page.relative_to(ROOT).parts)
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_option_that_is_named_exists(page: Path) -> None:
    for span in re.findall(r"`(--[a-z][^`]*)`", _text(page)):
        assert span.split()[0] in _options(), span


def test_the_readme_shows_every_command_that_a_client_has() -> None:
    shown = {words[0] for words in _commands(ROOT / "README.md")}
    assert {"submit", "jobs", "attach", "stop", "cancel", "fetch"} <= shown


# --- from sleap-rtc --------------------------------------------------------------------------

#: As release 0.0.7 has them in `cli.py` and `config.py`; the commands without their options.
WORKER_OPTIONS = (
    "--account-key", "--api-key", "--room", "--working-dir", "--name", "--verbose",
    "--room-secret", "--max-reconnect-time",
)  # fmt: skip
VARIABLES = (
    "SLEAP_RTC_SIGNALING_WS", "SLEAP_RTC_SIGNALING_HTTP", "SLEAP_RTC_ENV", "SLEAP_RTC_ACCOUNT_KEY",
    "SLEAP_RTC_API_KEY", "SLEAP_RTC_DEFAULT_ROOM", "SLEAP_RTC_WORKER_PEER_ID", "SLEAP_ROOM_SECRET",
    "SLEAP_SECRET_PATH", "SLEAP_DASHBOARD_URL",
)  # fmt: skip
CONFIG_KEYS = (
    "environments.NAME.signaling_websocket", "environments.NAME.signaling_http",
    "worker.io.mounts", "worker.io.working_dir", "path_mappings", "default",
)  # fmt: skip
COMMANDS = (
    "login", "logout", "whoami", "train --pkg-path", "train --config", "track", "client",
    "client-train", "client-track", "browse", "resolve-paths", "tui", "test browse",
    "test resolve-paths", "status", "doctor",
    *(f"token {verb}" for verb in ("create", "list", "revoke", "delete", "cleanup")),
    *(f"room {verb}" for verb in (
        "list", "create", "info", "delete", "invite", "join", "set-default", "create-secret")),
    *(f"key {verb}" for verb in ("list", "create", "revoke", "use", "show")),
    *(f"credentials {verb}" for verb in (
        "list", "show", "clear", "remove-secret", "remove-token", "remove-account-key")),
    *(f"config {verb}" for verb in (
        "show", "path", "init", "add-mount", "remove-mount", "add-path-mapping",
        "remove-path-mapping", "list-path-mappings")),
)  # fmt: skip
CLIENT_OPTIONS = (
    "--session-string", "--room", "--worker-id", "--auto-select", "--min-gpu-memory",
    "--room-secret", "--worker-path", "--mount", "--non-interactive", "--config", "--labels",
    "--val-labels", "--max-epochs", "--batch-size", "--learning-rate", "--run-name", "--resume",
    "--data-path", "--model-paths", "--output", "--only-suggested-frames", "--peak-threshold",
    "--frames", "--controller-port", "--publish-port", "--verbose", "--quiet",
)  # fmt: skip


def _table(head: str) -> list[list[str]]:
    """The rows of the table of docs/from-sleap-rtc.md that has this head, by cells."""
    _, _, rest = MOVING.partition(f"\n| {head} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize(
    ("head", "theirs"),
    [
        ("sleap-rtc worker", WORKER_OPTIONS),
        ("variable", VARIABLES),
        ("key", CONFIG_KEYS),
        ("sleap-rtc", COMMANDS),
        ("train, track", CLIENT_OPTIONS),
    ],
    ids=["worker", "environment", "configuration", "commands", "options"],
)
def test_everything_of_sleap_rtc_has_a_row(head: str, theirs: tuple[str, ...]) -> None:
    named = {name for row in _table(head) for name in re.findall(r"`([^`]+)`", row[0])}
    assert set(theirs) <= named


@pytest.mark.parametrize("head", ["sleap-rtc worker", "variable", "key", "sleap-rtc"])
def test_what_is_not_kept_has_its_reason(head: str) -> None:
    for row in _table(head):
        assert row[1] not in {"not kept", "none"} or len(row[2]) > 10, row


def test_what_stands_for_it_exists_here() -> None:
    settings = {key.name for key in KEYS} | {key.variable for key in KEYS} | {"FSM_WORKER_SESSION"}
    for head in ("sleap-rtc worker", "variable", "key"):
        for row in _table(head):
            for name in re.findall(r"`([^`]+)`", row[1]):
                assert name in settings | _options(), name


async def test_a_client_of_sleap_rtc_comes_in_with_the_string_of_the_page(tmp_path: Path) -> None:
    (convert,) = _blocks(MOVING, "python")
    (tmp_path / "session.py").write_text(convert)
    serve = ("-m", "fsm_worker", "--allow-sleap-rtc", "on", "--json")
    async with _running(tmp_path, *serve) as worker:
        ours = json.loads(await _line(worker))["session"]
        mark, _, text = (await _output(tmp_path, "session.py", ours)).strip().partition(":")
        assert mark == "sleap-session"
        said = json.loads(base64.urlsafe_b64decode(text))  # as its clients read it
        url = SessionString.decode(ours).url
        session = SessionString(url=url, room=said["r"], token=said["t"], peer=said["p"], key="")
        async with asyncio.timeout(60), SleapClient.open(session) as client:
            await client.submit(digits(tmp_path), "digits.zip")
            await client.gets()
    assert [text for text in client.texts if text.startswith("TRAIN")] == GOOD


# --- what is shown is run --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _running(folder: Path, *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program; it is asked to end, and must end well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *argv),
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("FSM_WORKER_")},
            "FSM_WORKER_STATE": str(folder / "state"),
        },
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
    assert process.returncode == 0


async def _output(folder: Path, *argv: str) -> str:
    async with asyncio.timeout(60), _running(folder, *argv) as process:
        stdout, _ = await process.communicate()
        return stdout.decode()


async def _line(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(15):
        return (await process.stdout.readline()).decode()


async def test_the_recording_in_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    def unnumbered(text: str) -> set[str]:
        text = re.sub(r"demo-[0-9a-f]{8}", "demo-ID", text)
        return {re.sub(r" +", " ", re.sub(r"\d[\d.]*", "N", line)) for line in text.splitlines()}

    (recording,) = (block for block in _blocks(README) if block.startswith("$ make demo\n"))
    printed = await _output(tmp_path, "-m", "fsm_worker", "demo", "--pace", "0")
    assert unnumbered(recording) - {"$ make demo", "…"} <= unnumbered(printed)


async def test_the_trainer_and_the_worker_of_the_page_do_a_job(tmp_path: Path) -> None:
    train, serve = _blocks(TRAINER, "python")
    (script,) = (block for block in _blocks(TRAINER) if block.startswith("mine "))
    (tmp_path / "train.py").write_text(train)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train-script.sh").write_text(script)
    listen = ("-m", "fsm_worker", "signal", "--listen", "127.0.0.1:0", "--json")
    async with _running(tmp_path, *listen) as server:
        port = json.loads(await _line(server))["url"].rpartition(":")[2]
        for placeholder, real in (("/opt/mine", str(tmp_path)), ("8080", port)):
            assert placeholder in serve
            serve = serve.replace(placeholder, real)
        (tmp_path / "serve.py").write_text(serve)
        async with _running(tmp_path, "serve.py") as worker:
            session = (await _line(worker)).strip()
            submit = ("submit", "package", "--session", session, "--output", "back")
            printed = await _output(tmp_path, "-m", "fsm_worker", *submit)
    assert re.search(r"^epoch \d+/100 loss ", printed, re.MULTILINE)
    assert float((tmp_path / "back/results/model.txt").read_text()) == pytest.approx(3.0)
