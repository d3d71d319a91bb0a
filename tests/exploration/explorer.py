"""Every state that a product of machines can reach, breadth first, and what holds in all of them.

A product says how it begins, what can happen in a state, what must always hold, what must be
reached sometimes, and what rest is. A violation is told with the shortest way to it: the moves, and
the rows that they fired.

The graph keeps, for each edge, which (machine, state, event) pairs were looked up. A table that
differs in some pairs is explored again by following the known edges and recomputing only those that
looked such a pair up: that is what makes mutation quick.
"""

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from fsm_worker.effects import StartStage, StartTimer
from fsm_worker.events import On, key_of
from fsm_worker.machines.engine import Verdict
from fsm_worker.machines.world import World
from protocol.table import MachineName
from tests.exploration.stage import Frozen, Stage

Pair = tuple[MachineName, str, On]


class Kind(StrEnum):
    """Who makes a move."""

    TIME = "time"
    PROCESS = "process"
    MANAGER = "manager"
    PEER = "peer"
    OPERATOR = "operator"
    SERVER = "server"


#: Time and processes go on, whatever everybody else does.
UNASKED = (Kind.TIME, Kind.PROCESS)


class Move(NamedTuple):
    """Something that can happen."""

    name: str
    kind: Kind
    act: Callable[[Stage], object]


class Edge(NamedTuple):
    """A move that was made."""

    name: str
    kind: Kind
    to: int
    touched: int  # number of a set of pairs
    rows: tuple[str, ...]
    renewed: frozenset[str]  # moves of time and processes that begin to wait anew


Law = Callable[[Frozen, Stage], Iterable[str]]
Situation = Callable[[Stage], bool]


class Product(NamedTuple):
    """What is explored.

    Laws are told the state before a move and the stage after it, with the move's steps and effects;
    they yield what is wrong. Those `everywhere` are asked of every move, those of `always` too,
    unless no row has fired. `sometimes` are asked of the stage alone.
    """

    name: str
    world: Callable[[], World]
    first: Callable[[], Stage]
    moves: Callable[[Stage], Iterator[Move]]
    everywhere: Sequence[Law]
    always: Sequence[Law]
    sometimes: Mapping[str, Situation]
    at_rest: Callable[[Stage], bool]
    settle: Callable[[Stage], None] = lambda _stage: None  # makes finite, before freezing
    react: Any = None  # what effects do at once


class Violation(AssertionError):
    """A law does not hold; the text has the shortest way there."""


class Graph:
    """What was explored."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.numbers: dict[Frozen, int] = {}
        self.states: list[Frozen] = []
        self.edges: list[list[Edge]] = []
        self.parents: list[tuple[int, str, tuple[str, ...]]] = []
        self.depths: list[int] = []
        self.resting: list[bool] = []
        self.touched: dict[frozenset[Pair], int] = {}
        self.sets: list[frozenset[Pair]] = []
        self.rows: set[str] = set()
        self.reached: set[str] = set()
        self.awaited: list[str] = [*product.sometimes]
        self.heard: set[tuple[MachineName, On]] = set()
        self.verdicts: Counter[Verdict] = Counter()

    @property
    def depth(self) -> int:
        """Moves to the state that is farthest away."""
        return max(self.depths)

    def way(self, state: int, *more: str) -> str:
        """The shortest way to a state, one move a line, with the rows that it fired."""
        lines: list[str] = list(more)
        while self.parents[state][0] >= 0:
            parent, name, rows = self.parents[state]
            lines.append(f"{name}: {' '.join(rows) or 'no row'}")
            state = parent
        return "\n".join(f"  {n}. {line}" for n, line in enumerate(reversed(lines), 1))

    def thaw(self, state: int, world: World) -> Stage:
        """A stage in this state."""
        stage = Stage.thaw(self.states[state], world)
        stage.react = self.product.react
        return stage

    def number(self, pairs: frozenset[Pair]) -> int:
        """The number of a set of pairs."""
        if pairs not in self.touched:
            self.touched[pairs] = len(self.sets)
            self.sets.append(pairs)
        return self.touched[pairs]

    def add(self, frozen: Frozen, stage: Stage, parent: int, edge: tuple[str, Any]) -> int:
        """A state that was not there."""
        number = self.numbers[frozen] = len(self.states)
        self.states.append(frozen)
        self.edges.append([])
        self.parents.append((parent, *edge))
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
        self.resting.append(self.product.at_rest(stage))
        return number


class _TooMany(Exception):
    """More states than were asked for."""


def explore(
    product: Product,
    *,
    most: int = 100_000,
    known: Graph | None = None,
    changed: frozenset[Pair] = frozenset(),
) -> Graph:
    """Explores a product.

    Args:
        product: what is explored.
        most: states; more are a violation of their own, unless a `known` graph is given: then the
            exploration ends there, and what it has found holds.
        known: the same product, explored with tables that differ in `changed` pairs only.
        changed: those pairs.

    Raises:
        Violation: something that must always hold does not.
    """
    collects = gc.isenabled()
    gc.disable()  # nothing here is in a cycle, and a graph is large to look through
    try:
        return _explored(product, most, known, changed)
    finally:
        if collects:
            gc.enable()


def _explored(product: Product, most: int, known: Graph | None, changed: frozenset[Pair]) -> Graph:
    graph = Graph(product)
    world = product.world()
    stage = product.first()
    graph.heard |= {(step.machine, key_of(step.event)) for step in stage.steps}
    graph.rows.update(f"{s.machine} {s.row}" for s in stage.steps if s.verdict is Verdict.ROW)
    product.settle(stage)
    graph.add(stage.freeze(), stage, -1, ("", ()))
    if known is not None:
        graph.touched, graph.sets = dict(known.touched), list(known.sets)
    stale = (
        {number for number, pairs in enumerate(known.sets) if pairs & changed} if known else set()
    )
    todo = deque([0])
    while todo:
        state = todo.popleft()
        there = known.numbers.get(graph.states[state]) if known is not None else None
        if known is not None and there is not None:
            _follow(graph, known, state, there, stale, todo, world)
        else:
            moves = list(product.moves(graph.thaw(state, world)))
            for move in moves:
                _make(graph, state, move, todo, world)
        if len(graph.states) > most:
            if known is not None:
                break
            raise Violation(
                f"{product.name}: more than {most} states; something grows without end\n"
                + graph.way(len(graph.states) - 1)
            )
    return graph


def _follow(
    graph: Graph,
    known: Graph,
    state: int,
    there: int,
    stale: set[int],
    todo: deque[int],
    world: World,
) -> None:
    """Takes over the edges of a known state, and makes those again that may be others now."""
    again = set()
    for edge in known.edges[there]:
        if edge.touched in stale:
            again.add(edge.name)
            continue
        frozen = known.states[edge.to]
        to = graph.numbers.get(frozen)
        if to is None:
            to = graph.numbers[frozen] = len(graph.states)
            graph.states.append(frozen)
            graph.edges.append([])
            graph.parents.append((state, edge.name, edge.rows))
            graph.depths.append(graph.depths[state] + 1)
            graph.resting.append(known.resting[edge.to])
            todo.append(to)
        graph.edges[state].append(edge._replace(to=to))
    if again:
        for move in list(graph.product.moves(graph.thaw(state, world))):
            if move.name in again:
                _make(graph, state, move, todo, world)


def _make(graph: Graph, state: int, move: Move, todo: deque[int], world: World) -> None:
    product, before = graph.product, graph.states[state]
    stage = graph.thaw(state, world)
    move.act(stage)
    rows = tuple(f"{s.machine} {s.row}" for s in stage.steps if s.verdict is Verdict.ROW)
    graph.rows.update(rows)
    wrong = list(stage.objections)
    if not wrong:
        # where no row has fired, only what everybody owes everybody can be wrong
        for law in (*product.everywhere, *(product.always if stage.fired else ())):
            if found := list(law(before, stage)):
                wrong = [f"{law.__name__.replace('_', ' ')}: {word}" for word in found]
                break
    if wrong:
        line = f"{move.name}: {' '.join(rows) or 'no row'}"
        raise Violation(f"{product.name}: {'; '.join(wrong)}\n{graph.way(state, line)}")
    heard = {(step.machine, step.before, key_of(step.event)) for step in stage.steps}
    for step in stage.steps:
        graph.verdicts[step.verdict] += 1
    graph.heard |= {(machine, on) for machine, _, on in heard}
    for name in [name for name in graph.awaited if product.sometimes[name](stage)]:
        graph.awaited.remove(name)
        graph.reached.add(name)
    renewed = frozenset(_renewed(stage)) if move.kind in UNASKED else frozenset()
    to: int | None = state
    if not stage.is_as(before):
        product.settle(stage)
        frozen = stage.freeze()
        to = graph.numbers.get(frozen)
        if to is None:
            to = graph.add(frozen, stage, state, (move.name, rows))
            todo.append(to)
    graph.edges[state].append(
        Edge(move.name, move.kind, to, graph.number(frozenset(heard)), rows, renewed)
    )


def _renewed(stage: Stage) -> Iterator[str]:
    for effect in stage.effects:
        if isinstance(effect, StartTimer):
            yield name_of(effect.machine, effect.subject, effect.timer)
        elif isinstance(effect, StartStage):
            yield exit_of(effect.subject)


# --- liveness -------------------------------------------------------------------------------------


def restless(graph: Graph) -> Iterator[str]:
    """Where time and the ends of processes alone do not bring everything to rest.

    A loop is left if some timer runs in all of its states and is armed by none of its moves (so it
    runs out), or some process lives in all of its states and is started by none (so it ends).
    """
    onward = [[edge for edge in edges if edge.kind in UNASKED] for edges in graph.edges]
    component: dict[int, int] = {}
    for number, members in enumerate(_components([[e.to for e in edges] for edges in onward])):
        for state in members:
            component[state] = number
        inner = [edge for s in members for edge in onward[s] if component.get(edge.to) == number]
        if all(graph.resting[state] for state in members):
            continue
        if not inner:
            if not onward[members[0]]:
                yield f"nothing moves here any more\n{graph.way(members[0])}"
            continue
        pending = set.intersection(*({edge.name for edge in onward[s]} for s in members))
        pending -= {name for edge in inner for name in edge.renewed}
        if not pending:
            names = sorted({edge.name for edge in inner})
            yield f"it may go on like this for ever: {', '.join(names)}\n{graph.way(members[0])}"


def name_of(machine: MachineName, subject: str, timer: Any) -> str:
    """How the move is called that lets a timer run out."""
    return f"{machine} {subject} timer {timer.value}"


def exit_of(job: str) -> str:
    """How the move is called by which a job's process ends well."""
    return f"{job} exits well"


def _components(edges: list[list[int]]) -> Iterator[list[int]]:
    """Strongly connected components (Tarjan), without recursion."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    for root in range(len(edges)):
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, children = work[-1]
            for child in children:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    on_stack.add(child)
                    work.append((child, iter(edges[child])))
                    break
                if child in on_stack:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == node:
                            break
                    yield members
