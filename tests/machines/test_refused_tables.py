"""A row that is taken away or leads elsewhere is named by whatever fails: the linter, at import, or
the pages that show the table.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsm_worker import diagrams
from fsm_worker.diagrams.machine import _rows
from fsm_worker.machines.engine import Row, TableError
from fsm_worker.machines.registry import MACHINES
from tests.exploration.mutants import Mutant, swapped

EACH = pytest.mark.parametrize("name", MACHINES)
#: The only way out of the initial state, and the only one to a final state, whose number no other
#: row's number shows to be missing.
NAMELESS = {"client_session K0 is gone", "client_signalling S20 is gone"}


def changes(name: str) -> Iterator[Mutant]:
    """Every row taken away, and every row led to every other state."""
    table = MACHINES[name]
    for place, row in enumerate(table.rows):

        def changed(what: str, *instead: Row, at: int = place) -> Mutant:
            rows = (*table.rows[:at], *instead, *table.rows[at + 1 :])
            return Mutant(name, "row", f"{name} {table.rows[at].id} {what}", rows)

        yield changed("is gone")
        if row.to is not None:
            for state in table.states:
                if state is not row.to:
                    yield changed(f"leads to {state.value}", row._replace(to=state))


@EACH
def test_a_change_of_a_row_is_refused_by_its_name_or_shown_by_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, shown = _rows(MACHINES[name]), set[str]()
    for change in changes(name):
        row = change.name.split()[1]
        try:
            mutated = change.build()
        except TableError as error:
            named = re.search(rf"\b{row}\b", str(error)) is not None
            assert named is not (change.name in NAMELESS), f"{change.name}: {error}"
            continue
        if row not in shown:  # one change of each row is drawn: it takes a while
            shown.add(row)
            with swapped(change.original, mutated):
                diagrams._show(Path(name), before, _rows(mutated))
            assert f"rows {row} differ" in capsys.readouterr().out, change.name
