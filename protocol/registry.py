"""The one list of what can be said on a wire: every dialect, who says what, and where it is read.

Pages, JSON Schemas and tests iterate over it. It is checked when it is imported: a message that no
dialect names, or a frame without a row, is an error whose sentence names it.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from msgspec import Struct

from protocol import messages, signaling, trainer
from protocol.sleap_rtc import frames, peer
from protocol.sleap_rtc import table as sleap_rtc
from protocol.table import MESSAGES, Direction

Kinds = tuple[type[Struct], ...]


class Dialect(NamedTuple):
    """One vocabulary."""

    name: str  # of its page and of its schema
    about: str  # one sentence
    module: str  # where its messages are
    base: type[Struct]  # of all of them
    said: Mapping[str, Kinds]  # by who says it to whom
    is_json: bool = True  # a schema can describe it
    add: str = ""  # what to do about a message that `said` lacks

    @property
    def kinds(self) -> Kinds:
        """Every message, once."""
        return tuple(dict.fromkeys(kind for some in self.said.values() for kind in some))


def tag(kind: type[Struct]) -> str:
    """The wire name of a message; of one without, the name of its type."""
    named = kind.__struct_config__.tag
    return named if isinstance(named, str) else kind.__name__


def leaves(base: type[Struct]) -> Iterator[type[Struct]]:
    """Every type below `base` that has none below it."""
    for kind in base.__subclasses__():
        below = tuple(leaves(kind))
        yield from below or (kind,)


def _native(direction: Direction) -> Kinds:
    return tuple(row.message for row in MESSAGES if direction in row.direction)


def _sleap_rtc(direction: Direction) -> Kinds:
    return tuple(dict.fromkeys(row.frame for row in sleap_rtc.ROWS if direction in row.direction))


def _peer(direction: Direction) -> Kinds:
    return tuple(row.word for row in peer.PEER_WORDS if direction in row.direction)


NATIVE = Dialect(
    "native",
    "What a client and a worker say to each other on a data channel of ours.",
    "protocol/messages.py",
    messages.Message,
    {
        "a client to a worker": _native(Direction.TO_WORKER),
        "a worker to a client": _native(Direction.TO_CLIENT),
    },
    add="give it a row in protocol.table, or delete it",
)
SLEAP_RTC = Dialect(
    "sleap_rtc",
    "What clients of sleap-rtc 0.0.7 and a worker say to each other on a data channel.",
    "protocol/sleap_rtc/frames.py",
    frames.Frame,
    {
        "a client to a worker": _sleap_rtc(Direction.TO_WORKER),
        "a worker to a client": _sleap_rtc(Direction.TO_CLIENT),
    },
    is_json=False,
    add="give it a row in protocol.sleap_rtc.table, or delete it",
)
SIGNALING = Dialect(
    "signaling",
    "What a peer and a signaling server say to each other before there is a data channel.",
    "protocol/signaling.py",
    signaling.Message,
    {
        "a peer to the server": get_args(signaling.FromPeer),
        "the server to a peer": get_args(signaling.FromServer),
        "the server, as an answer over HTTP": (
            signaling.SignIn,
            signaling.Room,
            signaling.RoomList,
        ),
    },
    add="put it into FromPeer or FromServer, or delete it",
)
PEER = Dialect(
    "peer",
    "What clients of sleap-rtc 0.0.7 and a worker say to each other through the signaling server.",
    "protocol/sleap_rtc/peer.py",
    peer.PeerWord,
    {
        "a client to a worker": _peer(Direction.TO_WORKER),
        "a worker to a client": _peer(Direction.TO_CLIENT),
    },
    add="put it into PEER_WORDS, or delete it",
)
TRAINER = Dialect(
    "trainer",
    "What a trainer and the worker say to each other over ZMQ, as sleap-nn 0.3.5 does.",
    "protocol/trainer.py",
    trainer.TrainerMessage,
    {"a trainer to the worker": trainer.KINDS, "the worker to a trainer": (trainer.StopCommand,)},
    add="put it into KINDS, or delete it",
)
#: Every dialect; the order is the reading order.
DIALECTS = (NATIVE, SLEAP_RTC, PEER, SIGNALING, TRAINER)


def check(dialect: Dialect) -> None:
    """Whether everything that can be said is said by somebody.

    Raises:
        TypeError: a message of the dialect's module is in none of its lists.
    """
    lost = sorted(kind.__name__ for kind in set(leaves(dialect.base)) - set(dialect.kinds))
    if lost:
        raise TypeError(f"{dialect.module}: nobody says {', '.join(lost)}: {dialect.add}")


for _dialect in DIALECTS:
    check(_dialect)
