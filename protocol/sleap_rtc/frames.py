"""Every frame of the dialect as a value.

A frame knows nothing of its spelling: see `protocol.sleap_rtc.table` for that. What may stand in a
field, and how long it may be, is said by the kind of field that the table gives it.
"""

from enum import StrEnum

from msgspec import Struct


class Frame(Struct, frozen=True, kw_only=True):
    """Base of all frames."""


class NotPerformed(Frame, frozen=True, kw_only=True):
    """A frame of a flow that is known and not performed: it is told so in the client's words."""

    tag: str  # of a row of the table
    body: str | None = None  # all that follows the tag and its separator; None without one


# --- Files, and what keeps the channel open -------------------------------------------------


class KeepAlive(Frame, frozen=True, kw_only=True):
    """Said every 15 s by both sides; nobody answers it."""


class Chunk(Frame, frozen=True, kw_only=True):
    """The next bytes of the file that was announced last."""

    payload: bytes

    def __repr__(self) -> str:
        return f"<Chunk of {len(self.payload)} bytes>"


class EndOfFile(Frame, frozen=True, kw_only=True):
    """The announced file is complete; to a worker also: run the package."""


class FileMeta(Frame, frozen=True, kw_only=True):
    """A client announces the file that comes next."""

    name: str  # a plain name; sleap-rtc's worker fails on a colon in it, this one does not
    size: int  # bytes
    gui: bool  # whether the client wants progress reports


class ResultMeta(Frame, frozen=True, kw_only=True):
    """A worker announces the file that comes next."""

    name: str  # a plain name without a colon: sleap-rtc's client cuts at each
    size: int  # bytes
    folder: str  # where the client had said that it wants results; a hint, without a colon


# --- Package flow, client to worker ---------------------------------------------------------


class PackageKind(StrEnum):
    """What a package is for."""

    TRAIN = "train"
    TRACK = "track"


class PackageType(Frame, frozen=True, kw_only=True):
    """Which script the package holds."""

    kind: PackageKind


class OutputDir(Frame, frozen=True, kw_only=True):
    """Where the client wants its results: a folder of the client's, never a path to open here."""

    folder: str  # as the client's system writes it; may be empty, absolute, or hold a colon


# --- Shared storage flow, November 2025 -----------------------------------------------------


class SharedJob(Frame, frozen=True, kw_only=True):
    """The client's own name of the job that the next frames describe."""

    job: str


class SharedInputPath(Frame, frozen=True, kw_only=True):
    """Where the package lies."""

    path: str  # relative to the root of the shared storage, parts separated by "/"


class SharedOutputPath(Frame, frozen=True, kw_only=True):
    """Where the results go."""

    path: str  # relative to the root of the shared storage, parts separated by "/"


class SharedAction(StrEnum):
    """What to do with the described job."""

    START = "start"


class SharedStorageJob(Frame, frozen=True, kw_only=True):
    """The description is complete: run the job."""

    action: SharedAction = SharedAction.START


class SharedSide(StrEnum):
    """Which of the two paths was looked at."""

    INPUT = "input"
    OUTPUT = "output"


class PathValidated(Frame, frozen=True, kw_only=True):
    """The path is there and lies in the shared storage."""

    side: SharedSide


class PathError(Frame, frozen=True, kw_only=True):
    """The path is refused."""

    message: str


class JobComplete(Frame, frozen=True, kw_only=True):
    """The job ended well; the results lie in the shared storage."""

    job: str
    path: str  # relative to the root of the shared storage


class JobFailed(Frame, frozen=True, kw_only=True):
    """The job ended badly, or was never run."""

    job: str
    message: str


# --- Control, client to worker --------------------------------------------------------------


class Control(Frame, frozen=True, kw_only=True):
    """Base of the two spellings of a command of the monitor window."""

    command: str  # "stop" and "cancel" are known to sleap-rtc


class ZmqCtrl(Control, frozen=True, kw_only=True):
    """A command as the package flow spells it."""


class ControlCommand(Control, frozen=True, kw_only=True):
    """A command as sleap-rtc 0.0.7 spells it."""


class JobStop(Frame, frozen=True, kw_only=True):
    """Finish the batch and keep the model; of whatever job runs for this client."""


class JobCancel(Frame, frozen=True, kw_only=True):
    """Throw the job away; of whatever job runs for this client."""


# --- Authentication -------------------------------------------------------------------------


class AuthChallenge(Frame, frozen=True, kw_only=True):
    """The first frame of a worker that wants a proof."""

    nonce: str  # 32 random bytes in URL-safe base64 without padding


#: The proof of a client that has neither a key nor a secret.
NO_PROOF = "missing"


class AuthResponse(Frame, frozen=True, kw_only=True):
    """A client's proof; see `protocol.sleap_rtc.auth`."""

    proof: str  # an HMAC or a signature in URL-safe base64 without padding, or `NO_PROOF`


class AuthSuccess(Frame, frozen=True, kw_only=True):
    """The proof is good."""


class AuthReason(StrEnum):
    """Why a client may not come in."""

    INVALID = "invalid"  # the proof is wrong
    TIMEOUT = "timeout"  # no proof within 10 s
    MISSING = "missing"  # the client has none


class AuthFailure(Frame, frozen=True, kw_only=True):
    """The client may not come in."""

    reason: AuthReason


# --- A running job, worker to client --------------------------------------------------------


class TrainJobStart(Frame, frozen=True, kw_only=True):
    """A model's training begins."""

    name: str  # of its configuration file, without the ending


class TrainJobEnd(Frame, frozen=True, kw_only=True):
    """A model's training ended well."""

    name: str


class TrainJobError(Frame, frozen=True, kw_only=True):
    """A model's training ended badly."""

    name: str
    code: int  # exit status; negative: minus the number of the signal that ended it


class TrainingJobsDone(Frame, frozen=True, kw_only=True):
    """There is no more to train; sleap-rtc says it even if all failed."""


class InferenceStart(Frame, frozen=True, kw_only=True):
    """The tracking package was unpacked."""


class InferenceError(Frame, frozen=True, kw_only=True):
    """Tracking could not begin."""

    message: str


class InferenceJobStart(Frame, frozen=True, kw_only=True):
    """A tracking command begins."""

    name: str


class InferenceJobEnd(Frame, frozen=True, kw_only=True):
    """A tracking command ended well."""

    name: str


class InferenceJobError(Frame, frozen=True, kw_only=True):
    """A tracking command ended badly."""

    name: str
    code: int  # as in `TrainJobError`


class InferenceJobsDone(Frame, frozen=True, kw_only=True):
    """There is no more to track."""


class TrackLog(Frame, frozen=True, kw_only=True):
    """A line of output while tracking."""

    line: str


class ProgressReport(Frame, frozen=True, kw_only=True):
    """A message of the trainer.

    sleap-rtc's window gives the text to jsonpickle, which runs what the text names: write it from
    a message that was decoded here, never from the trainer's own bytes.
    """

    report: str  # JSON


class LogText(Frame, frozen=True, kw_only=True):
    """Output of the program, printed as it is.

    It brings its own line end; a leading carriage return replaces the current line, which is how
    the package flow spells a progress bar.
    """

    text: str


class LogOverwrite(Frame, frozen=True, kw_only=True):
    """Output that replaces the current line, as the structured flow of 0.0.7 spells it."""

    text: str


# --- How a flow that is not performed is refused --------------------------------------------


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with one field of a submitted job."""

    field: str
    message: str
    code: str | None = None
    path: str | None = None


class JobRejected(Frame, frozen=True, kw_only=True):
    """A structured job is not taken."""

    job: str  # the client's own name of it
    errors: tuple[Fault, ...]


class FsError(Frame, frozen=True, kw_only=True):
    """A question about the worker's files is not answered."""

    code: str  # ACCESS_DENIED, PATTERN_TOO_BROAD, PATH_NOT_FOUND or INVALID_REQUEST
    message: str


class FsWriteSlpError(Frame, frozen=True, kw_only=True):
    """A labels file is not written."""

    error: str


class WorkerPathError(Frame, frozen=True, kw_only=True):
    """A path of the worker's is not taken as a job's input."""

    message: str


class FileUploadError(Frame, frozen=True, kw_only=True):
    """An upload is not taken."""

    message: str
