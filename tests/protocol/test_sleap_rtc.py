"""Laws of the sleap-rtc dialect: its bytes, total decoding, and output that is no frame."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsm_worker.identity import Identity, proved
from protocol import sleap_rtc
from protocol.bulk import MAX_CHUNK, MAX_FILE
from protocol.errors import ErrorCode, ProtocolError
from protocol.sleap_rtc import MAX_TEXT, ROWS, as_log_text, auth, chunks, fields, refusal
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.log_text import FAMILIES, MARKERS, without_markers
from protocol.sleap_rtc.table import Row
from protocol.table import Direction

GOLDEN = Path(__file__).parent / "golden" / "sleap_rtc"
TO_WORKER, TO_CLIENT = Direction.TO_WORKER, Direction.TO_CLIENT
READ: dict[Direction, Callable[[str | bytes], f.Frame]] = {
    TO_WORKER: sleap_rtc.decode,
    TO_CLIENT: sleap_rtc.decode_from_worker,
}
SAY: dict[Direction, Callable[[f.Frame], str | bytes]] = {
    TO_WORKER: sleap_rtc.encode_from_client,
    TO_CLIENT: sleap_rtc.encode,
}
#: The same examples in every run.
ordinary = settings(derandomize=True, deadline=None, max_examples=200)

SECRET = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8"
NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
PROOF = "onuG56cKApy6d41vc42VJpbW2DYblRA92Erp32rwY68"  # by `openssl dgst -sha256 -mac HMAC`
SENTENCE = "Send a package instead."
FAULT = f.Fault(field="spec", message=SENTENCE, code="not_supported")
JOB = "job_f3a8b2c1"


def lines(name: str) -> list[str]:
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


def raw(name: str) -> bytes:
    return bytes.fromhex("".join(line for line in lines(name) if not line.startswith("#")))


def not_performed(line: str) -> f.NotPerformed:
    tag, separator, body = line.partition("::")
    return f.NotPerformed(tag=tag, body=body if separator else None)


#: What the golden lines mean, in their order; None: a frame that is not performed.
MEANT: dict[Direction, tuple[f.Frame | None, ...]] = {
    TO_WORKER: (
        f.EndOfFile(),
        f.PackageType(kind=f.PackageKind.TRAIN),
        f.PackageType(kind=f.PackageKind.TRACK),
        f.OutputDir(folder="models"),
        f.FileMeta(name="labels.zip", size=1048576, gui=True),
        f.FileMeta(name="track_package.zip", size=1024, gui=False),
        f.SharedJob(job=JOB),
        f.SharedInputPath(path=f"jobs/{JOB}/training.zip"),
        f.SharedOutputPath(path=f"jobs/{JOB}/output"),
        f.SharedStorageJob(action=f.SharedAction.START),
        f.ZmqCtrl(command="stop"),
        f.ControlCommand(command="cancel"),
        f.JobStop(),
        f.JobCancel(),
        f.AuthResponse(proof=PROOF),
        f.AuthResponse(proof=f.NO_PROOF),
        *[None] * 13,
    ),
    TO_CLIENT: (
        f.EndOfFile(),
        f.ResultMeta(name="trained_labels.zip", size=2097152, folder="models"),
        f.PathValidated(side=f.SharedSide.INPUT),
        f.PathValidated(side=f.SharedSide.OUTPUT),
        f.PathError(message=f"Input path does not exist: jobs/{JOB}/training.zip"),
        f.JobComplete(job=JOB, path=f"jobs/{JOB}/output"),
        f.JobFailed(job=JOB, message="exit status 1"),
        f.AuthChallenge(nonce=NONCE),
        f.AuthSuccess(),
        f.AuthFailure(reason=f.AuthReason.INVALID),
        f.AuthFailure(reason=f.AuthReason.TIMEOUT),
        f.AuthFailure(reason=f.AuthReason.MISSING),
        f.TrainJobStart(name="centroid"),
        f.TrainJobEnd(name="centroid"),
        f.TrainJobError(name="centroid", code=-9),
        f.TrainingJobsDone(),
        f.InferenceStart(),
        f.InferenceError(message="No track script found"),
        f.InferenceJobStart(name="inference"),
        f.InferenceJobEnd(name="inference"),
        f.InferenceJobError(name="inference", code=1),
        f.InferenceJobsDone(),
        f.TrackLog(line="Predicting: 12 of 80"),
        f.ProgressReport(report='{"event": "epoch_end", "epoch": 3, "logs": {"train/loss": 0.25}}'),
        f.LogOverwrite(text="Epoch 3: 40%"),
        f.JobRejected(job="0c1d2e3f", errors=(FAULT,)),
        *[None] * 11,
        f.WorkerPathError(message=SENTENCE),
        *[None] * 6,
        f.FsWriteSlpError(error=SENTENCE),
        *[None] * 3,
        f.FsError(code="INVALID_REQUEST", message=SENTENCE),
        *[None] * 4,
        f.FileUploadError(message=SENTENCE),
    ),
}
FILES = {TO_WORKER: "to_worker.txt", TO_CLIENT: "to_client.txt"}
EXAMPLES: list[tuple[Direction, str, f.Frame]] = [
    (side, line, meant or not_performed(line))
    for side, name in FILES.items()
    for line, meant in zip(lines(name), MEANT[side], strict=True)
]
BARE = {f.KeepAlive: "keep_alive.hex", f.Chunk: "chunk.hex", f.LogText: "log_text.hex"}

each_example = pytest.mark.parametrize(
    ("side", "line", "frame"), EXAMPLES, ids=[line[:30] for _, line, _ in EXAMPLES]
)
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.spelling)


def refused(data: str | bytes, side: Direction = TO_WORKER) -> ErrorCode:
    with pytest.raises(ProtocolError) as caught:
        READ[side](data)
    assert 10 < len(caught.value.sentence) < 1000
    return caught.value.code


def unsaid(frame: f.Frame, side: Direction = TO_CLIENT) -> ErrorCode:
    with pytest.raises(ProtocolError) as caught:
        SAY[side](frame)
    assert 10 < len(caught.value.sentence) < 1000
    return caught.value.code


# --- golden bytes -------------------------------------------------------------------------------


@each_example
def test_golden_text_is_read_as_what_it_means(side: Direction, line: str, frame: f.Frame) -> None:
    assert READ[side](line) == frame


@each_example
def test_what_it_means_is_written_as_golden_text(
    side: Direction, line: str, frame: f.Frame
) -> None:
    # What the tracking client says of `gui`; it is written as the training client says it.
    assert SAY[side](frame) == line.replace(":false", ":False")


def test_every_row_has_a_golden_frame() -> None:
    shown = {(side, line.split(":")[0]) for side, line, _ in EXAMPLES}
    told = {(side, row.tag) for row in ROWS for side in FILES
            if side in row.direction and row.frame not in BARE}  # fmt: skip
    assert shown == told
    assert {row.frame for row in ROWS if row.frame in BARE} == set(BARE)


@pytest.mark.parametrize("side", FILES)
def test_golden_bytes_of_the_keep_alive_and_of_a_chunk(side: Direction) -> None:
    for frame in (f.KeepAlive(), f.Chunk(payload=b"PK\x03\x04")):
        golden = raw(BARE[type(frame)])
        assert SAY[side](frame) == golden
        assert READ[side](golden) == frame
    assert READ[side]("KEEP_ALIVE") == f.KeepAlive()


def test_golden_text_of_output_that_overwrites_its_line() -> None:
    text = raw(BARE[f.LogText]).decode()
    assert sleap_rtc.encode(f.LogText(text="\rEpoch 3: 40%\n")) == text
    assert sleap_rtc.decode_from_worker(text) == f.LogText(text=text)


# --- the table ----------------------------------------------------------------------------------


def test_every_frame_has_a_row_and_every_row_a_frame() -> None:
    frames = {kind for kind in vars(f).values()
              if isinstance(kind, type) and issubclass(kind, f.Frame)}  # fmt: skip
    assert {row.frame for row in ROWS} == frames - {f.Frame, f.Control}


@each_row
def test_a_row_shows_its_spelling_and_says_what_it_means(row: Row) -> None:
    assert row.spelling.startswith(row.tag)
    assert re.fullmatch(r"[A-Z].*[^ ]\.", row.meaning)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.frame is not f.NotPerformed], ids=lambda row: row.spelling
)
def test_a_row_has_exactly_the_fields_of_its_frame(row: Row) -> None:
    assert {name for name, _ in row.fields} == set(row.frame.__struct_fields__)


@each_row
def test_only_a_client_s_question_that_is_not_performed_has_a_refusal(row: Row) -> None:
    asked = row.frame is f.NotPerformed and row.direction is TO_WORKER
    assert (row.refusal is not None) == asked


def goes_one_way(side: Direction, line: str) -> bool:
    told = [row for row in ROWS if row.tag == line.split(":", 1)[0]]
    return all(row.direction is side for row in told)


@pytest.mark.parametrize(
    ("line", "frame"),
    [case[1:] for case in EXAMPLES if case[0] is TO_CLIENT and goes_one_way(*case[:2])],
    ids=lambda value: str(value)[:30],
)
def test_a_worker_s_words_are_no_client_s(line: str, frame: f.Frame) -> None:
    assert refused(line) is ErrorCode.UNKNOWN_TYPE
    assert unsaid(frame, TO_WORKER) is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    ("line", "frame"),
    [case[1:] for case in EXAMPLES if case[0] is TO_WORKER and goes_one_way(*case[:2])],
    ids=lambda value: str(value)[:30],
)
def test_a_client_s_words_are_no_worker_s_but_output(line: str, frame: f.Frame) -> None:
    assert sleap_rtc.decode_from_worker(line) == f.LogText(text=line)
    assert unsaid(frame, TO_CLIENT) is ErrorCode.MALFORMED


# --- what the original fails on -----------------------------------------------------------------


def test_a_colon_in_a_file_name_is_kept() -> None:
    """sleap-rtc: `split(":")` into three raises ValueError, and the package is lost."""
    for name in ("run 12:30.zip", ":a", "a:", "a::b.zip", "1:2:True"):
        frame = f.FileMeta(name=name, size=7, gui=True)
        assert sleap_rtc.decode(f"FILE_META::{name}:7:True") == frame
        assert sleap_rtc.encode_from_client(frame) == f"FILE_META::{name}:7:True"


def test_a_name_with_a_colon_is_not_sent_to_a_client_that_would_fail_on_it() -> None:
    for name, folder in (("a:b.zip", "models"), ("a.zip", "C:\\models")):
        assert unsaid(f.ResultMeta(name=name, size=1, folder=folder)) is ErrorCode.MALFORMED


def test_two_colons_in_json_do_not_cut_it() -> None:
    """sleap-rtc: `split("::")[1]` takes what comes before them for all of the JSON."""
    body = '{"directory": "/data/a::b", "filenames": []}'
    assert sleap_rtc.decode(f"FS_SCAN_DIR::{body}") == f.NotPerformed(tag="FS_SCAN_DIR", body=body)
    control = '{"note": "a::b", "command": "stop"}'
    assert sleap_rtc.decode(f"ZMQ_CTRL::{control}") == f.ZmqCtrl(command="stop")
    rejected = f.JobRejected(job="j", errors=(f.Fault(field="a::b", message="c::d"),))
    assert sleap_rtc.decode_from_worker(sleap_rtc.encode(rejected)) == rejected


def test_two_colons_in_a_job_s_name_are_told_from_its_status() -> None:
    """sleap-rtc: ambiguous; the name ends where a client thinks that it does."""
    for frame in (
        f.TrainJobError(name="fold::2", code=1),
        f.TrainJobError(name="fold::", code=-9),
        f.InferenceJobError(name="::", code=2),
    ):
        assert sleap_rtc.decode_from_worker(sleap_rtc.encode(frame)) == frame


@pytest.mark.parametrize(
    "text",
    [
        "please PACKAGE_TYPE::train",
        " PACKAGE_TYPE::train",
        "PACKAGE_TYPE::training",
        "PACKAGE_TYPE",
        "echo OUTPUT_DIR::/etc",
        "a FILE_META::a.zip:1:True",
        "not ZMQ_CTRL::{}",
        "END_OF_FILE\n",
        "END_OF_FILE::now",
        "JOB_CANCEL_NOT",
        "OUTPUT_DIR:models",
        "FILE_META:a.zip:1:True",
    ],
)
def test_a_tag_is_only_what_a_text_begins_with(text: str) -> None:
    """sleap-rtc: looks for `PACKAGE_TYPE`, `OUTPUT_DIR` and others anywhere in a text."""
    assert refused(text) in {ErrorCode.UNKNOWN_TYPE, ErrorCode.MALFORMED}


TRAVERSALS = ["../outside.zip", "/etc/passwd", "a/b.zip", "..\\a.zip", "C:\\a.zip", "..", ".", "",
              "a\0.zip", "a\nb.zip", "a\x7f.zip"]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str) -> None:
    """sleap-rtc: joins the name to a folder, so the file lands outside of it."""
    assert refused(f"FILE_META::{name}:1:True") is ErrorCode.PATH_ERROR
    assert unsaid(f.FileMeta(name=name, size=1, gui=True), TO_WORKER) is ErrorCode.PATH_ERROR
    assert refused(f"FILE_META::{name}:1:x", TO_CLIENT) is ErrorCode.PATH_ERROR


@pytest.mark.parametrize(
    "path", ["../a", "a/../../b", "/etc", "a//b", "a/", "./a", "C:/a", "a\\b", "a\0", ""]
)
def test_a_shared_path_that_leads_out_of_the_storage_is_refused(path: str) -> None:
    assert refused(f"SHARED_INPUT_PATH::{path}") is ErrorCode.PATH_ERROR
    assert refused(f"SHARED_OUTPUT_PATH::{path}") is ErrorCode.PATH_ERROR
    assert refused(f"JOB_COMPLETE::{JOB}::{path}", TO_CLIENT) is ErrorCode.PATH_ERROR


@pytest.mark.parametrize("folder", ["", ".", "/home/ada/models", "C:\\Users\\ada\\models", "../m"])
def test_a_client_s_own_folder_is_a_hint_and_is_taken_as_it_is(folder: str) -> None:
    assert sleap_rtc.decode(f"OUTPUT_DIR::{folder}") == f.OutputDir(folder=folder)


def test_of_a_command_nothing_but_its_name_is_read() -> None:
    """sleap-rtc: jsonpickle runs what `py/object` and `py/reduce` name."""
    pickled = {"py/object": "os.system", "py/reduce": [{"py/type": "os.system"}], "command": "stop"}
    assert sleap_rtc.decode(f"ZMQ_CTRL::{json.dumps(pickled)}") == f.ZmqCtrl(command="stop")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", ErrorCode.MALFORMED),
        ("stop", ErrorCode.MALFORMED),
        ("{}", ErrorCode.MALFORMED),
        ("[]", ErrorCode.MALFORMED),
        ('{"command": 1}', ErrorCode.MALFORMED),
        ('{"command": "stop"} {}', ErrorCode.MALFORMED),
        ('{"command": "\\ud800"}', ErrorCode.MALFORMED),
        ('{"command": "' + "x" * 65 + '"}', ErrorCode.TOO_LARGE),
        ('{"x": ' + "[" * 20_000 + "]" * 20_000 + "}", ErrorCode.TOO_DEEP),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_command_that_is_none_is_refused(body: str, code: ErrorCode) -> None:
    for tag in ("ZMQ_CTRL", "CONTROL_COMMAND"):
        assert refused(f"{tag}::{body}") is code


# --- bounds -------------------------------------------------------------------------------------


def test_a_text_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    start = "JOB_SUBMIT::j::"
    whole = start + "x" * (MAX_TEXT - len(start))
    assert sleap_rtc.decode(whole) == not_performed(whole)
    assert refused(whole + "x") is ErrorCode.TOO_LARGE
    assert refused(whole[:-1] + "é") is ErrorCode.TOO_LARGE
    assert refused("x" * (MAX_TEXT + 1), TO_CLIENT) is ErrorCode.TOO_LARGE
    assert unsaid(f.LogText(text="é" * (MAX_TEXT // 2 + 1))) is ErrorCode.TOO_LARGE


def test_a_chunk_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    for side in FILES:
        largest = f.Chunk(payload=bytes(MAX_CHUNK))
        assert READ[side](SAY[side](largest)) == largest
        assert refused(bytes(MAX_CHUNK + 1), side) is ErrorCode.TOO_LARGE
        assert unsaid(f.Chunk(payload=bytes(MAX_CHUNK + 1)), side) is ErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    ("size", "code"),
    [
        (str(MAX_FILE + 1), ErrorCode.TOO_LARGE),
        ("9" * 5000, ErrorCode.TOO_LARGE),
        ("-1", ErrorCode.MALFORMED),
        ("+1", ErrorCode.MALFORMED),
        ("1_0", ErrorCode.MALFORMED),
        (" 1", ErrorCode.MALFORMED),
        ("1.0", ErrorCode.MALFORMED),
        ("\u0661", ErrorCode.MALFORMED),
        ("", ErrorCode.MALFORMED),
    ],
)
def test_a_size_is_digits_within_what_a_file_can_have(size: str, code: ErrorCode) -> None:
    assert refused(f"FILE_META::a.zip:{size}:True") is code
    for good in (0, MAX_FILE):
        frame = f.FileMeta(name="a.zip", size=good, gui=False)
        assert sleap_rtc.decode(sleap_rtc.encode_from_client(frame)) == frame


def test_a_file_name_has_255_bytes_at_most() -> None:
    assert sleap_rtc.decode(f"FILE_META::{'é' * 127}x:1:True")
    assert refused(f"FILE_META::{'é' * 128}:1:True") is ErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        "FILE_META::a.zip",
        "FILE_META::a.zip:1",
        "OUTPUT_DIR",
        "JOB_ID::",
        "JOB_ID::../a",
        "JOB_ID::a::b",
        "SHARED_STORAGE_JOB::stop",
        "JOB_STOP::now",
        "OUTPUT_DIR::\ud800",
    ],
)
def test_what_breaks_a_row_s_promise_is_malformed(text: str) -> None:
    assert refused(text) is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    "frame",
    [
        f.JobFailed(job="a::b", message="m"),
        f.JobFailed(job="", message="m"),
        f.AuthFailure(reason="unknown"),  # type: ignore[arg-type]
        f.TrainJobError(name="a", code=10**10),
        f.TrackLog(line="\ud800"),
        f.LogText(text="\ud800"),
        f.NotPerformed(tag="NO_SUCH_TAG"),
        f.Control(command="stop"),
        f.FileMeta(name="a.zip", size=1, gui=True),
    ],
    ids=repr,
)
def test_what_would_not_be_read_is_not_written(frame: f.Frame) -> None:
    assert unsaid(frame) is ErrorCode.MALFORMED


# --- bytes of a file ----------------------------------------------------------------------------


def taken(pieces: tuple[f.Chunk, ...]) -> bytes:
    """The bytes of a file as sleap-rtc's client adds them up."""
    payloads = [piece.payload for piece in pieces]
    assert not any(b"PROGRESS_REPORT::" in payload for payload in payloads)
    return b"".join(payload for payload in payloads if payload != b"KEEP_ALIVE")


parts_of_files = st.lists(
    st.sampled_from([b"KEEP_ALIVE", b"PROGRESS_REPORT::", b"PROGRESS", b"_REPORT::"])
    | st.binary(max_size=4),
    max_size=6,
).map(b"".join)


@ordinary
@given(parts_of_files)
@example(b"KEEP_ALIVE")
@example(b"PROGRESS_REPORT::" * 3)
def test_a_client_takes_every_byte_of_a_file_for_its_bytes(payload: bytes) -> None:
    pieces = chunks(payload)
    assert taken(pieces) == payload
    for side in FILES:
        assert [READ[side](SAY[side](piece)) for piece in pieces] == list(pieces)
    if pieces != (f.Chunk(payload=payload),):
        assert unsaid(f.Chunk(payload=payload)) is ErrorCode.MALFORMED


# --- round trips --------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
names = plain.filter(lambda text: not set(text) & set("/\\") and text not in ("", ".", ".."))
ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
faults = st.builds(
    f.Fault,
    field=texts,
    message=texts,
    code=st.none() | texts,
    path=st.none() | texts,
)
OF_KIND: dict[fields.Kind, st.SearchStrategy[Any]] = {
    fields.NAME: names,
    fields.NAME_FOR_CLIENT: names.filter(lambda text: ":" not in text),
    fields.SIZE: st.integers(0, MAX_FILE),
    fields.GUI: st.booleans(),
    fields.FOLDER: plain,
    fields.FOLDER_FOR_CLIENT: plain.filter(lambda text: ":" not in text),
    fields.RELATIVE: st.lists(ids, min_size=1, max_size=4).map("/".join),
    fields.ID: ids,
    fields.STATUS: st.integers(-64, 255),
    fields.PACKAGE_KIND: st.sampled_from(f.PackageKind),
    fields.ACTION: st.sampled_from(f.SharedAction),
    fields.SIDE: st.sampled_from(f.SharedSide),
    fields.REASON: st.sampled_from(f.AuthReason),
    fields.COMMAND: st.text(st.characters(exclude_categories=["Cs"]), max_size=16),
    fields.FAULT: texts,
    fields.FAULTS: st.lists(faults, max_size=3).map(tuple),
    fields.PROOF: texts,
    fields.MESSAGE: texts,
    fields.JOB_NAME: texts,
    fields.REPORT: texts,
    fields.TEXT: texts,
}


def frames_of(row: Row) -> st.SearchStrategy[f.Frame]:
    if row.frame is f.NotPerformed:
        return st.builds(f.NotPerformed, tag=st.just(row.tag), body=st.none() | texts)
    if row.frame is f.Chunk:
        return st.builds(f.Chunk, payload=st.binary(max_size=40))
    return st.builds(row.frame, **{name: OF_KIND[kind] for name, kind in row.fields})


def said(row: Row) -> Iterator[Direction]:
    return (side for side in FILES if side in row.direction)


@each_row
def test_what_is_written_is_read_back(row: Row) -> None:
    @settings(ordinary, max_examples=60)
    @given(frames_of(row))
    def check(frame: f.Frame) -> None:
        for side in said(row):
            got = READ[side](SAY[side](frame))
            if row.frame is f.LogText:
                frame = f.LogText(text=as_log_text(frame.text))  # type: ignore[attr-defined]
            assert got == frame

    check()


# --- totality -----------------------------------------------------------------------------------


def read(data: str | bytes) -> None:
    """Reads from both sides: a frame that can be said again, or a typed refusal."""
    for side in FILES:
        try:
            frame = READ[side](data)
        except ProtocolError as error:
            assert isinstance(error.code, ErrorCode)
            assert 10 < len(error.sentence) < 1000
            continue
        assert isinstance(frame, f.Frame)
        try:
            again = SAY[side](frame)
        except ProtocolError as error:  # with a space more, or with a row that reads more mildly
            assert error.code in {ErrorCode.TOO_LARGE, ErrorCode.MALFORMED}
            continue
        READ[side](again)


heads = st.sampled_from([row.head for row in ROWS] + [row.tag for row in ROWS])


@ordinary
@given(st.text() | st.text(st.characters(categories=["Cs"])) | st.binary())
def test_any_text_and_any_bytes_give_a_frame_or_a_refusal(data: str | bytes) -> None:
    read(data)


@settings(ordinary, max_examples=1000)
@given(heads, st.sampled_from(["", ":", "::", "a:1:", "{", "a::"]), st.text(max_size=12))
def test_anything_after_a_tag_gives_a_frame_or_a_refusal(head: str, part: str, rest: str) -> None:
    read(head + part + rest)


@ordinary
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_golden_frame_with_spoilt_characters_gives_a_frame_or_a_refusal(
    case: tuple[Direction, str, f.Frame], data: st.DataObject
) -> None:
    line = case[1]
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, min(len(line), start + 8)))
    read(line[:start] + data.draw(st.text(max_size=8)) + line[end:])


# --- output that is no frame --------------------------------------------------------------------

# What sleap-rtc 0.0.7 looks for in a text from a worker, written out from its three clients.
AT_THE_BEGINNING = (
    "AUTH_CHALLENGE", "AUTH_SUCCESS", "AUTH_FAILURE", "JOB_", "FILE_UPLOAD_", "FS_",
    "WORKER_PATH_", "INFERENCE_JOB_", "PROGRESS_REPORT::", "MODEL_TYPE::", "INFERENCE_BEGIN::",
    "INFERENCE_LOG::", "INFERENCE_PROGRESS::", "INFERENCE_COMPLETE::", "INFERENCE_FAILED::",
    "INFERENCE_SKIPPED::", "CR::",
)  # fmt: skip
ANYWHERE = (
    "PROGRESS_REPORT::", "FILE_META::", "ZMQ_CTRL::", "TRAIN_JOB_START::", "TRAIN_JOB_END::",
    "TRAIN_JOB_ERROR::", "TRACK_LOG:", "INFERENCE_START", "INFERENCE_JOBS_DONE",
)  # fmt: skip


def believed(text: str) -> list[str]:
    """What makes a client of sleap-rtc take a text for a frame."""
    return [
        *(tag for tag in AT_THE_BEGINNING if text.startswith(tag)),
        *(tag for tag in ANYWHERE if tag in text),
        *(["END_OF_FILE"] if text == "END_OF_FILE" else []),
    ]


def check_output(line: str) -> str:
    text = as_log_text(line)
    assert believed(text) == []
    assert sleap_rtc.decode_from_worker(text) == f.LogText(text=text)
    assert sleap_rtc.encode(f.LogText(text=line)) == text
    assert as_log_text(text) == text
    assert text.replace(" ", "") == line.replace(" ", "")
    return text


def test_the_table_marks_what_clients_find_anywhere() -> None:
    assert sorted(MARKERS) == sorted(ANYWHERE)


@pytest.mark.parametrize("row", [row for row in ROWS if row.tag], ids=lambda row: row.spelling)
def test_output_that_reads_as_a_frame_goes_out_with_a_leading_space(row: Row) -> None:
    for line in (row.spelling, row.head, row.spelling + "\n", row.head + "x\n"):
        as_frame = line.startswith(FAMILIES) or bool(row.fields) or line == row.tag
        assert check_output(line).startswith(" ") == as_frame
    assert check_output(row.tag).startswith(" ")


@each_example
def test_golden_frames_that_a_program_prints_stay_output(
    side: Direction, line: str, frame: f.Frame
) -> None:
    assert check_output(line).startswith(" ")
    for around in (f"> {line}", f"a {line} b", f"\r{line}", f"{line}\n{line}", f" {line}"):
        check_output(around)


@ordinary
@given(
    st.lists(
        st.sampled_from([*ANYWHERE, *AT_THE_BEGINNING, "END_OF_FILE", ":", "_", "\r", "\n", " "])
        | heads
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        max_size=6,
    ).map("".join)
)
@example("FILE_FILE_META::META::")
@example("PROGRESS_PROGRESS_REPORT::REPORT::")
def test_no_output_is_believed_to_be_a_frame(line: str) -> None:
    check_output(line)


@pytest.mark.parametrize(
    "line",
    [
        "Epoch 3: 40%|████      | 2/5 [00:01<00:02, loss=0.25]\n",
        "\rEpoch 3: 40%",
        "CRITICAL: out of memory\n",
        "Traceback (most recent call last):\n",
        '  File "a.py", line 1\n',
        "[stderr] FILE_METADATA: x::y",
        "",
    ],
)
def test_ordinary_output_is_unchanged(line: str) -> None:
    assert check_output(line) == line


POISON = " ".join(ANYWHERE)
FREE = {fields.TEXT, fields.REPORT, fields.MESSAGE, fields.JOB_NAME, fields.FAULT}


def poisoned(row: Row) -> f.Frame:
    if row.frame is f.NotPerformed:
        return f.NotPerformed(tag=row.tag, body=POISON)
    tame = {fields.ID: "j", fields.STATUS: 1}
    return row.frame(**{name: tame.get(kind, POISON) for name, kind in row.fields})


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.tag and row.direction is TO_CLIENT
     and FREE & {kind for _, kind in row.fields}],
    ids=lambda row: row.spelling,
)  # fmt: skip
def test_no_field_makes_a_client_see_another_frame(row: Row) -> None:
    """A tracking client, say, looks for `FILE_META::` before it looks for `TRACK_LOG:`."""
    text = str(sleap_rtc.encode(poisoned(row)))
    assert text.startswith(row.head)
    assert {tag for tag in ANYWHERE if tag in text} <= {row.head}
    assert text.count(row.head) == 1


def test_markers_are_broken_where_they_stand() -> None:
    assert without_markers("a FILE_META::b TRACK_LOG:c") == "a FILE _META::b TRACK _LOG:c"


# --- flows that are not performed -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("JOB_SUBMIT::0c1d2e3f::{}", f.JobRejected(job="0c1d2e3f", errors=(FAULT,))),
        ("JOB_SUBMIT::../x::{}", f.JobRejected(job="unknown", errors=(FAULT,))),
        ("JOB_SUBMIT", f.JobRejected(job="unknown", errors=(FAULT,))),
        ("USE_WORKER_PATH::/data/a.slp", f.WorkerPathError(message=SENTENCE)),
        ("FS_GET_MOUNTS", f.FsError(code="INVALID_REQUEST", message=SENTENCE)),
        ("FS_WRITE_SLP::{}", f.FsWriteSlpError(error=SENTENCE)),
        ("FILE_UPLOAD_CHECK::00::a", f.FileUploadError(message=SENTENCE)),
    ],
)
def test_a_flow_that_is_not_performed_is_refused_in_its_own_words(
    asked: str, answer: f.Frame
) -> None:
    frame = sleap_rtc.decode(asked)
    assert isinstance(frame, f.NotPerformed)
    assert refusal(frame, SENTENCE) == answer


@pytest.mark.parametrize("row", [row for row in ROWS if row.refusal], ids=lambda row: row.spelling)
def test_every_refusal_can_be_said(row: Row) -> None:
    answer = refusal(f.NotPerformed(tag=row.tag, body="a::b"), SENTENCE)
    text = sleap_rtc.encode(answer)
    assert SENTENCE in str(text)
    assert sleap_rtc.decode_from_worker(text) == answer


def test_only_what_a_client_asks_for_is_refused() -> None:
    for tag in ("JOB_ACCEPTED", "FILE_META", "x" * 5000):
        with pytest.raises(ProtocolError) as caught:
            refusal(f.NotPerformed(tag=tag), SENTENCE)
        assert caught.value.code is ErrorCode.UNKNOWN_TYPE


# --- proofs -------------------------------------------------------------------------------------


def test_the_proof_of_a_known_secret_is_what_openssl_makes_of_it() -> None:
    assert auth.hmac_proof(SECRET, NONCE) == PROOF
    assert auth.hmac_proof(SECRET + "=", NONCE) == PROOF
    assert auth.nonce(bytes(range(32))) == NONCE


@pytest.mark.parametrize("proof", ["", "missing", PROOF[:-1], PROOF + "=", NONCE, "é", "\ud800"])
def test_any_other_proof_proves_nothing(proof: str) -> None:
    assert auth.hmac_proved(SECRET, NONCE, PROOF)
    assert not auth.hmac_proved(SECRET, NONCE, proof)


def test_a_proof_is_of_one_secret_and_one_nonce() -> None:
    other = auth.nonce(bytes(32))
    assert not auth.hmac_proved(SECRET, other, PROOF)
    assert not auth.hmac_proved(other, NONCE, PROOF)


def test_a_secret_that_is_no_pure_base64_is_the_same_key_on_both_sides() -> None:
    """sleap-rtc decodes leniently; a secret that people made up has to work here too."""
    made_up = "our lab, room 12"
    assert base64.urlsafe_b64decode(made_up) == base64.urlsafe_b64decode("ourlabroom12")
    assert auth.hmac_proof(made_up, NONCE) == auth.hmac_proof("ourlabroom12", NONCE)


@pytest.mark.parametrize("secret", ["", "!!!!", "A", "é"])
def test_a_secret_that_anybody_could_guess_or_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(auth.BadRoomSecret):
        auth.hmac_proof(secret, NONCE)
    with pytest.raises(auth.BadRoomSecret):
        auth.hmac_proved(secret, NONCE, PROOF)


def test_a_nonce_has_32_bytes() -> None:
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            auth.nonce(bytes(size))


def test_a_signature_is_of_the_nonce_s_text(tmp_path: Path) -> None:
    """As sleap-rtc signs: `private_key.sign(nonce.encode())`."""
    someone, other = Identity.load(tmp_path / "a.key"), Identity.load(tmp_path / "b.key")
    signature = someone.sign(NONCE.encode())
    assert proved(someone.key, signature, auth.signed(NONCE))
    assert not proved(other.key, signature, auth.signed(NONCE))
    assert not proved(someone.key, signature, auth.signed(auth.nonce(bytes(32))))
    assert not proved(someone.key, someone.sign(bytes(range(32))), auth.signed(NONCE))
