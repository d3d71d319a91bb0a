"""The facts that machines are told, past tense, direction in the name.

A seam or a manager reports them; no machine ever asks. A message from a peer is not listed here:
it arrives as `Received` and is read by the type of its message (its name is `recv_<tag>`). A timer
arrives as `TimerExpired` and is read by the timer.
"""

import re
from enum import StrEnum
from typing import Any

from msgspec import Struct

from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome
from protocol.messages import Capabilities, Message, Problem, ResultsInfo
from protocol.table import tag_of


class Timer(StrEnum):
    """Every timer of every machine; how long each runs is said in `machines.defaults`."""

    PROBE = "probe"
    CLEAN = "clean"
    STOP = "stop"
    LINGER = "linger"
    LEASE = "lease"
    DRAIN = "drain"
    NEGOTIATION = "negotiation"
    ICE = "ice"
    DTLS = "dtls"
    AUTH = "auth"
    PING = "ping"
    QUIET = "quiet"
    LOST = "lost"
    CLOSE = "close"
    SESSION = "session"
    REDIAL = "redial"
    STAGING = "staging"
    PREFLIGHT = "preflight"
    QUEUE = "queue"
    PREPARE = "prepare"
    WALL = "wall"
    REPEAT = "repeat"
    STEP = "step"
    KILL = "kill"
    UNKILLABLE = "unkillable"
    COLLECT = "collect"
    RETENTION = "retention"
    DELIVERY = "delivery"
    CONNECT = "connect"
    REGISTER = "register"
    SILENCE = "silence"
    DEAD = "dead"
    STABLE = "stable"
    DELAY = "delay"
    IDLE = "idle"
    TALK = "talk"


class Event(Struct, frozen=True, kw_only=True):
    """Base of all events."""


#: What a row listens to: an event type, a message type, or a timer.
On = type[Event] | type[Message] | Timer


class Received(Event, frozen=True, kw_only=True):
    """A peer's message, decoded, from an authenticated session (or from a link that is not yet)."""

    message: Any  # a protocol.messages.Message
    link: str = ""
    session: str = ""
    key: str = ""
    alive: int = 0  # jobs of this key that have not ended


class TimerExpired(Event, frozen=True, kw_only=True):
    """A timer ran out; `serial` tells it from an earlier arming of the same timer."""

    timer: Timer
    serial: int


class EffectFailed(Event, frozen=True, kw_only=True):
    """A manager could not perform an effect."""

    effect: str
    reason: str
    code: ErrorCode = ErrorCode.INTERNAL


# --- worker ---------------------------------------------------------------------------------


class Started(Event, frozen=True, kw_only=True):
    """The process is up."""


class ProbeSucceeded(Event, frozen=True, kw_only=True):
    """The host was probed; no GPU is a normal finding."""

    capabilities: Capabilities


class ProbeFailed(Event, frozen=True, kw_only=True):
    """The GPU's driver answered with an error."""

    reason: str


class SlotRequested(Event, frozen=True, kw_only=True):
    """A job is first in the queue and the slot is free, or is kept for its owner."""

    job: str
    owner: str = ""  # the key that submitted it


class NeedChecked(Event, frozen=True, kw_only=True):
    """What somebody who asks for the slot needs was compared with what is here."""

    key: str
    session: str  # where the answer goes
    unmet: tuple[str, ...] = ()  # a sentence for each requirement that is not met


class NeedCheckFailed(Event, frozen=True, kw_only=True):
    """What somebody who asks for the slot needs could not be compared with what is here."""

    key: str
    session: str  # where the answer goes


class ReservationClaimed(Event, frozen=True, kw_only=True):
    """A job of the reservation's holder is on its way in."""


class ReservationUnclaimed(Event, frozen=True, kw_only=True):
    """None is any more."""


class JobLeftGpu(Event, frozen=True, kw_only=True):
    """The job on the slot says that no process of it should be alive."""


class CleanSucceeded(Event, frozen=True, kw_only=True):
    """The job's process tree is proved dead."""


class CleanFailed(Event, frozen=True, kw_only=True):
    """Something of the job is still there."""

    reason: str


class TerminateRequested(Event, frozen=True, kw_only=True):
    """SIGINT, SIGTERM, or the program that embeds the worker."""


class JournalFailed(Event, frozen=True, kw_only=True):
    """What happened could not be written to disk."""

    reason: str


class NobodyCanCome(Event, frozen=True, kw_only=True):
    """The server refuses this worker, and nobody is attached."""


class PackingBegan(Event, frozen=True, kw_only=True):
    """The worker is stopping, and results of a job are being packed."""


class PackingEnded(Event, frozen=True, kw_only=True):
    """None are any more."""


class EverythingKilled(Event, frozen=True, kw_only=True):
    """Every process of every job was sent SIGKILL."""


class AllDone(Event, frozen=True, kw_only=True):
    """No job is alive, and nobody who is attached waits for results."""


# --- link -----------------------------------------------------------------------------------


class RecvOffer(Event, frozen=True, kw_only=True):
    """A client's SDP offer came through signaling."""

    peer: str
    sdp: str
    room_for_more: bool  # fewer links than the worker takes
    about: str = ""  # the client's name for this offer, which the answer repeats


class DialRequested(Event, frozen=True, kw_only=True):
    """This side, a client, wants a link."""

    peer: str
    session: str
    generation: int


class RecvAnswer(Event, frozen=True, kw_only=True):
    """The worker's SDP answer came through signaling."""

    sdp: str


class SentAnswer(Event, frozen=True, kw_only=True):
    """Candidates were gathered, and the answer is with the signaling server."""


class IceCompleted(Event, frozen=True, kw_only=True):
    """A path was found."""


class IceFailed(Event, frozen=True, kw_only=True):
    """No path was found."""


class PeerClosed(Event, frozen=True, kw_only=True):
    """The peer connection closed without our asking: the peer left, or consent expired."""


class ControlOpened(Event, frozen=True, kw_only=True):
    """The control channel is open."""

    native: bool  # it carries the native sub-protocol
    foreign_allowed: bool = False  # else: the operator lets clients of sleap-rtc in
    secret: bool = False  # they have to prove that they hold the room secret
    session: str = ""  # of such a client, which can't name one itself


class ChannelClosed(Event, frozen=True, kw_only=True):
    """One of the data channels closed."""


class FrameArrived(Event, frozen=True, kw_only=True):
    """A valid frame or chunk came in; its message, if it has one, is read afterwards."""

    number: int = 0  # 0 if it is not numbered
    expected: int = 0  # the next number of this session
    message: Message | None = None  # None for bulk and log, which are read by their lanes


class FrameRefused(Event, frozen=True, kw_only=True):
    """What came in has no meaning; it was answered."""

    code: ErrorCode
    strikes: int  # how many on this link, this one included


class Superseded(Event, frozen=True, kw_only=True):
    """A newer link of the same session has proved itself."""


class Flushed(Event, frozen=True, kw_only=True):
    """The farewell has left."""


class ProofChecked(Event, frozen=True, kw_only=True):
    """The peer's proof was compared with this connection's transcript."""

    proved: bool  # the signature is of the hello's key, over this very connection
    trusted: bool  # the key may come in, by itself or by its invitation
    rights: tuple[str, ...] = ()  # what it may do
    reason: str = ""


# --- session --------------------------------------------------------------------------------


class LinkUp(Event, frozen=True, kw_only=True):
    """A link of this session has proved itself."""

    link: str
    generation: int
    key: str
    peer: str


class LinkLost(Event, frozen=True, kw_only=True):
    """A link of this session ended."""

    link: str
    farewell: bool  # the peer said bye, or this side did
    code: str = ""  # of the peer's bye
    reason: str = ""


class RoomEntered(Event, frozen=True, kw_only=True):
    """The signaling server has this client in the worker's room: it can dial."""


class RoomLeft(Event, frozen=True, kw_only=True):
    """There is no signaling server to dial by."""


class RoomRefused(Event, frozen=True, kw_only=True):
    """The signaling server lets this client in no more, and no link of it is on its way."""

    code: ErrorCode
    reason: str


class LinkNear(Event, frozen=True, kw_only=True):
    """A link of this session has found its path, and is about to prove itself."""


class LinkFar(Event, frozen=True, kw_only=True):
    """There is no such link any more."""


class LinkRefused(Event, frozen=True, kw_only=True):
    """The worker has given one link up (a client); another may come up."""

    reason: str


class WorkerRefused(Event, frozen=True, kw_only=True):
    """Dialling again is no use (a client): the worker is not there, or does not want us."""

    code: ErrorCode
    reason: str


class OutOfStep(Event, frozen=True, kw_only=True):
    """One side has less of this session than it had: it has forgotten it."""


class OutboxFilled(Event, frozen=True, kw_only=True):
    """More is waiting for the other side than this side keeps."""


# --- job ------------------------------------------------------------------------------------


class InputStored(Event, frozen=True, kw_only=True):
    """An announced file is here, and hashes to what was announced."""

    name: str


class InputRefused(Event, frozen=True, kw_only=True):
    """An announced file could not be taken."""

    name: str
    code: ErrorCode
    reason: str


class ValidationPassed(Event, frozen=True, kw_only=True):
    """The package was unpacked and its script holds known commands only."""

    stages: int


class ValidationFailed(Event, frozen=True, kw_only=True):
    """The package or its script is refused."""

    problems: tuple[Problem, ...]


class SlotGranted(Event, frozen=True, kw_only=True):
    """The worker's slot is this job's."""


class Prepared(Event, frozen=True, kw_only=True):
    """Directory, ports and environment are ready."""

    gpu_free: bool
    reason: str = ""


class TrainerReported(Event, frozen=True, kw_only=True):
    """The trainer's progress channel spoke."""

    event: str


class ProcessExited(Event, frozen=True, kw_only=True):
    """The main process of a stage ended."""

    stage: int
    ok: bool
    out_of_memory: bool
    reason: str  # a sentence: the code or signal, and the last line of the log


class Collected(Event, frozen=True, kw_only=True):
    """Outputs are packed and hashed, or lie in the shared storage."""

    results: ResultsInfo
    problems: tuple[Problem, ...] = ()  # why they are not where they were wanted


class CollectFailed(Event, frozen=True, kw_only=True):
    """Outputs could not be packed."""

    reason: str


class FileProgressed(Event, frozen=True, kw_only=True):
    """Bytes of this job's files moved; said now and then, not for each chunk."""


class DrainOverdue(Event, frozen=True, kw_only=True):
    """The worker is drained, and the job that runs has had the time it was given."""


class WorkerLeaving(Event, frozen=True, kw_only=True):
    """The worker takes no new jobs."""


class WorkerStopping(Event, frozen=True, kw_only=True):
    """The worker ends now."""


class WorkerStopped(Event, frozen=True, kw_only=True):
    """The worker has ended, and kills what is left."""


class Crowded(Event, frozen=True, kw_only=True):
    """There are more of these than are kept, and this one is the oldest that nobody needs."""


class ClientAttached(Event, frozen=True, kw_only=True):
    """The owner has a session."""


class ClientDetached(Event, frozen=True, kw_only=True):
    """The owner has no session."""


# --- results --------------------------------------------------------------------------------


class JobDone(Event, frozen=True, kw_only=True):
    """The job has its outcome."""

    results: ResultsInfo
    owner: str


class ResultsAcknowledged(Event, frozen=True, kw_only=True):
    """The client stored the archive, and its hash is right."""


class DeliveryFailed(Event, frozen=True, kw_only=True):
    """The transfer of the archive ended without an acknowledgement."""


# --- files ----------------------------------------------------------------------------------


class ChunksCompleted(Event, frozen=True, kw_only=True):
    """Every byte of the file is on disk."""


class DigestMatched(Event, frozen=True, kw_only=True):
    """The bytes hash to what was announced, and the file has its final name."""


class DigestMismatched(Event, frozen=True, kw_only=True):
    """The bytes hash to something else."""


class StorageFailed(Event, frozen=True, kw_only=True):
    """The disk refused."""

    code: ErrorCode
    reason: str


class SendRequested(Event, frozen=True, kw_only=True):
    """A file is to be offered to the peer."""

    session: str
    transfer: int
    job: str
    path: str  # "" for the job's own results
    name: str
    size: int
    root: str


class SourceFailed(Event, frozen=True, kw_only=True):
    """The file can't be read as it was offered."""

    reason: str


class Unwanted(Event, frozen=True, kw_only=True):
    """Nobody needs this file any more."""


class LinkCut(Event, frozen=True, kw_only=True):
    """The transfer's session has no link."""


class LinkResumed(Event, frozen=True, kw_only=True):
    """The transfer's session has a link again, or another one."""

    link: str


class SessionEnded(Event, frozen=True, kw_only=True):
    """The session that a link or a transfer belongs to is over, or is somebody else's."""


# --- guest ----------------------------------------------------------------------------------


class GuestCame(Event, frozen=True, kw_only=True):
    """A link of another dialect is up."""

    session: str


class GuestLeft(Event, frozen=True, kw_only=True):
    """Its link is over."""


class PackageNamed(Event, frozen=True, kw_only=True):
    """The client said which script its package holds."""

    kind: str  # "train" or "track"


class FolderNamed(Event, frozen=True, kw_only=True):
    """The client said where it will put the results; a hint, never a path to open here."""

    folder: str


class PackageAnnounced(Event, frozen=True, kw_only=True):
    """The client announced its package, whose bytes come next."""

    name: str
    size: int  # bytes
    gui: bool  # it wants progress reports
    reason: str = ""  # why there is no place for the bytes; empty: there is


class PackageEnded(Event, frozen=True, kw_only=True):
    """The client says that the package is complete, and that it is to be run."""


class PackageChecked(Event, frozen=True, kw_only=True):
    """The package was measured and hashed."""

    root: str = ""  # SHA-256; empty: it is refused
    reason: str = ""  # why
    job: str = ""  # a fresh id
    stages: tuple[str, ...] = ()  # names of the script's commands, for people


class PackageWanted(Event, frozen=True, kw_only=True):
    """The worker asks for bytes of the package."""

    ranges: tuple[tuple[int, int], ...]


class PackageTaken(Event, frozen=True, kw_only=True):
    """The worker has the package."""


class JobTold(Event, frozen=True, kw_only=True):
    """The worker told where the guest's job stands."""

    state: JobState
    stage: int = 0  # from 0
    outcome: Outcome = Outcome.NONE
    problems: tuple[Problem, ...] = ()
    results: ResultsInfo = ResultsInfo()


class LogOver(Event, frozen=True, kw_only=True):
    """Everything that the job printed was said."""


class ResultsOffered(Event, frozen=True, kw_only=True):
    """The worker offers the results."""

    transfer: int
    size: int  # bytes
    root: str


class ResultsLost(Event, frozen=True, kw_only=True):
    """The worker does not send the results."""

    reason: str


class HandedOver(Event, frozen=True, kw_only=True):
    """The client has everything that is for it."""

    files: int


class StopAsked(Event, frozen=True, kw_only=True):
    """The client wants its job to end with the batch."""


class CancelAsked(Event, frozen=True, kw_only=True):
    """The client wants its job thrown away."""


class SharedJobNamed(Event, frozen=True, kw_only=True):
    """The client named a job in the shared storage; its paths come next."""

    label: str  # the client's own name of it


class InputNamed(Event, frozen=True, kw_only=True):
    """The client said where in the shared storage its package lies."""

    path: str


class OutputNamed(Event, frozen=True, kw_only=True):
    """The client said which folder of the shared storage will hold the results."""

    path: str


class InputChecked(Event, frozen=True, kw_only=True):
    """The package was looked for."""

    path: str
    kind: str = "train"  # which script it holds; "train" or "track"
    stages: tuple[str, ...] = ()  # names of the script's commands, for people
    reason: str = ""  # why the path is refused; empty: it is good


class OutputChecked(Event, frozen=True, kw_only=True):
    """The folder for results was looked at."""

    path: str
    reason: str = ""  # why the path is refused; empty: it is good


class PathRefused(Event, frozen=True, kw_only=True):
    """A path in the shared storage can't even be read."""

    reason: str


class SharedJobAsked(Event, frozen=True, kw_only=True):
    """The client wants the job in the shared storage to run."""

    job: str  # a fresh id


class FlowAsked(Event, frozen=True, kw_only=True):
    """The client began something that is known and not performed."""

    frame: Any  # a protocol.sleap_rtc frame


class GuestRefused(Event, frozen=True, kw_only=True):
    """The client is to hear why something of it was not taken."""

    reason: str


# --- talk -----------------------------------------------------------------------------------


class JobAsked(Event, frozen=True, kw_only=True):
    """A peer asks to keep the slot for a job of it."""

    peer: str
    key: str  # of the guest that it will be
    label: str  # the job's id in its words
    need: tuple[tuple[str, str], ...] = ()
    older: tuple[str, ...] = ()  # jobs of this key that are there already
    code: ErrorCode = ErrorCode.NOT_AUTHORISED
    reason: str = ""  # why it may not; empty: it may


class JobAssigned(Event, frozen=True, kw_only=True):
    """The peer says that it comes with its job."""

    peer: str
    label: str
    code: ErrorCode = ErrorCode.NOT_AUTHORISED
    reason: str = ""  # why it may not; empty: it may


class JobDropped(Event, frozen=True, kw_only=True):
    """The peer wants its job thrown away, or the slot that is kept for it."""

    peer: str
    label: str
    code: ErrorCode = ErrorCode.NOT_AUTHORISED
    reason: str = ""  # why it may not; empty: it may


class SlotKept(Event, frozen=True, kw_only=True):
    """The worker keeps the slot for the peer."""

    seconds: float


class SlotRefused(Event, frozen=True, kw_only=True):
    """The worker does not, or not once more."""

    code: ErrorCode
    reason: str


class SlotReleased(Event, frozen=True, kw_only=True):
    """The worker has taken the slot back, as it was asked to."""


class SlotLost(Event, frozen=True, kw_only=True):
    """The worker has taken the slot back by itself."""

    code: ErrorCode
    reason: str


class DropRefused(Event, frozen=True, kw_only=True):
    """The worker has nothing to take back, or is at it."""

    code: ErrorCode


class JobCame(Event, frozen=True, kw_only=True):
    """The job has come that the slot was kept for."""

    job: str


class JobGone(Event, frozen=True, kw_only=True):
    """It has ended, or is forgotten."""


# --- signalling -----------------------------------------------------------------------------


class SocketOpened(Event, frozen=True, kw_only=True):
    """The websocket is open."""


class SocketFailed(Event, frozen=True, kw_only=True):
    """The websocket could not be opened, or was lost."""

    reason: str


class RecvRegistered(Event, frozen=True, kw_only=True):
    """The server has this worker in the room."""

    room: str


class RecvRefusal(Event, frozen=True, kw_only=True):
    """The server answered with an error."""

    final: bool  # the credentials are wrong: trying again can't help
    code: ErrorCode
    reason: str


class StatusChanged(Event, frozen=True, kw_only=True):
    """What the room should know of this worker has changed."""


class SignalArrived(Event, frozen=True, kw_only=True):
    """Any frame from the server, pings included."""


def event_name(on: On) -> str:
    """The name of what a row listens to: `recv_submit`, `process_exited`, `timer_clean_expired`."""
    if isinstance(on, Timer):
        return f"timer_{on.value}_expired"
    if issubclass(on, Message):
        return f"recv_{tag_of(on)}"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", on.__name__).lower()


def key_of(event: Event) -> On:
    """What a row must listen to in order to see this event."""
    if isinstance(event, Received):
        kind: type[Message] = type(event.message)
        return kind
    if isinstance(event, TimerExpired):
        return event.timer
    return type(event)
