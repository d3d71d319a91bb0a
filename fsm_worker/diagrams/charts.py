"""Sequence charts of real runs, drawn from what `make record` wrote down."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsm_worker
from fsm_worker.diagrams.page import page

#: Where recordings are: they are committed, and made anew by `make record`.
RECORDINGS = Path(fsm_worker.__file__).parents[1] / "diagrams" / "recordings"
#: Arrows and notes of one chart: as many as one screen holds.
MOST_LINES = 20
_PAUSE = 0.3  # seconds in which nothing was said that are worth a word
_LAYOUT = (
    '%%{init: {"sequence": {"mirrorActors": false, "messageMargin": 22, "noteMargin": 6,'
    ' "boxMargin": 6, "width": 260}}}%%'
)
#: The fields of a message that an arrow shows, in this order.
_SHOWN = (
    "role", "name", "state", "outcome", "row", "event", "code", "received", "size", "ranges",
)  # fmt: skip


class Recording(NamedTuple):
    """One flow as it was recorded."""

    name: str
    title: str
    recorded: str  # the day
    version: str  # of fsm-worker
    entries: tuple[dict[str, Any], ...]


def recordings(folder: Path = RECORDINGS) -> tuple[Recording, ...]:
    """Every recording, in the order of their numbers."""
    return tuple(
        Recording(**found["head"], entries=tuple(found["entries"]))
        for path in sorted(folder.glob("*.json"))
        for found in [json.loads(path.read_text(encoding="utf-8"))]
    )


def charts(recording: Recording) -> tuple[str, ...]:
    """The Mermaid texts of a recording: as many as it takes."""
    lines = list(_lines(recording.entries))
    count = -(-len(lines) // MOST_LINES)
    size = -(-len(lines) // max(count, 1))
    through = any(entry.get("type") in {"offer", "answer"} for entry in recording.entries)
    people = ("client", "server", "worker") if through else ("client", "worker")
    head = [_LAYOUT, "sequenceDiagram", *(f"    participant {name}" for name in people)]
    return tuple(
        "\n".join((*head, *(f"    {line}" for line in lines[at : at + size]))) + "\n"
        for at in range(0, len(lines), size)
    )


def flows_page() -> str:
    """The page of all recordings."""
    return page(
        "Flows",
        "What was said and done in real runs: a real signaling server, a real worker and a real"
        " client, joined by real WebRTC on loopback, and a real trainer. An arrow is a message with"
        " some of its fields; `offer` and `answer` go through the signaling server. A note names a"
        " machine, its states and the row that fired. Acknowledgements, pings and program output"
        " are left out. `make record` runs and records them anew; the charts are drawn from the"
        " [recordings](recordings).",
        *(block for recording in recordings() for block in _shown(recording)),
    )


def _shown(recording: Recording) -> Iterator[str]:
    yield f"## {recording.title}"
    yield f"Recorded on {recording.recorded} with fsm-worker {recording.version}."
    for chart in charts(recording):
        yield f"```mermaid\n{chart}```"


def _lines(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Arrows and notes; rows of one side that fire together share a note."""
    note: list[str] = []
    at, said, again = "", "", 1
    for number, entry in enumerate(entries):
        if note and (entry["kind"] != "row" or entry["at"] != at):
            yield f"Note over {at}: {'<br/>'.join(note)}"
            note = []
        if said and (entry["kind"] != "message" or _arrow(entry) != said):
            yield said + (f", {again} times" if again > 1 else "")
            said, again = "", 1
        pause = entry["seconds"] - entries[number - 1]["seconds"] if number else 0.0
        if pause >= _PAUSE and not note and not said:
            yield f"Note over client,worker: {pause:.1f} s later"
        if entry["kind"] == "row":
            at = entry["at"]
            note.append(f"{entry['row']} {entry['machine']}: {entry['before']} → {entry['after']}")
        elif said:
            again += 1
        else:
            said = _arrow(entry)
    if note:
        yield f"Note over {at}: {'<br/>'.join(note)}"
    if said:
        yield said + (f", {again} times" if again > 1 else "")


def _arrow(entry: dict[str, Any]) -> str:
    by, to = entry["by"], entry["to"]
    if entry["kind"] == "bytes":
        return f"{by}-->>{to}: bytes {entry['start']:,} to {entry['until']:,}"
    if entry["type"] in {"offer", "answer"}:
        return f"{by}->>server: {entry['type']} for the {to}\n    server->>{to}: {entry['type']}"
    has = entry["has"]
    if entry["type"] == "progress":
        has = {}
    told = [_value(name, has[name]) for name in _SHOWN if name in has]
    return f"{by}->>{to}: {entry['type']}{' (' + ', '.join(told) + ')' if told else ''}"


def _value(name: str, value: Any) -> str:
    if name == "ranges":
        return " and ".join(f"{start:,} to {end:,}" for start, end in value) or "nothing"
    if name == "size":
        return f"{value:,} bytes"
    if name == "received":
        return f"has {value}"
    return str(value)
