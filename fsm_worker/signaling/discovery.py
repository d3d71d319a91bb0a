"""Which peers a `discover_peers` filter lets pass, in the words of sleap-rtc."""

import operator
from collections.abc import Callable

from protocol.signaling import Filters, PeerInfo, SignalingCode, SignalingRefused

_BOUNDS: dict[str, Callable[[float, float], bool]] = {"$gte": operator.ge, "$lte": operator.le}
_OPERATORS = frozenset({"$eq", *_BOUNDS})


def check_filters(filters: Filters) -> None:
    """Refuses a filter that asks for a comparison that does not exist.

    Raises:
        SignalingRefused: `malformed`.
    """
    for wanted in filters.properties.values():
        unknown = set(wanted) - _OPERATORS if isinstance(wanted, dict) else None
        if unknown:
            raise SignalingRefused(
                SignalingCode.MALFORMED,
                f"a filter compares with $eq, $gte or $lte, not {min(unknown)[:16]!r}",
            )


def passes(info: PeerInfo, filters: Filters) -> bool:
    """Whether a peer has the role, one of the tags and all of the properties asked for."""
    if filters.role and info.role != filters.role:
        return False
    if filters.tags and not set(filters.tags) & set(info.metadata.tags):
        return False
    has = info.metadata.properties
    return all(
        name in has and _satisfies(has[name], wanted) for name, wanted in filters.properties.items()
    )


def _satisfies(value: object, wanted: object) -> bool:
    if not isinstance(wanted, dict):
        return value == wanted
    return all(_compares(value, name, bound) for name, bound in wanted.items())


def _compares(value: object, name: str, bound: object) -> bool:
    if name == "$eq":
        return value == bound
    if not isinstance(value, int | float) or not isinstance(bound, int | float):
        return False
    return _BOUNDS[name](value, bound)
