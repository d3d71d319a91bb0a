"""The products that are explored, and what is told of each."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from fsm_worker.events import On
from protocol.table import MachineName
from tests.exploration.client import CLIENT
from tests.exploration.explorer import Product, Violation, explore, restless
from tests.exploration.guests import GUESTS
from tests.exploration.jobs import FILES, ONE_JOB, TWO_JOBS
from tests.exploration.links import LINKS_PRODUCT
from tests.exploration.server import SERVER
from tests.exploration.shared import SHARED
from tests.exploration.slot import SLOT
from tests.exploration.talks import TALKS

#: The largest first, so that two processes are busy to the end.
PRODUCTS: dict[str, Product] = {
    product.name: product
    for product in (
        CLIENT,
        SLOT,
        LINKS_PRODUCT,
        ONE_JOB,
        SERVER,
        TWO_JOBS,
        SHARED,
        TALKS,
        FILES,
        GUESTS,
    )
}
#: Reachable states, moves and depth of each: `python -m tests.exploration.repin` writes it.
PINS = Path(__file__).with_name("pins.json")


class Survey(NamedTuple):
    """What an exploration has shown."""

    name: str
    states: int = 0
    moves: int = 0
    depth: int = 0
    violation: str = ""
    never: tuple[str, ...] = ()  # situations that were not reached
    restless: tuple[str, ...] = ()
    rows: frozenset[str] = frozenset()
    heard: frozenset[tuple[MachineName, On]] = frozenset()

    @property
    def counts(self) -> dict[str, int]:
        """What is pinned."""
        return {"states": self.states, "moves": self.moves, "depth": self.depth}


def survey(name: str) -> Survey:
    """Explores one product."""
    product = PRODUCTS[name]
    try:
        graph = explore(product)
    except Violation as violation:
        return Survey(name, violation=str(violation))
    return Survey(
        name,
        len(graph.states),
        sum(map(len, graph.edges)),
        graph.depth,
        never=tuple(entry for entry in product.sometimes if entry not in graph.reached),
        restless=tuple(restless(graph))[:3],
        rows=frozenset(graph.rows),
        heard=frozenset(graph.heard),
    )


def surveys() -> Iterator[Survey]:
    """Explores all of them, in two processes."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield from pool.map(survey, PRODUCTS)


def pinned() -> dict[str, dict[str, int]]:
    """The counts that were reviewed."""
    counts: dict[str, dict[str, int]] = json.loads(PINS.read_text())
    return counts
