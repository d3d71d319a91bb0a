"""What a shell is told."""

import pytest

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.client.connection import ConnectionOver
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome
from protocol.proof import BadSessionString
from protocol.signaling import SignalingCode, SignalingRefused

CONTRACT = {
    Outcome.SUCCEEDED: 0,
    Outcome.STOPPED_EARLY: 0,
    Outcome.REJECTED: 3,
    Outcome.FAILED: 4,
    Outcome.OUT_OF_MEMORY: 4,
    Outcome.TIMED_OUT: 4,
    Outcome.WORKER_STOPPED: 4,
    Outcome.EXPIRED_IN_QUEUE: 4,
    Outcome.CANCELLED: 5,
    Outcome.NONE: 9,
}


def test_every_outcome_has_the_code_of_the_contract() -> None:
    assert {outcome: int(exit_code_for(outcome)) for outcome in Outcome} == CONTRACT


def test_every_code_has_a_number_of_its_own_and_a_meaning() -> None:
    assert [int(code) for code in ExitCode] == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)


def test_no_refusal_counts_as_done() -> None:
    assert all(exit_code_for(code) is not ExitCode.DONE for code in ErrorCode)
    assert all(
        exit_code_for(SignalingRefused(code, "")) is not ExitCode.DONE for code in SignalingCode
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProtocolError(ErrorCode.SCRIPT_REFUSED, "s"), 3),
        (ProtocolError(ErrorCode.NOT_AUTHORISED, "s"), 7),
        (ProtocolError(ErrorCode.RESULTS_EXPIRED, "s"), 4),
        (ProtocolError(ErrorCode.UNKNOWN_JOB, "s"), 2),
        (ConnectionOver(ErrorCode.ABORTED, "s"), 8),
        (ConnectionOver(ErrorCode.WORKER_LEAVING, "s"), 8),
        (ConnectionOver(ErrorCode.NOT_AUTHENTICATED, "s"), 7),
        (SignalingRefused(SignalingCode.WRONG_TOKEN, "s"), 7),
        (SignalingRefused(SignalingCode.ROOM_NOT_FOUND, "s"), 6),
        (BadSessionString("s"), 2),
        (CommandFailed(ExitCode.DETACHED, "s"), 9),
        (KeyboardInterrupt(), 5),
        (RuntimeError("s"), 4),
    ],
)
def test_an_exception_has_the_code_that_says_what_is_true(error: BaseException, code: int) -> None:
    assert exit_code_for(error) == code
    assert exit_code_for(BaseExceptionGroup("", [error])) == code


def test_a_sentence_is_one_line_without_codes_that_only_programs_read() -> None:
    assert sentence_for(ProtocolError(ErrorCode.MALFORMED, "two\nlines")) == "two lines"
    assert sentence_for(BaseExceptionGroup("", [ValueError("it")])) == "it"
    assert sentence_for(FileNotFoundError(2, "No such file", "/a/b")) == "/a/b: No such file"
    assert sentence_for(RuntimeError()) == "RuntimeError"
