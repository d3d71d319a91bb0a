"""Whole flows through all machines of a worker: pure, with everything around them played."""

import pytest
from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.coupled_jobs import KEEP_JOBS
from fsm_worker.machines.coupled_links import KEEP_SESSIONS
from fsm_worker.machines.coupled_talks import KEEP_TALKS
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.job import MOST_ALIVE
from fsm_worker.machines.reservation import RENEWALS
from fsm_worker.machines.world import (
    THE_SERVER,
    THE_WORKER,
    Coupling,
    CouplingError,
    Forced,
    World,
)
from fsm_worker.machines.worlds import client_world, worker_world
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import (
    JobState,
    LinkState,
    Outcome,
    ReceivingState,
    ResultsState,
    SendingState,
    SessionState,
    SignallingState,
    WorkerState,
)
from protocol.table import MachineName
from tests.machines.puppet import SIZE, Puppet, submission
from tests.protocol.samples import ROOT

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
A, B, C = "job-aaaaaaaa", "job-bbbbbbbb", "job-cccccccc"


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


def states(p: Puppet, job: str) -> list[str]:
    """The states that the job's owner was told, in order."""
    return [said.state.value for said in p.heard("s-a")
            if isinstance(said, m.JobStateChanged) and said.job == job]  # fmt: skip


def outcome(p: Puppet, job: str) -> Outcome:
    value: Outcome = p.facts(M.JOB, job).outcome
    return value


def asked(p: Puppet, job: str) -> list[str]:
    """How the job's processes were asked to end."""
    ways = (f.RequestStop, f.InterruptTree, f.TerminateTree, f.KillTree)
    return [type(effect).__name__ for effect in p.done
            if isinstance(effect, ways) and effect.subject == job]  # fmt: skip


# --- one job --------------------------------------------------------------------------------------


def test_a_job_goes_from_its_submission_to_delivered_results(p: Puppet, alice: str) -> None:
    assert p.status is W.AVAILABLE
    p.say(alice, submission(A))
    assert p.state(M.JOB, A) is J.STAGING
    p.send_package(alice, A)
    assert p.state(M.JOB, A) is J.VALIDATING
    assert p.status is W.AVAILABLE, "a package that is read needs no GPU"
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=2))
    assert (p.state(M.JOB, A), p.status) == (J.PREPARING, W.BUSY)
    assert p.facts(M.WORKER, THE_WORKER).slot == A
    p.answer(f.PrepareRun, e.Prepared(gpu_free=True))
    p.job(A, e.TrainerReported(event="train_begin"))
    p.exit(A)
    assert p.state(M.JOB, A) is J.RUNNING, "the second stage"
    p.exit(A)
    assert (p.state(M.JOB, A), p.status) == (J.COLLECTING, W.CLEANING)
    p.clean()
    assert p.status is W.AVAILABLE, "packing needs no GPU"
    p.collect(A)
    assert (p.state(M.JOB, A), p.state(M.RESULTS, A)) == (J.DONE, R.HELD)
    assert outcome(p, A) is Outcome.SUCCEEDED

    p.say(alice, m.Fetch(job=A))
    offer = p.heard("s-a")[-1]
    assert isinstance(offer, m.FileOffer)
    assert (offer.job, offer.name, offer.size, offer.root) == (A, f"{A}.zip", SIZE, ROOT)
    p.say(alice, m.FileNeed(transfer=offer.transfer, ranges=((0, SIZE),)))
    assert p.state(M.SENDING, f"s-a/{offer.transfer}") is SendingState.SENDING
    p.say(alice, m.FileStored(transfer=offer.transfer, root=ROOT))
    assert p.state(M.RESULTS, A) is R.DELIVERED
    assert p.world.all(M.SENDING) == []
    assert states(p, A) == [
        "validating", "queued", "preparing", "running", "running", "collecting", "done",
    ]  # fmt: skip
    assert p.errors("s-a") == []


def test_a_package_that_is_refused_never_reaches_the_gpu(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.send_package(alice, A)
    problem = m.Problem(code=ErrorCode.SCRIPT_REFUSED, sentence="rm is no runner", line=3)
    p.answer(f.ValidatePackage, e.ValidationFailed(problems=(problem,)))
    assert (p.state(M.JOB, A), p.status) == (J.REJECTED, W.AVAILABLE)
    told = p.heard("s-a")[-1]
    assert isinstance(told, m.JobStateChanged)
    assert (told.outcome, told.problems) == (Outcome.REJECTED, (problem,))


def test_a_job_that_can_not_be_prepared_gives_the_slot_back(p: Puppet, alice: str) -> None:
    p.queue(alice, A)
    p.answer(f.PrepareRun, e.Prepared(gpu_free=False, reason="4 GiB are taken"))
    assert (p.state(M.JOB, A), outcome(p, A)) == (J.DONE, Outcome.FAILED)
    assert p.status is W.CLEANING
    assert p.state(M.RESULTS, A) is R.EXPIRED, "there is nothing to fetch"
    p.say(alice, m.Fetch(job=A))
    assert p.errors("s-a") == [ErrorCode.RESULTS_EXPIRED]


def test_a_program_that_fails_leaves_what_it_made(p: Puppet, alice: str) -> None:
    p.run(alice, A, stages=2)
    p.exit(A, ok=False)
    p.collect(A)
    assert outcome(p, A) is Outcome.FAILED
    assert p.state(M.RESULTS, A) is R.HELD


def test_a_trainer_that_hears_the_stop_ends_early_and_keeps_its_model(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    p.expire(Timer.REPEAT, A)
    p.expire(Timer.REPEAT, A)
    assert asked(p, A) == ["RequestStop"] * 3
    p.exit(A)
    p.collect(A)
    assert outcome(p, A) is Outcome.STOPPED_EARLY
    assert p.state(M.RESULTS, A) is R.HELD


def test_a_stop_that_is_not_heard_ends_in_a_kill(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    for _ in range(3):
        p.expire(Timer.STEP, A)
    assert asked(p, A) == ["RequestStop", "InterruptTree", "TerminateTree", "KillTree"]
    assert p.state(M.JOB, A) is J.KILLING
    p.exit(A, ok=False)
    p.collect(A)
    assert outcome(p, A) is Outcome.STOPPED_EARLY


def test_a_cancelled_job_is_thrown_away(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Cancel(job=A))
    p.expire(Timer.KILL, A)
    assert asked(p, A) == ["TerminateTree", "KillTree"]
    p.exit(A, ok=False)
    assert (p.state(M.JOB, A), outcome(p, A)) == (J.DONE, Outcome.CANCELLED)
    assert p.state(M.RESULTS, A) is R.EXPIRED
    assert f.CollectOutputs not in map(type, p.done)


def test_a_cancel_overtakes_a_stop(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    p.say(alice, m.Cancel(job=A))
    p.exit(A)
    assert outcome(p, A) is Outcome.CANCELLED
    p.say(alice, m.Cancel(job=A))
    p.say(alice, m.Stop(job=A))
    assert p.errors("s-a") == [ErrorCode.ALREADY_TERMINAL] * 2


def test_a_process_that_can_not_be_killed_degrades_the_worker_and_not_the_job(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.say(alice, m.Cancel(job=A))
    p.expire(Timer.KILL, A)
    p.expire(Timer.UNKILLABLE, A)
    assert (outcome(p, A), p.status) == (Outcome.CANCELLED, W.CLEANING)
    p.answer(f.CleanSlot, e.CleanFailed(reason="process 7 is there"))
    assert p.status is W.DEGRADED
    p.queue(alice, B, 2)
    assert p.state(M.JOB, B) is J.QUEUED, "no slot is promised"
    p.expire(Timer.PROBE, THE_WORKER)
    p.clean()
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    assert (p.state(M.JOB, B), p.status) == (J.PREPARING, W.BUSY)


def test_a_wall_clock_limit_stops_and_keeps(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A, wall_s=60.0))
    p.send_package(alice, A)
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=1))
    p.answer(f.PrepareRun, e.Prepared(gpu_free=True))
    p.expire(Timer.WALL, A)
    p.exit(A, ok=False)
    p.collect(A)
    assert (outcome(p, A), p.state(M.RESULTS, A)) == (Outcome.TIMED_OUT, R.HELD)


def test_a_job_that_outstays_a_break_and_heeds_nothing_is_killed() -> None:
    p = Puppet("alice", "olga", operators={"olga"})
    p.start()
    alice, olga = p.connect("alice", "s-a"), p.connect("olga", "s-o")
    p.run(alice, A)
    p.say(olga, m.Drain(deadline_s=60.0))
    p.expire(Timer.DRAIN, THE_WORKER)
    for _ in range(3):
        p.expire(Timer.STEP, A)
    assert asked(p, A) == ["RequestStop", "InterruptTree", "TerminateTree", "KillTree"]


def test_a_job_in_the_shared_storage_needs_no_upload(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A, shared=True))
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=1))
    p.answer(f.PrepareRun, e.Prepared(gpu_free=True))
    p.exit(A)
    assert states(p, A) == ["queued", "preparing", "running", "collecting"]


def test_without_a_limit_no_clock_runs(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    assert not [key for key in p.timers if key[:2] == (M.JOB, A)]


# --- several jobs ---------------------------------------------------------------------------------


def test_two_jobs_queue_and_run_in_the_order_in_which_they_came(p: Puppet, alice: str) -> None:
    bob = p.connect("bob", "s-b")
    p.run(alice, A)
    p.queue(bob, B)
    p.queue(alice, C, 2)
    assert (p.state(M.JOB, B), p.state(M.JOB, C)) == (J.QUEUED, J.QUEUED)
    p.exit(A)
    assert p.status is W.CLEANING
    assert p.state(M.JOB, B) is J.QUEUED, "not before the slot is proved clean"
    p.clean()
    assert (p.state(M.JOB, B), p.state(M.JOB, C)) == (J.PREPARING, J.QUEUED)
    p.say(bob, m.Cancel(job=B))
    p.clean()
    assert p.state(M.JOB, C) is J.PREPARING


def test_a_job_that_is_cancelled_in_the_queue_never_gets_the_slot(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    p.say(alice, m.Cancel(job=B))
    p.exit(A)
    p.clean()
    assert (p.status, outcome(p, B)) == (W.AVAILABLE, Outcome.CANCELLED)


def test_a_job_waits_in_the_queue_for_its_time_only(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    p.expire(Timer.QUEUE, B)
    assert outcome(p, B) is Outcome.EXPIRED_IN_QUEUE


def test_how_long_a_job_waits_is_what_its_owner_said(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    said = submission(B)
    p.say(alice, structs.replace(said, policy=m.JobPolicy(queue_s=60.0)))
    p.send_package(alice, B, 2)
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=1))
    assert p.state(M.JOB, B) is J.QUEUED
    assert seconds(Timer.QUEUE, p.facts(M.JOB, B), {}) == 60.0


def test_each_reservation_may_be_renewed_as_often_as_the_one_before_it(
    p: Puppet, alice: str
) -> None:
    for _ in range(2):
        for _ in range(1 + RENEWALS):
            p.say(alice, m.Reserve())
            assert isinstance(p.heard("s-a")[-1], m.Reserved)
        p.say(alice, m.Release())
    assert p.status is W.AVAILABLE


def test_ended_jobs_are_forgotten_when_there_are_too_many_and_the_living_never(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    two = tuple(m.InputFile(name=name, size=1, root=ROOT) for name in ("a", "b"))
    for number in range(KEEP_JOBS + 20):
        p.say(alice, m.Submit(job=f"reject-{number:04}", spec=m.JobSpec(), inputs=two))
    assert len(p.world.all(M.JOB)) == KEEP_JOBS + 1
    assert p.state(M.JOB, "reject-0000") is None
    assert p.state(M.JOB, "reject-0519") is J.REJECTED
    assert p.state(M.JOB, A) is J.RUNNING


def test_whoever_submits_most_loses_its_oldest_jobs_and_nobody_else_s(
    p: Puppet, alice: str
) -> None:
    bob = p.connect("bob", "s-b")
    two = tuple(m.InputFile(name=name, size=1, root=ROOT) for name in ("a", "b"))
    p.say(bob, m.Submit(job="of-bob-0001", spec=m.JobSpec(), inputs=two))
    for number in range(KEEP_JOBS + 20):
        p.say(alice, m.Submit(job=f"reject-{number:04}", spec=m.JobSpec(), inputs=two))
    assert p.state(M.JOB, "of-bob-0001") is J.REJECTED
    assert f.ForgetJob in map(type, p.done)


def test_one_key_may_have_so_many_jobs_alive_and_no_more(p: Puppet, alice: str) -> None:
    for number in range(MOST_ALIVE):
        p.say(alice, submission(f"waits-{number:04}"))
    p.say(alice, submission("one-too-many"))
    told = p.heard("s-a")[-1]
    assert isinstance(told, m.JobSnapshot)
    assert (told.job, told.state) == ("one-too-many", J.REJECTED)
    assert told.problems[0].code is ErrorCode.OVERLOADED
    assert p.state(M.JOB, "one-too-many") is J.REJECTED
    bob = p.connect("bob", "s-b")
    p.say(bob, submission("of-bob-0001"))
    assert p.state(M.JOB, "of-bob-0001") is J.STAGING


def test_a_client_that_is_killed_over_and_over_leaves_so_many_sessions_and_no_more(
    p: Puppet,
) -> None:
    for number in range(KEEP_SESSIONS + 5):
        link = p.connect("alice", f"s-{number:03}")
        p.link(link, e.PeerClosed())
    sessions = p.world.live(M.SESSION)
    assert len(sessions) == KEEP_SESSIONS
    assert p.state(M.SESSION, "s-000") is None
    assert "s-000" in {effect.subject for effect in p.done if isinstance(effect, f.ForgetSession)}
    assert p.state(M.SESSION, f"s-{KEEP_SESSIONS + 4:03}") is SessionState.DETACHED


def test_so_many_negotiations_are_remembered_and_those_that_were_promised_something_longest(
    p: Puppet,
) -> None:
    def asks(number: int) -> None:
        asked = e.JobAsked(peer=f"p-{number}", key=f"sleap-rtc:p-{number}", label="x")
        p.feed(M.TALK, f"place {number}", asked)

    asks(0)
    p.feed(M.TALK, "place 0", e.SlotKept(seconds=30.0))
    for number in range(1, KEEP_TALKS + 5):
        asks(number)
    kept = [talk.subject for talk in p.world.live(M.TALK)]
    assert kept == ["place 0", *(f"place {number}" for number in range(6, KEEP_TALKS + 5))]
    for place in kept:
        p.feed(M.TALK, place, e.SlotKept(seconds=30.0))
    asks(999)
    assert p.world.get(M.TALK, "place 999") is None, "what was promised stays"


def test_asking_for_the_results_of_a_rejected_job_does_not_keep_it_for_ever(
    p: Puppet, alice: str
) -> None:
    two = tuple(m.InputFile(name=name, size=1, root=ROOT) for name in ("a", "b"))
    for number in range(KEEP_JOBS + 20):
        job = f"reject-{number:04}"
        p.say(alice, m.Submit(job=job, spec=m.JobSpec(), inputs=two))
        p.say(alice, m.Fetch(job=job))
    assert len(p.world.all(M.JOB)) == KEEP_JOBS
    assert len(p.world.all(M.RESULTS)) <= KEEP_JOBS
    assert set(p.errors("s-a")) == {ErrorCode.RESULTS_EXPIRED}


# --- clients come and go --------------------------------------------------------------------------


def test_a_job_outlives_its_client_and_is_found_again_by_its_key(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.link(alice, e.PeerClosed())
    assert p.state(M.SESSION, "s-a") is SessionState.DETACHED
    assert p.facts(M.JOB, A).attached is False
    p.expire(Timer.SESSION, "s-a")
    assert p.state(M.SESSION, "s-a") is None
    assert p.state(M.JOB, A) is J.RUNNING

    again = p.connect("alice", "s-new")
    assert p.facts(M.JOB, A).attached is True
    p.say(again, m.Attach(job=A))
    snapshot = p.heard("s-new")[-1]
    assert isinstance(snapshot, m.JobSnapshot)
    assert (snapshot.job, snapshot.state) == (A, J.RUNNING)
    p.say(again, m.JobsGet())
    listed = p.heard("s-new")[-1]
    assert isinstance(listed, m.Jobs)
    assert [job.job for job in listed.jobs] == [A]
    p.exit(A)
    p.collect(A)
    p.say(again, m.Fetch(job=A))
    assert isinstance(p.heard("s-new")[-1], m.FileOffer)


def test_a_client_that_says_bye_ends_its_session_and_no_job(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Bye())
    assert p.state(M.SESSION, "s-a") is None
    assert p.state(M.LINK, alice) is None
    assert p.state(M.JOB, A) is J.RUNNING


def test_a_newer_link_takes_its_session_over_and_the_old_one_is_closed(
    p: Puppet, alice: str
) -> None:
    newer = p.connect("alice", "s-a", 2)
    assert p.facts(M.SESSION, "s-a").link == newer
    assert p.state(M.LINK, alice) is None
    assert p.state(M.SESSION, "s-a") is SessionState.ATTACHED
    assert p.facts(M.SESSION, "s-a").link == newer


def test_an_older_link_that_comes_late_is_closed(p: Puppet) -> None:
    newer = p.connect("alice", "s-a", 5)
    for generation in (4, 5):
        older = p.connect("alice", "s-a", generation)
        assert p.state(M.LINK, older) is None
    assert p.facts(M.SESSION, "s-a").link == newer


def test_a_resumed_session_is_the_same_session(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.link(alice, e.IceFailed())
    again = p.connect("alice", "s-a", 2)
    assert isinstance(p.heard("s-a")[-1], m.Welcome)
    p.say(again, m.Resume(received=1))
    assert f.Replay in map(type, p.done)
    p.say(again, submission(A))
    assert isinstance(p.heard("s-a")[-1], m.JobSnapshot)
    assert len(p.world.all(M.JOB)) == 1


def test_another_key_can_not_take_a_session_over(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    before = p.facts(M.SESSION, "s-a")
    bob = p.connect("bob", "s-a", 99)
    assert p.state(M.LINK, bob) is LinkState.CLOSING
    assert p.facts(M.SESSION, "s-a") == before
    p.link(alice, e.PeerClosed())
    bob = p.connect("bob", "s-a", 100)
    assert p.state(M.LINK, bob) is LinkState.CLOSING
    assert p.facts(M.SESSION, "s-a").key == "alice"


def test_nobody_gets_in_without_a_proof_and_trust(p: Puppet) -> None:
    for key, signature in (("alice", "of bob"), ("mallory", "of mallory")):
        link = p.knock()
        p.reach(link)
        p.hello(link, key, "s-x")
        p.say(link, m.Proof(signature=signature))
        assert p.state(M.LINK, link) is None
        assert p.world.all(M.SESSION) == []
    assert p.told == []


def test_who_speaks_before_the_proof_is_rejected_and_nothing_is_read(p: Puppet) -> None:
    link = p.knock()
    p.reach(link)
    p.hello(link, "alice", "s-a")
    p.say(link, submission(A))
    assert p.state(M.LINK, link) is None
    assert p.world.all(M.JOB) == []
    assert f.ReadMessage not in map(type, p.done)


def test_a_full_worker_says_so(p: Puppet) -> None:
    link = p.knock(room=False)
    assert p.state(M.LINK, link) is None
    assert isinstance(p.done[-1], f.RefuseOffer)


def test_a_message_is_read_once_and_a_gap_ends_the_link(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    told = len(p.told)
    p.say(alice, submission(A), number=1)
    assert len(p.told) == told
    p.say(alice, m.Cancel(job=A), number=3)
    assert p.state(M.JOB, A) is J.STAGING
    assert p.state(M.SESSION, "s-a") is SessionState.DETACHED


def test_a_client_that_does_not_read_is_let_go(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.feed(M.SESSION, "s-a", e.OutboxFilled())
    assert p.state(M.SESSION, "s-a") is None
    assert p.state(M.LINK, alice) is LinkState.CLOSING
    assert p.state(M.JOB, A) is J.RUNNING


@pytest.mark.parametrize(
    "ask",
    [m.Stop, m.Cancel, m.Attach, m.LogGet, m.Explain, m.Fetch],
    ids=lambda kind: kind.__name__,
)
def test_another_s_job_is_an_unknown_job(p: Puppet, alice: str, ask: type[m.Message]) -> None:
    bob = p.connect("bob", "s-b")
    p.run(alice, A)
    before = p.facts(M.JOB, A)
    p.say(bob, ask(job=A))
    p.say(bob, ask(job=B))
    assert p.errors("s-b") == [ErrorCode.UNKNOWN_JOB] * 2
    theirs, nobodys = (said for said in p.heard("s-b") if isinstance(said, m.Error))
    assert theirs.message == nobodys.message, "a stranger does not learn that it exists"
    assert (p.state(M.JOB, A), p.facts(M.JOB, A)) == (J.RUNNING, before)


def test_another_s_file_is_an_unknown_transfer(p: Puppet, alice: str) -> None:
    bob = p.connect("bob", "s-b")
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.say(bob, m.FileAbort(transfer=1))
    p.say(bob, m.FileNeed(transfer=1, ranges=()))
    assert p.errors("s-b") == [ErrorCode.UNKNOWN_TRANSFER] * 2
    p.say(bob, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    assert p.errors("s-b")[-1] is ErrorCode.UNKNOWN_JOB
    assert p.state(M.RECEIVING, "s-a/1") is ReceivingState.RECEIVING
    assert p.state(M.JOB, A) is J.STAGING


def test_an_id_that_another_client_has_used_is_a_conflict(p: Puppet, alice: str) -> None:
    bob = p.connect("bob", "s-b")
    p.say(alice, submission(A))
    p.say(bob, submission(A))
    assert p.errors("s-b") == [ErrorCode.JOB_CONFLICT]
    assert p.facts(M.JOB, A).owner == "alice"


def test_what_only_an_operator_may_is_refused_to_others(p: Puppet, alice: str) -> None:
    before = p.status
    for message in (m.Drain(), m.Undrain()):
        p.say(alice, message)
    assert p.errors("s-a") == [ErrorCode.NOT_AUTHORISED] * 2
    assert p.status is before


def test_what_can_not_be_done_now_says_what_can(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.exit(A)
    p.collect(A)
    p.say(alice, m.Fetch(job=A))
    transfer = p.world.transfers
    p.say(alice, m.FileAbort(transfer=transfer))
    assert p.errors("s-a") == [ErrorCode.UNKNOWN_TRANSFER], "it is ours to give up"


# --- files ----------------------------------------------------------------------------------------


def test_a_file_on_its_way_in_is_suspended_and_resumed_with_its_session(
    p: Puppet, alice: str
) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.link(alice, e.ChannelClosed())
    assert p.state(M.RECEIVING, "s-a/1") is ReceivingState.SUSPENDED
    p.connect("alice", "s-a", 2)
    assert p.state(M.RECEIVING, "s-a/1") is ReceivingState.RECEIVING
    assert isinstance(p.heard("s-a")[-1], m.FileNeed), "only the rest is asked for"
    p.feed(M.RECEIVING, "s-a/1", e.ChunksCompleted())
    p.answer(f.VerifyIncoming, e.DigestMatched())
    assert p.state(M.JOB, A) is J.VALIDATING


def test_a_file_that_is_being_verified_needs_no_link(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.feed(M.RECEIVING, "s-a/1", e.ChunksCompleted())
    p.link(alice, e.PeerClosed())
    p.answer(f.VerifyIncoming, e.DigestMatched())
    assert p.state(M.JOB, A) is J.VALIDATING


def test_a_client_that_leaves_in_mid_upload_goes_on_in_another_session(
    p: Puppet, alice: str
) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.say(alice, m.Bye())
    assert p.state(M.RECEIVING, "s-a/1") is None
    assert p.state(M.JOB, A) is J.STAGING
    again = p.connect("alice", "s-a2")
    p.say(again, submission(A))
    p.say(again, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.feed(M.RECEIVING, "s-a2/1", e.ChunksCompleted())
    p.answer(f.VerifyIncoming, e.DigestMatched())
    assert p.state(M.JOB, A) is J.VALIDATING


def test_a_client_that_was_killed_in_mid_upload_goes_on_in_another_session(
    p: Puppet, alice: str
) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.link(alice, e.PeerClosed())
    assert p.state(M.RECEIVING, "s-a/1") is ReceivingState.SUSPENDED
    again = p.connect("alice", "s-a2")
    p.say(again, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    assert p.state(M.RECEIVING, "s-a/1") is None
    assert p.state(M.RECEIVING, "s-a2/1") is ReceivingState.RECEIVING
    assert p.state(M.JOB, A) is J.STAGING


def test_a_client_that_never_comes_back_with_its_upload_ends_its_job(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.say(alice, m.Bye())
    p.expire(Timer.STAGING, A)
    assert (p.state(M.JOB, A), outcome(p, A)) == (J.DONE, Outcome.FAILED)


def test_inputs_that_never_come_end_the_job(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.job(A, e.FileProgressed())
    p.expire(Timer.STAGING, A)
    assert outcome(p, A) is Outcome.FAILED


def test_a_file_that_does_not_hash_right_three_times_ends_the_job(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    for _ in range(3):
        assert p.state(M.JOB, A) is J.STAGING
        p.feed(M.RECEIVING, "s-a/1", e.ChunksCompleted())
        p.answer(f.VerifyIncoming, e.DigestMismatched())
    assert outcome(p, A) is Outcome.FAILED
    told = [said for said in p.heard("s-a") if isinstance(said, m.FileRefused)]
    assert [said.code for said in told] == [ErrorCode.HASH_MISMATCH]


def test_a_file_for_a_job_that_does_not_wait_for_one_is_refused(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.FileOffer(transfer=9, job=A, name="package.zip", size=SIZE, root=ROOT))
    assert p.state(M.RECEIVING, "s-a/9") is None
    assert isinstance(p.heard("s-a")[-1], m.FileRefused)
    p.say(alice, submission(B))
    p.say(alice, m.FileOffer(transfer=10, job=B, name="package.zip", size=SIZE, root=ROOT))
    p.say(alice, m.Cancel(job=B))
    assert p.state(M.RECEIVING, "s-a/10") is None


def held(p: Puppet, link: str) -> None:
    """A's results are ready."""
    p.run(link, A)
    p.exit(A)
    p.clean()
    p.collect(A)


def test_results_are_sent_on_with_the_next_link(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileNeed(transfer=1, ranges=((0, SIZE),)))
    p.link(alice, e.PeerClosed())
    assert p.state(M.SENDING, "s-a/1") is SendingState.SUSPENDED
    assert p.state(M.RESULTS, A) is R.DELIVERING
    again = p.connect("alice", "s-a", 2)
    p.say(again, m.FileNeed(transfer=1, ranges=((1024, SIZE),)))
    assert p.state(M.SENDING, "s-a/1") is SendingState.SENDING
    p.say(again, m.FileStored(transfer=1, root=ROOT))
    assert p.state(M.RESULTS, A) is R.DELIVERED


def test_undelivered_results_are_kept_whoever_disconnects(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.Bye())
    assert p.state(M.RESULTS, A) is R.HELD
    assert p.world.all(M.SENDING) == []
    again = p.connect("alice", "s-b")
    p.say(again, m.Fetch(job=A))
    assert p.state(M.RESULTS, A) is R.DELIVERING


def test_a_delivery_without_progress_is_taken_back(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.expire(Timer.DELIVERY, A)
    assert p.state(M.RESULTS, A) is R.HELD
    assert isinstance(p.heard("s-a")[-1], m.FileAbort)


def test_the_receiver_s_refusal_leaves_the_results_held(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileRefused(transfer=1, code=ErrorCode.DISK_FULL, message="no room"))
    assert p.state(M.RESULTS, A) is R.HELD
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=2, root="0" * 64))
    assert p.state(M.RESULTS, A) is R.HELD, "something else was stored"


def test_asked_for_by_another_session_of_the_owner_the_results_go_there(
    p: Puppet, alice: str
) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    other = p.connect("alice", "s-other")
    p.say(other, m.Fetch(job=A))
    assert isinstance(p.heard("s-a")[-1], m.FileAbort)
    assert isinstance(p.heard("s-other")[-1], m.FileOffer)
    assert [file.facts.session for file in p.world.all(M.SENDING)] == ["s-other"]


def test_results_are_deleted_after_their_time(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.expire(Timer.RETENTION, A)
    assert p.state(M.RESULTS, A) is R.EXPIRED
    assert isinstance(p.done[-1], f.DeleteResults)


# --- the worker leaves ----------------------------------------------------------------------------


def test_a_busy_worker_that_is_asked_to_end_finishes_its_job_and_takes_no_other(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    p.worker(e.TerminateRequested())
    assert p.status is W.DRAINING
    assert (p.state(M.JOB, A), p.state(M.JOB, B)) == (J.RUNNING, J.REJECTED)
    p.say(alice, submission(C))
    assert p.state(M.JOB, C) is J.REJECTED
    p.exit(A)
    p.clean()
    assert p.status is W.STOPPING, "its results are not delivered yet"
    p.collect(A)
    assert (outcome(p, A), p.status) == (Outcome.SUCCEEDED, W.STOPPING)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=1, root=ROOT))
    assert p.status is W.STOPPED
    assert p.state(M.SESSION, "s-a") is None
    assert p.state(M.LINK, alice) is LinkState.CLOSING
    p.answer(f.Farewell, e.Flushed(), alice)
    assert p.state(M.LINK, alice) is None


def test_a_worker_does_not_wait_for_a_client_that_is_gone(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.worker(e.TerminateRequested())
    assert p.status is W.STOPPING
    p.link(alice, e.PeerClosed())
    assert p.status is W.STOPPED


def test_asked_twice_the_worker_ends_its_job_too(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.worker(e.TerminateRequested())
    assert (p.status, p.state(M.JOB, A)) == (W.STOPPING, J.CANCELLING)
    p.expire(Timer.KILL, A)
    p.exit(A, ok=False)
    assert (outcome(p, A), p.status) == (Outcome.WORKER_STOPPED, W.STOPPED)
    assert f.KillEverything in map(type, p.done)


def test_asked_twice_while_it_prepares_the_worker_ends_that_too(p: Puppet, alice: str) -> None:
    p.queue(alice, A)
    p.worker(e.TerminateRequested())
    p.worker(e.TerminateRequested())
    assert outcome(p, A) is Outcome.WORKER_STOPPED


def test_a_worker_that_was_asked_twice_leaves_after_a_minute_whatever_is_left(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.worker(e.TerminateRequested())
    p.expire(Timer.STOP, THE_WORKER)
    assert p.status is W.STOPPED
    assert outcome(p, A) is Outcome.WORKER_STOPPED
    told = [said for said in p.heard("s-a") if isinstance(said, m.JobStateChanged)]
    assert told[-1].state is J.DONE


def test_a_worker_that_leaves_waits_for_results_to_be_packed_and_then_for_whoever_fetches_them(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.exit(A)
    p.clean()
    for _ in range(5):  # packing takes longer than clients have
        p.expire(Timer.LINGER, THE_WORKER)
        assert (p.status, p.state(M.JOB, A)) == (W.STOPPING, J.COLLECTING)
    lingers = (M.WORKER, THE_WORKER, Timer.LINGER)
    serial = p.timers[lingers]
    p.collect(A)
    assert (outcome(p, A), p.state(M.RESULTS, A)) == (Outcome.SUCCEEDED, R.HELD)
    assert p.timers[lingers] > serial, "the time to fetch them begins now"
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=1, root=ROOT))
    assert p.status is W.STOPPED


def test_a_worker_that_leaves_does_not_wait_for_ever_for_whoever_fetches(
    p: Puppet, alice: str
) -> None:
    held(p, alice)
    p.worker(e.TerminateRequested())
    p.expire(Timer.LINGER, THE_WORKER)
    assert p.status is W.STOPPED


@pytest.mark.parametrize("then", ["it runs", "it is cleaned up", "it is packed"])
def test_a_journal_that_breaks_is_no_request_to_end_and_one_request_ends_no_job(
    p: Puppet, alice: str, then: str
) -> None:
    p.run(alice, A)
    p.worker(e.JournalFailed(reason="the disk is full"))
    if then != "it runs":
        p.exit(A)
    if then == "it is packed":
        p.clean()
    p.worker(e.TerminateRequested())
    if then == "it runs":
        assert p.state(M.JOB, A) is J.RUNNING
        p.exit(A)
    if then != "it is packed":
        p.clean()
    p.collect(A)
    assert (outcome(p, A), p.state(M.RESULTS, A)) == (Outcome.SUCCEEDED, R.HELD)
    assert p.status is W.STOPPING
    p.worker(e.TerminateRequested())
    assert p.status is W.STOPPED


def test_a_server_that_refuses_a_worker_is_no_request_to_end(p: Puppet, alice: str) -> None:
    p.server(e.Started())
    p.server(e.SocketOpened())
    p.run(alice, A)
    p.exit(A)
    p.link(alice, e.PeerClosed())
    p.expire(Timer.SESSION, "s-a")
    p.server(e.RecvRefusal(final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="token"))
    p.clean()
    assert p.status is W.STOPPING
    p.worker(e.TerminateRequested())
    assert p.state(M.JOB, A) is J.COLLECTING
    p.collect(A)
    assert (outcome(p, A), p.status) == (Outcome.SUCCEEDED, W.STOPPED)


def test_asked_three_times_the_worker_ends_whatever_runs_and_its_owner_hears_the_outcome(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    for _ in range(3):
        p.worker(e.TerminateRequested())
    assert p.status is W.STOPPED
    assert (outcome(p, A), outcome(p, B)) == (Outcome.WORKER_STOPPED, Outcome.REJECTED)
    told = [said for said in p.heard("s-a") if isinstance(said, m.JobStateChanged)]
    assert (told[-1].job, told[-1].outcome) == (A, Outcome.WORKER_STOPPED)


def test_a_worker_that_ends_hastens_a_job_that_is_stopping_already(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    p.worker(e.TerminateRequested())
    p.worker(e.TerminateRequested())
    assert p.state(M.JOB, A) is J.STOPPING
    assert asked(p, A)[-1] == "TerminateTree"
    p.exit(A)
    p.collect(A)
    assert outcome(p, A) is Outcome.STOPPED_EARLY


def test_a_worker_that_can_not_write_its_journal_finishes_its_job_and_leaves(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.worker(e.JournalFailed(reason="the disk is full"))
    assert (p.status, p.state(M.JOB, A)) == (W.DRAINING, J.RUNNING)
    p.exit(A)
    p.clean()
    p.collect(A)
    assert (p.status, outcome(p, A)) == (W.STOPPING, Outcome.SUCCEEDED)


def test_a_worker_that_has_stopped_takes_nobody(p: Puppet) -> None:
    p.worker(e.TerminateRequested())
    assert p.status is W.STOPPED
    link = p.knock()
    assert p.state(M.LINK, link) is LinkState.CLOSING


def test_an_idle_worker_ends_at_once_and_lets_the_server_go(p: Puppet) -> None:
    p.server(e.Started())
    p.server(e.SocketOpened())
    p.worker(e.TerminateRequested())
    assert (p.status, p.state(M.SIGNALLING, THE_SERVER)) == (W.STOPPED, SignallingState.DOWN)


# --- the signaling server -------------------------------------------------------------------------


def test_losing_the_server_disturbs_no_link_no_session_and_no_job(p: Puppet, alice: str) -> None:
    p.server(e.Started())
    p.server(e.SocketOpened())
    p.server(e.RecvRegistered(room="r-1"))
    p.run(alice, A)
    before = len(p.told)
    p.server(e.SocketFailed(reason="gone"))
    assert p.state(M.SIGNALLING, THE_SERVER) is SignallingState.BACKOFF
    assert p.state(M.LINK, alice) is LinkState.UP
    assert p.state(M.SESSION, "s-a") is SessionState.ATTACHED
    assert p.state(M.JOB, A) is J.RUNNING
    assert len(p.told) == before


def test_a_worker_whom_the_server_refuses_ends_when_nobody_is_attached(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.server(e.Started())
    p.server(e.SocketOpened())
    p.server(
        e.RecvRefusal(final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="the token is wrong")
    )
    assert p.status is W.BUSY
    p.exit(A)
    p.collect(A)
    p.clean()
    assert p.status is W.AVAILABLE, "alice is still here"
    p.say(alice, m.Bye())
    assert p.status is W.STOPPED


# --- the world itself -----------------------------------------------------------------------------


def test_an_event_for_what_is_not_there_makes_nothing(p: Puppet) -> None:
    for machine, subject, event in (
        (M.JOB, A, e.SlotGranted()),
        (M.SESSION, "s-x", e.LinkLost(link="l-x", farewell=False)),
        (M.LINK, "l-x", e.PeerClosed()),
        (M.SENDING, "s-x/1", e.LinkCut()),
    ):
        step = p.feed(machine, subject, event)[0]
        assert step.verdict is Verdict.STALE
        assert "there is no such" in step.sentence
        assert p.state(machine, subject) is None


def test_couplings_that_undo_each_other_are_found_out() -> None:
    def restless(_world: World) -> list[Forced]:
        return [Forced(M.WORKER, THE_WORKER, e.Started())]

    world = worker_world()
    world.couplings = (Coupling("X", "always", "worker: started", lambda w: iter(restless(w))),)
    with pytest.raises(CouplingError, match="no fixed point"):
        world.feed(M.WORKER, THE_WORKER, e.Started())


def test_an_event_that_fires_no_row_forces_nothing() -> None:
    world = worker_world()
    steps = world.feed(M.WORKER, THE_WORKER, e.AllDone())
    assert [step.verdict for step in steps] == [Verdict.ILLEGAL]


# --- the client's world ---------------------------------------------------------------------------


def dial(world: World, link: str, generation: int, key: str = "Kw", session: str = "s-a") -> None:
    """A client's link from its offer to the worker's proof."""
    for event in (
        e.DialRequested(peer="w-1", session=session, generation=generation),
        e.RecvAnswer(sdp="v=0"),
        e.IceCompleted(),
        e.ControlOpened(native=True),
        e.Received(message=m.Hello(versions=(1,), role="worker", key=key, nonce="N"), link=link),
        e.Received(message=m.Proof(signature="S"), link=link),
        e.ProofChecked(proved=True, trusted=True),
    ):
        steps = world.feed(M.LINK, link, event)
        assert steps[0].verdict is Verdict.ROW, steps[0].sentence


def test_a_client_attaches_loses_its_link_and_resumes_with_the_next() -> None:
    world = client_world()
    world.feed(M.SESSION, "s-a", e.Started())
    session = world.machines[M.SESSION]["s-a"]
    dial(world, "l-1", 1)
    assert (session.state, session.facts.link) == (SessionState.ATTACHED, "l-1")
    offer = m.FileOffer(transfer=1, job=A, name=f"{A}.zip", size=SIZE, root=ROOT)
    taken = e.Received(message=offer, link="l-1", session="s-a", key="Kw")
    world.feed(M.RECEIVING, "s-a/1", taken)
    world.feed(M.LINK, "l-1", e.PeerClosed())
    assert session.state is SessionState.DETACHED
    assert world.machines[M.RECEIVING]["s-a/1"].state is ReceivingState.SUSPENDED
    dial(world, "l-2", 2)
    assert (session.state, session.facts.link) == (SessionState.ATTACHED, "l-2")
    assert world.machines[M.RECEIVING]["s-a/1"].state is ReceivingState.RECEIVING


def test_a_client_s_files_end_with_its_session() -> None:
    world = client_world()
    world.feed(M.SESSION, "s-a", e.Started())
    dial(world, "l-1", 1)
    world.feed(
        M.SENDING,
        "s-a/1",
        e.SendRequested(
            session="s-a", transfer=1, job=A, path="/tmp/a", name="a", size=1, root=ROOT
        ),
    )
    world.feed(M.LINK, "l-1", e.Received(message=m.Bye(), link="l-1"))
    assert world.all(M.SESSION) == world.all(M.SENDING) == world.all(M.LINK) == []


def test_a_second_worker_with_another_key_is_not_the_same_worker() -> None:
    world = client_world()
    world.feed(M.SESSION, "s-a", e.Started())
    dial(world, "l-1", 1)
    world.feed(M.LINK, "l-1", e.PeerClosed())
    dial(world, "l-2", 2, key="Kx")
    assert world.machines[M.SESSION]["s-a"].state is SessionState.DETACHED
    assert world.machines[M.LINK]["l-2"].state is LinkState.CLOSING


def test_a_client_that_has_its_link_gives_up_the_others_that_it_dialled() -> None:
    world = client_world()
    world.feed(M.SESSION, "s-a", e.Started())
    slow = e.DialRequested(peer="w-1", session="s-a", generation=1)
    world.feed(M.LINK, "l-1", slow)
    dial(world, "l-2", 2)
    assert world.get(M.LINK, "l-1") is None
    assert world.machines[M.SESSION]["s-a"].facts.link == "l-2"


def client_at_work() -> World:
    """A client's world, its session begun."""
    world = client_world()
    world.feed(M.SIGNALLING, THE_SERVER, e.Started())
    world.feed(M.SESSION, "s-1", e.Started())
    return world


def dialled(steps: list[Step]) -> int:
    return sum(isinstance(effect, f.Dial) for step in steps for effect in step.effects)


def test_a_client_dials_when_it_is_in_the_room_and_not_before() -> None:
    world = client_at_work()
    world.feed(M.SIGNALLING, THE_SERVER, e.SocketOpened())
    assert dialled(world.feed(M.SIGNALLING, THE_SERVER, e.RecvRegistered(room="r"))) == 1
    lost = world.feed(M.SIGNALLING, THE_SERVER, e.SocketFailed(reason="the server went"))
    assert [step.row for step in lost if step.machine is M.SESSION] == ["K36"]
    world.feed(M.SIGNALLING, THE_SERVER, e.TimerExpired(timer=Timer.DELAY, serial=5))
    assert world.get(M.SESSION, "s-1").facts.in_room is False


def test_a_client_whom_the_server_refuses_is_told_at_once() -> None:
    world = client_at_work()
    world.feed(M.SIGNALLING, THE_SERVER, e.SocketOpened())
    world.feed(
        M.SIGNALLING,
        THE_SERVER,
        e.RecvRefusal(final=False, code=ErrorCode.ABORTED, reason="the room is full"),
    )
    closed = world.get(M.SESSION, "s-1")
    assert closed is None  # over, and forgotten


def refused_for_good(world: World) -> list[Step]:
    """The server was lost, and has forgotten this client; its timer of a new attempt ran out."""
    steps: list[Step] = []
    world.feed(M.SIGNALLING, THE_SERVER, e.SocketFailed(reason="the server went"))
    serial = world.get(M.SIGNALLING, THE_SERVER).armed[Timer.DELAY]
    for event in (
        e.TimerExpired(timer=Timer.DELAY, serial=serial),
        e.SocketOpened(),
        e.RecvRefusal(final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="it has restarted"),
    ):
        steps += world.feed(M.SIGNALLING, THE_SERVER, event)
    return steps


def client_in_session() -> World:
    """A client's world, its session welcomed."""
    world = client_at_work()
    world.feed(M.SIGNALLING, THE_SERVER, e.SocketOpened())
    world.feed(M.SIGNALLING, THE_SERVER, e.RecvRegistered(room="r"))
    dial(world, "l-1", 1, session="s-1")
    welcome = m.Welcome(session="s-1", received=0, rights=(), worker="w")
    world.feed(M.SESSION, "s-1", e.Received(message=welcome, link="l-1", session="s-1"))
    return world


def test_a_client_that_the_server_refuses_keeps_its_link_and_ends_after_it_for_that_reason() -> (
    None
):
    world = client_in_session()
    refused_for_good(world)
    assert world.get(M.SESSION, "s-1").state is SessionState.ATTACHED
    lost = world.feed(M.LINK, "l-1", e.PeerClosed())
    assert [step.row for step in lost if step.machine is M.SESSION] == ["K43", "K44"]
    assert not dialled(lost)
    assert lost[-1].facts.code is ErrorCode.NOT_AUTHENTICATED
    assert lost[-1].facts.reason == "it has restarted"


def test_a_link_that_has_the_worker_s_answer_may_come_up_though_the_server_refuses_its_client() -> (
    None
):
    world = client_in_session()
    world.feed(M.LINK, "l-1", e.PeerClosed())
    again = e.DialRequested(peer="w-1", session="s-1", generation=2)
    for event in (again, e.RecvAnswer(sdp="v=0")):
        world.feed(M.LINK, "l-2", event)
    refused_for_good(world)
    assert world.get(M.SESSION, "s-1").state is SessionState.DETACHED
    steps = world.feed(M.LINK, "l-2", e.IceFailed())
    assert [step.row for step in steps if step.machine is M.SESSION] == ["K44"]


def test_a_client_goes_on_after_a_link_that_did_not_come_up_and_says_in_the_end_why_none_did() -> (
    None
):
    world = client_at_work()
    world.feed(M.SIGNALLING, THE_SERVER, e.SocketOpened())
    world.feed(M.SIGNALLING, THE_SERVER, e.RecvRegistered(room="r"))
    world.feed(M.SESSION, "s-1", e.LinkRefused(reason="no network path was found in time"))
    session = world.get(M.SESSION, "s-1")
    assert session.state is SessionState.DETACHED
    serial = session.armed[Timer.SESSION]
    steps = world.feed(M.SESSION, "s-1", e.TimerExpired(timer=Timer.SESSION, serial=serial))
    assert steps[0].facts.code is ErrorCode.UNREACHABLE
    assert steps[0].facts.reason.endswith("reached: no network path was found in time")
