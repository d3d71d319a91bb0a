"""docs/design-trace.md says the truth, and leaves nothing of the design out."""

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.job_coordinator import JobCoordinator
from fsm_worker.services.job_executor import JobExecutor
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.state_manager import StateManager
from fsm_worker.worker_class import RTCWorkerClient
from tests.names_of_the_design import NAMES, Patience

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "design-trace.md").read_text(encoding="utf-8")
THIS = "tests/test_design_trace.py::test_a_name_of_the_design_does_its_work"
DEPARTURE = "Departure:"

#: Every heading of the design, and every bullet below its Goals, Non-Goals and Migration Plan.
HEADINGS = (
    "Context",
    "Goals",
    "Non-Goals",
    "Architecture Pattern: Composition over Inheritance",
    "Module Boundaries",
    "Dependency Flow",
    "Backward Compatibility Strategy",
    "WebRTC Connection Handling",
    "Message Routing Strategy",
    "Alternative 1: Extract to Functions (Not Classes)",
    "Alternative 2: Full Async Actor Pattern",
    "Alternative 3: Keep Everything in One File, Use Private Methods",
    "Risk: Regression in Worker Behavior",
    "Risk: Import Path Confusion",
    "Risk: Over-Abstraction",
    "Trade-off: More Files vs Simpler Files",
    "Phase 1: Extract Modules",
    "Phase 2: Add Unit Tests",
    "Phase 3: Worker Mesh Implementation",
    "Rollback Plan",
    "Q: Should managers share state or have independent state?",
    "Q: Should we add unit tests in this PR or separate PR?",
    "Q: How to handle circular references (manager needs RTCWorkerClient reference)?",
    "Q: Should progress reporter be sync or async?",
)
#: Rows whose test is not named yet. The page says so of each; there may be no other.
AWAITED: set[str] = set()
NOT_YET = "not named yet"


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, by their cells, without heads and rulers."""
    lines = text.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for before, line in zip(["", *lines], lines, strict=False)
        if line.startswith("| ") and not line.startswith("| ---") and before.startswith("|")
    ]


ROWS = rows(PAGE)
PLAIN = [row for row in ROWS if set(row[0]) - set("- ")]


@cache
def known_tests(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    } | {
        f"{scope.name}::{node.name}"
        for scope in ast.walk(tree)
        if isinstance(scope, ast.ClassDef)
        for node in scope.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    } | {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.startswith("Test")
    }  # fmt: skip


def named_tests(text: str) -> list[tuple[str, str, str]]:
    """Each test that a text names: its file, its name, where the link leads."""
    return re.findall(r"\[`(tests/[\w/]+\.py)::([^`]+)`\]\(\.\./([\w/.]+)\)", text)


# --- the page --------------------------------------------------------------------------------


def test_every_test_that_is_named_exists_and_is_linked() -> None:
    found = named_tests(PAGE)
    assert len(found) > 100
    for file, test, linked in found:
        assert linked == file
        assert test.partition("[")[0] in known_tests(file), f"{file}::{test}"
    # and none is written in a way that this test does not see
    assert PAGE.count("`tests/") == len(found)


def test_every_row_has_a_test_or_says_why_not() -> None:
    bare = {
        row[0] for row in PLAIN if not named_tests(row[-1]) and not row[-1].startswith(DEPARTURE)
    }
    assert bare == AWAITED
    assert {row[0] for row in PLAIN if row[-1] == NOT_YET} == AWAITED


def test_every_row_leads_to_a_file() -> None:
    for row in PLAIN:
        assert "](" in row[1] or row[-1].startswith(DEPARTURE), row


def test_no_heading_of_the_design_is_left_out() -> None:
    shown = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    assert [heading for heading in HEADINGS if heading not in shown] == []
    places = [shown.index(heading) for heading in HEADINGS]
    assert places == sorted(places)


def test_a_departure_gives_its_reason() -> None:
    for row in PLAIN:
        if row[-1].startswith(DEPARTURE):
            assert len(row[-1]) > len(DEPARTURE) + 20, row


# --- the names -------------------------------------------------------------------------------


def test_every_name_of_the_design_has_a_row_with_its_own_test() -> None:
    found = {
        row[0].strip("`"): test
        for row in PLAIN
        for file, test, _ in named_tests(row[-1])
        if f"{file}::{test}".startswith(THIS)
    }
    assert found == {name: f"{THIS.partition('::')[2]}[{name}]" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_of_the_design_does_its_work(name: str, tmp_path: Path) -> None:
    await NAMES[name].check(tmp_path)


@pytest.mark.parametrize("name", NAMES)
async def test_without_what_has_its_place_the_check_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patience, "seconds", Patience.without)
    NAMES[name].remove(monkeypatch)
    try:
        await NAMES[name].check(tmp_path)
    except (Exception, ExceptionGroup) as failure:
        assert not isinstance(failure, pytest.skip.Exception)
        return
    pytest.fail(f"{name} can be removed, and its check does not notice")


# --- what the design asks of its managers ----------------------------------------------------

SERVICES = ROOT / "fsm_worker" / "services"
MANAGERS = {
    kind.__name__: kind
    for kind in (
        WorkerCapabilities, JobExecutor, FileManager, JobCoordinator, StateManager,
        ProgressReporter,
    )
}  # fmt: skip
#: In how few lines a manager would be merged back, by the design.
TOO_SMALL = 50

each_manager = pytest.mark.parametrize("manager", MANAGERS.values(), ids=MANAGERS)


def file_of(manager: type) -> Path:
    return SERVICES / f"{manager.__module__.rpartition('.')[2]}.py"


@each_manager
def test_a_manager_is_a_plain_class_and_no_small_one(manager: type) -> None:
    assert manager.__bases__ == (object,)
    assert not inspect.isabstract(manager)
    assert len(inspect.getsource(manager).splitlines()) >= TOO_SMALL


@each_manager
def test_no_manager_is_given_the_orchestrator(manager: type) -> None:
    assert "worker_class" not in file_of(manager).read_text(encoding="utf-8")
    asked_for = inspect.signature(manager).parameters.values()
    assert not any("RTCWorkerClient" in str(one) for one in asked_for)


@each_manager
def test_every_manager_has_tests_of_its_own(manager: type) -> None:
    path = ROOT / "tests" / "services" / f"test_{file_of(manager).name}"
    assert manager.__name__ in path.read_text(encoding="utf-8")
    assert known_tests(path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("name", ["capabilities", "file_manager", "progress_reporter"])
def test_independent_managers_are_imported_alone(name: str) -> None:
    others = {file_of(manager).stem for manager in MANAGERS.values()} - {name}
    script = (
        f"import sys, fsm_worker.services.{name}\n"
        "print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('fsm_worker')))"
    )
    loaded = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert name in loaded.stdout.split()
    assert not others & set(loaded.stdout.split())
    assert "worker_class" not in loaded.stdout.split()


def test_no_method_of_the_orchestrator_is_named_by_a_manager_s_prefix() -> None:
    prefixes = ("_cap_", "_job_", "_file_", "_state_", "_progress_")
    assert [name for name in vars(RTCWorkerClient) if name.startswith(prefixes)] == []


def test_every_module_says_its_purpose_first() -> None:
    for path in SERVICES.glob("*.py"):
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
        assert len(first[0]) > 20, path.name
