"""What holds of a negotiation through the signaling server: its peer is answered, and believed."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.machines.engine import Step, Verdict
from protocol.lifecycle import JobState, TalkState
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration.stage import Frozen, Stage

M, T = MachineName, TalkState
PLACE = "a place"
ENDED = {JobState.DONE, JobState.REJECTED}

#: What the peer says, and by which effects it hears something.
SAID = e.JobAsked | e.JobAssigned | e.JobDropped
TELLS = (f.RefuseWord, f.TellUnknown, f.TellKept, f.TellComing, f.TellRefused, f.TellReleased,
         f.TellLost, f.TellNotDropped, f.TellJob)  # fmt: skip
ASKS = (f.AskSlot, f.GiveSlotBack, f.ThrowJobAway)
#: What an answer of the worker is to the peer, in the states where it is one, and where it leads.
ANSWERS: dict[type[e.Event], tuple[tuple[type[f.Effect], ...], dict[str, str]]] = {
    e.SlotKept: (
        (f.TellKept, f.TellComing),
        {T.ASKED: T.KEPT, T.KEPT: T.KEPT, T.WORKING: T.WORKING},
    ),
    e.SlotRefused: (
        (f.TellRefused,), {T.ASKED: T.OVER, T.KEPT: T.KEPT, T.WORKING: T.WORKING},
    ),
    e.SlotReleased: ((f.TellReleased,), {T.ASKED: T.OVER, T.KEPT: T.OVER}),
    e.SlotLost: ((f.TellLost,), {T.KEPT: T.OVER}),
    e.DropRefused: (
        (f.TellNotDropped,), {T.ASKED: T.ASKED, T.KEPT: T.KEPT, T.WORKING: T.WORKING},
    ),
}  # fmt: skip


def _was(before: Frozen) -> Any:
    return laws.before_of(before).get((M.TALK, PLACE), (T.NEW, None))[1]


def _heard(step: Step) -> list[type[f.Effect]]:
    return [type(effect) for effect in step.effects if isinstance(effect, (*TELLS, *ASKS))]


def what_a_peer_says_is_answered_or_asked_of_the_worker(
    _before: Frozen, stage: Stage
) -> Iterator[str]:
    for step in stage.steps:  # also where there is no negotiation, and the world would say so
        event = step.event
        if step.machine is not M.TALK or not isinstance(event, SAID) or step.before == T.ENDING:
            continue
        if step.verdict is not Verdict.ROW:
            yield f"{type(event).__name__} in {step.before}: not a word"
            continue
        new, working = step.before == T.NEW, step.before == T.WORKING
        if isinstance(event, e.JobDropped) and working:
            due: type[f.Effect] = f.ThrowJobAway  # whoever has a job here may throw it away
        elif event.reason:
            due = f.RefuseWord
        elif isinstance(event, e.JobAsked):
            due = f.AskSlot
        elif new:
            due = f.TellUnknown
        else:
            due = f.AskSlot if isinstance(event, e.JobAssigned) else f.GiveSlotBack
        if _heard(step) != [due]:
            yield f"{type(event).__name__} in {step.before} should bring {due.__name__}"


def what_may_not_be_said_changes_nothing(before: Frozen, stage: Stage) -> Iterator[str]:
    was = _was(before)
    for step in laws.fired(stage, M.TALK):
        event = step.event
        if not isinstance(event, SAID):
            continue
        if isinstance(event, e.JobAsked) and not event.reason:
            facts: Any = step.facts
            about = (facts.key, facts.label, facts.need, facts.older, facts.job, facts.assigned)
            if step.after != T.ASKED or about != (
                event.key, event.label, event.need, event.older, "", False,
            ):  # fmt: skip
                yield f"it asks anew, is {step.after}, and something old is remembered"
        elif step.before == T.NEW:
            if step.after != T.OVER:
                yield f"nothing was agreed, and it is {step.after}"
        elif step.after != step.before:
            yield f"{type(event).__name__} moves it from {step.before} to {step.after}"
        elif event.reason and was is not None and step.facts != was:
            yield "what it may not say is remembered"
        elif (
            isinstance(event, e.JobAssigned)
            and not getattr(step.facts, "assigned", False)
            and (not event.reason)
        ):
            yield "it says that it comes, and nobody notes it"


def what_the_worker_answers_is_told(before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.TALK):
        kind = type(step.event)
        if kind not in ANSWERS:
            continue
        words, leads = ANSWERS[kind]
        if step.before not in leads:
            yield f"{kind.__name__} is no answer to what is {step.before}"
            continue
        if step.after != leads[step.before]:
            yield f"{kind.__name__} leads from {step.before} to {step.after}"
        said = _heard(step)
        if kind is e.SlotKept:
            coming = getattr(step.facts, "assigned", False) or step.before == T.WORKING
            words = (f.TellComing,) if coming else (f.TellKept,)
        if said != list(words):
            yield f"{kind.__name__} in {step.before}: its peer hears {said}"


def a_negotiation_has_one_job_and_only_its_own(_before: Frozen, stage: Stage) -> Iterator[str]:
    talk = stage.world.get(M.TALK, PLACE)
    if talk is None:
        return
    facts = talk.facts
    alive = {job.subject for job in stage.world.live(M.JOB) if job.facts.owner == facts.key}
    if talk.state is T.WORKING:
        if facts.job not in alive or facts.job in facts.older:
            yield f"{facts.job!r} is no job that came for it"
    elif talk.state is T.KEPT and alive - set(facts.older):
        yield "a job of it is here, and it waits for one"
    elif talk.state in {T.ASKED, T.KEPT} and facts.job:
        yield "it has a job that has not come"


def how_its_job_goes_is_told_and_its_end_once(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.TALK):
        if isinstance(step.event, e.JobTold):
            if not laws.asked(step, f.TellJob):
                yield f"its job is {step.event.state}, and it hears nothing"
            if step.after != (T.OVER if step.event.state in ENDED else step.before):
                yield f"its job is {step.event.state}, and it is {step.after}"
        elif laws.asked(step, f.TellJob):
            yield "it hears of a job that nobody speaks of"
        if isinstance(step.event, e.JobGone) and step.after != T.ENDING:
            yield f"its job has ended, and it is {step.after}"


def a_forgotten_negotiation_ends(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.TALK):
        if isinstance(step.event, e.TimerExpired) and step.after != T.OVER:
            yield f"its time is over, and it is {step.after}"


TALK_EVERYWHERE = (what_a_peer_says_is_answered_or_asked_of_the_worker,)
TALK_LAWS = (
    what_may_not_be_said_changes_nothing,
    what_the_worker_answers_is_told,
    a_negotiation_has_one_job_and_only_its_own,
    how_its_job_goes_is_told_and_its_end_once,
    a_forgotten_negotiation_ends,
)
