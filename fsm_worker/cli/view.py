"""What can be shown of a job that is watched; three modules know how."""

from types import TracebackType
from typing import Protocol, Self

from fsm_worker.cli.durations import amount
from protocol.lifecycle import JobState, Outcome
from protocol.messages import JobSnapshot, JobStateChanged, Log, LogEnd, Progress, Telemetry

#: What each state means to who waits for the job.
STATES = {
    JobState.STAGING: "the package is on its way",
    JobState.VALIDATING: "the worker reads the package",
    JobState.QUEUED: "waiting for the GPU",
    JobState.PREPARING: "preparing",
    JobState.RUNNING: "running",
    JobState.STOPPING: "finishing its batch, as asked",
    JobState.CANCELLING: "being cancelled",
    JobState.KILLING: "it does not heed: being killed",
    JobState.COLLECTING: "packing the results",
}
OUTCOMES = {
    Outcome.NONE: "has not ended",
    Outcome.SUCCEEDED: "succeeded",
    Outcome.STOPPED_EARLY: "stopped early, as asked; its model is kept",
    Outcome.FAILED: "failed",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.TIMED_OUT: "was stopped at its time limit",
    Outcome.CANCELLED: "was cancelled",
    Outcome.WORKER_STOPPED: "was ended because its worker stopped",
    Outcome.EXPIRED_IN_QUEUE: "waited for the GPU too long",
    Outcome.REJECTED: "was rejected",
}


def state_line(message: JobSnapshot | JobStateChanged) -> str:
    """A job's state in words; empty for one that has ended."""
    text = STATES.get(message.state, "")
    if message.state is JobState.COLLECTING and message.outcome is Outcome.CANCELLED:
        return "throwing away what it made"
    if message.state is JobState.RUNNING and message.stages > 1:
        text += f" stage {message.stage + 1} of {message.stages}"
    return text


def telemetry_line(message: Telemetry) -> str:
    """What the job uses of the machine, in words."""
    parts = []
    if message.gpu_percent is not None:
        parts.append(f"GPU {message.gpu_percent:.0f} %")
    if message.gpu_memory_mb is not None:
        parts.append(f"GPU memory {amount(message.gpu_memory_mb * 2**20)}")
    parts.append(f"CPU {message.cpu_percent:.0f} %")
    parts.append(f"memory {amount(message.memory_mb * 2**20)}")
    return " · ".join(parts)


class View(Protocol):
    """Shows a job; entered before anything is shown."""

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends; what was shown stays."""

    def moved(self, what: str, done: int, size: int) -> None:
        """Shows how far a file has come.

        Args:
            what: "packing", "uploading" or "downloading".
            done: bytes.
            size: bytes.
        """

    def state(self, message: JobSnapshot | JobStateChanged) -> None:
        """Shows the job's state."""

    def progress(self, message: Progress) -> None:
        """Shows what the trainer reports."""

    def telemetry(self, message: Telemetry) -> None:
        """Shows what the job uses."""

    def log(self, message: Log | LogEnd) -> None:
        """Shows the job's output."""

    def note(self, text: str) -> None:
        """Shows a sentence of our own."""

    def ask(self, question: str) -> None:
        """Shows a question until it is called with an empty one."""
