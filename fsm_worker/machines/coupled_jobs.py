"""What jobs, their files and results force on each other and on the worker; see `coupling`."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from fsm_worker.events import (
    AllDone,
    ClientAttached,
    ClientDetached,
    Crowded,
    DeliveryFailed,
    DrainOverdue,
    InputRefused,
    InputStored,
    JobDone,
    JobLeftGpu,
    PackingBegan,
    PackingEnded,
    ReservationClaimed,
    ReservationUnclaimed,
    ResultsAcknowledged,
    SendRequested,
    SlotGranted,
    SlotRequested,
    Superseded,
    Unwanted,
    WorkerLeaving,
    WorkerStopped,
    WorkerStopping,
)
from fsm_worker.machines.defaults import STOP_STEPS
from fsm_worker.machines.engine import Instance
from fsm_worker.machines.job import ON_GPU, WAITING
from fsm_worker.machines.world import THE_WORKER, Forced, World
from protocol.errors import ErrorCode
from protocol.lifecycle import (
    JobState,
    ReceivingState,
    ResultsState,
    SendingState,
    SessionState,
    WorkerState,
)
from protocol.table import MachineName

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
#: Ended jobs without results that are remembered.
KEEP_JOBS = 500


def queue_asks(world: World) -> Iterator[Forced]:
    """A queued job asks for the free slot, or for the one kept for its owner; the oldest first."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state not in {W.AVAILABLE, W.RESERVED}:
        return
    free = worker.state is W.AVAILABLE
    for job in world.live(M.JOB):
        if job.state is J.QUEUED and (free or job.facts.owner == worker.facts.holder):
            request = SlotRequested(job=job.subject, owner=job.facts.owner)
            yield Forced(M.WORKER, THE_WORKER, request)
            return


def reservation_is_claimed(world: World) -> Iterator[Forced]:
    """A reservation lasts while a job of its holder is on its way in."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state is not W.RESERVED:
        return
    coming = any(
        job.facts.owner == worker.facts.holder and job.state in WAITING for job in world.live(M.JOB)
    )
    if coming is not worker.facts.claimed:
        event = ReservationClaimed() if coming else ReservationUnclaimed()
        yield Forced(M.WORKER, THE_WORKER, event)


def drain_is_overdue(world: World) -> Iterator[Forced]:
    """A job that has had its time before a break is stopped."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is not None and worker.state is W.DRAINING and worker.facts.overdue:
        job = world.get(M.JOB, worker.facts.slot)
        if job is not None and job.state is J.RUNNING:
            yield Forced(M.JOB, job.subject, DrainOverdue())


def slot_is_granted(world: World) -> Iterator[Forced]:
    """The job that the slot names gets it."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is not None and worker.state in {W.BUSY, W.DRAINING}:
        job = world.get(M.JOB, worker.facts.slot)
        if job is not None and job.state is J.QUEUED:
            yield Forced(M.JOB, job.subject, SlotGranted())


def job_leaves_slot(world: World) -> Iterator[Forced]:
    """A job without processes gives the slot back."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is not None and worker.state in {W.BUSY, W.DRAINING}:
        job = world.get(M.JOB, worker.facts.slot)
        if job is None or job.state not in {J.QUEUED, *ON_GPU}:
            yield Forced(M.WORKER, THE_WORKER, JobLeftGpu())


def worker_leaves(world: World) -> Iterator[Forced]:
    """Jobs hear that the worker leaves, or ends."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None:
        return
    ends = worker.state in {W.STOPPING, W.STOPPED}
    for job in world.live(M.JOB):
        if worker.facts.forced:
            yield Forced(M.JOB, job.subject, WorkerStopped())
        elif job.state in WAITING and (ends or worker.facts.leaving):
            yield Forced(M.JOB, job.subject, WorkerLeaving())
        elif ends and (
            job.state in {J.PREPARING, J.RUNNING}
            or (job.state is J.STOPPING and job.facts.step + 1 < len(STOP_STEPS))
        ):
            yield Forced(M.JOB, job.subject, WorkerStopping())


def results_are_packed(world: World) -> Iterator[Forced]:
    """A worker that is stopping notes whether results are being packed."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state is not W.STOPPING or worker.facts.forced:
        return
    packing = any(job.state is J.COLLECTING for job in world.live(M.JOB))
    if packing is not worker.facts.packing:
        yield Forced(M.WORKER, THE_WORKER, PackingBegan() if packing else PackingEnded())


def nothing_is_left(world: World) -> Iterator[Forced]:
    """A worker that ends, and has nothing left to do, ends."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state is not W.STOPPING or world.live(M.JOB):
        return
    if worker.facts.forced:
        return  # it ends as soon as that is told
    present = {
        session.facts.key
        for session in world.moving(M.SESSION)
        if session.state is SessionState.ATTACHED
    }
    waited_for = any(
        results.state is R.DELIVERING
        or (results.state is R.HELD and results.facts.owner in present)
        for results in world.live(M.RESULTS)
    )
    if not waited_for:
        yield Forced(M.WORKER, THE_WORKER, AllDone())


def inputs_arrive(world: World) -> Iterator[Forced]:
    """A job hears of its inputs."""
    for file in world.moving(M.RECEIVING):
        job = world.get(M.JOB, file.facts.job)
        if job is None or job.state is not J.STAGING or file.facts.name not in job.facts.inputs:
            continue
        facts = file.facts
        if facts.name in job.facts.stored:
            continue
        if file.state is ReceivingState.STORED:
            yield Forced(M.JOB, job.subject, InputStored(name=facts.name))
        elif (
            file.state is ReceivingState.REFUSED
            and facts.code is not ErrorCode.ABORTED  # its sender may come back
            and not any(same_file(file, other) for other in world.live(M.RECEIVING))
        ):
            reason = facts.reason or "the file was refused"
            refusal = InputRefused(name=facts.name, code=facts.code, reason=reason)
            yield Forced(M.JOB, job.subject, refusal)


def same_file(one: Instance[Any, Any], other: Instance[Any, Any]) -> bool:
    """Whether both are to become one input of one job."""
    return (one.facts.job, one.facts.name) == (other.facts.job, other.facts.name)


def inputs_are_offered_again(world: World) -> Iterator[Forced]:
    """A newer offer of an input takes over from an older one."""
    arriving = [
        file
        for file in world.live(M.RECEIVING)
        if file.state in {ReceivingState.RECEIVING, ReceivingState.SUSPENDED}
    ]
    for index, file in enumerate(arriving):
        if any(same_file(file, newer) for newer in arriving[index + 1 :]):
            yield Forced(M.RECEIVING, file.subject, Superseded())


def inputs_are_unwanted(world: World) -> Iterator[Forced]:
    """A file for a job that does not wait for it is not wanted."""
    for file in world.live(M.RECEIVING):
        job = world.get(M.JOB, file.facts.job)
        if job is None or job.state is not J.STAGING:
            yield Forced(M.RECEIVING, file.subject, Unwanted())


def job_is_done(world: World) -> Iterator[Forced]:
    """A job that has ended has results, or none."""
    for job in world.moving(M.JOB):
        if job.final:
            results = world.get(M.RESULTS, job.subject)
            if results is None or results.state is R.NONE:
                yield Forced(
                    M.RESULTS,
                    job.subject,
                    JobDone(results=job.facts.results, owner=job.facts.owner),
                )


def owner_comes_and_goes(world: World) -> Iterator[Forced]:
    """A job notes whether its owner is here."""
    present = {
        session.facts.key
        for session in world.moving(M.SESSION)
        if session.state is SessionState.ATTACHED
    }
    for job in world.live(M.JOB):
        if job.facts.attached and job.facts.owner not in present:
            yield Forced(M.JOB, job.subject, ClientDetached())
        elif not job.facts.attached and job.facts.owner in present:
            yield Forced(M.JOB, job.subject, ClientAttached())


def results_are_sent(world: World) -> Iterator[Forced]:
    """Results that are to be delivered are sent, and hear how it went."""
    for results in world.live(M.RESULTS):
        if results.state is not R.DELIVERING:
            continue
        facts = results.facts
        mine = [
            file
            for file in world.moving(M.SENDING)
            if file.facts.job == results.subject and file.facts.session == facts.session
        ]
        if any(file.state is SendingState.ACKNOWLEDGED for file in mine):
            yield Forced(M.RESULTS, results.subject, ResultsAcknowledged())
        elif any(file.state is SendingState.REFUSED for file in mine):
            yield Forced(M.RESULTS, results.subject, DeliveryFailed())
        elif not mine:
            world.transfers += 1
            yield Forced(
                M.SENDING,
                f"{facts.session}/{world.transfers}",
                SendRequested(
                    session=facts.session,
                    transfer=world.transfers,
                    job=results.subject,
                    path="",
                    name=f"{results.subject}.zip",
                    size=facts.size,
                    root=facts.root,
                ),
            )


def results_are_unwanted(world: World) -> Iterator[Forced]:
    """A file that nobody waits for is not sent on."""
    for file in world.live(M.SENDING):
        results = world.get(M.RESULTS, file.facts.job)
        if (
            results is None
            or results.state is not R.DELIVERING
            or results.facts.session != file.facts.session
        ):
            yield Forced(M.SENDING, file.subject, Unwanted())


def too_many_jobs(world: World) -> Iterator[Forced]:
    """Of too many ended jobs the oldest is forgotten, of whoever has most."""
    if len(world.ended[M.JOB]) < KEEP_JOBS:
        return
    ended = [job for job in world.all(M.JOB) if job.final and not job.facts.forgotten]
    held = {results.subject for results in world.live(M.RESULTS)}
    idle = [job for job in ended if job.subject not in held]
    if len(ended) > KEEP_JOBS and idle:
        [(owner, _)] = Counter(job.facts.owner for job in idle).most_common(1)
        oldest = next(job for job in idle if job.facts.owner == owner)
        yield Forced(M.JOB, oldest.subject, Crowded())
