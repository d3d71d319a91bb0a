"""What machines ask for. Each effect is performed by one method of one owner.

The method's name is the effect's in snake case (`CleanSlot` → `clean_slot`), so the dispatch table
is generated and an effect without a method is an error at start, not in the night. A plain method
runs at once and in order; an `async` one runs as a task of its subject (a link, a job, a transfer)
and reports by an event.
"""

import re
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from msgspec import Struct

from fsm_worker.events import Event, Timer
from protocol.errors import ErrorCode
from protocol.table import MachineName


class Owner(StrEnum):
    """Who performs an effect; the values are the attributes' names."""

    TIMERS = "timers"
    WEBRTC = "webrtc"
    LINKS = "links"
    HANDSHAKE = "handshake"
    SESSIONS = "sessions"
    SIGNALING = "signaling"
    CAPABILITIES = "capabilities"
    STATE_MANAGER = "state_manager"
    FILE_MANAGER = "file_manager"
    JOB_COORDINATOR = "job_coordinator"
    JOB_EXECUTOR = "job_executor"
    PROGRESS_REPORTER = "progress_reporter"
    GUESTS = "guests"
    PEERS = "peers"


class Effect(Struct, frozen=True, kw_only=True):
    """Base of all effects: for whom, because of what, by which row, with the facts after it.

    `before` and `after` are the machine's states around that row.
    """

    owner: ClassVar[Owner]
    #: True where waiting for the journal would cost the user more than it protects.
    urgent: ClassVar[bool] = False

    subject: str
    event: Event
    facts: Any
    row: str
    before: str
    after: str

    @classmethod
    def method(cls) -> str:
        """The name of the owner's method."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class Do(NamedTuple):
    """An effect with parameters, as it stands in a table."""

    effect: type[Effect]
    params: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        words = ", ".join(str(getattr(value, "value", value)) for _, value in self.params)
        return f"{self.effect.__name__}({words})"


def do(effect: type[Effect], **params: Any) -> Do:
    """Writes an effect with parameters into a table."""
    return Do(effect, tuple(params.items()))


class StartTimer(Effect, frozen=True, kw_only=True):
    """Arms a timer; it comes back as `TimerExpired` with this serial."""

    owner = Owner.TIMERS
    machine: MachineName
    timer: Timer
    serial: int


def arm(timer: Timer) -> Do:
    """Arms `timer` until the machine leaves the state."""
    return do(StartTimer, timer=timer)


# --- worker ---------------------------------------------------------------------------------


class ProbeHost(Effect, frozen=True, kw_only=True):
    """Ask NVML and the host what is here."""

    owner = Owner.CAPABILITIES


class PublishStatus(Effect, frozen=True, kw_only=True):
    """Tell the room and every attached client."""

    owner = Owner.STATE_MANAGER


class CleanSlot(Effect, frozen=True, kw_only=True):
    """Kill what is left of the job's tree, and prove it dead."""

    owner = Owner.JOB_EXECUTOR


class KillEverything(Effect, frozen=True, kw_only=True):
    """The last moment of a worker that could not end its jobs in time."""

    owner = Owner.JOB_EXECUTOR
    urgent = True


class CheckNeed(Effect, frozen=True, kw_only=True):
    """Compare what the asker's job needs with what is here."""

    owner = Owner.JOB_COORDINATOR


class GrantReservation(Effect, frozen=True, kw_only=True):
    """Tell the asker that the slot is kept for it, and how long."""

    owner = Owner.JOB_COORDINATOR


class RefuseReservation(Effect, frozen=True, kw_only=True):
    """Tell the asker everything that stands against it: what it needs in vain, or a sentence."""

    owner = Owner.JOB_COORDINATOR
    code: ErrorCode
    sentence: str


class ConfirmRelease(Effect, frozen=True, kw_only=True):
    """Tell the asker that its reservation is over."""

    owner = Owner.JOB_COORDINATOR


class EndReservation(Effect, frozen=True, kw_only=True):
    """Tell the holder that its reservation is over."""

    owner = Owner.JOB_COORDINATOR
    code: ErrorCode
    sentence: str


class ConfirmDrain(Effect, frozen=True, kw_only=True):
    """Tell the asker whether jobs start."""

    owner = Owner.STATE_MANAGER
    drained: bool


class Leave(Effect, frozen=True, kw_only=True):
    """The worker's run is over."""

    owner = Owner.STATE_MANAGER


# --- link -----------------------------------------------------------------------------------


class MakeOffer(Effect, frozen=True, kw_only=True):
    """Make a peer connection and its channels, and send an offer through signaling."""

    owner = Owner.WEBRTC


class AcceptAnswer(Effect, frozen=True, kw_only=True):
    """Give the peer connection the worker's answer."""

    owner = Owner.WEBRTC


class HandleConnection(Effect, frozen=True, kw_only=True):
    """Make a peer connection and send an answer through signaling."""

    owner = Owner.WEBRTC


class RefuseOffer(Effect, frozen=True, kw_only=True):
    """Say through signaling why there is no answer."""

    owner = Owner.LINKS
    code: ErrorCode


class SendHello(Effect, frozen=True, kw_only=True):
    """Open the handshake."""

    owner = Owner.HANDSHAKE


class SendProof(Effect, frozen=True, kw_only=True):
    """Prove our key for this connection."""

    owner = Owner.HANDSHAKE


class CheckProof(Effect, frozen=True, kw_only=True):
    """Compare the peer's proof with our own transcript."""

    owner = Owner.HANDSHAKE


class KeepIceAlive(Effect, frozen=True, kw_only=True):
    """Ask for a sign of life."""

    owner = Owner.WEBRTC


class SendChallenge(Effect, frozen=True, kw_only=True):
    """Ask a client of sleap-rtc to prove that it holds the room secret."""

    owner = Owner.GUESTS


class AdmitGuest(Effect, frozen=True, kw_only=True):
    """Tell it that it has."""

    owner = Owner.GUESTS


class TurnAway(Effect, frozen=True, kw_only=True):
    """Tell it that it has not, and close the peer connection when that has left."""

    owner = Owner.WEBRTC


class SendPong(Effect, frozen=True, kw_only=True):
    """Give one."""

    owner = Owner.LINKS


class SendAck(Effect, frozen=True, kw_only=True):
    """Say what has arrived, where no other frame says it soon."""

    owner = Owner.LINKS


class Farewell(Effect, frozen=True, kw_only=True):
    """Say bye, and why, and wait until it has left."""

    owner = Owner.LINKS
    code: ErrorCode


class ClosePeer(Effect, frozen=True, kw_only=True):
    """Close the peer connection."""

    owner = Owner.WEBRTC


class ReportLinkFailure(Effect, frozen=True, kw_only=True):
    """Say in words why there is no link: the path, the handshake or the key."""

    owner = Owner.LINKS
    code: ErrorCode


# --- session --------------------------------------------------------------------------------


class ReadMessage(Effect, frozen=True, kw_only=True):
    """Hand the frame's message to the machine that its row in the message table names."""

    owner = Owner.SESSIONS


class SendWelcome(Effect, frozen=True, kw_only=True):
    """Name the session and its rights."""

    owner = Owner.SESSIONS


class Replay(Effect, frozen=True, kw_only=True):
    """Send again what the other side has not got."""

    owner = Owner.SESSIONS


class ForgetSession(Effect, frozen=True, kw_only=True):
    """Drop the outbox."""

    owner = Owner.SESSIONS


class NoteError(Effect, frozen=True, kw_only=True):
    """A peer refused something of ours: write it down."""

    owner = Owner.SESSIONS


class SendWorkerStatus(Effect, frozen=True, kw_only=True):
    """Answer `worker_get`."""

    owner = Owner.STATE_MANAGER


class SendJobs(Effect, frozen=True, kw_only=True):
    """Answer `jobs_get` with the caller's jobs."""

    owner = Owner.JOB_COORDINATOR


class HoldOutbox(Effect, frozen=True, kw_only=True):
    """Send nothing on a new link before the worker's welcome (a client)."""

    owner = Owner.SESSIONS


class Dial(Effect, frozen=True, kw_only=True):
    """Ask for a link of the next generation (a client)."""

    owner = Owner.SESSIONS


class SendResume(Effect, frozen=True, kw_only=True):
    """The client's side of a welcome."""

    owner = Owner.SESSIONS


class Deliver(Effect, frozen=True, kw_only=True):
    """Hand a message to the program that uses the client."""

    owner = Owner.SESSIONS


# --- job ------------------------------------------------------------------------------------


class OpenJob(Effect, frozen=True, kw_only=True):
    """Make the job's directory, and expect its inputs."""

    owner = Owner.JOB_EXECUTOR


class ReportState(Effect, frozen=True, kw_only=True):
    """Tell the owner which row fired."""

    owner = Owner.JOB_COORDINATOR


class SendSnapshot(Effect, frozen=True, kw_only=True):
    """Tell the asker everything about the job."""

    owner = Owner.JOB_COORDINATOR


class SendExplanation(Effect, frozen=True, kw_only=True):
    """Tell the asker which rows led the job, or the worker, into its state."""

    owner = Owner.JOB_COORDINATOR
    of: MachineName


class ReplyError(Effect, frozen=True, kw_only=True):
    """Answer the message with a typed error."""

    owner = Owner.JOB_COORDINATOR
    code: ErrorCode
    sentence: str


class StreamLog(Effect, frozen=True, kw_only=True):
    """Send the job's log from an offset, and follow it."""

    owner = Owner.JOB_COORDINATOR


class ValidatePackage(Effect, frozen=True, kw_only=True):
    """Unpack the package and parse its script."""

    owner = Owner.JOB_EXECUTOR


class PrepareRun(Effect, frozen=True, kw_only=True):
    """Bind ports, look at the GPU, make the environment."""

    owner = Owner.JOB_EXECUTOR


class StartStage(Effect, frozen=True, kw_only=True):
    """Start the stage's program under a supervisor."""

    owner = Owner.JOB_EXECUTOR


class RequestStop(Effect, frozen=True, kw_only=True):
    """Tell the trainer over ZMQ to end with the batch."""

    owner = Owner.PROGRESS_REPORTER
    urgent = True


class InterruptTree(Effect, frozen=True, kw_only=True):
    """SIGINT to the job's process tree."""

    owner = Owner.JOB_EXECUTOR
    urgent = True


class TerminateTree(Effect, frozen=True, kw_only=True):
    """SIGTERM to the job's process tree."""

    owner = Owner.JOB_EXECUTOR
    urgent = True


class KillTree(Effect, frozen=True, kw_only=True):
    """SIGKILL to the job's process tree."""

    owner = Owner.JOB_EXECUTOR
    urgent = True


class CollectOutputs(Effect, frozen=True, kw_only=True):
    """Pack and hash what the job made."""

    owner = Owner.JOB_EXECUTOR


class DiscardOutputs(Effect, frozen=True, kw_only=True):
    """Nothing is kept of a cancelled job but its log."""

    owner = Owner.JOB_EXECUTOR


class ForgetJob(Effect, frozen=True, kw_only=True):
    """Drop what is remembered of a job that ended long ago; its folder stays."""

    owner = Owner.JOB_EXECUTOR


class CloseJob(Effect, frozen=True, kw_only=True):
    """Close the log and the ports, and drop what is not results."""

    owner = Owner.JOB_EXECUTOR


# --- results --------------------------------------------------------------------------------


class DeleteResults(Effect, frozen=True, kw_only=True):
    """Delete the archive; the log stays."""

    owner = Owner.FILE_MANAGER


# --- files ----------------------------------------------------------------------------------


class OpenIncoming(Effect, frozen=True, kw_only=True):
    """Open the partial file, and ask for what is missing."""

    owner = Owner.FILE_MANAGER


class AskMissing(Effect, frozen=True, kw_only=True):
    """Ask again for what is missing."""

    owner = Owner.FILE_MANAGER


class VerifyIncoming(Effect, frozen=True, kw_only=True):
    """Hash the bytes, and give the file its name if they are right."""

    owner = Owner.FILE_MANAGER


class ConfirmStored(Effect, frozen=True, kw_only=True):
    """Tell the sender that the file is here."""

    owner = Owner.FILE_MANAGER


class RefuseIncoming(Effect, frozen=True, kw_only=True):
    """Tell the sender why not, and drop what came."""

    owner = Owner.FILE_MANAGER


class DropIncoming(Effect, frozen=True, kw_only=True):
    """Drop what came; there is nobody to tell."""

    owner = Owner.FILE_MANAGER


class KeepIncoming(Effect, frozen=True, kw_only=True):
    """Let go of the file, and keep what came: another offer of it goes on from there."""

    owner = Owner.FILE_MANAGER


class OfferFile(Effect, frozen=True, kw_only=True):
    """Offer a file to the peer."""

    owner = Owner.FILE_MANAGER


class SendRanges(Effect, frozen=True, kw_only=True):
    """Send the ranges that the peer asked for; a newer request replaces an older."""

    owner = Owner.FILE_MANAGER


class StopSending(Effect, frozen=True, kw_only=True):
    """Send no more of the file."""

    owner = Owner.FILE_MANAGER


class AbortOutgoing(Effect, frozen=True, kw_only=True):
    """Tell the receiver that the file will not come."""

    owner = Owner.FILE_MANAGER


# --- guest ----------------------------------------------------------------------------------


class CheckPackage(Effect, frozen=True, kw_only=True):
    """Measure and hash what came."""

    owner = Owner.GUESTS


class SubmitPackage(Effect, frozen=True, kw_only=True):
    """Submit the package as a native client does, and ask for the job's log."""

    owner = Owner.GUESTS


class FeedPackage(Effect, frozen=True, kw_only=True):
    """Send the worker the bytes that it asks for."""

    owner = Owner.GUESTS


class KeepArriving(Effect, frozen=True, kw_only=True):
    """Take the announced file for the package."""

    owner = Owner.GUESTS


class DropArriving(Effect, frozen=True, kw_only=True):
    """Delete the announced file; it is not taken."""

    owner = Owner.GUESTS


class DropPackage(Effect, frozen=True, kw_only=True):
    """Delete what is kept of the package or of the results."""

    owner = Owner.GUESTS


class AskStop(Effect, frozen=True, kw_only=True):
    """Ask the worker to stop the guest's job."""

    owner = Owner.GUESTS


class AskCancel(Effect, frozen=True, kw_only=True):
    """Ask the worker to cancel it."""

    owner = Owner.GUESTS


class TellStage(Effect, frozen=True, kw_only=True):
    """Tell the client that a command begins, and that the one before has ended well."""

    owner = Owner.GUESTS


class TellEnd(Effect, frozen=True, kw_only=True):
    """Tell the client how its job ended."""

    owner = Owner.GUESTS


class FetchResults(Effect, frozen=True, kw_only=True):
    """Ask the worker for the results."""

    owner = Owner.GUESTS


class TakeResults(Effect, frozen=True, kw_only=True):
    """Make room for the results, and ask for their bytes."""

    owner = Owner.GUESTS


class HandOver(Effect, frozen=True, kw_only=True):
    """Hash the results, and send the client what is for it."""

    owner = Owner.GUESTS


class ConfirmResults(Effect, frozen=True, kw_only=True):
    """Tell the worker that the results have arrived."""

    owner = Owner.GUESTS


class RefuseResults(Effect, frozen=True, kw_only=True):
    """Tell the worker that they have not, and the client why."""

    owner = Owner.GUESTS


class TellGuest(Effect, frozen=True, kw_only=True):
    """Say a sentence to the client."""

    owner = Owner.GUESTS
    sentence: str


class TellReason(Effect, frozen=True, kw_only=True):
    """Say to the client why, in the event's words."""

    owner = Owner.GUESTS


class CheckInput(Effect, frozen=True, kw_only=True):
    """Look for a package in the shared storage."""

    owner = Owner.GUESTS


class CheckOutput(Effect, frozen=True, kw_only=True):
    """Look whether results can go into a folder of the shared storage."""

    owner = Owner.GUESTS


class AcceptPath(Effect, frozen=True, kw_only=True):
    """Tell the client that its path is good."""

    owner = Owner.GUESTS
    side: str  # "input" or "output"


class RefusePath(Effect, frozen=True, kw_only=True):
    """Tell the client that its path is refused, in the event's words."""

    owner = Owner.GUESTS


class RefuseShared(Effect, frozen=True, kw_only=True):
    """Tell the client that a job in the shared storage is not taken now."""

    owner = Owner.GUESTS
    sentence: str


class SubmitShared(Effect, frozen=True, kw_only=True):
    """Submit the job in the shared storage as a native client does, and ask for its log."""

    owner = Owner.GUESTS


class RefuseFlow(Effect, frozen=True, kw_only=True):
    """Answer a flow that is not performed, in the client's words."""

    owner = Owner.GUESTS


# --- talk -----------------------------------------------------------------------------------


class AskSlot(Effect, frozen=True, kw_only=True):
    """Ask the worker, as a native client does, to keep the slot for the peer."""

    owner = Owner.PEERS


class GiveSlotBack(Effect, frozen=True, kw_only=True):
    """Ask the worker to keep it no longer."""

    owner = Owner.PEERS


class ThrowJobAway(Effect, frozen=True, kw_only=True):
    """Ask the worker to cancel the peer's job."""

    owner = Owner.PEERS


class RefuseWord(Effect, frozen=True, kw_only=True):
    """Tell the peer why its word is not taken, in the event's words."""

    owner = Owner.PEERS


class TellUnknown(Effect, frozen=True, kw_only=True):
    """Tell the peer that it has asked for no such job."""

    owner = Owner.PEERS


class TellKept(Effect, frozen=True, kw_only=True):
    """Tell the peer that it may come."""

    owner = Owner.PEERS


class TellComing(Effect, frozen=True, kw_only=True):
    """Tell the peer, which has said that it comes, how long it is waited for."""

    owner = Owner.PEERS


class TellRefused(Effect, frozen=True, kw_only=True):
    """Tell the peer that the slot is not kept for it, and why."""

    owner = Owner.PEERS


class TellReleased(Effect, frozen=True, kw_only=True):
    """Tell the peer that the slot is given back."""

    owner = Owner.PEERS


class TellLost(Effect, frozen=True, kw_only=True):
    """Tell the peer that the slot is kept no longer, and why."""

    owner = Owner.PEERS


class TellNotDropped(Effect, frozen=True, kw_only=True):
    """Tell the peer why nothing was thrown away."""

    owner = Owner.PEERS


class TellJob(Effect, frozen=True, kw_only=True):
    """Tell the peer where its job stands, or how it ended."""

    owner = Owner.PEERS


# --- signalling -----------------------------------------------------------------------------


class OpenSocket(Effect, frozen=True, kw_only=True):
    """Connect the websocket."""

    owner = Owner.SIGNALING


class SendRegistration(Effect, frozen=True, kw_only=True):
    """Join the room; the same words every time."""

    owner = Owner.STATE_MANAGER


class AnnounceStatus(Effect, frozen=True, kw_only=True):
    """Tell the room what has changed."""

    owner = Owner.STATE_MANAGER


class ReportReady(Effect, frozen=True, kw_only=True):
    """Tell the operator how clients get here."""

    owner = Owner.STATE_MANAGER


class PingServer(Effect, frozen=True, kw_only=True):
    """Ask the server for a sign of life."""

    owner = Owner.SIGNALING


class CloseSocket(Effect, frozen=True, kw_only=True):
    """Close the websocket."""

    owner = Owner.SIGNALING


class ReportSignalling(Effect, frozen=True, kw_only=True):
    """Say in words that the server refused."""

    owner = Owner.STATE_MANAGER


def effect_names(entries: tuple[type[Effect] | Do, ...]) -> tuple[str, ...]:
    """The effects of a row, as the grid shows them."""
    return tuple(str(entry) if isinstance(entry, Do) else entry.__name__ for entry in entries)
