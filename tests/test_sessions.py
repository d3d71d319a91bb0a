"""Laws of sessions: what is numbered arrives once and in order, however links come and go."""

import contextlib
from typing import Any

import pytest
from msgspec import structs

from fsm_worker import effects as ef
from fsm_worker import events as ev
from fsm_worker.machines.engine import Instance, Step, Verdict
from fsm_worker.machines.world import World
from fsm_worker.machines.worlds import client_world, worker_world
from fsm_worker.seams import sessions as seam
from fsm_worker.seams.sessions import NEWEST, Sessions
from protocol import messages as m
from protocol.codec import MAX_FRAME, Frame, decode, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import SessionState, WorkerState
from protocol.table import Direction, MachineName
from tests.protocol import samples

S = "s-1"
JOB = samples.JOB
STATUS = m.WorkerStatus(name="gpu-3", state=WorkerState.BUSY)


def ended(job: str) -> m.LogEnd:
    return m.LogEnd(job=job, size=1)


def snapshot(name: str = "digits") -> m.JobSnapshot:
    return structs.replace(samples.SNAPSHOT, name=name)


def filling(number: int) -> m.JobSnapshot:
    """A message that fills a frame, if the frame acknowledges nothing."""
    return snapshot("x" * (MAX_FRAME - len(encode(Frame(seq=number, msg=snapshot(""))))))


class Side:
    """One side of sessions, and what it wrote and told."""

    def __init__(self, world: World, direction: Direction) -> None:
        self.world = world
        self.wire: list[tuple[str, str]] = []
        self.emitted: list[tuple[MachineName, str, ev.Event]] = []
        self.delivered: list[m.Message] = []
        self.direction = direction
        self.sessions = Sessions(
            world,
            lambda *told: self.emitted.append(told),
            lambda link, frame: self.wire.append((link, encode(frame))),
            name="gpu-3",
            deliver=self.delivered.append,
        )

    def attach(self, session: str = S, link: str = "l-1", **facts: Any) -> Instance[Any, Any]:
        """Puts a session's machine there, with a link."""
        table = self.world.tables[MachineName.SESSION]
        instance = Instance(table, session, table.facts(link=link, key="alice", **facts))
        instance.state = SessionState.ATTACHED
        self.world.machines[MachineName.SESSION][session] = instance
        return instance

    def begin(self, session: str = S, link: str = "l-1") -> None:
        """A session whose first link is up, and both sides know that."""
        self.attach(session, link)
        self.welcome(session)
        self.resume(0, session)
        self.wire.clear()

    def effect(self, kind: type[ef.Effect], session: str = S, event: Any = None) -> ef.Effect:
        instance = self.world.get(MachineName.SESSION, session)
        facts = instance.facts if instance is not None else None
        event = event if event is not None else ev.Started()
        return kind(subject=session, event=event, facts=facts, row="N1", before="a", after="b")

    def welcome(self, session: str = S) -> None:
        self.sessions.send_welcome(self.effect(ef.SendWelcome, session))

    def resume(self, received: int, session: str = S) -> None:
        event = ev.Received(message=m.Resume(received=received), session=session)
        self.sessions.replay(self.effect(ef.Replay, session, event))

    def read(self, message: m.Message | None, number: int = 0, key: str = "alice") -> None:
        """A frame arrives by the link of the session."""
        table = self.world.tables[MachineName.LINK]
        facts = table.facts(session=S, key=key)
        event = ev.FrameArrived(number=number, message=message)
        effect = ef.ReadMessage(
            subject="l-1", event=event, facts=facts, row="L26", before="up", after="up"
        )
        self.sessions.read_message(effect)

    def written(self, link: str = "l-1") -> list[tuple[int, m.Message]]:
        """Numbers and messages of what went out by a link since this was asked last."""
        mine = [decode(text, self.direction) for to, text in self.wire if to == link]
        self.wire = [sent for sent in self.wire if sent[0] != link]
        return [(frame.seq, frame.msg) for frame in mine]


@pytest.fixture
def worker() -> Side:
    return Side(worker_world(), Direction.TO_CLIENT)


@pytest.fixture
def client() -> Side:
    return Side(client_world(), Direction.TO_WORKER)


# --- numbers ----------------------------------------------------------------------------------


def test_what_must_arrive_is_counted_from_one_in_each_session(worker) -> None:
    worker.begin()
    worker.begin("s-2", "l-2")
    for message in (snapshot("a"), STATUS, snapshot("b")):
        worker.sessions.send(S, message)
    worker.sessions.send("s-2", snapshot("c"))
    assert worker.written() == [(1, snapshot("a")), (0, STATUS), (2, snapshot("b"))]
    assert worker.written("l-2") == [(1, snapshot("c"))]


def test_every_frame_says_what_has_arrived(worker) -> None:
    worker.begin()
    assert worker.sessions.expected(S) == 1
    worker.read(m.WorkerGet(), number=41)
    worker.sessions.send(S, snapshot())
    [(_, text)] = worker.wire
    assert decode(text, Direction.TO_CLIENT).ack == 41
    assert (worker.sessions.expected(S), worker.sessions.expected("s-2")) == (42, 1)


def test_what_is_acknowledged_is_not_sent_again(worker) -> None:
    worker.begin()
    for name in "abc":
        worker.sessions.send(S, snapshot(name))
    worker.sessions.acknowledged(S, 2)
    worker.sessions.acknowledged(S, 1)  # late
    worker.written()
    worker.resume(0)
    assert worker.written() == [(3, snapshot("c"))]


def test_a_number_above_what_was_ever_sent_acknowledges_nothing(worker) -> None:
    worker.begin()
    worker.sessions.send(S, snapshot())
    worker.written()
    worker.sessions.acknowledged(S, 2)
    worker.sessions.acknowledged("s-2", 1)  # nor does one of a session that is not there
    worker.resume(0)
    assert worker.written() == [(1, snapshot())]


def test_a_client_that_has_more_than_was_ever_sent_is_of_a_session_that_we_forgot(worker) -> None:
    worker.begin()
    worker.sessions.send(S, snapshot())
    worker.written()
    worker.resume(2)
    assert worker.written() == []
    assert worker.emitted[-1] == (MachineName.SESSION, S, ev.OutOfStep())


# --- links come and go ------------------------------------------------------------------------


def test_nothing_is_written_before_both_sides_know_what_the_other_has(worker) -> None:
    worker.attach()
    worker.sessions.send(S, snapshot("a"))
    worker.sessions.send(S, STATUS)
    assert worker.wire == []
    worker.welcome()
    worker.sessions.send(S, snapshot("b"))
    welcome = m.Welcome(session=S, received=0, rights=(), worker="gpu-3")
    assert worker.written() == [(0, welcome)]
    worker.resume(0)
    assert worker.written() == [(1, snapshot("a")), (2, snapshot("b")), (0, STATUS)]
    worker.sessions.send(S, snapshot("c"))
    assert worker.written() == [(3, snapshot("c"))]


def test_a_new_link_gets_the_rest_in_order_and_nothing_twice(worker) -> None:
    worker.begin()
    worker.read(None, number=9)
    for name in "abc":
        worker.sessions.send(S, snapshot(name))
    session = worker.attach(link="")  # it is lost, and the machine says so
    session.state = SessionState.DETACHED
    worker.sessions.send(S, snapshot("d"))
    worker.sessions.send(S, STATUS)
    worker.sessions.send(S, ended(JOB))  # belongs to a link: it is read again by offset
    worker.attach(link="l-2")
    worker.welcome()
    worker.sessions.send(S, snapshot("e"))
    [(_, welcome)] = worker.written("l-2")
    assert welcome.received == 9
    worker.resume(1)
    later = [(2, "b"), (3, "c"), (4, "d"), (5, "e")]
    assert worker.written("l-2") == [
        *((number, snapshot(name)) for number, name in later),
        (0, STATUS),
    ]
    assert [number for number, _ in worker.written("l-1")] == [1, 2, 3]


def test_of_what_replaces_itself_a_new_link_gets_the_newest_of_each_job(worker) -> None:
    worker.begin()
    for number in (*range(NEWEST), 0, NEWEST):
        worker.sessions.send(S, m.Telemetry(job=f"job-{number:08}", memory_mb=number))
        worker.sessions.send(S, m.Telemetry(job=f"job-{number:08}", memory_mb=number + 1))
    worker.written()
    worker.resume(0)
    got = [message.memory_mb for _, message in worker.written()]
    assert got == [*range(3, NEWEST + 1), 1, NEWEST + 1]  # of job 0 there is news, of job 1 none


def test_of_the_worker_a_new_link_hears_once_how_it_is_whatever_jobs_it_had(worker) -> None:
    worker.begin()
    for job in ("", JOB, ""):
        worker.sessions.send(S, structs.replace(STATUS, job=job))
    worker.written()
    worker.resume(0)
    assert worker.written() == [(0, STATUS)]


@pytest.mark.parametrize("how", ["closed", "gone"])
def test_a_session_that_is_over_is_not_written_to(worker, how) -> None:
    worker.begin()
    worker.sessions.send(S, snapshot())
    if how == "gone":
        del worker.world.machines[MachineName.SESSION][S]
    else:
        worker.world.get(MachineName.SESSION, S).state = SessionState.CLOSED
    worker.written()
    worker.sessions.send(S, snapshot())
    worker.sessions.send(S, STATUS)
    assert (worker.wire, worker.emitted) == ([], [])
    assert worker.sessions.lane(S).sent == 1


def test_a_session_that_is_forgotten_leaves_nothing_behind(worker) -> None:
    worker.begin()
    worker.read(None, number=3)
    worker.sessions.send(S, snapshot())
    worker.sessions.forget_session(worker.effect(ef.ForgetSession))
    worker.begin()
    worker.sessions.send(S, snapshot("new"))
    assert worker.written() == [(1, snapshot("new"))]
    assert worker.sessions.expected(S) == 1


# --- bounds -----------------------------------------------------------------------------------


def test_a_session_that_has_more_waiting_than_is_kept_is_told_so(worker, monkeypatch) -> None:
    worker.begin()
    size = len(encode(Frame(seq=1, msg=snapshot())))
    monkeypatch.setattr(seam, "OUTBOX", 2 * size + size // 2)
    for _ in range(2):
        worker.sessions.send(S, snapshot())
    assert worker.emitted == []
    worker.sessions.acknowledged(S, 1)
    worker.sessions.send(S, snapshot())
    assert worker.emitted == []
    worker.sessions.send(S, snapshot())
    assert worker.emitted == [(MachineName.SESSION, S, ev.OutboxFilled())]


def test_what_is_too_large_is_neither_numbered_nor_kept(worker) -> None:
    worker.begin()
    worker.sessions.send(S, snapshot("a"))
    with pytest.raises(ProtocolError) as refused:
        worker.sessions.send(S, snapshot("x" * MAX_FRAME))
    assert refused.value.code is ErrorCode.TOO_LARGE
    worker.sessions.send(S, snapshot("b"))
    both = [(1, snapshot("a")), (2, snapshot("b"))]
    assert worker.written() == both
    worker.resume(0)
    assert worker.written() == both


@pytest.mark.parametrize("received", [0, 99_999])
def test_what_fits_only_until_more_arrives_does_not_block_the_session(worker, received) -> None:
    worker.begin()
    worker.read(None, number=received)
    worker.sessions.send(S, snapshot("a"))
    with contextlib.suppress(ProtocolError):  # it may be taken or not, but not half
        worker.sessions.send(S, filling(number=2))
    worker.read(None, number=123_456)  # every frame names this number from now on
    worker.sessions.send(S, snapshot("b"))
    worker.written()
    worker.resume(1)
    assert worker.written()[-1][1] == snapshot("b")


@pytest.mark.parametrize("before_the_resume", [False, True])
def test_a_newest_that_is_too_large_does_not_block_the_session(worker, before_the_resume) -> None:
    worker.begin()
    if before_the_resume:
        worker.welcome()
    with pytest.raises(ProtocolError) as refused:
        worker.sessions.send(S, m.WorkerStatus(name="x" * MAX_FRAME, state=WorkerState.BUSY))
    assert refused.value.code is ErrorCode.TOO_LARGE
    worker.sessions.send(S, m.Telemetry(job=JOB))
    worker.written()
    worker.resume(0)
    assert worker.written() == [(0, m.Telemetry(job=JOB))]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "about"),
    [
        (m.Stop(job=JOB), {"about": "stop", "job": JOB}),
        (m.FileNeed(transfer=7, ranges=()), {"about": "file_need", "transfer": 7}),
        (m.JobsGet(), {"about": "jobs_get"}),
    ],
)
def test_a_refusal_names_what_was_refused(worker, message, about) -> None:
    worker.begin()
    refusal = ProtocolError(ErrorCode.NOT_ALLOWED, "ask later")
    worker.sessions.refuse(S, message, refusal, row="J55")
    error = m.Error(code=ErrorCode.NOT_ALLOWED, message="ask later", row="J55", **about)
    assert worker.written() == [(1, error)]


def test_a_message_goes_to_its_machine_with_who_sent_it(worker) -> None:
    worker.begin()
    table = worker.world.tables[MachineName.JOB]
    for job, owner in (("job-00000001", "alice"), ("job-00000002", "bob")):
        theirs = Instance(table, job, table.facts(owner=owner))
        worker.world.machines[MachineName.JOB][job] = theirs
    worker.read(m.Stop(job="job-00000001"), number=1)
    received = ev.Received(
        message=m.Stop(job="job-00000001"), link="l-1", session=S, key="alice", alive=1
    )
    assert worker.emitted == [(MachineName.JOB, "job-00000001", received)]
    worker.emitted.clear()
    worker.read(m.Stop(job="job-00000002"), number=2)  # of another key
    worker.read(m.Drain(), number=3)  # of no operator
    worker.read(m.FileNeed(transfer=1, ranges=()), number=4)
    worker.read(None)
    assert worker.emitted == []
    assert [(message.code, message.about) for _, message in worker.written()] == [
        (ErrorCode.UNKNOWN_JOB, "stop"),
        (ErrorCode.NOT_AUTHORISED, "drain"),
        (ErrorCode.UNKNOWN_TRANSFER, "file_need"),
    ]
    assert worker.sessions.expected(S) == 5


@pytest.mark.parametrize(
    ("verdict", "event", "code"),
    [
        (Verdict.ILLEGAL, ev.Received(message=m.Stop(job=JOB), session=S), ErrorCode.NOT_ALLOWED),
        (Verdict.STALE, ev.Received(message=m.Stop(job=JOB), session=S), ErrorCode.UNKNOWN_JOB),
        (Verdict.IGNORED, ev.Received(message=m.Stop(job=JOB), session=S), None),
        (Verdict.ROW, ev.Received(message=m.Stop(job=JOB), session=S), None),
        (Verdict.ILLEGAL, ev.Received(message=m.Stop(job=JOB)), None),
        (Verdict.ILLEGAL, ev.Started(), None),
    ],
)
def test_who_sent_a_message_that_was_not_taken_hears_why(worker, verdict, event, code) -> None:
    worker.begin()
    step = Step(MachineName.JOB, JOB, event, verdict, "", "done", "done", None, (), "it is done")
    worker.sessions.answer_refusals(step)
    error = m.Error(code=code, message="it is done", about="stop", job=JOB) if code else None
    assert worker.written() == ([(1, error)] if code else [])


# --- a client ---------------------------------------------------------------------------------


def test_a_client_says_what_it_has_and_then_sends_its_own_again(client) -> None:
    client.attach()
    client.sessions.send(S, m.WorkerGet())
    client.sessions.send(S, m.JobsGet())
    client.read(None, number=17)
    welcome = m.Welcome(session=S, received=1, rights=(), worker="gpu-3")
    event = ev.Received(message=welcome, session=S)
    client.sessions.send_resume(client.effect(ef.SendResume, event=event))
    assert client.written() == [(0, m.Resume(received=17)), (2, m.JobsGet())]


def test_a_client_holds_everything_on_a_new_link_until_it_is_welcomed(client) -> None:
    client.begin()
    client.attach(link="l-2")
    client.sessions.hold_outbox(client.effect(ef.HoldOutbox))
    client.sessions.send(S, m.JobsGet())
    assert client.wire == []


def test_a_client_dials_its_worker_with_the_generation_that_the_machine_says(client) -> None:
    client.attach(dialled=4)
    for _ in range(2):
        client.sessions.dial(client.effect(ef.Dial))
    events = {(machine, event) for machine, _, event in client.emitted}
    assert events == {(MachineName.LINK, ev.DialRequested(peer="gpu-3", session=S, generation=4))}
    assert len({subject for _, subject, _ in client.emitted}) == 2


def test_a_client_s_program_gets_what_its_session_delivers(client) -> None:
    client.attach()
    event = ev.Received(message=snapshot(), session=S)
    client.sessions.deliver(client.effect(ef.Deliver, event=event))
    assert client.delivered == [snapshot()]
