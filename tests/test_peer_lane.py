"""Clients of sleap-rtc that negotiate through the signaling server, at a worker's real machines."""

from typing import Any

import pytest

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect, Owner
from fsm_worker.events import Timer
from fsm_worker.machines.coupled_talks import KEEP_TALKS
from fsm_worker.machines.reservation import RENEWALS
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.seams.peer_lane import PeerLane
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, TalkState, WorkerState
from protocol.signaling import PeerMessage
from protocol.sleap_rtc.peer import PEER_WORDS, read_peer
from protocol.table import Direction, MachineName
from tests.machines.puppet import Puppet, submission

M, W, J = MachineName, WorkerState, JobState
KEY = "sleap-rtc:p-1"
JOB = "job-aaaaaaaa"
#: As `RTCClient.submit_training_job` of sleap-rtc 0.0.7 writes it.
REQUEST: dict[str, Any] = {
    "app_message_type": "job_request",
    "job_id": "7f2c",
    "job_type": "training",
    "dataset_info": {"format": "slp", "path": "/data/flies.slp", "estimated_size_mb": 12.5},
    "config": {"model_type": "centroid", "epochs": 10},
    "requirements": {},
}
ASSIGNMENT = {"app_message_type": "job_assignment", "job_id": "7f2c", "initiate_connection": True}
CANCEL = {"app_message_type": "job_cancel", "job_id": "7f2c", "reason": "user"}


class Place:
    """A worker, its lane, and what its peers were told."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.p = Puppet(meets=("runner",))
        self.p.start()
        self.sent: list[tuple[str, m.Message]] = []
        self.signals: list[PeerMessage] = []
        self.lane = PeerLane(
            self.p.world,
            emit=self.p.post,
            send=lambda *sent: self.sent.append(sent),
            signal=self.signals.append,
            allowed=allowed,
        )
        self.lane.name = "w-1"
        self.p.elsewhere, self.p.perform = self.elsewhere, self.perform

    def elsewhere(self, where: str, message: m.Message) -> None:
        """As the coordinator does: an owner is told by its key, an asker at its place."""
        (self.lane.tell if where == KEY else self.lane.send)(where, message)

    def perform(self, effect: Effect) -> None:
        """As the runtime does with what is the lane's."""
        if effect.owner is Owner.PEERS:
            getattr(self.lane, effect.method())(effect)

    def hears(self, payload: dict[str, Any], peer: str = "p-1") -> list[dict[str, Any]]:
        """What peers are told because of it."""
        message = PeerMessage(from_peer_id=peer, to_peer_id="w-1", payload=payload)
        self.lane.hear(message)
        return self.told()

    def told(self) -> list[dict[str, Any]]:
        said, self.signals[:] = list(self.signals), []
        assert all(one.from_peer_id == "w-1" for one in said)
        return [{"to": one.to_peer_id, **one.payload} for one in said]

    def arrives(self, job: str = JOB) -> None:
        """The peer connects, and its guest hands the job in."""
        link = self.p.visit()
        assert self.p.facts(M.LINK, link).key == KEY
        self.submits(job, link)

    def submits(self, job: str, link: str = "l-1") -> None:
        """Its guest hands a job in."""
        self.p.feed(
            M.JOB, job, e.Received(message=submission(job), session=f"guest-{link}", key=KEY)
        )

    def runs(self, job: str = JOB) -> None:
        """Its package is here, and its process."""
        self.p.feed(M.JOB, job, e.InputStored(name="package.zip"))
        self.p.answer(f.ValidatePackage, e.ValidationPassed(stages=1), job)
        self.p.answer(f.PrepareRun, e.Prepared(gpu_free=True), job)

    def talk(self, label: str = "7f2c") -> TalkState | None:
        """Where the negotiation of this job stands."""
        talks = self.p.world.live(M.TALK)
        return next((talk.state for talk in talks if talk.facts.label == label), None)


@pytest.fixture
def place() -> Place:
    return Place()


ACCEPTED = {"app_message_type": "job_response", "job_id": "7f2c", "accepted": True,
            "estimated_start_time_sec": 0, "to": "p-1"}  # fmt: skip


def test_a_request_that_fits_keeps_the_slot_and_the_answer_is_what_its_client_reads(
    place: Place,
) -> None:
    assert place.hears(REQUEST) == [ACCEPTED]
    assert (place.p.status, place.p.facts(M.WORKER, THE_WORKER).holder) == (W.RESERVED, KEY)
    [status] = place.hears(ASSIGNMENT)
    assert (status["app_message_type"], status["status"]) == ("job_status", "reserved")
    assert place.p.facts(M.WORKER, THE_WORKER).renewals == 1


def test_what_does_not_fit_is_incompatible_and_a_slot_that_is_taken_is_busy(place: Place) -> None:
    [told] = place.hears({**REQUEST, "requirements": {"min_gpu_memory_mb": 80000}})
    assert (told["accepted"], told["reason"]) == (False, "incompatible")
    assert place.p.status is W.AVAILABLE
    place.hears(REQUEST)
    [told] = place.hears({**REQUEST, "job_id": "other"}, "p-2")
    assert (told["to"], told["accepted"], told["reason"]) == ("p-2", False, "busy")


def test_a_client_that_vanishes_blocks_nobody(place: Place) -> None:
    place.hears(REQUEST)
    place.p.expire(Timer.LEASE, THE_WORKER)
    [told] = place.told()
    assert told["app_message_type"] == "job_failed"
    assert told["error"]["code"] == "RESERVATION_EXPIRED"
    assert told["error"]["recoverable"] is True
    assert place.p.status is W.AVAILABLE


def test_a_cancel_before_the_job_gives_the_slot_back(place: Place) -> None:
    place.hears(REQUEST)
    [told] = place.hears(CANCEL)
    assert (told["app_message_type"], told["cleanup_complete"]) == ("job_cancelled", True)
    assert place.p.status is W.AVAILABLE
    [told] = place.hears(CANCEL)
    assert (told["status"], told["cleanup_complete"]) == ("unknown_job", False)


def test_a_cancel_of_a_running_job_is_confirmed_when_nothing_of_it_runs(place: Place) -> None:
    place.hears(REQUEST)
    place.arrives()
    place.runs()
    statuses = [told["status"] for told in place.told()]
    assert statuses[-1] == "running"
    told = place.hears(CANCEL)
    assert place.p.state(M.JOB, JOB) is J.CANCELLING
    assert "job_cancelled" not in {word["app_message_type"] for word in told}
    place.p.exit(JOB, ok=False)
    *_, last = place.told()
    assert last == {"to": "p-1", "app_message_type": "job_cancelled", "job_id": "7f2c",
                    "status": "cancelled", "cleanup_complete": True}  # fmt: skip
    assert place.p.facts(M.JOB, JOB).outcome is Outcome.CANCELLED


def words_of(told: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(word["app_message_type"], word["job_id"]) for word in told]


def test_the_end_of_the_job_is_told_once_and_another_job_is_not_taken_for_it(place: Place) -> None:
    other = "job-bbbbbbbb"
    place.hears(REQUEST)
    place.arrives()
    place.submits(other)
    place.p.feed(M.JOB, other, e.InputRefused(name="package.zip", code=ErrorCode.ABORTED,
                                              reason="it is gone"))  # fmt: skip
    assert place.p.state(M.JOB, other) is J.DONE
    place.runs()
    place.told()
    place.p.exit(JOB)
    place.p.clean()
    place.p.collect(JOB)
    *_, last = place.told()
    assert (last["app_message_type"], last["ready_for_download"]) == ("job_complete", True)
    assert last["result"] == {"outcome": "succeeded", "files": 2}
    done = m.JobStateChanged(job=JOB, before=J.RUNNING, state=J.DONE, row="J1", event="",
                             outcome=Outcome.SUCCEEDED)  # fmt: skip
    place.lane.tell(KEY, done)
    assert place.told() == [], "it is told once"
    assert (place.talk(), place.hears(CANCEL)[0]["status"]) == (None, "unknown_job")


def test_each_negotiation_of_one_peer_has_the_job_that_came_for_it(place: Place) -> None:
    place.hears(REQUEST)
    place.hears({**REQUEST, "job_id": "second"})
    place.arrives()
    assert (place.talk(), place.talk("second")) == (TalkState.WORKING, TalkState.KEPT)
    place.submits("job-bbbbbbbb")
    assert place.talk("second") is TalkState.WORKING
    place.told()
    place.runs()
    assert {told["job_id"] for told in place.told()} == {"7f2c"}
    place.hears({**CANCEL, "job_id": "second"})
    assert place.p.state(M.JOB, "job-bbbbbbbb") is J.DONE
    assert place.p.state(M.JOB, JOB) is J.RUNNING


def test_a_slot_that_is_lost_is_lost_for_every_negotiation_that_it_was_kept_for(
    place: Place,
) -> None:
    for label in ("7f2c", "second"):
        place.hears({**REQUEST, "job_id": label})
    place.p.expire(Timer.LEASE, THE_WORKER)
    assert words_of(place.told()) == [("job_failed", "7f2c"), ("job_failed", "second")]


def test_a_request_that_was_refused_is_told_of_no_job_and_cancels_none(place: Place) -> None:
    place.hears(REQUEST)
    place.arrives()
    place.runs()
    place.told()
    [told] = place.hears({**REQUEST, "job_id": "second"})
    assert (told["job_id"], told["accepted"], told["reason"]) == ("second", False, "busy")
    [told] = place.hears({**CANCEL, "job_id": "second"})
    assert (told["job_id"], told["status"]) == ("second", "unknown_job")
    assert place.p.state(M.JOB, JOB) is J.RUNNING
    place.p.exit(JOB)
    assert {told["job_id"] for told in place.told()} == {"7f2c"}


def test_a_job_that_was_there_before_is_none_of_a_later_talk(place: Place) -> None:
    """Whoever takes a peer's name over has no say in what that peer runs."""
    place.arrives()
    place.hears(REQUEST)
    place.told()
    place.p.feed(M.JOB, JOB, e.InputStored(name="package.zip"))
    assert (place.p.state(M.JOB, JOB), place.told()) == (J.VALIDATING, [])
    [told] = place.hears(CANCEL)
    assert (told["status"], place.p.state(M.JOB, JOB)) == ("cancelled", J.VALIDATING)


def test_where_a_secret_is_asked_for_only_who_has_proved_it_negotiates(place: Place) -> None:
    place.lane._locked = lambda: True
    [told] = place.hears(REQUEST)
    assert (told["accepted"], place.p.status) == (False, W.AVAILABLE)
    link = place.p.visit(secret=True)
    assert not place.hears(REQUEST)[0]["accepted"], "it has proved nothing yet"
    place.p.link(link, e.ProofChecked(proved=True, trusted=True, rights=("submit",)))
    assert place.hears(REQUEST) == [ACCEPTED]


def test_where_clients_of_sleap_rtc_may_not_come_in_they_get_no_promise() -> None:
    place = Place(allowed=False)
    [told] = place.hears(REQUEST)
    assert (told["accepted"], place.p.status) == (False, W.AVAILABLE)
    assert "may submit no job here" in told["message"]


@pytest.mark.parametrize(
    "payload",
    [
        {}, {"app_message_type": 7}, {"app_message_type": "job_response", "job_id": "x"},
        {"app_message_type": "job_request"}, {"app_message_type": "job_request", "job_id": ""},
        {**REQUEST, "job_id": "x" * 129}, {**REQUEST, "requirements": []},
        {"app_message_type": "fs_list_req", "path": "/"},
    ],
)  # fmt: skip
def test_what_is_no_word_of_a_client_changes_nothing(place: Place, payload: dict[str, Any]) -> None:
    assert place.hears(payload) == []
    assert place.p.status is W.AVAILABLE


def test_what_a_peer_says_of_somebody_else_s_job_is_not_taken(place: Place) -> None:
    place.hears(REQUEST)
    [told] = place.hears(CANCEL, "p-2")
    assert (told["to"], told["status"]) == ("p-2", "unknown_job")
    [told] = place.hears(ASSIGNMENT, "p-2")
    assert told["error"]["code"] == "UNKNOWN_JOB"
    assert place.p.facts(M.WORKER, THE_WORKER).holder == KEY


def test_so_many_negotiations_are_remembered_and_a_promise_longest(place: Place) -> None:
    place.hears(REQUEST)
    place.p.elsewhere = lambda _place, _message: None  # nobody answers them
    for number in range(KEEP_TALKS + 5):
        place.hears({**REQUEST, "job_id": f"{number}"}, f"p-{number + 2}")
    place.p.elsewhere = place.elsewhere
    labels = {talk.facts.label for talk in place.p.world.live(M.TALK)}
    assert labels == {"7f2c", *(f"{number}" for number in range(6, KEEP_TALKS + 5))}
    [told] = place.hears(CANCEL)
    assert told["status"] == "cancelled"


def test_a_request_that_is_made_again_is_answered_again(place: Place) -> None:
    assert place.hears(REQUEST) + place.hears(REQUEST) == [ACCEPTED, ACCEPTED]
    assert len(place.p.world.live(M.TALK)) == 1
    assert place.p.facts(M.WORKER, THE_WORKER).renewals == 1


def test_a_promise_that_can_not_be_renewed_again_is_still_one(place: Place) -> None:
    place.hears(REQUEST)
    for _ in range(RENEWALS):
        assert place.hears(ASSIGNMENT)[0]["status"] == "reserved"
    [told] = place.hears(ASSIGNMENT)
    assert (told["app_message_type"], told["accepted"], told["reason"]) == (
        "job_response", False, "busy",
    )  # fmt: skip
    assert place.talk() is TalkState.KEPT
    assert place.hears(CANCEL)[0]["status"] == "cancelled"


def test_who_says_that_it_comes_before_it_is_answered_hears_how_long_it_is_waited_for(
    place: Place,
) -> None:
    place.p.elsewhere = lambda _place, _message: None  # the answer is on its way
    place.hears(REQUEST)
    place.p.elsewhere = place.elsewhere
    [told] = place.hears(ASSIGNMENT)
    assert (told["app_message_type"], told["status"]) == ("job_status", "reserved")
    assert "within 30 s" in told["message"]


def test_what_can_not_be_taken_back_is_said_so(place: Place) -> None:
    place.p.elsewhere = lambda _place, _message: None
    place.hears(REQUEST)
    place.p.expire(Timer.LEASE, THE_WORKER)
    place.p.elsewhere = place.elsewhere
    [told] = place.hears(CANCEL)
    assert (told["app_message_type"], told["status"], told["cleanup_complete"]) == (
        "job_cancelled", "not_holder", False,
    )  # fmt: skip


def test_who_has_lost_its_right_keeps_its_promise_and_can_not_use_it(place: Place) -> None:
    place.hears(REQUEST)
    place.lane._locked = lambda: True
    [asked] = place.hears(REQUEST)
    [coming] = place.hears(ASSIGNMENT)
    [dropped] = place.hears(CANCEL)
    assert (asked["accepted"], asked["reason"]) == (False, "incompatible")
    assert coming["error"]["code"] == "NOT_AUTHORISED"
    assert (dropped["status"], dropped["cleanup_complete"]) == ("not_authorised", False)
    assert (place.talk(), place.p.status) == (TalkState.KEPT, W.RESERVED)


def test_who_may_not_negotiate_is_told_so_whatever_it_says() -> None:
    place = Place(allowed=False)
    [told] = place.hears(ASSIGNMENT)
    assert told["error"]["code"] == "NOT_AUTHORISED"
    [told] = place.hears(CANCEL)
    assert (told["status"], told["cleanup_complete"]) == ("not_authorised", False)
    assert place.p.world.all(M.TALK) == []


def test_what_is_for_a_session_goes_there(place: Place) -> None:
    place.lane.send("s-1", m.Released())
    assert (place.sent, place.told()) == ([("s-1", m.Released())], [])


def test_every_word_of_a_client_is_read(place: Place) -> None:
    read = {type(read_peer(payload)) for payload in (REQUEST, ASSIGNMENT, CANCEL)}
    assert read == {row.word for row in PEER_WORDS if row.direction is Direction.TO_WORKER}
    with pytest.raises(Exception, match="no client"):
        read_peer({"app_message_type": "job_complete", "job_id": "x"})
    assert ErrorCode.UNKNOWN_TYPE == "unknown_type"
