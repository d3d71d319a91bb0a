"""Every state, every event, every truth value of every guard: exactly what the table declares."""

import importlib
import pkgutil
from itertools import product
from typing import Any

import pytest
from msgspec import structs

from fsm_worker import machines
from fsm_worker.effects import Do, StartTimer
from fsm_worker.events import Event, On, Received, Timer, TimerExpired, event_name
from fsm_worker.machines import registry
from fsm_worker.machines.engine import Guard, Ignored, Instance, Row, Step, Table, Verdict
from tests.machines.samples import EVENTS, SAMPLES, SERIAL

AnyTable = Table[Any, Any]
SUBJECT = "subject"
PLACES = [(name, state) for name, table in registry.MACHINES.items() for state in table.states]


class Switchboard:
    """A table whose guards are constants, and the switches that set them."""

    def __init__(self, table: AnyTable) -> None:
        self.truth: dict[str, bool] = {}
        self.table: AnyTable = Table(
            table.name,
            table.states,
            table.facts,
            initial=table.initial,
            final=table.final,
            rows=[row._replace(guards=tuple(map(self._constant, row.guards)))
                  for row in table.rows],
            ignored=[Ignored((state,), (on,), reason)
                     for (state, on), reason in table.ignored.items()],
        )  # fmt: skip

    def _constant(self, guard: Guard) -> Guard:
        return Guard(guard.name, lambda _facts, _event: self.truth[guard.name], guard.negated)


BOARDS = {name: Switchboard(table) for name, table in registry.MACHINES.items()}


def expected_effects(row: Row, facts: Any, event: Event, before: str, after: str) -> list[Any]:
    made, serial = [], SERIAL
    for entry in row.effects:
        kind, params = (entry.effect, dict(entry.params)) if isinstance(entry, Do) else (entry, {})
        if kind is StartTimer:
            serial += 1
            params = {**params, "serial": serial}
        made.append((kind, {"subject": SUBJECT, "event": event, "facts": facts, "row": row.id,
                            "before": before, "after": after, **params}))  # fmt: skip
    return made


def shown(step: Step) -> list[Any]:
    return [
        (type(effect), {name: value for name, value in structs.asdict(effect).items()
                        if name != "machine"})
        for effect in step.effects
    ]  # fmt: skip


def check(board: Switchboard, state: Any, on: On) -> int:
    """Feeds the event under every assignment of the pair's guards; gives their number."""
    table, event = board.table, SAMPLES[on]
    rows = table.by_pair.get((state, on), ())
    names = sorted({guard.name for row in rows for guard in row.guards})
    for values in product((False, True), repeat=len(names)):
        board.truth.clear()
        board.truth.update(zip(names, values, strict=True))
        instance = Instance(table, SUBJECT)
        instance.state, instance.serial = state, SERIAL
        facts = instance.facts
        # one timer that the row does not name, and the one that runs out
        armed = {Timer.IDLE: 1, **({on: SERIAL} if isinstance(on, Timer) else {})}
        instance.armed = dict(armed)
        step = instance.step(event)
        where = f"{table.name} {state.value}, {event_name(on)}, {board.truth}"

        assert (step.machine, step.subject, step.event) == (table.name, SUBJECT, event), where
        assert step.before == state.value, where
        assert (step.after, step.facts) == (instance.state.value, instance.facts), where
        holding = [row for row in rows
                   if all(board.truth[guard.name] is not guard.negated
                          for guard in row.guards)]  # fmt: skip
        assert len(holding) <= 1, where
        if holding:
            row = holding[0]
            after = state if row.to is None else row.to
            facts = structs.replace(
                facts, **{entry.field: entry.value(facts, event) for entry in row.sets}
            )
            assert (step.verdict, step.row, step.sentence) == (Verdict.ROW, row.id, ""), where
            assert (instance.state, instance.facts) == (after, facts), where
            effects = expected_effects(row, facts, event, state.value, after.value)
            assert shown(step) == effects, where
            assert all(effect.machine is table.name for effect in step.effects
                       if isinstance(effect, StartTimer)), where  # fmt: skip
            started = {params["timer"]: params["serial"]
                       for kind, params in effects if kind is StartTimer}  # fmt: skip
            assert instance.armed == (armed if row.to is None else {}) | started, where
            continue
        assert (step.row, step.effects) == ("", ()), where
        assert (instance.state, instance.facts, instance.armed) == (state, facts, armed), where
        if (state, on) in table.ignored:
            assert step.verdict is Verdict.IGNORED, where
            assert step.sentence == table.ignored[state, on], where
            assert len(step.sentence) > 5, where
            continue
        assert step.verdict is Verdict.ILLEGAL, where
        for word in (table.name.value, state.value, event_name(on)):
            assert word in step.sentence, where
        if rows:  # what would have to be true
            assert all(name in step.sentence for name in _failing(rows, board)), where
        else:
            legal = sorted({event_name(key) for source, key in table.by_pair if source is state})
            assert step.sentence.endswith(", ".join(legal) or "nothing"), where
    return 2 ** len(names)


def _failing(rows: tuple[Row, ...], board: Switchboard) -> set[str]:
    return {str(guard) for row in rows for guard in row.guards
            if board.truth[guard.name] is guard.negated}  # fmt: skip


@pytest.mark.parametrize(("name", "state"), PLACES, ids=str)
def test_every_event_is_decided_as_the_table_says(name: str, state: Any) -> None:
    """Exactly the row whose guards hold, or the declared reason, or illegal and unchanged."""
    checked = sum(check(BOARDS[name], state, on) for on in SAMPLES)
    assert checked >= len(SAMPLES)


def test_the_samples_hold_everything_that_any_table_knows() -> None:
    known = {on for table in registry.MACHINES.values() for on in table.events()}
    assert known <= set(SAMPLES)
    concrete = {kind for kind in Event.__subclasses__() if kind not in {Received, TimerExpired}}
    assert set(EVENTS) == concrete


def test_no_event_is_without_a_machine_that_knows_it() -> None:
    known = {on for table in registry.MACHINES.values() for on in table.events()}
    lost = {event_name(on) for on in SAMPLES if on not in known}
    assert lost == set()


def test_every_table_of_the_package_is_registered_under_its_module_s_name() -> None:
    for module in pkgutil.iter_modules(machines.__path__):
        own = importlib.import_module(f"{machines.__name__}.{module.name}")
        if module.name in registry.MACHINES:
            assert vars(own)[module.name.upper()] is registry.MACHINES[module.name]
        elif module.name != "registry":
            defined = [name for name, value in vars(own).items() if isinstance(value, Table)]
            assert set(defined) <= {"CLIENT_SIGNALLING", "SIGNALLING", "WORKER"}, (
                f"{module.name} has a table"
            )


def test_each_side_s_machines_are_registered() -> None:
    sides = {id(table) for tables in (registry.WORKER_TABLES, registry.CLIENT_TABLES)
             for table in tables.values()}  # fmt: skip
    assert sides == {id(table) for table in registry.MACHINES.values()}


def test_messages_and_machines_agree() -> None:
    assert registry.disagreements() == ()


@pytest.mark.parametrize("table", registry.MACHINES.values(), ids=registry.MACHINES.keys())
def test_the_guards_of_the_real_table_are_the_ones_that_were_switched(table: AnyTable) -> None:
    """Two guards of one name would be one switch: they must be one predicate."""
    by_name: dict[str, Any] = {}
    for row in table.rows:
        for guard in row.guards:
            assert by_name.setdefault(guard.name, guard.test) is guard.test


@pytest.mark.parametrize("table", registry.MACHINES.values(), ids=registry.MACHINES.keys())
def test_every_state_that_is_not_final_can_reach_a_final_one_or_is_where_it_began(
    table: AnyTable,
) -> None:
    ends = set(table.final) or {table.initial}
    while more := {source for row in table.rows for source in row.sources if row.to in ends} - ends:
        ends |= more
    assert ends == set(table.states)


@pytest.mark.parametrize("table", registry.MACHINES.values(), ids=registry.MACHINES.keys())
def test_a_timer_is_read_in_every_state_in_which_it_can_be_alive(table: AnyTable) -> None:
    """A timer that runs out where nobody listens would leave a machine stuck."""
    for row in table.rows:
        started = {dict(entry.params)["timer"] for entry in row.effects
                   if isinstance(entry, Do) and entry.effect is StartTimer}  # fmt: skip
        for source in row.sources:
            state = source if row.to is None else row.to
            for timer in started:
                assert (state, timer) in table.by_pair, f"{row.id} arms {timer} in {state}"


@pytest.mark.parametrize("table", registry.MACHINES.values(), ids=registry.MACHINES.keys())
def test_a_timer_that_is_read_is_armed_somewhere(table: AnyTable) -> None:
    started = {dict(entry.params)["timer"] for row in table.rows for entry in row.effects
               if isinstance(entry, Do) and entry.effect is StartTimer}  # fmt: skip
    assert {on for _, on in table.by_pair if isinstance(on, Timer)} == started
