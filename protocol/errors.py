"""The closed set of error codes on the wire, and the exception that carries one inside.

A code is never reused for another meaning; clients choose their exit code by it.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a message, a job or a file was refused."""

    # The message itself
    MALFORMED = "malformed"  # not JSON, or not the fields its type asks for
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    UNKNOWN_TYPE = "unknown_type"
    NOT_SUPPORTED = "not_supported"  # known, and not done here

    # Who may
    VERSION_UNKNOWN = "version_unknown"
    NOT_AUTHENTICATED = "not_authenticated"
    NOT_AUTHORISED = "not_authorised"
    NOT_ALLOWED = "not_allowed"  # no row of the table: wrong state for this message
    OVERLOADED = "overloaded"

    # The slot
    NEED_UNMET = "need_unmet"  # this worker can never do it
    WORKER_BUSY = "worker_busy"  # it could, at another time
    NOT_HOLDER = "not_holder"  # the reservation is not the caller's
    RESERVATION_EXPIRED = "reservation_expired"
    WORKER_DRAINED = "worker_drained"

    # Jobs
    UNKNOWN_JOB = "unknown_job"
    JOB_CONFLICT = "job_conflict"  # the same id with other content
    ALREADY_TERMINAL = "already_terminal"
    IN_PROGRESS = "in_progress"
    SCRIPT_REFUSED = "script_refused"
    PACKAGE_REFUSED = "package_refused"
    PATH_ERROR = "path_error"
    PREFLIGHT_TIMEOUT = "preflight_timeout"
    INPUTS_NEVER_ARRIVED = "inputs_never_arrived"
    INPUT_REFUSED = "input_refused"
    WORKER_LEAVING = "worker_leaving"
    SETUP_FAILED = "setup_failed"
    GPU_TAKEN = "gpu_taken"
    EXITED = "exited"  # the program ended with an error of its own
    UNKILLABLE = "unkillable"
    INTERNAL = "internal"

    # Files
    UNKNOWN_TRANSFER = "unknown_transfer"
    NOT_ANNOUNCED = "not_announced"
    HASH_MISMATCH = "hash_mismatch"
    DISK_FULL = "disk_full"
    SOURCE_CHANGED = "source_changed"
    RESULTS_NOT_READY = "results_not_ready"
    RESULTS_EXPIRED = "results_expired"
    RESULTS_PARTIAL = "results_partial"
    RESULTS_SHARED = "results_shared"  # they lie in the shared storage: look there
    ABORTED = "aborted"


class ProtocolError(Exception):
    """A peer said something that has no meaning here: answer it with `code` and `sentence`.

    Args:
        code: the closed code that a program reads.
        sentence: what was wrong and what to do next, for a person.
    """

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence
