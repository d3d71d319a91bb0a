"""The states and outcomes of every lifecycle, as they are named on the wire.

Which event leads from one to another is not said here: each machine's table does that.
`NEW` is the state of a machine before its first event; it never travels.
"""

from enum import StrEnum


class WorkerState(StrEnum):
    """One GPU slot of a worker process."""

    STARTING = "starting"  # probing the GPU and the host
    AVAILABLE = "available"  # no process of ours is alive on the slot
    RESERVED = "reserved"  # free, and kept for somebody's next job until a time
    BUSY = "busy"  # exactly one job holds the slot
    CLEANING = "cleaning"  # proving that the job's process tree is dead
    DRAINING = "draining"  # busy, and starts nothing after this job
    MAINTENANCE = "maintenance"  # free, and starts nothing: an operator wants it so
    DEGRADED = "degraded"  # the slot cannot be promised; probed again on a timer
    STOPPING = "stopping"  # taking leave: jobs end, held results go to attached clients
    STOPPED = "stopped"


class LinkState(StrEnum):
    """One RTCPeerConnection."""

    NEW = "new"
    NEGOTIATING = "negotiating"  # offer and answer on their way
    CHECKING = "checking"  # ICE looks for a path
    SECURING = "securing"  # DTLS and the control channel
    AUTHENTICATING = "authenticating"  # hello and proof, nothing else
    UP = "up"
    SUSPECT = "suspect"  # silent for longer than a ping takes
    CLOSING = "closing"  # flushing a farewell
    CLOSED = "closed"
    FAILED = "failed"
    REJECTED = "rejected"


class SessionState(StrEnum):
    """One client, however many links come and go under it."""

    NEW = "new"
    ATTACHED = "attached"
    DETACHED = "detached"
    CLOSED = "closed"


class JobState(StrEnum):
    """One submitted job."""

    NEW = "new"
    STAGING = "staging"  # its inputs arrive
    VALIDATING = "validating"  # its package is unpacked and its script parsed
    REJECTED = "rejected"
    QUEUED = "queued"  # waits for the slot
    PREPARING = "preparing"  # holds the slot: directory, ports, GPU check
    RUNNING = "running"
    STOPPING = "stopping"  # finish the batch, keep the model
    CANCELLING = "cancelling"  # throw away
    KILLING = "killing"
    COLLECTING = "collecting"  # outputs are packed and hashed
    DONE = "done"


class ResultsState(StrEnum):
    """The outputs of one job."""

    NONE = "none"
    HELD = "held"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    SHARED = "shared"  # they lie in the shared storage, and nothing is kept here
    EXPIRED = "expired"


class SignallingState(StrEnum):
    """The websocket to the signaling server."""

    DOWN = "down"
    CONNECTING = "connecting"
    REGISTERING = "registering"
    REGISTERED = "registered"
    STALE = "stale"  # silent for too long; a ping is on its way
    BACKOFF = "backoff"
    REFUSED = "refused"


class ReceivingState(StrEnum):
    """One file on its way in."""

    OFFERED = "offered"
    RECEIVING = "receiving"
    SUSPENDED = "suspended"  # the link went away; what arrived is kept
    VERIFYING = "verifying"
    STORED = "stored"
    REFUSED = "refused"


class SendingState(StrEnum):
    """One file on its way out."""

    OFFERED = "offered"
    SENDING = "sending"
    SUSPENDED = "suspended"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"


class GuestState(StrEnum):
    """One client of another dialect; it never travels."""

    NEW = "new"
    WAITING = "waiting"  # for a package
    RECEIVING = "receiving"  # its bytes come
    CHECKING = "checking"  # are they as many as announced; they are hashed
    SUBMITTED = "submitted"  # the job is the worker's
    RETURNING = "returning"  # the worker sends its results
    HANDING = "handing"  # the client gets them
    GONE = "gone"


class TalkState(StrEnum):
    """One negotiation with a peer that speaks through the signaling server; it never travels."""

    NEW = "new"
    ASKED = "asked"  # the worker was asked for the slot, and has not answered
    KEPT = "kept"  # the worker keeps the slot for it, and its job has not come
    WORKING = "working"  # its job is the worker's
    ENDING = "ending"  # its job has ended; how, is told next
    OVER = "over"


class Outcome(StrEnum):
    """How a job ended; fixed once."""

    NONE = ""  # it has not ended
    SUCCEEDED = "succeeded"
    STOPPED_EARLY = "stopped_early"  # by request, the model kept
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"  # its wall-clock limit passed
    CANCELLED = "cancelled"
    WORKER_STOPPED = "worker_stopped"  # the worker left before the job could end
    EXPIRED_IN_QUEUE = "expired_in_queue"
    REJECTED = "rejected"  # it never ran
