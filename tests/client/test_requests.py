"""Laws of open requests: an answer goes to who asked for it, and a refusal is no news."""

import asyncio
import gc

import pytest

from fsm_worker.client.requests import Requests
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState
from tests.protocol.samples import SNAPSHOT

JOB, OTHER = SNAPSHOT.job, "digits-20260801-2"


def state(event: str, job: str = JOB) -> m.JobStateChanged:
    """A change of state, because of an event."""
    return m.JobStateChanged(
        job=job, before=JobState.RUNNING, state=JobState.STOPPING, row="J36", event=event
    )


def refusal(about: str, job: str = JOB) -> m.Error:
    return m.Error(code=ErrorCode.IN_PROGRESS, message="wait for it", about=about, job=job)


@pytest.fixture
def requests() -> Requests:
    return Requests()


async def test_a_stop_is_answered_only_by_the_change_that_it_made(requests) -> None:
    stopped = requests.ask(m.Stop(job=JOB), m.JobStateChanged, event="recv_stop")
    for message in (
        state("recv_cancel"),
        state("timer_wall_expired"),
        state("recv_stop", OTHER),
        SNAPSHOT,
    ):
        assert not requests.hear(message)
    assert not stopped.done()
    assert not requests.hear(state("recv_stop"))  # an answer is news all the same
    assert await stopped == state("recv_stop")


async def test_an_answer_is_the_asked_kind_about_the_asked_job(requests) -> None:
    attached = requests.ask(m.Attach(job=JOB), m.JobSnapshot)
    jobs = requests.ask(m.JobsGet(), m.Jobs)
    requests.hear(state("recv_attach"))
    requests.hear(m.JobSnapshot(job=OTHER, name="", state=JobState.DONE))
    assert not attached.done()
    requests.hear(m.Jobs(jobs=(SNAPSHOT,)))  # about no job, as its question was
    assert await jobs == m.Jobs(jobs=(SNAPSHOT,))
    requests.hear(SNAPSHOT)
    assert await attached == SNAPSHOT


async def test_each_answer_answers_one_request_the_oldest_first(requests) -> None:
    first, second = (requests.ask(m.Attach(job=JOB), m.JobSnapshot) for _ in range(2))
    requests.hear(SNAPSHOT)
    assert (first.done(), second.done()) == (True, False)
    assert requests.hear(refusal("attach"))
    assert await first == SNAPSHOT
    with pytest.raises(ProtocolError):
        await second


async def test_a_refusal_is_matched_by_what_it_is_about_and_by_its_job(requests) -> None:
    stopped = requests.ask(m.Stop(job=JOB), m.JobStateChanged, event="recv_stop")
    cancelled = requests.ask(m.Cancel(job=OTHER), m.JobStateChanged, event="recv_cancel")
    for stray in (refusal("stop", OTHER), refusal("cancel"), refusal("attach"), refusal("")):
        assert not requests.hear(stray)  # so it is news
    assert requests.hear(refusal("cancel", OTHER))
    assert not stopped.done()
    with pytest.raises(ProtocolError, match="wait for it") as refused:
        await cancelled
    assert refused.value.code is ErrorCode.IN_PROGRESS


async def test_a_request_that_can_only_be_refused_takes_no_other_answer(requests) -> None:
    refused = requests.ask(m.Fetch(job=JOB), m.Error)
    for message in (SNAPSHOT, state("job_done"), refusal("attach")):
        assert not requests.hear(message)
    assert not refused.done()
    assert requests.hear(refusal("fetch"))
    with pytest.raises(ProtocolError):
        await refused


async def test_what_is_no_longer_wanted_is_cancelled_and_leaves_its_answer_to_others(
    requests,
) -> None:
    first, second = (requests.ask(m.Attach(job=JOB), m.JobSnapshot) for _ in range(2))
    requests.forget(first)
    assert first.cancelled()
    requests.hear(SNAPSHOT)
    assert await second == SNAPSHOT
    assert not requests.hear(refusal("attach"))


async def test_who_gave_up_waiting_does_not_take_the_answer(requests) -> None:
    first, second = (requests.ask(m.Attach(job=JOB), m.JobSnapshot) for _ in range(2))
    first.cancel()  # as a timeout does
    requests.hear(SNAPSHOT)
    assert await second == SNAPSHOT


async def test_when_no_answer_can_come_everybody_who_waits_hears_why(requests) -> None:
    answered = requests.ask(m.JobsGet(), m.Jobs)
    requests.hear(m.Jobs(jobs=()))
    waiting = [requests.ask(m.Attach(job=job), m.JobSnapshot) for job in (JOB, OTHER)]
    gone = ConnectionError("the worker is gone")
    requests.fail(gone)
    requests.fail(ConnectionError("said twice"))
    for future in waiting:
        with pytest.raises(ConnectionError) as raised:
            await future
        assert raised.value is gone
    assert await answered == m.Jobs(jobs=())


@pytest.mark.parametrize("refused", [False, True])
async def test_a_failure_that_is_forgotten_is_not_complained_about(requests, refused) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: complaints.append(context["message"])
    )
    future = requests.ask(m.Fetch(job=JOB), m.Error)
    if refused:
        requests.hear(refusal("fetch"))
    else:
        requests.fail(ConnectionError("the worker is gone"))
    requests.forget(future)
    assert future.done()
    del future
    gc.collect()
    assert complaints == []
