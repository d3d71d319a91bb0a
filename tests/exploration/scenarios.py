"""Tests that are called here and not by pytest: what whole flows and laws say of a mutant.

Only plain functions are called, with the fixtures that their module names; what restates a table
(rows, matrix, drift, pinned counts) is not among them.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from tests.exploration import test_laws
from tests.machines import test_world

MODULES: tuple[ModuleType, ...] = (test_laws, test_world)
Check = Callable[[], None]


def checks() -> Iterator[tuple[str, Check]]:
    """Every scenario, by name; the parametrized ones once for each set of values."""
    for module in MODULES:
        for name, test in sorted(vars(module).items()):
            if name.startswith("test_") and inspect.isfunction(test):
                for number, values in enumerate(_values(test)):
                    label = f"{name}[{number}]" if number else name
                    yield label, _call(module, test, values)


def _values(test: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}]
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names = mark.args[0]
            names = names.replace(" ", "").split(",") if isinstance(names, str) else names
            found = [
                {**before, **dict(zip(names, _tuple(values, len(names)), strict=True))}
                for before in found
                for values in mark.args[1]
            ]
    return found


def _tuple(values: Any, length: int) -> tuple[Any, ...]:
    values = getattr(values, "values", values) if not isinstance(values, tuple) else values
    return (values,) if length == 1 and not isinstance(values, tuple) else tuple(values)


def _call(module: ModuleType, test: Any, values: dict[str, Any]) -> Check:
    def run() -> None:
        logging.disable(logging.CRITICAL)
        made: dict[str, Any] = dict(values)

        def give(name: str) -> Any:
            if name not in made:
                fixture = getattr(module, name)
                plain = getattr(fixture, "_fixture_function", None) or inspect.unwrap(
                    getattr(fixture, "__pytest_wrapped__", fixture).obj
                    if hasattr(fixture, "__pytest_wrapped__")
                    else fixture
                )
                made[name] = plain(**{p: give(p) for p in inspect.signature(plain).parameters})
            return made[name]

        test(**{name: give(name) for name in inspect.signature(test).parameters})

    return run
