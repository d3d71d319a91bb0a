"""What a client of sleap-rtc is told of its job; every word of it can be said in its dialect."""

import json
from collections.abc import Iterable

import pytest

from fsm_worker.events import PathRefused
from fsm_worker.facts import GuestFacts
from fsm_worker.seams import guest_words as words
from protocol import sleap_rtc
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome
from protocol.messages import Problem, Progress, ResultsInfo
from protocol.sleap_rtc import frames as f

PROBLEM = Problem(code=ErrorCode.EXITED, sentence="it ended with code 3")
BAD = [one for one in Outcome if one not in {*words.WELL, Outcome.NONE}]


def said(frames: Iterable[f.Frame]) -> list[str]:
    texts = [sleap_rtc.encode(frame) for frame in frames]
    assert all(isinstance(text, str) for text in texts)
    return [str(text) for text in texts]


def facts(kind: str = "train", **more: object) -> GuestFacts:
    return GuestFacts(kind=kind, stages=("centroid", "topdown"), **more)  # type: ignore[arg-type]


def test_stages_begin_and_end_in_turn() -> None:
    assert said(words.stage(facts(stage=0))) == ["TRAIN_JOB_START::centroid"]
    assert said(words.stage(facts(stage=1))) == [
        "TRAIN_JOB_END::centroid",
        "TRAIN_JOB_START::topdown",
    ]
    assert said(words.stage(facts(stage=2)))[-1] == "TRAIN_JOB_START::stage-3"
    begun = ["INFERENCE_START", "INFERENCE_JOB_START::inference"]
    assert said(words.stage(facts("track", stage=0))) == begun


@pytest.mark.parametrize("outcome", sorted(words.WELL))
def test_a_job_that_ended_well_is_said_to_be_done(outcome: Outcome) -> None:
    done = facts(stage=1, outcome=outcome, results=ResultsInfo(root="0" * 64))
    assert said(words.ending(done)) == ["TRAIN_JOB_END::topdown", "TRAINING_JOBS_DONE"]
    done = facts("track", stage=0, outcome=outcome, results=ResultsInfo(root="0" * 64))
    assert said(words.ending(done)) == ["INFERENCE_JOB_END::inference"]  # its file comes first
    done = facts("track", stage=0, outcome=outcome)
    assert said(words.ending(done))[-1] == "INFERENCE_JOBS_DONE"


@pytest.mark.parametrize("stage", [-1, 0])
@pytest.mark.parametrize("kind", ["train", "track"])
@pytest.mark.parametrize("outcome", BAD)
def test_no_other_is_and_it_is_said_why(outcome: Outcome, kind: str, stage: int) -> None:
    ended = facts(kind, stage=stage, outcome=outcome, problems=(PROBLEM,))
    texts = said(words.ending(ended))
    assert not any("_DONE" in text or "JOB_END" in text for text in texts)
    assert any("it ended with code 3" in text for text in texts)
    assert any("_ERROR::" in text for text in texts)


def test_a_report_names_the_model_and_nothing_that_a_client_would_run() -> None:
    progress = Progress(
        job="j", stage=1, event="epoch_end", epoch=3, metrics={"loss": 0.5, "py/object": 1.0}
    )
    frame = words.report(facts(), progress)
    [text] = said((frame,))
    report = json.loads(text.removeprefix("PROGRESS_REPORT::"))
    assert report == {"event": "epoch_end", "what": "topdown", "epoch": 3, "logs": {"loss": 0.5}}


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["a\n", "b\n"], ["a\n", "b\n"]),
        (["half of ", "a line\n"], ["half of a line\n"]),
        (["a\nb", "c\nd"], ["a\n", "bc\n", "d"]),
        (["\r10 %", "\r20 %", "\n", "end"], ["\r10 %", "\r20 %", "\n", "end"]),
        (["gone", "\r10 %"], ["\r10 %"]),
        (["x" * 9000, "y"], ["x" * 9000, "y"]),
        ([""], []),
    ],
)
def test_output_is_put_together_to_lines(pieces: list[str], shown: list[str]) -> None:
    heard, waiting = [], ""
    for number, piece in enumerate((*pieces, "")):
        text, waiting = words.whole_lines(waiting, piece, over=number == len(pieces))
        heard += [text] if text else []
    assert (heard, waiting) == (shown, "")


def test_tracking_has_a_frame_for_each_line() -> None:
    assert said(words.output("track", "a\nTRACK_LOG:b\n")) == [
        "TRACK_LOG:a",
        "TRACK_LOG:TRACK _LOG:b",
    ]
    assert said(words.output("train", "a\nb\n")) == ["a\nb\n"]
    assert said(words.output("train", "")) == []


def test_a_folder_with_a_colon_is_no_hint() -> None:
    assert said((words.result(facts(folder="C:\\x"), "a.zip", 3),)) == ["FILE_META::a.zip:3:"]
    assert said((words.result(facts(folder="models"), "a.zip", 3),)) == [
        "FILE_META::a.zip:3:models"
    ]


SHARED = ResultsInfo(folder="jobs/j-1/out", manifest="0" * 64)


@pytest.mark.parametrize("outcome", sorted(words.WELL))
@pytest.mark.parametrize("kind", ["train", "track"])
def test_a_job_in_the_shared_storage_is_complete_with_its_folder(
    kind: str, outcome: Outcome
) -> None:
    done = facts(kind, stage=0, outcome=outcome, shared=True, label="j-1", results=SHARED)
    *before, last = said(words.ending(done))
    assert last == "JOB_COMPLETE::j-1::jobs/j-1/out"
    assert before[-1] == ("TRAINING_JOBS_DONE" if kind == "train" else "INFERENCE_JOBS_DONE")


@pytest.mark.parametrize("kind", ["train", "track"])
@pytest.mark.parametrize("outcome", [*BAD, Outcome.SUCCEEDED])
def test_or_it_has_failed_and_says_why(outcome: Outcome, kind: str) -> None:
    """Also one that ended well, of which nothing lies in the storage."""
    long = Problem(code=ErrorCode.EXITED, sentence="it ended with code 3 " + "é" * 2000)
    ended = facts(kind, stage=0, outcome=outcome, shared=True, label="j-1", problems=(long,))
    texts = said(words.ending(ended))
    assert texts[-1].startswith("JOB_FAILED::j-1::")
    assert "it ended with code 3" in texts[-1]
    assert not any("JOB_COMPLETE" in text for text in texts)


@pytest.mark.parametrize("frame", ["SHARED_INPUT_PATH::../x", "SHARED_OUTPUT_PATH::/x"])
def test_a_path_that_can_not_be_read_is_a_refused_path(frame: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        sleap_rtc.decode(frame)
    event = words.unread(frame, caught.value)
    assert event == PathRefused(reason=caught.value.sentence)
    assert words.unread("FILE_META::../x:1:True", caught.value) is None
    assert words.unread(b"bytes", caught.value) is None


def test_a_sentence_of_any_length_can_be_said_as_a_path_error() -> None:
    [text] = said((words.path_error("é" * 5000),))
    assert text.startswith("PATH_ERROR::éé")


def test_what_a_disk_refuses_is_said_without_its_path() -> None:
    error = PermissionError(13, "Permission denied", "/mnt/lab/secret")
    assert words.reason_of(error) == "the shared storage refused: Permission denied"
    assert words.reason_of(ProtocolError(ErrorCode.PATH_ERROR, "no")) == "no"
