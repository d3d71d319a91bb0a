"""What is seen of a job."""

import io
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as Terminal

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.live import LiveView
from fsm_worker.cli.log_lines import MOST, LogLines
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.objects import ObjectView
from fsm_worker.cli.plain import PlainView
from fsm_worker.cli.sparkline import BLOCKS, sparkline
from fsm_worker.cli.view import STATES, View
from protocol import messages as m
from protocol.lifecycle import JobState, Outcome
from protocol.trainer import TrainBegin, decode_trainer

FIXTURES = Path(__file__).parents[1] / "fixtures"
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m[bold]red[/]\x00\n"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def log(text: str) -> m.Log:
    return m.Log(job="job-1", offset=0, next=1, text=text)


def epoch(number: int, **metrics: float) -> m.Progress:
    return m.Progress(
        job="job-1", stage=0, event="epoch_end", epoch=number, epochs=20, metrics=metrics
    )


def state(name: JobState, **fields: object) -> m.JobStateChanged:
    return m.JobStateChanged(
        job="job-1", before=JobState.NEW, state=name, row="J1", event="x", **fields
    )


# --- pieces -----------------------------------------------------------------------------------


def test_a_sparkline_goes_from_the_lowest_block_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert sparkline([3, 3, 3], 8) == BLOCKS[0] * 3
    assert sparkline([], 8) == sparkline([1], 0) == ""
    assert sparkline([1, math.nan, 2], 8) == f"{BLOCKS[0]} {BLOCKS[-1]}"


@given(st.lists(st.floats()), st.integers(0, 40))
def test_any_numbers_make_a_picture_of_at_most_the_width(values: list[float], width: int) -> None:
    picture = sparkline(values, width)
    assert len(picture) == min(width, len(values))
    assert set(picture) <= {*BLOCKS, " "}


@given(st.lists(st.text(st.sampled_from("ab\n\ré"), max_size=6), max_size=8))
def test_where_a_log_is_cut_into_pieces_does_not_matter_for_its_lines(pieces: list[str]) -> None:
    cut, whole = LogLines(), LogLines()
    lines = [line for piece in pieces for line in cut.feed(piece)] + cut.end()
    assert lines == whole.feed("".join(pieces)) + whole.end()


@given(st.lists(st.text(st.sampled_from("a[]0;mJ\n\r\x07\x1b\x9b\x9d"), max_size=6), max_size=8))
def test_no_line_can_command_a_terminal_however_its_log_is_cut(pieces: list[str]) -> None:
    lines = LogLines()
    shown = [line for piece in pieces for line in lines.feed(piece)] + lines.end()
    assert not COMMANDS.search("".join(shown))


def test_a_leading_carriage_return_replaces_the_line_that_is_being_written() -> None:
    lines = LogLines()
    assert lines.feed("10 %") == []
    assert lines.feed("\r20 %") == []
    assert lines.current == "20 %"
    assert lines.feed(" done\r") == []
    assert lines.feed("\nnext") == ["20 % done"]
    assert lines.end() == ["next"]


def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    lines = LogLines()
    found = [line for _ in range(10) for line in lines.feed("x" * (MOST // 2 + 1))]
    assert all(len(line) == MOST for line in found)
    assert len("".join(found) + "".join(lines.end())) == 10 * (MOST // 2 + 1)


def test_somebody_elses_words_are_one_harmless_line() -> None:
    assert one_line("a\n  b\x1b[2J\x07c") == "a bc"
    assert len(one_line("x" * 5000)) <= 2000


def test_the_losses_of_a_real_sleap_nn_training_are_found() -> None:
    losses, shown = Losses(), []
    for line in (FIXTURES / "sleap_nn_0.3.5_zmq.jsonl").read_bytes().splitlines():
        message = decode_trainer(line)
        epochs = 3 if isinstance(message, TrainBegin) else None
        ended = losses.hear(
            m.Progress(
                job="job-1", stage=0, event=message.event, epoch=message.epoch, epochs=epochs,
                batch=message.batch, metrics=message.metrics,
            )
        )  # fmt: skip
        shown += [str(ended)] if ended else []
    assert shown[0] == "epoch 1/3 loss 0.03997 val_loss 0.03549"
    assert shown[2].startswith("epoch 3/3 loss 0.02216 val_loss 0.0223")
    assert losses.first_loss == pytest.approx(0.03997, rel=1e-3)
    assert losses.best == min(losses.history)


def test_a_new_stage_has_no_past() -> None:
    losses = Losses()
    losses.hear(epoch(0, loss=2.0))
    losses.hear(m.Progress(job="job-1", stage=1, event="train_begin", epochs=5))
    assert (losses.stage, losses.history, losses.planned, losses.best) == (1, [], 5, None)


def test_a_trainer_with_other_names_is_shown_with_its_own() -> None:
    assert str(Losses().hear(epoch(0, **{"er\x07ror": 0.5, "b": 1.0}))) == (
        "epoch 1/20 error 0.5 b 1"
    )
    assert str(Losses().hear(epoch(0))) == "epoch 1/20"
    assert str(Losses().hear(epoch(4, **{"val/loss": 2.0}))) == "epoch 5/20 val_loss 2"


def test_every_state_that_can_be_watched_has_words() -> None:
    assert set(STATES) == set(JobState) - {JobState.NEW, JobState.REJECTED, JobState.DONE}


# --- views ------------------------------------------------------------------------------------


def show(view: View) -> None:
    """One job as a worker tells it, with a log that tries to command the terminal."""
    with view:
        view.moved("packing", 5, 10)
        view.moved("packing", 10, 10)
        view.state(state(JobState.STAGING))
        view.moved("uploading", 10, 10)
        view.state(state(JobState.RUNNING, stage=1, stages=2))
        view.log(log(HOSTILE))
        view.progress(m.Progress(job="job-1", stage=0, event="train_begin", epochs=20))
        view.progress(epoch(0, loss=1.5))
        view.progress(epoch(1, loss=0.25, val_loss=0.5))
        view.telemetry(m.Telemetry(job="job-1", gpu_percent=43.0, cpu_percent=180.0, memory_mb=812))
        view.log(log("half"))
        view.ask("what now?")
        view.ask("")
        view.note("[noted]")
        view.state(state(JobState.COLLECTING, outcome=Outcome.CANCELLED))
        view.log(m.LogEnd(job="job-1", size=9))


def test_lines_say_what_happened_and_mark_what_the_job_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(PlainView(Console()))
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert not COMMANDS.search(said.replace("\n", ""))
    assert "running stage 2 of 2" in lines
    assert "| [bold]red[/]" in lines
    assert "stage 1/2 epoch 2/20 loss 0.25 val_loss 0.5" in lines
    assert "| half" in lines
    assert "[noted]" in lines
    assert sum(line.startswith("packing 10 B: done") for line in lines) == 1
    assert lines[-2:] == ["throwing away what it made", "| half"]


def test_quiet_says_nothing_while_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    show(PlainView(Console(verbosity=-1)))
    assert capsys.readouterr().out == "what now?\n"


def test_objects_are_one_a_line_and_the_workers_messages_keep_their_spelling(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(ObjectView(Console(as_json=True)))
    said = capsys.readouterr().out
    found = [json.loads(line) for line in said.splitlines()]
    assert not COMMANDS.search(said.replace("\n", ""))
    kinds = {entry["type"] for entry in found}
    assert kinds == {"transfer", "job_state", "log", "progress", "telemetry", "note", "log_end"}
    assert {"type": "transfer", "what": "packing", "done": 10, "size": 10} in found
    assert next(entry for entry in found if entry["type"] == "log")["text"] == "[bold]red[/]\n"


def test_a_terminal_shows_bars_below_the_output_and_leaves_a_line() -> None:
    screen = io.StringIO()
    terminal = Terminal(
        file=screen, force_terminal=True, width=100, color_system=None, highlight=False,
        legacy_windows=False,
    )  # fmt: skip
    show(LiveView(terminal))
    drawn = screen.getvalue()
    assert "[bold]red[/]" in drawn
    assert "title" not in drawn
    assert "\x1b[2J" not in drawn
    assert "what now?" in drawn
    assert "GPU 43 %" in drawn
    left = drawn.rstrip().splitlines()[-1]
    assert left.endswith(f"epoch 2/20 loss 0.25 val_loss 0.5 {BLOCKS[-1]}{BLOCKS[0]}")
