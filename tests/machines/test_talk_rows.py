"""What becomes of a negotiation through the signaling server, row by row."""

from typing import Any

import pytest

from fsm_worker import events as e
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.talk import TALK
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, TalkState
from tests.machines.scenario import STAYS, Case, case, covered, declared, each, play
from tests.protocol.samples import JOB

NO = "this key may submit no job here"
WHO: dict[str, Any] = {"peer": "p-1", "label": "7f2c"}
ASKS: dict[str, Any] = {
    **WHO, "key": "sleap-rtc:p-1", "need": (("runner", "digits"),), "older": ("job-0ld00ld0",),
}  # fmt: skip
#: Of the same place, when its peer asks anew.
BEFORE: dict[str, Any] = {"assigned": True, "job": JOB}
ASSIGNED: dict[str, Any] = {"assigned": True}
LIVE = "asked kept working ending"
TALKS = "asked kept working"
RUNNING = e.JobTold(state=JobState.RUNNING)
DONE = e.JobTold(state=JobState.DONE, outcome=Outcome.SUCCEEDED)
REJECTED = e.JobTold(state=JobState.REJECTED, outcome=Outcome.REJECTED)
REFUSED = e.SlotRefused(code=ErrorCode.WORKER_BUSY, reason="its slot is not free now")
LOST = e.SlotLost(code=ErrorCode.RESERVATION_EXPIRED, reason="no job of yours came in time")
ARMED = "AskSlot Timer(talk)"

CASES = (
    # The peer asks for the slot; asking anew begins anew.
    case("P1", "new", e.JobAsked(**ASKS), "asked", ARMED, **ASKS),
    case("P1", LIVE, e.JobAsked(**ASKS), "asked", ARMED, BEFORE, assigned=False, job="", **ASKS),
    case("P2", "new", e.JobAsked(**ASKS, reason=NO), "over", "RefuseWord", **WHO),
    case("P3", LIVE, e.JobAsked(**ASKS, reason=NO), STAYS, "RefuseWord", BEFORE),
    # It says that it comes.
    case("P4", TALKS, e.JobAssigned(**WHO), STAYS, "AskSlot", assigned=True),
    case("P5", TALKS, e.JobAssigned(**WHO, reason=NO), STAYS, "RefuseWord"),
    case("P6", "new", e.JobAssigned(**WHO), "over", "TellUnknown", **WHO),
    case("P7", "new", e.JobAssigned(**WHO, reason=NO), "over", "RefuseWord", **WHO),
    # It wants nothing any more.
    case("P8", "asked kept", e.JobDropped(**WHO), STAYS, "GiveSlotBack"),
    case("P9", "asked kept", e.JobDropped(**WHO, reason=NO), STAYS, "RefuseWord"),
    case("P10", "working", e.JobDropped(**WHO), STAYS, "ThrowJobAway"),
    case("P10", "working", e.JobDropped(**WHO, reason=NO), STAYS, "ThrowJobAway"),
    case("P11", "new", e.JobDropped(**WHO), "over", "TellUnknown", **WHO),
    case("P12", "new", e.JobDropped(**WHO, reason=NO), "over", "RefuseWord", **WHO),
    # The worker answers.
    case("P13", "asked kept", e.SlotKept(seconds=30.0), "kept", "TellKept Timer(talk)"),
    case("P14", "asked kept", e.SlotKept(seconds=30.0), "kept", "TellComing Timer(talk)", ASSIGNED),
    case("P15", "working", e.SlotKept(seconds=30.0), STAYS, "TellComing"),
    case("P16", "asked", REFUSED, "over", "TellRefused"),
    case("P17", "kept working", REFUSED, STAYS, "TellRefused"),
    case("P18", "asked kept", e.SlotReleased(), "over", "TellReleased"),
    case("P19", TALKS, e.DropRefused(code=ErrorCode.NOT_HOLDER), STAYS, "TellNotDropped"),
    case("P20", "kept", LOST, "over", "TellLost"),
    # Its job comes, and ends.
    case("P21", "kept", e.JobCame(job=JOB), "working", job=JOB),
    case("P22", "working ending", RUNNING, STAYS, "TellJob"),
    case("P23", "working ending", DONE, "over", "TellJob"),
    case("P23", "working ending", REJECTED, "over", "TellJob"),
    case("P24", "working", e.JobGone(), "ending", "Timer(talk)"),
    # It is forgotten.
    case("P25", LIVE, e.Crowded(), "over"),
    case("P26", "asked kept ending", e.Timer.TALK, "over"),
)


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(TALK, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(TALK)


# --- laws that no single row shows --------------------------------------------------------------


def at(state: TalkState, **facts: Any) -> Instance[Any, Any]:
    instance = Instance(TALK, "a place", TALK.facts(**facts))
    instance.state = state
    return instance


@pytest.mark.parametrize("state", [TalkState.ASKED, TalkState.KEPT])
def test_what_is_told_of_a_job_that_is_not_its_own_ends_no_negotiation(state: TalkState) -> None:
    talk = at(state)
    assert talk.step(DONE).verdict is Verdict.IGNORED
    assert talk.state is state


def test_what_was_promised_nothing_does_not_end_with_somebody_s_reservation() -> None:
    talk = at(TalkState.ASKED)
    assert talk.step(LOST).verdict is Verdict.IGNORED
    assert talk.step(e.SlotKept(seconds=30.0)).after == TalkState.KEPT


@pytest.mark.parametrize("state", [TalkState.WORKING, TalkState.ENDING])
def test_a_reservation_that_has_become_a_job_can_end(state: TalkState) -> None:
    for event in (LOST, e.SlotReleased()):
        talk = at(state, job=JOB)
        assert talk.step(event).verdict is Verdict.IGNORED
        assert (talk.state, talk.facts.job) == (state, JOB)


def test_the_end_of_the_job_is_said_once() -> None:
    talk = at(TalkState.WORKING, job=JOB)
    said = [
        type(effect).__name__
        for event in (RUNNING, e.JobGone(), DONE, DONE, RUNNING)
        for effect in talk.step(event).effects
    ]
    assert said == ["TellJob", "StartTimer", "TellJob"]


def test_nothing_follows_its_end() -> None:
    assert not TALK.legal(TalkState.OVER)
