"""Clients of sleap-rtc that ask, come and think better of it through the signaling server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.events import Timer
from fsm_worker.machines.coupled_talks import KEEP_TALKS
from fsm_worker.machines.reservation import RENEWALS
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.services.job_run import Run
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, open_lab
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import SECRET, jobs, open_door, script
from tests.e2e.test_links import Talk
from tests.e2e.test_reserving import a_peer, answer, request, say
from tests.e2e.test_transfers import COPY
from tests.rows.steps import Steps

M, W = MachineName, WorkerState
PACKAGE = script("copy data.bin copy.bin\n", data__bin=b"data")


class Asker:
    """A client that speaks through the signaling server, and has no link."""

    def __init__(self, lab: Lab, socket: Any) -> None:
        self.lab = lab
        self._socket = socket

    async def asks(self, label: str, **requirements: Any) -> dict[str, Any]:
        await self.says_that_it_asks(label, **requirements)
        return await self.hears()

    async def says_that_it_asks(self, label: str, **requirements: Any) -> None:
        await say(self._socket, self.lab, **request(label, **requirements))

    async def comes(self, label: str) -> dict[str, Any]:
        await say(self._socket, self.lab, app_message_type="job_assignment", job_id=label)
        return await self.hears()

    async def cancels(self, label: str) -> dict[str, Any]:
        await say(self._socket, self.lab, app_message_type="job_cancel", job_id=label)
        return await self.hears()

    async def hears(self) -> dict[str, Any]:
        return await answer(self._socket)


@asynccontextmanager
async def an_asker(folder: Path, **options: Any) -> AsyncIterator[Asker]:
    door = open_lab(folder, allow_sleap_rtc=True, **options)
    async with asyncio.timeout(30), door as lab, a_peer(lab) as socket:
        yield Asker(lab, socket)


@asynccontextmanager
async def a_client(folder: Path, **options: Any) -> AsyncIterator[tuple[Lab, SleapClient]]:
    """The same with a link, by which its job can come."""
    async with (
        asyncio.timeout(30),
        open_door(folder, **options) as lab,
        SleapClient.open(lab.session) as client,
    ):
        yield lab, client


async def heard(client: SleapClient, word: str, **fields: Any) -> dict[str, Any]:
    """Waits until the worker has said this through the signaling server."""

    def found() -> list[dict[str, Any]]:
        due = {"app_message_type": word, **fields}.items()
        return [said for said in client.words if due <= said.items()]

    await client.until(lambda _client: bool(found()))
    return found()[0]


@pytest.fixture
def thinking(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set, the worker does not come to an end of comparing what a job needs."""
    done = threading.Event()
    done.set()

    def slowly(_self: object, _need: Mapping[str, str]) -> tuple[str, ...]:
        done.wait(20)
        return ()

    monkeypatch.setattr("fsm_worker.worker_class.WorkerCapabilities.compatibility", slowly)
    yield done
    done.set()


def state(lab: Lab) -> Any:
    return lab.worker.world.machines[M.WORKER][THE_WORKER].state


# --- a promise ------------------------------------------------------------------------------------


@pytest.mark.drives("talk P1 P4 P8 P13 P14 P18")
async def test_a_slot_is_kept_for_who_asks_longer_for_who_comes_and_is_given_back(
    tmp_path: Path,
) -> None:
    async with an_asker(tmp_path) as asker:
        said = await asker.asks("j-1")
        assert (said["app_message_type"], said["accepted"]) == ("job_response", True)
        said = await asker.comes("j-1")
        assert (said["app_message_type"], said["status"]) == ("job_status", "reserved")
        said = await asker.cancels("j-1")
        assert (said["app_message_type"], said["cleanup_complete"]) == ("job_cancelled", True)
        assert state(asker.lab) is W.AVAILABLE


@pytest.mark.drives("talk P6 P11 P16")
async def test_who_was_promised_nothing_can_neither_come_nor_cancel(tmp_path: Path) -> None:
    async with an_asker(tmp_path) as asker:
        said = await asker.asks("j-1", min_gpu_memory_mb=10**6)
        assert (said["accepted"], said["reason"]) == (False, "incompatible")
        said = await asker.comes("j-1")
        assert (said["app_message_type"], said["error"]["code"]) == ("job_failed", "UNKNOWN_JOB")
        said = await asker.cancels("j-1")
        assert (said["status"], said["cleanup_complete"]) == ("unknown_job", False)


@pytest.mark.drives("talk P17")
async def test_a_promise_is_renewed_so_often_and_is_still_one(tmp_path: Path) -> None:
    async with an_asker(tmp_path) as asker:
        await asker.asks("j-1")
        for _ in range(RENEWALS):
            assert (await asker.comes("j-1"))["status"] == "reserved"
        said = await asker.comes("j-1")
        assert (said["app_message_type"], said["accepted"]) == ("job_response", False)
        assert "as often as it may be" in said["message"]
        assert (await asker.cancels("j-1"))["cleanup_complete"] is True


@pytest.mark.drives("talk P20")
async def test_who_does_not_come_hears_that_the_slot_is_kept_no_longer(tmp_path: Path) -> None:
    async with an_asker(tmp_path, timers={Timer.LEASE: 0.2}) as asker:
        await asker.asks("j-1")
        said = await asker.hears()
        assert (said["app_message_type"], said["error"]["recoverable"]) == ("job_failed", True)
        assert said["error"]["code"] == "RESERVATION_EXPIRED"


@pytest.mark.drives("talk P19")
async def test_what_was_given_back_can_not_be_given_back_again(tmp_path: Path) -> None:
    async with an_asker(tmp_path) as asker:
        for label in ("j-1", "j-2"):
            assert (await asker.asks(label))["accepted"] is True
        assert (await asker.cancels("j-1"))["status"] == "cancelled"
        said = await asker.cancels("j-2")
        assert (said["status"], said["cleanup_complete"]) == ("not_holder", False)


# --- who may -------------------------------------------------------------------------------------


@pytest.mark.drives("talk P2 P7 P12")
async def test_who_has_not_proved_to_know_the_secret_is_promised_nothing(tmp_path: Path) -> None:
    async with an_asker(tmp_path, sleap_rtc_secret=SECRET) as asker:
        said = await asker.asks("j-1")
        assert (said["accepted"], said["reason"]) == (False, "incompatible")
        assert "may submit no job here" in said["message"]
        assert (await asker.comes("j-1"))["error"]["code"] == "NOT_AUTHORISED"
        assert (await asker.cancels("j-1"))["status"] == "not_authorised"
        assert state(asker.lab) is W.AVAILABLE


@pytest.mark.drives("talk P3 P5 P9")
async def test_a_promise_from_before_a_secret_was_asked_for_is_kept_and_not_extended(
    tmp_path: Path,
) -> None:
    async with an_asker(tmp_path) as asker:
        await asker.asks("j-1")
        asker.lab.worker.guests.lock(SECRET)
        assert (await asker.asks("j-1"))["accepted"] is False
        assert (await asker.comes("j-1"))["error"]["code"] == "NOT_AUTHORISED"
        assert (await asker.cancels("j-1"))["status"] == "not_authorised"
        assert state(asker.lab) is W.RESERVED
        asker.lab.worker.guests.lock("")
        assert (await asker.cancels("j-1"))["cleanup_complete"] is True


# --- its job --------------------------------------------------------------------------------------


@pytest.mark.drives("talk P21 P22 P23 P24")
async def test_a_job_that_comes_for_its_slot_is_told_of_to_its_end(tmp_path: Path) -> None:
    async with a_client(tmp_path, runners=COPY) as (lab, client):
        await client.negotiate("job_request", "j-1")
        await heard(client, "job_response", accepted=True)
        await client.submit(PACKAGE)
        await heard(client, "job_status", job_id="j-1", status="running")
        ended = await heard(client, "job_complete", job_id="j-1")
        assert (ended["status"], ended["ready_for_download"]) == ("completed", True)
        await client.gets()
        await client.negotiate("job_cancel", "j-1")
        await heard(client, "job_cancelled", status="unknown_job")
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]


@pytest.mark.drives("talk P10")
async def test_a_running_job_can_be_cancelled_without_its_link(tmp_path: Path) -> None:
    talk = Talk(tmp_path)
    async with a_client(tmp_path, runners=talk.runners) as (lab, client):
        await client.negotiate("job_request", "j-1")
        await heard(client, "job_response", accepted=True)
        await client.submit(script("talk\n"))
        await heard(client, "job_status", status="running")
        await client.negotiate("job_cancel", "j-1")
        ended = await heard(client, "job_cancelled", job_id="j-1")
        assert (ended["status"], ended["cleanup_complete"]) == ("cancelled", True)
        assert jobs(lab) == [(JobState.DONE, Outcome.CANCELLED)]
    talk.end()


@pytest.mark.drives("talk P15")
async def test_who_has_come_while_the_worker_thought_it_over_hears_that_it_is_waited_for(
    tmp_path: Path, thinking: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard_of = threading.Event()
    read = Run.read_package

    def waits(run: Run, *args: Any) -> None:
        heard_of.wait(20)
        read(run, *args)

    monkeypatch.setattr(Run, "read_package", waits)
    async with a_client(tmp_path, runners=COPY) as (_, client):
        await client.negotiate("job_request", "j-1")
        await heard(client, "job_response", accepted=True)
        thinking.clear()
        await client.negotiate("job_assignment", "j-1")
        await client.submit(PACKAGE)
        await heard(client, "job_status", status="validating")
        thinking.set()
        await heard(client, "job_status", status="reserved")
        heard_of.set()
        await heard(client, "job_complete", job_id="j-1")


# --- what is forgotten ----------------------------------------------------------------------------


@pytest.mark.drives("talk P26")
async def test_a_question_that_the_worker_does_not_answer_is_forgotten(
    tmp_path: Path, thinking: threading.Event
) -> None:
    async with an_asker(tmp_path, timers={Timer.TALK: 0.2}) as asker:
        thinking.clear()
        steps = Steps(asker.lab.worker)
        await asker.says_that_it_asks("j-1")
        await steps.until(M.TALK, "P26")
        assert (await asker.cancels("j-1"))["status"] == "unknown_job"
        thinking.set()


@pytest.mark.drives("talk P25")
async def test_who_asks_over_and_over_is_forgotten_first(
    tmp_path: Path, thinking: threading.Event
) -> None:
    async with an_asker(tmp_path) as asker:
        assert (await asker.asks("promised"))["accepted"] is True
        thinking.clear()
        for number in range(KEEP_TALKS):
            await asker.says_that_it_asks(f"j-{number}")
        assert (await asker.cancels("j-0"))["status"] == "unknown_job"
        thinking.set()
        assert (await asker.hears())["accepted"] is True
