"""What every machine owes."""

from collections.abc import Iterator

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received
from fsm_worker.machines.engine import Step, Verdict
from protocol.table import ROW_OF
from tests.exploration.invariants.common import LINK_OVER, WORDS, WORK, J, M, W, asked
from tests.exploration.stage import Frozen, Stage
from tests.machines.test_properties import RESTS


def what_can_happen_is_decided(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in stage.steps:
        if step.verdict is Verdict.ILLEGAL:
            yield step.sentence


def whoever_waits_has_a_timer(_before: Frozen, stage: Stage) -> Iterator[str]:
    timed = {timer[:2] for timer in stage.timers()}
    for name in stage.world.machines:
        for instance in stage.world.live(name):
            address = (name, instance.subject)
            if (name, instance.state) in RESTS or address in timed:
                continue
            if (name, instance.state) == (M.JOB, J.RUNNING):
                if instance.subject in stage.processes:
                    continue
            elif (name, instance.state) == (M.WORKER, W.STOPPING):
                if (*address, f.KillEverything) in stage.tasks:
                    continue  # urgent, and not waited for
            elif (name, instance.state) in WORK and name in {M.RECEIVING, M.GUEST}:
                continue  # its work is looked for below
            yield f"{name} {instance.state} waits for nothing"


def whoever_waits_for_work_has_it_under_way(_before: Frozen, stage: Stage) -> Iterator[str]:
    for name in stage.world.machines:
        for instance in stage.world.live(name):
            kinds = WORK.get((name, instance.state), ())
            address = (name, instance.subject)
            if kinds and not any((*address, kind) in stage.tasks for kind in kinds):
                yield f"{name} {instance.state}, and nobody is at it"


def what_is_asked_is_answered(_before: Frozen, stage: Stage) -> Iterator[str]:
    """A message that can be answered gets one of the replies that the message table names."""
    for step in stage.steps:
        if step.verdict is not Verdict.ROW or not isinstance(step.event, Received):
            continue
        replies = ROW_OF[type(step.event.message)].replies
        said = {word for effect in stage.effects for word in WORDS.get(type(effect), ())}
        if replies and not said & set(replies) and not _needs_no_answer(stage, step):
            yield f"{type(step.event.message).__name__} in {step.before} got no answer"


def _needs_no_answer(stage: Stage, step: Step) -> bool:
    if step.machine is M.LINK:  # a handshake that fails ends, and says why
        return step.after in LINK_OVER or asked(step, f.CheckProof)
    if asked(step, f.CheckNeed):
        return True  # that takes time, and is answered whatever comes of it
    return not isinstance(step.event, Received)


def what_goes_wrong_at_the_worker_is_taken_to_heart(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Also where its table would rather ignore it."""
    for step in stage.steps:
        if step.machine is not M.WORKER:
            continue
        event, facts = step.event, step.facts
        looks = {f.ProbeHost.method(), f.CleanSlot.method()}
        failed = isinstance(event, e.EffectFailed) and event.effect in looks
        if (failed and step.before in {W.STARTING, W.DEGRADED}) or (
            isinstance(event, e.ProbeFailed) and step.before == W.STARTING
        ):
            if step.after != W.DEGRADED:
                yield f"it can't look at its GPU, and is {step.after}"
        sorry = failed or isinstance(event, e.ProbeFailed | e.CleanFailed)
        if sorry and step.after == W.DEGRADED and not asked(step, f.PublishStatus):
            yield "nobody hears what is wrong now"
        left = getattr(facts, "leaving", False) or step.after in {W.STOPPING, W.STOPPED}
        if isinstance(event, e.JournalFailed) and not left:
            yield "it can't write down what it promises, and goes on promising"
        killed = isinstance(event, e.EffectFailed) and event.effect == f.KillEverything.method()
        if killed and step.after == W.STOPPED and not getattr(facts, "gone", False):
            yield "nothing more can be killed, and it waits"


def what_is_over_stays_over(before: Frozen, stage: Stage) -> Iterator[str]:
    for kept in before.ended:
        instance = stage.world.get(kept.name, kept.subject)
        if instance is not None and instance.state is not kept.state:
            yield f"{kept.name} {kept.subject} was {kept.state} and is {instance.state}"


EVERYBODY = (
    what_can_happen_is_decided,
    whoever_waits_has_a_timer,
    whoever_waits_for_work_has_it_under_way,
    what_is_asked_is_answered,
    what_goes_wrong_at_the_worker_is_taken_to_heart,
    what_is_over_stays_over,
)
