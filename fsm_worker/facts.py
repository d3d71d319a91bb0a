"""What a machine remembers beside its state. Changed only by a row's `sets` column."""

from enum import StrEnum

from msgspec import Struct

from protocol.errors import ErrorCode
from protocol.lifecycle import Outcome
from protocol.messages import Problem, ResultsInfo


class Why(StrEnum):
    """Why a running job is being ended; it decides the outcome once the process is gone."""

    NONE = ""
    STOP = "stop"
    CANCEL = "cancel"
    WALL = "wall"
    WORKER = "worker"
    DRAIN = "drain"


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """Facts of the worker."""

    slot: str = ""  # the job that holds it
    holder: str = ""  # the key that holds the reservation, or held the last one
    renewals: int = 0  # how often it was renewed
    claimed: bool = False  # a job of the holder is on its way in
    holds: int = 0  # how often it went on for that
    drained: bool = False  # an operator wants no further job to start
    why_drained: str = ""  # in the operator's words
    grace_s: float = 0.0  # what a running job gets then; 0 means all it needs
    overdue: bool = False  # it has had that
    leaving: bool = False  # ends when the slot is free
    asked: bool = False  # somebody asked for that: a second request ends what runs
    packing: bool = False  # it is stopping, and results of a job are still being packed
    forced: bool = False  # ends now, whatever is alive
    gone: bool = False  # owners were told how their jobs ended: sessions may be closed
    reason: str = ""  # of a break, degraded or stopping, for people


class LinkFacts(Struct, frozen=True, kw_only=True):
    """Facts of one link."""

    peer: str = ""  # peer id at the signaling server
    greeted: bool = False  # the peer's hello was taken
    key: str = ""  # the peer's public key, once proved
    rights: tuple[str, ...] = ()  # of that key
    session: str = ""  # that the peer asked for
    foreign: bool = False  # the peer speaks sleap-rtc
    generation: int = 1
    farewell: bool = False  # nobody comes back to its session: the peer said bye, or can't
    code: str = ""  # of the peer's bye
    reason: str = ""  # why it ended, for people


class SessionFacts(Struct, frozen=True, kw_only=True):
    """Facts of one session."""

    key: str = ""  # the client's public key
    link: str = ""  # the link it is attached to
    generation: int = 0  # of that link
    peer: str = ""
    dialled: int = 0  # the newest generation that was dialled (a client)
    near: bool = False  # a link is about to prove itself (a client)
    in_room: bool = False  # the signaling server carries our offers (a client)
    welcomed: bool = False  # the worker has let us in at least once (a client)
    code: str = ""  # why it was closed (a client)
    reason: str = ""


class JobFacts(Struct, frozen=True, kw_only=True):
    """Facts of one job."""

    owner: str = ""  # the public key that submitted it
    name: str = ""
    digest: str = ""  # of the whole submission: the same id with another one is a conflict
    inputs: tuple[str, ...] = ()  # announced names
    stored: tuple[str, ...] = ()  # names that have arrived
    stages: int = 0
    stage: int = 0
    step: int = 0  # of the stop escalation
    why: Why = Why.NONE
    outcome: Outcome = Outcome.NONE
    problems: tuple[Problem, ...] = ()
    results: ResultsInfo = ResultsInfo()
    attached: bool = True
    wall_s: float = 0.0  # 0 means no limit
    queue_s: float = 0.0  # 0 means the default
    forgotten: bool = False  # there are too many ended jobs to keep this one
    shared: bool = False  # its package lies in the shared storage


class ResultsFacts(Struct, frozen=True, kw_only=True):
    """Facts of one job's results."""

    owner: str = ""
    size: int = 0
    root: str = ""
    folder: str = ""  # in the shared storage
    session: str = ""  # being delivered to


class FileFacts(Struct, frozen=True, kw_only=True):
    """Facts of one file on its way, in or out."""

    session: str = ""
    transfer: int = 0
    job: str = ""
    name: str = ""
    path: str = ""  # of an outgoing file
    size: int = 0
    root: str = ""
    chunk: int = 64 * 1024
    link: str = ""  # by which it was asked for
    tries: int = 0  # how often it was asked for again after a bad hash
    code: ErrorCode = ErrorCode.INPUT_REFUSED  # why it was refused
    reason: str = ""


class GuestFacts(Struct, frozen=True, kw_only=True):
    """Facts of one client of another dialect."""

    session: str = ""
    kind: str = "train"  # which script its package holds; "train" or "track"
    folder: str = ""  # the client's own, for results
    name: str = ""  # of the package
    size: int = 0  # bytes of the package
    gui: bool = False  # it wants progress reports
    root: str = ""  # SHA-256 of the package
    job: str = ""
    stages: tuple[str, ...] = ()  # names of the script's commands
    stage: int = -1  # the newest that the client was told of
    log_over: bool = False
    outcome: Outcome = Outcome.NONE
    problems: tuple[Problem, ...] = ()
    results: ResultsInfo = ResultsInfo()
    transfer: int = 0  # of the results
    label: str = ""  # the client's own name of a job in the shared storage
    input: str = ""  # that job's package, once its path was checked
    output: str = ""  # that job's folder for results, once its path was checked
    shared: bool = False  # the job is one in the shared storage


class TalkFacts(Struct, frozen=True, kw_only=True):
    """Facts of one negotiation."""

    peer: str = ""  # peer id at the signaling server
    key: str = ""  # of the guest that the peer will be
    label: str = ""  # the job's id in the peer's words
    need: tuple[tuple[str, str], ...] = ()  # what its job needs, in the words of `protocol.need`
    older: tuple[str, ...] = ()  # jobs of this key that are none of this negotiation
    assigned: bool = False  # the peer has said that it comes
    job: str = ""  # the worker's id of its job


class SignallingFacts(Struct, frozen=True, kw_only=True):
    """Facts of the connection to the signaling server."""

    tries: int = 0  # failed in a row
    room: str = ""
    code: str = ""  # of the server's refusal, if that was its last word
    reason: str = ""
