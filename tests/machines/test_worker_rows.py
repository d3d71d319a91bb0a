"""What the worker's status does, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.worker import WORKER, published_status
from protocol import messages as m
from protocol.lifecycle import WorkerState
from protocol.messages import Capabilities
from tests.machines.samples import received
from tests.machines.scenario import STAYS, Case, Says, case, covered, declared, each, play

PROBED = e.ProbeSucceeded(capabilities=Capabilities(cpus=16))
NO_DRIVER = e.ProbeFailed(reason="the driver does not answer")
UNDEAD = e.CleanFailed(reason="process 7 is still there")
NO_DISK = e.JournalFailed(reason="the disk is full")
BROKEN = e.EffectFailed(effect="clean_slot", reason="no /proc")

AGAIN = "PublishStatus Timer(probe)"
GOING = {"leaving": True, "slot": "job-1"}
ASKED = {**GOING, "asked": True}
HOLDING = {"slot": "job-1"}
BREAK = {"drained": True}
TOLD = {"drained": True, "why_drained": "driver", "reason": "driver"}
KEPT = {"holder": "alice"}
DRAIN = received(m.Drain(reason="driver", deadline_s=600.0))
UNDRAIN = received(m.Undrain())
NO_JOBS, JOBS = "ConfirmDrain(True)", "ConfirmDrain(False)"
SAID = f"{NO_JOBS} PublishStatus"
BACK = f"{JOBS} PublishStatus"
TAKEN = "starting busy cleaning draining maintenance degraded"
HERE = f"available reserved {TAKEN} stopping"


def needs(key: str, *unmet: str) -> e.NeedChecked:
    return e.NeedChecked(key=key, session="s-1", unmet=unmet)


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
         "PublishStatus CleanSlot Timer(clean)", {**HOLDING, "overdue": True}, overdue=False),
    case("W10", "cleaning", e.CleanSucceeded(), "available", "PublishStatus", HOLDING, slot=""),
    case("W12", "cleaning", UNDEAD, "degraded", AGAIN, HOLDING,
         slot="", reason="process 7 is still there"),
    case("W13", "cleaning", Timer.CLEAN, "degraded", AGAIN, HOLDING,
         slot="", reason=Says("does not die")),
    case("W14", "cleaning", BROKEN, "degraded", AGAIN, HOLDING, slot="", reason="no /proc"),
    # Asked to end, it lets the running job finish.
    case("W8", "busy", e.TerminateRequested(), "draining", "PublishStatus", HOLDING,
         leaving=True, asked=True),
    case("W15", "cleaning", e.TerminateRequested(), STAYS, "", HOLDING, leaving=True, asked=True),
    case("W11", "cleaning", e.CleanSucceeded(), "stopping", "PublishStatus Timer(linger)", GOING,
         slot=""),
    case("W27", "cleaning", UNDEAD, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason="process 7 is still there"),
    case("W28", "cleaning", Timer.CLEAN, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason=Says("does not die")),
    case("W29", "cleaning", BROKEN, "stopping", "PublishStatus Timer(linger)", GOING,
         slot="", reason="no /proc"),
    case("W22", "starting available maintenance degraded", e.TerminateRequested(), "stopping",
         "PublishStatus Timer(linger)", asked=True),
    case("W75", "available maintenance degraded", e.NobodyCanCome(), "stopping",
         "PublishStatus Timer(linger)"),
    # Asked twice, it does not wait for the job.
    case("W70", "draining", e.TerminateRequested(), STAYS, "PublishStatus", BREAK,
         leaving=True, asked=True),
    case("W9", "draining", e.TerminateRequested(), "stopping", "PublishStatus Timer(stop)",
         ASKED, reason=Says("twice")),
    case("W16", "cleaning", e.TerminateRequested(), "stopping", "PublishStatus Timer(stop)",
         ASKED, slot=""),
    # What can't be written down can't be promised: it takes leave.
    case("W30", "busy", NO_DISK, "draining", "PublishStatus", HOLDING,
         leaving=True, reason="the disk is full"),
    case("W31", "cleaning draining", NO_DISK, STAYS, "", HOLDING,
         leaving=True, reason="the disk is full"),
    case("W32", "starting available maintenance degraded", NO_DISK, "stopping",
         "PublishStatus Timer(linger)", reason="the disk is full"),
    # It ends when everything is delivered; after its time, or asked once more, it kills first.
    case("W23", "stopping", e.AllDone(), "stopped", "KillEverything Leave"),
    case("W24", "stopping", Timer.STOP, "stopping", "KillEverything", forced=True),
    case("W25", "stopping", Timer.LINGER, "stopping", "KillEverything", forced=True),
    case("W74", "stopping", e.TerminateRequested(), STAYS, "", asked=True),
    case("W26", "stopping", e.TerminateRequested(), "stopping", "KillEverything",
         {"asked": True}, forced=True),
    # What is being packed is waited for, and then its owner.
    case("W76", "stopping", e.PackingBegan(), STAYS, "", packing=True),
    case("W77", "stopping", e.PackingEnded(), STAYS, "Timer(linger)", {"packing": True},
         packing=False),
    case("W78", "stopping", Timer.LINGER, STAYS, "Timer(linger)", {"packing": True}),
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
    # What somebody needs is compared in every state, and what never fits is said at once.
    case("W37", HERE, received(m.Reserve(need={"vram": "80GiB"})), STAYS, "CheckNeed"),
    case("W38", HERE, needs("alice", "vram is not met"), STAYS,
         "RefuseReservation(need_unmet: can't do it)"),
    case("W81", HERE, e.NeedCheckFailed(key="alice", session="s-1"), STAYS,
         "RefuseReservation(internal: can't be looked at)"),
    # The free slot is kept for one, for a while.
    case("W39", "available", needs("alice"), "reserved",
         "GrantReservation PublishStatus Timer(lease)",
         {"renewals": 2, "holds": 3, "claimed": True},
         holder="alice", renewals=0, holds=0, claimed=False),
    case("W40", "reserved", needs("alice"), "reserved", "GrantReservation Timer(lease)",
         {"holder": "alice", "renewals": 2}, renewals=3),
    case("W41", "reserved", needs("alice"), STAYS, "RefuseReservation(in_progress: renewed)",
         {"holder": "alice", "renewals": 3}),
    case("W42", "reserved", needs("bob"), STAYS, "RefuseReservation(worker_busy: somebody else)",
         KEPT),
    case("W43", TAKEN, needs("alice"), STAYS, "RefuseReservation(worker_busy: not free)"),
    case("W72", TAKEN, needs("alice"), STAYS, "RefuseReservation(worker_leaving: another worker)",
         {"leaving": True}),
    case("W73", "stopping", needs("alice"), STAYS,
         "RefuseReservation(worker_leaving: another worker)"),
    # A job of the holder takes it; else it is given back, or runs out.
    case("W44", "reserved", e.SlotRequested(job="job-1", owner="alice"), "busy", "PublishStatus",
         KEPT, slot="job-1"),
    case("W45", "reserved", received(m.Release()), "available", "ConfirmRelease PublishStatus",
         KEPT),
    case("W46", "reserved", Timer.LEASE, "available",
         "EndReservation(reservation_expired: in time) | PublishStatus", KEPT),
    case("W47", "reserved", Timer.LEASE, "reserved", "Timer(lease)",
         {**KEPT, "claimed": True, "holds": 19}, holds=20),
    case("W71", "reserved", Timer.LEASE, "available",
         "EndReservation(reservation_expired: queue) | PublishStatus",
         {**KEPT, "claimed": True, "holds": 20}),
    case("W48", "reserved", e.ReservationClaimed(), STAYS, "", KEPT, claimed=True),
    case("W49", "reserved", e.ReservationUnclaimed(), STAYS, "", {**KEPT, "claimed": True},
         claimed=False),
    case("W50", "reserved", e.TerminateRequested(), "stopping",
         "EndReservation(worker_leaving: leaves) | PublishStatus Timer(linger)", KEPT, asked=True),
    case("W51", "reserved", NO_DISK, "stopping",
         "EndReservation(worker_leaving: leaves) | PublishStatus Timer(linger)", KEPT,
         reason="the disk is full"),
    case("W52", "reserved", received(m.Release(), key="bob"), STAYS,
         "ReplyError(not_holder: somebody else's)", KEPT),
    case("W53", f"available {TAKEN} stopping", received(m.Release()), STAYS,
         "ReplyError(not_holder: no reservation)"),
    # An operator wants a break: no job starts, and none is killed.
    case("W54", "available", DRAIN, "maintenance", SAID, **TOLD),
    case("W55", "reserved", DRAIN, "maintenance",
         f"EndReservation(worker_drained: break) | {SAID}", KEPT, **TOLD),
    case("W56", "busy", DRAIN, "draining", f"{SAID} Timer(drain)", {"overdue": True},
         **TOLD, grace_s=600.0, overdue=False),
    case("W57", "draining", DRAIN, "draining", f"{SAID} Timer(drain)", {"overdue": True},
         **TOLD, grace_s=600.0, overdue=False),
    case("W58", "starting cleaning maintenance", DRAIN, STAYS, SAID,
         **TOLD),
    # What is broken, or why it leaves, is told before that.
    case("W79", "degraded", DRAIN, STAYS, SAID, {"reason": "x"},
         drained=True, why_drained="driver"),
    case("W57", "draining", DRAIN, "draining", f"{SAID} Timer(drain)",
         {"leaving": True, "reason": "the disk is full"},
         drained=True, why_drained="driver", grace_s=600.0),
    case("W58", "cleaning", DRAIN, STAYS, SAID, {"leaving": True, "reason": "the disk is full"},
         drained=True, why_drained="driver"),
    case("W59", "draining", Timer.DRAIN, STAYS, "", BREAK, overdue=True),
    case("W60", "cleaning", e.CleanSucceeded(), "maintenance", "PublishStatus",
         {**BREAK, "slot": "job-1"}, slot=""),
    case("W61", "starting", PROBED, "maintenance", "PublishStatus", BREAK),
    case("W62", "degraded", PROBED, "maintenance", "PublishStatus",
         {**TOLD, "reason": "x"}, reason="driver"),
    # It is taken back, and the machine is looked at before anything starts.
    case("W63", "maintenance", UNDRAIN, "starting", f"{BACK} ProbeHost Timer(probe)",
         TOLD, drained=False, why_drained="", reason=""),
    case("W64", "draining", UNDRAIN, "busy", BACK, {**TOLD, "overdue": True},
         drained=False, why_drained="", reason="", overdue=False),
    case("W65", "starting cleaning", UNDRAIN, STAYS, BACK, TOLD,
         drained=False, why_drained="", reason=""),
    case("W80", "degraded", UNDRAIN, STAYS, BACK, {**TOLD, "reason": "x"},
         drained=False, why_drained=""),
    case("W66", "available reserved busy", UNDRAIN, STAYS, JOBS),
    # A worker that leaves is not called back.
    case("W67", "draining cleaning", UNDRAIN, STAYS, "ReplyError(worker_leaving: start another)",
         {**BREAK, "leaving": True}),
    case("W68", "stopping", UNDRAIN, STAYS, "ReplyError(worker_leaving: start another)"),
    case("W69", "stopping", DRAIN, STAYS, NO_JOBS),
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
    proofs = {
        row.on
        for row in WORKER.rows
        if row.to is WorkerState.AVAILABLE and row.sources != (WorkerState.RESERVED,)
    }
    assert proofs == {e.ProbeSucceeded, e.CleanSucceeded}


def test_nothing_but_a_free_slot_is_reserved() -> None:
    ways = {
        source for row in WORKER.rows if row.to is WorkerState.RESERVED for source in row.sources
    }
    assert ways == {WorkerState.AVAILABLE, WorkerState.RESERVED}


def test_nobody_is_told_that_a_worker_is_free_when_it_is_not() -> None:
    words = {state: published_status(state) for state in WorkerState}
    assert {state for state, word in words.items() if word == "available"} == {
        WorkerState.AVAILABLE
    }
    assert words[WorkerState.BUSY] == words[WorkerState.CLEANING] == "busy"
    assert words[WorkerState.RESERVED] == "reserved"
    assert set(words.values()) == {"available", "reserved", "busy", "maintenance"}
