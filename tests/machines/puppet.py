"""A worker's world with everything around it played: peers, managers, timers, processes.

The puppet keeps the runtime's promises and nothing else: what an effect reports at once is decided
before anything else, a task that is asked for again replaces itself, a timer that its machine has
disarmed does not run out. Messages travel as frames through the real codec and the real routing.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect, StartTimer
from fsm_worker.events import Event, Received, Timer, TimerExpired
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.engine import Instance, Step, Verdict
from fsm_worker.machines.routing import objection, route
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.codec import Frame, decode, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, LinkState, ResultsState, WorkerState
from protocol.table import ROW_OF, Direction, MachineName, Replay, tag_of
from tests.protocol.samples import ROOT

M = MachineName
#: Effects that take time; whoever drives the puppet decides how they end.
TASKS = (
    f.ProbeHost,
    f.CleanSlot,
    f.HandleConnection,
    f.Farewell,
    f.ValidatePackage,
    f.PrepareRun,
    f.StartStage,
    f.CollectOutputs,
    f.OpenIncoming,
    f.VerifyIncoming,
    f.SendRanges,
    f.OpenSocket,
    f.CheckPackage,
    f.CheckInput,
    f.CheckOutput,
    f.FeedPackage,
    f.HandOver,
)
SIZE = 4096
OVER = {LinkState.CLOSING, LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED}


class Told(m.Struct, frozen=True):
    """A message that a client's session was sent."""

    session: str
    key: str
    message: m.Message


def submission(job: str, *, wall_s: float = 0.0, shared: bool = False) -> m.Submit:
    """A job of one package; another limit is another submission."""
    if shared:
        spec = m.JobSpec(kind="shared", name="digits", input="in", output="out")
        return m.Submit(job=job, spec=spec, policy=m.JobPolicy(wall_s=wall_s))
    return m.Submit(
        job=job,
        spec=m.JobSpec(name="digits"),
        inputs=(m.InputFile(name="package.zip", size=SIZE, root=ROOT),),
        policy=m.JobPolicy(wall_s=wall_s),
    )


class Puppet:
    """The world and what is around it.

    Args:
        trusted: keys that may come in.
        operators: those of them that may say when the worker works.
        meets: names of the needs that this worker meets.
    """

    def __init__(
        self, *trusted: str, operators: Collection[str] = (), meets: Collection[str] = ("cpus",)
    ) -> None:
        self.elsewhere: Callable[[str, m.Message], None] = lambda _key, _message: None
        self.perform: Callable[[Effect], object] = lambda _effect: None  # beside what is played
        self.operators = operators
        self.meets = meets
        self.world = worker_world()
        self.trusted = set(trusted)
        self.timers: dict[tuple[MachineName, str, Timer], int] = {}
        self.tasks: dict[tuple[MachineName, str, type[Effect]], Effect] = {}
        self.told: list[Told] = []
        self.done: list[Effect] = []
        self.steps: list[Step] = []
        self.received: dict[str, int] = {}
        self.world_links = 0  # links that ever were
        self._reactions: deque[tuple[MachineName, str, Event]] = deque()
        self._feeding = False

    # --- events in -------------------------------------------------------------------------------

    def feed(self, machine: MachineName, subject: str, event: Event) -> list[Step]:
        """One event and all reactions to it; afterwards nothing is forced any more."""
        self._reactions.append((machine, subject, event))
        steps: list[Step] = []
        self._feeding = True
        while self._reactions:
            taken = self.world.feed(*self._reactions.popleft())
            for step in taken:
                for effect in step.effects:
                    self._perform(step, effect)
            for step in taken:
                self._disarm(step)
                self._refuse(step)
            steps += taken
        self._feeding = False
        self.steps += steps
        assert self.unrest() == []
        return steps

    def post(
        self, machine: MachineName, subject: str, event: Event | Callable[[], Event | None]
    ) -> None:
        """As the runtime's: what an effect posts is decided before anything else."""
        made = event() if callable(event) else event
        if made is not None and self._feeding:
            self._reactions.append((machine, subject, made))
        elif made is not None:
            self.feed(machine, subject, made)

    def worker(self, event: Event) -> list[Step]:
        """An event of the worker itself."""
        return self.feed(M.WORKER, THE_WORKER, event)

    def server(self, event: Event) -> list[Step]:
        """An event of the connection to the signaling server."""
        return self.feed(M.SIGNALLING, THE_SERVER, event)

    def job(self, job: str, event: Event) -> list[Step]:
        """An event of a job."""
        return self.feed(M.JOB, job, event)

    def link(self, link: str, event: Event) -> list[Step]:
        """An event of a link."""
        return self.feed(M.LINK, link, event)

    def expire(self, timer: Timer, subject: str) -> list[Step]:
        """Lets an armed timer run out."""
        key = next(key for key in self.timers if key[1:] == (subject, timer))
        return self.expire_key(key)

    def expire_key(self, key: tuple[MachineName, str, Timer]) -> list[Step]:
        """The same, by the timer's whole name."""
        event = TimerExpired(timer=key[2], serial=self.timers.pop(key))
        return self.feed(key[0], key[1], event)

    def answer(self, task: type[Effect], event: Event, subject: str = "") -> list[Step]:
        """A task ends with this event."""
        key = next(
            key for key in self.tasks if key[2] is task and (not subject or key[1] == subject)
        )
        del self.tasks[key]
        return self.feed(key[0], key[1], event)

    # --- a peer ----------------------------------------------------------------------------------

    def knock(self, *, room: bool = True) -> str:
        """A peer's offer comes; gives the new link."""
        self.world_links += 1
        link = f"l-{self.world_links}"
        self.link(link, e.RecvOffer(peer=f"p-{self.world_links}", sdp="v=0", room_for_more=room))
        return link

    def reach(self, link: str) -> None:
        """Answer, path and channel; the handshake begins."""
        self.tasks.pop((M.LINK, link, f.HandleConnection), None)
        for event in (e.SentAnswer(), e.IceCompleted(), e.ControlOpened(native=True)):
            self.link(link, event)

    def visit(self, *, secret: bool = False) -> str:
        """A client of sleap-rtc, from the offer to its channel; gives the new link."""
        link = self.knock()
        self.tasks.pop((M.LINK, link, f.HandleConnection), None)
        opened = e.ControlOpened(
            native=False, foreign_allowed=True, secret=secret, session=f"guest-{link}"
        )
        for event in (e.SentAnswer(), e.IceCompleted(), opened):
            self.link(link, event)
        return link

    def hello(self, link: str, key: str, session: str, generation: int = 1) -> None:
        """The peer's first words."""
        self.say(
            link,
            m.Hello(
                versions=(1,), role="client", key=key, nonce="N",
                session=session, generation=generation,
            ),
        )  # fmt: skip

    def connect(self, key: str, session: str, generation: int = 1) -> str:
        """A link from the offer to the proof."""
        link = self.knock()
        self.reach(link)
        self.hello(link, key, session, generation)
        self.say(link, m.Proof(signature=f"of {key}"))
        return link

    def say(self, link: str, message: m.Message, *, number: int | None = None) -> list[Step]:
        """A message of a peer, as a frame; numbered as the peer's side would."""
        instance = self.world.get(M.LINK, link)
        session = instance.facts.session if instance is not None else ""
        row = ROW_OF[type(message)]
        expected = self.received.get(session, 0) + 1
        if number is None:
            number = expected if row.replay is Replay.ALL else 0
        frame = decode(encode(Frame(seq=number, msg=message)), Direction.TO_WORKER)
        if row.machine is M.LINK:
            return self.link(link, Received(message=frame.msg, link=link))
        return self.link(
            link, e.FrameArrived(number=frame.seq, expected=expected, message=frame.msg)
        )

    def heard(self, session: str) -> list[m.Message]:
        """What this session was told, oldest first."""
        return [told.message for told in self.told if told.session == session]

    def errors(self, session: str) -> list[ErrorCode]:
        """The codes of the errors among it."""
        return [said.code for said in self.heard(session) if isinstance(said, m.Error)]

    # --- shortcuts -------------------------------------------------------------------------------

    def start(self) -> None:
        """The worker is up, and available."""
        self.worker(e.Started())
        self.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))

    def send_package(self, link: str, job: str, transfer: int = 1) -> None:
        """The job's one input arrives whole."""
        self.say(
            link,
            m.FileOffer(transfer=transfer, job=job, name="package.zip", size=SIZE, root=ROOT),
        )
        session = self.world.machines[M.LINK][link].facts.session
        file = f"{session}/{transfer}"
        self.tasks.pop((M.RECEIVING, file, f.OpenIncoming), None)
        self.feed(M.RECEIVING, file, e.ChunksCompleted())
        self.answer(f.VerifyIncoming, e.DigestMatched(), file)

    def queue(self, link: str, job: str, transfer: int = 1, *, stages: int = 1) -> None:
        """A job from its submission into the queue (and onto the slot, if that is free)."""
        self.say(link, submission(job))
        self.send_package(link, job, transfer)
        self.answer(f.ValidatePackage, e.ValidationPassed(stages=stages), job)

    def run(self, link: str, job: str, transfer: int = 1, *, stages: int = 1) -> None:
        """The same, until its first process runs."""
        self.queue(link, job, transfer, stages=stages)
        self.answer(f.PrepareRun, e.Prepared(gpu_free=True), job)

    def exit(self, job: str, *, ok: bool = True, out_of_memory: bool = False) -> list[Step]:
        """The job's process ends."""
        stage = self.facts(M.JOB, job).stage
        return self.answer(
            f.StartStage,
            e.ProcessExited(stage=stage, ok=ok, out_of_memory=out_of_memory, reason="it ended"),
            job,
        )

    def collect(self, job: str) -> None:
        """The job's outputs are packed."""
        packed = m.ResultsInfo(state=ResultsState.HELD, size=SIZE, root=ROOT, files=2)
        self.answer(f.CollectOutputs, e.Collected(results=packed), job)

    def clean(self) -> None:
        """The slot is proved clean."""
        self.answer(f.CleanSlot, e.CleanSucceeded())

    def state(self, machine: MachineName, subject: str) -> Any:
        """A machine's state, or None if there is none."""
        instance = self.world.get(machine, subject)
        return instance.state if instance is not None else None

    @property
    def status(self) -> WorkerState:
        """The worker's state."""
        state: WorkerState = self.world.machines[M.WORKER][THE_WORKER].state
        return state

    def facts(self, machine: MachineName, subject: str) -> Any:
        """A machine's facts."""
        instance = self.world.get(machine, subject)
        if instance is None:
            raise KeyError(subject)
        return instance.facts

    # --- effects out -----------------------------------------------------------------------------

    def _perform(self, step: Step, effect: Effect) -> None:
        self.done.append(effect)
        if isinstance(effect, f.KillEverything):
            self._reactions.append((M.WORKER, THE_WORKER, e.EverythingKilled()))
        address = (step.machine, step.subject)
        if isinstance(effect, StartTimer):
            if seconds(effect.timer, effect.facts, {}) is not None:
                self.timers[effect.machine, effect.subject, effect.timer] = effect.serial
        elif isinstance(effect, TASKS):
            self.tasks[*address, type(effect)] = effect
        if isinstance(effect, f.ReadMessage):
            self._read(effect)
        elif isinstance(effect, f.CheckProof) and isinstance(effect.event, Received):
            key = effect.facts.key
            checked = e.ProofChecked(
                proved=effect.event.message.signature == f"of {key}",
                trusted=key in self.trusted,
                rights=("submit", "operate") if key in self.operators else ("submit",),
                reason="not proved, or not known",
            )
            self._reactions.append((*address, checked))
        elif isinstance(effect, f.CheckNeed) and isinstance(effect.event, Received):
            need = effect.event.message.need
            unmet = tuple(f"{name} is not met" for name in need if name not in self.meets)
            asker = effect.event
            compared = e.NeedChecked(key=asker.key, session=asker.session, unmet=unmet)
            self._reactions.append((*address, compared))
        elif isinstance(effect, f.ForgetSession):
            self.received.pop(effect.subject, None)
        elif isinstance(effect, f.DiscardOutputs):
            self._reactions.append((*address, e.Collected(results=m.ResultsInfo())))
        elif isinstance(effect, f.StopSending | f.AbortOutgoing):
            self.tasks.pop((*address, f.SendRanges), None)
        elif isinstance(effect, f.DropPackage):
            for task in (f.CheckPackage, f.FeedPackage, f.HandOver):
                self.tasks.pop((*address, task), None)
        for session, message in self._words(effect):
            self._tell(session, message)
        self.perform(effect)

    def _read(self, effect: f.ReadMessage) -> None:
        """As `Sessions.read_message` does."""
        event, facts = effect.event, effect.facts
        assert isinstance(event, e.FrameArrived)
        if event.number:
            self.received[facts.session] = event.number
        if event.message is None:
            return
        try:
            machine, subject = route(
                self.world, event.message, link=effect.subject, session=facts.session,
                key=facts.key, rights=facts.rights,
            )  # fmt: skip
        except ProtocolError as error:
            self._tell(facts.session, _error(event.message, error))
            return
        read = Received(
            message=event.message, link=effect.subject, session=facts.session, key=facts.key,
            alive=sum(job.facts.owner == facts.key for job in self.world.live(M.JOB)),
        )  # fmt: skip
        self._reactions.append((machine, subject, read))

    def _words(self, effect: Effect) -> list[tuple[str, m.Message]]:
        """What an effect says to whom."""
        event, facts = effect.event, effect.facts
        asker = event.session if isinstance(event, Received) else ""
        match effect:
            case f.SendWelcome():
                welcome = m.Welcome(
                    session=effect.subject, received=0, rights=("submit",), worker="w"
                )
                return [(effect.subject, welcome)]
            case f.SendSnapshot():
                return [(asker, self._snapshot(effect.subject, effect.after, facts))]
            case f.ReportState():
                changed = m.JobStateChanged(
                    job=effect.subject,
                    before=JobState(effect.before),
                    state=JobState(effect.after),
                    row=effect.row,
                    event="",
                    outcome=facts.outcome,
                    problems=facts.problems,
                    results=facts.results,
                )
                return self._to_owner(facts.owner, changed)
            case f.ReplyError(code=code, sentence=sentence):
                assert isinstance(event, Received)
                return [(asker, _error(event.message, ProtocolError(code, sentence)))]
            case f.GrantReservation():
                assert isinstance(event, e.NeedChecked)
                return [(event.session, m.Reserved(seconds=30.0, renewals=3 - facts.renewals))]
            case f.RefuseReservation(code=code, sentence=sentence):
                assert isinstance(event, e.NeedChecked | e.NeedCheckFailed)
                reasons = getattr(event, "unmet", ()) or (sentence,)
                refusal = m.ReserveRefused(code=code, reasons=reasons, state=self.status)
                return [(event.session, refusal)]
            case f.ConfirmRelease():
                return [(asker, m.Released())]
            case f.EndReservation(code=code, sentence=sentence):
                over = m.ReservationOver(code=code, reason=sentence)
                return self._to_owner(facts.holder, over)
            case f.ConfirmDrain(drained=drained):
                return [(asker, m.DrainState(drained=drained, state=self.status))]
            case f.SendWorkerStatus():
                return [(asker, m.WorkerStatus(name="w", state=self.status))]
            case f.SendJobs():
                assert isinstance(event, Received)
                mine = [job for job in self.world.all(M.JOB) if job.facts.owner == event.key]
                shown = tuple(self._snapshot(j.subject, j.state.value, j.facts) for j in mine)
                return [(asker, m.Jobs(jobs=shown))]
            case f.SendExplanation(of=of):
                return [(asker, m.Explained(job=effect.subject if of is M.JOB else "", state="",
                                            steps=()))]  # fmt: skip
            case f.StreamLog():
                return [(asker, m.LogEnd(job=effect.subject, size=0))]
            case f.OpenIncoming() | f.AskMissing():
                need = m.FileNeed(transfer=facts.transfer, ranges=((0, facts.size),))
                return [(facts.session, need)]
            case f.ConfirmStored():
                return [(facts.session, m.FileStored(transfer=facts.transfer, root=facts.root))]
            case f.RefuseIncoming():
                refused = m.FileRefused(
                    transfer=facts.transfer, code=facts.code, message=facts.reason
                )
                return [(facts.session, refused)]
            case f.OfferFile():
                offer = m.FileOffer(
                    transfer=facts.transfer, job=facts.job, name=facts.name,
                    size=facts.size, root=facts.root,
                )  # fmt: skip
                return [(facts.session, offer)]
            case f.AbortOutgoing():
                return [(facts.session, m.FileAbort(transfer=facts.transfer))]
            case _:
                return []

    def _to_owner(self, key: str, message: m.Message) -> list[tuple[str, m.Message]]:
        """Its sessions, and where it speaks without one."""
        sessions = [s.subject for s in self.world.live(M.SESSION) if s.facts.key == key]
        return [(place, message) for place in (*sessions, key)]

    @staticmethod
    def _snapshot(job: str, state: str, facts: Any) -> m.JobSnapshot:
        return m.JobSnapshot(
            job=job, name=facts.name, state=JobState(state), outcome=facts.outcome,
            problems=facts.problems, results=facts.results,
        )  # fmt: skip

    def _tell(self, session: str, message: m.Message) -> None:
        """As `Sessions.send` does: a session that is over is not written to."""
        instance = self.world.get(M.SESSION, session)
        if instance is not None and not instance.final:
            sent = decode(encode(Frame(msg=message)), Direction.TO_CLIENT)
            self.told.append(Told(session, instance.facts.key, sent.msg))
        elif instance is None:
            self.elsewhere(session, message)

    def _refuse(self, step: Step) -> None:
        """As `Sessions.answer_refusals` does."""
        if isinstance(step.event, Received) and step.event.session:
            error = objection(step)
            if error is None and step.verdict is Verdict.STALE:
                error = ProtocolError(ErrorCode.UNKNOWN_JOB, step.sentence)
            if error is not None:
                self._tell(step.event.session, _error(step.event.message, error))

    def _disarm(self, step: Step) -> None:
        instance = self.world.get(step.machine, step.subject)
        armed = instance.armed if instance is not None else {}
        for timer in Timer:
            if timer not in armed:
                self.timers.pop((step.machine, step.subject, timer), None)

    # --- laws ------------------------------------------------------------------------------------

    def unrest(self) -> list[str]:
        """Couplings that would still move a machine; none, if the table came to rest."""
        moving, transfers = [], self.world.transfers
        for coupling in self.world.couplings:
            for machine, subject, event in list(coupling.find(self.world)):
                there = self.world.get(machine, subject)
                copy = Instance(self.world.tables[machine], subject, there.facts if there else None)
                if there is not None:
                    copy.state = there.state
                if copy.step(event).verdict is Verdict.ROW:
                    moving.append(f"{coupling.id}: {machine} {subject} {event}")
        self.world.transfers = transfers
        return moving


def _error(message: m.Message, error: ProtocolError) -> m.Error:
    return m.Error(
        code=error.code,
        message=error.sentence,
        about=tag_of(type(message)),
        job=str(getattr(message, "job", "")),
        transfer=int(getattr(message, "transfer", 0)),
    )
