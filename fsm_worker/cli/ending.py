"""What is said when a job has ended, or when its watcher leaves."""

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.exit_codes import ExitCode, exit_code_for
from fsm_worker.cli.follow import Ending
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.parsers import PROG
from fsm_worker.cli.results import Fetched
from fsm_worker.cli.shared import lie_there
from fsm_worker.cli.view import OUTCOMES
from protocol.errors import ErrorCode
from protocol.lifecycle import Outcome
from protocol.messages import Problem

_NEXT = {
    Outcome.REJECTED: "mend the package and submit it again",
    Outcome.FAILED: "mend what the problem names and submit it again",
    Outcome.OUT_OF_MEMORY: "use a smaller batch or model, and submit it again",
    Outcome.TIMED_OUT: "submit it again with a longer --wall",
    Outcome.WORKER_STOPPED: "submit it to another worker",
    Outcome.EXPIRED_IN_QUEUE: "submit it again, or to another worker",
}


def problem_line(problem: Problem) -> str:
    """`script_refused, line 3: …`."""
    where = f", line {problem.line}" if problem.line else ""
    return f"{problem.code}{where}: {one_line(problem.sentence)}"


def report_ending(
    console: Console,
    ending: Ending,
    *,
    fetched: Fetched | None = None,
    losses: Losses | None = None,
) -> ExitCode:
    """Says how a job ended.

    Args:
        console: prints.
        ending: of the job.
        fetched: its results, if they were.
        losses: of its training, if it was watched.

    Returns:
        The exit code that says the same.
    """
    code = exit_code_for(ending.outcome)
    first = losses.first_loss if losses is not None else None
    last = losses.history[-1] if losses is not None and losses.history else None
    console.emit(
        "ended",
        job=ending.job,
        outcome=ending.outcome,
        exit_code=int(code),
        problems=ending.problems,
        results=str(fetched.path) if fetched is not None else None,
        shared=ending.results.folder or None,
        verified=fetched is not None,
        first_loss=first,
        last_loss=last,
    )
    if console.as_json:
        return code
    words = f"{ending.job} {OUTCOMES[ending.outcome]}"
    if ending.outcome in _NEXT:
        leaving = any(problem.code is ErrorCode.WORKER_LEAVING for problem in ending.problems)
        todo = _NEXT[Outcome.WORKER_STOPPED if leaving else ending.outcome]
        console.warn(f"{words}: {todo}")
        for line in ending.tail if ending.outcome is not Outcome.REJECTED else ():
            console.warn(f"  | {line}")
    else:
        console.show(words)
    for problem in ending.problems:
        console.warn(f"  {problem_line(problem)}")
    if first is not None and last is not None:
        console.say(f"loss: {first:.4g} at first, {last:.4g} at last")
    if fetched is not None:
        console.show(str(fetched))
        for left_out in fetched.left_out:
            console.warn(f"  not among them: {one_line(left_out.path)} {one_line(left_out.why)}")
    elif ending.results.folder:
        console.show(lie_there(ending.results))
    return code


def report_leave(console: Console, job: str) -> ExitCode:
    """Says that a job goes on without its watcher."""
    console.emit("detached", job=job, exit_code=int(ExitCode.DETACHED))
    console.show(f"detached; the job goes on. Come back with: {PROG} attach {job}")
    return ExitCode.DETACHED


def come_back(sentence: str, job: str) -> str:
    """What to do when the connection was lost."""
    return f"{sentence}; the job may go on: come back with `{PROG} attach {job}`"
