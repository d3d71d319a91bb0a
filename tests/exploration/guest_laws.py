"""What holds of a client of sleap-rtc: it hears what becomes of its package, job and results."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from protocol.lifecycle import GuestState, JobState, LinkState, Outcome
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration.stage import Frozen, Stage

M, G = MachineName, GuestState
LINK = "l-g"

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


def a_shared_job_begins_when_both_of_its_paths_are_good(
    before: Frozen, stage: Stage
) -> Iterator[str]:
    was = laws.before_of(before).get((M.GUEST, LINK))
    for step in laws.fired(stage, M.GUEST):
        event, free = step.event, step.before == G.WAITING
        facts: Any = step.facts
        if isinstance(event, e.InputNamed | e.OutputNamed):
            looks = f.CheckInput if isinstance(event, e.InputNamed) else f.CheckOutput
            path = facts.input if isinstance(event, e.InputNamed) else facts.output
            if laws.asked(step, looks) is not free or laws.asked(step, f.RefuseShared) is free:
                yield f"a path is named in {step.before}, and is not looked at, or not refused"
            if free and path:
                yield "a path that is looked at is good already"
        if isinstance(event, e.InputChecked | e.OutputChecked):
            good = not event.reason
            path = facts.input if isinstance(event, e.InputChecked) else facts.output
            if laws.asked(step, f.AcceptPath) is not good or laws.asked(step, f.RefusePath) is good:
                yield f"a path is good: {good}, and the client hears something else"
            if good and path != event.path:
                yield "a good path is forgotten"
        failed = isinstance(event, e.EffectFailed) and event.effect in _LOOKS
        if (failed or isinstance(event, e.PathRefused)) and not laws.asked(step, f.RefusePath):
            yield "a path can't be looked at, and the client waits"
        if isinstance(event, e.SharedJobAsked) and was is not None:
            told = bool(was[1].label and was[1].input and was[1].output)
            begins = free and told
            if laws.asked(step, f.SubmitShared) is not begins:
                yield f"both paths are good: {told}, in {step.before}, and it is submitted or not"
            if laws.asked(step, f.RefuseShared) is begins:
                yield "it hears both, or neither"
            if step.after != (G.SUBMITTED if begins else step.before):
                yield f"to be submitted: {begins}, it is {step.after}"
        elif laws.asked(step, f.SubmitShared):
            yield "nobody has asked for that job"
    for step in stage.steps:  # also where its table would rather ignore it
        looked = isinstance(step.event, e.EffectFailed) and step.event.effect in _LOOKS
        if step.machine is M.GUEST and step.before == G.WAITING and looked and not step.row:
            yield "a path can't be looked at, and the client waits"


#: Effects that look at a path.
_LOOKS = {f.CheckInput.method(), f.CheckOutput.method()}


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


#: Asked of every move, and of moves of rows.
GUEST_EVERYWHERE = (
    who_is_not_taken_hears_why_and_may_try_again,
    a_shared_job_begins_when_both_of_its_paths_are_good,
)
GUEST_LAWS = (
    what_a_guest_asks_is_answered_or_done,
    a_guest_hears_once_how_its_job_ended,
    a_package_is_run_only_when_it_is_whole,
    nothing_of_a_guest_stays,
    results_are_handed_over_and_the_worker_hears_it,
    a_guest_is_as_long_as_its_link,
)
