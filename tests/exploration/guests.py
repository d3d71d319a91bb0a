"""A client of sleap-rtc: its link x its guest x everything that it and the worker say."""

from collections.abc import Iterator
from functools import partial
from typing import Any

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
from tests.exploration.stage import Frozen, Stage, Task
from tests.machines.puppet import SIZE
from tests.protocol.samples import ROOT

M, G = MachineName, GuestState
LINK, SESSION = "l-g", "guest-l-g"

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
#: Effects by which the client hears something.
TELLS = (f.TellGuest, f.TellReason, f.TellEnd, f.TellStage, f.RefuseFlow, f.RefuseResults,
         f.RefusePath, f.RefuseShared, f.AcceptPath)  # fmt: skip


def what_a_guest_asks_is_answered_or_done(_before: Frozen, stage: Stage) -> Iterator[str]:
    asks = e.PackageEnded | e.StopAsked | e.CancelAsked | e.FlowAsked | e.GuestRefused
    does = (f.CheckPackage, f.AskStop, f.AskCancel)
    for step in laws.fired(stage, M.GUEST):
        if isinstance(step.event, asks) and not laws.asked(step, *TELLS, *does):
            yield f"{type(step.event).__name__} in {step.before}: not a word"
        taken = step.before == G.WAITING and step.after == G.RECEIVING
        if isinstance(step.event, e.PackageAnnounced) and not taken:
            if not laws.asked(step, *TELLS):
                yield "its package is not taken, and it does not hear so"
            if not laws.asked(step, f.DropArriving):
                yield "what arrives is kept, and not taken"
        if isinstance(step.event, e.PackageAnnounced) and taken:
            if step.event.reason or not laws.asked(step, f.KeepArriving):
                yield "a package is taken that has no place"


def a_guest_hears_once_how_its_job_ended(before: Frozen, stage: Stage) -> Iterator[str]:
    """After everything that it printed, and never twice."""
    was = laws.before_of(before).get((M.GUEST, LINK))
    for step in laws.fired(stage, M.GUEST):
        facts: Any = step.facts
        told = laws.asked(step, f.TellEnd)
        if told is not (step.before == G.SUBMITTED and step.after in {G.RETURNING, G.WAITING}):
            yield f"{step.before} to {step.after}, told of its end: {told}"
        if told:
            over = isinstance(step.event, e.LogOver) or (was is not None and was[1].log_over)
            if not over or facts.outcome is Outcome.NONE:
                yield "it is told of an end that is not one"
            if laws.asked(step, f.FetchResults) is not bool(facts.results.root):
                yield "results that exist are not fetched, or the other way round"
            if (step.after == G.RETURNING) is not bool(facts.results.root):
                yield f"results {facts.results.root!r}, and it is {step.after}"


def a_package_is_run_only_when_it_is_whole(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.GUEST):
        sound = isinstance(step.event, e.PackageChecked) and bool(step.event.root)
        if laws.asked(step, f.SubmitPackage) is not (step.before == G.CHECKING and sound):
            yield f"{type(step.event).__name__}: submitted, or not"
        if step.before == G.CHECKING and isinstance(step.event, e.PackageChecked | e.EffectFailed):
            if step.after != (G.SUBMITTED if sound else G.WAITING):
                yield f"checked (sound {sound}), it is {step.after}"
        wanted = isinstance(step.event, e.PackageWanted)
        if step.before == G.SUBMITTED and wanted and not laws.asked(step, f.FeedPackage):
            yield "the worker waits for bytes"
        told = isinstance(step.event, e.JobTold) and step.event.state is JobState.RUNNING
        if told and step.after == G.SUBMITTED and step.event.stage > -1:
            first = laws.before_of(_before)[M.GUEST, LINK][1].stage < step.event.stage
            if first is not laws.asked(step, f.TellStage):
                yield "the guest does not hear which command runs"


def who_is_not_taken_hears_why_and_may_try_again(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.GUEST):
        refused = step.before == G.CHECKING and step.after == G.WAITING
        if refused and not laws.asked(step, *TELLS):
            yield "its package is refused without a word"
        dropped = laws.asked(step, f.DropPackage) and not isinstance(step.event, e.PackageTaken)
        if dropped and step.after not in {G.WAITING, G.GONE}:
            yield f"its files are deleted, and it is {step.after}"
    for step in stage.steps:
        lost = isinstance(step.event, e.EffectFailed) and step.event.effect == "take_results"
        if step.machine is M.GUEST and lost and step.before == G.RETURNING:
            if step.after != G.WAITING:
                yield "there is no place for its results, and it waits for them"


def nothing_of_a_guest_stays(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Its package is deleted when it is over, and when the guest has gone."""
    for step in laws.fired(stage, M.GUEST):
        ends = step.before != step.after and step.after in {G.WAITING, G.GONE}
        begins = step.before == G.NEW
        fetches = laws.asked(step, f.FetchResults)
        if ends and not begins and not fetches and not laws.asked(step, f.DropPackage):
            yield f"{step.before} is over, and its files are kept"
        if isinstance(step.event, e.PackageTaken) and step.before == G.SUBMITTED:
            if not laws.asked(step, f.DropPackage):
                yield "the worker has the package, and it is kept"


def results_are_handed_over_and_the_worker_hears_it(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.GUEST):
        event = step.event
        if step.before == G.RETURNING and isinstance(event, e.ResultsOffered):
            if not laws.asked(step, f.TakeResults) or step.after != G.RETURNING:
                yield "the results are offered, and nobody takes them"
        if step.before == G.RETURNING and isinstance(event, e.ChunksCompleted):
            if step.after != G.HANDING:
                yield "the results are here, and stay here"
        if step.before == G.HANDING and step.after == G.WAITING:
            done = isinstance(event, e.HandedOver)
            if not laws.asked(step, f.ConfirmResults if done else f.RefuseResults):
                yield f"handed over: {done}, and the worker does not hear so"
        if step.before == G.RETURNING and step.after == G.WAITING and not laws.asked(step, *TELLS):
            yield "its results are lost without a word"


def a_guest_is_as_long_as_its_link(_before: Frozen, stage: Stage) -> Iterator[str]:
    guest, link = stage.world.get(M.GUEST, LINK), stage.world.get(M.LINK, LINK)
    up = link is not None and link.state in laws.UP and link.facts.foreign
    if (guest is not None) is not up:
        yield f"the link is up: {up}, the guest is here: {guest is not None}"
    for step in laws.fired(stage, M.LINK):
        if isinstance(step.event, e.ProofChecked) and step.after == LinkState.UP:
            if not laws.asked(step, f.AdmitGuest):
                yield "it is let in, and does not hear so"
        if isinstance(step.event, e.ControlOpened) and step.after == LinkState.AUTHENTICATING:
            if not laws.asked(step, f.SendChallenge):
                yield "it is to prove something, and does not know what"
        if step.before == LinkState.AUTHENTICATING and step.after == LinkState.REJECTED:
            facts: Any = step.facts
            if facts.foreign and isinstance(step.event, e.ProofChecked | e.TimerExpired):
                if not laws.asked(step, f.TurnAway):
                    yield "it is turned away without a word in its own dialect"


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
    everywhere=(*laws.EVERYBODY, who_is_not_taken_hears_why_and_may_try_again),
    always=(
        what_a_guest_asks_is_answered_or_done,
        a_guest_hears_once_how_its_job_ended,
        a_package_is_run_only_when_it_is_whole,
        nothing_of_a_guest_stays,
        results_are_handed_over_and_the_worker_hears_it,
        a_guest_is_as_long_as_its_link,
        *laws.LINK_LAWS,
        *laws.WORKER_LAWS,
    ),
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
