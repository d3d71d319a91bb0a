"""What users are promised, one sentence each, tried on the whole world of a worker.

A law says what people want, and nothing about rows. A new one is a function here: `p` is a worker
that is available and knows alice and bob, `alice` is her link. At most 60, so that they are read.
"""

from typing import Any

import pytest
from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Timer
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
    WorkerState,
)
from protocol.table import MachineName
from tests.machines.puppet import SIZE, Puppet, submission
from tests.protocol.samples import ROOT

M, W, J, R = MachineName, WorkerState, JobState, ResultsState
A, B = "job-aaaaaaaa", "job-bbbbbbbb"
MOST = 60


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


def did(p: Puppet, kind: type[Effect], subject: str = "") -> list[Any]:
    """The effects of this kind, oldest first."""
    return [one for one in p.done if isinstance(one, kind) and subject in {"", one.subject}]


def last(p: Puppet, session: str = "s-a") -> Any:
    """What this session heard last."""
    return p.heard(session)[-1]


def outcome(p: Puppet, job: str = A) -> Outcome:
    """How a job ended."""
    value: Outcome = p.facts(M.JOB, job).outcome
    return value


def held(p: Puppet, link: str) -> None:
    """A has ended, and its results are ready."""
    p.run(link, A)
    p.exit(A)
    p.clean()
    p.collect(A)


# --- a worker that is to end ----------------------------------------------------------------------


def test_a_first_interrupt_never_kills_a_running_job(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    assert p.state(M.JOB, A) is J.RUNNING
    assert not did(p, f.TerminateTree) + did(p, f.KillTree) + did(p, f.RequestStop)


def test_a_worker_that_is_to_end_takes_no_new_job(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.say(alice, submission(B))
    assert (p.state(M.JOB, B), outcome(p, B)) == (J.REJECTED, Outcome.REJECTED)
    assert p.facts(M.JOB, B).problems[0].code is ErrorCode.WORKER_LEAVING


def test_a_worker_that_is_to_end_hands_its_results_over_first(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.worker(e.TerminateRequested())
    assert p.status is W.STOPPING
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=1, root=ROOT))
    assert p.status is W.STOPPED


def test_a_worker_that_waits_for_a_client_waits_for_so_long_and_no_longer(
    p: Puppet, alice: str
) -> None:
    held(p, alice)
    p.worker(e.TerminateRequested())
    p.expire(Timer.LINGER, THE_WORKER)
    assert p.status is W.STOPPED


@pytest.mark.parametrize("bad", [e.CleanFailed(reason="it is there"), None])
def test_a_worker_that_is_to_end_ends_even_if_its_gpu_is_not_clean(
    p: Puppet, alice: str, bad: e.CleanFailed | None
) -> None:
    p.run(alice, A)
    p.worker(e.TerminateRequested())
    p.exit(A)
    if bad is None:
        p.expire(Timer.CLEAN, THE_WORKER)
    else:
        p.answer(f.CleanSlot, bad)
    assert p.status is W.STOPPING
    p.collect(A)
    p.expire(Timer.LINGER, THE_WORKER)
    assert p.status is W.STOPPED


def test_a_worker_that_goes_leaves_no_process(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    for _ in range(3):
        p.worker(e.TerminateRequested())
    assert did(p, f.KillEverything)
    assert p.status is W.STOPPED


def test_a_worker_that_can_not_write_down_what_it_promises_promises_nothing(p: Puppet) -> None:
    p.worker(e.JournalFailed(reason="the disk is full"))
    assert p.status in {W.STOPPING, W.STOPPED}


def test_a_broken_journal_kills_no_running_job(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.worker(e.JournalFailed(reason="the disk is full"))
    assert (p.status, p.state(M.JOB, A)) == (W.DRAINING, J.RUNNING)


# --- the slot -------------------------------------------------------------------------------------


def test_a_gpu_is_promised_only_when_it_is_proved_free(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    p.exit(A)
    assert (p.status, p.state(M.JOB, B)) == (W.CLEANING, J.QUEUED)
    p.clean()
    assert p.state(M.JOB, B) is J.PREPARING


def test_a_gpu_that_can_not_be_proved_free_is_looked_at_again_by_itself(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.exit(A)
    p.answer(f.CleanSlot, e.CleanFailed(reason="7 is there"))
    assert p.status is W.DEGRADED
    p.expire(Timer.PROBE, THE_WORKER)
    p.clean()
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    assert (p.status, p.facts(M.WORKER, THE_WORKER).reason) == (W.AVAILABLE, "")


def test_a_driver_that_hangs_does_not_hang_the_worker() -> None:
    p = Puppet()
    p.worker(e.Started())
    p.expire(Timer.PROBE, THE_WORKER)
    assert p.status is W.DEGRADED
    assert p.facts(M.WORKER, THE_WORKER).reason
    assert (M.WORKER, THE_WORKER, Timer.PROBE) in p.timers


def test_who_waits_for_the_slot_waits_in_the_order_of_coming(p: Puppet, alice: str) -> None:
    for number, job in enumerate((A, B, "job-cccccccc"), 1):
        p.queue(alice, job, number)
    assert [p.state(M.JOB, job) for job in (A, B, "job-cccccccc")] == [
        J.PREPARING, J.QUEUED, J.QUEUED,
    ]  # fmt: skip


def test_everybody_sees_at_once_what_the_worker_does(p: Puppet, alice: str) -> None:
    before = len(did(p, f.PublishStatus))
    p.run(alice, A)
    p.exit(A)
    p.clean()
    assert [one.after for one in did(p, f.PublishStatus)[before:]] == [
        W.BUSY, W.CLEANING, W.AVAILABLE,
    ]  # fmt: skip


# --- a job ----------------------------------------------------------------------------------------


def test_a_job_never_ends_because_its_client_leaves(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Bye())
    assert p.state(M.JOB, A) is J.RUNNING
    p.exit(A)
    p.collect(A)
    assert outcome(p) is Outcome.SUCCEEDED


def test_stop_keeps_the_model_and_cancel_throws_it_away(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    p.exit(A)
    assert did(p, f.CollectOutputs, A)
    p.clean()
    p.run(alice, B, 2)
    p.say(alice, m.Cancel(job=B))
    p.exit(B, ok=False)
    assert not did(p, f.CollectOutputs, B)
    assert outcome(p, B) is Outcome.CANCELLED


def test_a_stop_is_polite_first_and_gets_harder_only_with_time(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    p.expire(Timer.REPEAT, A)
    for _ in range(3):
        p.expire(Timer.STEP, A)
    kinds = (f.RequestStop, f.InterruptTree, f.TerminateTree, f.KillTree)
    asked = [type(one) for one in p.done if isinstance(one, kinds)]
    assert asked == [f.RequestStop, *kinds]


def test_a_process_that_does_not_die_costs_the_job_its_time_and_not_its_results(
    p: Puppet, alice: str
) -> None:
    p.run(alice, A)
    p.say(alice, m.Stop(job=A))
    for _ in range(3):
        p.expire(Timer.STEP, A)
    p.exit(A, ok=False)
    p.collect(A)
    assert (outcome(p), p.state(M.RESULTS, A)) == (Outcome.STOPPED_EARLY, R.HELD)


def test_what_can_not_be_killed_is_said_to_be_there(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Cancel(job=A))
    p.expire(Timer.KILL, A)
    p.expire(Timer.UNKILLABLE, A)
    codes = [problem.code for problem in p.facts(M.JOB, A).problems]
    assert (outcome(p), codes) == (Outcome.CANCELLED, [ErrorCode.UNKILLABLE])


def test_a_job_that_takes_too_long_is_stopped_and_keeps_what_it_has(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A, wall_s=60.0))
    p.send_package(alice, A)
    p.answer(f.ValidatePackage, e.ValidationPassed(stages=1), A)
    p.answer(f.PrepareRun, e.Prepared(gpu_free=True), A)
    p.expire(Timer.WALL, A)
    p.exit(A)
    p.collect(A)
    assert (outcome(p), p.state(M.RESULTS, A)) == (Outcome.TIMED_OUT, R.HELD)


def test_a_job_submitted_twice_is_one_job(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, submission(A))
    assert isinstance(last(p), m.JobSnapshot)
    assert (len(p.world.all(M.JOB)), p.state(M.JOB, A)) == (1, J.RUNNING)


def test_an_id_means_one_job_for_ever(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, submission(A, wall_s=9.0))
    assert p.errors("s-a") == [ErrorCode.JOB_CONFLICT]


def test_a_failed_job_says_why(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.exit(A, ok=False)
    p.collect(A)
    problem = p.facts(M.JOB, A).problems[0]
    assert (outcome(p), problem.code, problem.sentence) == (
        Outcome.FAILED, ErrorCode.EXITED, "it ended",
    )  # fmt: skip


def test_memory_that_is_full_is_called_so(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.exit(A, ok=False, out_of_memory=True)
    assert outcome(p) is Outcome.OUT_OF_MEMORY


def test_a_failed_job_leaves_what_it_has_made(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.exit(A, ok=False)
    p.collect(A)
    assert p.state(M.RESULTS, A) is R.HELD


@pytest.mark.parametrize("word", [m.Stop, m.Cancel])
def test_who_asks_an_ended_job_to_end_hears_that_it_has(
    p: Puppet, alice: str, word: type[Any]
) -> None:
    held(p, alice)
    p.say(alice, word(job=A))
    assert p.errors("s-a") == [ErrorCode.ALREADY_TERMINAL]


@pytest.mark.parametrize("word", [m.Stop, m.Cancel])
def test_who_asks_twice_hears_that_it_is_under_way(p: Puppet, alice: str, word: type[Any]) -> None:
    p.run(alice, A)
    p.say(alice, m.Cancel(job=A))
    p.say(alice, word(job=A))
    assert p.errors("s-a") == [ErrorCode.IN_PROGRESS]


def test_a_log_can_be_read_at_any_time(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.LogGet(job=A))
    assert isinstance(last(p), m.LogEnd)
    p.say(alice, m.Cancel(job=A))
    p.say(alice, m.LogGet(job=A))
    assert isinstance(last(p), m.LogEnd)


def test_a_package_that_is_not_runnable_never_costs_an_upload(p: Puppet, alice: str) -> None:
    offer = structs.replace(submission(A), spec=m.JobSpec(name="x", kind="other"))
    p.say(alice, offer)
    assert p.state(M.JOB, A) is J.REJECTED
    assert last(p).problems[0].code is ErrorCode.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("timer", "code"),
    [
        (Timer.STAGING, ErrorCode.INPUTS_NEVER_ARRIVED),
        (Timer.PREFLIGHT, ErrorCode.PREFLIGHT_TIMEOUT),
        (Timer.PREPARE, ErrorCode.SETUP_FAILED),
        (Timer.COLLECT, ErrorCode.RESULTS_PARTIAL),
    ],
)
def test_nothing_waits_for_ever_and_every_end_has_its_name(
    p: Puppet, alice: str, timer: Timer, code: ErrorCode
) -> None:
    p.say(alice, submission(A))
    if timer is not Timer.STAGING:
        p.send_package(alice, A)
    if timer in {Timer.PREPARE, Timer.COLLECT}:
        p.answer(f.ValidatePackage, e.ValidationPassed(stages=1), A)
    if timer is Timer.COLLECT:
        p.answer(f.PrepareRun, e.Prepared(gpu_free=True), A)
        p.exit(A)
    p.expire(timer, A)
    assert p.state(M.JOB, A) in {J.DONE, J.REJECTED}
    assert p.facts(M.JOB, A).problems[-1].code is code


def test_a_program_that_does_not_start_fails_its_job_and_no_other(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.queue(alice, B, 2)
    broken = e.EffectFailed(effect="start_stage", reason="no such program")
    p.answer(f.StartStage, broken, A)
    assert outcome(p) is Outcome.FAILED
    p.clean()
    assert p.state(M.JOB, B) is J.PREPARING


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("word", [m.Stop, m.Cancel])
def test_a_job_that_was_to_end_and_never_began_ends_as_was_asked(
    p: Puppet, alice: str, word: type[Any], killed: bool
) -> None:
    p.run(alice, A)
    p.say(alice, word(job=A))
    timers = (Timer.KILL,) if word is m.Cancel else (Timer.STEP,) * 3
    for timer in timers if killed else ():
        p.expire(timer, A)
    p.answer(f.StartStage, e.EffectFailed(effect="start_stage", reason="no program"), A)
    assert outcome(p) is (Outcome.CANCELLED if word is m.Cancel else Outcome.STOPPED_EARLY)
    assert bool(did(p, f.DiscardOutputs, A)) is (word is m.Cancel)


# --- files and results ----------------------------------------------------------------------------


def test_no_byte_is_sent_twice_because_a_link_broke(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.link(alice, e.PeerClosed())
    assert p.state(M.RECEIVING, "s-a/1") is ReceivingState.SUSPENDED
    p.connect("alice", "s-a", 2)
    assert did(p, f.AskMissing)
    assert not did(p, f.DropIncoming)


def test_a_file_is_taken_when_its_hash_is_right_and_not_before(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    p.feed(M.RECEIVING, "s-a/1", e.ChunksCompleted())
    assert p.state(M.JOB, A) is J.STAGING
    p.answer(f.VerifyIncoming, e.DigestMatched())
    assert p.state(M.JOB, A) is J.VALIDATING
    assert m.FileStored in map(type, p.heard("s-a"))


def test_a_slow_upload_is_no_dead_upload(p: Puppet, alice: str) -> None:
    p.say(alice, submission(A))
    p.say(alice, m.FileOffer(transfer=1, job=A, name="package.zip", size=SIZE, root=ROOT))
    for machine, subject, timer in ((M.JOB, A, Timer.STAGING), (M.RECEIVING, "s-a/1", Timer.IDLE)):
        first = p.timers[machine, subject, timer]
        p.feed(machine, subject, e.FileProgressed())
        assert p.timers[machine, subject, timer] > first, "its time begins anew"


def test_results_wait_for_their_owner_whoever_disconnects(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.Bye())
    assert p.state(M.RESULTS, A) is R.HELD
    assert (M.RESULTS, A, Timer.RETENTION) in p.timers


def test_delivered_is_what_the_client_has_stored_with_the_right_hash(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=1, root="0" * 64))
    assert p.state(M.RESULTS, A) is R.HELD
    p.say(alice, m.Fetch(job=A))
    p.say(alice, m.FileStored(transfer=2, root=ROOT))
    assert p.state(M.RESULTS, A) is R.DELIVERED
    p.expire(Timer.RETENTION, A)
    assert did(p, f.DeleteResults)


def test_results_can_be_fetched_again(p: Puppet, alice: str) -> None:
    held(p, alice)
    for transfer in (1, 2):
        p.say(alice, m.Fetch(job=A))
        assert isinstance(last(p), m.FileOffer)
        p.say(alice, m.FileStored(transfer=transfer, root=ROOT))
    assert p.state(M.RESULTS, A) is R.DELIVERED


def test_who_asks_for_results_that_are_not_there_hears_why(p: Puppet, alice: str) -> None:
    p.run(alice, A)
    p.say(alice, m.Fetch(job=A))
    assert p.errors("s-a") == [ErrorCode.RESULTS_NOT_READY]
    p.exit(A)
    p.clean()
    p.collect(A)
    p.expire(Timer.RETENTION, A)
    p.say(alice, m.Fetch(job=A))
    assert p.errors("s-a")[-1] is ErrorCode.RESULTS_EXPIRED


def test_a_slow_download_is_no_dead_download(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    first = p.timers[M.RESULTS, A, Timer.DELIVERY]
    p.feed(M.RESULTS, A, e.FileProgressed())
    assert p.timers[M.RESULTS, A, Timer.DELIVERY] > first


def test_only_what_is_asked_for_is_sent(p: Puppet, alice: str) -> None:
    held(p, alice)
    p.say(alice, m.Fetch(job=A))
    assert p.state(M.SENDING, "s-a/1") is SendingState.OFFERED
    p.say(alice, m.FileNeed(transfer=1, ranges=((0, 10),)))
    assert did(p, f.SendRanges)[-1].event.message.ranges == ((0, 10),)


# --- links, sessions, keys ------------------------------------------------------------------------


def test_nobody_is_heard_before_the_proof(p: Puppet) -> None:
    link = p.knock()
    p.reach(link)
    p.hello(link, "alice", "s-a")
    p.say(link, submission(A))
    assert p.state(M.LINK, link) is None
    assert not did(p, f.ReadMessage)
    assert did(p, f.ClosePeer)
    assert did(p, f.ReportLinkFailure)[-1].code is ErrorCode.NOT_AUTHENTICATED


def test_a_session_name_alone_is_worth_nothing(p: Puppet, alice: str) -> None:
    link = p.connect("bob", "s-a", 9)
    assert p.facts(M.SESSION, "s-a").link == alice
    assert p.state(M.LINK, link) is LinkState.CLOSING


def test_a_link_that_comes_late_does_not_take_over_from_a_newer_one(p: Puppet) -> None:
    newer = p.connect("alice", "s-a", 2)
    late = p.connect("alice", "s-a", 1)
    assert p.facts(M.SESSION, "s-a").link == newer
    assert p.state(M.LINK, late) is None
    assert did(p, f.ClosePeer, late)


def test_whoever_answers_in_time_is_alive(p: Puppet, alice: str) -> None:
    p.expire(Timer.PING, alice)
    assert did(p, f.KeepIceAlive)
    p.expire(Timer.QUIET, alice)
    assert p.state(M.LINK, alice) is LinkState.SUSPECT
    p.say(alice, m.Pong(n=1))
    assert p.state(M.LINK, alice) is LinkState.UP
    assert (M.LINK, alice, Timer.LOST) not in p.timers
    assert {(M.LINK, alice, timer) for timer in (Timer.PING, Timer.QUIET)} <= set(p.timers)


@pytest.mark.parametrize("word", [m.Ping(n=1), m.Pong(n=1), m.Ack(), m.WorkerGet(), m.JobsGet()])
def test_everything_that_is_said_is_a_sign_of_life(p: Puppet, alice: str, word: m.Message) -> None:
    before = dict(p.timers)
    p.say(alice, word)
    for timer in (Timer.PING, Timer.QUIET):
        assert p.timers[M.LINK, alice, timer] > before[M.LINK, alice, timer]


def test_what_is_numbered_is_acknowledged_also_when_it_comes_twice(p: Puppet, alice: str) -> None:
    p.say(alice, m.JobsGet(), number=1)
    p.say(alice, m.JobsGet(), number=1)
    assert len(did(p, f.SendAck)) == 2
    assert [type(said) for said in p.heard("s-a")].count(m.Jobs) == 1


def test_a_gap_ends_the_link_and_not_the_session(p: Puppet, alice: str) -> None:
    p.say(alice, m.JobsGet(), number=3)
    assert p.state(M.LINK, alice) is None
    assert p.state(M.SESSION, "s-a") is SessionState.DETACHED
    assert (M.SESSION, "s-a", Timer.SESSION) in p.timers


def test_a_client_that_never_comes_back_is_forgotten(p: Puppet, alice: str) -> None:
    p.link(alice, e.PeerClosed())
    p.expire(Timer.SESSION, "s-a")
    assert p.state(M.SESSION, "s-a") is None
    assert did(p, f.ForgetSession)


def test_a_client_of_sleap_rtc_comes_in_by_the_room_secret_where_there_is_one(p: Puppet) -> None:
    link = p.visit(secret=True)
    assert did(p, f.SendChallenge, link)
    assert p.state(M.GUEST, link) is None
    p.link(link, e.ProofChecked(proved=True, trusted=True))
    assert p.state(M.GUEST, link) is GuestState.WAITING
    assert did(p, f.AdmitGuest, link)
    p.link(link, e.PeerClosed())
    assert p.state(M.SESSION, f"guest-{link}") is None, "nothing resumes it"


# --- guests ---------------------------------------------------------------------------------------


def submitted(p: Puppet) -> str:
    """A guest whose package the worker has."""
    link = p.visit()
    for event in (
        e.PackageNamed(kind="track"),
        e.PackageAnnounced(name="digits.zip", size=SIZE, gui=True),
        e.PackageEnded(),
    ):
        p.feed(M.GUEST, link, event)
    p.answer(f.CheckPackage, e.PackageChecked(root=ROOT, job=A, stages=("digits",)))
    return link


def test_a_guest_hears_the_end_after_everything_that_was_printed(p: Puppet) -> None:
    link = submitted(p)
    done = e.JobTold(state=J.DONE, outcome=Outcome.SUCCEEDED, results=m.ResultsInfo(root=ROOT))
    p.feed(M.GUEST, link, done)
    assert not did(p, f.TellEnd)
    p.feed(M.GUEST, link, e.LogOver())
    assert len(did(p, f.TellEnd)) == 1
    assert did(p, f.FetchResults)


def test_a_guest_hears_of_each_command_once(p: Puppet) -> None:
    link = submitted(p)
    for stage in (0, 0, 1):
        p.feed(M.GUEST, link, e.JobTold(state=J.RUNNING, stage=stage))
    assert [one.facts.stage for one in did(p, f.TellStage)] == [0, 1]


def test_a_guest_can_send_its_next_package_when_its_job_has_ended(p: Puppet) -> None:
    link = submitted(p)
    p.feed(M.GUEST, link, e.LogOver())
    p.feed(M.GUEST, link, e.JobTold(state=J.REJECTED, outcome=Outcome.REJECTED))
    assert p.state(M.GUEST, link) is GuestState.WAITING
    p.feed(M.GUEST, link, e.PackageAnnounced(name="two.zip", size=SIZE, gui=False))
    facts = p.facts(M.GUEST, link)
    assert (facts.job, facts.outcome, facts.log_over, facts.name) == (
        "", Outcome.NONE, False, "two.zip",
    )  # fmt: skip


def test_a_guest_that_stops_stops_and_that_cancels_cancels(p: Puppet) -> None:
    link = submitted(p)
    p.feed(M.GUEST, link, e.StopAsked())
    assert (len(did(p, f.AskStop)), len(did(p, f.AskCancel))) == (1, 0)
    p.feed(M.GUEST, link, e.CancelAsked())
    assert (len(did(p, f.AskStop)), len(did(p, f.AskCancel))) == (1, 1)


# --- the server -----------------------------------------------------------------------------------


def test_a_worker_looks_for_its_server_for_ever(p: Puppet) -> None:
    p.server(e.Started())
    for _ in range(5):
        p.server(e.SocketFailed(reason="refused"))
        assert p.state(M.SIGNALLING, THE_SERVER) is SignallingState.BACKOFF
        p.expire(Timer.DELAY, THE_SERVER)
    assert p.facts(M.SIGNALLING, THE_SERVER).tries == 5
    assert len(did(p, f.OpenSocket)) == 6


def test_a_server_that_is_back_for_long_is_trusted_again(p: Puppet) -> None:
    p.server(e.Started())
    p.server(e.SocketFailed(reason="refused"))
    p.expire(Timer.DELAY, THE_SERVER)
    p.server(e.SocketOpened())
    p.server(e.RecvRegistered(room="r-1"))
    assert did(p, f.ReportReady)
    p.expire(Timer.STABLE, THE_SERVER)
    assert p.facts(M.SIGNALLING, THE_SERVER).tries == 0


# --- the free slot --------------------------------------------------------------------------------


def test_the_slot_that_i_reserve_waits_for_my_job_and_for_nobody_else_s(
    p: Puppet, alice: str
) -> None:
    bob = p.connect("bob", "s-b")
    p.say(alice, m.Reserve(need={"cpus": "2"}))
    p.queue(bob, B)
    assert (p.status, p.state(M.JOB, B)) == (W.RESERVED, J.QUEUED)
    p.run(alice, A)
    assert (p.state(M.JOB, A), p.state(M.JOB, B)) == (J.RUNNING, J.QUEUED)


def test_a_reservation_that_nobody_uses_ends_and_its_holder_hears_so(p: Puppet, alice: str) -> None:
    bob = p.connect("bob", "s-b")
    p.say(alice, m.Reserve())
    p.say(bob, m.Release())
    p.say(bob, m.Reserve())
    assert last(p, "s-b").code is ErrorCode.WORKER_BUSY
    p.expire(Timer.LEASE, THE_WORKER)
    assert last(p).code is ErrorCode.RESERVATION_EXPIRED
    p.say(bob, m.Reserve())
    assert isinstance(last(p, "s-b"), m.Reserved)


def test_a_break_lets_the_running_job_finish_and_no_other_begin_until_it_is_over() -> None:
    p = Puppet("alice", "olga", operators={"olga"})
    p.start()
    alice, olga = p.connect("alice", "s-a"), p.connect("olga", "s-o")
    p.run(alice, A)
    p.queue(alice, B, 2)
    p.say(olga, m.Drain())
    assert p.state(M.JOB, A) is J.RUNNING
    p.exit(A)
    p.clean()
    assert (p.status, p.state(M.JOB, B)) == (W.MAINTENANCE, J.QUEUED)
    p.say(olga, m.Undrain())
    p.answer(f.ProbeHost, e.ProbeSucceeded(capabilities=m.Capabilities()))
    assert p.state(M.JOB, B) is J.PREPARING


def test_a_job_that_has_had_its_time_before_a_break_is_stopped_and_keeps_its_model() -> None:
    p = Puppet("alice", "olga", operators={"olga"})
    p.start()
    alice, olga = p.connect("alice", "s-a"), p.connect("olga", "s-o")
    p.run(alice, A)
    p.say(olga, m.Drain(deadline_s=60.0))
    p.expire(Timer.DRAIN, THE_WORKER)
    assert did(p, f.RequestStop, A)
    p.exit(A)
    p.collect(A)
    assert p.facts(M.JOB, A).outcome is Outcome.STOPPED_EARLY
    assert p.state(M.RESULTS, A) is R.HELD


def test_the_laws_can_be_read() -> None:
    mine = [name for name in globals() if name.startswith("test_")]
    assert len(mine) <= MOST
