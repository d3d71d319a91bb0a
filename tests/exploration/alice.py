"""Alice, the one client of products that are about jobs.

She comes, goes silent, comes back and says everything that the message table lets her say. Her link
is a name here: it is explored by itself in `links`.
"""

from collections.abc import Iterator
from functools import partial

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received, Timer
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.lifecycle import (
    JobState,
    ReceivingState,
    SessionState,
    WorkerState,
)
from protocol.table import Direction, MachineName
from tests.exploration import sources
from tests.exploration.explorer import Kind, Move
from tests.exploration.stage import Stage
from tests.machines.puppet import submission
from tests.protocol import samples

M, W, J = MachineName, WorkerState, JobState
ALICE, LINK, SESSION = "alice", "l-a", "s-a"
JOB, OTHER = "job-aaaaaaaa", "job-bbbbbbbb"
#: What alice can speak to, beside her session and the worker (see `slot`).
TALKS_TO = (M.JOB, M.RESULTS, M.SENDING)
UPLOADS_TO = (M.JOB, M.RECEIVING)


def comes(stage: Stage) -> None:
    """Alice's link, from the offer to the proof."""
    facts = stage.facts(M.SESSION, SESSION)
    hello = m.Hello(
        versions=(1,), role="client", key=ALICE, nonce="N", session=SESSION,
        generation=facts.generation + 1 if facts is not None else 1,
    )  # fmt: skip
    for event in (
        e.RecvOffer(peer="p-a", sdp="v=0", room_for_more=True),
        e.SentAnswer(),
        e.IceCompleted(),
        e.ControlOpened(native=True),
        Received(message=hello, link=LINK),
        Received(message=m.Proof(signature="S"), link=LINK),
        e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
    ):
        stage.feed(M.LINK, LINK, event)
    stage.tasks = {task for task in stage.tasks if task[0] is not M.LINK}


def goes_silent(stage: Stage) -> None:
    """Her link's timers run out, one after the other."""
    for timer in (Timer.QUIET, Timer.LOST):
        stage.expire((M.LINK, LINK), timer)


def says_bye(stage: Stage) -> None:
    """She leaves for good."""
    stage.feed(M.LINK, LINK, Received(message=m.Bye(), link=LINK))


def is_here(stage: Stage) -> bool:
    """Whether alice has a session with a link."""
    return stage.state(M.SESSION, SESSION) is SessionState.ATTACHED


def presence(stage: Stage) -> Iterator[Move]:
    """Alice comes and goes."""
    if is_here(stage):
        yield Move("alice goes silent", Kind.TIME, goes_silent)
        yield Move("alice says bye", Kind.PEER, says_bye)
    elif stage.world.get(M.LINK, LINK) is None and not stage.facts(M.WORKER, THE_WORKER).gone:
        yield Move("alice comes", Kind.PEER, comes)
    if stage.world.live(M.LINK) and not is_here(stage):
        yield Move("the farewell has left", Kind.TIME, _farewell)


def _farewell(stage: Stage) -> None:
    stage.tasks.discard((M.LINK, LINK, f.Farewell))
    stage.expire((M.LINK, LINK), Timer.CLOSE)


def say(stage: Stage, message: m.Message) -> None:
    stage.say(message, LINK, SESSION, ALICE)


def words(
    stage: Stage, job: str, machines: tuple[MachineName, ...]
) -> Iterator[tuple[str, m.Message]]:
    """What alice can say of a job; of files that are on their way, their numbers."""
    taken = [file.facts.transfer for file in stage.world.moving(M.RECEIVING)]
    free = next(number for number in (1, 2, 3) if number not in taken)
    for message in sources.messages(machines, Direction.TO_WORKER):
        name = type(message).__name__
        if isinstance(message, m.Submit):
            yield name, submission(job, wall_s=60.0)
            if stage.world.get(M.JOB, job) is None:
                wrong = structs.replace(submission(job), spec=m.JobSpec(name="x", kind="other"))
                yield "Submit (no package)", wrong
            else:
                yield "Submit (another)", submission(job, wall_s=30.0)
        elif isinstance(message, m.FileOffer):
            if stage.state(M.JOB, job) is J.STAGING and _may_offer(stage):
                offer = sources.about(message, job=job, transfer=free)
                yield name, structs.replace(offer, name="package.zip")
                if not taken:
                    yield "FileOffer (another name)", structs.replace(offer, name="other.zip")
        elif not sources.belongs_to_transfer(message):
            if stage.world.get(M.JOB, job) is not None or not hasattr(message, "job"):
                yield name, sources.about(message, job=job, transfer=1, session=SESSION)
        else:
            machine = M.RECEIVING if isinstance(message, m.FileAbort) else M.SENDING
            for file in stage.world.moving(machine):
                said = sources.about(message, job=job, transfer=file.facts.transfer)
                yield f"{name} {file.facts.transfer}", said
                if isinstance(message, m.FileStored):
                    yield (
                        f"{name} {file.facts.transfer} (another root)",
                        structs.replace(said, root=sources.WRONG),
                    )


def _may_offer(stage: Stage) -> bool:
    """Two uploads at a time, of which the second comes before the first is complete."""
    files = stage.world.moving(M.RECEIVING)
    return not files or (
        len(files) == 1
        and files[0].state in {ReceivingState.RECEIVING, ReceivingState.SUSPENDED}
        and files[0].facts.tries == 0
    )


def talk(stage: Stage, job: str, machines: tuple[MachineName, ...] = TALKS_TO) -> Iterator[Move]:
    """Alice says something."""
    if is_here(stage):
        for name, message in words(stage, job, machines):
            yield Move(f"alice: {name}", Kind.PEER, partial(say, message=message))


def uploads(stage: Stage, job: str) -> Iterator[Move]:
    """The package arrives, all at once."""
    if is_here(stage) and stage.state(M.JOB, job) is J.STAGING:
        yield Move(f"the package of {job} arrives", Kind.PEER, partial(upload, job=job))


def upload(stage: Stage, job: str) -> None:
    offer = sources.about(samples.BY_TYPE[m.FileOffer], job=job, transfer=1)
    say(stage, structs.replace(offer, name="package.zip"))
    file = (M.RECEIVING, f"{SESSION}/1")
    stage.feed(*file, e.ChunksCompleted())
    stage.answer((*file, f.VerifyIncoming), e.DigestMatched())


def hand_in(stage: Stage, job: str) -> None:
    """Alice comes, hands a job in, and leaves."""
    comes(stage)
    say(stage, submission(job, wall_s=60.0))
    if stage.state(M.JOB, job) is J.STAGING:
        upload(stage, job)
        stage.answer((M.JOB, job, f.ValidatePackage), e.ValidationPassed(stages=1))
    says_bye(stage)
