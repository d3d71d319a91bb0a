"""Alice and mallory, their links, and a wire that loses, doubles and reorders.

The worker's side of the numbers is as in `seams.sessions`: what is read is counted by session.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Event, Received
from fsm_worker.machines.link import STRIKES
from fsm_worker.machines.routing import route
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import LinkState
from protocol.table import Direction, MachineName
from tests.exploration import sources
from tests.exploration.explorer import Kind, Move
from tests.exploration.stage import Stage

M = MachineName
ALICE, MALLORY = "alice", "mallory"
SESSION, HIS = "s-a", "s-m"
LINKS = ("l-1", "l-2")
HIS_LINK = "l-m"
GONE = "l-0"  # any link that is over
MOST = 2  # messages that alice says, and frames that are on their way
SPEAKING = {LinkState.UP, LinkState.SUSPECT}


class Peers(NamedTuple):
    """What is known outside the worker, and what its seam counts."""

    sent: int = 0  # alice's numbered messages
    read: int = 0  # of them, what the worker has read
    wire: tuple[tuple[str, int], ...] = ()  # link and number of each frame on its way
    dialled: tuple[tuple[str, int], ...] = ()  # alice's links and their generations


def react(stage: Stage, effect: Effect) -> None:
    """As `Sessions` does, in numbers."""
    peers: Peers = stage.peers
    match effect:
        case f.ReadMessage(event=e.FrameArrived() as event):
            facts: Any = effect.facts
            if event.number:
                if event.number != peers.read + 1:
                    stage.objections.append(f"{event.number} is read after {peers.read}")
                stage.peers = peers._replace(read=event.number)
            if event.message is None:
                return
            try:
                machine, subject = route(
                    stage.world, event.message, link=effect.subject, session=facts.session,
                    key=facts.key, rights=facts.rights,
                )  # fmt: skip
            except ProtocolError:
                return
            said = Received(
                message=event.message, link=effect.subject, session=facts.session, key=facts.key
            )
            stage.soon(machine, subject, said)
        case f.ForgetSession(subject=subject) if subject == SESSION:
            stage.peers = peers._replace(sent=0, read=0, wire=tuple((GONE, 1) for _ in peers.wire))
        case f.SendWelcome(subject=subject, facts=facts) if subject == SESSION:
            again = [(facts.link, n) for n in range(peers.read + 1, peers.sent + 1)]
            room = MOST - len(peers.wire)
            stage.peers = peers._replace(wire=tuple(sorted([*peers.wire, *again[:room]])))
        case _:
            pass


def _hello(link: str, key: str, session: str, generation: int, version: int = 1) -> Received:
    return Received(
        message=m.Hello(
            versions=(version,), role="client", key=key, nonce="N", session=session,
            generation=generation,
        ),
        link=link,
    )  # fmt: skip


def _proof(link: str) -> Received:
    return Received(message=m.Proof(signature="S"), link=link)


# --- alice ----------------------------------------------------------------------------------------


def _dial(stage: Stage, link: str, *, room: bool = True) -> None:
    facts = stage.facts(M.SESSION, SESSION)
    newest = max([number for _, number in stage.peers.dialled], default=0)
    generation = max(newest, facts.generation if facts is not None else 0) + 1
    if room:
        dialled = (*stage.peers.dialled, (link, generation))
        stage.peers = stage.peers._replace(dialled=tuple(sorted(dialled)))
    stage.feed(M.LINK, link, e.RecvOffer(peer="p-a", sdp="v=0", room_for_more=room))


def _dial_far(stage: Stage, link: str) -> None:
    """A second link, up to the moment at which its proof is checked."""
    _dial(stage, link)
    generation = dict(stage.peers.dialled)[link]
    for event in (
        e.SentAnswer(),
        e.IceCompleted(),
        e.ControlOpened(native=True),
        _hello(link, ALICE, SESSION, generation),
        _proof(link),
    ):
        stage.feed(M.LINK, link, event)


def dials(stage: Stage) -> Iterator[Move]:
    if stage.facts(M.WORKER, THE_WORKER).gone:
        return
    dialled = [link for link, _ in stage.peers.dialled]
    if not dialled:
        yield Move("alice dials", Kind.PEER, partial(_dial, link=LINKS[0]))
        yield Move(
            "alice dials a full worker", Kind.PEER, partial(_dial, link=LINKS[0], room=False)
        )
    elif len(dialled) == 1 and _is_far(stage, dialled[0]):
        yield Move("alice dials again", Kind.PEER, partial(_dial_far, link=LINKS[1]))


def _is_far(stage: Stage, link: str) -> bool:
    state = stage.state(M.LINK, link)
    checked = (M.LINK, link, f.CheckProof) in stage.tasks
    return state in SPEAKING or (state is LinkState.AUTHENTICATING and checked)


#: What a connection reports before its peer has proved anything.
PATH: dict[LinkState, tuple[tuple[str, Event], ...]] = {
    LinkState.CHECKING: (
        ("finds a path", e.IceCompleted()),
        ("finds no path", e.IceFailed()),
        ("opens", e.ControlOpened(native=True)),
    ),
    LinkState.SECURING: (
        ("opens", e.ControlOpened(native=True)),
        ("opens for a stranger", e.ControlOpened(native=False)),
        ("finds a path", e.IceCompleted()),
        ("loses its path", e.IceFailed()),
    ),
}
BREAKS: tuple[tuple[str, Event], ...] = (
    ("is closed", e.PeerClosed()),
    ("loses a channel", e.ChannelClosed()),
)
LATE: tuple[tuple[str, Event], ...] = (
    ("opens late", e.ControlOpened(native=True)),
    ("finds a path late", e.IceCompleted()),
    ("loses its path late", e.IceFailed()),
    ("is checked late", e.ProofChecked(proved=True, trusted=True)),
    ("is answered late", e.SentAnswer()),
)


def handshake(stage: Stage, link: str, generation: int) -> Iterator[Move]:
    instance = stage.world.get(M.LINK, link)
    if instance is None:
        return
    said: list[tuple[str, Event]] = list(PATH.get(instance.state, ()))
    if instance.state is LinkState.AUTHENTICATING:
        said += [
            ("says hello", _hello(link, ALICE, SESSION, generation)),
            ("says hello of another version", _hello(link, ALICE, SESSION, generation, 7)),
            ("says hello of no session", _hello(link, ALICE, "", generation)),
            ("proves", _proof(link)),
            ("speaks", e.FrameArrived(number=1, expected=1, message=m.JobsGet())),
            ("says nonsense", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1)),
            ("finds a path again", e.IceCompleted()),
            ("loses its path", e.IceFailed()),
        ]
    if instance.state is LinkState.CLOSING:
        said += [
            *LATE,
            ("speaks on", e.FrameArrived(message=m.JobsGet())),
            ("says nonsense on", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1)),
            ("says hello on", _hello(link, ALICE, SESSION, generation)),
            ("proves on", _proof(link)),
            *((f"says {type(word).__name__}", Received(message=word, link=link)) for word in LIFE),
        ]
    if not instance.final:
        said += BREAKS
    for name, event in said:
        yield sources.fact(f"{link} {name}", Kind.PEER, M.LINK, link, event)


LIFE = (m.Ping(n=1), m.Pong(n=1), m.Ack(), m.Bye())


def talks(stage: Stage, link: str) -> Iterator[Move]:
    """On a link that is up: signs of life, questions, and what is no message."""
    if stage.state(M.LINK, link) not in SPEAKING:
        return
    said: list[tuple[str, Event]] = [
        *((type(word).__name__, Received(message=word, link=link)) for word in LIFE),
        ("loses its path", e.IceFailed()),
        ("finds a path again", e.IceCompleted()),
        ("says nonsense", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1)),
        ("says nonsense again", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=STRIKES)),
        ("sends a chunk", e.FrameArrived()),
    ]
    if not stage.peers.sent:
        said += [
            (f"asks {type(word).__name__}", e.FrameArrived(message=word))
            for word in sources.messages((M.SESSION,), Direction.TO_WORKER)
        ]
    for name, event in said:
        yield sources.fact(f"{link} {name}", Kind.PEER, M.LINK, link, event)


def _send(stage: Stage, link: str) -> None:
    peers: Peers = stage.peers
    number = peers.sent + 1
    stage.peers = peers._replace(sent=number, wire=tuple(sorted([*peers.wire, (link, number)])))


def _deliver(stage: Stage, frame: tuple[str, int], *, keep: bool = False) -> None:
    if not keep:
        _lose(stage, frame)
    link, number = frame
    expected = stage.peers.read + 1
    arrived = e.FrameArrived(number=number, expected=expected, message=m.JobsGet())
    stage.feed(M.LINK, link, arrived)


def _lose(stage: Stage, frame: tuple[str, int]) -> None:
    wire = list(stage.peers.wire)
    wire.remove(frame)
    stage.peers = stage.peers._replace(wire=tuple(wire))


def wire(stage: Stage) -> Iterator[Move]:
    """Any frame may come next, come twice, or never."""
    peers: Peers = stage.peers
    facts = stage.facts(M.SESSION, SESSION)
    if facts is not None and facts.link and peers.sent < MOST and len(peers.wire) < MOST:
        yield Move("alice says something", Kind.PEER, partial(_send, link=facts.link))
    for frame in sorted(set(peers.wire)):
        what = f"frame {frame[1]} of {frame[0]}"
        yield Move(f"{what} arrives", Kind.PEER, partial(_deliver, frame=frame))
        yield Move(
            f"{what} arrives, and comes again", Kind.PEER, partial(_deliver, frame=frame, keep=True)
        )
        yield Move(f"{what} is lost", Kind.PEER, partial(_lose, frame=frame))


# --- mallory --------------------------------------------------------------------------------------


def _intrudes(stage: Stage, session: str) -> None:
    for event in (
        e.RecvOffer(peer="p-m", sdp="v=0", room_for_more=True),
        e.SentAnswer(),
        e.IceCompleted(),
        e.ControlOpened(native=True),
        _hello(HIS_LINK, MALLORY, session, 9),
        _proof(HIS_LINK),
        e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
    ):
        stage.feed(M.LINK, HIS_LINK, event)
    if stage.state(M.LINK, HIS_LINK) is LinkState.CLOSING:
        stage.feed(M.LINK, HIS_LINK, e.Flushed())
    stage.tasks = {task for task in stage.tasks if task[1] != HIS_LINK}


def mallory(stage: Stage) -> Iterator[Move]:
    if stage.world.get(M.LINK, HIS_LINK) is not None:
        bye = Received(message=m.Bye(), link=HIS_LINK)
        yield sources.fact("mallory says bye", Kind.TIME, M.LINK, HIS_LINK, bye)
    elif not stage.facts(M.WORKER, THE_WORKER).gone:
        for session in (SESSION, HIS):
            if session == HIS or stage.state(M.SESSION, SESSION) is not None:
                name = f"mallory comes for {session}"
                yield Move(name, Kind.PEER, partial(_intrudes, session=session))
