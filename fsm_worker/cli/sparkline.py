"""A row of numbers as a small picture of block characters."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws numbers, the newest at the right.

    Args:
        values: oldest first; those that are not finite leave a gap.
        width: characters at most. More values than that share columns, by their mean.

    Returns:
        At most `width` characters; the lowest value is the lowest block. Equal values are all
        drawn low.
    """
    if not values or width < 1:
        return ""
    columns = [_mean(part) for part in _parts(values, min(width, len(values)))]
    finite = [value for value in columns if value is not None]
    if not finite:
        return " " * len(columns)
    low, high = min(finite), max(finite)
    return "".join(_block(value, low, high) for value in columns)


def _parts(values: Sequence[float], count: int) -> list[Sequence[float]]:
    edges = [index * len(values) // count for index in range(count + 1)]
    return [values[edges[index] : edges[index + 1]] for index in range(count)]


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    # Divided first: the sum of two large numbers may not be finite.
    return sum(value / len(finite) for value in finite)


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    span = high / 2 - low / 2  # halves: the difference may not be finite
    share = (value / 2 - low / 2) / span if span > 0 else 0.0
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]
