"""The picture of one machine, as Mermaid text.

Laws:

- A self-loop is not drawn: the grid has it.
- Events that lead from one state to another share one arrow.
- What several states do alike is drawn once, from a frame around them, where that saves ink.
- A machine with more arrows than one picture holds gets two: how it goes, which reaches every state,
  and what else can fail or run out of time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from fsm_worker.events import Timer, event_name
from fsm_worker.machines.engine import Table

#: Arrows that one picture holds, those of the initial and final marks not counted.
MOST_ARROWS = 16
#: An event whose name ends so says that something failed or ran out of time.
TROUBLE = ("closed", "expired", "failed", "lost", "refused")
#: A frame must save so much ink (an arrow is two, a label one) to be worth its own lines.
_WORTH = 4

Frame = tuple[StrEnum, ...]


class Move(NamedTuple):
    """One event that leads from one state to another."""

    source: StrEnum
    target: StrEnum
    event: str  # its full name
    label: str  # as the arrow shows it
    guarded: bool


class Arrow(NamedTuple):
    """One arrow: from a state, or from a frame around several."""

    start: Frame
    target: StrEnum
    labels: tuple[str, ...]


class Picture(NamedTuple):
    """One diagram."""

    title: str  # empty where the machine has only one
    arrows: tuple[Arrow, ...]
    mermaid: str


def pictures(table: Table[Any, Any]) -> tuple[Picture, ...]:
    """Draws a machine: one picture, or two where one would hold too many arrows."""
    moves = tuple(_moves(table))
    whole = _picture(table, "", moves)
    if len(whole.arrows) <= MOST_ARROWS:
        return (whole,)
    smooth = {move for move in moves if move.event.rpartition("_")[2] not in TROUBLE}
    reached = {move.target for move in smooth}
    first = [move for move in moves if move in smooth or move.target not in reached]
    second = [move for move in moves if move not in first]
    return (
        _picture(table, "How it goes", first),
        _picture(table, "What else fails, or runs out of time", second),
    )


def _moves(table: Table[Any, Any]) -> Iterator[Move]:
    seen = set()
    for row in table.rows:
        name = event_name(row.on)
        label = f"timer {row.on.value}" if isinstance(row.on, Timer) else name
        for source in row.sources:
            move = Move(source, row.to, name, label, bool(row.guards))
            if row.to is not None and row.to is not source and move not in seen:
                seen.add(move)
                yield move


def _picture(table: Table[Any, Any], title: str, moves: Iterable[Move]) -> Picture:
    states = tuple(table.states)
    alike: dict[tuple[StrEnum, str], set[StrEnum]] = {}
    guarded: set[tuple[StrEnum, str]] = set()
    for move in moves:
        alike.setdefault((move.target, move.label), set()).add(move.source)
        if move.guarded:
            guarded.add((move.target, move.label))
    shared = {
        (target, f"{label}?" if (target, label) in guarded else label): tuple(
            sorted(sources, key=states.index)
        )
        for (target, label), sources in alike.items()
    }
    frames: tuple[Frame, ...] = ()
    arrows = _arrows(shared, frames, states)
    while True:
        tried = [
            (_ink(arrows) - _ink(drawn), frame, drawn)
            for frame in dict.fromkeys(shared.values())
            if len(frame) > 1 and all(_apart(frame, other) for other in frames)
            for drawn in [_arrows(shared, (*frames, frame), states)]
        ]
        saved, frame, drawn = max(tried, key=lambda choice: choice[0], default=(0, (), ()))
        if saved < _WORTH:
            return Picture(title, arrows, _mermaid(table, frames, arrows))
        frames, arrows = (*frames, frame), drawn


def _apart(one: Frame, other: Frame) -> bool:
    """Two frames can be drawn: they share no state, or one lies inside the other."""
    return one != other and (set(one) & set(other)) in ({*()}, {*one}, {*other})


def _ink(arrows: Sequence[Arrow]) -> int:
    return sum(2 + len(arrow.labels) for arrow in arrows)


def _arrows(
    shared: Mapping[tuple[StrEnum, str], Frame],
    frames: Sequence[Frame],
    states: Sequence[StrEnum],
) -> tuple[Arrow, ...]:
    """Arrows by their start, then by their target; labels keep the table's order."""
    labels: dict[tuple[Frame, StrEnum], list[str]] = {}
    for (target, label), sources in shared.items():
        left = set(sources)
        for frame in sorted(frames, key=len, reverse=True):
            if set(frame) <= left:
                left -= set(frame)
                labels.setdefault((frame, target), []).append(label)
        for state in sources:
            if state in left:
                labels.setdefault(((state,), target), []).append(label)
    return tuple(
        Arrow(start, target, tuple(texts))
        for (start, target), texts in sorted(
            labels.items(),
            key=lambda item: (
                states.index(item[0][0][0]),
                -len(item[0][0]),
                states.index(item[0][1]),
            ),
        )
    )


def _mermaid(
    table: Table[Any, Any], frames: Sequence[Frame], arrows: Sequence[Arrow]
) -> str:
    names = {frame: f"any{number}" for number, frame in enumerate(frames, 1)}
    lines = ["stateDiagram-v2"]
    placed: set[StrEnum] = set()
    outer = [frame for frame in frames if not any(set(frame) < set(other) for other in frames)]
    for frame in outer:
        lines += _framed(frame, frames, names)
        placed |= set(frame)
    drawn = {state for arrow in arrows for state in (*arrow.start, arrow.target)}
    if table.initial in drawn:
        lines.append(f"[*] --> {table.initial.value}")
    for start, target, labels in arrows:
        name = start[0].value if len(start) == 1 else names[start]
        lines.append(f"{name} --> {target.value}: {'<br/>'.join(labels)}")
    lines += [
        f"{state.value} --> [*]"
        for state in table.states
        if state in table.final and state in drawn
    ]
    return "\n    ".join(lines) + "\n"


def _framed(frame: Frame, frames: Sequence[Frame], names: Mapping[Frame, str]) -> Iterator[str]:
    """The block of one frame, with the frames inside it."""
    inner = [other for other in frames if set(other) < set(frame)]
    yield f'state "any of these" as {names[frame]} {{'
    for other in inner:
        if not any(set(other) < set(between) for between in inner):
            yield from (f"    {line}" for line in _framed(other, frames, names))
    held = {state for other in inner for state in other}
    yield from (f"    {state.value}" for state in frame if state not in held)
    yield "}"
