"""Laws of what clients hear of jobs: it goes to their owner, in order, and fits into frames."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fsm_worker import effects as ef
from fsm_worker.events import Event, NeedChecked, NeedCheckFailed, ProcessExited, Received, Timer
from fsm_worker.facts import JobFacts, WorkerFacts
from fsm_worker.machines.engine import Instance
from fsm_worker.machines.worlds import worker_world
from fsm_worker.seams.channels import LinkGone
from fsm_worker.services import job_coordinator
from fsm_worker.services.job_coordinator import MOST_BYTES, JobCoordinator
from fsm_worker.services.log_stream import LogFeed
from protocol import messages as m
from protocol.codec import Frame, encode
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, ResultsState, SessionState, WorkerState
from protocol.table import MachineName
from tests.protocol.samples import PROBLEM, RESULTS, ROOT

PATIENCE = 10.0  # seconds after which a test gives up; no test waits for it to pass
JOB, OTHER = "job-00000001", "job-00000002"


class Desk:
    """One coordinator, the world it looks at, and everybody that it tells something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = worker_world()
        self.sent: list[tuple[str, m.Message]] = []
        self.lane: asyncio.Queue[tuple[str, m.Message]] = asyncio.Queue()
        self.emitted: list[tuple[MachineName, str, Event]] = []
        self.peers: list[tuple[str, m.Message]] = []
        self.gone: set[str] = set()
        self.broken: Exception | None = None  # what is here can't be looked at
        self.logs: dict[str, tuple[Path, LogFeed]] = {}
        self.tasks: dict[asyncio.Task[None], tuple[MachineName, str]] = {}
        self.coordinator = JobCoordinator(
            self.world,
            send=lambda *told: self.sent.append(told),
            send_log=self.send_log,
            spawn=self.spawn,
            cancel=self.cancel,
            log_of=self.logs.get,
            journal=folder / "steps.sqlite",
            emit=lambda *said: self.emitted.append(said),
            unmet=self._unmet,
            tell_peer=lambda *told: self.peers.append(told),
            durations={Timer.LEASE: 12.0},
        )

    async def send_log(self, session: str, message: m.Message) -> None:
        if session in self.gone:
            raise LinkGone("the session has no link")
        await self.lane.put((session, message))

    def _unmet(self, need: Mapping[str, str]) -> tuple[str, ...]:
        if self.broken is not None:
            raise self.broken
        return tuple(f"{name} is not met" for name in need)

    def spawn(self, address, work, name: str) -> None:
        task = asyncio.create_task(work(), name=f"{name} {address[1]}")
        self.tasks[task] = address

    def cancel(self, address, prefix: str) -> None:
        for task, owner in self.tasks.items():
            if owner == address and task.get_name().startswith(prefix):
                task.cancel()

    async def done(self) -> None:
        """All tasks end, and none of them failed."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self.tasks)

    def heard(self) -> list[tuple[str, m.Message]]:
        return [self.lane.get_nowait() for _ in range(self.lane.qsize())]

    async def hears(self) -> tuple[str, m.Message]:
        async with asyncio.timeout(PATIENCE):
            return await self.lane.get()

    def add(self, machine: MachineName, subject: str, state: Any, **facts: Any) -> None:
        """Puts a machine into the world."""
        table = self.world.tables[machine]
        instance = Instance(table, subject, table.facts(**facts))
        instance.state = state
        self.world.machines[machine][subject] = instance

    def session(self, session: str, key: str, state=SessionState.ATTACHED) -> None:
        self.add(MachineName.SESSION, session, state, key=key)

    def job(self, job: str, owner: str = "alice", state=JobState.RUNNING, **facts: Any) -> None:
        self.add(MachineName.JOB, job, state, owner=owner, **facts)

    def log(self, job: str = JOB, text: str = "") -> LogFeed:
        path, feed = self.folder / f"{job}.log", LogFeed()
        path.write_text(text)
        self.logs[job] = path, feed
        return feed

    def ask(self, kind, message: m.Message, subject: str = JOB, session: str = "s-1", **more):
        """A client's message comes, and the machine asks for this effect."""
        job = self.world.get(MachineName.JOB, subject)
        event = Received(message=message, link="l-1", session=session, key="alice")
        facts = job.facts if job is not None else JobFacts()
        after = job.state.value if job is not None else ""
        effect = kind(subject=subject, event=event, facts=facts, row="J5", before=after,
                      after=after, **more)  # fmt: skip
        getattr(self.coordinator, kind.method())(effect)

    def attach(self, job: str = JOB) -> m.JobSnapshot:
        self.ask(ef.SendSnapshot, m.Attach(job=job), job)
        return self.sent.pop()[1]

    def follow(self, job: str = JOB, offset: int = 0, session: str = "s-1") -> None:
        self.ask(ef.StreamLog, m.LogGet(job=job, offset=offset), job, session)


@pytest.fixture
async def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def clock(monkeypatch) -> Iterator[SimpleNamespace]:
    """A clock that goes a second further whenever somebody looks."""
    clock = SimpleNamespace(now=1000.0)

    def time() -> float:
        clock.now += 1.0
        return clock.now

    monkeypatch.setattr(job_coordinator, "time", SimpleNamespace(time=time))
    return clock


# --- states -----------------------------------------------------------------------------------


async def test_a_change_of_state_is_told_to_all_sessions_of_the_owner_and_nobody_else(desk) -> None:
    desk.session("s-1", "alice")
    desk.session("s-2", "bob")
    desk.session("s-3", "alice", SessionState.DETACHED)
    desk.session("s-4", "alice", SessionState.CLOSED)
    facts = JobFacts(
        owner="alice", outcome=Outcome.FAILED, problems=(PROBLEM,), stage=1, stages=2,
        results=RESULTS,
    )  # fmt: skip
    exited = ProcessExited(stage=1, ok=False, out_of_memory=False, reason="it ended with code 1")
    desk.coordinator.report_state(
        ef.ReportState(subject=JOB, event=exited, facts=facts, row="J34", before="running",
                       after="collecting")
    )  # fmt: skip
    change = m.JobStateChanged(
        job=JOB, before=JobState.RUNNING, state=JobState.COLLECTING, row="J34",
        event="process_exited", outcome=Outcome.FAILED, problems=(PROBLEM,), stage=1, stages=2,
        results=RESULTS,
    )  # fmt: skip
    assert desk.sent == [("s-1", change), ("s-3", change)]


async def test_progress_goes_to_the_owner_of_a_job_that_is_there(desk) -> None:
    desk.session("s-1", "alice")
    desk.session("s-2", "bob")
    desk.job(JOB, "bob")
    for job in (JOB, OTHER):
        desk.coordinator.tell(job, m.Telemetry(job=job))
    assert desk.sent == [("s-2", m.Telemetry(job=JOB))]


async def test_a_refusal_of_the_machine_names_message_job_and_row(desk) -> None:
    desk.job(JOB)
    desk.ask(ef.ReplyError, m.Cancel(job=JOB), code=ErrorCode.IN_PROGRESS, sentence="wait")
    error = m.Error(
        code=ErrorCode.IN_PROGRESS, message="wait", about="cancel", job=JOB, row="J5"
    )  # fmt: skip
    assert desk.sent == [("s-1", error)]


# --- snapshots --------------------------------------------------------------------------------


async def test_a_snapshot_says_everything_about_a_job(desk, clock) -> None:
    desk.session("s-2", "alice")
    desk.job(
        JOB, state=JobState.DONE, name="digits", outcome=Outcome.SUCCEEDED, problems=(PROBLEM,),
        stage=1, stages=2, results=m.ResultsInfo(size=7, root=ROOT, files=3),
    )  # fmt: skip
    desk.add(MachineName.RESULTS, JOB, ResultsState.HELD)
    desk.log(text="epoch 1\n")
    desk.ask(ef.SendSnapshot, m.Attach(job=JOB), session="s-2")
    snapshot = m.JobSnapshot(
        job=JOB, name="digits", state=JobState.DONE, outcome=Outcome.SUCCEEDED,
        problems=(PROBLEM,), stage=1, stages=2, log_bytes=8,
        results=m.ResultsInfo(state=ResultsState.HELD, size=7, root=ROOT, files=3),
        submitted_at=1001.0,
    )  # fmt: skip
    assert desk.sent == [("s-2", snapshot)]


async def test_a_job_without_log_or_results_has_none_in_its_snapshot(desk) -> None:
    desk.job(JOB, state=JobState.REJECTED)
    desk.logs[JOB] = desk.folder / "never made", LogFeed()
    snapshots = [desk.attach()]
    del desk.logs[JOB]
    snapshots.append(desk.attach())
    for snapshot in snapshots:
        assert (snapshot.log_bytes, snapshot.results) == (0, m.ResultsInfo())


async def test_a_job_was_submitted_when_it_was_first_told_of(desk, clock) -> None:
    for job in (JOB, OTHER):
        desk.job(job)
    times = [desk.attach(job).submitted_at for job in (JOB, OTHER, JOB, OTHER)]
    assert times == [1001.0, 1002.0, 1001.0, 1002.0]


async def test_jobs_are_listed_by_submission_and_never_those_of_others(desk, clock) -> None:
    submitted = ["job-0000000c", "job-0000000a", "job-0000000d", "job-0000000b"]
    for job in sorted(submitted):  # the world has them in another order
        desk.job(job, "bob" if job.endswith("d") else "alice")
    for job in submitted:
        desk.attach(job)
    desk.ask(ef.SendJobs, m.JobsGet(), "s-1")
    [(session, jobs)] = desk.sent
    assert session == "s-1"
    assert [job.job for job in jobs.jobs] == ["job-0000000c", "job-0000000a", "job-0000000b"]
    assert [job.submitted_at for job in jobs.jobs] == [1001.0, 1002.0, 1004.0]


async def test_of_more_jobs_than_fit_the_newest_are_listed(desk, clock) -> None:
    ids = [f"job-{number:08}" for number in range(300)]
    for job in ids:
        desk.job(job, name="n" * 300)
        size = len(encode(Frame(msg=desk.attach(job))))
    desk.ask(ef.SendJobs, m.JobsGet(), "s-1")
    [(_, answer)] = desk.sent
    kept = [job.job for job in answer.jobs]
    assert kept == ids[-len(kept) :]
    frame = len(encode(Frame(msg=answer)))  # which raises if it does not fit
    assert MOST_BYTES - 2 * size < frame <= MOST_BYTES + 1024


# --- logs -------------------------------------------------------------------------------------


async def test_a_log_is_sent_from_the_offset_and_followed_to_its_end(desk) -> None:
    desk.job(JOB)
    feed = desk.log(text="epoch 1\nepoch 2\n")
    desk.follow(offset=8)
    assert await desk.hears() == ("s-1", m.Log(job=JOB, offset=8, next=16, text="epoch 2\n"))
    path, _ = desk.logs[JOB]
    with path.open("a") as file:
        file.write("done\n")
    feed.grew()
    assert await desk.hears() == ("s-1", m.Log(job=JOB, offset=16, next=21, text="done\n"))
    feed.close()
    await desk.done()
    assert desk.heard() == [("s-1", m.LogEnd(job=JOB, size=21))]
    assert desk.sent == []


@pytest.mark.parametrize("offset", [0, 5])
async def test_the_log_of_a_job_that_never_had_one_has_ended(desk, offset) -> None:
    desk.job(JOB, state=JobState.REJECTED)
    desk.follow(offset=offset)
    await desk.done()
    assert desk.heard() == [("s-1", m.LogEnd(job=JOB, size=0))]


async def test_an_offset_beyond_the_log_is_answered_with_a_typed_error(desk) -> None:
    desk.job(JOB)
    desk.log(text="epoch 1\n")
    desk.follow(offset=9)
    await desk.done()
    [(session, error)] = desk.sent
    assert (session, error.code) == ("s-1", ErrorCode.MALFORMED)
    assert (error.about, error.job) == ("log_get", JOB)
    assert "read it from 0" in error.message
    assert desk.heard() == []


async def test_asking_for_a_log_again_replaces_that_stream_and_no_other(desk) -> None:
    for job in (JOB, OTHER):
        desk.job(job)
        desk.log(job, "epoch 1\n")
    desk.follow()
    whole = m.Log(job=JOB, offset=0, next=8, text="epoch 1\n")
    assert await desk.hears() == ("s-1", whole)  # the stream waits for more
    for ask in ((OTHER,), (JOB, 0, "s-2"), (JOB, 6)):
        desk.follow(*ask)
    first, *others = desk.tasks
    await asyncio.wait([first], timeout=PATIENCE)
    assert first.cancelled()
    for _, feed in desk.logs.values():
        feed.close()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*others)
    heard = desk.heard()
    ends = [(session, message.job) for session, message in heard if isinstance(message, m.LogEnd)]
    assert sorted(ends) == [("s-1", JOB), ("s-1", OTHER), ("s-2", JOB)]
    assert ("s-1", m.Log(job=JOB, offset=6, next=8, text="1\n")) in heard
    assert ("s-2", whole) in heard
    assert ("s-1", whole) not in heard


@pytest.mark.parametrize("has_log", [False, True])
async def test_a_reader_that_has_gone_ends_its_stream_without_a_word(desk, has_log) -> None:
    desk.job(JOB)
    if has_log:
        desk.log(text="epoch 1\n")
    desk.gone.add("s-1")
    desk.follow()
    await desk.done()
    assert (desk.sent, desk.heard()) == ([], [])


# --- reservations ---------------------------------------------------------------------------------


def perform(desk: Desk, kind, event: Event, after: str = "reserved", **more: Any) -> None:
    facts = more.pop("facts", WorkerFacts(holder="alice"))
    effect = kind(subject="worker", event=event, facts=facts, row="W39", before="available",
                  after=after, **more)  # fmt: skip
    getattr(desk.coordinator, kind.method())(effect)


async def test_what_is_needed_is_compared_for_each_asker(desk: Desk) -> None:
    for session, need in (("s-1", {}), ("s-2", {"vram": "80GiB"})):
        event = Received(message=m.Reserve(need=need), session=session, key="alice")
        perform(desk, ef.CheckNeed, event, "available")
    await desk.done()
    assert {checked.session: checked.unmet for _, _, checked in desk.emitted} == {
        "s-1": (),
        "s-2": ("vram is not met",),
    }
    assert {where[:2] for where in desk.emitted} == {(MachineName.WORKER, "worker")}


async def test_an_asker_whose_need_can_not_be_compared_is_answered_all_the_same(
    desk: Desk,
) -> None:
    desk.broken = OSError(5, "Input/output error", "/sys/class")
    event = Received(message=m.Reserve(), session="s-1", key="alice")
    perform(desk, ef.CheckNeed, event, "available")
    await desk.done()
    [(machine, _, failed)] = desk.emitted
    assert (machine, failed) == (
        MachineName.WORKER, NeedCheckFailed(key="alice", session="s-1"),
    )  # fmt: skip
    perform(desk, ef.RefuseReservation, failed, "available", code=ErrorCode.INTERNAL,
            sentence="ask again")  # fmt: skip
    assert desk.sent == [
        ("s-1", m.ReserveRefused(code=ErrorCode.INTERNAL, reasons=("ask again",),
                                 state=WorkerState.AVAILABLE)),
    ]  # fmt: skip


def test_the_asker_hears_how_long_the_slot_is_kept_or_all_that_stands_against_it(
    desk: Desk,
) -> None:
    asked = NeedChecked(key="alice", session="s-1", unmet=())
    perform(desk, ef.GrantReservation, asked, facts=WorkerFacts(holder="alice", renewals=1))
    perform(desk, ef.RefuseReservation, asked, "busy", code=ErrorCode.WORKER_BUSY, sentence="later")
    lacking = NeedChecked(key="alice", session="s-1", unmet=("no vram", "no runner"))
    perform(desk, ef.RefuseReservation, lacking, "busy", code=ErrorCode.NEED_UNMET, sentence="")
    busy = WorkerState.BUSY
    assert desk.sent == [
        ("s-1", m.Reserved(seconds=12.0, renewals=2)),
        ("s-1", m.ReserveRefused(code=ErrorCode.WORKER_BUSY, reasons=("later",), state=busy)),
        ("s-1", m.ReserveRefused(code=ErrorCode.NEED_UNMET,
                                 reasons=("no vram", "no runner"), state=busy)),
    ]  # fmt: skip


def test_a_holder_hears_of_the_end_wherever_it_is(desk: Desk) -> None:
    desk.session("s-1", "alice")
    desk.session("s-2", "bob")
    release = Received(message=m.Release(), session="s-1", key="alice")
    perform(desk, ef.ConfirmRelease, release, "available")
    perform(desk, ef.EndReservation, release, "available",
            code=ErrorCode.RESERVATION_EXPIRED, sentence="too late")  # fmt: skip
    over = m.ReservationOver(code=ErrorCode.RESERVATION_EXPIRED, reason="too late")
    assert desk.sent == [("s-1", m.Released()), ("s-1", over)]
    assert desk.peers == [("alice", over)]
