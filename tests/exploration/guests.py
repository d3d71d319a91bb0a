"""A client of sleap-rtc: its link x its guest x everything that it and the worker say."""

from collections.abc import Iterator
from functools import partial

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Event
from fsm_worker.machines.engine import Verdict
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.lifecycle import GuestState, JobState, LinkState, Outcome
from protocol.sleap_rtc.frames import NotPerformed
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration import links, sources, two_clients
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.guest_laws import GUEST_EVERYWHERE, GUEST_LAWS, LINK
from tests.exploration.stage import Stage, Task
from tests.machines.puppet import SIZE
from tests.protocol.samples import ROOT

M, G = MachineName, GuestState
SESSION = "guest-l-g"

#: What the client says, and what its stand-in hears from the worker.
SAYS: tuple[Event, ...] = (
    e.PackageNamed(kind="train"),
    e.FolderNamed(folder="models"),
    e.PackageAnnounced(name="digits.zip", size=SIZE, gui=True),
    e.PackageAnnounced(name="digits.zip", size=SIZE, gui=True, reason="the disk is full"),
    e.PackageEnded(),
    e.StopAsked(),
    e.CancelAsked(),
    e.FlowAsked(frame=NotPerformed(tag="FS_GET_INFO")),
    e.GuestRefused(reason="no frame begins so"),
    e.PackageWanted(ranges=((0, SIZE),)),
    e.PackageTaken(),
    e.JobTold(state=JobState.RUNNING),
    e.JobTold(state=JobState.QUEUED),
    e.JobTold(state=JobState.DONE, outcome=Outcome.SUCCEEDED, results=m.ResultsInfo(root=ROOT)),
    e.JobTold(state=JobState.REJECTED, outcome=Outcome.REJECTED, problems=(sources.PROBLEM,)),
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


def _visit(stage: Stage) -> None:
    for event in (
        e.RecvOffer(peer="p-g", sdp="v=0", room_for_more=True),
        e.SentAnswer(),
        e.IceCompleted(),
    ):
        stage.feed(M.LINK, LINK, event)


def _opens(allowed: bool, secret: bool) -> Event:
    return e.ControlOpened(native=False, foreign_allowed=allowed, secret=secret, session=SESSION)


#: A channel without the sub-protocol, as the operator has set it.
OPENS = (
    ("opens", _opens(True, False)),
    ("opens, and is to prove the secret", _opens(True, True)),
    ("opens where it may not", _opens(False, False)),
)
PROVES = (
    ("proves the secret", e.ProofChecked(proved=True, trusted=True)),
    ("proves something else", e.ProofChecked(proved=False, trusted=False, reason="wrong")),
)


def moves(stage: Stage) -> Iterator[Move]:
    """Everything that can happen."""
    link = stage.world.get(M.LINK, LINK)
    state = link.state if link is not None else None
    if link is None and not stage.facts(M.WORKER, THE_WORKER).gone:
        yield Move("a client of sleap-rtc comes", Kind.PEER, _visit)
    said: list[tuple[str, Event]] = []
    if state in {LinkState.CHECKING, LinkState.SECURING}:
        said += OPENS
    if state is LinkState.AUTHENTICATING:
        said += PROVES
    if link is not None:
        said += two_clients.BREAKS
    for name, event in said:
        yield sources.fact(f"it {name}", Kind.PEER, M.LINK, LINK, event)
    if stage.world.get(M.GUEST, LINK) is not None:
        for number, event in enumerate(SAYS):
            name = f"{type(event).__name__} {number}"
            yield sources.fact(name, Kind.PEER, M.GUEST, LINK, event)
        for kind, event in (
            (f.CheckPackage, 0),
            (f.HandOver, 0),
            (f.CheckInput, 0),
            (f.CheckOutput, 0),
        ):
            if (M.GUEST, LINK, kind) not in stage.tasks:
                late = sources.ANSWERS[kind][event]
                yield sources.fact(f"late {kind.__name__}", Kind.MANAGER, M.GUEST, LINK, late)
        if stage.state(M.GUEST, LINK) is G.RETURNING:
            yield sources.fact(
                "the results can't be taken", Kind.MANAGER, M.GUEST, LINK,
                sources.failed(f.TakeResults),
            )  # fmt: skip
    yield from sources.time_moves(stage)
    yield from sources.manager_moves(stage)
    yield from sources.failure_moves(stage, (M.GUEST,))
    if not stage.facts(M.WORKER, THE_WORKER).gone:
        yield sources.fact("SIGTERM", Kind.OPERATOR, M.WORKER, THE_WORKER, e.TerminateRequested())


def settle(stage: Stage) -> None:
    """Names and reasons are for people."""
    for link in stage.world.machines[M.LINK].values():
        link.facts = structs.replace(link.facts, reason="")
    for guest in stage.world.machines[M.GUEST].values():
        facts = structs.replace(guest.facts, kind="", folder="", name="", stages=(), transfer=0)
        if guest.state is G.WAITING:
            facts = type(facts)(
                session=facts.session, label=facts.label, input=facts.input, output=facts.output
            )
        elif guest.state is not G.SUBMITTED:
            facts = type(facts)(session=facts.session)
        else:  # what it described before makes no difference to the job that runs
            facts = structs.replace(facts, label="", input="", output="", shared=False)
        guest.facts = facts
    stage.tasks = {task for task in stage.tasks if _is_waited_for(stage, task)}


def _is_waited_for(stage: Stage, task: Task) -> bool:
    machine, subject, kind = task
    if machine is M.WORKER:
        return kind is f.KillEverything
    if kind in {f.CheckInput, f.CheckOutput}:
        return stage.state(machine, subject) is G.WAITING
    return kind in laws.WORK.get((machine, stage.state(machine, subject)), ())


GUESTS = Product(
    name="link, guest",
    world=worker_world,
    first=partial(links.first),
    moves=moves,
    everywhere=(*laws.EVERYBODY, *GUEST_EVERYWHERE),
    always=(*GUEST_LAWS, *laws.LINK_LAWS, *laws.WORKER_LAWS),
    sometimes={
        f"a guest is {state}": lambda stage, state=state: any(
            step.machine is M.GUEST and step.after == state and step.verdict is Verdict.ROW
            for step in stage.steps
        )
        for state in G
        if state is not G.NEW
    },
    at_rest=lambda stage: not any(stage.world.live(name) for name in (M.LINK, M.SESSION, M.GUEST)),
    settle=settle,
)
