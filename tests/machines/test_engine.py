"""What the linter finds in a table, and what the engine does where tables are silent."""

from enum import StrEnum
from typing import Any

import pytest
from msgspec import Struct

from fsm_worker import events as e
from fsm_worker.effects import Leave, PublishStatus, arm
from fsm_worker.events import Timer, TimerExpired
from fsm_worker.machines.engine import (
    Guard,
    Ignored,
    Instance,
    Row,
    Table,
    TableError,
    Verdict,
    put,
    take,
)
from protocol.table import MachineName


class Lamp(StrEnum):
    OFF = "off"
    ON = "on"
    BROKEN = "broken"


class LampFacts(Struct, frozen=True, kw_only=True):
    slot: str = ""
    reason: str = ""


S = Lamp
warm = Guard("warm", lambda facts, _event: facts.slot != "")
fresh = Guard("fresh", lambda facts, _event: facts.reason == "")
ON = Row("A1", (S.OFF,), e.SlotRequested, (), S.ON, (take("slot", "job"),), (PublishStatus,))
OFF = Row("A2", (S.ON,), e.JobLeftGpu, (), S.OFF)
BREAK = Row("A3", (S.ON,), e.CleanFailed, (), S.BROKEN, (take("reason"),), (Leave,))


def table(*rows: Row, ignored: tuple[Ignored, ...] = (), final: Any = (S.BROKEN,)) -> Any:
    return Table(
        MachineName.WORKER, Lamp, LampFacts, initial=S.OFF, final=final, rows=rows, ignored=ignored
    )


BAD: dict[str, tuple[Any, str]] = {
    "one id twice": (
        lambda: table(ON, OFF, BREAK, BREAK._replace(on=e.AllDone)),
        "two rows have one id",
    ),
    "an unknown state to start from": (
        lambda: table(ON, OFF, BREAK._replace(sources=("dim",))),
        "A3 starts in an unknown state",
    ),
    "an unknown state to lead to": (
        lambda: table(ON, OFF, BREAK._replace(to="dim")),
        "A3 leads to an unknown state",
    ),
    "a row that starts nowhere": (
        lambda: table(ON, OFF._replace(sources=()), BREAK),
        "A2 starts nowhere",
    ),
    "an unknown fact": (
        lambda: table(ON, OFF._replace(sets=(put("colour", 1),)), BREAK),
        r"A2 sets unknown facts \['colour'\]",
    ),
    "two rows that can both hold": (
        lambda: table(
            ON, OFF._replace(guards=(warm,)), BREAK, OFF._replace(id="A4", guards=(fresh,))
        ),
        r"A2 and A4 can both hold for \(on, job_left_gpu\)",
    ),
    "two rows without guards": (
        lambda: table(ON, OFF, BREAK, OFF._replace(id="A4", to=S.BROKEN)),
        "A2 and A4 can both hold",
    ),
    "a pair that has a row and is ignored": (
        lambda: table(ON, OFF, BREAK, ignored=(Ignored((S.ON,), (e.JobLeftGpu,), "why"),)),
        r"\(on, job_left_gpu\) has a row and is ignored",
    ),
    "a state that nothing leads to": (
        lambda: table(ON, OFF, final=(S.BROKEN,)),
        r"no rows lead to \['broken'\]: A1 leads to on, A2 leads to off",
    ),
    "a row that leads elsewhere": (
        lambda: table(ON, OFF, BREAK._replace(to=S.OFF)),
        r"no rows lead to \['broken'\]: .*A3 leads to off",
    ),
    "a row that leads back": (
        lambda: table(ON._replace(to=S.OFF), OFF, BREAK),
        "no rows lead to .*A1 leads to off",
    ),
    "a final state that can be left": (
        lambda: table(ON, OFF, BREAK, final=(S.BROKEN, S.OFF)),
        "declared final",
    ),
    "an end that was not declared": (
        lambda: table(ON, OFF, BREAK, final=()),
        "no row leaves .*broken",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_table_that_breaks_a_law_is_not_built(make: Any, sentence: str) -> None:
    with pytest.raises(TableError, match=f"machine worker: .*{sentence}"):
        make()


def test_a_table_that_keeps_the_laws_is_built() -> None:
    built = table(ON, OFF._replace(guards=(warm,)), BREAK, OFF._replace(id="A4", guards=(~warm,)))
    assert built.legal(S.ON) == ("clean_failed", "job_left_gpu")
    assert built.legal(S.BROKEN) == ()


def test_a_row_that_leads_back_starts_its_timers_again_and_one_that_stays_lets_them_run() -> None:
    again = Row("A4", (S.ON,), e.Started, (), S.ON, (), (arm(Timer.PROBE),))
    stay = Row("A5", (S.ON,), e.AllDone, (), None, (), (arm(Timer.STOP),))
    probe = Row("A6", (S.ON,), Timer.PROBE, (), None)
    stop = Row("A7", (S.ON,), Timer.STOP, (), S.OFF)
    lamp = Instance(table(ON, OFF, BREAK, again, stay, probe, stop), "l")
    lamp.step(e.SlotRequested(job="j"))
    lamp.step(e.Started())
    first = lamp.armed[Timer.PROBE]
    lamp.step(e.AllDone())
    assert lamp.armed.keys() == {Timer.PROBE, Timer.STOP}
    assert lamp.step(TimerExpired(timer=Timer.PROBE, serial=first)).row == "A6"
    lamp.step(e.Started())
    assert lamp.armed.keys() == {Timer.PROBE}
    assert lamp.step(TimerExpired(timer=Timer.PROBE, serial=first)).verdict is Verdict.STALE
    assert lamp.step(TimerExpired(timer=Timer.STOP, serial=first + 1)).verdict is Verdict.STALE


def test_effects_carry_the_facts_of_after_the_row_and_the_states_around_it() -> None:
    lamp = Instance(table(ON, OFF, BREAK), "l")
    (effect,) = lamp.step(e.SlotRequested(job="j-1")).effects
    assert (effect.subject, effect.row, effect.before, effect.after) == ("l", "A1", "off", "on")
    assert effect.facts == LampFacts(slot="j-1")


def test_a_guard_that_does_not_hold_is_named() -> None:
    lamp = Instance(table(ON, OFF._replace(guards=(warm, ~fresh)), BREAK), "l")
    lamp.step(e.SlotRequested(job=""))
    step = lamp.step(e.JobLeftGpu())
    assert step.verdict is Verdict.ILLEGAL
    assert step.sentence == "worker is on: job_left_gpu asks for warm and not fresh"


def test_machines_of_one_table_do_not_share_anything() -> None:
    built = table(ON, OFF, BREAK)
    one, other = Instance(built, "1"), Instance(built, "2")
    one.step(e.SlotRequested(job="j"))
    assert (other.state, other.facts, other.armed) == (S.OFF, LampFacts(), {})
