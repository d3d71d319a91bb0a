"""The end of every run: which rows the workers that really ran have driven."""

import os
from pathlib import Path

import pytest

from tests.row_coverage import excused, fired, journals, objections, report

#: Told to every process that a test starts, so that two runs on one machine can tell them apart.
RUN = "TEST_RUN_OF_FSM_WORKER"
os.environ[RUN] = str(os.getpid())

_TEMPORARY = pytest.StashKey[Path]()
_OBJECTIONS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", autouse=True)
def _remember_where_runs_leave_their_journals(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> None:
    pytestconfig.stash[_TEMPORARY] = tmp_path_factory.getbasetemp()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A whole run that has left a row undriven fails, unless the row is excused."""
    config, reasons = session.config, excused()
    folder = config.stash.get(_TEMPORARY, None)
    whole = not config.option.keyword and config.args == config.getini("testpaths")
    if reasons is None or folder is None or not whole or session.testsfailed:
        return
    times, _ = fired(journals(folder))
    if found := list(objections(times, reasons)):
        config.stash[_OBJECTIONS] = found
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints the rows that real runs drove, if any test ran a worker."""
    folder = config.stash.get(_TEMPORARY, None)
    found = journals(folder) if folder is not None else []
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
