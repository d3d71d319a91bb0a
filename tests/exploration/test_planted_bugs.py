"""Bugs that no table can show, planted into the real parts, each with the property that finds it.

A property holds without its bug, and fails with it: so it would be noticed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect, Owner
from fsm_worker.events import Received, Timer, TimerExpired
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.world import THE_WORKER, World
from fsm_worker.machines.worlds import worker_world
from fsm_worker.runtime import Runtime
from fsm_worker.seams import sessions as sessions_seam
from fsm_worker.seams.sessions import Sessions
from fsm_worker.services.job_coordinator import JobCoordinator
from fsm_worker.services.state_manager import StateManager
from protocol import messages as m
from protocol.codec import Frame
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, LinkState, SessionState, WorkerState
from protocol.table import MachineName
from tests.machines.puppet import Puppet, submission

M, W, J = MachineName, WorkerState, JobState
JOB = "job-aaaaaaaa"


# --- the real parts, joined -----------------------------------------------------------------------


class Played:
    """An owner whose effects are noted, and do nothing but what a test says."""

    def __init__(self, done: list[Effect]) -> None:
        self._done = done

    def __getattr__(self, name: str) -> Callable[[Effect], None]:
        return self._done.append


class Rig:
    """The real loop, sessions, coordinator and state manager over the real world of a worker."""

    def __init__(self, journal: Any = None, **overrides: float) -> None:
        self.world = worker_world()
        self.done: list[Effect] = []
        self.wire: list[tuple[str, Frame]] = []
        seconds = {Timer(name): value for name, value in overrides.items()}
        self.runtime = Runtime(self.world, journal, overrides=seconds)
        post = self.runtime.post
        self.sessions = Sessions(
            self.world, post, lambda link, frame: self.wire.append((link, frame)), name="w"
        )

        async def no_log(_session: str, _message: m.Message) -> None:
            """Nobody reads logs here."""

        coordinator = JobCoordinator(
            self.world, send=self.sessions.send, send_log=no_log,
            spawn=self.runtime.spawn, cancel=self.runtime.cancel, log_of=lambda _job: None,
            emit=post, unmet=lambda _need: (), journal=Path("no journal"),
        )  # fmt: skip
        state = StateManager(
            self.world, name="w", send=lambda _word: None, tell=self.sessions.send, emit=post
        )
        self.owners: dict[Owner, object] = {owner: Played(self.done) for owner in Owner}
        self.owners |= {
            Owner.SESSIONS: self.sessions,
            Owner.JOB_COORDINATOR: coordinator,
            Owner.STATE_MANAGER: state,
        }
        self.received: dict[str, int] = {}

    async def feed(self, *events: tuple[MachineName, str, e.Event]) -> None:
        """Runs the loop until these events, and everything that they lead to, are decided."""
        self.runtime.bind(self.owners)
        for event in events:
            self.runtime.post(*event)
        over = asyncio.Event()

        def last() -> None:
            over.set()

        self.runtime.post(M.WORKER, THE_WORKER, last)
        async with asyncio.timeout(5):
            await self.runtime.run(over.is_set)

    async def available(self) -> None:
        """The worker is up."""
        probed = e.ProbeSucceeded(capabilities=m.Capabilities())
        await self.feed((M.WORKER, THE_WORKER, e.Started()), (M.WORKER, THE_WORKER, probed))

    def link(self, link: str, key: str, session: str, generation: int = 1) -> list[Any]:
        """The events of a link, from its offer to its proof and the client's resume."""
        hello = m.Hello(versions=(1,), role="client", key=key, nonce="N", session=session,
                        generation=generation)  # fmt: skip
        resume = e.FrameArrived(message=m.Resume(received=0))
        return [
            (M.LINK, link, event)
            for event in (
                e.RecvOffer(peer="p", sdp="v=0", room_for_more=True),
                e.SentAnswer(),
                e.IceCompleted(),
                e.ControlOpened(native=True),
                Received(message=hello, link=link),
                Received(message=m.Proof(signature="S"), link=link),
                e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
                resume,
            )
        ]

    def says(self, link: str, session: str, message: m.Message, number: int = 0) -> Any:
        """A frame of a peer, made when its turn has come."""

        def arrived() -> e.Event:
            return e.FrameArrived(
                number=number, expected=self.sessions.expected(session), message=message
            )

        return M.LINK, link, arrived

    def heard(self, link: str) -> list[m.Message]:
        """What went out by a link."""
        return [frame.msg for to, frame in self.wire if to == link]


async def two_clients() -> Rig:
    """Alice, who has submitted a job, and bob."""
    rig = Rig()
    await rig.available()
    await rig.feed(*rig.link("l-a", "alice", "s-a"), *rig.link("l-b", "bob", "s-b"))
    await rig.feed(rig.says("l-a", "s-a", submission(JOB), 1))
    return rig


# --- properties -----------------------------------------------------------------------------------


async def a_late_callback_of_an_old_link_changes_nothing() -> None:
    p = Puppet("alice")
    p.start()
    old = p.connect("alice", "s-a", 1)
    new = p.connect("alice", "s-a", 2)
    for late in (e.PeerClosed(), e.ChannelClosed(), e.FrameArrived()):
        p.link(old, late)
    assert p.state(M.LINK, new) is LinkState.UP
    assert p.facts(M.SESSION, "s-a").link == new


async def what_is_over_is_forgotten() -> None:
    p = Puppet("alice")
    p.start()
    for generation in range(1, 5):
        p.connect("alice", "s-a", generation)
    assert len(p.world.machines[M.LINK]) == 1


async def nothing_that_is_forced_is_left_undone() -> None:
    p = Puppet("alice")
    p.start()
    link = p.connect("alice", "s-a")
    p.queue(link, JOB)  # the puppet looks for unrest after every event
    assert p.state(M.JOB, JOB) is J.PREPARING


async def an_old_timer_never_strikes_again() -> None:
    p = Puppet("alice")
    p.start()
    link = p.connect("alice", "s-a")
    serial = p.timers[M.LINK, link, Timer.QUIET]
    p.say(link, m.Ping(n=1))
    steps = p.link(link, TimerExpired(timer=Timer.QUIET, serial=serial))
    assert [step.verdict for step in steps] == [Verdict.STALE]
    assert p.state(M.LINK, link) is LinkState.UP


async def a_silent_client_is_let_go() -> None:
    rig = Rig(quiet=0.01, lost=0.01)
    await rig.available()
    await rig.feed(*rig.link("l-a", "alice", "s-a"))
    rig.runtime.bind(rig.owners)
    session = rig.world.machines[M.SESSION]["s-a"]
    quiet = TimerExpired(
        timer=Timer.QUIET, serial=rig.world.machines[M.LINK]["l-a"].armed[Timer.QUIET]
    )
    rig.runtime.post(M.LINK, "l-a", quiet)
    try:
        async with asyncio.timeout(1):
            await rig.runtime.run(lambda: session.state is SessionState.DETACHED)
    except TimeoutError:
        raise AssertionError("silence was not noticed") from None


async def only_armed_timers_run_out() -> None:
    rig = Rig(quiet=0.02, ping=5.0)
    await rig.available()
    rig.runtime.bind(rig.owners)
    over = asyncio.get_running_loop().create_future()
    for event in rig.link("l-a", "alice", "s-a"):
        rig.runtime.post(*event)
    rig.runtime.post(M.LINK, "l-a", Received(message=m.Bye(), link="l-a"))
    asyncio.get_running_loop().call_later(0.1, lambda: rig.runtime.post(
        M.WORKER, THE_WORKER, lambda: over.set_result(None)))  # fmt: skip
    async with asyncio.timeout(5):
        await rig.runtime.run(over.done)
    assert rig.runtime.counts[Verdict.STALE] == 0


async def every_effect_is_performed_once() -> None:
    rig = await two_clients()
    opened = [one for one in rig.done if isinstance(one, f.OpenJob)]
    assert len(opened) == 1
    assert len([said for said in rig.heard("l-a") if isinstance(said, m.JobSnapshot)]) == 1


async def a_reaction_comes_before_the_next_event_from_outside() -> None:
    rig = Rig()
    await rig.available()
    await rig.feed(*rig.link("l-a", "alice", "s-a"))
    ended: list[int] = []
    events = [rig.says("l-a", "s-a", submission(JOB), 1)]
    rig.runtime.bind(rig.owners)

    def look() -> None:
        ended.append(len(rig.world.all(M.JOB)))

    await rig.feed(*events, (M.WORKER, THE_WORKER, look))
    assert ended == [1], "what a frame says is decided before anything else"


async def an_effect_that_fails_is_heard_of() -> None:
    rig = Rig()

    def broken(_effect: Effect) -> None:
        raise OSError("no such device")

    rig.owners[Owner.CAPABILITIES] = SimpleNamespace(probe_host=broken)
    await rig.feed((M.WORKER, THE_WORKER, e.Started()))
    assert rig.world.machines[M.WORKER][THE_WORKER].state is W.DEGRADED


async def nothing_is_promised_before_it_is_written_down() -> None:
    order: list[str] = []

    class Disk:
        def keep(self, steps: Any) -> Awaitable[None] | None:
            if any(step.machine is M.JOB for step in steps):
                return self._write()
            return None

        async def _write(self) -> None:
            await asyncio.sleep(0)
            order.append("written")

    rig = Rig(journal=Disk())
    await rig.available()
    await rig.feed(*rig.link("l-a", "alice", "s-a"))
    seen = rig.sessions._wire
    rig.sessions._wire = lambda link, frame: (order.append("said"), seen(link, frame))[1]
    await rig.feed(rig.says("l-a", "s-a", submission(JOB), 1))
    assert order.index("written") < order.index("said")


async def nobody_hears_of_another_s_job() -> None:
    rig = await two_clients()
    await rig.feed(rig.says("l-a", "s-a", m.Cancel(job=JOB), 2))
    assert m.JobStateChanged in map(type, rig.heard("l-a"))
    assert not [said for said in rig.heard("l-b") if getattr(said, "job", "")]


async def another_s_job_can_not_be_touched() -> None:
    rig = await two_clients()
    await rig.feed(rig.says("l-b", "s-b", m.Cancel(job=JOB), 1))
    job = rig.world.get(M.JOB, JOB)
    assert job is not None
    assert job.state is J.STAGING
    answer: Any = rig.heard("l-b")[-1]
    assert answer.code is ErrorCode.UNKNOWN_JOB


async def an_answer_goes_to_the_asker() -> None:
    rig = await two_clients()
    await rig.feed(rig.says("l-b", "s-b", submission(JOB, wall_s=9.0), 1))
    codes = [said.code for said in rig.heard("l-b") if isinstance(said, m.Error)]
    assert codes == [ErrorCode.JOB_CONFLICT]
    assert not [said for said in rig.heard("l-a") if isinstance(said, m.Error)]


async def what_is_numbered_is_read_once() -> None:
    rig = Rig()
    await rig.available()
    await rig.feed(*rig.link("l-a", "alice", "s-a"))
    for _ in range(2):
        await rig.feed(rig.says("l-a", "s-a", m.JobsGet(), 1))
    assert [type(said) for said in rig.heard("l-a")].count(m.Jobs) == 1


async def what_was_not_acknowledged_comes_again() -> None:
    rig = await two_clients()
    await rig.feed((M.LINK, "l-a", e.PeerClosed()))
    await rig.feed(*rig.link("l-2", "alice", "s-a", 2))
    assert m.JobSnapshot in map(type, rig.heard("l-2"))


async def nothing_is_said_between_welcome_and_resume() -> None:
    rig = await two_clients()
    await rig.feed((M.LINK, "l-a", e.PeerClosed()))
    *link, resume = rig.link("l-2", "alice", "s-a", 2)
    await rig.feed(*link)
    rig.sessions.send("s-a", m.Jobs(jobs=()))
    assert [type(said) for said in rig.heard("l-2")] == [m.Welcome]
    await rig.feed(resume)
    numbers = [frame.seq for to, frame in rig.wire if to == "l-2" and frame.seq]
    assert numbers == sorted(set(numbers)), "each once, and in order"


# --- bugs -----------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def late_callback_hits_the_present_link(patch: pytest.MonkeyPatch) -> None:
    feed = World.feed

    def planted(self: World, name: MachineName, subject: str, event: e.Event) -> Any:
        links = self.machines[M.LINK]
        known = name is not M.LINK or subject in links or isinstance(event, e.RecvOffer)
        return feed(self, name, subject if known else next(iter(links), subject), event)

    patch.setattr(World, "feed", planted)


def ended_machines_are_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(World, "_put_away", lambda _self, _steps: None)


def couplings_are_applied_once(patch: pytest.MonkeyPatch) -> None:
    def planted(self: World, steps: list[Any]) -> None:
        for coupling in reversed(self.couplings):
            steps += [self._step(*forced) for forced in list(coupling.find(self))]

    patch.setattr(World, "_couple", planted)


def stale_serial_is_taken(patch: pytest.MonkeyPatch) -> None:
    step = Instance.step

    def planted(self: Any, event: e.Event) -> Any:
        if isinstance(event, TimerExpired) and event.timer in self.armed:
            event = TimerExpired(timer=event.timer, serial=self.armed[event.timer])
        return step(self, event)

    patch.setattr(Instance, "step", planted)


def timer_is_lost(patch: pytest.MonkeyPatch) -> None:
    start = Runtime._start_timer

    def planted(self: Runtime, effect: f.StartTimer) -> None:
        if effect.timer is not Timer.LOST:
            start(self, effect)

    patch.setattr(Runtime, "_start_timer", planted)


def timers_outlive_their_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Runtime, "_disarm", lambda _self, _step: None)


def effects_are_done_twice(patch: pytest.MonkeyPatch) -> None:
    perform = Runtime._perform

    def planted(self: Runtime, step: Any, effect: Effect) -> None:
        perform(self, step, effect)
        if not isinstance(effect, f.ReadMessage):
            perform(self, step, effect)

    patch.setattr(Runtime, "_perform", planted)


def reactions_queue_up(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Runtime, machine: MachineName, subject: str, event: Any) -> None:
        self._inbox.append((machine, subject, event))
        self._woken.set()

    patch.setattr(Runtime, "post", planted)


def failures_are_swallowed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Runtime, "_failed", lambda *_: None)


def effects_overtake_the_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Effect, "urgent", True)


def news_goes_to_everybody(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Any, _owner: str, message: m.Message) -> None:
        for session in self._world.live(M.SESSION):
            self._send(session.subject, message)

    patch.setattr(JobCoordinator, "_tell_owner", planted)


def rights_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    route = sessions_seam.route

    def planted(world: World, message: Any, *, key: str, **known: Any) -> Any:
        job = world.get(M.JOB, str(getattr(message, "job", "")))
        return route(world, message, key=job.facts.owner if job else key, **known)

    patch.setattr(sessions_seam, "route", planted)


def answers_go_to_the_owner(patch: pytest.MonkeyPatch) -> None:
    def planted(self: Any, effect: f.ReplyError) -> None:
        error = m.Error(code=effect.code, message=effect.sentence, about="", job=effect.subject)
        self.tell(effect.subject, error)

    patch.setattr(JobCoordinator, "reply_error", planted)


def numbers_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    read = Sessions.read_message

    def planted(self: Sessions, effect: f.ReadMessage) -> None:
        lane = self.lane(effect.facts.session)
        before = lane.received
        read(self, effect)
        lane.received = before

    patch.setattr(Sessions, "read_message", planted)


def sent_counts_as_delivered(patch: pytest.MonkeyPatch) -> None:
    write = Sessions._write

    def planted(self: Sessions, session: str, lane: Any, seq: int, message: m.Message) -> None:
        write(self, session, lane, seq, message)
        lane.outbox.pop(seq, None)

    patch.setattr(Sessions, "_write", planted)


def a_welcome_opens_the_lane(patch: pytest.MonkeyPatch) -> None:
    welcome = Sessions.send_welcome

    def planted(self: Sessions, effect: f.SendWelcome) -> None:
        welcome(self, effect)
        self.lane(effect.subject).ready = True

    patch.setattr(Sessions, "send_welcome", planted)


class Bug(NamedTuple):
    plant: Plant
    found_by: Callable[[], Awaitable[None]]


BUGS = (
    Bug(late_callback_hits_the_present_link, a_late_callback_of_an_old_link_changes_nothing),
    Bug(ended_machines_are_kept, what_is_over_is_forgotten),
    Bug(couplings_are_applied_once, nothing_that_is_forced_is_left_undone),
    Bug(stale_serial_is_taken, an_old_timer_never_strikes_again),
    Bug(timer_is_lost, a_silent_client_is_let_go),
    Bug(timers_outlive_their_state, only_armed_timers_run_out),
    Bug(effects_are_done_twice, every_effect_is_performed_once),
    Bug(reactions_queue_up, a_reaction_comes_before_the_next_event_from_outside),
    Bug(failures_are_swallowed, an_effect_that_fails_is_heard_of),
    Bug(effects_overtake_the_journal, nothing_is_promised_before_it_is_written_down),
    Bug(news_goes_to_everybody, nobody_hears_of_another_s_job),
    Bug(rights_are_not_checked, another_s_job_can_not_be_touched),
    Bug(answers_go_to_the_owner, an_answer_goes_to_the_asker),
    Bug(numbers_are_not_counted, what_is_numbered_is_read_once),
    Bug(sent_counts_as_delivered, what_was_not_acknowledged_comes_again),
    Bug(a_welcome_opens_the_lane, nothing_is_said_between_welcome_and_resume),
)
each = pytest.mark.parametrize("bug", BUGS, ids=[bug.plant.__name__ for bug in BUGS])


@each
async def test_without_the_bug_the_property_holds(bug: Bug) -> None:
    await bug.found_by()


@each
async def test_the_property_finds_the_bug(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError):
        await bug.found_by()
