"""A worker with its real managers and a real job, whose server and client are in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from fsm_worker import events as e
from fsm_worker.effects import Owner
from fsm_worker.services.archive import PackedArchive
from fsm_worker.settings import WorkerSettings
from fsm_worker.worker_class import RTCWorkerClient
from protocol import messages as m
from protocol.bulk import encode_chunk
from protocol.codec import Frame
from protocol.lifecycle import JobState, Outcome
from protocol.proof import SessionString
from protocol.signaling import FromPeer, FromServer, Register, RegisteredAuth
from protocol.table import ROW_OF, MachineName, Replay

M = MachineName
LINK = "lane"
JOB = "job-of-the-sweep"
#: Another name than that of journals which `tests.row_coverage` reads.
JOURNAL = "in-memory.sqlite"


class MemorySocket:
    """Stands for `SignalingSocket`: a server that lets everybody in."""

    opened: list["MemorySocket"]

    def __init__(self) -> None:
        self._said: asyncio.Queue[FromServer | None] = asyncio.Queue()
        self.closed = False

    @classmethod
    async def connect(cls, _url: str) -> Self:
        await asyncio.sleep(0)
        socket = cls()
        cls.opened.append(socket)
        return socket

    async def send(self, message: FromPeer) -> None:
        await asyncio.sleep(0)
        if isinstance(message, Register):
            self._said.put_nowait(RegisteredAuth(room_id="r", token="t", peer_id=message.peer_id))

    async def messages(self) -> AsyncIterator[FromServer]:
        while (message := await self._said.get()) is not None:
            yield message

    async def close(self) -> None:
        self.closed = True
        self._said.put_nowait(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def enter_room(url: str, *_: Any, key: str, **__: Any) -> tuple[SessionString, str]:
    """Stands for the two HTTP calls."""
    await asyncio.sleep(0)
    return SessionString(url=url, room="r", token="t", peer="worker", key=key), "id-token"


class Absent:
    """Stands for WebRTC, and for clients of another dialect: the lane needs neither."""

    def __getattr__(self, _name: str) -> Any:
        return lambda _effect: None


class Client:
    """The other end of the worker's only lane: hands a job over, then lets the worker leave.

    Args:
        worker: not yet running.
        package: of the job.
    """

    def __init__(self, worker: RTCWorkerClient, package: PackedArchive) -> None:
        self.worker = worker
        self.package = package
        self.outcome = Outcome.NONE
        self._numbers = 0
        self._session = ""
        worker.sessions._wire = self._hear
        strangers = (Owner.WEBRTC, Owner.LINKS, Owner.HANDSHAKE, Owner.GUESTS)
        worker.runtime.bind(
            {owner: Absent() if owner in strangers else getattr(worker, owner, worker)
             for owner in Owner}
        )  # fmt: skip

    def comes(self) -> None:
        """From the offer to the proof."""
        hello = m.Hello(versions=(1,), role="client", key="K", nonce="N", session="of-the-sweep")
        for event in (
            e.RecvOffer(peer="client", sdp="", room_for_more=True),
            e.SentAnswer(),
            e.IceCompleted(),
            e.ControlOpened(native=True),
            e.Received(message=hello, link=LINK),
            e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
        ):
            self.worker.runtime.post(M.LINK, LINK, event)
        self._tell(m.Resume(received=0))

    def _tell(self, message: m.Message) -> None:
        numbered = ROW_OF[type(message)].replay is Replay.ALL
        self._numbers += numbered
        number = self._numbers if numbered else 0
        self.worker.runtime.post(
            M.LINK, LINK, e.FrameArrived(number=number, expected=number, message=message)
        )

    def _hear(self, _link: str, frame: Frame) -> None:
        asyncio.get_running_loop().call_soon(self._answer, frame.msg)

    def _answer(self, said: m.Message) -> None:
        package = self.package
        match said:
            case m.Welcome(session=session):
                self._session = session
                file = m.InputFile(name="package.zip", size=package.size, root=package.root)
                self._tell(m.Submit(job=JOB, spec=m.JobSpec(name="digits"), inputs=(file,)))
                self._tell(
                    m.FileOffer(transfer=1, job=JOB, name=file.name, size=file.size, root=file.root)
                )
            case m.FileNeed(ranges=ranges):
                data = package.path.read_bytes()
                for start, end in ranges:
                    for at in range(start, end, 32 * 1024):
                        chunk = encode_chunk(1, at, data[at : min(at + 32 * 1024, end)])
                        self.worker.file_manager.take_chunk(self._session, chunk)
            case m.JobStateChanged(state=JobState.DONE | JobState.REJECTED, outcome=outcome):
                self.outcome = outcome
                for _ in range(3):
                    self.worker.terminate()


def worker_in(state: Path) -> RTCWorkerClient:
    """A worker that knows nobody; what it journals counts for no client's way to it."""
    worker = RTCWorkerClient(settings=WorkerSettings(state=state, name="sweep"))
    worker.journal.path = state / JOURNAL
    return worker
