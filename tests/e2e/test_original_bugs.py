"""What went wrong in sleap-rtc of November 2025, at our worker: P1 to P8.

Each was reproduced by running the original; each test says what the original did.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from fsm_worker.events import Timer
from fsm_worker.services.recipe import Runner
from fsm_worker.signaling.link import CloseCode, Link
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import (
    GOOD,
    TRACK,
    a_client,
    digits,
    is_available,
    jobs,
    open_door,
    script,
    until,
)

M = MachineName
_CHATTY = """
import time
for part in range(2):
    time.sleep(part)
    for n in range(100_000):
        print(n, "x" * 80)
"""
RUNNERS = {
    ("chatty",): Runner("chatty", (sys.executable, "-c", _CHATTY)),
    ("broken",): Runner("broken", (sys.executable, "-c", "raise SystemExit(3)")),
}


class RoomMember:
    """Another peer of the worker's room, which sees what the worker publishes."""

    def __init__(self, socket: Any, name: str) -> None:
        self.socket = socket
        self.name = name

    async def ask(self, **frame: Any) -> dict[str, Any]:
        await self.socket.send(json.dumps(frame))
        async with asyncio.timeout(5):
            while True:
                said = json.loads(await self.socket.recv())
                if said["type"] not in {"ping", "error"}:
                    assert isinstance(said, dict)
                    return said

    async def status(self) -> str:
        """The worker's status in sleap-rtc's words."""
        found = await self.ask(
            type="discover_peers", from_peer_id=self.name, filters={"role": "worker"}
        )
        [worker] = found["peers"]
        status = worker["metadata"]["properties"]["status"]
        assert isinstance(status, str)
        return status


async def member(socket: Any, lab: Lab, name: str = "watcher") -> RoomMember:
    found = RoomMember(socket, name)
    await found.ask(
        type="register", peer_id=name, room_id=lab.session.room, token=lab.session.token, jwt="x"
    )
    return found


async def test_p1_a_busy_worker_says_so_and_a_second_client_has_a_connection_of_its_own(
    tmp_path: Path,
) -> None:
    """The original held its status three times, and the one that it asked never left `available`.

    Its guard never fired, and a second offer went to the connection of the first client.
    """
    async with a_client(tmp_path) as (lab, first), connect(lab.session.url, proxy=None) as socket:
        room = await member(socket, lab)
        while await room.status() != "available":  # it hears so a moment later
            pass
        await first.submit(digits(tmp_path, epochs=1000, pace=0.05), gui="True")
        await first.hears('"epoch_end"')
        assert await room.status() == lab.worker.status == "busy"
        async with SleapClient.open(lab.session, "second") as second:
            await second.submit(digits(tmp_path), "second.zip")
            await until(lambda: len(jobs(lab)) == 2)
            assert not first.closed.is_set()
            first.say("JOB_STOP")
            await first.gets()
            await second.gets()
        await is_available(lab)
        assert lab.worker.status == "available"
        while await room.status() != "available":  # it hears so a moment later
            pass
        assert [outcome for _, outcome in jobs(lab)] == [Outcome.STOPPED_EARLY, Outcome.SUCCEEDED]


async def test_p2_a_worker_that_registers_again_says_the_same_words(tmp_path: Path) -> None:
    """When a client left, the original registered again with a stale `reserved`.

    It was reserved for ever, and answered every request as busy.
    """
    async with asyncio.timeout(60), open_door(tmp_path, timers={Timer.DELAY: 0.05}) as lab:
        links: list[Link] = []
        words: list[dict[str, Any]] = []
        hub = lab.server._hub
        received = hub.received

        def noted(link: Link, data: str | bytes) -> None:
            said = json.loads(data)
            if said.get("peer_id") == lab.session.peer:
                links.append(link)
                if said["type"] == "register":
                    words.append(said)
            received(link, data)

        hub.received = noted
        server = lab.worker.world.machines[M.SIGNALLING]["signalling"]
        for again in (1, 2):
            async with SleapClient.open(lab.session) as client:
                await client.submit(digits(tmp_path))
                await client.gets()
            await is_available(lab)
            links[-1].end(CloseCode.REMOVED, "not now")
            await until(lambda again=again: len(words) == again and server.state == "registered")
        assert words[0] == words[1]
        assert words[0]["metadata"]["properties"]["status"] == "available"
        async with connect(lab.session.url, proxy=None) as socket:
            assert await (await member(socket, lab)).status() == "available"


async def test_p3_predictions_come_back_over_the_data_channel(tmp_path: Path) -> None:
    """The original ended every inference in an AttributeError (`send_file`), its work done."""
    async with a_client(tmp_path, runners=TRACK) as (_, client):
        text = "sleap-nn track --data_path labels.slp -o labels.predictions.slp\n"
        await client.submit(script(text, "track", labels__slp=b"labels"), kind="track")
        await client.hears("INFERENCE_JOBS_DONE")
        assert client.files == {"labels.predictions.slp": b"slp" * 50_000}


async def test_p4_a_job_s_beginning_and_end_are_told(tmp_path: Path) -> None:
    """The original's words of a job's state needed attributes that no object had: none was sent."""
    async with a_client(tmp_path) as (lab, client):
        await client.submit(digits(tmp_path))
        await client.gets()
        assert [text for text in client.texts if text.startswith("TRAIN")] == GOOD
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]


async def test_p5_a_job_in_the_shared_storage_trains_to_its_end(tmp_path: Path) -> None:
    """The original's shared storage always failed: "no attribute 'gui'", as the job's error."""
    folder = tmp_path / "storage" / "jobs" / "j-1"
    folder.mkdir(parents=True)
    (folder / "training.zip").write_bytes(digits(tmp_path))
    async with a_client(tmp_path, shared_storage=tmp_path / "storage") as (lab, client):
        client.say("JOB_ID::j-1", "SHARED_INPUT_PATH::jobs/j-1/training.zip")
        await client.hears("PATH_VALIDATED::input")
        client.say("SHARED_OUTPUT_PATH::jobs/j-1/output")
        await client.hears("PATH_VALIDATED::output")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::j-1::jobs/j-1/output")
        assert client.told("attribute") == []
        assert client.told("JOB_FAILED") == []
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]
    assert list((folder / "output").rglob("model.npz"))


async def test_p6_an_error_by_signaling_does_not_end_the_worker(tmp_path: Path) -> None:
    """Every error in the original's signaling loop met `logging.ERROR(...)`, a TypeError.

    A candidate, an unknown word or an error of anybody in the room ended the process.
    """
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with connect(lab.session.url, proxy=None) as socket:
            await member(socket, lab)
            to = {"target": lab.session.peer, "sender": "watcher"}
            for frame in (
                {"type": "candidate", "candidate": {"candidate": "nonsense"}, **to},
                {"type": "offer", "sdp": "nonsense", **to},
                {"type": "offer", "sdp": {"not": "text"}, **to},
                {"type": "answer", "sdp": "v=0", **to},
                {"type": "error", "reason": "room_expired", **to},
                {"type": "quit", **to},
            ):
                await socket.send(json.dumps(frame))
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path))
            await client.gets()
        await until(lambda: lab.worker.status == "available")  # it proves first that it is clean


async def test_p7_a_client_that_goes_does_not_hold_the_trainer_up(tmp_path: Path) -> None:
    """The original stopped to read the trainer's output when a send to the client failed.

    The trainer waited on a full pipe for ever, with the GPU, while the worker said `available`.
    """
    async with asyncio.timeout(60), open_door(tmp_path, runners=RUNNERS) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(script("chatty\n"))
            await client.hears("TRAIN_JOB_START::chatty")
        worker = lab.worker.world.machines[M.WORKER]["worker"]
        await until(lambda: not lab.worker.world.live(M.GUEST))
        assert jobs(lab) == [(JobState.RUNNING, Outcome.NONE)]
        assert worker.state is WorkerState.BUSY
        await until(lambda: jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)])
        await is_available(lab)
        [log] = (tmp_path / "worker" / "jobs").glob("*/output.log")
        assert log.read_bytes().count(b"\n") == 200_000


async def test_p8_training_is_not_said_to_be_done_when_it_failed(tmp_path: Path) -> None:
    """The original said `TRAINING_JOBS_DONE` and `job_complete` when every job had failed."""
    async with a_client(tmp_path, runners=RUNNERS) as (lab, client):
        await client.submit(script("broken\n"))
        await client.hears("TRAIN_JOB_ERROR::broken::1")
        await client.gets()  # what there is of a failed job comes too: its log
        assert client.told("_DONE") == []
        assert client.told("code 3")
        assert jobs(lab) == [(JobState.DONE, Outcome.FAILED)]
