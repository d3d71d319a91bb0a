"""A native client that is up to no good, and what is known of it and of the worker beforehand.

It holds a good key, names jobs and files that exist, somebody else's, or nobody's, and says now
and then what is no message; see `hostile_jobs` and `hostile_visit`.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fsm_worker.identity import Identity
from fsm_worker.services.archive import PackedArchive
from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL, NATIVE_SUBPROTOCOL
from protocol import messages as m
from protocol.codec import decode
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.proof import SessionString
from protocol.table import Direction, tag_of
from tests.rows.native_peer import NativePeer

J, O, W, E = JobState, Outcome, WorkerState, ErrorCode  # noqa: E741
PATIENCE_S = 10.0  # only a failing test waits that long
INPUT = "package.zip"


class Native(NativePeer):
    """With the two other channels that a client opens."""

    def __init__(self, session: SessionString, identity: Identity) -> None:
        super().__init__(session, identity)
        self.lanes = {CONTROL_LABEL: self.channel}
        self.chunks: list[bytes] = []
        self.newest = 0  # the highest number that the worker has used
        self._others: list[asyncio.Event] = []
        for label, take in ((LOG_LABEL, self._take), (BULK_LABEL, self._keep)):
            channel = self.pc.createDataChannel(label, protocol=NATIVE_SUBPROTOCOL)
            opened = asyncio.Event()
            channel.on("open", opened.set)
            channel.on("message", take)
            self.lanes[label] = channel
            self._others.append(opened)

    async def opens(self) -> None:
        await super().opens()
        async with asyncio.timeout(PATIENCE_S):
            for opened in self._others:
                await opened.wait()

    def _take(self, data: str | bytes) -> None:
        self.newest = max(self.newest, decode(data, Direction.TO_CLIENT).seq)
        super()._take(data)

    def _keep(self, data: bytes) -> None:
        self.chunks.append(data)
        self._moved.set()


class Reply(NamedTuple):
    """A message that is due, as far as it is told beforehand."""

    kind: type[m.Message]
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.kind.__name__}({self.fields})"

    def fits(self, message: m.Message) -> bool:
        return isinstance(message, self.kind) and all(
            getattr(message, name) == value for name, value in self.fields.items()
        )


def due(kind: type[m.Message], **fields: Any) -> Reply:
    return Reply(kind, fields)


def refused(code: ErrorCode, message: m.Message) -> Reply:
    """An error about a message."""
    job, transfer = getattr(message, "job", ""), getattr(message, "transfer", 0)
    return due(m.Error, code=code, about=tag_of(type(message)), job=job, transfer=transfer)


class Step(NamedTuple):
    """What was drawn: a method of a visit, the job that it is about, and how it is done."""

    word: str
    which: int = 0
    way: int = 0


@dataclass
class Place:
    """What a visit finds at the worker, and leaves there.

    Args:
        packages: a package by its script, "done" or "wait".
        good: the job of the other client.
        slot: the job that runs.
        said: what was ever said here.
        reached: how often which reply came of what.
    """

    packages: dict[str, PackedArchive]
    good: str = ""
    slot: str = ""
    reserved: bool = False
    renewals: int = 0
    visits: int = 0
    nonsense: int = 0
    said: set[type[m.Message]] = field(default_factory=set)
    reached: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def state(self) -> WorkerState:
        if self.slot:
            return W.BUSY
        return W.RESERVED if self.reserved else W.AVAILABLE


@dataclass
class Job:
    """A job of this visit, as the worker should have it."""

    id: str
    name: str
    script: str
    state: JobState = J.STAGING
    outcome: Outcome = O.NONE
    arriving: int = 0  # the transfer by which its package comes
    tries: int = 0
    follows: bool = False  # its log is read
    results: str = ""  # held, or delivering
    offered: m.FileOffer | None = None
