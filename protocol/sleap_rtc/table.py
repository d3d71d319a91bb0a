"""The table of the dialect: one row for each frame gives its spelling, direction and meaning.

A text frame is its tag, two colons and its fields, or the bare tag where it has none; `TRACK_LOG`
alone has one colon. Fields stand in the order of the row. Where the text that separates them may
occur in a field, it is in the row's `wide` one: what comes before is cut from the left, what
comes after from the right.

sleap-rtc finds some tags anywhere in a text. Here a tag is only what a text begins with; rows of
which a *client* of sleap-rtc thinks otherwise say so, for the sake of program output.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from protocol.errors import ErrorCode, ProtocolError
from protocol.sleap_rtc import fields as kinds
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.fields import Kind
from protocol.table import Direction

Refusal = Callable[[str, str], f.Frame]


class Row(NamedTuple):
    """One frame."""

    tag: str  # empty for raw bytes and for bare text
    frame: type[f.Frame]
    direction: Direction
    meaning: str
    fields: tuple[tuple[str, Kind], ...] = ()
    separator: str = "::"  # after the tag
    between: str = "::"  # between the fields
    wide: int = -1  # index of the field that may hold `between`
    anywhere: bool = False  # a client of sleap-rtc finds it anywhere in a text
    refusal: Refusal | None = None  # from the body and a sentence; for frames not performed only

    @property
    def head(self) -> str:
        """What a text of this row begins with; all of it, if the row has no fields."""
        return self.tag + self.separator if self.fields else self.tag

    @property
    def spelling(self) -> str:
        """The frame as documents show it."""
        parts = (kind.shown or f"<{name}>" for name, kind in self.fields)
        start = self.head if self.tag else ""
        return start + self.between.join(parts)

    def split(self, rest: str) -> list[str]:
        """The fields' texts in what follows the head.

        Raises:
            ProtocolError: `malformed` if there are fewer than the row has.
        """
        before = self.wide % len(self.fields)
        after = len(self.fields) - 1 - before
        *parts, rest = rest.split(self.between, before)
        parts += rest.rsplit(self.between, after)
        if len(parts) != len(self.fields):
            raise ProtocolError(
                ErrorCode.MALFORMED, f"{self.tag} has too few fields: send {self.spelling}"
            )
        return parts


def _rejected(body: str, sentence: str) -> f.Frame:
    fault = f.Fault(field="spec", message=sentence, code=ErrorCode.NOT_SUPPORTED.value)
    job = body.partition("::")[0]
    try:
        kinds.ID.read(job)
    except ProtocolError:
        job = "unknown"  # what sleap-rtc answers where it has no name of the job
    return f.JobRejected(job=job, errors=(fault,))


def _fs_error(_body: str, sentence: str) -> f.Frame:
    return f.FsError(code="INVALID_REQUEST", message=sentence)


def _fs_write_error(_body: str, sentence: str) -> f.Frame:
    return f.FsWriteSlpError(error=sentence)


def _path_error(_body: str, sentence: str) -> f.Frame:
    return f.WorkerPathError(message=sentence)


def _upload_error(_body: str, sentence: str) -> f.Frame:
    return f.FileUploadError(message=sentence)


_W, _C, _B = Direction.TO_WORKER, Direction.TO_CLIENT, Direction.BOTH
_COMMAND = (("command", kinds.COMMAND),)
_NAME = (("name", kinds.JOB_NAME),)
_STATUS = (("name", kinds.JOB_NAME), ("code", kinds.STATUS))
_MESSAGE = (("message", kinds.MESSAGE),)
_JSON = ("json",)


def _asks(tag: str, meaning: str, fields: tuple[str, ...], refusal: Refusal) -> Row:
    """A client's frame of a flow that is not performed."""
    named = tuple((name, kinds.TEXT) for name in fields)
    return Row(tag, f.NotPerformed, _W, meaning, named, refusal=refusal)


def _tells(tag: str, meaning: str, *fields: str) -> Row:
    """A worker's frame of a flow that is not performed."""
    return Row(tag, f.NotPerformed, _C, meaning, tuple((name, kinds.TEXT) for name in fields))


# fmt: off
ROWS: Final[tuple[Row, ...]] = (
    # Both ways
    Row("KEEP_ALIVE", f.KeepAlive, _B, "Keeps the channel open; sent as bytes every 15 s."),
    Row("", f.Chunk, _B, "The next bytes of the announced file.", (("payload", kinds.TEXT),)),
    Row("END_OF_FILE", f.EndOfFile, _B, "The announced file is complete; a worker runs it."),
    # Package flow
    Row("PACKAGE_TYPE", f.PackageType, _W, "What the package is for.",
        (("kind", kinds.PACKAGE_KIND),)),
    Row("OUTPUT_DIR", f.OutputDir, _W, "The client's own folder for the results.",
        (("folder", kinds.FOLDER),)),
    Row("FILE_META", f.FileMeta, _W, "Announces the package; the last field asks for progress.",
        (("name", kinds.NAME), ("size", kinds.SIZE), ("gui", kinds.GUI)), between=":", wide=0),
    Row("FILE_META", f.ResultMeta, _C, "Announces the results; the last field is a hint.",
        (("name", kinds.NAME_FOR_CLIENT), ("size", kinds.SIZE),
         ("folder", kinds.FOLDER_FOR_CLIENT)), between=":", wide=0, anywhere=True),
    # Shared storage flow
    Row("JOB_ID", f.SharedJob, _W, "Names the job.", (("job", kinds.ID),)),
    Row("SHARED_INPUT_PATH", f.SharedInputPath, _W, "Where the package lies.",
        (("path", kinds.RELATIVE),)),
    Row("SHARED_OUTPUT_PATH", f.SharedOutputPath, _W, "Where the results go.",
        (("path", kinds.RELATIVE),)),
    Row("SHARED_STORAGE_JOB", f.SharedStorageJob, _W, "Runs the job.",
        (("action", kinds.ACTION),)),
    Row("PATH_VALIDATED", f.PathValidated, _C, "The path is good.", (("side", kinds.SIDE),)),
    Row("PATH_ERROR", f.PathError, _C, "The path is refused.", _MESSAGE),
    Row("JOB_COMPLETE", f.JobComplete, _C, "The job ended well, with its results at the path.",
        (("job", kinds.ID), ("path", kinds.RELATIVE))),
    Row("JOB_FAILED", f.JobFailed, _C, "The job ended badly.",
        (("job", kinds.ID), ("message", kinds.MESSAGE))),
    # Control
    Row("ZMQ_CTRL", f.ZmqCtrl, _W, "A command of the monitor window.", _COMMAND, anywhere=True),
    Row("CONTROL_COMMAND", f.ControlCommand, _W, "A command of the monitor window.", _COMMAND),
    Row("JOB_STOP", f.JobStop, _W, "Finish the batch and keep the model."),
    Row("JOB_CANCEL", f.JobCancel, _W, "Throw the job away."),
    # Authentication
    Row("AUTH_CHALLENGE", f.AuthChallenge, _C, "Asks for a proof.", (("nonce", kinds.PROOF),)),
    Row("AUTH_RESPONSE", f.AuthResponse, _W, "The proof.", (("proof", kinds.PROOF),)),
    Row("AUTH_SUCCESS", f.AuthSuccess, _C, "The client may come in."),
    Row("AUTH_FAILURE", f.AuthFailure, _C, "The client may not come in.",
        (("reason", kinds.REASON),)),
    # A running job
    Row("TRAIN_JOB_START", f.TrainJobStart, _C, "A training begins.", _NAME, anywhere=True),
    Row("TRAIN_JOB_END", f.TrainJobEnd, _C, "A training ended well.", _NAME, anywhere=True),
    Row("TRAIN_JOB_ERROR", f.TrainJobError, _C, "A training ended with this status.", _STATUS,
        wide=0, anywhere=True),
    Row("TRAINING_JOBS_DONE", f.TrainingJobsDone, _C, "There is no more to train."),
    Row("INFERENCE_START", f.InferenceStart, _C, "Tracking begins.", anywhere=True),
    Row("INFERENCE_ERROR", f.InferenceError, _C, "Tracking cannot begin.", _MESSAGE),
    Row("INFERENCE_JOB_START", f.InferenceJobStart, _C, "A tracking command begins.", _NAME),
    Row("INFERENCE_JOB_END", f.InferenceJobEnd, _C, "A tracking command ended well.", _NAME),
    Row("INFERENCE_JOB_ERROR", f.InferenceJobError, _C,
        "A tracking command ended with this status.", _STATUS, wide=0),
    Row("INFERENCE_JOBS_DONE", f.InferenceJobsDone, _C, "There is no more to track.",
        anywhere=True),
    Row("TRACK_LOG", f.TrackLog, _C, "A line of output while tracking.",
        (("line", kinds.TEXT),), separator=":", anywhere=True),
    Row("PROGRESS_REPORT", f.ProgressReport, _C, "A message of the trainer.",
        (("report", kinds.REPORT),), anywhere=True),
    Row("", f.LogText, _C, "Output as it is; begins with a carriage return to overwrite.",
        (("text", kinds.TEXT),)),
    Row("CR", f.LogOverwrite, _C, "Output that overwrites the line.", (("text", kinds.TEXT),)),
    # Structured flow: not performed
    _asks("JOB_SUBMIT", "Submits a job by its specification.", ("job", "json"), _rejected),
    Row("JOB_REJECTED", f.JobRejected, _C, "The job is not taken.",
        (("job", kinds.ID), ("errors", kinds.FAULTS))),
    _tells("JOB_ACCEPTED", "The job is taken under this name.", "job"),
    _tells("JOB_PROGRESS", "Epoch and losses.", *_JSON),
    _tells("JOB_LOG", "A line of output.", "line"),
    _tells("MODEL_TYPE", "Which model is trained from now on.", "type"),
    _tells("INFERENCE_BEGIN", "Tracking after training begins.", *_JSON),
    _tells("INFERENCE_PROGRESS", "How far tracking is.", *_JSON),
    _tells("INFERENCE_LOG", "A line of output while tracking.", "line"),
    _tells("INFERENCE_COMPLETE", "Tracking ended well.", *_JSON),
    _tells("INFERENCE_FAILED", "Tracking ended badly.", *_JSON),
    _tells("INFERENCE_SKIPPED", "There is no tracking.", *_JSON),
    # Worker-path flow and the browser of the worker's files: not performed
    _asks("USE_WORKER_PATH", "Names a file on the worker as the input.", ("path",), _path_error),
    _tells("WORKER_PATH_OK", "The file is taken.", "path"),
    Row("WORKER_PATH_ERROR", f.WorkerPathError, _C, "The file is not taken.", _MESSAGE),
    _asks("FS_GET_INFO", "Asks what the worker is.", (), _fs_error),
    _tells("FS_INFO_RESPONSE", "What the worker is.", *_JSON),
    _asks("FS_GET_MOUNTS", "Asks for the folders to choose from.", (), _fs_error),
    _tells("FS_MOUNTS_RESPONSE", "The folders.", *_JSON),
    _asks("FS_RESOLVE", "Asks where a file is.",
          ("pattern", "bytes", "depth", "mount"), _fs_error),
    _tells("FS_RESOLVE_RESPONSE", "Where it may be.", *_JSON),
    _asks("FS_LIST_DIR", "Asks what is in a folder.", ("path", "offset"), _fs_error),
    _tells("FS_LIST_RESPONSE", "What is in the folder.", *_JSON),
    _asks("FS_SCAN_DIR", "Asks which names are in a folder.", _JSON, _fs_error),
    _tells("FS_SCAN_DIR_RESPONSE", "Which names are in the folder.", *_JSON),
    _asks("FS_WRITE_SLP", "Asks for a labels file with other video paths.", _JSON,
          _fs_write_error),
    _tells("FS_WRITE_SLP_OK", "The labels file was written.", *_JSON),
    Row("FS_WRITE_SLP_ERROR", f.FsWriteSlpError, _C, "The labels file was not written.",
        (("error", kinds.FAULT),)),
    _asks("FS_RESOLVE_WITH_PREFIX", "Asks what a moved folder would resolve.", _JSON, _fs_error),
    _tells("FS_PREFIX_PROPOSAL", "What it would resolve.", *_JSON),
    _asks("FS_APPLY_PREFIX", "Agrees to the moved folder.", _JSON, _fs_error),
    _tells("FS_PREFIX_APPLIED", "Has no effect.", *_JSON),
    _tells("FS_CHECK_VIDEOS_RESPONSE", "Which videos the worker lacks.", *_JSON),
    Row("FS_ERROR", f.FsError, _C, "The question is not answered.",
        (("code", kinds.ID), ("message", kinds.MESSAGE))),
    # Upload flow: not performed
    _asks("FILE_UPLOAD_CHECK", "Asks whether the worker has a file.", ("sha256", "name"),
          _upload_error),
    _tells("FILE_UPLOAD_CACHE_HIT", "The worker has the file.", "path"),
    _tells("FILE_UPLOAD_READY", "Go on."),
    _asks("FILE_UPLOAD_START", "Announces an upload.", ("name", "bytes", "folder", "subfolder"),
          _upload_error),
    _asks("FILE_UPLOAD_END", "The upload is complete.", (), _upload_error),
    _tells("FILE_UPLOAD_PROGRESS", "How much has come.", "bytes", "total"),
    _tells("FILE_UPLOAD_COMPLETE", "The file is stored.", "path"),
    Row("FILE_UPLOAD_ERROR", f.FileUploadError, _C, "The upload is not taken.", _MESSAGE),
)
# fmt: on


def _by_tag(direction: Direction, separator: str) -> dict[str, Row]:
    return {
        row.tag: row
        for row in ROWS
        if row.tag and direction in row.direction and row.separator == separator
    }


_READ: Final[Mapping[Direction, tuple[tuple[str, dict[str, Row]], ...]]] = {
    side: tuple((separator, _by_tag(side, separator)) for separator in ("::", ":"))
    for side in (_W, _C)
}

#: The rows of all frames but those that are not performed, which name their tag themselves.
ROW_OF: Final[Mapping[type[f.Frame], Row]] = {
    row.frame: row for row in ROWS if row.frame is not f.NotPerformed
}


def row_of_text(text: str, direction: Direction) -> Row | None:
    """The row whose tag a text begins with, up to the row's own separator.

    Args:
        text: a whole text frame.
        direction: whom it was sent to (`TO_WORKER` or `TO_CLIENT`).
    """
    for separator, rows in _READ[direction]:
        row = rows.get(text.partition(separator)[0])
        if row is not None:
            return row
    return None


def _lint() -> None:
    """Refuses a table that could not be read one way only."""
    told = [(row.tag, side) for row in ROWS for side in (_W, _C) if side in row.direction]
    twice = {tag for tag, side in told if tag and told.count((tag, side)) > 1}
    if twice:
        raise TypeError(f"protocol.sleap_rtc.table has two rows for {sorted(twice)}: keep one")
    spelled = [row.frame for row in ROWS if row.frame is not f.NotPerformed]
    if len(spelled) != len(set(spelled)):
        raise TypeError("protocol.sleap_rtc.table spells a frame twice: keep one row for each")


_lint()
