"""In every state that can be reached: the laws hold, and time alone brings everything to rest."""

from collections.abc import Iterator

import pytest

from fsm_worker.events import event_name
from fsm_worker.machines.registry import CLIENT_TABLES, WORKER_TABLES
from tests.exploration.products import PRODUCTS, Survey, pinned, surveys

each = pytest.mark.parametrize("name", PRODUCTS)

#: Rows that no product can drive, and why.
UNDRIVEN: dict[str, str] = {
    "job J9": "a job has one input for now, so the first to arrive is the last",
    "job J58": "a hundred jobs of one key: see tests/machines/test_world.py",
    "job J62": "five hundred jobs that have ended: see tests/machines/test_world.py",
    "talk P25": "sixty-four negotiations: see tests/machines/test_world.py",
    "session N12": "sixteen sessions of one key: see tests/machines/test_world.py",
}
#: Events that come only after more machines than a product has, as `machine event`.
TOO_MANY = {"job crowded", "session crowded", "talk crowded"}


@pytest.fixture(scope="module")
def explored() -> Iterator[dict[str, Survey]]:
    yield {survey.name: survey for survey in surveys()}


@each
def test_what_must_always_hold_holds(explored: dict[str, Survey], name: str) -> None:
    assert not explored[name].violation, f"\n{explored[name].violation}"


@each
def test_everything_that_is_to_be_seen_was_seen(explored: dict[str, Survey], name: str) -> None:
    assert explored[name].never == ()


@each
def test_time_and_processes_alone_bring_everything_to_rest(
    explored: dict[str, Survey], name: str
) -> None:
    assert explored[name].restless == (), "\n" + "\n\n".join(explored[name].restless)


@each
def test_as_many_states_as_were_reviewed(explored: dict[str, Survey], name: str) -> None:
    assert explored[name].counts == pinned()[name], (
        "a table or a product has changed: look at what it can do now, then run "
        "`python -m tests.exploration.repin`"
    )


def test_no_event_of_any_table_is_left_out(explored: dict[str, Survey]) -> None:
    heard = {pair for survey in explored.values() for pair in survey.heard}
    missing = {
        f"no source generates {event_name(on)} for {table.name}: add it to tests/exploration"
        for tables in (WORKER_TABLES, CLIENT_TABLES)
        for table in tables.values()
        for on in table.events()
        if (table.name, on) not in heard and f"{table.name} {event_name(on)}" not in TOO_MANY
    }
    assert not missing, "\n".join(sorted(missing))


def test_every_row_fires(explored: dict[str, Survey]) -> None:
    fired = {row for survey in explored.values() for row in survey.rows}
    rows = {
        f"{table.name} {row.id}"
        for tables in (WORKER_TABLES, CLIENT_TABLES)
        for table in tables.values()
        for row in table.rows
    }
    assert rows - fired == set(UNDRIVEN), "a row that no exploration drives, or one that is driven"
