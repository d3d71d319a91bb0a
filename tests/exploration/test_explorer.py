"""The explorer finds what is wrong, says how to get there, and takes short cuts that lead home."""

import pytest

from tests.exploration.explorer import Graph, Violation, explore, restless
from tests.exploration.jobs import FILES
from tests.exploration.mutants import Mutant, swapped, unique


def mutant(table: str, name: str) -> Mutant:
    """The mutant of this name."""
    return next(one for one in unique(table) if one.name == f"{table} {name}")


@pytest.fixture(scope="module")
def known() -> Graph:
    """A product, explored with the tables as they are."""
    return explore(FILES)


def test_a_violation_tells_the_shortest_way_with_its_rows() -> None:
    wrong = mutant("receiving", "T3: dropped")
    with swapped(wrong.original, wrong.build()), pytest.raises(Violation) as found:
        explore(FILES)
    told = str(found.value).splitlines()
    assert "timer_idle_expired is not legal here" in told[0]
    assert told[1:] == [
        "  1. alice: FileOffer: receiving T1",
        "  2. receiving s-a/1 timer idle: no row",
    ]


def test_what_nothing_moves_is_found(known: Graph) -> None:
    still = Graph(FILES)
    still.states, still.parents = known.states[:1], known.parents[:1]
    still.edges, still.resting = [[]], [False]
    assert "nothing moves here any more" in next(restless(still))


def test_a_loop_that_no_timer_leaves_is_found(known: Graph) -> None:
    tick = next(edge for edge in known.edges[0] if edge.kind == "time")
    loop = Graph(FILES)
    loop.states, loop.parents, loop.resting = known.states[:1], known.parents[:1], [False]
    loop.edges = [[tick._replace(to=0, renewed=frozenset({tick.name}))]]
    assert "for ever" in next(restless(loop))


def test_the_short_way_finds_what_the_long_way_finds(known: Graph) -> None:
    everything = frozenset().union(*known.sets)
    some = frozenset(pair for pair in everything if pair[0] == "receiving")
    for changed in (frozenset(), some):
        again = explore(FILES, known=known, changed=changed)
        assert set(again.states) == set(known.states)
        assert sorted(map(len, again.edges)) == sorted(map(len, known.edges))


def test_tables_are_as_before_after_a_mutant() -> None:
    one = mutant("receiving", "T3: dropped")
    rows, events = one.original.rows, dict(one.original.by_pair)
    with swapped(one.original, one.build()):
        assert one.original.rows != rows
    assert (one.original.rows, one.original.by_pair) == (rows, events)
