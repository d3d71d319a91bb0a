"""What a shell is told at the end, and how it follows from what happened."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome
from protocol.proof import BadSessionString
from protocol.signaling import CREDENTIALS_REFUSED, SignalingCode, SignalingRefused


class ExitCode(IntEnum):
    """The exit codes of every command; scripts rely on them, so none ever changes its meaning."""

    DONE = 0
    USAGE = 2
    REJECTED = 3
    FAILED = 4
    CANCELLED = 5
    NO_WORKER = 6
    NOT_AUTHORISED = 7
    CONNECTION_LOST = 8
    DETACHED = 9
    FINDINGS = 10

    @property
    def meaning(self) -> str:
        """One sentence about it."""
        return _MEANING[self]


_MEANING: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.DONE: "done, or stopped early as asked",
        ExitCode.USAGE: "the command can't be carried out as it was written",
        ExitCode.REJECTED: "the worker rejected the job; it never ran",
        ExitCode.FAILED: "the job failed, ran out of memory or time, or its worker stopped",
        ExitCode.CANCELLED: "cancelled",
        ExitCode.NO_WORKER: "no worker answers",
        ExitCode.NOT_AUTHORISED: "the worker or the signaling server does not let this client in",
        ExitCode.CONNECTION_LOST: "the connection was lost; the job may go on",
        ExitCode.DETACHED: "detached; the job goes on",
        ExitCode.FINDINGS: "doctor found something to put right",
    }
)

_BY_OUTCOME: Mapping[Outcome, ExitCode] = MappingProxyType(
    {
        Outcome.NONE: ExitCode.DETACHED,
        Outcome.SUCCEEDED: ExitCode.DONE,
        Outcome.STOPPED_EARLY: ExitCode.DONE,
        Outcome.FAILED: ExitCode.FAILED,
        Outcome.OUT_OF_MEMORY: ExitCode.FAILED,
        Outcome.TIMED_OUT: ExitCode.FAILED,
        Outcome.CANCELLED: ExitCode.CANCELLED,
        Outcome.WORKER_STOPPED: ExitCode.FAILED,
        Outcome.EXPIRED_IN_QUEUE: ExitCode.FAILED,
        Outcome.REJECTED: ExitCode.REJECTED,
    }
)

_BY_ERROR: Mapping[ErrorCode, ExitCode] = MappingProxyType(
    {
        **dict.fromkeys(
            (ErrorCode.NOT_AUTHENTICATED, ErrorCode.NOT_AUTHORISED), ExitCode.NOT_AUTHORISED
        ),
        **dict.fromkeys((ErrorCode.VERSION_UNKNOWN, ErrorCode.OVERLOADED), ExitCode.NO_WORKER),
        **dict.fromkeys(
            (ErrorCode.NEED_UNMET, ErrorCode.WORKER_BUSY, ErrorCode.WORKER_DRAINED),
            ExitCode.NO_WORKER,
        ),
        **dict.fromkeys(
            (ErrorCode.UNKNOWN_JOB, ErrorCode.NOT_HOLDER, ErrorCode.RESULTS_SHARED), ExitCode.USAGE
        ),
        **dict.fromkeys((ErrorCode.ABORTED, ErrorCode.UNREACHABLE), ExitCode.CONNECTION_LOST),
        **dict.fromkeys(
            (
                *(ErrorCode.NOT_SUPPORTED, ErrorCode.JOB_CONFLICT, ErrorCode.SCRIPT_REFUSED),
                *(ErrorCode.PACKAGE_REFUSED, ErrorCode.PATH_ERROR, ErrorCode.PREFLIGHT_TIMEOUT),
                *(ErrorCode.INPUT_REFUSED, ErrorCode.WORKER_LEAVING),
            ),
            ExitCode.REJECTED,
        ),
    }
)


_BY_LOSS = {
    ErrorCode.NOT_AUTHENTICATED: ExitCode.NOT_AUTHORISED,
    ErrorCode.NOT_AUTHORISED: ExitCode.NOT_AUTHORISED,
}


class CommandFailed(Exception):
    """The command ends here: show the sentence, exit with the code.

    Args:
        exit_code: for the shell.
        sentence: what happened, and what to do next.
    """

    def __init__(self, exit_code: ExitCode, sentence: str) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.sentence = sentence


def exit_code_for(what: Outcome | ErrorCode | BaseException) -> ExitCode:
    """The exit code that says what happened.

    Args:
        what: how a job ended, why a message was refused, or what was raised. A group of
            exceptions counts as its first.

    Returns:
        The code; `FAILED` for what nothing better is known about.
    """
    code = ExitCode.FAILED
    match what:
        case Outcome():
            code = _BY_OUTCOME[what]
        case ErrorCode():
            code = _BY_ERROR.get(what, ExitCode.FAILED)
        case BaseExceptionGroup():
            code = exit_code_for(what.exceptions[0])
        case CommandFailed():
            code = what.exit_code
        case ProtocolError():
            code = exit_code_for(what.code)
        case SignalingRefused():
            known = what.code in CREDENTIALS_REFUSED - {SignalingCode.ROOM_NOT_FOUND}
            code = ExitCode.NOT_AUTHORISED if known else ExitCode.NO_WORKER
        case ConnectionError():  # those of a connection to a worker say why in their `code`
            why = getattr(what, "code", None)
            code = _BY_LOSS.get(why, ExitCode.CONNECTION_LOST) if why else ExitCode.FAILED
        case BadSessionString():
            code = ExitCode.USAGE
        case KeyboardInterrupt():
            code = ExitCode.CANCELLED
    return code


def sentence_for(error: BaseException) -> str:
    """One line about an exception, for a person.

    Args:
        error: what was raised; a group counts as its first.

    Returns:
        The sentence that it carries; with its type where it carries none that was meant to be
        read.
    """
    match error:
        case BaseExceptionGroup():
            return sentence_for(error.exceptions[0])
        case ProtocolError() | SignalingRefused() | CommandFailed():
            text = error.sentence
        case KeyboardInterrupt():
            text = "interrupted"
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename is not None else ""
            text = f"{where}{error.strerror}"
        case _:
            text = str(error) or type(error).__name__
    return " ".join(text.split())
