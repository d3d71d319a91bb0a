"""What a frame costs from its text to its effects, beside the least that could decide anything."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from transitions import Machine

from bench.report import REPETITIONS, Line, Sample, Section
from fsm_worker.events import FrameArrived, Received
from fsm_worker.facts import JobFacts, LinkFacts, ResultsFacts, SessionFacts, WorkerFacts
from fsm_worker.machines.client_link import CLIENT_LINK
from fsm_worker.machines.client_session import CLIENT_SESSION
from fsm_worker.machines.coupled_jobs import KEEP_JOBS
from fsm_worker.machines.engine import Instance, Step, Table
from fsm_worker.machines.job import JOB
from fsm_worker.machines.link import LINK
from fsm_worker.machines.results import RESULTS
from fsm_worker.machines.routing import route
from fsm_worker.machines.session import SESSION
from fsm_worker.machines.world import THE_WORKER, World
from fsm_worker.machines.worlds import client_world, worker_world
from protocol import messages as m
from protocol.codec import Frame, decode, encode
from protocol.lifecycle import JobState, LinkState, ResultsState, SessionState, WorkerState
from protocol.table import Direction, MachineName

_FRAMES = 400  # a repetition
_LINK, _SESSION, _KEY, _JOB = "link-1", "s-1", "alice", "digits-20260801-1"
_ROOT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

_STOP = Frame(seq=4, ack=2, msg=m.Stop(job=_JOB))
_OFFER = Frame(
    seq=4, ack=2, msg=m.FileOffer(transfer=1, job=_JOB, name="package.zip", size=4096, root=_ROOT)
)
_PROGRESS = Frame(
    msg=m.Progress(
        job=_JOB,
        stage=0,
        event="epoch_end",
        epoch=4,
        epochs=20,
        metrics={"train/loss": 0.25, "val/loss": 0.5},
        sent_at=1785542400.25,
    )
)


class _Case(NamedTuple):
    """A frame, the world that hears it, and the rows that it must drive there."""

    name: str
    frame: Frame
    direction: Direction
    world: World
    rows: tuple[str, ...]


def measure() -> Section:
    """Feeds each frame to a world that is ready for it, again and again."""
    lines = []
    for case in _cases():
        text = encode(case.frame)
        both = [(_ours(case, text), _limit(text)) for _ in range(REPETITIONS)]
        ours, limit = zip(*both, strict=True)
        lines.append(
            Line(
                Sample(case.name, ours),
                Sample("`json.loads` + one bare trigger", limit),
            )
        )
    return Section(
        "A frame, from text to effects",
        "µs",
        "`protocol.codec.decode`, the link's row, the route, the row of the machine that the"
        " message is for, every coupling, all effects made; nothing is performed. Beside it"
        " `json.loads` of the same text and one trigger of a two-state `transitions` machine"
        " without guards or callbacks; a frame of ours makes two triggers at least, one of them"
        " guarded.",
        lines,
    )


def _cases() -> tuple[_Case, ...]:
    to_worker, to_client = Direction.TO_WORKER, Direction.TO_CLIENT
    return (
        _Case("`stop` of the running job", _STOP, to_worker,
              _worker(JobState.RUNNING), ("L26", "J36")),
        _Case(f"the same, {KEEP_JOBS} ended jobs in memory", _STOP, to_worker,
              _worker(JobState.RUNNING, ended=KEEP_JOBS), ("L26", "J36")),
        _Case("`file_offer` of its package", _OFFER, to_worker,
              _worker(JobState.STAGING), ("L26", "T1")),
        _Case("`progress`, to a client", _PROGRESS, to_client,
              _client(), ("L25", _row(CLIENT_SESSION, m.Progress))),
    )  # fmt: skip


def _row(table: Table[Any, Any], message: type[m.Message]) -> str:
    return next(row.id for row in table.rows if row.on is message)


def _put(world: World, table: Table[Any, Any], subject: str, state: object, facts: Any) -> None:
    instance = Instance(table, subject, facts)
    instance.state = state
    world.machines[table.name][subject] = instance


def _worker(state: JobState, *, ended: int = 0) -> World:
    """A worker with one client whose job is in `state`; on the slot, if it runs."""
    world = worker_world()
    link = LinkFacts(greeted=True, key=_KEY, session=_SESSION)
    _put(world, LINK, _LINK, LinkState.UP, link)
    session = SessionFacts(key=_KEY, link=_LINK, generation=1)
    _put(world, SESSION, _SESSION, SessionState.ATTACHED, session)
    for number in range(ended):
        facts = JobFacts(owner=_KEY, inputs=("package.zip",), stored=("package.zip",))
        _put(world, JOB, f"ended-{number}", JobState.REJECTED, facts)
        results = ResultsFacts(owner=_KEY)
        _put(world, RESULTS, f"ended-{number}", ResultsState.EXPIRED, results)
    for name, aside in world.ended.items():
        aside.update(world.machines[name])
        world.machines[name].clear()
    _put(world, JOB, _JOB, state, JobFacts(owner=_KEY, inputs=("package.zip",)))
    worker = world.machines[MachineName.WORKER][THE_WORKER]
    worker.state = WorkerState.AVAILABLE
    if state is JobState.RUNNING:
        worker.state, worker.facts = WorkerState.BUSY, WorkerFacts(slot=_JOB)
    return world


def _client() -> World:
    world = client_world()
    link = LinkFacts(greeted=True, key=_KEY, session=_SESSION)
    _put(world, CLIENT_LINK, _LINK, LinkState.UP, link)
    session = SessionFacts(key=_KEY, link=_LINK, generation=1, welcomed=True)
    _put(world, CLIENT_SESSION, _SESSION, SessionState.ATTACHED, session)
    return world


def _take(world: World, text: str, direction: Direction) -> list[Step]:
    """What the seam and the runtime do with a frame, without their effects."""
    frame = decode(text, direction)
    arrived = FrameArrived(number=frame.seq, expected=frame.seq, message=frame.msg)
    steps = world.feed(MachineName.LINK, _LINK, arrived)
    machine, subject = route(
        world, frame.msg, link=_LINK, session=_SESSION, key=_KEY, rights=("submit", "operate")
    )
    received = Received(message=frame.msg, link=_LINK, session=_SESSION, key=_KEY)
    return [*steps, *world.feed(machine, subject, received)]


def _ours(case: _Case, text: str) -> float:
    """Mean µs of a frame; the world is put back each time, outside the clock."""
    world = case.world
    machines = {name: dict(known) for name, known in world.machines.items()}
    before = [
        (instance, instance.state, instance.facts)
        for known in machines.values()
        for instance in known.values()
    ]
    spent = 0
    for _ in range(_FRAMES):
        begin = time.perf_counter_ns()
        steps = _take(world, text, case.direction)
        spent += time.perf_counter_ns() - begin
        assert tuple(step.row for step in steps) == case.rows
        assert all(step.effects for step in steps)
        for name, known in machines.items():
            world.machines[name] = dict(known)
        for instance, state, facts in before:
            instance.state, instance.facts = state, facts
            instance.armed.clear()
    return spent / _FRAMES / 1000


def _limit(text: str) -> float:
    """Mean µs of the least: parse, and let the engine find one row."""

    class Model:
        go: Callable[[], bool]

    model = Model()
    Machine(
        model,
        states=["off", "on"],
        initial="off",
        transitions=[["go", "off", "on"], ["go", "on", "off"]],
        auto_transitions=False,
    )
    begin = time.perf_counter_ns()
    for _ in range(_FRAMES):
        json.loads(text)
        model.go()
    return (time.perf_counter_ns() - begin) / _FRAMES / 1000
