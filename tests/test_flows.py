"""What was recorded of real runs is still what the tables say, and the charts show all of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.diagrams.charts import (
    MOST_LINES,
    RECORDINGS,
    Recording,
    charts,
    flows_page,
    recordings,
)
from fsm_worker.events import event_name
from fsm_worker.machines.registry import CLIENT_TABLES, WORKER_TABLES
from protocol.codec import MAX_FRAME
from protocol.registry import NATIVE, SIGNALING, tag
from protocol.table import MESSAGES, Direction, MachineName
from tests.e2e.record_flows import FLOWS, record

FOUND = recordings()
each = pytest.mark.parametrize("recording", FOUND, ids=lambda recording: recording.name)


def rows(recording: Recording) -> list[dict[str, Any]]:
    return [entry for entry in recording.entries if entry["kind"] == "row"]


def check(recording: Recording) -> None:
    """Each step is one that a row of a table makes, and each message may be said that way."""
    for entry in rows(recording):
        tables = WORKER_TABLES if entry["at"] == "worker" else CLIENT_TABLES
        table = tables[MachineName(entry["machine"])]
        (row,) = (row for row in table.rows if row.id == entry["row"])
        assert event_name(row.on) == entry["event"], entry
        assert entry["before"] in row.sources, entry
        assert row.to is not None, entry
        assert row.to == entry["after"], entry
    for entry in recording.entries:
        if entry["kind"] != "message":
            continue
        assert {entry["by"], entry["to"]} == {"client", "worker"}
        if entry["type"] in {"offer", "answer"}:
            assert entry["type"] in {tag(kind) for kind in SIGNALING.kinds}
            continue
        (said,) = (row for row in MESSAGES if row.tag == entry["type"])
        heard = Direction.TO_WORKER if entry["to"] == "worker" else Direction.TO_CLIENT
        assert heard in said.direction, entry
        assert said.message in NATIVE.kinds


def test_there_is_a_recording_of_every_flow() -> None:
    assert [recording.name for recording in FOUND] == [flow.name for flow in FLOWS]
    assert [recording.title for recording in FOUND] == [flow.title for flow in FLOWS]
    assert all(len(rows(recording)) >= 2 for recording in FOUND)


@each
def test_a_recording_says_what_the_tables_say(recording: Recording) -> None:
    check(recording)


@each
def test_a_chain_of_states_has_no_gap(recording: Recording) -> None:
    state: dict[tuple[str, str], str] = {}
    for entry in rows(recording):
        machine = (entry["at"], entry["machine"])
        if machine in state and entry["machine"] in {"job", "worker", "session"}:
            assert state[machine] == entry["before"], entry
        state[machine] = entry["after"]


@each
def test_the_charts_show_every_row_and_every_message_in_their_order(recording: Recording) -> None:
    drawn = "\n".join(charts(recording))
    at = 0
    for entry in recording.entries:
        if entry["kind"] == "row":
            shown = f"{entry['row']} {entry['machine']}: {entry['before']} → {entry['after']}"
        elif entry["kind"] == "bytes":
            shown = f"bytes {entry['start']:,} to {entry['until']:,}"
        elif entry["type"] == "progress":
            continue  # those that follow each other are one arrow
        else:
            shown = entry["type"]
        at = drawn.find(shown, at)
        assert at >= 0, entry
        at += 1


@each
def test_a_chart_is_no_longer_than_a_screen(recording: Recording) -> None:
    for chart in charts(recording):
        lines = [line for line in chart.splitlines() if "->>" in line or "Note over" in line]
        assert len(lines) <= MOST_LINES + 4  # what goes through the server is two arrows


def test_the_flows_that_are_asked_for_are_there() -> None:
    by_name = {recording.name: recording for recording in FOUND}
    ends = {entry["after"] for entry in rows(by_name["stop"]) if entry["machine"] == "job"}
    assert ends == {"stopping", "collecting", "done"}
    suspended = [e for e in rows(by_name["resume"]) if e["after"] == "suspended"]
    assert {entry["at"] for entry in suspended} == {"client", "worker"}
    asked = [e for e in by_name["resume"].entries if e.get("type") == "file_need"]
    again = [need["has"]["ranges"][0][0] for need in asked]
    assert again[0] == 0
    assert again[-1] > 0  # not from the beginning


def test_a_recording_holds_no_keys_and_no_long_texts() -> None:
    for path in RECORDINGS.glob("*.json"):
        found = json.loads(path.read_text())
        assert path.stat().st_size < MAX_FRAME
        for entry in found["entries"]:
            for value in entry.get("has", {}).values():
                assert not isinstance(value, str) or len(value) <= 40


def test_a_row_that_no_table_has_any_more_is_found() -> None:
    stop = next(recording for recording in FOUND if recording.name == "stop")
    (first, *others) = rows(stop)
    for wrong in ({"row": "J999"}, {"after": "queued"}, {"event": "recv_cancel"}):
        with pytest.raises((AssertionError, ValueError)):
            check(stop._replace(entries=({**first, **wrong}, *others)))


def test_the_page_has_the_day_of_every_recording() -> None:
    text = flows_page()
    for recording in FOUND:
        assert f"## {recording.title}\n\nRecorded on {recording.recorded} with" in text


async def test_a_flow_can_be_recorded_anew(tmp_path: Path) -> None:
    flow = next(flow for flow in FLOWS if flow.name == "cancel")
    (tmp_path / "1-cancel.json").write_text(await record(flow))
    (made,) = recordings(tmp_path)
    check(made)
    kept = next(recording for recording in FOUND if recording.name == "cancel")

    def path(recording: Recording) -> list[str]:
        return [entry["row"] for entry in rows(recording) if entry["machine"] == "job"]

    assert path(made) == path(kept) == ["J39", "J45", "J49"]
