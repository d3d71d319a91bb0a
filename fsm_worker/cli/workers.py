"""`workers`: lists the workers that this client knows, and their rooms' others."""

import asyncio
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.exit_codes import ExitCode, sentence_for
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.tabular import show_table
from fsm_worker.client.discovery import workers_in_room
from fsm_worker.seams.signaling_socket import SignalingClosed, SignalingUnreachable
from protocol.proof import SessionString
from protocol.signaling import PeerInfo, SignalingRefused

_COLUMNS = ("worker", "state", "gpu", "memory", "runners", "yours")
_NOT_HERE = "not here"


@dataclass(frozen=True)
class Seen:
    """One worker.

    Args:
        name: for people.
        state: in sleap-rtc's four words, `not here`, or why its room can't be asked.
        target: by which this client gets in; None if it never was there.
        properties: what it publishes.
    """

    name: str
    state: str
    target: Target | None
    properties: dict[str, Any] = field(default_factory=dict)


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    seen = asyncio.run(look_around(client.workers(options.session)))
    for worker in seen:
        console.emit(
            "worker",
            name=worker.name,
            state=worker.state,
            session=worker.target.text if worker.target is not None else None,
            properties=worker.properties,
        )
    if not console.as_json:
        show_table(_COLUMNS, [_row(worker) for worker in seen])
    here = any(worker.properties for worker in seen)
    return ExitCode.DONE if here else ExitCode.NO_WORKER


async def look_around(targets: list[Target]) -> list[Seen]:
    """Asks every room that the targets are in, all at once.

    Args:
        targets: the workers that this client knows.

    Returns:
        Those, and others of the same rooms; workers that are free first.
    """
    rooms: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        rooms.setdefault((target.session.url, target.session.room), []).append(target)
    found = await asyncio.gather(*(_look(known) for known in rooms.values()))
    seen = [worker for room in found for worker in room]
    return sorted(seen, key=lambda worker: _ORDER.get(worker.state, len(_ORDER)))


_ORDER = {"available": 0, "reserved": 1, "busy": 2, "maintenance": 3, _NOT_HERE: 4}


async def _look(known: list[Target]) -> list[Seen]:
    try:
        peers = await workers_in_room(known[0].session)
    except (SignalingUnreachable, SignalingClosed, SignalingRefused) as error:
        return [
            Seen(_called(target), one_line(sentence_for(error), 60), target) for target in known
        ]
    except TimeoutError:
        return [Seen(_called(target), "its server does not answer", target) for target in known]
    left = {peer.peer_id: peer for peer in peers}
    seen = [_seen(left.pop(target.session.peer, None), target) for target in known]
    return seen + [_seen(peer, None) for peer in left.values()]


def _seen(peer: PeerInfo | None, target: Target | None) -> Seen:
    if peer is None:
        return Seen(_called(target) if target is not None else "", _NOT_HERE, target)
    properties = peer.metadata.properties
    name = str(properties.get("worker_name") or peer.peer_id)
    state = str(properties.get("status") or "unknown")
    return Seen(one_line(name, 40), one_line(state, 20), target, properties)


def _called(target: Target) -> str:
    session: SessionString = target.session
    return one_line(session.peer, 40)


def _row(worker: Seen) -> tuple[str, ...]:
    said = worker.properties
    memory = said.get("gpu_memory_mb")
    runners = said.get("runners")
    return (
        worker.name,
        worker.state,
        one_line(str(said.get("gpu_model") or "-"), 30),
        f"{memory} MiB" if isinstance(memory, int) and memory else "-",
        one_line(", ".join(map(str, runners)), 60) if isinstance(runners, list) else "-",
        "yes" if worker.target is not None else "no: ask for its line",
    )
