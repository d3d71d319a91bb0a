"""Flows of reservations and of breaks, through all machines of a worker."""

import pytest

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.facts import Why
from fsm_worker.machines.reservation import HOLDS
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.machines.puppet import Puppet, submission

M, W, J = MachineName, WorkerState, JobState
A, B = "job-aaaaaaaa", "job-bbbbbbbb"


@pytest.fixture
def p() -> Puppet:
    """A worker that is available, and knows alice and bob."""
    puppet = Puppet("alice", "bob")
    puppet.start()
    return puppet


@pytest.fixture
def alice(p: Puppet) -> str:
    """Alice's link."""
    return p.connect("alice", "s-a")


def validate(p: Puppet, job: str) -> None:
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=1), job)


@pytest.fixture
def bob(p: Puppet) -> str:
    return p.connect("bob", "s-b")


def test_a_reserved_slot_is_its_holder_s_alone(p: Puppet, alice: str, bob: str) -> None:
    p.say(alice, m.Reserve(need={"cpus": "2"}))
    assert isinstance(p.heard("s-a")[-1], m.Reserved)
    p.say(bob, submission(B))
    p.send_package(bob, B)
    validate(p, B)
    assert (p.status, p.state(M.JOB, B)) == (W.RESERVED, J.QUEUED), "it waits"
    p.say(alice, submission(A))
    p.send_package(alice, A)
    assert p.facts(M.WORKER, THE_WORKER).claimed
    p.expire(Timer.LEASE, THE_WORKER)
    assert p.status is W.RESERVED, "its job is on its way in"
    validate(p, A)
    assert (p.status, p.state(M.JOB, A)) == (W.BUSY, J.PREPARING)
    assert p.facts(M.WORKER, THE_WORKER).slot == A


def test_a_forgotten_reservation_blocks_nobody(p: Puppet, alice: str, bob: str) -> None:
    p.say(alice, m.Reserve())
    p.say(bob, submission(B))
    p.send_package(bob, B)
    validate(p, B)
    p.expire(Timer.LEASE, THE_WORKER)
    over = p.heard("s-a")[-1]
    assert isinstance(over, m.ReservationOver)
    assert over.code is ErrorCode.RESERVATION_EXPIRED
    assert (p.status, p.state(M.JOB, B)) == (W.BUSY, J.PREPARING)


def test_whoever_is_refused_hears_why(p: Puppet, alice: str, bob: str) -> None:
    p.say(bob, m.Reserve(need={"vram": "80GiB", "tag": "lab-z"}))
    refusal = p.heard("s-b")[-1]
    assert isinstance(refusal, m.ReserveRefused)
    assert (refusal.code, len(refusal.reasons)) == (ErrorCode.NEED_UNMET, 2)
    p.say(alice, m.Reserve())
    p.say(bob, m.Reserve())
    refusal = p.heard("s-b")[-1]
    assert isinstance(refusal, m.ReserveRefused)
    assert (refusal.code, refusal.state) == (ErrorCode.WORKER_BUSY, W.RESERVED)
    p.say(bob, m.Release())
    assert p.errors("s-b") == [ErrorCode.NOT_HOLDER]
    p.say(alice, m.Release())
    assert (p.status, p.heard("s-a")[-1]) == (W.AVAILABLE, m.Released())


def test_a_break_lets_the_running_job_finish_and_starts_no_other(p: Puppet) -> None:
    p.operators = {"alice"}
    alice = p.connect("alice", "s-o")
    p.run(alice, A)
    p.say(alice, submission(B))
    p.send_package(alice, B, 2)
    validate(p, B)
    p.say(alice, m.Drain(reason="a new driver"))
    assert p.heard("s-o")[-1] == m.DrainState(drained=True, state=W.DRAINING)
    assert (p.state(M.JOB, A), (M.WORKER, THE_WORKER, Timer.DRAIN) in p.timers) == (
        J.RUNNING,
        False,
    ), "without a deadline it may take all the time it needs"
    p.exit(A)
    p.collect(A)
    p.clean()
    assert (p.status, p.state(M.JOB, B)) == (W.MAINTENANCE, J.QUEUED)
    p.say(alice, m.Undrain())
    assert p.status is W.STARTING, "it looks at the machine first"
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    assert (p.status, p.state(M.JOB, B)) == (W.BUSY, J.PREPARING)


def test_a_job_that_has_had_its_time_before_a_break_is_stopped_and_keeps_its_model(
    p: Puppet,
) -> None:
    p.operators = {"alice"}
    alice = p.connect("alice", "s-o")
    p.run(alice, A)
    p.say(alice, m.Drain(deadline_s=600.0))
    p.expire(Timer.DRAIN, THE_WORKER)
    assert (p.state(M.JOB, A), p.facts(M.JOB, A).why) == (J.STOPPING, Why.DRAIN)
    p.exit(A)
    p.collect(A)
    assert p.facts(M.JOB, A).outcome is Outcome.STOPPED_EARLY
    assert p.facts(M.JOB, A).results.root


def test_the_first_signal_after_a_break_was_asked_for_ends_nothing(p: Puppet) -> None:
    p.operators = {"alice"}
    alice = p.connect("alice", "s-o")
    p.run(alice, A)
    p.say(alice, m.Drain())
    p.worker(e.TerminateRequested())
    assert (p.status, p.state(M.JOB, A)) == (W.DRAINING, J.RUNNING)
    p.say(alice, m.Undrain())
    assert p.errors("s-o") == [ErrorCode.WORKER_LEAVING]


def test_a_job_that_never_arrives_does_not_hold_the_slot_for_ever(
    p: Puppet, alice: str, bob: str
) -> None:
    p.say(alice, m.Reserve())
    p.say(alice, submission(A))
    p.say(bob, submission(B))
    p.send_package(bob, B)
    validate(p, B)
    for _ in range(HOLDS):
        p.expire(Timer.LEASE, THE_WORKER)
        assert p.status is W.RESERVED
    p.expire(Timer.LEASE, THE_WORKER)
    assert (p.status, p.state(M.JOB, B)) == (W.BUSY, J.PREPARING)


def test_a_signal_after_a_break_that_is_over_lets_the_job_finish(p: Puppet) -> None:
    p.operators = {"alice"}
    alice = p.connect("alice", "s-o")
    p.run(alice, A)
    p.say(alice, m.Drain(deadline_s=600.0))
    p.expire(Timer.DRAIN, THE_WORKER)
    p.exit(A)
    p.collect(A)
    p.clean()
    p.say(alice, m.Undrain())
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    p.run(alice, B, 2)
    p.worker(e.TerminateRequested())
    assert (p.status, p.state(M.JOB, B)) == (W.DRAINING, J.RUNNING)


def test_a_slot_that_is_not_proved_clean_stays_so_through_a_break(p: Puppet) -> None:
    p.operators = {"alice"}
    alice = p.connect("alice", "s-o")
    p.run(alice, A)
    p.exit(A)
    p.answer(f.CleanSlot, e.CleanFailed(reason="process 7 does not die"))
    p.say(alice, m.Drain())
    assert p.status is W.DEGRADED
    p.say(alice, m.Undrain())
    assert p.status is W.DEGRADED
    p.expire(Timer.PROBE, THE_WORKER)
    p.answer(f.CleanSlot, e.CleanSucceeded())
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    assert p.status is W.AVAILABLE


def test_a_worker_that_leaves_keeps_its_slot_for_nobody(p: Puppet, alice: str, bob: str) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.say(bob, m.Reserve())
    refusal = p.heard("s-b")[-1]
    assert isinstance(refusal, m.ReserveRefused)
    assert refusal.code is ErrorCode.WORKER_LEAVING


def test_a_free_worker_that_is_told_to_end_keeps_its_slot_for_nobody(
    p: Puppet, alice: str, bob: str
) -> None:
    p.run(alice, A)
    p.exit(A)
    p.clean()
    p.collect(A)
    p.worker(e.TerminateRequested())
    assert p.status is W.STOPPING, "alice has not fetched her results"
    p.say(bob, m.Reserve())
    refusal = p.heard("s-b")[-1]
    assert isinstance(refusal, m.ReserveRefused)
    assert refusal.code is ErrorCode.WORKER_LEAVING
