"""The picture of one machine, as Mermaid text.

Laws:

- A self-loop is not drawn: the grid has it.
- Events that lead from one state to another share one arrow.
- What several states do alike is drawn once where that saves ink: from a frame around them, or
  from a box that lists them where a frame would hide its labels.
- A machine that one picture can't hold gets two: how it goes, which reaches every state, and what
  else can fail or run out of time. What is still too large is cut by the states that arrows start
  from, in the order in which the states are declared.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from fsm_worker.events import Timer, event_name
from fsm_worker.machines.engine import Table

#: Arrows that one picture holds, those of the initial and final marks not counted.
MOST_ARROWS = 16
#: An event whose name ends so says that something failed, was ended, or ran out of time.
TROUBLE = ("closed", "expired", "failed", "leaving", "lost", "refused", "stopped")
#: A frame must save so much ink (an arrow is two, a label one) to be worth its own lines.
_WORTH = 4
#: Labels that fit on an arrow from a frame's edge: Mermaid lets the next state cover longer ones.
_SHORT = 2

#: Mermaid 11's own layout, which later versions have too, with ranks that are close together: so a
#: picture looks the same wherever it is shown.
_GAP = 35  # CSS pixels between neighbours, in both directions
_SPACING = f'"nodeSpacing": {_GAP}, "rankSpacing": {_GAP}'
LAYOUT = f'%%{{init: {{"layout": "dagre", "state": {{{_SPACING}}}}}}}%%'
#: How high a state and a line of a label are drawn, and how high all may be, in CSS pixels. The
#: estimate need not be exact: `make test-pictures` measures what a browser draws.
_STATE, _LINE, _HIGHEST = 42, 24, 800

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
    if _fits(table, whole):
        return (whole,)
    smooth = {move for move in moves if move.event.rpartition("_")[2] not in TROUBLE}
    reached = {move.target for move in smooth}
    first = [move for move in moves if move in smooth or move.target not in reached]
    second = [move for move in moves if move not in first]
    return (
        *_cut(table, "How it goes", first),
        *_cut(table, "What else fails, or runs out of time", second),
    )


def _cut(table: Table[Any, Any], title: str, moves: Sequence[Move]) -> Iterator[Picture]:
    """One picture, or as many as it takes."""
    ready: list[tuple[Frame, Picture]] = []
    some = {move.source for move in moves}
    waiting = [tuple(state for state in _states(table) if state in some)]
    while waiting:
        sources = waiting.pop(0)
        drawn = _picture(table, title, [move for move in moves if move.source in sources])
        if _fits(table, drawn) or len(sources) == 1:
            ready.append((sources, drawn))
            continue
        middle = (len(sources) + 1) // 2
        waiting[:0] = [sources[:middle], sources[middle:]]
    for sources, drawn in ready:
        ends = " to ".join(dict.fromkeys((sources[0].value, sources[-1].value)))
        yield drawn if len(ready) == 1 else drawn._replace(title=f"{title}: {ends}")


def _fits(table: Table[Any, Any], picture: Picture) -> bool:
    """Whether it has few arrows, and no long way from the first state to the last."""
    return len(picture.arrows) <= MOST_ARROWS and _height(table, picture.arrows) <= _HIGHEST


def _height(table: Table[Any, Any], arrows: Sequence[Arrow]) -> int:
    """Of the longest way down; an arrow that closes a circle leads back up."""
    highest: dict[StrEnum, int] = {}
    above: list[StrEnum] = []

    def height(state: StrEnum) -> int:
        if state not in highest:
            above.append(state)
            below = [
                _GAP + _LINE * len(arrow.labels) + height(arrow.target)
                for arrow in arrows
                if state in arrow.start and arrow.target not in above
            ]
            highest[state] = _STATE + max(below, default=0)
            above.pop()
        return highest[state]

    return max(height(state) for state in _states(table))


def _states(table: Table[Any, Any]) -> Frame:
    return tuple(table.states.__members__.values())


def _moves(table: Table[Any, Any]) -> Iterator[Move]:
    seen = set()
    for row in table.rows:
        name = event_name(row.on)
        label = f"timer {row.on.value}" if isinstance(row.on, Timer) else name
        for source in row.sources:
            if row.to is None or row.to is source:
                continue
            move = Move(source, row.to, name, label, bool(row.guards))
            if move not in seen:
                seen.add(move)
                yield move


def _picture(table: Table[Any, Any], title: str, moves: Sequence[Move]) -> Picture:
    states = _states(table)
    frames: tuple[Frame, ...] = ()
    arrows = _arrows(moves, frames, states)
    alike = dict.fromkeys(sources for _, sources in _alike(moves, states))
    while True:
        tried = [
            (_ink(arrows) - _ink(drawn), frame, drawn)
            for frame in alike
            if len(frame) > 1 and all(_apart(frame, other) for other in frames)
            for drawn in [_arrows(moves, (*frames, frame), states)]
            if len(frame) > 2 or _framed(frame, frames, drawn, states)
        ]
        saved, frame, drawn = max(tried, key=lambda choice: choice[0], default=(0, (), ()))
        if saved < _WORTH:
            return Picture(title, arrows, _mermaid(table, frames, arrows))
        frames, arrows = (*frames, frame), drawn


def _alike(
    moves: Sequence[Move], states: Sequence[StrEnum]
) -> list[tuple[tuple[StrEnum, str], Frame]]:
    """By target and label: the states that this event leads from."""
    sources: dict[tuple[StrEnum, str], set[StrEnum]] = {}
    for move in moves:
        sources.setdefault((move.target, move.label), set()).add(move.source)
    return [(key, tuple(sorted(some, key=states.index))) for key, some in sources.items()]


def _apart(one: Frame, other: Frame) -> bool:
    """Two frames can be drawn: they share no state, or one lies inside the other."""
    return one != other and (set(one) & set(other)) in ({*()}, {*one}, {*other})


def _ink(arrows: Sequence[Arrow]) -> int:
    return sum(2 + len(arrow.labels) for arrow in arrows)


def _arrows(
    moves: Sequence[Move], frames: Sequence[Frame], states: Sequence[StrEnum]
) -> tuple[Arrow, ...]:
    """Arrows by their start, then by their target; labels keep the table's order."""
    guarded = {(move.source, move.target, move.label) for move in moves if move.guarded}
    labels: dict[tuple[Frame, StrEnum], list[str]] = {}
    for (target, label), sources in _alike(moves, states):
        left = set(sources)
        starts: list[Frame] = []
        for frame in sorted(frames, key=len, reverse=True):
            if set(frame) <= left:
                left -= set(frame)
                starts.append(frame)
        for start in (*starts, *((state,) for state in sources if state in left)):
            asks = any((state, target, label) in guarded for state in start)
            labels.setdefault((start, target), []).append(f"{label}?" if asks else label)
    drawn = [Arrow(start, target, tuple(texts)) for (start, target), texts in labels.items()]
    return tuple(
        sorted(
            drawn,
            key=lambda arrow: (
                states.index(arrow.start[0]),
                -len(arrow.start),
                states.index(arrow.target),
            ),
        )
    )


def _framed(
    frame: Frame, frames: Sequence[Frame], arrows: Sequence[Arrow], states: Sequence[StrEnum]
) -> bool:
    """Whether a frame is drawn around its states; otherwise a box lists them.

    A frame is for states that lead to each other, and onwards: side by side they would only take
    room, and Mermaid would draw an arrow that leads back across the frame.
    """
    held = set(frame)
    inside = [arrow for arrow in arrows if {*arrow.start, arrow.target} <= held]
    back = any(
        states.index(arrow.target) < states.index(arrow.start[0])
        for arrow in arrows
        if arrow in inside or arrow.start == frame
    )
    return (
        not any(set(other) < held for other in frames)
        and not back
        and {state for arrow in inside for state in (*arrow.start, arrow.target)} == held
        and all(len(arrow.labels) <= _SHORT for arrow in arrows if arrow.start == frame)
    )


def _mermaid(table: Table[Any, Any], frames: Sequence[Frame], arrows: Sequence[Arrow]) -> str:
    names = {frame: f"any{number}" for number, frame in enumerate(frames, 1)}
    lines = [f"{LAYOUT}\nstateDiagram-v2"]
    for frame, name in names.items():
        # from the last one: an arrow from the frame is laid out as one from the state named first
        held = [state.value for state in frame]
        if _framed(frame, frames, arrows, _states(table)):
            lines += [
                f'state "any of these" as {name} {{',
                *(f"    {s}" for s in reversed(held)),
                "}",
            ]
        else:
            lines.append(f'state "any of<br/>{"<br/>".join(held)}" as {name}')
    drawn = {arrow.target for arrow in arrows}
    drawn |= {arrow.start[0] for arrow in arrows if len(arrow.start) == 1}
    if table.initial in drawn:
        lines.append(f"[*] --> {table.initial.value}")
    for start, target, labels in arrows:
        source = start[0].value if len(start) == 1 else names[start]
        lines.append(f"{source} --> {target.value}: {'<br/>'.join(labels)}")
    lines += [
        f"{state.value} --> [*]"
        for state in table.states
        if state in table.final and state in drawn
    ]
    return "\n    ".join(lines) + "\n"
