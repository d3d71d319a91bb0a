"""The free slot: who keeps it for whom, and breaks."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received, Timer
from fsm_worker.facts import Why
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.reservation import HOLDS, RENEWALS
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.errors import ErrorCode
from tests.exploration.invariants.common import WAITING, J, M, W, armed, asked, before_of, fired
from tests.exploration.stage import Frozen, Stage


def _was(before: Frozen) -> Any:
    return before_of(before)[M.WORKER, THE_WORKER][1]


def a_reservation_has_a_holder_and_an_end(_before: Frozen, stage: Stage) -> Iterator[str]:
    worker = stage.world.machines[M.WORKER][THE_WORKER]
    if worker.state is not W.RESERVED:
        return
    if Timer.LEASE not in worker.armed:
        yield "reserved for ever"
    if not worker.facts.holder:
        yield "reserved for nobody"
    coming = any(
        job.state in WAITING and job.facts.owner == worker.facts.holder
        for job in stage.world.moving(M.JOB)
    )
    if worker.facts.claimed is not coming:
        yield f"a job of its holder comes: {coming}, and it believes {worker.facts.claimed}"


def who_asks_for_the_slot_gets_it_or_hears_why(before: Frozen, stage: Stage) -> Iterator[str]:
    was = _was(before)
    for step in fired(stage, M.WORKER):
        if isinstance(step.event, e.NeedCheckFailed):
            said = [one.code for one in step.effects if isinstance(one, f.RefuseReservation)]
            if said != [ErrorCode.INTERNAL] or step.after != step.before:
                yield f"its need could not be compared: it hears {said}, and it is {step.after}"
            continue
        if not isinstance(step.event, e.NeedChecked):
            if asked(step, f.GrantReservation, f.RefuseReservation):
                yield f"{type(step.event).__name__} is an answer to a question"
            continue
        facts: Any = step.facts
        again = (
            step.before == W.RESERVED
            and was.holder == step.event.key
            and was.renewals < RENEWALS
        )  # fmt: skip
        granted = not step.event.unmet and (step.before == W.AVAILABLE or again)
        if asked(step, f.GrantReservation) is not granted:
            yield f"in {step.before} it may have the slot: {granted}, and hears something else"
        if asked(step, f.RefuseReservation) is granted:
            yield "it hears both, or neither"
        if granted and (step.after, facts.holder) != (W.RESERVED, step.event.key):
            yield f"it is told that it has the slot, and the worker is {step.after}"
        if granted and not any(timer.timer is Timer.LEASE for timer in armed(step)):
            yield "a reservation that is renewed ends as if it were not"
        if not granted and step.after != step.before:
            yield f"refused, and the worker is {step.after}"
        if granted and again and facts.renewals != was.renewals + 1:
            yield "renewals are not counted"
        if not granted:
            yield from _refused(step, left=was.leaving)


def _refused(step: Any, *, left: bool) -> Iterator[str]:
    """The code says whether it is any use to ask again."""
    [refusal] = [one for one in step.effects if isinstance(one, f.RefuseReservation)]
    unmet, leaves = bool(step.event.unmet), left and step.before != W.RESERVED
    right = "need_unmet" if unmet else "worker_leaving" if leaves else ""
    said = str(refusal.code)
    if (said == right) is not bool(right) or (
        not right and said in {"need_unmet", "worker_leaving"}
    ):
        yield f"it is refused with {said}"


def a_reservation_ends_with_its_job_its_holder_or_its_time(
    before: Frozen, stage: Stage
) -> Iterator[str]:
    was = _was(before)
    for step in fired(stage, M.WORKER):
        event, facts = step.event, step.facts
        if isinstance(event, Received) and isinstance(event.message, m.Release):
            mine = step.before == W.RESERVED and was.holder == event.key
            if asked(step, f.ConfirmRelease) is not mine or asked(step, f.ReplyError) is mine:
                yield f"the reservation is the asker's: {mine}, and it hears something else"
            if step.after != (W.AVAILABLE if mine else step.before):
                yield f"released by its holder: {mine}, it is {step.after}"
        if step.before != W.RESERVED:
            continue
        if isinstance(event, e.SlotRequested):
            if event.owner != was.holder or step.after != W.BUSY:
                yield f"{event.owner} gets the slot of {was.holder}, and it is {step.after}"
        elif step.after != W.RESERVED and not asked(step, f.EndReservation, f.ConfirmRelease):
            yield "its holder does not hear that it is over"
        if isinstance(event, e.TimerExpired):
            holds_on = was.claimed and was.holds < HOLDS
            if step.after != (W.RESERVED if holds_on else W.AVAILABLE):
                yield f"its time is over, to be held on: {holds_on}, it is {step.after}"
            if holds_on and getattr(facts, "holds", 0) != was.holds + 1:
                yield "it holds on, and nobody counts how often"
            if holds_on and asked(step, f.EndReservation):
                yield "it holds on, and its holder hears that it is over"


def a_break_is_one(_before: Frozen, stage: Stage) -> Iterator[str]:
    worker = stage.world.machines[M.WORKER][THE_WORKER]
    facts = worker.facts
    if facts.drained and worker.state in {W.AVAILABLE, W.RESERVED, W.BUSY}:
        yield f"a break is wanted, and the worker is {worker.state}"
    if worker.state is W.MAINTENANCE and (not facts.drained or facts.slot):
        yield f"maintenance, a break is wanted: {facts.drained}, the slot is {facts.slot!r}'s"
    if facts.overdue and not (facts.drained or facts.leaving):
        yield "somebody's time is over, and nobody wants a break"
    if worker.state is W.DRAINING and not (facts.drained or facts.leaving):
        yield "it drains for nothing"
    if bool(facts.why_drained) is not facts.drained:
        yield f"a break is wanted: {facts.drained}, because of {facts.why_drained!r}"
    free = not facts.leaving and worker.state not in {W.DEGRADED, W.STOPPING, W.STOPPED}
    if free and facts.reason != facts.why_drained:
        yield f"{worker.state} because of {facts.why_drained!r}, and it says {facts.reason!r}"
    if worker.state is W.DEGRADED and facts.reason in {"", facts.why_drained}:
        yield "nobody hears what is broken"
    if facts.overdue and worker.state is W.DRAINING:
        if stage.state(M.JOB, facts.slot) is J.RUNNING:
            yield "the job has had its time, and runs on"


def an_operator_is_heard(before: Frozen, stage: Stage) -> Iterator[str]:
    was = _was(before)
    for step in fired(stage, M.WORKER):
        event = step.event
        facts: Any = step.facts
        if not isinstance(event, Received) or not isinstance(event.message, m.Drain | m.Undrain):
            if isinstance(event, e.TimerExpired) and event.timer is Timer.DRAIN:
                if not facts.overdue or step.after != W.DRAINING:
                    yield "the time that was given is over, and nobody cares"
            continue
        wanted = isinstance(event.message, m.Drain)
        ends = was.leaving or step.before == W.STOPPING
        if not wanted and ends is not asked(step, f.ReplyError):
            yield f"it leaves: {ends}, and undrain hears something else"
        if not ends and facts.drained is not wanted:
            yield f"a break is wanted: {wanted}, and it is {facts.drained}"
        if not ends and facts.why_drained != getattr(event.message, "reason", ""):
            yield f"it is for another reason than was said: {facts.why_drained!r}"
        if ends and facts.reason != was.reason:
            yield "why it leaves is not told any more"
        if (wanted or not ends) and not asked(step, f.ConfirmDrain):
            yield "the operator hears nothing"
        told = [effect for effect in step.effects if isinstance(effect, f.ConfirmDrain)]
        if any(effect.drained is not wanted for effect in told):
            yield f"a break is wanted: {wanted}, and the operator hears otherwise"
        changed = was.drained is not facts.drained or step.before != step.after
        if changed and not asked(step, f.PublishStatus):
            yield "nobody else hears of the break"
        if not ends and step.after not in _AFTER[wanted].get(step.before, {step.before}):
            yield f"a break is wanted: {wanted}, and {step.before} becomes {step.after}"
        if step.before == W.MAINTENANCE and not wanted and not asked(step, f.ProbeHost):
            yield "after a break it works on what it has not looked at"
        if wanted and step.after == W.DRAINING:
            given = Timer.DRAIN in {timer.timer for timer in armed(step)}
            if not given or facts.overdue or facts.grace_s != event.message.deadline_s:
                yield "the running job has another time than was said"
        if not wanted and not ends and facts.overdue:
            yield "the break is over, and the job is stopped for it"


#: Where a wish leads, if not to the same state: a break, and its end.
_AFTER: dict[bool, dict[str, set[str]]] = {
    True: {
        W.AVAILABLE: {W.MAINTENANCE}, W.RESERVED: {W.MAINTENANCE}, W.BUSY: {W.DRAINING},
    },
    False: {W.MAINTENANCE: {W.STARTING}, W.DRAINING: {W.BUSY}},
}  # fmt: skip


def a_break_takes_the_slot_from_no_job(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Only when the time that it was given is over, and as a stop that keeps the model."""
    drains = any(
        isinstance(step.event, Received) and isinstance(step.event.message, m.Drain | m.Undrain)
        for step in fired(stage, M.WORKER)
    )
    for step in fired(stage, M.JOB):
        facts: Any = step.facts
        overdue = isinstance(step.event, e.DrainOverdue)
        if drains and step.before in ON_GPU and step.before != step.after:
            yield f"a break moves the running job to {step.after}"
        stopped = step.before == J.RUNNING and step.after == J.STOPPING
        if overdue and (
            not stopped or facts.why is not Why.DRAIN or not asked(step, f.RequestStop)
        ):
            yield f"its time before the break is over, and it is {step.after}"
        if stopped and facts.why is Why.DRAIN and not overdue:
            yield "stopped for a break before its time"


SLOT_LAWS = (
    a_reservation_has_a_holder_and_an_end,
    who_asks_for_the_slot_gets_it_or_hears_why,
    a_reservation_ends_with_its_job_its_holder_or_its_time,
    a_break_is_one,
    an_operator_is_heard,
    a_break_takes_the_slot_from_no_job,
)
