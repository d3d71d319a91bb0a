"""What the worker's status does, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.worker import WORKER, published_status
from protocol.lifecycle import WorkerState
from protocol.messages import Capabilities
from tests.machines.scenario import STAYS, Case, Says, case, covered, declared, each, play

PROBED = e.ProbeSucceeded(capabilities=Capabilities(cpus=16))
NO_DRIVER = e.ProbeFailed(reason="the driver does not answer")
UNDEAD = e.CleanFailed(reason="process 7 is still there")
NO_DISK = e.JournalFailed(reason="the disk is full")
BROKEN = e.EffectFailed(effect="clean_slot", reason="no /proc")

AGAIN = "PublishStatus Timer(probe)"
GOING = {"leaving": True, "slot": "job-1"}
HOLDING = {"slot": "job-1"}

CASES = (
    # It looks at the machine before it promises anything.
    case("W1", "starting", e.Started(), "starting", "ProbeHost Timer(probe)"),
    case("W2", "starting", PROBED, "available", "PublishStatus"),
    case("W3", "starting", NO_DRIVER, "degraded", AGAIN, reason="the driver does not answer"),
    case("W4", "starting", Timer.PROBE, "degraded", AGAIN, reason=Says("hangs")),
    case("W5", "starting degraded", BROKEN, "degraded", AGAIN, reason="no /proc"),
    # One job holds the slot, and is named.
    case(
        "W6", "available", e.SlotRequested(job="job-1"), "busy", "PublishStatus", slot="job-1"
    ),
    # A job that has ended is proved dead before anything else is promised.
    case("W7", "busy draining", e.JobLeftGpu(), "cleaning",
         "PublishStatus CleanSlot Timer(clean)", HOLDING),
    case("W10", "cleaning", e.CleanSucceeded(), "available", "PublishStatus", HOLDING, slot=""),
    case("W12", "cleaning", UNDEAD, "degraded", AGAIN, HOLDING,
         slot="", reason="process 7 is still there"),
    case("W13", "cleaning", Timer.CLEAN, "degraded", AGAIN, HOLDING,
         slot="", reason=Says("does not die")),
    case("W14", "cleaning", BROKEN, "degraded", AGAIN, HOLDING, slot="", reason="no /proc"),
    # Asked to end, it lets the running job finish.
    case("W8", "busy", e.TerminateRequested(), "draining", "PublishStatus", HOLDING,
         leaving=True),
    case("W15", "cleaning", e.TerminateRequested(), STAYS, "", HOLDING, leaving=True),
    case("W11", "cleaning", e.CleanSucceeded(), "stopping", "PublishStatus Timer(linger)", GOING,
         slot=""),
    case("W27", "cleaning", UNDEAD, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason="process 7 is still there"),
    case("W28", "cleaning", Timer.CLEAN, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason=Says("does not die")),
    case("W29", "cleaning", BROKEN, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason="no /proc"),
    case("W22", "starting available degraded", e.TerminateRequested(), "stopping",
         "PublishStatus Timer(linger)"),
    # Asked twice, it does not wait for the job.
    case("W9", "draining", e.TerminateRequested(), "stopping", "PublishStatus Timer(stop)",
         GOING, reason=Says("twice")),
    case("W16", "cleaning", e.TerminateRequested(), "stopping", "PublishStatus Timer(stop)",
         GOING, slot=""),
    # What can't be written down can't be promised: it takes leave.
    case("W30", "busy", NO_DISK, "draining", "PublishStatus", HOLDING,
         leaving=True, reason="the disk is full"),
    case("W31", "cleaning", NO_DISK, STAYS, "", HOLDING, leaving=True, reason="the disk is full"),
    case("W32", "starting available degraded", NO_DISK, "stopping",
         "PublishStatus Timer(linger)", reason="the disk is full"),
    # It ends when everything is delivered; after its time, or asked once more, it kills first.
    case("W23", "stopping", e.AllDone(), "stopped", "KillEverything Leave"),
    case("W24", "stopping", Timer.STOP, "stopping", "KillEverything", forced=True),
    case("W25", "stopping", Timer.LINGER, "stopping", "KillEverything", forced=True),
    case("W26", "stopping", e.TerminateRequested(), "stopping", "KillEverything", forced=True),
    case("W33", "stopping", e.EverythingKilled(), "stopped", "Leave", gone=True),
    case("W34", "stopping", e.EffectFailed(effect="kill_everything", reason="no /proc"), "stopped",
         "Leave", reason="no /proc", gone=True),
    # Sessions are closed only when owners were told how their jobs ended.
    case("W35", "stopped", e.EverythingKilled(), STAYS, gone=True),
    case("W36", "stopped", e.EffectFailed(effect="kill_everything", reason="no /proc"), STAYS,
         gone=True),
    # Degraded, it cleans and probes until both succeed.
    case("W17", "degraded", Timer.PROBE, "degraded", "CleanSlot Timer(probe)"),
    case("W18", "degraded", e.CleanSucceeded(), "degraded", "ProbeHost Timer(probe)"),
    case("W19", "degraded", PROBED, "available", "PublishStatus", {"reason": "x"}, reason=""),
    case("W20", "degraded", NO_DRIVER, "degraded", AGAIN, reason="the driver does not answer"),
    case("W21", "degraded", UNDEAD, "degraded", AGAIN, reason="process 7 is still there"),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(WORKER, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(WORKER)


def test_a_status_that_could_not_be_published_changes_nothing() -> None:
    for state in WorkerState:
        instance = Instance(WORKER, "worker")
        instance.state = state
        step = instance.step(e.EffectFailed(effect="publish_status", reason="no socket"))
        assert (step.verdict, step.after) == (Verdict.IGNORED, state)


def test_only_a_proof_makes_it_available() -> None:
    proofs = {row.on for row in WORKER.rows if row.to is WorkerState.AVAILABLE}
    assert proofs == {e.ProbeSucceeded, e.CleanSucceeded}


def test_nobody_is_told_that_a_worker_is_free_when_it_is_not() -> None:
    words = {state: published_status(state) for state in WorkerState}
    assert {state for state, word in words.items() if word == "available"} == {
        WorkerState.AVAILABLE
    }
    assert words[WorkerState.BUSY] == words[WorkerState.CLEANING] == "busy"
    assert set(words.values()) == {"available", "busy", "maintenance"}
