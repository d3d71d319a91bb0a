"""The one list of machines: who has which, and whether messages and machines agree.

Diagrams, row coverage and tests iterate over it; a test proves that no table of this package is
missing. What can be said on a wire is listed in `protocol.registry`. A process builds its world
from `WORKER_TABLES` or from `CLIENT_TABLES`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fsm_worker.effects import Do, Effect
from fsm_worker.events import Event, Received, Timer, TimerExpired, event_name
from fsm_worker.machines.client_link import CLIENT_LINK
from fsm_worker.machines.client_session import CLIENT_SESSION
from fsm_worker.machines.client_signalling import CLIENT_SIGNALLING
from fsm_worker.machines.engine import Table
from fsm_worker.machines.guest import GUEST
from fsm_worker.machines.job import JOB
from fsm_worker.machines.link import LINK
from fsm_worker.machines.receiving import RECEIVING
from fsm_worker.machines.results import RESULTS
from fsm_worker.machines.sending import SENDING
from fsm_worker.machines.session import SESSION
from fsm_worker.machines.signalling import SIGNALLING
from fsm_worker.machines.talk import TALK
from fsm_worker.machines.worker import WORKER
from protocol.messages import Message
from protocol.table import MESSAGES, ROW_OF, Direction, MachineName, MessageRow

#: Every table, by the name of its module in this package; the order is the reading order.
MACHINES: Mapping[str, Table[Any, Any]] = MappingProxyType(
    {
        "worker": WORKER,
        "job": JOB,
        "results": RESULTS,
        "link": LINK,
        "client_link": CLIENT_LINK,
        "session": SESSION,
        "client_session": CLIENT_SESSION,
        "signalling": SIGNALLING,
        "client_signalling": CLIENT_SIGNALLING,
        "receiving": RECEIVING,
        "sending": SENDING,
        "guest": GUEST,
        "talk": TALK,
    }
)


def _by_name(*tables: Table[Any, Any]) -> Mapping[MachineName, Table[Any, Any]]:
    return MappingProxyType({table.name: table for table in tables})


#: The machines of a worker process.
WORKER_TABLES = _by_name(
    WORKER, JOB, RESULTS, LINK, SESSION, SIGNALLING, RECEIVING, SENDING, GUEST, TALK
)
#: The machines of a client process.
CLIENT_TABLES = _by_name(CLIENT_LINK, CLIENT_SESSION, CLIENT_SIGNALLING, RECEIVING, SENDING)

_HEARERS = (
    (Direction.TO_WORKER, "worker", WORKER_TABLES),
    (Direction.TO_CLIENT, "client", CLIENT_TABLES),
)


def legal_states(row: MessageRow, hearer: Direction) -> tuple[str, ...] | None:
    """In which states of the hearing side's machine a message is legal.

    Args:
        row: the message.
        hearer: `TO_WORKER` or `TO_CLIENT`.

    Returns:
        The states in their declared order; None where that side never hears the message.
    """
    tables = next(tables for direction, _, tables in _HEARERS if direction is hearer)
    if hearer not in row.direction or row.machine not in tables:
        return None
    table = tables[row.machine]
    return tuple(state.value for state in table.states if (state, row.message) in table.by_pair)


def disagreements() -> tuple[str, ...]:
    """What messages, events, effects and tables say differently; empty when they agree."""
    return (*_unheard(), *_unsent(), *_unread(), *_unasked())


def _unheard() -> Iterator[str]:
    for row in MESSAGES:
        for direction, side, tables in _HEARERS:
            if direction not in row.direction:
                continue
            if row.machine not in tables:
                yield f"{row.tag} goes to the machine {row.machine}, which no {side} has"
            elif not legal_states(row, direction):
                yield f"{row.tag} is legal in no state of the {side}'s machine {row.machine}"


def _unsent() -> Iterator[str]:
    for direction, side, tables in _HEARERS:
        for table in tables.values():
            for on in table.events():
                if isinstance(on, Timer) or not issubclass(on, Message):
                    continue
                row = ROW_OF[on]
                if row.machine is not table.name:
                    yield f"{table.name} listens to {event_name(on)}, which goes to {row.machine}"
                elif direction not in row.direction and not _heard_elsewhere(table, row):
                    yield f"{table.name} listens to {event_name(on)}, which no {side} is told"


def _unread() -> Iterator[str]:
    """Events and timers that change nothing anywhere."""
    read = {on for table in MACHINES.values() for on in table.events()}
    carriers = {Received, TimerExpired}  # read by what they carry
    for on in (*Event.__subclasses__(), *Timer):
        if on not in read and on not in carriers:
            yield f"no machine reads {event_name(on)}"


def _unasked() -> Iterator[str]:
    """Effects that nothing brings about."""
    asked = {
        entry.effect if isinstance(entry, Do) else entry
        for table in MACHINES.values()
        for row in table.rows
        for entry in row.effects
    }
    for effect in Effect.__subclasses__():
        if effect not in asked:
            yield f"no row asks for {effect.__name__}"


def _heard_elsewhere(table: Table[Any, Any], row: MessageRow) -> bool:
    """A table that both sides have is one table, though only one side hears some of its rows."""
    return any(
        direction in row.direction and table in tables.values() for direction, _, tables in _HEARERS
    )
