"""What sleap-rtc's dialect says of a job, from what the worker's machines say; pure.

The names are those that sleap-rtc gives: of a training its configuration file, of tracking always
"inference".
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from fsm_worker.events import (
    CancelAsked,
    Event,
    FlowAsked,
    FolderNamed,
    GuestRefused,
    InputNamed,
    OutputNamed,
    PackageNamed,
    PathRefused,
    SharedJobNamed,
    StopAsked,
)
from fsm_worker.facts import GuestFacts
from protocol import messages as m
from protocol import sleap_rtc
from protocol.errors import ProtocolError
from protocol.lifecycle import Outcome
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.table import row_of_text
from protocol.table import Direction

#: Characters of a line that wait for its end.
MOST_WAITING: Final = 8 * 1024
#: What every command of a track script is called.
TRACKING: Final = "inference"
WELL: Final = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED_EARLY})
#: This dialect says how a job ended by an exit status alone; a signal's is its negative number.
_STATUS: Final = {
    Outcome.OUT_OF_MEMORY: -9,
    Outcome.CANCELLED: -15,
    Outcome.TIMED_OUT: -15,
    Outcome.WORKER_STOPPED: -15,
}
_FAILED: Final = 1
#: Characters of a sentence in a field that takes 4 KiB of UTF-8.
_LONGEST_MESSAGE: Final = 1000
_PACKAGES_ONLY: Final = (
    "this worker takes packages only: send PACKAGE_TYPE, OUTPUT_DIR, FILE_META, the file and"
    " END_OF_FILE, or name one in the shared storage"
)
_ENDINGS: Final = {
    Outcome.STOPPED_EARLY: "the job was stopped early, and its model kept",
    Outcome.CANCELLED: "the job was cancelled",
    Outcome.TIMED_OUT: "the job ran into its time limit",
    Outcome.WORKER_STOPPED: "the worker was stopped before the job could end",
    Outcome.EXPIRED_IN_QUEUE: "the job waited too long for its turn",
    Outcome.REJECTED: "the job was refused",
    Outcome.OUT_OF_MEMORY: "the job ran out of memory",
    Outcome.FAILED: "the job failed",
}


def read(frame: f.Frame) -> Event | None:
    """The event that a client's frame becomes, where nothing but the frame decides it."""
    event: Event | None = None
    match frame:
        case f.PackageType(kind=kind):
            event = PackageNamed(kind=kind.value)
        case f.OutputDir(folder=folder):
            event = FolderNamed(folder=folder)
        case f.Control(command="stop") | f.JobStop():
            event = StopAsked()
        case f.Control(command="cancel") | f.JobCancel():
            event = CancelAsked()
        case f.Control(command=command):
            event = GuestRefused(reason=f"{command!a} is no command here: send stop or cancel")
        case f.SharedJob(job=label):
            event = SharedJobNamed(label=label)
        case f.SharedInputPath(path=path):
            event = InputNamed(path=path)
        case f.SharedOutputPath(path=path):
            event = OutputNamed(path=path)
        case f.NotPerformed():
            event = FlowAsked(frame=frame)
    return event


def unread(data: str | bytes, error: ProtocolError) -> Event | None:
    """The event that a frame becomes whose path can't be one; None for any other frame."""
    row = row_of_text(data, Direction.TO_WORKER) if isinstance(data, str) else None
    if row is not None and row.frame in {f.SharedInputPath, f.SharedOutputPath}:
        return PathRefused(reason=error.sentence)
    return None


def refusal(frame: f.NotPerformed) -> f.Frame:
    """The answer to a flow that is not performed."""
    return sleap_rtc.refusal(frame, _PACKAGES_ONLY)


def reason_of(error: ProtocolError | OSError) -> str:
    """Why a path can't be used, without the worker's own part of it."""
    if isinstance(error, ProtocolError):
        return error.sentence
    return f"the shared storage refused: {error.strerror}"


def path_error(text: str) -> f.PathError:
    """A path is refused; as much of the sentence as a frame takes."""
    return f.PathError(message=text[:_LONGEST_MESSAGE])


def sentence(kind: str, text: str) -> Iterator[f.Frame]:
    """A sentence for the person at the client."""
    if kind == "track":
        yield f.TrackLog(line=f"fsm-worker: {text}")
        yield f.InferenceError(message=text)
    else:
        yield f.LogText(text=f"fsm-worker: {text}\n")


def stage(facts: GuestFacts) -> Iterator[f.Frame]:
    """A command begins, so the one before it has ended well."""
    name = _name(facts, facts.stage)
    if facts.kind == "track":
        if facts.stage == 0:
            yield f.InferenceStart()
        else:
            yield f.InferenceJobEnd(name=name)
        yield f.InferenceJobStart(name=name)
    else:
        if facts.stage > 0:
            yield f.TrainJobEnd(name=_name(facts, facts.stage - 1))
        yield f.TrainJobStart(name=name)


def ending(facts: GuestFacts) -> Iterator[f.Frame]:
    """How the job ended; that there is no more to do is said of one that ended well alone."""
    name, track = _name(facts, max(facts.stage, 0)), facts.kind == "track"
    if facts.outcome in WELL:
        yield f.InferenceJobEnd(name=name) if track else f.TrainJobEnd(name=name)
        if not track:
            yield f.TrainingJobsDone()
        elif facts.shared:
            yield f.InferenceJobsDone()
        elif not facts.results.root:
            yield from no_predictions()
    else:
        yield from _bad_ending(facts, name, track=track)
    if facts.shared:
        yield _shared_ending(facts)


def _shared_ending(facts: GuestFacts) -> f.Frame:
    if facts.outcome in WELL and facts.results.folder:
        return f.JobComplete(job=facts.label, path=facts.results.folder)
    return f.JobFailed(job=facts.label, message=_why(facts)[:_LONGEST_MESSAGE])


def _why(facts: GuestFacts) -> str:
    why = " ".join(problem.sentence for problem in facts.problems)
    return _ENDINGS.get(facts.outcome, "the job ended well") + (f": {why}" if why else "")


def _bad_ending(facts: GuestFacts, name: str, *, track: bool) -> Iterator[f.Frame]:
    text = _why(facts)
    code = _STATUS.get(facts.outcome, _FAILED)
    if not track:
        yield from sentence(facts.kind, text)
        yield f.TrainJobError(name=name, code=code)
    elif facts.stage < 0:
        yield from sentence(facts.kind, text)
    else:
        yield f.TrackLog(line=f"fsm-worker: {text}")
        yield f.InferenceJobError(name=name, code=code)


def no_predictions() -> Iterator[f.Frame]:
    """Tracking ended well, and wrote nothing."""
    yield f.TrackLog(line="fsm-worker: tracking ended, and wrote no predictions")
    yield f.InferenceJobsDone()


def whole_lines(waiting: str, text: str, *, over: bool) -> tuple[str, str]:
    """Puts pieces of a log together to lines: clients show each frame as a line of its own.

    Args:
        waiting: what this gave to wait for the rest of its line.
        text: the next piece; a leading carriage return replaces the line.
        over: there is no more.

    Returns:
        What to show, and what waits. A line that will be replaced, as a progress bar, waits for
        nothing, and no line waits for ever.
    """
    if not text.startswith("\r"):
        text = waiting + text
    lines, end, rest = text.rpartition("\n")
    if over or rest.startswith("\r") or len(rest) > MOST_WAITING:
        return text, ""
    return lines + end, rest


def output(kind: str, text: str) -> Iterator[f.Frame]:
    """What a program printed: a line, or several."""
    if kind != "track":
        if text:
            yield f.LogText(text=text)
        return
    for line in text.lstrip("\r").splitlines():
        yield f.TrackLog(line=line)


def report(facts: GuestFacts, progress: m.Progress) -> f.ProgressReport:
    """A message of the trainer, written anew; sleap's window tells models apart by `what`."""
    fields = {
        "event": progress.event,
        "what": _name(facts, progress.stage),
        "epoch": progress.epoch,
        "batch": progress.batch,
        # jsonpickle, with which clients read this, runs what keys like `py/object` name
        "logs": {k: v for k, v in progress.metrics.items() if not k.startswith("py/")},
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return f.ProgressReport(report=msgspec.json.encode(known).decode())


def result(facts: GuestFacts, name: str, size: int) -> f.ResultMeta:
    """Announces a file; clients cut at each colon."""
    folder = "" if ":" in facts.folder else facts.folder
    return f.ResultMeta(name=name, size=size, folder=folder)


def _name(facts: GuestFacts, number: int) -> str:
    if facts.kind == "track":
        return TRACKING
    return facts.stages[number] if number < len(facts.stages) else f"stage-{number + 1}"
