"""Every message of the native dialect, version 1.

A control frame is JSON of at most 60 KiB: `{"seq": n, "ack": m, "msg": {"type": …, …}}`. `seq`
counts the numbered messages of one session in one direction from 1; 0 marks a message outside
the count (hello, proof, ack, ping, pong, and all that is only ever the newest of its kind).
`ack` is the highest number received so far, cumulative.

How the messages may evolve: a new field has a default; a field is never retyped; a tag is never
reused; a reader ignores fields that it does not know.

Which peer may say what, when, and what comes back is not said here: see `protocol.table`.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, ResultsState, WorkerState

JobId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{7,63}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]  # SHA-256, hexadecimal
Transfer = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Size = Annotated[int, Meta(ge=0, le=2**53)]  # bytes
ChunkSize = Annotated[int, Meta(ge=4096, le=256 * 1024)]  # bytes, header included
FileName = Annotated[str, Meta(min_length=1, max_length=200)]
ShortText = Annotated[str, Meta(max_length=512)]
SharedPath = Annotated[str, Meta(max_length=1024)]  # under the shared root; `/` between its parts


class Message(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages; the tag is the wire name."""


# --- Opening a link -------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First words of both sides."""

    versions: tuple[int, ...]
    role: str  # "client" or "worker"
    key: str  # Ed25519 public key, 32 bytes in URL-safe base64 without padding
    nonce: str  # 32 random bytes in URL-safe base64 without padding
    session: ShortText = ""  # chosen by the client; the same one again resumes it
    generation: Size = 1  # how many links this session has had, this one included (client only)
    features: tuple[str, ...] = ()
    implementation: str = ""  # name and version, for logs only


class Proof(Message, frozen=True, kw_only=True, tag="proof"):
    """Proves the key of this side's hello for this very connection; see `protocol.proof`."""

    signature: str  # Ed25519, 64 bytes in URL-safe base64 without padding
    invitation: str = ""  # HMAC-SHA256 under the one-time secret, same coding (client only)


class Limits(Struct, frozen=True, kw_only=True):
    """What the sender of `welcome` takes."""

    frame: int = 60 * 1024  # bytes of one control frame
    chunk: int = 64 * 1024  # bytes of one bulk chunk, header included


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The link is up; the worker names the session and what it has of it."""

    session: str
    received: int  # highest number that the worker has from this client in this session
    rights: tuple[str, ...]
    worker: str  # the worker's own name
    limits: Limits = Limits()


class Resume(Message, frozen=True, kw_only=True, tag="resume"):
    """The client's side of a welcome: what it has, so that the worker replays the rest."""

    received: int


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Carries nothing but the `ack` of its frame."""


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Asks for a pong."""

    n: int


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """Answers the ping of the same `n`."""

    n: int


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """This side ends the session on purpose."""

    reason: str = ""
    code: ErrorCode = ErrorCode.WORKER_LEAVING


class Error(Message, frozen=True, kw_only=True, tag="error"):
    """A message was refused; the state of whatever it was about is unchanged."""

    code: ErrorCode
    message: str  # a sentence that says what to do next
    about: str = ""  # the tag of the refused message
    job: str = ""
    transfer: int = 0
    row: str = ""  # the table's row or pair that decided


# --- The worker -----------------------------------------------------------------------------


class Gpu(Struct, frozen=True, kw_only=True):
    """One GPU, as NVML reports it."""

    uuid: str
    model: str
    memory_mb: int  # MiB in all
    memory_free_mb: int  # MiB free when probed
    driver: str = ""
    cuda: str = ""  # highest CUDA version that the driver supports
    compute_capability: str = ""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a worker can run."""

    gpus: tuple[Gpu, ...] = ()
    runners: tuple[str, ...] = ()
    cpus: int = 0
    memory_mb: int = 0  # MiB of host memory
    disk_free_mb: int = 0  # MiB where jobs are kept
    hostname: str = ""
    platform: str = ""
    gpu: str = ""  # UUID of the GPU that jobs get; empty without one
    declared: tuple[str, ...] = ()  # fields that the operator set by hand, over what was measured
    tags: tuple[str, ...] = ()  # the operator's own words
    shared_storage: bool = False  # jobs may name paths in a storage that clients see, too


class WorkerGet(Message, frozen=True, kw_only=True, tag="worker_get"):
    """Asks for `worker_status`."""


class WorkerStatus(Message, frozen=True, kw_only=True, tag="worker_status"):
    """The worker's published status, and what it can run."""

    name: str
    state: WorkerState
    job: str = ""  # the job on the slot, for its owner only
    reason: str = ""
    capabilities: Capabilities = Capabilities()


class Reserve(Message, frozen=True, kw_only=True, tag="reserve"):
    """Asks for the free slot, for a while; asking again renews it a few times."""

    need: dict[str, str] = field(default_factory=dict)  # see `protocol.need`


class Reserved(Message, frozen=True, kw_only=True, tag="reserved"):
    """The slot is kept for the caller's next job."""

    seconds: float  # from now on, unless a job of the caller is on its way by then
    renewals: int  # how often it can still be renewed


class ReserveRefused(Message, frozen=True, kw_only=True, tag="reserve_refused"):
    """The slot is not kept for the caller."""

    code: ErrorCode
    reasons: tuple[str, ...]  # everything that stands against it, a sentence each
    state: WorkerState


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """Gives a reservation back."""


class Released(Message, frozen=True, kw_only=True, tag="released"):
    """The caller's reservation is over, as asked."""


class ReservationOver(Message, frozen=True, kw_only=True, tag="reservation_over"):
    """The caller's reservation is over, though it did not ask for that."""

    code: ErrorCode
    reason: str


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """Asks the worker to start no further job until `undrain`."""

    reason: ShortText = ""  # for people who ask why nothing starts
    deadline_s: Annotated[float, Meta(ge=0)] = (
        0.0  # seconds after which a running job is stopped (its model is kept); 0: it may finish
    )


class Undrain(Message, frozen=True, kw_only=True, tag="undrain"):
    """Takes `drain` back."""


class DrainState(Message, frozen=True, kw_only=True, tag="drain_state"):
    """How the worker stands after `drain` or `undrain`."""

    drained: bool  # it starts no further job
    state: WorkerState


# --- Jobs -----------------------------------------------------------------------------------


class InputFile(Struct, frozen=True, kw_only=True):
    """A file that the job needs, announced before it is offered."""

    name: FileName  # a plain name without separators
    size: Size  # bytes
    root: Digest  # SHA-256 of its content, 64 hexadecimal digits


class JobSpec(Struct, frozen=True, kw_only=True):
    """What to run."""

    kind: str = "package"  # a zip archive that holds a script of known commands; or "shared"
    name: ShortText = ""  # for people
    input: SharedPath = ""  # of "shared": where the package lies, a zip archive or a folder
    output: SharedPath = ""  # of "shared": the folder that will hold the results


class JobPolicy(Struct, frozen=True, kw_only=True):
    """How long the job may take."""

    wall_s: Annotated[float, Meta(ge=0)] = (
        0.0  # seconds of running before it is stopped; 0 means no limit
    )
    queue_s: Annotated[float, Meta(ge=0)] = (
        0.0  # seconds in the queue before it expires; 0 means the worker's default
    )


class Submit(Message, frozen=True, kw_only=True, tag="submit"):
    """Hands a job over. Sending it again with the same content changes nothing."""

    job: JobId  # chosen by the client: 8 to 64 characters of a-z, 0-9 and "-"
    spec: JobSpec
    inputs: Annotated[tuple[InputFile, ...], Meta(max_length=64)] = ()
    policy: JobPolicy = JobPolicy()


class Problem(Struct, frozen=True, kw_only=True):
    """One reason why a job was rejected or failed."""

    code: ErrorCode
    sentence: str
    line: int = 0  # of the script, from 1; 0 where no line is meant


class ResultsInfo(Struct, frozen=True, kw_only=True):
    """The outputs of a job: packed into an archive, or put into the shared storage."""

    state: ResultsState = ResultsState.NONE
    size: int = 0  # bytes of the archive, or of all files in the folder
    root: str = ""  # SHA-256 of the archive, hexadecimal; empty without one
    files: int = 0
    folder: str = ""  # in the shared storage, relative to its root; empty for an archive
    manifest: str = ""  # SHA-256 of the folder's manifest.json, hexadecimal


class JobSnapshot(Message, frozen=True, kw_only=True, tag="job_snapshot"):
    """Everything about a job at one moment."""

    job: str
    name: str
    state: JobState
    outcome: Outcome = Outcome.NONE
    problems: tuple[Problem, ...] = ()
    stage: int = 0  # from 0
    stages: int = 0
    log_bytes: int = 0
    results: ResultsInfo = ResultsInfo()
    submitted_at: float = 0.0  # seconds since 1970-01-01 UTC, the worker's clock


class JobStateChanged(Message, frozen=True, kw_only=True, tag="job_state"):
    """One row of the job's table fired."""

    job: str
    before: JobState
    state: JobState
    row: str
    event: str
    outcome: Outcome = Outcome.NONE
    problems: tuple[Problem, ...] = ()
    stage: int = 0
    stages: int = 0
    results: ResultsInfo = ResultsInfo()


class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """The newest word of the trainer; a newer one replaces it."""

    job: str
    stage: int
    event: str  # train_begin, epoch_begin, batch_end, epoch_end or train_end
    epoch: int | None = None  # from 0
    epochs: int | None = None  # planned, where known
    batch: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)  # None: not a finite number
    sent_at: float = 0.0  # the trainer's clock, seconds since 1970-01-01 UTC; 0 if it said none


class Telemetry(Message, frozen=True, kw_only=True, tag="telemetry"):
    """What the running job uses of the machine; a newer one replaces it."""

    job: str
    gpu_percent: float | None = None
    gpu_memory_mb: int | None = None  # MiB in use on the job's GPU
    cpu_percent: float = 0.0  # of one core: 200 is two cores
    memory_mb: int = 0  # MiB resident, the whole process tree


class Stop(Message, frozen=True, kw_only=True, tag="stop"):
    """Finish the batch and keep the model."""

    job: JobId


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Throw the job away."""

    job: JobId


class Attach(Message, frozen=True, kw_only=True, tag="attach"):
    """Asks for a `job_snapshot`, and for the job's events from now on."""

    job: JobId


class JobsGet(Message, frozen=True, kw_only=True, tag="jobs_get"):
    """Asks for the caller's jobs."""


class Jobs(Message, frozen=True, kw_only=True, tag="jobs"):
    """The caller's jobs, oldest first; the newest where a frame does not hold them all."""

    jobs: tuple[JobSnapshot, ...]


# --- Why ------------------------------------------------------------------------------------


class ExplainedStep(Struct, frozen=True, kw_only=True):
    """One row that fired, as the worker's journal has it."""

    at: float  # seconds since 1970-01-01 UTC, the worker's clock
    row: str
    event: str
    before: str
    after: str
    guards: dict[str, bool] = field(default_factory=dict)  # those that were asked, with the answer
    coupling: str = ""  # the coupling row that forced the event; empty for one from outside


class Explain(Message, frozen=True, kw_only=True, tag="explain"):
    """Asks why a job is in its state."""

    job: JobId


class ExplainWorker(Message, frozen=True, kw_only=True, tag="explain_worker"):
    """Asks why the worker is in its state."""


class Explained(Message, frozen=True, kw_only=True, tag="explained"):
    """How a job, or the worker, came into its state, and what can lead on from there."""

    job: str = ""  # empty: the worker
    state: str
    steps: tuple[ExplainedStep, ...]  # oldest first; the newest where a frame can't hold them all
    awaits: tuple[str, ...] = ()  # events that lead to another state from here


# --- Logs -----------------------------------------------------------------------------------


class LogGet(Message, frozen=True, kw_only=True, tag="log_get"):
    """Asks for the job's output from a byte offset, and for what comes after."""

    job: JobId
    offset: Size = 0  # bytes into the log file


class Log(Message, frozen=True, kw_only=True, tag="log"):
    """A piece of the program's output; a leading carriage return replaces the current line."""

    job: str
    offset: int  # bytes into the log file
    next: int  # where the next piece starts
    text: str


class LogEnd(Message, frozen=True, kw_only=True, tag="log_end"):
    """The log is closed and everything was sent."""

    job: str
    size: int  # bytes


# --- Files ----------------------------------------------------------------------------------


class FileOffer(Message, frozen=True, kw_only=True, tag="file_offer"):
    """A file is ready to be sent."""

    transfer: Transfer  # chosen by the sender, from 1; unique in the session and direction
    job: JobId
    name: FileName
    size: Size  # bytes
    root: Digest  # SHA-256, hexadecimal
    chunk: ChunkSize = 64 * 1024  # bytes of one bulk chunk, header included


class FileNeed(Message, frozen=True, kw_only=True, tag="file_need"):
    """The receiver asks for these half-open byte ranges; none means that it has the file."""

    transfer: Transfer
    ranges: Annotated[tuple[tuple[Size, Size], ...], Meta(max_length=1024)]
    chunk: ChunkSize = 64 * 1024  # bytes of the largest chunk it takes, header included


class FileStored(Message, frozen=True, kw_only=True, tag="file_stored"):
    """The bytes hash to what was announced, and the file has its final name."""

    transfer: Transfer
    root: Digest


class FileRefused(Message, frozen=True, kw_only=True, tag="file_refused"):
    """The receiver does not take the file."""

    transfer: Transfer
    code: ErrorCode
    message: str


class FileAbort(Message, frozen=True, kw_only=True, tag="file_abort"):
    """The sender gives up."""

    transfer: Transfer
    code: ErrorCode = ErrorCode.ABORTED
    message: str = ""


class Fetch(Message, frozen=True, kw_only=True, tag="fetch"):
    """Asks for the job's results; the answer is a `file_offer`."""

    job: JobId
