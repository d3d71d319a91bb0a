"""Where a row stands in the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fsm_worker import machines


class Place(NamedTuple):
    """A line of a file of `fsm_worker/machines`."""

    module: str
    line: int

    @property
    def link(self) -> str:
        """From a page in `diagrams/`."""
        return f"../fsm_worker/machines/{self.module}.py#L{self.line}"


class UnknownRow(LookupError):
    """No `Row(...)` in the source has this id: write it as a text, or as an f-string."""


def place_of(row: str) -> Place:
    """Where a row, or a row of the coupling table, is written.

    Args:
        row: its id; of rows that a loop makes, the loop's line is given.

    Raises:
        UnknownRow: it is written nowhere.
    """
    known = _places()
    made = row.rstrip("0123456789")
    place = known.get(row) or known.get(made)
    if place is None:
        raise UnknownRow(row)
    return place


@cache
def _places() -> dict[str, Place]:
    places: dict[str, Place] = {}
    for folder in machines.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            for name, line in _named(ast.parse(path.read_text(encoding="utf-8"))):
                places.setdefault(name, Place(path.stem, line))
    return places


def _named(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The ids of rows with their lines; of an f-string, the text that it begins with."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id not in {"Row", "Coupling"} or not node.args:
            continue
        first = node.args[0]
        if isinstance(first, ast.JoinedStr):
            first = first.values[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value, node.lineno
