"""Jobs and their results."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received
from fsm_worker.facts import Why
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.lifecycle import (
    Outcome,
    SessionState,
)
from tests.exploration.invariants.common import ENDED, WAITING, J, M, R, W, asked, before_of, fired
from tests.exploration.stage import Frozen, Stage


def an_outcome_is_fixed_once(before: Frozen, stage: Stage) -> Iterator[str]:
    was = {kept.subject: kept for kept in (*before.moving, *before.ended) if kept.name is M.JOB}
    for job in stage.world.all(M.JOB):
        outcome = job.facts.outcome
        if (outcome is not Outcome.NONE) is not (job.state in {*ENDED, J.COLLECTING}):
            yield f"{job.state} with the outcome {outcome!r}"
        kept = was.get(job.subject)
        if kept is not None and kept.facts.outcome not in {Outcome.NONE, outcome}:
            yield f"the outcome was {kept.facts.outcome} and is {outcome}"


def an_outcome_says_why(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Who asked for the end decides how it is called; failures have a sentence."""
    by = {
        Why.STOP: {Outcome.STOPPED_EARLY},
        Why.CANCEL: {Outcome.CANCELLED},
        Why.WALL: {Outcome.TIMED_OUT},
        Why.WORKER: {Outcome.WORKER_STOPPED},
        Why.DRAIN: {Outcome.STOPPED_EARLY},
    }
    for step in fired(stage, M.JOB):
        facts: Any = step.facts
        if step.before == step.after or facts.outcome is Outcome.NONE:
            continue
        if facts.why in by and step.before != J.COLLECTING:
            allowed = by[facts.why] | {Outcome.WORKER_STOPPED}
            if facts.outcome not in allowed:
                yield f"ended because of {facts.why}, called {facts.outcome}"
        bad = {Outcome.FAILED, Outcome.REJECTED, Outcome.OUT_OF_MEMORY}
        if facts.outcome in bad and not facts.problems:
            yield f"{facts.outcome}, and no sentence says why"
        if facts.outcome is Outcome.SUCCEEDED and step.before not in {J.RUNNING, J.COLLECTING}:
            yield f"it has succeeded in {step.before}"
        match step.event:
            case e.ProcessExited(ok=True) if step.before == J.RUNNING:
                right = {Outcome.SUCCEEDED}
            case e.ProcessExited(out_of_memory=True) if step.before == J.RUNNING:
                right = {Outcome.OUT_OF_MEMORY}
            case e.ProcessExited() if step.before == J.RUNNING:
                right = {Outcome.FAILED}
            case Received(message=m.Cancel() | m.Stop()):
                right = {Outcome.CANCELLED}
            case _:
                continue
        if facts.outcome not in right:
            yield f"{step.event} ends it as {facts.outcome}"


def all_stages_run(before: Frozen, stage: Stage) -> Iterator[str]:
    was = before_of(before)
    for step in fired(stage, M.JOB):
        facts: Any = step.facts
        if isinstance(step.event, e.ProcessExited) and step.before == J.RUNNING and step.event.ok:
            stages = was[M.JOB, step.subject][1].stages
            last = step.event.stage + 1 == stages
            if (step.after == J.RUNNING) is last:
                yield f"stage {step.event.stage} of {stages} has ended, and it is {step.after}"
            if not last and (facts.stage != step.event.stage + 1 or not asked(step, f.StartStage)):
                yield "the next stage is not started"


def who_runs_has_a_process(_before: Frozen, stage: Stage) -> Iterator[str]:
    for job in stage.world.moving(M.JOB):
        if job.state is J.RUNNING and job.subject not in stage.processes:
            yield f"{job.subject} runs without a process"
    slot = stage.facts(M.WORKER, THE_WORKER).slot
    for job in stage.processes:
        state = stage.state(M.JOB, job)
        if state not in ON_GPU and stage.status in {W.BUSY, W.DRAINING} and slot != job:
            yield f"a process of {job} lives under the feet of {slot}"


def who_is_to_end_hears_it(_before: Frozen, stage: Stage) -> Iterator[str]:
    """What is under way towards the end was asked so hard as its state says, and no harder."""
    for job in stage.world.moving(M.JOB):
        process = stage.processes.get(job.subject)
        if process is None:
            continue
        least = {J.STOPPING: 1 + job.facts.step, J.CANCELLING: 3, J.KILLING: 4}.get(job.state, 0)
        if process.asked < least:
            yield f"{job.state} (step {job.facts.step}), and was asked at level {process.asked}"
        if job.state in {J.STOPPING, J.CANCELLING} and process.asked > max(least, 3):
            yield f"{job.state}, and was killed already"
        if job.state is J.RUNNING and process.asked:
            yield "it runs, and was told to end"


def a_stop_is_repeated_until_it_acts(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.JOB):
        if isinstance(step.event, e.TimerExpired) and step.event.timer is e.Timer.REPEAT:
            if not asked(step, f.RequestStop):
                yield "the repetition repeats nothing"
    for job in stage.world.moving(M.JOB):
        first = job.state is J.STOPPING and job.facts.step == 0
        if first and e.Timer.REPEAT not in job.armed:
            yield "a stop that the trainer has missed is not said again"


def who_is_asked_to_end_ends(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Stop, cancel, wall clock and the worker's end lead out of running."""
    for step in fired(stage, M.JOB):
        event = step.event
        ends = isinstance(event, e.WorkerStopping) or (
            isinstance(event, Received) and isinstance(event.message, m.Cancel | m.Stop)
        )
        timed = isinstance(event, e.TimerExpired) and event.timer is not e.Timer.REPEAT
        if (ends or timed) and step.before in {*WAITING, J.PREPARING, J.RUNNING}:
            if step.after in {*WAITING, J.PREPARING, J.RUNNING}:
                yield f"it was to end, and is {step.after}"
        cancel = isinstance(event, Received) and isinstance(event.message, m.Cancel)
        if cancel and step.before in {J.RUNNING, J.STOPPING} and step.after != J.CANCELLING:
            yield f"cancelled in {step.before}, it is {step.after}"
        if isinstance(event, Received) and isinstance(event.message, m.Stop):
            if step.before == J.RUNNING and step.after != J.STOPPING:
                yield f"stopped while it runs, it is {step.after}"
        if isinstance(event, e.TimerExpired) and event.timer is e.Timer.WALL:
            facts: Any = step.facts
            if (step.after, facts.why) != (J.STOPPING, Why.WALL):
                yield f"its time is over, and it is {step.after}"
        if isinstance(event, e.TimerExpired) and step.before == J.CANCELLING:
            if step.after != J.KILLING:
                yield "it does not end, and is not killed"


def nothing_else_ends_a_job(_before: Frozen, stage: Stage) -> Iterator[str]:
    """A client that comes or leaves ends no job."""
    for step in fired(stage, M.JOB):
        if isinstance(step.event, e.ClientAttached | e.ClientDetached | e.TrainerReported):
            if step.before != step.after:
                yield f"{type(step.event).__name__} moves it to {step.after}"


def its_owner_hears_what_becomes_of_it(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.JOB):
        if step.before != step.after and not asked(step, f.ReportState, f.SendSnapshot):
            yield f"nobody hears that it is {step.after}"
    was = {kept.subject: kept.facts for kept in _before.moving if kept.name is M.JOB}
    for step in fired(stage, M.JOB):
        facts: Any = step.facts
        old = was.get(step.subject)
        if old is None or facts.outcome is not Outcome.NONE:
            continue
        if (facts.stage, facts.step) != (old.stage, old.step) and not asked(step, f.ReportState):
            yield "nobody hears how far it is"
            break


def cancelled_is_thrown_away_and_all_else_is_kept(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.JOB):
        if step.before == step.after or step.after != J.COLLECTING:
            continue
        facts: Any = step.facts
        ran = step.before in ON_GPU and step.before != J.PREPARING
        keep = ran and facts.why not in {Why.CANCEL, Why.WORKER}
        if not asked(step, f.CollectOutputs if keep else f.DiscardOutputs):
            yield f"outputs of a job that was {facts.outcome} are {'lost' if keep else 'kept'}"


def what_has_ended_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.JOB):
        opened = step.before not in {J.NEW, *ENDED}
        if opened and step.after in ENDED and not asked(step, f.CloseJob):
            yield "it has ended, and its log and its ports are open"
        taken = step.before == J.NEW and step.after in WAITING
        if taken and not asked(step, f.OpenJob):
            yield "it has no folder"


def results_of_what_was_packed_are_held(_before: Frozen, stage: Stage) -> Iterator[str]:
    for job in stage.world.all(M.JOB):
        if job.state in ENDED:
            results = stage.world.get(M.RESULTS, job.subject)
            if results is None or results.state is R.NONE:
                yield "it has ended, and nobody can say whether it has results"
    for step in fired(stage, M.RESULTS):
        facts: Any = step.facts
        if isinstance(step.event, e.JobDone):
            held = bool(step.event.results.root)
            kept = R.SHARED if step.event.results.folder else R.EXPIRED
            if step.after != (R.HELD if held else kept):
                yield f"results are {step.after}"
            if held and not facts.owner:
                yield "results are nobody's"
        begins = isinstance(step.event, Received) and step.after == R.DELIVERING
        if begins and not asked(step, f.ReplyError) and not asked(step, f.StartTimer):
            yield "they are delivered to somebody who may never take them"


def results_are_deleted_after_their_time_and_never_before(
    before: Frozen, stage: Stage
) -> Iterator[str]:
    for step in fired(stage, M.RESULTS):
        retained = isinstance(step.event, e.TimerExpired) and (
            step.event.timer is e.Timer.RETENTION
        )
        packed = step.before in {R.HELD, R.DELIVERING, R.DELIVERED}
        if packed and step.after == R.EXPIRED and not retained:
            yield f"{type(step.event).__name__} deletes them"
        if retained and (step.after != R.EXPIRED or not asked(step, f.DeleteResults)):
            yield "their time is over, and they are kept"
    del before


def delivered_is_the_owner_s_word(_before: Frozen, stage: Stage) -> Iterator[str]:
    stored = any(
        step.machine is M.SENDING
        and isinstance(step.event, Received)
        and isinstance(step.event.message, m.FileStored)
        and step.event.message.root == getattr(step.facts, "root", "")
        for step in stage.steps
    )
    for step in fired(stage, M.RESULTS):
        if step.before != step.after == R.DELIVERED and not stored:
            yield "delivered, and nobody has said so"
        if stored and step.before == R.DELIVERING and step.after != R.DELIVERED:
            yield f"they were stored, and are {step.after}"


def a_job_knows_whether_its_owner_is_here(_before: Frozen, stage: Stage) -> Iterator[str]:
    present = {
        session.facts.key
        for session in stage.world.moving(M.SESSION)
        if session.state is SessionState.ATTACHED
    }
    for job in stage.world.live(M.JOB):
        if job.facts.attached is not (job.facts.owner in present):
            yield f"{job.subject} believes that attached is {job.facts.attached}"


JOB_LAWS = (
    an_outcome_is_fixed_once,
    an_outcome_says_why,
    all_stages_run,
    who_runs_has_a_process,
    who_is_to_end_hears_it,
    a_stop_is_repeated_until_it_acts,
    who_is_asked_to_end_ends,
    nothing_else_ends_a_job,
    its_owner_hears_what_becomes_of_it,
    cancelled_is_thrown_away_and_all_else_is_kept,
    what_has_ended_is_closed,
    results_of_what_was_packed_are_held,
    results_are_deleted_after_their_time_and_never_before,
    delivered_is_the_owner_s_word,
    a_job_knows_whether_its_owner_is_here,
)
