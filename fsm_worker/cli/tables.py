"""The tables of `worker.toml`: `[runners.NAME]` and `[declare]`."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.services.declared import DeclarationRefused, Declared, read_declared
from fsm_worker.services.own_runners import RunnerRefused, read_runner
from fsm_worker.services.recipe import Runner

HIDDEN = "(hidden)"
#: The tables that there may be.
TABLES = ("runners", "declare")

Values: TypeAlias = dict[str, object]
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True)
class Tables:
    """What stands in the tables.

    Args:
        runners: the operator's own, by their names.
        declared: what is declared of the machine.
        origin: the file in which they stand.
    """

    runners: Mapping[str, Runner] = field(default_factory=dict)
    declared: Declared = field(default_factory=Declared)
    origin: str = ""

    def objects(self) -> list[dict[str, object]]:
        """Each table with its name, its values and its origin."""
        return [
            {"name": name, "value": values, "origin": self.origin} for name, values in self._shown()
        ]

    def lines(self) -> list[str]:
        """The same as lines of `worker.toml`."""
        lines = []
        for name, values in self._shown():
            lines += ["", f"{f'[{name}]':<50} # {self.origin}"]
            lines += [f"{key} = {as_toml(value)}" for key, value in values.items()]
        return lines

    def _shown(self) -> Iterator[tuple[str, Values]]:
        for name, runner in self.runners.items():
            values: Values = {
                "argv": list(runner.program),
                "args": runner.takes_words,
                "outputs": list(runner.results),
            }
            if runner.variables:
                values["env"] = {
                    key: HIDDEN if _SECRET.search(key) else value for key, value in runner.variables
                }
            yield f"runners.{name}", values
        declared = {name: getattr(self.declared, name) for name in self.declared.names}
        if declared:
            yield "declare", declared


def read_tables(found: Mapping[str, object], path: Path) -> Tables:
    """Reads the tables of a file; blocking.

    Args:
        found: the whole file; settings outside tables are not looked at.
        path: of the file.

    Raises:
        CommandFailed: one of them can't be used.
    """
    for name in TABLES:
        if not isinstance(found.get(name, {}), dict):
            shown = "[runners.NAME]" if name == "runners" else "[declare]"
            raise CommandFailed(ExitCode.USAGE, f"{path}: {name} is a table: write {shown}")
    runners, declare = (dict(_table(found, name)) for name in TABLES)
    folder = path.absolute().parent
    try:
        return Tables(
            {name: read_runner(name, table, folder) for name, table in runners.items()},
            read_declared(declare),
            str(path),
        )
    except (RunnerRefused, DeclarationRefused) as refusal:
        raise CommandFailed(ExitCode.USAGE, f"{path}: {refusal}") from None


def _table(found: Mapping[str, object], name: str) -> Mapping[str, object]:
    table = found.get(name)
    return table if isinstance(table, Mapping) else {}


def as_toml(value: object) -> str:
    """Writes a value as TOML does (TOML 1.0.0).

    Args:
        value: a text, a truth value, a whole number, a list or a map of these by name.
    """
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {as_toml(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, str):
        # JSON escapes as TOML does, but for this one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value).lower()
