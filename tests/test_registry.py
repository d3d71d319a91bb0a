"""Nothing is missing from the registries, and what would be missing is named in a sentence."""

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from msgspec import Struct

import protocol
from fsm_worker import machines
from fsm_worker.effects import CleanSlot, Effect
from fsm_worker.events import CleanSucceeded, Timer
from fsm_worker.machines import coupling, registry
from fsm_worker.machines.engine import Table
from fsm_worker.machines.world import Coupling
from fsm_worker.machines.worlds import worker_world
from fsm_worker.runtime import UnboundEffect, bind
from protocol import messages
from protocol.registry import DIALECTS, check, leaves, tag
from protocol.sleap_rtc import frames
from protocol.table import MESSAGES, MachineName

ROOT = Path(__file__).parents[1]


def modules_of(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]


def structs_of(package: ModuleType) -> set[type[Struct]]:
    """Every struct that a module of the package defines."""
    return {
        value
        for module in modules_of(package)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Struct)
        and value.__module__ == module.__name__
    }


# --- nothing is missing ------------------------------------------------------------------------


def test_whatever_has_a_wire_name_is_in_a_dialect() -> None:
    bases = {dialect.base for dialect in DIALECTS}
    tagged = {
        kind
        for kind in structs_of(protocol)
        if kind.__struct_config__.tag is not None and kind not in bases
    }
    assert tagged - {kind for dialect in DIALECTS for kind in dialect.kinds} == set()


def test_every_message_of_a_dialect_is_said_by_somebody() -> None:
    for dialect in DIALECTS:
        assert set(leaves(dialect.base)) <= set(dialect.kinds)


def test_no_two_messages_of_a_json_dialect_share_a_name() -> None:
    for dialect in DIALECTS:
        if dialect.is_json:
            names = [tag(kind) for kind in dialect.kinds]
            assert len(names) == len(set(names))


def test_every_module_of_machines_that_has_a_table_is_registered() -> None:
    owners = {
        module.__name__.rpartition(".")[2]
        for module in modules_of(machines)
        for name, value in vars(module).items()
        if isinstance(value, Table) and name == module.__name__.rpartition(".")[2].upper()
    }
    assert owners == set(registry.MACHINES)
    assert {id(table) for table in registry.MACHINES.values()} == {
        id(value)
        for module in modules_of(machines)
        for value in vars(module).values()
        if isinstance(value, Table)
    }


def test_every_row_of_the_coupling_table_is_in_a_world() -> None:
    written = {
        value.id
        for module in modules_of(machines)
        for value in vars(module).values()
        if isinstance(value, Coupling)
    }
    used = {row.id for row in (*coupling.WORKER_COUPLINGS, *coupling.CLIENT_COUPLINGS)}
    assert written <= used
    source = "".join(path.read_text() for path in Path(coupling.__file__).parent.glob("*.py"))
    assert set(re.findall(r'\bCoupling\(\s*"(\w+)"', source)) == used


# --- what would be missing is named ------------------------------------------------------------


def imported(code: str) -> str:
    """What Python says at the end of a process that runs the code."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "base", "then", "words"),
    [
        ("protocol.messages", "Message", "protocol.table", "no row in protocol.table for Pause"),
        ("protocol.signaling", "Message", "protocol.registry", "nobody says Pause: put it into"),
        ("protocol.trainer", "TrainerMessage", "protocol.registry", "nobody says Pause"),
        ("protocol.sleap_rtc.frames", "Frame", "protocol.registry", "nobody says Pause: give it a"),
    ],
)
def test_a_message_without_a_row_is_named_when_it_is_imported(
    module: str, base: str, then: str, words: str
) -> None:
    code = f"import {module} as m\nclass Pause(m.{base}, tag='pause'): pass\nimport {then}"
    assert words in imported(code)


def test_a_message_that_nobody_says_is_named() -> None:
    for dialect in DIALECTS:
        lost = dialect.kinds[0]
        short = {who: tuple(k for k in some if k is not lost) for who, some in dialect.said.items()}
        if lost in set(leaves(dialect.base)):
            with pytest.raises(TypeError, match=lost.__name__):
                check(dialect._replace(said=short))


def without(table: Table[Any, Any], drop: Callable[[Any], bool]) -> Table[Any, Any]:
    """The same table, some of whose rows are gone; not checked, so that what is said is seen."""
    left = object.__new__(Table)
    left.__dict__.update(vars(table))
    left.rows = tuple(row for row in table.rows if not drop(row))
    left.by_pair = {}
    for row in left.rows:
        for source in row.sources:
            left.by_pair[source, row.on] = (*left.by_pair.get((source, row.on), ()), row)
    left.ignored = {pair: why for pair, why in table.ignored.items()
                    if any(pair[1] is row.on for row in left.rows)}  # fmt: skip
    return left


def registered(monkeypatch: pytest.MonkeyPatch, name: str, table: Table[Any, Any]) -> None:
    old = registry.MACHINES[name]
    monkeypatch.setattr(registry, "MACHINES", {**registry.MACHINES, name: table})
    worker = {key: table if some is old else some for key, some in registry.WORKER_TABLES.items()}
    monkeypatch.setattr(registry, "WORKER_TABLES", worker)
    hearers = tuple(
        (direction, side, worker if side == "worker" else tables)
        for direction, side, tables in registry._HEARERS
    )
    monkeypatch.setattr(registry, "_HEARERS", hearers)


def test_a_message_whose_machine_has_no_row_for_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = registry.MACHINES["job"]
    registered(monkeypatch, "job", without(job, lambda row: row.on is messages.Stop))
    assert "stop is legal in no state of the worker's machine job" in registry.disagreements()


def test_an_event_that_no_machine_reads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = registry.MACHINES["worker"]
    registered(monkeypatch, "worker", without(worker, lambda row: row.on is CleanSucceeded))
    (said,) = registry.disagreements()
    assert said == "no machine reads clean_succeeded"


def test_a_timer_that_no_machine_reads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    job = registry.MACHINES["job"]
    registered(monkeypatch, "job", without(job, lambda row: row.on is Timer.WALL))
    assert "no machine reads timer_wall_expired" in registry.disagreements()


def test_an_effect_that_no_row_asks_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = registry.MACHINES["worker"]
    registered(monkeypatch, "worker", without(worker, lambda row: CleanSlot in row.effects))
    assert "no row asks for CleanSlot" in registry.disagreements()


def test_an_effect_whose_manager_lacks_the_method_is_named() -> None:
    with pytest.raises(UnboundEffect, match=r"\w+ needs the method \w+\.\w+"):
        bind(worker_world(), {})


def test_the_real_ones_agree() -> None:
    assert registry.disagreements() == ()
    assert {row.machine for row in MESSAGES} - {None} <= set(MachineName)
    assert len(set(Effect.__subclasses__())) > 50
    assert frames.NotPerformed in set(leaves(frames.Frame))


def test_a_coupling_s_number_is_one_row_s_at_either_side() -> None:
    known = {row.id: row for row in coupling.CLIENT_COUPLINGS}
    assert len(known) == len(coupling.CLIENT_COUPLINGS)
    assert len({row.id for row in coupling.WORKER_COUPLINGS}) == len(coupling.WORKER_COUPLINGS)
    for row in coupling.WORKER_COUPLINGS:
        assert known.get(row.id, row) is row, row.id
