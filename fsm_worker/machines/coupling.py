"""The coupling table: joint facts of two machines, and the event that they force.

It is the only place where one machine knows of another. Rows are level-triggered: as long as the
facts stand, the event is forced; the event changes the facts, so the table comes to rest. A row
whose event is ignored forces nothing.
"""

from collections.abc import Iterator

from fsm_worker.events import (
    AllDone,
    ClientAttached,
    ClientDetached,
    DeliveryFailed,
    InputRefused,
    InputStored,
    JobDone,
    JobLeftGpu,
    LinkCut,
    LinkLost,
    LinkResumed,
    LinkUp,
    ResultsAcknowledged,
    SendRequested,
    SessionEnded,
    SlotGranted,
    SlotRequested,
    Superseded,
    TerminateRequested,
    Unwanted,
    WorkerLeaving,
    WorkerStopping,
)
from fsm_worker.machines.job import ON_GPU, WAITING
from fsm_worker.machines.world import THE_SERVER, THE_WORKER, Coupling, Forced, World
from protocol.errors import ErrorCode
from protocol.lifecycle import (
    JobState,
    LinkState,
    ReceivingState,
    ResultsState,
    SendingState,
    SessionState,
    SignallingState,
    WorkerState,
)
from protocol.table import MachineName

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
_LINK_OVER = (LinkState.CLOSING, LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED)


def _queue_asks(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    queued = [job for job in world.live(M.JOB) if job.state is J.QUEUED]
    if worker is not None and worker.state is W.AVAILABLE and queued:
        yield Forced(M.WORKER, THE_WORKER, SlotRequested(job=queued[0].subject))


def _slot_is_granted(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is not None and worker.state in {W.BUSY, W.DRAINING}:
        job = world.get(M.JOB, worker.facts.slot)
        if job is not None and job.state is J.QUEUED:
            yield Forced(M.JOB, job.subject, SlotGranted())


def _job_leaves_slot(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is not None and worker.state in {W.BUSY, W.DRAINING}:
        job = world.get(M.JOB, worker.facts.slot)
        if job is None or job.state not in {J.QUEUED, *ON_GPU}:
            yield Forced(M.WORKER, THE_WORKER, JobLeftGpu())


def _worker_leaves(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None:
        return
    ends = worker.state in {W.STOPPING, W.STOPPED}
    for job in world.live(M.JOB):
        if job.state in WAITING and (ends or worker.facts.leaving):
            yield Forced(M.JOB, job.subject, WorkerLeaving())
        elif job.state in {J.PREPARING, J.RUNNING} and ends:
            yield Forced(M.JOB, job.subject, WorkerStopping())


def _nothing_is_left(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state is not W.STOPPING or world.live(M.JOB):
        return
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


def _worker_has_stopped(world: World) -> Iterator[Forced]:
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or worker.state is not W.STOPPED:
        return
    for name in (M.SESSION, M.LINK, M.SIGNALLING):
        for instance in world.live(name):
            if instance.state not in {*_LINK_OVER, SignallingState.DOWN}:
                yield Forced(name, instance.subject, WorkerStopping())


def _nobody_can_come(world: World) -> Iterator[Forced]:
    server = world.get(M.SIGNALLING, THE_SERVER)
    worker = world.get(M.WORKER, THE_WORKER)
    if (
        server is not None
        and worker is not None
        and server.state is SignallingState.REFUSED
        and worker.state in {W.AVAILABLE, W.DEGRADED}
        and not world.live(M.SESSION)
    ):
        yield Forced(M.WORKER, THE_WORKER, TerminateRequested())


def _inputs_arrive(world: World) -> Iterator[Forced]:
    for file in world.moving(M.RECEIVING):
        job = world.get(M.JOB, file.facts.job)
        if job is None or job.state is not J.STAGING or file.facts.name not in job.facts.inputs:
            continue
        if file.facts.name in job.facts.stored:
            continue
        if file.state is ReceivingState.STORED:
            yield Forced(M.JOB, job.subject, InputStored(name=file.facts.name))
        elif file.state is ReceivingState.REFUSED:
            yield Forced(
                M.JOB,
                job.subject,
                InputRefused(
                    name=file.facts.name,
                    code=ErrorCode.INPUT_REFUSED,
                    reason=file.facts.reason or "the file was refused",
                ),
            )


def _inputs_are_unwanted(world: World) -> Iterator[Forced]:
    for file in world.live(M.RECEIVING):
        job = world.get(M.JOB, file.facts.job)
        if job is None or job.state is not J.STAGING:
            yield Forced(M.RECEIVING, file.subject, Unwanted())


def _job_is_done(world: World) -> Iterator[Forced]:
    for job in world.moving(M.JOB):
        if job.final:
            results = world.get(M.RESULTS, job.subject)
            if results is None or results.state is R.NONE:
                yield Forced(
                    M.RESULTS,
                    job.subject,
                    JobDone(results=job.facts.results, owner=job.facts.owner),
                )


def _owner_comes_and_goes(world: World) -> Iterator[Forced]:
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


def _results_are_sent(world: World) -> Iterator[Forced]:
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


def _results_are_unwanted(world: World) -> Iterator[Forced]:
    for file in world.live(M.SENDING):
        results = world.get(M.RESULTS, file.facts.job)
        if (
            results is None
            or results.state is not R.DELIVERING
            or results.facts.session != file.facts.session
        ):
            yield Forced(M.SENDING, file.subject, Unwanted())


def _links_carry_sessions(world: World) -> Iterator[Forced]:
    for link in world.moving(M.LINK):
        if link.state not in {LinkState.UP, LinkState.SUSPECT}:
            continue
        facts = link.facts
        session = world.get(M.SESSION, facts.session)
        if session is not None and session.facts.link == link.subject:
            continue
        if session is None or (
            not session.final
            and session.facts.key in {"", facts.key}  # a client's session begins without one
            and facts.generation > session.facts.generation
        ):
            yield Forced(
                M.SESSION,
                facts.session,
                LinkUp(
                    link=link.subject, generation=facts.generation, key=facts.key, peer=facts.peer
                ),
            )
        else:
            yield Forced(M.LINK, link.subject, Superseded())


def _links_are_lost(world: World) -> Iterator[Forced]:
    for session in world.moving(M.SESSION):
        if session.state is not SessionState.ATTACHED:
            continue
        link = world.get(M.LINK, session.facts.link)
        if link is None or link.state in _LINK_OVER:
            yield Forced(
                M.SESSION,
                session.subject,
                LinkLost(
                    link=session.facts.link,
                    farewell=link is not None and link.facts.farewell,
                ),
            )


def _files_follow_sessions(world: World) -> Iterator[Forced]:
    for name in (M.RECEIVING, M.SENDING):
        for file in world.live(name):
            session = world.get(M.SESSION, file.facts.session)
            if session is None or session.final:
                yield Forced(name, file.subject, SessionEnded())
            elif session.state is SessionState.DETACHED:
                if file.state in {ReceivingState.RECEIVING, SendingState.SENDING}:
                    yield Forced(name, file.subject, LinkCut())
            elif file.state is ReceivingState.SUSPENDED and name is M.RECEIVING:
                yield Forced(name, file.subject, LinkResumed())


_LINKS = Coupling(
    "C1", "a proved link that its session does not hold",
    "session: link_up, if its key and generation allow; else link: superseded",
    _links_carry_sessions,
)  # fmt: skip
_LOST = Coupling(
    "C2", "a session whose link is over", "session: link_lost", _links_are_lost
)  # fmt: skip
_FILES = Coupling(
    "C3", "a file whose session is over, detached, or attached again",
    "receiving, sending: session_ended, link_cut, link_resumed", _files_follow_sessions,
)  # fmt: skip

CLIENT_COUPLINGS: tuple[Coupling, ...] = (_LINKS, _LOST, _FILES)

WORKER_COUPLINGS: tuple[Coupling, ...] = (
    _LINKS,
    _LOST,
    _FILES,
    Coupling("C4", "an announced input is stored or refused while the job stages",
             "job: input_stored, input_refused", _inputs_arrive),
    Coupling("C5", "a file is on its way in for a job that no longer stages",
             "receiving: unwanted", _inputs_are_unwanted),
    Coupling("C6", "the worker is available and a job is queued (the oldest first)",
             "worker: slot_requested", _queue_asks),
    Coupling("C7", "the slot names a queued job", "job: slot_granted", _slot_is_granted),
    Coupling("C8", "the slot's job has no process any more", "worker: job_left_gpu",
             _job_leaves_slot),
    Coupling("C9", "the worker leaves or stops, and a job is alive",
             "job: worker_leaving (waiting), worker_stopping (on the slot)", _worker_leaves),
    Coupling("C10", "a job is done or rejected", "results: job_done", _job_is_done),
    Coupling("C11", "the owner's session came or went", "job: client_attached, client_detached",
             _owner_comes_and_goes),
    Coupling("C12", "results are to be delivered", "sending: send_requested; results: "
             "results_acknowledged, delivery_failed", _results_are_sent),
    Coupling("C13", "a file is on its way out that nobody waits for", "sending: unwanted",
             _results_are_unwanted),
    Coupling("C14", "the worker is stopping, no job is alive, nobody present waits for results",
             "worker: all_done", _nothing_is_left),
    Coupling("C15", "the worker has stopped", "session, link, signalling: worker_stopping",
             _worker_has_stopped),
    Coupling("C16", "the server refuses this worker, and nobody is attached",
             "worker: terminate_requested", _nobody_can_come),
)  # fmt: skip
