"""Row coverage counts what journals say, and nothing else."""

import asyncio
from collections import Counter
from pathlib import Path

from fsm_worker.events import ProbeSucceeded, SlotRequested, Started
from fsm_worker.journal import Journal
from fsm_worker.machines.results import RESULTS
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol.messages import Capabilities
from protocol.table import MachineName
from tests.row_coverage import (
    DRIVEN,
    Excuses,
    excused,
    fired,
    journals,
    objections,
    page,
    report,
    undriven,
)


async def drive(path: Path, *events: object) -> None:
    world = worker_world()
    with Journal(path) as journal:
        for event in events:
            written = journal.keep(world.feed(MachineName.WORKER, THE_WORKER, event))  # type: ignore[arg-type]
            if written is not None:
                async with asyncio.timeout(10):
                    await written


async def test_the_rows_of_several_journals_are_added_up(tmp_path: Path) -> None:
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    ready = (Started(), ProbeSucceeded(capabilities=Capabilities()))
    await drive(one, *ready)
    await drive(two, *ready, SlotRequested(job="a-first-job"))
    times, unreadable = fired([one, two])
    assert unreadable == []
    assert (times["worker", "W1"], times["worker", "W2"], times["worker", "W6"]) == (2, 2, 1)
    line = next(line for line in report(times) if line.startswith("worker"))
    assert "missing: W3, W4, W5, " in line
    assert "W6" not in line.strip(" )").split(": ")[1].split(", ")


def test_a_machine_whose_rows_were_all_driven_misses_none() -> None:
    times = Counter({("results", row.id): 1 for row in RESULTS.rows} | {("results", "R0"): 1})
    lines = list(report(times))
    full = f"{len(RESULTS.rows)}/{len(RESULTS.rows)}"
    assert next(line.split() for line in lines if line.startswith("results")) == ["results", full]
    assert lines[-1] == "no table has: results R0"


def test_a_client_s_own_rows_are_asked_for_and_those_that_it_shares_once() -> None:
    lines = {line.split()[0]: line for line in report(Counter({("session", "K1"): 1}))}
    assert "missing: N1, " in lines["session"]
    assert "K2" in lines["client_session"]
    assert " K1," not in lines["client_session"]
    assert "receiving" in lines
    assert "client_receiving" not in lines


def test_a_row_that_no_run_drives_needs_an_excuse_and_one_that_is_driven_needs_none() -> None:
    times = Counter({(row.split()[0], row.split()[1]): 1 for row in undriven(Counter())})
    assert list(objections(times, Excuses({}, {}))) == []
    [line] = objections(times, Excuses({"results R7": "so"}, {}))
    assert line.startswith("results R7 is driven now, or is no row")
    del times["results", "R7"]
    [line] = objections(times, Excuses({}, {}))
    assert line.startswith("no real run drives results R7: ")
    assert list(objections(times, Excuses({"results R7": "the receiver never refuses"}, {}))) == []


def test_a_row_that_some_runs_drive_is_excused_either_way_as_long_as_there_is_one() -> None:
    times = Counter({(row.split()[0], row.split()[1]): 1 for row in undriven(Counter())})
    sometimes = Excuses({}, {"results R7": "a race"})
    assert list(objections(times, sometimes)) == []
    del times["results", "R7"]
    assert list(objections(times, sometimes)) == []
    [line] = objections(times, Excuses({}, {"results R7": "a race", "results R99": "so"}))
    assert line.startswith("results R99 is driven now, or is no row")


def test_the_page_of_driven_rows_says_what_a_whole_run_is_measured_by() -> None:
    assert DRIVEN.read_text() == page(excused()), "run `python -m tests.row_coverage`"


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "worker" / "journal.sqlite"
    broken.parent.mkdir()
    broken.write_bytes(b"not a database, " * 64)
    assert journals(tmp_path) == [broken]
    assert fired([broken]) == (Counter(), [broken])
    broken.unlink()
