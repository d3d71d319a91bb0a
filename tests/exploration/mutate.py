"""`make mutate`: changes every table in every small way, and asks who notices.

A mutant is killed by a scenario, by a law, by something that must always hold, or by liveness. The
linter refuses some at import; they are counted apart. Nobody asks the tests that restate a table,
its pictures or the pinned counts. Survivors are written to diagrams/SURVIVORS.md, with the reasons
that survivors.toml gives.

    python -m tests.exploration.mutate [TABLE ...]
"""

import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from fsm_worker.machines.registry import MACHINES
from tests.exploration.explorer import Graph, Pair, Violation, explore, restless
from tests.exploration.mutants import Mutant, TableError, swapped, unique
from tests.exploration.products import (
    CLIENT,
    FILES,
    GUESTS,
    LINKS_PRODUCT,
    ONE_JOB,
    PRODUCTS,
    SERVER,
    SHARED,
    SLOT,
    TALKS,
    TWO_JOBS,
)
from tests.exploration.scenarios import Check, checks

SURVIVORS = Path(__file__).parents[2] / "diagrams" / "SURVIVORS.md"
REASONS = Path(__file__).with_name("survivors.toml")
ENOUGH = 0.95
#: Seconds for one mutant.
_LONGEST = 120
#: States beyond those of the table as it is, after which a mutant is not explored further.
_MORE = 500
#: The products that look at a table closely.
AT_WORK: dict[str, tuple[str, ...]] = {
    "worker": (SLOT.name, ONE_JOB.name, TWO_JOBS.name, SERVER.name),
    "job": (FILES.name, SHARED.name, ONE_JOB.name, TWO_JOBS.name, SLOT.name),
    "results": (SHARED.name, ONE_JOB.name),
    "link": (GUESTS.name, LINKS_PRODUCT.name),
    "client_link": (CLIENT.name,),
    "session": (LINKS_PRODUCT.name,),
    "client_session": (CLIENT.name,),
    "signalling": (SERVER.name,),
    "client_signalling": (CLIENT.name,),
    "receiving": (FILES.name,),
    "sending": (ONE_JOB.name,),
    "guest": (GUESTS.name,),
    "talk": (TALKS.name,),
}


class Fate(NamedTuple):
    """What became of a mutant."""

    mutant: str
    kind: str
    table: str
    by: str  # linter, always, crash, scenario or law, liveness; empty: it lives
    witness: str = ""


class _Known:
    """Graphs of the tables as they are, and the scenarios; made before processes are forked."""

    def __init__(self) -> None:
        self.graphs: dict[str, Graph] = {}
        self.checks: list[tuple[str, Check]] = list(checks())
        self.favourites: dict[str, Counter[str]] = defaultdict(Counter)


_known = _Known()


def _fate(table: str, number: int) -> Fate:
    mutant = unique(table)[number]
    try:
        mutated = mutant.build()
    except TableError as error:
        return Fate(mutant.name, mutant.kind, table, "linter", str(error))
    pairs = mutant.pairs()  # of the table as it is
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_LONGEST)
    try:
        with swapped(mutant.original, mutated):
            by, witness = _witness(_known, mutant, pairs)
    except _TooLong:
        by, witness = "crash", f"no answer in {_LONGEST} s: it never comes to rest"
    finally:
        signal.alarm(0)
    return Fate(mutant.name, mutant.kind, table, by, witness)


class _TooLong(BaseException):
    """A mutant that never ends is noticed."""


def _too_long(_signal: int, _frame: object) -> None:
    raise _TooLong


def _witness(known: _Known, mutant: Mutant, pairs: frozenset[Pair]) -> tuple[str, str]:
    explored: list[Graph] = []
    for name in AT_WORK[mutant.table]:
        graph = known.graphs[name]
        most = len(graph.states) + _MORE
        try:
            explored.append(explore(PRODUCTS[name], most=most, known=graph, changed=pairs))
        except Violation as violation:
            return "always", f"{name}: {str(violation).splitlines()[0]}"
        except Exception as error:  # a mutant may leave the world in any shape
            return "crash", f"{name}: {type(error).__name__} {error}"
    favourites = known.favourites[mutant.table]
    for name, check in sorted(known.checks, key=lambda entry: -favourites[entry[0]]):
        try:
            check()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | _TooLong):
                raise
            favourites[name] += 1
            return "scenario or law", f"{name}: {type(error).__name__}"
    for graph in explored:
        if len(graph.states) <= len(known.graphs[graph.product.name].states) + _MORE:
            for complaint in restless(graph):
                return "liveness", f"{graph.product.name}: {complaint.splitlines()[0]}"
    return "", ""


def fates(tables: list[str]) -> list[Fate]:
    """What becomes of every mutant of these tables, in two processes."""
    for name in dict.fromkeys(name for table in tables for name in AT_WORK[table]):
        _known.graphs[name] = explore(PRODUCTS[name])
    control = Mutant(tables[0], "control", "nothing changed", MACHINES[tables[0]].rows)
    if (found := _witness(_known, control, frozenset()))[0]:
        raise RuntimeError(f"tables as they are do not live: {found}")
    jobs = [(table, number) for table in tables for number in range(len(unique(table)))]
    with get_context("fork").Pool(2) as pool:
        return pool.starmap(_fate, jobs, chunksize=4)


def page(found: list[Fate], reasons: dict[str, str]) -> str:
    """The page of survivors."""
    lines = [
        "_Generated by `make mutate`; do not edit._", "",
        "# Mutants that live", "",
        "`make mutate` drops each row, negates each guard, redirects each target and drops each "
        "effect of every table, and asks scenarios, laws and explorations. What restates a table "
        "is not asked. The linter refuses some mutants at import; they are no part of the share "
        "that is killed. A crash is an exploration that raises or never ends. Tables as they are "
        "must live: that is asked first.", "",
        "| table | mutants | refused by the linter | always | crash | scenario or law | liveness "
        "| live | killed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for table in dict.fromkeys(fate.table for fate in found):
        lines.append(_line(f"{table}", [fate for fate in found if fate.table == table]))
    lines += [_line("**all**", found), "", "## Survivors", ""]
    for fate in found:
        if not fate.by:
            lines.append(f"- {fate.mutant}: {reasons.get(fate.mutant, '**no reason is given**')}")
    return "\n".join(lines) + "\n"


def _line(name: str, some: list[Fate]) -> str:
    by = Counter(fate.by for fate in some)
    counts = [len(some), by["linter"], by["always"], by["crash"], by["scenario or law"],
              by["liveness"], by[""]]  # fmt: skip
    return f"| {name} | {' | '.join(map(str, counts))} | {_killed(some):.1%} |"


def _killed(some: list[Fate]) -> float:
    ran = [fate for fate in some if fate.by != "linter"]
    return sum(bool(fate.by) for fate in ran) / len(ran) if ran else 1.0


def _unexplained(found: list[Fate], reasons: dict[str, str]) -> Iterator[str]:
    """What the reasons do not say of these mutants, or say of others."""
    alive = {fate.mutant for fate in found if not fate.by}
    asked = {fate.table for fate in found}
    for mutant in sorted(alive - set(reasons)):
        yield f"{mutant} lives: kill it by a law, or say in {REASONS.name} why it may"
    for mutant in sorted(one for one in set(reasons) - alive if one.split()[0] in asked):
        yield f"{mutant} does not live: take it out of {REASONS.name}"


def main() -> int:
    """Mutates, and says how many were killed; 1 if those are too few, or one lives unexplained."""
    began = time.monotonic()
    chosen = sys.argv[1:]
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text())
    found = fates(chosen or list(MACHINES))
    if chosen:
        print(page(found, reasons))
    else:
        SURVIVORS.write_text(page(found, reasons))
    unexplained = list(_unexplained(found, reasons))
    print(*unexplained, sep="\n", end="\n" if unexplained else "")
    share = _killed(found)
    took = time.monotonic() - began
    print(f"{len(found)} mutants, {share:.1%} of those that were not refused killed, {took:.0f} s")
    return 0 if share >= ENOUGH and not unexplained else 1


if __name__ == "__main__":
    raise SystemExit(main())
