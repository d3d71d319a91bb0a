"""A TOML file, read within bounds: `tomllib` has none of its own."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 64 * 1024
#: A key of `n` parts takes time and memory that grow with the square of `n`.
_MAX_DOTS: Final = 200
_LARGEST: Final = 2**63  # TOML 1.0.0, "Integer": 64 bits with a sign


class NotToml(ValueError):
    """The file holds no TOML that can be used: mend it where the sentence says."""


def read_toml(path: Path) -> dict[str, object]:
    """Read a file; blocking.

    Args:
        path: of the file.

    Raises:
        NotToml: it is no TOML, or far more than a file of settings holds.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise NotToml(f"it has more than {_MAX_BYTES} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > _MAX_DOTS:
            raise NotToml(f"line {number} has more than {_MAX_DOTS} dots")
    try:
        found = tomllib.loads(data.decode())
    except RecursionError:
        raise NotToml("its tables or lists are nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError, and a number of too many digits, too
        raise NotToml(str(error)[:500]) from None
    _refuse_huge_numbers(found)
    return found


def _refuse_huge_numbers(found: Mapping[str, object]) -> None:
    left: list[object] = [found]
    while left:
        match left.pop():
            case dict() as table:
                left += table.values()
            case list() as values:
                left += values
            case int() as number if not -_LARGEST <= number < _LARGEST:
                raise NotToml("a number in it has more than 64 bits")
            case _:
                pass
