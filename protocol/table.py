"""The message table: one row for each message says everything about it but its fields.

The row names who may say it, on which lane, with which right, which machine it becomes an event
of, and what can come back. The event is `recv_<tag>` by rule. In which states a message is legal
is not restated here: it is legal exactly where that machine's table has a row for its event.
"""

from collections.abc import Mapping
from enum import Flag, StrEnum, auto
from typing import NamedTuple

from protocol import messages as m


class MachineName(StrEnum):
    """The machines that messages and other facts are addressed to."""

    WORKER = "worker"
    LINK = "link"
    SESSION = "session"
    JOB = "job"
    RESULTS = "results"
    SIGNALLING = "signalling"
    RECEIVING = "receiving"
    SENDING = "sending"
    GUEST = "guest"
    TALK = "talk"


class Direction(Flag):
    """Who may say it."""

    TO_WORKER = auto()
    TO_CLIENT = auto()
    BOTH = TO_WORKER | TO_CLIENT


class Lane(StrEnum):
    """Which channel carries it."""

    CONTROL = "control"
    LOG = "log"


class Right(StrEnum):
    """What the sender's key must be allowed to do."""

    NONE = "none"  # before or during authentication
    SUBMIT = "submit"  # any trusted key
    OWN_JOB = "own_job"  # the key that submitted this job
    OWN_TRANSFER = "own_transfer"  # the session that the transfer belongs to
    OPERATE = "operate"  # a key that may say when the worker works


class Replay(StrEnum):
    """What a new link of the same session gets again."""

    ALL = "all"  # numbered, kept until acknowledged
    NEWEST = "newest"  # unnumbered; the next one replaces it
    NEVER = "never"  # unnumbered; belongs to one link, or is read again by offset


class MessageRow(NamedTuple):
    """One message, and the machine that hears it."""

    message: type[m.Message]
    direction: Direction
    machine: MachineName
    subject: str  # the field that names the machine's instance; "" means the one at hand
    right: Right = Right.SUBMIT
    replay: Replay = Replay.ALL
    lane: Lane = Lane.CONTROL
    replies: tuple[type[m.Message], ...] = ()

    @property
    def tag(self) -> str:
        """The wire name."""
        return tag_of(self.message)

    @property
    def event(self) -> str:
        """The name of the event that it becomes."""
        return f"recv_{self.tag}"


def tag_of(message: type[m.Message]) -> str:
    """The wire name of a message type."""
    tag = message.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{message.__name__} has no tag: give its class one")
    return tag


_W, _C, _B = Direction.TO_WORKER, Direction.TO_CLIENT, Direction.BOTH
_M, _R, _P = MachineName, Right, Replay

MESSAGES: tuple[MessageRow, ...] = (
    # Opening and holding a link
    MessageRow(m.Hello, _B, _M.LINK, "", _R.NONE, _P.NEVER, replies=(m.Hello, m.Proof)),
    MessageRow(m.Proof, _B, _M.LINK, "", _R.NONE, _P.NEVER, replies=(m.Proof, m.Welcome)),
    MessageRow(m.Ping, _B, _M.LINK, "", _R.SUBMIT, _P.NEVER, replies=(m.Pong,)),
    MessageRow(m.Pong, _B, _M.LINK, "", _R.SUBMIT, _P.NEVER),
    MessageRow(m.Ack, _B, _M.LINK, "", _R.SUBMIT, _P.NEVER),
    MessageRow(m.Bye, _B, _M.LINK, "", _R.SUBMIT, _P.NEVER),
    MessageRow(m.Welcome, _C, _M.SESSION, "", _R.SUBMIT, _P.NEVER, replies=(m.Resume,)),
    MessageRow(m.Resume, _W, _M.SESSION, "", _R.SUBMIT, _P.NEVER),
    MessageRow(m.Error, _B, _M.SESSION, ""),
    # The worker
    MessageRow(m.WorkerGet, _W, _M.SESSION, "", replies=(m.WorkerStatus,)),
    MessageRow(m.WorkerStatus, _C, _M.SESSION, "", replay=_P.NEWEST),
    MessageRow(m.Reserve, _W, _M.WORKER, "", replies=(m.Reserved, m.ReserveRefused)),
    MessageRow(m.Reserved, _C, _M.SESSION, ""),
    MessageRow(m.ReserveRefused, _C, _M.SESSION, ""),
    MessageRow(m.Release, _W, _M.WORKER, "", replies=(m.Released, m.Error)),
    MessageRow(m.Released, _C, _M.SESSION, ""),
    MessageRow(m.ReservationOver, _C, _M.SESSION, ""),
    MessageRow(m.Drain, _W, _M.WORKER, "", _R.OPERATE, replies=(m.DrainState, m.Error)),
    MessageRow(m.Undrain, _W, _M.WORKER, "", _R.OPERATE, replies=(m.DrainState, m.Error)),
    MessageRow(m.DrainState, _C, _M.SESSION, ""),
    # Jobs
    MessageRow(m.Submit, _W, _M.JOB, "job", replies=(m.JobSnapshot, m.Error)),
    MessageRow(m.Stop, _W, _M.JOB, "job", _R.OWN_JOB, replies=(m.JobStateChanged, m.Error)),
    MessageRow(m.Cancel, _W, _M.JOB, "job", _R.OWN_JOB, replies=(m.JobStateChanged, m.Error)),
    MessageRow(m.Attach, _W, _M.JOB, "job", _R.OWN_JOB, replies=(m.JobSnapshot,)),
    MessageRow(m.JobsGet, _W, _M.SESSION, "", replies=(m.Jobs,)),
    MessageRow(m.Jobs, _C, _M.SESSION, ""),
    MessageRow(m.JobSnapshot, _C, _M.SESSION, ""),
    MessageRow(m.JobStateChanged, _C, _M.SESSION, ""),
    MessageRow(m.Progress, _C, _M.SESSION, "", replay=_P.NEWEST),
    MessageRow(m.Telemetry, _C, _M.SESSION, "", replay=_P.NEWEST),
    # Logs
    MessageRow(m.LogGet, _W, _M.JOB, "job", _R.OWN_JOB, replies=(m.Log, m.LogEnd)),
    MessageRow(m.Log, _C, _M.SESSION, "", _R.SUBMIT, _P.NEVER, Lane.LOG),
    MessageRow(m.LogEnd, _C, _M.SESSION, "", _R.SUBMIT, _P.NEVER, Lane.LOG),
    # Files
    MessageRow(
        m.FileOffer, _B, _M.RECEIVING, "transfer", _R.OWN_JOB, replies=(m.FileNeed, m.FileRefused)
    ),
    MessageRow(m.FileNeed, _B, _M.SENDING, "transfer", _R.OWN_TRANSFER),
    MessageRow(m.FileStored, _B, _M.SENDING, "transfer", _R.OWN_TRANSFER),
    MessageRow(m.FileRefused, _B, _M.SENDING, "transfer", _R.OWN_TRANSFER),
    MessageRow(m.FileAbort, _B, _M.RECEIVING, "transfer", _R.OWN_TRANSFER),
    MessageRow(m.Fetch, _W, _M.RESULTS, "job", _R.OWN_JOB, replies=(m.FileOffer, m.Error)),
    # Why
    MessageRow(m.Explain, _W, _M.JOB, "job", _R.OWN_JOB, replies=(m.Explained, m.Error)),
    MessageRow(m.ExplainWorker, _W, _M.SESSION, "", replies=(m.Explained, m.Error)),
    MessageRow(m.Explained, _C, _M.SESSION, ""),
)

ROW_OF: Mapping[type[m.Message], MessageRow] = {row.message: row for row in MESSAGES}

if len(ROW_OF) != len(MESSAGES):
    raise TypeError("protocol.table names a message twice: keep one row for each")
_missing = set(m.Message.__subclasses__()) - set(ROW_OF)
if _missing:
    _names = ", ".join(sorted(kind.__name__ for kind in _missing))
    raise TypeError(f"no row in protocol.table for {_names}: add one, or delete the message")
