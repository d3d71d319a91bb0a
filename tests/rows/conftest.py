"""What a test says that it drives must stand in the journal of a worker or a client that it ran."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.row_coverage import fired, journals


@pytest.fixture(autouse=True)
def _drives(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """`@pytest.mark.drives("worker W1 W2", "job J3")`: each row fired in the test itself."""
    yield
    times, _ = fired(journals(tmp_path))
    missing = [
        f"{machine} {row}"
        for mark in request.node.iter_markers("drives")
        for said in mark.args
        for machine, *rows in [said.split()]
        for row in rows
        if not times[machine, row]
    ]
    assert not missing, f"these rows did not fire: {', '.join(missing)}"
