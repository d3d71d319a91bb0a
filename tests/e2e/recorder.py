"""Records what real workers and clients say and do, for the sequence charts."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import msgspec

from fsm_worker.events import event_name, key_of
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import World
from fsm_worker.seams.channels import Channels
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.signaling_link import SignalingLink
from protocol import CONTROL_LABEL
from protocol.bulk import decode_chunk
from protocol.codec import decode
from protocol.registry import tag
from protocol.table import Direction, MachineName

#: Words that only hold a link up, or say the same again and again.
_LEFT_OUT = {"ack", "ping", "pong", "telemetry", "log", "log_end", "log_get", "worker_status"}
_LONGEST = 40  # characters of a text that is kept
_CHUNK = 256 * 1024  # bytes; the largest that is ever agreed upon


class Recorder:
    """Notes messages and rows from `begin` on.

    Args:
        machines: whose changes of state are noted.
    """

    def __init__(self, *machines: MachineName) -> None:
        self.entries: list[dict[str, Any]] = []
        self._machines = set(machines)
        self._since: float | None = None

    def begin(self) -> None:
        """From now on."""
        self._since = time.monotonic()

    def end(self) -> None:
        """No more."""
        self._since = None

    def told(self, by: str, to: str, message: msgspec.Struct) -> None:
        """A message, without what it carries in depth."""
        if tag(type(message)) not in _LEFT_OUT:
            self._note(kind="message", by=by, to=to, type=tag(type(message)), has=_shown(message))

    def moved(self, at: str, step: Step) -> None:
        """A change of state."""
        moved = step.verdict is Verdict.ROW and step.before != step.after
        if moved and step.machine in self._machines:
            self._note(
                kind="row", at=at, machine=step.machine.value, row=step.row,
                event=event_name(key_of(step.event)), before=step.before, after=step.after,
            )  # fmt: skip

    def chunk(self, by: str, to: str, start: int, size: int) -> None:
        """Bytes of a file; those that follow each other are one entry."""
        last = self.entries[-1] if self.entries else {}
        if (last.get("kind"), last.get("by"), last.get("until")) == ("bytes", by, start):
            last["until"] = start + size
        else:
            self._note(kind="bytes", by=by, to=to, start=start, until=start + size)

    def _note(self, **entry: Any) -> None:
        if self._since is not None:
            self.entries.append({"seconds": round(time.monotonic() - self._since, 3), **entry})


def _shown(message: msgspec.Struct) -> dict[str, Any]:
    """Plain values; texts of any length (keys, tokens, descriptions) are left out."""
    plain = msgspec.to_builtins(message)
    return {
        name: value
        for name, value in plain.items()
        if name != "type"
        and (
            (isinstance(value, str) and 0 < len(value) <= _LONGEST and name in _TOLD)
            or (isinstance(value, int | float) and not isinstance(value, bool) and name in _TOLD)
            or name == "ranges"
        )
    }


_TOLD = {
    "about", "before", "code", "event", "generation", "name", "outcome", "ranges", "received",
    "role", "row", "size", "state", "transfer",
}  # fmt: skip


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Listens to every worker and client of this process."""
    feed, opened, send, bulk, signal = (
        World.feed, PeerLinks.open, Channels.send, PeerLinks.send_bulk, SignalingLink.send,
    )  # fmt: skip
    roles: dict[int, str] = {}

    def of(world: World) -> str:
        return "worker" if MachineName.JOB in world.tables else "client"

    def fed(self: World, *words: Any) -> list[Step]:
        steps = feed(self, *words)
        for step in steps:
            recorder.moved(of(self), step)
        return steps

    def began(self: PeerLinks, link: str, *words: Any) -> None:
        opened(self, link, *words)
        roles[id(self._links[link])] = of(self._runtime.world)

    def wrote(self: Channels, label: str, data: str | bytes) -> bool:
        went = send(self, label, data)
        if went and label == CONTROL_LABEL:
            by = roles[id(self)]
            to = _other(by)
            direction = Direction.TO_WORKER if to == "worker" else Direction.TO_CLIENT
            recorder.told(by, to, decode(data, direction).msg)
        return went

    async def sent(self: PeerLinks, session: str, frame: bytes) -> None:
        await bulk(self, session, frame)
        chunk = decode_chunk(frame, limit=_CHUNK)
        by = of(self._runtime.world)
        recorder.chunk(by, _other(by), chunk.offset, len(chunk.payload))

    def signalled(self: SignalingLink, message: Any) -> None:
        if tag(type(message)) in {"offer", "answer"}:
            owner: Any = self._emit
            by = of(owner.__self__.world)
            recorder.told(by, _other(by), message)
        signal(self, message)

    patches: list[tuple[type, str, Callable[..., Any]]] = [
        (World, "feed", fed), (PeerLinks, "open", began), (Channels, "send", wrote),
        (PeerLinks, "send_bulk", sent), (SignalingLink, "send", signalled),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for owner, name, wrapper in patches:
            stack.enter_context(mock.patch.object(owner, name, wrapper))
        yield


def _other(side: str) -> str:
    return "client" if side == "worker" else "worker"
