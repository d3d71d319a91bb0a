"""The worker and its slot."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received, Timer
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from protocol.lifecycle import (
    LinkState,
    SignallingState,
)
from tests.exploration.invariants.common import WAITING, J, M, W, armed, asked, before_of, fired
from tests.exploration.stage import Frozen, Stage


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


def free_is_a_proof_that_nothing_is_alive(_before: Frozen, stage: Stage) -> Iterator[str]:
    if stage.status in {W.AVAILABLE, W.RESERVED, W.MAINTENANCE} and stage.processes:
        yield f"{stage.status}, and {sorted(stage.processes)} live"


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
    if stage.status is W.RESERVED:
        holder = stage.facts(M.WORKER, THE_WORKER).holder
        for job in stage.world.moving(M.JOB):
            if job.state is J.QUEUED and job.facts.owner == holder:
                yield f"{job.subject} is queued, and the slot is kept for its owner"


def a_request_to_end_is_heard(before: Frozen, stage: Stage) -> Iterator[str]:
    """The worker is on its way out; what runs, or is packed, is spared until SIGTERM comes twice.

    A journal that breaks, or a server that refuses the worker, is no request.
    """
    for step in fired(stage, M.WORKER):
        if not isinstance(step.event, e.TerminateRequested | e.JournalFailed | e.NobodyCanCome):
            continue
        facts: Any = step.facts
        was = before_of(before)[M.WORKER, THE_WORKER][1]
        request = isinstance(step.event, e.TerminateRequested)
        twice = request and was.asked
        if facts.asked is not (request or was.asked):
            yield f"asked to end: {request or was.asked}, and it believes {facts.asked}"
        if not facts.leaving and step.after not in {W.STOPPING, W.STOPPED}:
            yield f"asked to end in {step.before}, and nothing comes of it"
        runs = step.before in {W.BUSY, W.DRAINING, W.CLEANING}
        if runs and step.after == W.STOPPING and not twice:
            yield "the first request to end spares what runs"
        if step.before != W.STOPPING == step.after and not armed(step):
            yield "it waits for whoever is left without an end"
        if step.before == W.DRAINING and request and not asked(step, f.PublishStatus):
            yield "nobody hears that it will leave"
        if step.before == W.STOPPING and facts.forced is not (twice or was.forced):
            yield f"asked twice to end: {twice}, and it waits for nobody: {facts.forced}"
        if runs and step.after == step.before and twice:
            yield "asked twice to end, it goes on as before"


def who_stops_waits_for_what_is_packed(before: Frozen, stage: Stage) -> Iterator[str]:
    """And then for whoever fetches it, as long as for anybody."""
    packed = any(kept.name is M.JOB and kept.state is J.COLLECTING for kept in before.moving)
    for step in fired(stage, M.WORKER):
        facts: Any = step.facts
        lingers = isinstance(step.event, e.TimerExpired) and step.event.timer is Timer.LINGER
        if lingers and facts.forced is packed:
            yield f"results are being packed: {packed}, and it waits for nobody: {facts.forced}"
        if isinstance(step.event, e.PackingEnded) and step.after == W.STOPPING:
            if not any(timer.timer is Timer.LINGER for timer in armed(step)):
                yield "whoever may fetch what was packed has no time for that"


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


def a_worker_that_goes_kills_what_is_left(before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.WORKER):
        facts: Any = step.facts
        was = before_of(before)[M.WORKER, THE_WORKER][1]
        asks = isinstance(step.event, Received | e.NeedChecked | e.NeedCheckFailed)
        asks = asks or (isinstance(step.event, e.TerminateRequested) and not was.asked)
        done = isinstance(step.event, e.EverythingKilled | e.EffectFailed)
        forced = step.after == W.STOPPING and facts.forced and not asks
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


WORKER_LAWS = (
    one_job_holds_the_slot,
    free_is_a_proof_that_nothing_is_alive,
    who_leaves_takes_nothing_new,
    no_job_waits_for_a_free_worker,
    a_request_to_end_is_heard,
    who_stops_waits_for_what_is_packed,
    its_status_is_published,
    a_degraded_worker_looks_again,
    who_goes_says_so,
    a_worker_that_goes_kills_what_is_left,
    nobody_is_kept_by_a_worker_that_has_gone,
)
