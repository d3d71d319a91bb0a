"""The end of every run: which rows the workers and clients that really ran have driven.

A run may be shared out among processes (pytest-xdist): each tells the one that started it where its
tests left their journals, and that one reads them all.
"""

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.row_coverage import excused, fired, journals, objections, report

#: Told to every process that a test starts, so that two runs on one machine can tell them apart.
RUN = "TEST_RUN_OF_FSM_WORKER"
os.environ[RUN] = str(os.getpid())

#: Where each test takes long, and shares nothing: any process takes the next one. Elsewhere a
#: process runs a whole module, since its tests are short, or share what is expensive to make.
ONE_BY_ONE = ("tests/e2e/", "tests/rows/", "tests/cli/")

_FOLDERS = pytest.StashKey[list[Path]]()
_OBJECTIONS = pytest.StashKey[list[str]]()
_FOLDER = "folder of journals"


class _Shares(LoadScopeScheduling):
    """Gives each process the next module; of some, the next test."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(ONE_BY_ONE) else nodeid.split("::", maxsplit=1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """How a run is shared out; the largest shares first."""
    return _Shares(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Nobody has left a journal so far."""
    config.stash[_FOLDERS] = []


@pytest.fixture(scope="session", autouse=True)
def _remember_where_runs_leave_their_journals(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> None:
    folder = tmp_path_factory.getbasetemp()
    pytestconfig.stash[_FOLDERS].append(folder)
    if _shares(pytestconfig):
        pytestconfig.workeroutput[_FOLDER] = str(folder)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A process of this run has ended, and says where its journals are."""
    folder = getattr(node, "workeroutput", {}).get(_FOLDER)
    if folder and error is None:
        node.config.stash[_FOLDERS].append(Path(folder))  # type: ignore[attr-defined]


def _shares(config: pytest.Config) -> bool:
    """Whether this process does a share of a run that another reports on."""
    return hasattr(config, "workerinput")


def _journals(config: pytest.Config) -> list[Path]:
    return [path for folder in config.stash[_FOLDERS] for path in journals(folder)]


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests run that `make test` runs."""
    option = config.option
    chosen = option.keyword or option.markexpr != "not wheel" or option.collectonly
    return not chosen and config.args == config.getini("testpaths")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A whole run that has left a row undriven fails, unless the row is excused."""
    config = session.config
    if _shares(config) or not _is_whole(config) or session.testsfailed:
        return
    times, _ = fired(_journals(config))
    if found := list(objections(times, excused())):
        config.stash[_OBJECTIONS] = found
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints the rows that real runs drove, if any test ran a worker."""
    found = _journals(config)
    if not found:
        return
    times, unreadable = fired(found)
    terminalreporter.section(f"rows driven through real runs ({len(found)} journals)")
    for line in report(times):
        terminalreporter.write_line(line)
    for path in unreadable:
        terminalreporter.write_line(f"can't be read: {path}")
    for line in config.stash.get(_OBJECTIONS, []):
        terminalreporter.write_line(line, red=True)
