"""What holds in every state and along every move, in the words of people.

Each law is told the state before a move, and the stage after it with the move's steps and effects.
It yields what is wrong. Laws know states, words and effects; they read no table.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Received
from fsm_worker.facts import Why
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from protocol import messages as m
from protocol.lifecycle import (
    GuestState,
    JobState,
    LinkState,
    Outcome,
    ReceivingState,
    ResultsState,
    SendingState,
    SessionState,
    SignallingState,
    WorkerState,
)
from protocol.table import ROW_OF, MachineName
from tests.exploration.stage import Frozen, Stage
from tests.machines.test_properties import RESTS

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
UP = {LinkState.UP, LinkState.SUSPECT}
BEFORE_UP = {
    LinkState.NEGOTIATING, LinkState.CHECKING, LinkState.SECURING, LinkState.AUTHENTICATING,
}  # fmt: skip
LINK_OVER = {LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED}
ENDED = {J.DONE, J.REJECTED}
WAITING = {J.STAGING, J.VALIDATING, J.QUEUED}

#: Who waits for work has it under way; one of these, where there are several.
WORK: dict[tuple[MachineName, Any], tuple[type[Effect], ...]] = {
    (M.WORKER, W.CLEANING): (f.CleanSlot,),
    (M.JOB, J.VALIDATING): (f.ValidatePackage,),
    (M.JOB, J.PREPARING): (f.PrepareRun,),
    (M.JOB, J.COLLECTING): (f.CollectOutputs, f.DiscardOutputs),
    (M.RECEIVING, ReceivingState.VERIFYING): (f.VerifyIncoming,),
    (M.SENDING, SendingState.SENDING): (f.SendRanges,),
    (M.LINK, LinkState.NEGOTIATING): (f.HandleConnection, f.MakeOffer),
    (M.LINK, LinkState.CLOSING): (f.Farewell,),
    (M.SIGNALLING, SignallingState.CONNECTING): (f.OpenSocket,),
    (M.GUEST, GuestState.CHECKING): (f.CheckPackage,),
    (M.GUEST, GuestState.HANDING): (f.HandOver,),
}
#: What an effect says to a peer.
WORDS: dict[type[Effect], tuple[type[m.Message], ...]] = {
    f.SendHello: (m.Hello,),
    f.SendProof: (m.Proof,),
    f.SendWelcome: (m.Welcome,),
    f.SendPong: (m.Pong,),
    f.KeepIceAlive: (m.Ping,),
    f.Farewell: (m.Bye,),
    f.SendSnapshot: (m.JobSnapshot,),
    f.ReportState: (m.JobStateChanged,),
    f.ReplyError: (m.Error,),
    f.SendWorkerStatus: (m.WorkerStatus,),
    f.SendJobs: (m.Jobs,),
    f.StreamLog: (m.Log, m.LogEnd),
    f.OpenIncoming: (m.FileNeed,),
    f.AskMissing: (m.FileNeed,),
    f.ConfirmStored: (m.FileStored,),
    f.RefuseIncoming: (m.FileRefused,),
    f.OfferFile: (m.FileOffer,),
    f.AbortOutgoing: (m.FileAbort,),
    f.SendResume: (m.Resume,),
}


def fired(stage: Stage, machine: MachineName) -> Sequence[Step]:
    """Steps of rows of one machine."""
    return stage.fired.get(machine, ())


def asked(step: Step, *kinds: type[Effect]) -> bool:
    """Whether a step asks for one of these effects."""
    return any(isinstance(effect, kinds) for effect in step.effects)


def before_of(before: Frozen) -> dict[tuple[MachineName, str], tuple[Any, Any]]:
    """State and facts by machine and subject."""
    return {(k.name, k.subject): (k.state, k.facts) for k in (*before.moving, *before.ended)}


# --- everybody ------------------------------------------------------------------------------------


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
    if step.machine is M.RESULTS:  # it is being offered to the asker already
        return step.before == R.DELIVERING
    return not isinstance(step.event, Received)


def what_is_over_stays_over(before: Frozen, stage: Stage) -> Iterator[str]:
    for kept in before.ended:
        instance = stage.world.get(kept.name, kept.subject)
        if instance is not None and instance.state is not kept.state:
            yield f"{kept.name} {kept.subject} was {kept.state} and is {instance.state}"


# --- the worker and its slot ----------------------------------------------------------------------


def one_job_holds_the_slot(_before: Frozen, stage: Stage) -> Iterator[str]:
    slot = stage.facts(M.WORKER, THE_WORKER).slot
    holders = [job.subject for job in stage.world.moving(M.JOB) if job.state in ON_GPU]
    if len(holders) > 1:
        yield "two jobs on one GPU"
    if stage.status in {W.BUSY, W.DRAINING}:
        if holders != [slot]:
            yield f"{stage.status}, but {holders} hold the slot of {slot!r}"
    elif stage.status not in {W.STOPPING, W.STOPPED} and holders:
        yield f"{stage.status}, and {holders} run"
    if stage.status is W.AVAILABLE and slot:
        yield f"available, and the slot is {slot}'s"


def available_is_a_proof_that_nothing_is_alive(_before: Frozen, stage: Stage) -> Iterator[str]:
    if stage.status is W.AVAILABLE and stage.processes:
        yield f"available, and {sorted(stage.processes)} live"


def who_leaves_takes_nothing_new(_before: Frozen, stage: Stage) -> Iterator[str]:
    facts = stage.facts(M.WORKER, THE_WORKER)
    if facts.leaving and stage.status not in {W.DRAINING, W.CLEANING, W.STOPPING, W.STOPPED}:
        yield f"it is to leave, and is {stage.status}"
    states = {job.state for job in stage.world.moving(M.JOB)}
    if (facts.leaving or stage.status in {W.STOPPING, W.STOPPED}) and states & WAITING:
        yield "a job waits for a worker that leaves"
    if stage.status in {W.STOPPING, W.STOPPED} and states & {J.PREPARING, J.RUNNING}:
        yield "a job goes on as if the worker did not end"


def no_job_waits_for_a_free_worker(_before: Frozen, stage: Stage) -> Iterator[str]:
    if stage.status is W.AVAILABLE:
        for job in stage.world.moving(M.JOB):
            if job.state is J.QUEUED:
                yield f"{job.subject} is queued, and the worker is available"


def a_request_to_end_is_heard(before: Frozen, stage: Stage) -> Iterator[str]:
    """SIGTERM, and a journal that breaks: the worker is on its way out, and the first spares."""
    for step in fired(stage, M.WORKER):
        if not isinstance(step.event, e.TerminateRequested | e.JournalFailed):
            continue
        facts: Any = step.facts
        if not facts.leaving and step.after not in {W.STOPPING, W.STOPPED}:
            yield f"asked to end in {step.before}, and nothing comes of it"
        if step.before in {W.BUSY, W.CLEANING} and step.after == W.STOPPING:
            was = before_of(before)[M.WORKER, THE_WORKER][1]
            if not was.leaving:
                yield "the first request to end spares what runs"
        if step.before == W.STOPPING and step.after == W.STOPPING and not facts.forced:
            yield "asked once more to end, it waits on"
        if step.before == W.DRAINING and step.after == W.DRAINING:
            yield "asked twice to end, it goes on as before"


def its_status_is_published(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.WORKER):
        if step.before != step.after != W.STOPPED and not asked(step, f.PublishStatus):
            yield f"nobody hears that it is {step.after} and no longer {step.before}"


def a_degraded_worker_looks_again(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Time alone leads to a cleaning, a cleaning to a probe: so it can come back."""
    for step in fired(stage, M.WORKER):
        if step.before == step.after == W.DEGRADED and isinstance(
            step.event, e.TimerExpired | e.CleanSucceeded
        ):
            if not asked(step, f.CleanSlot, f.ProbeHost):
                yield "it looks no more"
            if isinstance(step.event, e.TimerExpired) and not asked(step, f.CleanSlot):
                yield "it probes before it has cleaned"
            if isinstance(step.event, e.CleanSucceeded) and not asked(step, f.ProbeHost):
                yield "it has cleaned, and does not probe"


def who_goes_says_so(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.WORKER):
        if step.before != step.after == W.STOPPED and not asked(step, f.Leave):
            yield "it has stopped, and its run goes on"


def a_worker_that_goes_kills_what_is_left(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.WORKER):
        facts: Any = step.facts
        done = isinstance(step.event, e.EverythingKilled | e.EffectFailed)
        forced = step.after == W.STOPPING and facts.forced
        if (forced or (step.before != step.after == W.STOPPED)) and not done:
            if not asked(step, f.KillEverything):
                yield "it leaves processes behind"


def nobody_is_kept_by_a_worker_that_has_gone(_before: Frozen, stage: Stage) -> Iterator[str]:
    worker = stage.world.get(M.WORKER, THE_WORKER)
    if worker is None or not worker.facts.gone:
        return
    if stage.world.live(M.SESSION):
        yield "a session has outlived the worker"
    links = {link.state for link in stage.world.live(M.LINK)}
    if links - {LinkState.CLOSING}:
        yield f"links have outlived the worker: {sorted(links)}"
    server = stage.state(M.SIGNALLING, THE_SERVER)
    if server not in {SignallingState.DOWN, SignallingState.REFUSED, None}:
        yield f"it has gone, and is {server} at the server"


# --- jobs -----------------------------------------------------------------------------------------


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
        if step.before == J.NEW and step.after == J.STAGING and not asked(step, f.OpenJob):
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
            if step.after != (R.HELD if held else R.EXPIRED):
                yield f"results are {step.after}"
            if held and not facts.owner:
                yield "results are nobody's"


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


# --- files ----------------------------------------------------------------------------------------


def files_move_for_who_wants_them_and_is_here(_before: Frozen, stage: Stage) -> Iterator[str]:
    for file in stage.world.moving(M.SENDING):
        results = stage.world.get(M.RESULTS, file.facts.job)
        if results is None or results.state is not R.DELIVERING:
            yield f"{file.subject} is sent, and nobody has asked for it"
    for file in stage.world.moving(M.RECEIVING):
        if stage.state(M.JOB, file.facts.job) is not J.STAGING:
            yield f"{file.subject} arrives, and nobody needs it"
    for file in (*stage.world.moving(M.RECEIVING), *stage.world.moving(M.SENDING)):
        state = stage.state(M.SESSION, file.facts.session)
        if state is None:
            yield f"{file.subject} has outlived its session"
        moves = file.state in {ReceivingState.RECEIVING, SendingState.SENDING}
        if moves and state is not SessionState.ATTACHED:
            yield f"{file.subject} is {file.state}, and its session is {state}"
        if file.state is ReceivingState.SUSPENDED and state is not SessionState.DETACHED:
            yield f"{file.subject} is not asked for again"
    for name, subject, kind in stage.tasks:
        sends = kind is f.SendRanges
        if sends and stage.state(name, subject) is not SendingState.SENDING:
            yield f"bytes of {subject} go out, and it is {stage.state(name, subject)}"


def nobody_waits_for_a_link_that_is_there(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after == ReceivingState.SUSPENDED and not isinstance(step.event, e.LinkCut):
            yield f"{type(step.event).__name__} suspends it"
    for step in fired(stage, M.SENDING):
        if step.after == SendingState.SUSPENDED and not isinstance(step.event, e.LinkCut):
            yield f"{type(step.event).__name__} suspends it"


def stored_means_hashed(before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after == ReceivingState.STORED and not isinstance(step.event, e.DigestMatched):
            yield "stored, and nobody has hashed it"
        if isinstance(step.event, e.DigestMatched):
            if step.after != ReceivingState.STORED or not asked(step, f.ConfirmStored):
                yield "it is here and whole, and its sender does not hear so"
        if isinstance(step.event, e.ChunksCompleted) and step.after != ReceivingState.VERIFYING:
            yield "it is complete, and is not hashed"
    del before


def who_waits_for_bytes_has_asked_for_them(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        again = isinstance(step.event, e.LinkResumed | e.DigestMismatched | e.TimerExpired)
        first = step.before == ReceivingState.OFFERED
        if step.after == ReceivingState.RECEIVING and (again or first):
            if not asked(step, f.AskMissing, f.OpenIncoming):
                yield "it waits for bytes that nobody was asked for"
    for step in fired(stage, M.SENDING):
        if step.before == step.after == SendingState.OFFERED and not asked(step, f.OfferFile):
            yield "it waits for an answer to an offer that was not made"


def a_file_that_is_refused_is_let_go_and_its_sender_hears_why(
    _before: Frozen, stage: Stage
) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after != ReceivingState.REFUSED:
            continue
        gave_up = isinstance(step.event, Received)
        left = isinstance(step.event, e.SessionEnded | e.Superseded)
        if gave_up and not asked(step, f.DropIncoming):
            yield "its sender gave it up, and it is kept"
        elif left and not asked(step, f.KeepIncoming):
            yield "what had arrived is lost"
        elif not gave_up and not left and not asked(step, f.RefuseIncoming):
            yield "its sender does not hear that it is refused"
    for step in fired(stage, M.SENDING):
        ours = isinstance(step.event, e.SourceFailed | e.EffectFailed | e.Unwanted)
        if step.after == SendingState.REFUSED and ours and not asked(step, f.AbortOutgoing):
            yield "its receiver waits for a file that does not come"


# --- links and sessions ---------------------------------------------------------------------------


def a_session_is_carried_by_the_link_it_names(_before: Frozen, stage: Stage) -> Iterator[str]:
    held = set()
    for session in stage.world.moving(M.SESSION):
        attached = session.state is SessionState.ATTACHED
        if attached is not bool(session.facts.link):
            yield f"{session.state} by {session.facts.link!r}"
        if attached:
            held.add(session.facts.link)
            link = stage.world.get(M.LINK, session.facts.link)
            if link is None or link.state not in UP:
                yield f"{session.subject} hangs on a link that is over"
            elif link.facts.key != session.facts.key:
                yield f"{session.subject} of {session.facts.key} is used by {link.facts.key}"
    for link in stage.world.moving(M.LINK):
        if link.state in UP and link.subject not in held:
            yield f"{link.subject} is up, and carries nothing"


def a_link_that_is_over_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    live = {link.subject for link in stage.world.moving(M.LINK) if not link.final}
    for name, subject in stage.open:
        if name is M.LINK and subject not in live:
            yield f"the peer connection of {subject} is left open"
    for link in stage.world.live(M.LINK):
        if (M.LINK, link.subject) not in stage.open:
            yield f"{link.subject} is {link.state}, and its peer connection is closed"


def who_does_not_get_in_hears_why(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        never_up = step.before in {LinkState.NEW, *BEFORE_UP}
        if never_up and step.after in {LinkState.FAILED, LinkState.REJECTED}:
            if not asked(step, f.ReportLinkFailure, f.RefuseOffer):
                yield f"{step.before} ends as {step.after} without a word"
            facts: Any = step.facts
            if not facts.reason:
                yield f"{step.before} ends as {step.after}, and no sentence says why"


def nobody_gets_in_without_a_proof(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if step.before in UP or step.after not in UP:
            continue
        event: Any = step.event
        allowed = isinstance(event, e.ControlOpened) and (
            not event.native and event.foreign_allowed and not event.secret
        )
        proved = isinstance(event, e.ProofChecked) and event.proved and event.trusted
        if not allowed and not proved:
            yield f"{type(event).__name__} lets it in"


def a_proof_lets_in(_before: Frozen, stage: Stage) -> Iterator[str]:
    """And a refused one ends the link at once."""
    for step in fired(stage, M.LINK):
        if isinstance(step.event, e.ProofChecked) and step.before == LinkState.AUTHENTICATING:
            good = step.event.proved and step.event.trusted
            if step.after != (LinkState.UP if good else LinkState.REJECTED):
                yield f"proved {step.event.proved}, trusted {step.event.trusted}: {step.after}"
        if step.before == LinkState.AUTHENTICATING and isinstance(
            step.event, e.FrameArrived | e.FrameRefused
        ):
            if step.after != LinkState.REJECTED:
                yield "it speaks before its proof, and stays"


def a_silent_peer_is_asked_and_then_let_go(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if not isinstance(step.event, e.TimerExpired):
            continue
        if step.event.timer in {e.Timer.PING, e.Timer.QUIET} and not asked(step, f.KeepIceAlive):
            yield "nobody asks for a sign of life"
        if step.event.timer is e.Timer.QUIET and step.after != LinkState.SUSPECT:
            yield f"silent, and {step.after}"
        if step.event.timer is e.Timer.LOST and step.after != LinkState.FAILED:
            yield f"silent for long, and {step.after}"
    for link in stage.world.moving(M.LINK):
        if link.state is LinkState.UP and not {e.Timer.PING, e.Timer.QUIET} <= set(link.armed):
            yield "nobody watches for silence"


def a_sign_of_life_is_one(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Every valid frame makes a suspected link well again."""
    for step in fired(stage, M.LINK):
        if step.before == LinkState.SUSPECT and isinstance(step.event, Received | e.FrameArrived):
            if step.after == LinkState.SUSPECT:
                yield f"{type(step.event).__name__} counts for nothing"


def a_numbered_frame_is_acknowledged(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        event = step.event
        if isinstance(event, e.FrameArrived) and event.number and step.before in UP:
            due = event.number <= event.expected
            if due and not asked(step, f.SendAck):
                yield "its sender keeps it for ever"
            if due is not (step.after in UP):
                yield f"number {event.number} of {event.expected}: {step.after}"
            if asked(step, f.ReadMessage) is not (event.number == event.expected):
                yield f"number {event.number} of {event.expected} is read, or is not"
        if isinstance(event, e.FrameArrived) and not event.number and step.before in UP:
            if not asked(step, f.ReadMessage):
                yield "a frame without a number is not read"


def a_farewell_is_said_before_a_link_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if step.before in {*BEFORE_UP, *UP} and isinstance(
            step.event, e.WorkerStopping | e.SessionEnded
        ):
            if step.after != LinkState.CLOSING or not asked(step, f.Farewell):
                yield "its peer waits for somebody who has gone"


def a_session_that_is_over_keeps_nothing(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        if step.after == SessionState.CLOSED and not asked(step, f.ForgetSession):
            yield "its outbox is kept"


def a_session_ends_by_farewell_time_or_force(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        if not isinstance(step.event, e.LinkLost) or step.before != SessionState.ATTACHED:
            continue
        after = SessionState.CLOSED if step.event.farewell else SessionState.DETACHED
        if step.after != after:
            yield f"farewell {step.event.farewell}: {step.after}"


def whoever_has_its_link_is_welcomed(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        if isinstance(step.event, e.LinkUp):
            if step.after != SessionState.ATTACHED or not asked(step, f.SendWelcome, f.HoldOutbox):
                yield "a link has proved itself, and its client does not hear so"


# --- the server -----------------------------------------------------------------------------------


def a_socket_that_is_not_used_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    server = stage.state(M.SIGNALLING, THE_SERVER)
    unused = {SignallingState.DOWN, SignallingState.BACKOFF, SignallingState.REFUSED, None}
    is_open = (M.SIGNALLING, THE_SERVER) in stage.open
    if is_open is (server in unused):
        yield f"{server}, and the socket is {'open' if is_open else 'closed'}"


def who_waits_to_be_registered_has_asked(_before: Frozen, stage: Stage) -> Iterator[str]:
    S = SignallingState  # noqa: N806 - as in the tables
    for step in fired(stage, M.SIGNALLING):
        if step.before != step.after == S.REGISTERING and not asked(step, f.SendRegistration):
            yield "it waits for an answer that was not asked for"
        if step.before != step.after == S.STALE and not asked(step, f.PingServer):
            yield "it waits for a sign of life that was not asked for"
        if step.after == S.REFUSED and step.before != S.REFUSED:
            event: Any = step.event
            if not (isinstance(event, e.RecvRefusal) and event.final):
                yield f"{type(event).__name__} ends it for good"
        if isinstance(step.event, e.RecvRefusal) and step.before == S.REGISTERING:
            if step.after != (S.REFUSED if step.event.final else S.BACKOFF):
                yield f"refused (final {step.event.final}), it is {step.after}"
        if isinstance(step.event, e.SocketFailed | e.EffectFailed) and step.after != S.BACKOFF:
            yield f"the server is lost, and it is {step.after}"
        if isinstance(step.event, e.RecvRegistered) and step.after != S.REGISTERED:
            yield f"registered, it is {step.after}"
        if isinstance(step.event, e.SignalArrived) and step.after != S.REGISTERED:
            yield f"the server speaks, and it is {step.after}"
    server = stage.world.get(M.SIGNALLING, THE_SERVER)
    if server is not None and server.state is S.REGISTERED and e.Timer.SILENCE not in server.armed:
        yield "nobody watches for silence of the server"


def the_room_hears_what_changes(_before: Frozen, stage: Stage) -> Iterator[str]:
    was = {kept.name: kept.facts for kept in _before.moving}
    for step in fired(stage, M.SIGNALLING):
        facts: Any = step.facts
        if isinstance(step.event, e.StatusChanged) and not asked(step, f.AnnounceStatus):
            yield "the room does not hear of the worker's state"
        old = was.get(M.SIGNALLING)
        entered = isinstance(step.event, e.RecvRegistered) and M.WORKER in stage.world.tables
        if entered and old is not None:
            new_room = old.room != facts.room or old.room != step.event.room
            if new_room is not asked(step, f.ReportReady):
                yield f"a room that is {'new' if new_room else 'old'}: the operator is told wrong"
            if facts.room != step.event.room:
                yield "the room is not noted"
        if step.after == SignallingState.REFUSED and M.WORKER in stage.world.tables:
            if not asked(step, f.ReportSignalling):
                yield "the operator does not hear that the server refuses"


def losing_the_server_disturbs_nobody(before: Frozen, stage: Stage) -> Iterator[str]:
    if not stage.steps or stage.steps[0].machine is not M.SIGNALLING:
        return
    if stage.status in {W.STOPPING, W.STOPPED}:
        return
    moved = {step.machine for step in stage.steps if step.verdict is Verdict.ROW}
    if disturbed := moved - {M.SIGNALLING, M.WORKER}:
        yield f"it moves {sorted(disturbed)}"
    del before


def whom_nobody_can_reach_does_not_wait(_before: Frozen, stage: Stage) -> Iterator[str]:
    refused = stage.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED
    if refused and stage.status in {W.AVAILABLE, W.DEGRADED} and not stage.world.live(M.SESSION):
        yield "it waits for clients that cannot come"


WORKER_LAWS = (
    one_job_holds_the_slot,
    available_is_a_proof_that_nothing_is_alive,
    who_leaves_takes_nothing_new,
    no_job_waits_for_a_free_worker,
    a_request_to_end_is_heard,
    its_status_is_published,
    a_degraded_worker_looks_again,
    who_goes_says_so,
    a_worker_that_goes_kills_what_is_left,
    nobody_is_kept_by_a_worker_that_has_gone,
)
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
FILE_LAWS = (
    files_move_for_who_wants_them_and_is_here,
    nobody_waits_for_a_link_that_is_there,
    stored_means_hashed,
    who_waits_for_bytes_has_asked_for_them,
    a_file_that_is_refused_is_let_go_and_its_sender_hears_why,
)
LINK_LAWS = (
    a_session_is_carried_by_the_link_it_names,
    a_link_that_is_over_is_closed,
    who_does_not_get_in_hears_why,
    nobody_gets_in_without_a_proof,
    a_proof_lets_in,
    a_silent_peer_is_asked_and_then_let_go,
    a_sign_of_life_is_one,
    a_numbered_frame_is_acknowledged,
    a_farewell_is_said_before_a_link_is_closed,
    a_session_that_is_over_keeps_nothing,
    a_session_ends_by_farewell_time_or_force,
    whoever_has_its_link_is_welcomed,
)
SERVER_LAWS = (
    a_socket_that_is_not_used_is_closed,
    who_waits_to_be_registered_has_asked,
    the_room_hears_what_changes,
    losing_the_server_disturbs_nobody,
    whom_nobody_can_reach_does_not_wait,
)
EVERYBODY = (
    what_can_happen_is_decided,
    whoever_waits_has_a_timer,
    whoever_waits_for_work_has_it_under_way,
    what_is_asked_is_answered,
    what_is_over_stays_over,
)
