"""What a client of sleap-rtc is told of its job; every word of it can be said in its dialect."""

import json
from collections.abc import Iterable

import pytest

from fsm_worker.facts import GuestFacts
from fsm_worker.seams import guest_words as words
from protocol import sleap_rtc
from protocol.errors import ErrorCode
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
