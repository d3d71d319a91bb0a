"""Any sequence of what peers, managers, timers and processes can do keeps the worker's laws.

Hypothesis drives the real world, tables, codec and routing. A plain model holds the truth beside
them: who submitted what, which processes are alive, which outcome was told. What is to be
chosen is chosen by number from what is there, so every rule means something in every state.
"""

import os
from typing import Any

from hypothesis import event as note
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Event, Timer
from fsm_worker.machines.engine import Verdict
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from protocol import messages as m
from protocol.errors import ErrorCode
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
    TalkState,
    WorkerState,
)
from protocol.table import MachineName
from tests.machines.puppet import SIZE, Puppet, submission
from tests.protocol.samples import ROOT

M, W, J = MachineName, WorkerState, JobState
Address = tuple[MachineName, str]

KEYS = ("alice", "bob", "stranger")  # all may come in; the stranger submits nothing
JOBS = ("job-aaaaaaaa", "job-bbbbbbbb", "job-cccccccc")
SHARED_JOB = JOBS[2]  # its files lie in the shared storage
ON_GPU = {J.PREPARING, J.RUNNING, J.STOPPING, J.CANCELLING, J.KILLING}
UP = {LinkState.UP, LinkState.SUSPECT}
ENDED = {J.DONE, J.REJECTED}
WRONG = "0" * 64

#: In these states a machine waits for nobody; in every other one a timer or a task is alive.
RESTS: set[tuple[MachineName, Any]] = {
    *((M.WORKER, state) for state in (W.AVAILABLE, W.BUSY, W.DRAINING, W.MAINTENANCE, W.STOPPED)),
    (M.SESSION, SessionState.ATTACHED),
    *((M.JOB, state) for state in ENDED),
    (M.RESULTS, ResultsState.NONE),
    (M.RESULTS, ResultsState.EXPIRED),
    (M.RESULTS, ResultsState.SHARED),
    (M.SIGNALLING, SignallingState.DOWN),
    (M.SIGNALLING, SignallingState.REFUSED),
    (M.RECEIVING, ReceivingState.SUSPENDED),  # its session has a timer
    *((M.SENDING, state) for state in SendingState),  # its results have a timer
    # its link has a timer, and its job and its results end by themselves
    *((M.GUEST, state) for state in GuestState),
    (M.TALK, TalkState.WORKING),  # its job ends
}

#: Here a task is waited for; everywhere else a timer, for what has no timer may never come.
BY_TASK: dict[tuple[MachineName, Any], type[Effect]] = {
    (M.JOB, J.RUNNING): f.StartStage,
    (M.RECEIVING, ReceivingState.VERIFYING): f.VerifyIncoming,
    (M.GUEST, GuestState.CHECKING): f.CheckPackage,
    (M.GUEST, GuestState.HANDING): f.HandOver,
}
#: What a client of sleap-rtc says, and what its guest is told.
TO_GUESTS = (
    e.PackageNamed(kind="track"),
    e.FolderNamed(folder="models"),
    e.PackageAnnounced(name="digits.zip", size=SIZE, gui=True),
    e.PackageAnnounced(name="digits.zip", size=SIZE, gui=False, reason="the disk is full"),
    e.PackageEnded(),
    e.StopAsked(),
    e.CancelAsked(),
    e.PackageWanted(ranges=((0, SIZE),)),
    e.PackageTaken(),
    e.JobTold(state=JobState.RUNNING),
    e.JobTold(state=JobState.DONE, outcome=Outcome.SUCCEEDED, results=m.ResultsInfo(root=ROOT)),
    e.JobTold(state=JobState.REJECTED, outcome=Outcome.REJECTED),
    e.LogOver(),
    e.ResultsOffered(transfer=1, size=SIZE, root=ROOT),
    e.ChunksCompleted(),
    e.ResultsLost(reason="expired"),
    e.SharedJobNamed(label="j-1"),
    e.InputNamed(path="in"),
    e.OutputNamed(path="out"),
    e.PathRefused(reason="it is absolute"),
    e.SharedJobAsked(job="job-of-a-guest"),
)

some = st.integers(0, 999)
who = st.sampled_from(KEYS)
job_ids = st.sampled_from(JOBS)
which = st.integers(0, 5)  # a job; every other time the one on the slot, if there is one

settings.register_profile(
    "ordinary", derandomize=True, deadline=None, database=None, max_examples=350,
    stateful_step_count=50, report_multiple_bugs=False,
)  # fmt: skip
settings.register_profile(
    "deep", deadline=None, max_examples=3000, stateful_step_count=120, print_blob=True
)


#: Trouble comes in every third step only, so that jobs get far enough to be troubled.
now_and_then = precondition(lambda self: self.turn % 3 == 0)


def results(*, shared: bool) -> m.ResultsInfo:
    if shared:
        return m.ResultsInfo(
            state=ResultsState.SHARED, size=SIZE, files=2, folder="out", manifest=ROOT
        )
    return m.ResultsInfo(state=ResultsState.HELD, size=SIZE, root=ROOT, files=2)


class WorkerMachine(RuleBasedStateMachine):
    """Two clients, a stranger, a signaling server, managers and processes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.p = Puppet(*KEYS, operators={"alice"})
        self.generations: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.transfers = 0
        self.turn = 0
        self.requests = 0  # to end, of the operator
        # the truth
        self.submitted: dict[str, tuple[str, float]] = {}  # owner and content of accepted jobs
        self.alive: dict[str, bool] = {}  # jobs with a process, and whether it can be killed
        self.outcomes: dict[str, Outcome] = {}
        self.ended: dict[Address, Any] = {}  # machines that had ended, and their facts
        self.gone: set[Address] = set()  # links that were forgotten
        self.confirmed: set[str] = set()  # jobs whose results a client has stored
        self.read = 0  # words told that were checked
        self.history: list[tuple[MachineName, str, Event]] = []  # answers that were given

    # --- choosing --------------------------------------------------------------------------------

    def links(self, *, up: bool) -> list[str]:
        return [link.subject for link in self.p.world.all(M.LINK) if (link.state in UP) is up]

    def place_of(self, key: str) -> tuple[str, str]:
        """The link and the session by which this key is here; empty if it is not."""
        for session in self.p.world.all(M.SESSION):
            if session.facts.key == key and session.state is SessionState.ATTACHED:
                return session.facts.link, session.subject
        return "", ""

    def job(self, which: int) -> str:
        slot: str = self.p.facts(M.WORKER, THE_WORKER).slot
        return slot if which > 2 and slot else JOBS[which % 3]

    def snapshot(self) -> dict[Address, tuple[Any, Any]]:
        return {
            (name, subject): (instance.state, instance.facts)
            for name in self.p.world.machines
            for instance in self.p.world.all(name)
            for subject in (instance.subject,)
        }

    def feed(self, machine: MachineName, subject: str, event: Event) -> None:
        self.p.feed(machine, subject, event)
        for effect in self.p.done:
            if isinstance(effect, f.StartStage):
                self.alive.setdefault(effect.subject, True)
        self.p.done.clear()
        self.p.steps.clear()

    def say(self, link: str, message: m.Message, number: int | None = None) -> None:
        self.p.say(link, message, number=number)
        self.feed(M.LINK, link, e.FrameArrived())  # a sign of life changes nothing else

    # --- the worker and its server ---------------------------------------------------------------

    @initialize(prepared=st.integers(0, 4))
    def begin(self, prepared: int) -> None:
        self.feed(M.WORKER, THE_WORKER, e.Started())
        self.feed(M.SIGNALLING, THE_SERVER, e.Started())
        if prepared:
            self.worker_goes_on()
            for event in (e.SocketOpened(), e.RecvRegistered(room="r-1")):
                self.feed(M.SIGNALLING, THE_SERVER, event)
            for key in KEYS[:prepared]:
                self.connects(key)
            self.runs_a_job("alice", JOBS[0], 0.0)

    @now_and_then
    @rule(
        event=st.sampled_from(
            [
                e.SocketOpened(),
                e.SocketFailed(reason="lost"),
                e.RecvRegistered(room="r-1"),
                e.RecvRegistered(room="r-2"),
                e.SignalArrived(),
                e.RecvRefusal(final=False, code=ErrorCode.ABORTED, reason="full"),
                e.RecvRefusal(final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="token"),
            ]
        )
    )
    def server_says(self, event: Event) -> None:
        links = {link: self.p.state(M.LINK, link) for link in self.links(up=True)}
        jobs = {job: self.p.state(M.JOB, job) for job in self.submitted}
        self.feed(M.SIGNALLING, THE_SERVER, event)
        if self.p.status not in {W.STOPPING, W.STOPPED}:
            assert links == {link: self.p.state(M.LINK, link) for link in links}
            assert jobs == {job: self.p.state(M.JOB, job) for job in jobs}

    @now_and_then
    @rule(really=st.integers(0, 2))
    def operator_interrupts(self, really: int) -> None:
        if really == 0:
            before = {job: self.p.state(M.JOB, job) for job in self.submitted}
            self.feed(M.WORKER, THE_WORKER, e.TerminateRequested())
            note(f"interrupted, now {self.p.status}")
            if self.requests == 0:  # the first time, what runs or is packed is left alone
                self.goes_on(before)
            self.requests += 1

    @now_and_then
    @rule(really=st.integers(0, 4))
    def the_disk_is_full(self, really: int) -> None:
        if really == 0:
            before = {job: self.p.state(M.JOB, job) for job in self.submitted}
            self.feed(M.WORKER, THE_WORKER, e.JournalFailed(reason="full"))
            note(f"the journal broke, now {self.p.status}")
            self.goes_on(before)

    def goes_on(self, before: dict[str, Any]) -> None:
        """Jobs that ran, or were being packed, still are."""
        for job, state in before.items():
            if state in {*ON_GPU, J.COLLECTING}:
                assert self.p.state(M.JOB, job) is state

    # --- the free slot ---------------------------------------------------------------------------

    @now_and_then
    @rule(key=who, need=st.sampled_from(({}, {"cpus": "2"}, {"vram": "80GiB"})))
    def reserves(self, key: str, need: dict[str, str]) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        before, holder = self.p.status, self.p.facts(M.WORKER, THE_WORKER).holder
        renewals = self.p.facts(M.WORKER, THE_WORKER).renewals
        self.say(link, m.Reserve(need=need))
        answer = self.p.heard(session)[-1]
        fits = "vram" not in need
        again = before is W.RESERVED and holder == key and renewals < 3
        if fits and (before is W.AVAILABLE or again):
            note(f"reserved, renewed: {again}")
            assert isinstance(answer, m.Reserved)
            assert self.p.facts(M.WORKER, THE_WORKER).holder == key
        else:
            assert isinstance(answer, m.ReserveRefused)
            assert (answer.code is ErrorCode.NEED_UNMET) is not fits
            assert self.p.status is before

    @now_and_then
    @rule(key=who)
    def a_need_can_not_be_checked(self, key: str) -> None:
        link, session = self.place_of(key)
        if link and self.p.status is not W.STOPPED:
            before = self.p.status
            self.feed(M.WORKER, THE_WORKER, e.NeedCheckFailed(key=key, session=session))
            answer = self.p.heard(session)[-1]
            assert isinstance(answer, m.ReserveRefused)
            assert answer.code is ErrorCode.INTERNAL
            assert self.p.status is before

    @now_and_then
    @rule(key=who)
    def releases(self, key: str) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        facts = self.p.facts(M.WORKER, THE_WORKER)
        holds = self.p.status is W.RESERVED and facts.holder == key
        self.say(link, m.Release())
        if holds:
            assert m.Released() in self.p.heard(session)
            assert self.p.status is not W.RESERVED
        else:
            assert self.p.errors(session)[-1] is ErrorCode.NOT_HOLDER

    @now_and_then
    @rule(key=who, wanted=st.booleans(), deadline=st.sampled_from((0.0, 60.0)))
    def says_when_it_works(self, key: str, wanted: bool, deadline: float) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        before = self.snapshot()[M.WORKER, THE_WORKER]
        running = {job: self.p.state(M.JOB, job) for job in self.submitted}
        self.say(link, m.Drain(deadline_s=deadline) if wanted else m.Undrain())
        if key != "alice":
            assert self.p.errors(session)[-1] is ErrorCode.NOT_AUTHORISED
            assert self.snapshot()[M.WORKER, THE_WORKER] == before
            return
        note(f"break wanted: {wanted}, now {self.p.status}")
        for job, state in running.items():
            assert state not in ON_GPU or self.p.state(M.JOB, job) is state, "no break kills a job"

    # --- links -----------------------------------------------------------------------------------

    @rule(key=who)
    def connects(self, key: str) -> None:
        self.generations[key] += 1
        link = self.p.connect(key, f"s-{key}", self.generations[key])
        if self.p.state(M.LINK, link) in UP:
            session = self.p.facts(M.SESSION, f"s-{key}")
            assert (session.key, session.link) == (key, link)

    @now_and_then
    @rule(secret=st.booleans(), proved=st.booleans())
    def a_guest_comes(self, secret: bool, proved: bool) -> None:
        link = self.p.visit(secret=secret)
        if secret:
            assert self.p.state(M.GUEST, link) is None, "it has proved nothing yet"
            self.feed(M.LINK, link, e.ProofChecked(proved=proved, trusted=proved, reason="wrong"))
        up = self.p.state(M.LINK, link) in UP
        assert not up or proved or not secret
        assert self.p.state(M.GUEST, link) is (GuestState.WAITING if up else None)

    @precondition(lambda self: self.p.world.live(M.GUEST))
    @rule(pick=some, said=st.lists(st.sampled_from(TO_GUESTS), min_size=1, max_size=6))
    def a_guest_is_told(self, pick: int, said: list[Event]) -> None:
        guests = [guest.subject for guest in self.p.world.live(M.GUEST)]
        guest = guests[pick % len(guests)]
        jobs = {job: self.p.state(M.JOB, job) for job in self.submitted}
        for event in said:
            self.feed(M.GUEST, guest, event)
        note(f"guest {self.p.state(M.GUEST, guest)}")
        assert jobs == {job: self.p.state(M.JOB, job) for job in jobs}

    @now_and_then
    @rule(key=who, session=st.sampled_from(KEYS), generation=some, honest=st.booleans())
    def comes_for_any_session(self, key: str, session: str, generation: int, honest: bool) -> None:
        before = self.p.world.get(M.SESSION, f"s-{session}")
        owner = before.facts.key if before is not None else key
        link = self.p.knock()
        self.p.reach(link)
        self.p.hello(link, key, f"s-{session}", generation)
        self.p.say(link, m.Proof(signature=f"of {key}" if honest else "of nobody"))
        after = self.p.world.get(M.SESSION, f"s-{session}")
        if not honest:
            assert self.p.state(M.LINK, link) not in UP
        assert after is None or after.facts.key == owner, "a session is its key's for ever"
        if after is not None and after.facts.link == link:
            assert honest
            self.generations[session] = max(self.generations[session], generation)

    @now_and_then
    @rule(greeted=st.booleans(), room=st.integers(0, 7), job=job_ids, kind=st.integers(0, 4))
    def knocks_and_speaks(self, greeted: bool, room: int, job: str, kind: int) -> None:
        link = self.p.knock(room=room > 0)
        if room > 1:
            self.p.reach(link)
            if greeted:
                self.p.hello(link, "alice", "s-alice", 1000)
        if room > 2 and self.p.state(M.LINK, link) is not None:
            self.speaks_before_it_is_up(len(self.links(up=False)) - 1, job, kind)

    @now_and_then
    @precondition(lambda self: self.links(up=False))
    @rule(pick=some, job=job_ids, kind=st.integers(0, 4))
    def speaks_before_it_is_up(self, pick: int, job: str, kind: int) -> None:
        links = self.links(up=False)
        link = links[pick % len(links)]
        words = (submission(job), m.Cancel(job=job), m.Ping(n=1), m.Bye(), m.WorkerGet())
        before, told = self.snapshot(), len(self.p.told)
        self.p.say(link, words[kind], number=1 if kind in {0, 1, 4} else 0)
        after = self.snapshot()
        for state in (before, after):
            state.pop((M.LINK, link), None)
        assert after == before, "nothing but its own link may feel it"
        assert len(self.p.told) == told

    @now_and_then
    @rule(
        pick=some,
        event=st.sampled_from(
            [
                e.PeerClosed(),
                e.ChannelClosed(),
                e.IceFailed(),
                e.Flushed(),
                e.IceCompleted(),
                e.SentAnswer(),
                e.ControlOpened(native=True),
                e.ControlOpened(native=False),
                e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1),
                e.FrameRefused(code=ErrorCode.MALFORMED, strikes=3),
            ]
        ),
    )
    def connection_reports(self, pick: int, event: Event) -> None:
        links = [link.subject for link in self.p.world.all(M.LINK)]
        if links:
            self.feed(M.LINK, links[pick % len(links)], event)

    @now_and_then
    @precondition(lambda self: self.gone)
    @rule(pick=some, event=st.sampled_from([e.PeerClosed(), e.FrameArrived(), e.Flushed()]))
    def connection_that_is_over_reports(self, pick: int, event: Event) -> None:
        gone = sorted(self.gone)
        before = self.snapshot()
        steps = self.p.feed(*gone[pick % len(gone)], event)
        assert [step.verdict for step in steps] == [Verdict.STALE]
        assert self.snapshot() == before

    @rule(key=who, farewell=st.integers(0, 3))
    def leaves(self, key: str, farewell: int) -> None:
        link, _ = self.place_of(key)
        if link:
            before = {job: self.p.state(M.JOB, job) for job in self.submitted
                      if self.p.state(M.JOB, job) is not J.STAGING}  # fmt: skip
            if farewell == 0:
                self.p.say(link, m.Bye())
            else:
                self.feed(M.LINK, link, e.PeerClosed())
            after = {job: self.p.state(M.JOB, job) for job in before}
            if self.p.status not in {W.STOPPING, W.STOPPED}:
                assert after == before, "a client that leaves ends no job"

    @now_and_then
    @rule(key=who)
    def reads_nothing_for_too_long(self, key: str) -> None:
        note("outbox filled")
        self.feed(M.SESSION, f"s-{key}", e.OutboxFilled())

    # --- jobs ------------------------------------------------------------------------------------

    @rule(key=who, job=job_ids, limit=st.sampled_from([0.0, 60.0]))
    def submits(self, key: str, job: str, limit: float) -> None:
        link, session = self.place_of(key)
        if not link or key == "stranger":
            return
        before = self.p.world.get(M.JOB, job)
        facts = before.facts if before is not None else None
        heard = len(self.p.told)
        self.p.say(link, submission(job, wall_s=limit, shared=job == SHARED_JOB))
        mine = [told.message for told in self.p.told[heard:] if told.session == session]
        answers = [said for said in mine if isinstance(said, m.JobSnapshot | m.Error)]
        if job not in self.submitted:
            self.submitted[job] = (key, limit)
            assert [type(said) for said in answers] == [m.JobSnapshot]
            assert self.p.facts(M.JOB, job).owner == key
        elif self.submitted[job] == (key, limit):
            assert [type(said) for said in answers] == [m.JobSnapshot]
            assert self.p.facts(M.JOB, job) == facts, "the same again changes nothing"
        else:
            note("another submission of the same id")
            codes = [said.code for said in answers if isinstance(said, m.Error)]
            assert codes == [ErrorCode.JOB_CONFLICT]
            assert self.p.facts(M.JOB, job) == facts

    @rule(
        which=which,
        other=st.integers(0, 8),
        kind=st.sampled_from([m.Stop, m.Cancel, m.Attach, m.LogGet, m.Explain, m.Fetch]),
    )
    def asks(self, which: int, other: int, kind: Any) -> None:
        """The owner mostly, and anybody else."""
        job = self.job(which)
        key = KEYS[other] if other < len(KEYS) else self.submitted.get(job, ("alice",))[0]
        link, session = self.place_of(key)
        if not link:
            return
        before, heard = self.snapshot(), len(self.p.told)
        self.p.say(link, kind(job=job))
        answers = [told.message for told in self.p.told[heard:] if told.session == session]
        owner, _ = self.submitted.get(job, ("", 0.0))
        if key != owner:
            codes = [said.code for said in answers if isinstance(said, m.Error)]
            assert codes == [ErrorCode.UNKNOWN_JOB]
            assert self.unchanged(before, job), "another's job was moved"
            return
        state = before.get((M.RESULTS, job), (None, None))[0]
        if kind is not m.Fetch or state is not ResultsState.DELIVERING:  # it was offered before
            assert answers, f"{kind.__name__} of one's own job is answered"
        state = before[M.JOB, job][0]
        if state in ENDED:
            assert self.p.facts(M.JOB, job) == before[M.JOB, job][1]
            if kind in {m.Stop, m.Cancel}:
                assert [said.code for said in answers if isinstance(said, m.Error)] == [
                    ErrorCode.ALREADY_TERMINAL
                ]

    @rule(
        key=who,
        job=job_ids,
        limit=st.sampled_from([0.0, 60.0]),
        far=st.sampled_from(["submitted", "offered", "received", "validated"]),
    )
    def hands_a_job_in(self, key: str, job: str, limit: float, far: str) -> None:
        """A submission, and of what belongs to it so much as it gets to."""
        self.submits(key, job, limit)
        link, session = self.place_of(key)
        if (
            far == "submitted"
            or not link
            or self.p.state(M.JOB, job) is not J.STAGING
            or self.submitted[job][0] != key
        ):
            return
        self.offers_a_file(key, job, "package.zip")
        if far != "offered":
            file = f"{session}/{self.transfers}"
            self.gives((M.RECEIVING, file, f.OpenIncoming), e.ChunksCompleted())
            self.gives((M.RECEIVING, file, f.VerifyIncoming), e.DigestMatched())
            assert self.p.state(M.JOB, job) is not J.STAGING, "it has all its inputs"
        if far == "validated":
            self.job_goes_on(JOBS.index(job), 1)

    @rule(key=who, job=job_ids, limit=st.sampled_from([0.0, 60.0]))
    def runs_a_job(self, key: str, job: str, limit: float) -> None:
        self.worker_goes_on()
        self.hands_a_job_in(key, job, limit, "validated")
        self.job_goes_on(JOBS.index(job), 1)

    @rule(job=job_ids, need=st.booleans())
    def takes_its_results(self, job: str, need: bool) -> None:
        link, session = self.place_of(self.submitted.get(job, ("",))[0])
        if not link or self.p.state(M.RESULTS, job) not in {
            ResultsState.HELD,
            ResultsState.DELIVERED,
            ResultsState.DELIVERING,
        }:
            return
        self.p.say(link, m.Fetch(job=job))
        transfer = next(file.facts.transfer for file in self.p.world.all(M.SENDING)
                        if (file.facts.job, file.facts.session) == (job, session))  # fmt: skip
        if need:
            self.p.say(link, m.FileNeed(transfer=transfer, ranges=((0, SIZE),)))
            assert self.p.state(M.SENDING, f"{session}/{transfer}") is SendingState.SENDING
        else:
            note("delivered")
            self.confirmed.add(job)
            self.p.say(link, m.FileStored(transfer=transfer, root=ROOT))
            assert self.p.state(M.RESULTS, job) is ResultsState.DELIVERED

    def unchanged(self, before: dict[Address, tuple[Any, Any]], job: str) -> bool:
        after = self.snapshot()
        about = ((M.JOB, job), (M.RESULTS, job))
        return all(after.get(address) == before.get(address) for address in about)

    @now_and_then
    @rule(key=who)
    def asks_for_its_jobs(self, key: str) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        self.p.say(link, m.JobsGet())
        listed = self.p.heard(session)[-1]
        assert isinstance(listed, m.Jobs)
        mine = {job for job, (owner, _) in self.submitted.items() if owner == key}
        assert {job.job for job in listed.jobs} == mine

    @now_and_then
    @rule(key=who)
    def asks_for_what_is_not_there(self, key: str) -> None:
        link, session = self.place_of(key)
        if link:
            self.p.say(link, m.Attach(job="job-nobodys0"))
            assert self.p.errors(session)[-1] is ErrorCode.UNKNOWN_JOB

    @now_and_then
    @rule(key=who, again=st.booleans())
    def frame_is_repeated_or_lost(self, key: str, again: bool) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        number = self.p.received.get(session, 0)
        before = self.snapshot()
        self.p.say(link, m.Cancel(job=JOBS[0]), number=number if again else number + 2)
        if again and number:
            after = self.snapshot()
            for state in (before, after):
                del state[M.LINK, link]  # it is a sign of life
            assert after == before, "it was read once already"
        elif not again:
            assert self.p.state(M.LINK, link) not in UP, "resume repairs it"

    # --- files -----------------------------------------------------------------------------------

    @rule(key=who, job=job_ids, name=st.sampled_from(["package.zip", "other.zip"]))
    def offers_a_file(self, key: str, job: str, name: str) -> None:
        link, session = self.place_of(key)
        if not link:
            return
        self.transfers += 1
        before = self.snapshot()
        offer = m.FileOffer(transfer=self.transfers, job=job, name=name, size=SIZE, root=ROOT)
        self.p.say(link, offer)
        if self.submitted.get(job, ("",))[0] != key:
            assert self.p.errors(session)[-1] is ErrorCode.UNKNOWN_JOB
            assert self.unchanged(before, job)
            assert self.p.state(M.RECEIVING, f"{session}/{self.transfers}") is None

    @now_and_then
    @rule(key=who, pick=some, kind=st.integers(0, 4))
    def answers_an_offer(self, key: str, pick: int, kind: int) -> None:
        link, session = self.place_of(key)
        if not link or not self.p.world.transfers:
            return
        transfer = 1 + pick % self.p.world.transfers
        words = (
            m.FileNeed(transfer=transfer, ranges=((0, SIZE),)),
            m.FileStored(transfer=transfer, root=ROOT),
            m.FileStored(transfer=transfer, root=WRONG),
            m.FileRefused(transfer=transfer, code=ErrorCode.DISK_FULL, message="full"),
            m.FileAbort(transfer=max(1, self.transfers)),
        )
        sending = {file.subject: file.facts.job for file in self.p.world.all(M.SENDING)}
        before = self.snapshot()
        if kind == 1 and f"{session}/{transfer}" in sending:
            self.confirmed.add(sending[f"{session}/{transfer}"])
        self.p.say(link, words[kind])
        if kind < 4 and f"{session}/{transfer}" not in sending:
            assert self.p.errors(session)[-1] is ErrorCode.UNKNOWN_TRANSFER
            assert all(self.unchanged(before, job) for job in JOBS)

    @now_and_then
    @rule(pick=some, matched=st.booleans())
    def file_is_complete(self, pick: int, matched: bool) -> None:
        files = [file.subject for file in self.p.world.all(M.RECEIVING)
                 if file.state is ReceivingState.RECEIVING]  # fmt: skip
        if files:
            file = files[pick % len(files)]
            self.feed(M.RECEIVING, file, e.ChunksCompleted())
            if matched:
                self.gives((M.RECEIVING, file, f.VerifyIncoming), e.DigestMatched())

    @now_and_then
    @rule(pick=some)
    def bytes_move(self, pick: int) -> None:
        job = JOBS[pick % len(JOBS)]
        for machine in (M.JOB, M.RESULTS):
            self.feed(machine, job, e.FileProgressed())

    # --- managers --------------------------------------------------------------------------------

    def gives(self, key: tuple[MachineName, str, type[Effect]], event: Event) -> None:
        """A task ends with this event."""
        self.p.tasks.pop(key, None)
        self.history.append((key[0], key[1], event))
        self.feed(key[0], key[1], event)

    def good(self, key: tuple[MachineName, str, type[Effect]], other: bool) -> Event:
        """How a task ends if nothing fails; some have two ways."""
        _, subject, task = key
        match task:
            case f.ProbeHost:
                if other:
                    return e.ProbeFailed(reason="no driver")
                return e.ProbeSucceeded(capabilities=m.Capabilities())
            case f.CleanSlot:
                if other or not all(self.alive.values()):
                    return e.CleanFailed(reason="it is there")
                for job in list(self.alive):
                    if self.p.state(M.JOB, job) not in ON_GPU:
                        del self.alive[job]
                return e.CleanSucceeded()
            case f.ValidatePackage:
                problem = m.Problem(code=ErrorCode.SCRIPT_REFUSED, sentence="no", line=1)
                if other:
                    return e.ValidationFailed(problems=(problem,))
                return e.ValidationPassed(stages=1 if subject == JOBS[0] else 2)
            case f.PrepareRun:
                return e.Prepared(gpu_free=not other, reason="taken")
            case f.StartStage:
                return self.exits(subject, ok=not other)
            case f.CollectOutputs:
                if other:
                    return e.CollectFailed(reason="disk full")
                return e.Collected(results=results(shared=subject == SHARED_JOB))
            case f.VerifyIncoming:
                return e.DigestMismatched() if other else e.DigestMatched()
            case f.OpenIncoming:
                if other:
                    return e.StorageFailed(code=ErrorCode.NOT_ANNOUNCED, reason="no")
                return e.ChunksCompleted()
            case f.SendRanges:
                return e.SourceFailed(reason="changed") if other else e.FileProgressed()
            case f.HandleConnection:
                return e.SentAnswer()
            case f.Farewell:
                return e.Flushed()
            case f.CheckPackage:
                if other:
                    return e.PackageChecked(reason="too few bytes")
                return e.PackageChecked(root=ROOT, job="job-of-a-guest", stages=("digits",))
            case f.CheckInput:
                return e.InputChecked(path="in", reason="it is not there" if other else "")
            case f.CheckOutput:
                return e.OutputChecked(path="out", reason="it is full" if other else "")
            case f.FeedPackage:
                return e.PackageTaken()
            case f.HandOver:
                return e.HandedOver(files=1)
            case _:
                return e.SocketFailed(reason="refused") if other else e.SocketOpened()

    def exits(self, job: str, *, ok: bool, out_of_memory: bool = False) -> Event:
        """The process of a job's present stage is gone."""
        self.alive.pop(job, None)
        stage = self.p.facts(M.JOB, job).stage
        return e.ProcessExited(stage=stage, ok=ok, out_of_memory=out_of_memory, reason="it ended")

    @precondition(lambda self: self.p.tasks)
    @rule(pick=some, other=st.integers(0, 4), fails=st.integers(0, 9))
    def a_manager_answers(self, pick: int, other: int, fails: int) -> None:
        keys = [key for key in self.p.tasks if fails == 1 or self.p.world.get(*key[:2])]
        if not keys:
            return
        key = keys[pick % len(keys)]
        if key[2] is f.StartStage and self.alive.get(key[1]) is False:
            return  # it can't be killed, and does not end by itself
        if fails == 0:
            note(f"{key[2].__name__} failed")
            if key[2] is f.StartStage:
                self.alive.pop(key[1], None)
            self.gives(key, e.EffectFailed(effect=key[2].method(), reason="it broke"))
        else:
            self.gives(key, self.good(key, other == 0))

    @rule(which=which, other=st.integers(0, 7))
    def job_goes_on(self, which: int, other: int) -> None:
        """Whatever it waits for happens, but the end of its process."""
        job = self.job(which)
        for key in [key for key in self.p.tasks if key[:2] == (M.JOB, job)]:
            if key[2] is not f.StartStage:
                self.gives(key, self.good(key, other == 0))

    @rule()
    def worker_goes_on(self) -> None:
        for key in [key for key in self.p.tasks if key[0] is M.WORKER]:
            self.gives(key, self.good(key, other=False))

    @rule(which=which, ok=st.booleans(), out_of_memory=st.booleans())
    def a_process_exits(self, which: int, ok: bool, out_of_memory: bool) -> None:
        job = self.job(which)
        key = (M.JOB, job, f.StartStage)
        if key in self.p.tasks and self.alive.get(job):
            self.gives(key, self.exits(job, ok=ok, out_of_memory=out_of_memory and not ok))

    @now_and_then
    @rule(which=which, waited=st.integers(0, 3))
    def a_process_can_not_be_killed(self, which: int, waited: int) -> None:
        """Its owner cancels it, and however long everybody waits, it is still there."""
        job = self.job(which)
        if job not in self.alive:
            return
        self.alive[job] = False
        link, _ = self.place_of(self.submitted[job][0])
        if link and self.p.state(M.JOB, job) in ON_GPU:
            self.p.say(link, m.Cancel(job=job))
        for _ in range(waited):
            for key in [key for key in self.p.timers if key[:2] == (M.JOB, job)]:
                self.p.expire_key(key)

    @now_and_then
    @rule(which=which)
    def a_process_dies_after_all(self, which: int) -> None:
        job = self.job(which)
        if job in self.alive:
            self.alive[job] = True

    @now_and_then
    @precondition(lambda self: self.history)
    @rule(pick=some)
    def an_answer_comes_twice(self, pick: int) -> None:
        machine, subject, event = self.history[pick % len(self.history)]
        proof = isinstance(event, e.CleanSucceeded | e.ProbeSucceeded)
        if proof and self.p.status in {W.CLEANING, W.DEGRADED, W.STARTING}:
            return  # each such task answers once, and is replaced where it is asked for again
        if (machine, subject) in self.gone:
            return
        outcome = self.p.facts(M.JOB, subject).outcome if machine is M.JOB else None
        self.feed(machine, subject, event)
        if outcome:
            assert self.p.facts(M.JOB, subject).outcome is outcome

    @now_and_then
    @rule(pick=some)
    def an_effect_fails(self, pick: int) -> None:
        """One that is performed at once, so that no task of it is under way."""
        all_of_them = list(self.snapshot())
        machine, subject = all_of_them[pick % len(all_of_them)]
        note(f"an effect of {machine} failed")
        self.feed(machine, subject, e.EffectFailed(effect="report", reason="it broke"))

    @now_and_then
    @rule(job=job_ids)
    def trainer_reports(self, job: str) -> None:
        self.feed(M.JOB, job, e.TrainerReported(event="epoch_end"))

    # --- time ------------------------------------------------------------------------------------

    @now_and_then
    @precondition(lambda self: self.p.timers)
    @rule(pick=some)
    def a_timer_runs_out(self, pick: int) -> None:
        keys = list(self.p.timers)
        key = keys[pick % len(keys)]
        note(f"timer {key[2]}")
        steps = self.p.expire_key(key)
        assert steps[0].verdict is not Verdict.STALE, "a timer that runs is one that is armed"
        assert steps[0].verdict is not Verdict.ILLEGAL, steps[0].sentence

    @rule(pick=some)
    def what_is_to_end_is_waited_for(self, pick: int) -> None:
        states = {J.STOPPING, J.CANCELLING, J.KILLING, ResultsState.DELIVERING, W.CLEANING}
        keys = [key for key in self.p.timers if self.p.state(*key[:2]) in states]
        if keys:
            self.p.expire_key(keys[pick % len(keys)])

    # --- laws ------------------------------------------------------------------------------------

    @invariant()
    def time_goes_on(self) -> None:
        self.turn += 1

    @invariant()
    def one_job_holds_the_slot(self) -> None:
        slot = self.p.facts(M.WORKER, THE_WORKER).slot
        holders = [
            job.subject
            for job in self.p.world.all(M.JOB)
            if job.state in ON_GPU or (job.state is J.QUEUED and job.subject == slot)
        ]
        assert len(holders) <= 1, "two jobs on one GPU"
        if self.p.status in {W.BUSY, W.DRAINING}:
            assert holders == [slot]
            assert self.p.state(M.JOB, slot) in ON_GPU, "the slot was granted"
        elif self.p.status not in {W.STOPPING, W.STOPPED}:
            assert holders == []
        if self.p.status is W.AVAILABLE:
            assert slot == ""

    @invariant()
    def available_means_that_no_process_is_alive(self) -> None:
        if self.p.status is W.AVAILABLE:
            assert not self.alive

    @invariant()
    def reserved_means_that_somebody_s_time_runs_and_nothing_else_does(self) -> None:
        reserved = self.p.status is W.RESERVED
        assert ((M.WORKER, THE_WORKER, Timer.LEASE) in self.p.timers) is reserved
        if reserved:
            assert not self.alive
            holder = self.p.facts(M.WORKER, THE_WORKER).holder
            waiting = {job.facts.owner for job in self.p.world.all(M.JOB) if job.state is J.QUEUED}
            assert holder not in waiting, "its job gets the slot"

    @invariant()
    def no_job_starts_during_a_break(self) -> None:
        if self.p.status is W.MAINTENANCE:
            assert self.p.facts(M.WORKER, THE_WORKER).drained
            assert not self.alive

    @invariant()
    def no_job_waits_while_the_worker_is_available(self) -> None:
        if self.p.status is W.AVAILABLE:
            assert all(job.state is not J.QUEUED for job in self.p.world.all(M.JOB))

    @invariant()
    def every_outcome_is_fixed_once(self) -> None:
        for job in self.submitted:
            outcome = self.p.facts(M.JOB, job).outcome
            assert (outcome is not Outcome.NONE) or self.p.state(M.JOB, job) not in ENDED
            if outcome is not Outcome.NONE:
                assert self.outcomes.setdefault(job, outcome) is outcome

    @invariant()
    def final_states_stay(self) -> None:
        for name in self.p.world.machines:
            for instance in self.p.world.all(name):
                subject = instance.subject
                address = (name, subject)
                if address in self.ended:
                    assert (instance.state, instance.facts) == self.ended[address]
                elif instance.final:
                    self.ended[address] = (instance.state, instance.facts)
        known_links = self.p.world.machines[M.LINK]
        numbers = range(1, self.p.world_links + 1)
        self.gone = {(M.LINK, f"l-{n}") for n in numbers if f"l-{n}" not in known_links}

    @invariant()
    def nobody_hears_of_another_s_job(self) -> None:
        for told in self.p.told[self.read :]:
            message: Any = told.message
            if isinstance(message, m.Error):
                continue
            for job in [message] if hasattr(message, "job") else getattr(message, "jobs", ()):
                if job.job:
                    assert self.submitted.get(job.job, (told.key,))[0] == told.key
        self.read = len(self.p.told)

    @invariant()
    def every_session_is_carried_by_the_link_it_names(self) -> None:
        for session in self.p.world.all(M.SESSION):
            attached = session.state is SessionState.ATTACHED
            assert attached is (session.facts.link != "")
            if attached:
                link = self.p.world.machines[M.LINK][session.facts.link]
                assert link.state in UP
                assert link.facts.key == session.facts.key
        held = {session.facts.link for session in self.p.world.all(M.SESSION)}
        assert set(self.links(up=True)) <= held, "a link is up for its session only"

    @invariant()
    def a_guest_is_as_long_as_its_link_and_its_session_no_longer(self) -> None:
        up = {link.subject for link in self.p.world.all(M.LINK)
              if link.state in UP and link.facts.foreign}  # fmt: skip
        assert {guest.subject for guest in self.p.world.all(M.GUEST)} == up
        sessions = [session for session in self.p.world.all(M.SESSION)
                    if session.facts.key.startswith("sleap-rtc:")]  # fmt: skip
        assert {session.facts.link for session in sessions} == up

    @invariant()
    def delivered_means_that_the_client_said_so(self) -> None:
        for results in self.p.world.all(M.RESULTS):
            if results.state is ResultsState.DELIVERED:
                assert results.subject in self.confirmed

    @invariant()
    def files_move_only_for_who_wants_them_and_is_there(self) -> None:
        for file in self.p.world.all(M.SENDING):
            results = self.p.world.get(M.RESULTS, file.facts.job)
            assert results is not None
            assert results.state is ResultsState.DELIVERING
            assert results.facts.session == file.facts.session
        for file in self.p.world.all(M.RECEIVING):
            assert self.p.state(M.JOB, file.facts.job) is J.STAGING
        for file in (*self.p.world.all(M.RECEIVING), *self.p.world.all(M.SENDING)):
            state = self.p.state(M.SESSION, file.facts.session)
            if file.state in {ReceivingState.RECEIVING, SendingState.SENDING}:
                assert state is SessionState.ATTACHED
            else:
                assert state is not None
                suspended = file.state is ReceivingState.SUSPENDED
                assert not suspended or state is SessionState.DETACHED

    @invariant()
    def a_job_knows_whether_its_owner_is_there(self) -> None:
        present = {session.facts.key for session in self.p.world.all(M.SESSION)
                   if session.state is SessionState.ATTACHED}  # fmt: skip
        for job in self.p.world.live(M.JOB):
            assert job.facts.attached is (job.facts.owner in present)

    @invariant()
    def a_worker_that_leaves_takes_no_job_and_leaves_when_nothing_is_left(self) -> None:
        waiting = {J.STAGING, J.VALIDATING, J.QUEUED}
        states = {job.state for job in self.p.world.live(M.JOB)}
        ends = self.p.status in {W.STOPPING, W.STOPPED}
        if ends or self.p.facts(M.WORKER, THE_WORKER).leaving:
            assert not states & waiting
        if ends:
            assert not states & {J.PREPARING, J.RUNNING}
        if self.p.status is W.STOPPING:
            results = {entry.state for entry in self.p.world.live(M.RESULTS)}
            assert states or results & {ResultsState.HELD, ResultsState.DELIVERING}
        if self.p.status is W.STOPPED:
            assert self.p.world.all(M.SESSION) == []
            assert {link.state for link in self.p.world.all(M.LINK)} <= {LinkState.CLOSING}
            assert self.p.state(M.SIGNALLING, THE_SERVER) in {
                SignallingState.DOWN,
                SignallingState.REFUSED,
            }

    @invariant()
    def a_worker_whom_nobody_can_reach_does_not_wait(self) -> None:
        if self.p.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED:
            idle = self.p.status in {W.AVAILABLE, W.MAINTENANCE, W.DEGRADED}
            assert not idle or self.p.world.all(M.SESSION)

    @invariant()
    def whoever_waits_has_a_timer_or_a_task(self) -> None:
        timed = {key[:2] for key in self.p.timers}
        for name in self.p.world.machines:
            for instance in self.p.world.live(name):
                place = (name, instance.state)
                if place in BY_TASK:
                    assert (name, instance.subject, BY_TASK[place]) in self.p.tasks
                elif place not in RESTS:
                    assert (name, instance.subject) in timed, f"{name} {instance.state}"

    @invariant()
    def timers_run_that_are_armed_and_no_others(self) -> None:
        for (name, subject, timer), serial in self.p.timers.items():
            instance = self.p.world.get(name, subject)
            assert instance is not None
            assert instance.armed.get(timer) == serial

    # --- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        """No manager answers any more: timers and the ends of processes alone finish everything."""
        rest = {W.AVAILABLE, W.MAINTENANCE, W.DEGRADED, W.STOPPED}
        for _ in range(40):
            for key in list(self.p.timers):
                if key in self.p.timers:
                    self.p.expire_key(key)
            for key in list(self.p.tasks):
                if key[2] is f.StartStage:
                    self.gives(key, self.exits(key[1], ok=False))
            self.every_outcome_is_fixed_once()
            self.one_job_holds_the_slot()
            self.available_means_that_no_process_is_alive()
            if self.p.status in rest and not any(
                self.p.world.live(name)
                for name in (
                    *(M.JOB, M.RESULTS, M.LINK, M.SESSION, M.RECEIVING, M.SENDING),
                    M.GUEST,
                )
            ):
                break
        for job in self.submitted:
            assert self.p.state(M.JOB, job) in ENDED, "a job is stuck"
            ends = {None, ResultsState.EXPIRED, ResultsState.SHARED}
            assert self.p.state(M.RESULTS, job) in ends
        assert self.p.status in rest
        assert self.p.world.all(M.LINK) == self.p.world.all(M.SESSION) == []
        assert self.p.world.all(M.GUEST) == []
        assert self.p.world.all(M.RECEIVING) == self.p.world.all(M.SENDING) == []
        assert self.p.unrest() == []


WorkerMachine.TestCase.settings = settings(
    settings.get_profile(os.environ.get("FSM_WORKER_HYPOTHESIS", "ordinary"))
)
TestWorker = WorkerMachine.TestCase
