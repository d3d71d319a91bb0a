"""A list of rooms as sleap-rtc 0.0.7 asks for it: filtered and sorted by words in the address."""

from collections.abc import Callable, Mapping, Sequence

from protocol.signaling import RoomInfo, RoomList, SignalingCode, SignalingRefused

_ORDERS: dict[str, Callable[[RoomInfo], str | float]] = {
    "name": lambda room: room.name,
    "role": lambda room: room.role,
    "joined_at": lambda room: room.joined_at,
    # A room with somebody in it does not expire: after all others.
    "expires_at": lambda room: float("inf") if room.expires_at is None else room.expires_at,
}


def chosen(rooms: Sequence[RoomInfo], query: Mapping[str, str]) -> RoomList:
    """Those rooms that a query lets pass, in the order that it asks for.

    Args:
        rooms: all rooms of the caller.
        query: `role` (owner or member), `search` (a part of the name), `sort_by` (name, role,
            joined_at or expires_at) and `sort_order` (asc or desc); other words are ignored.

    Raises:
        SignalingRefused: `malformed` if one of these has another value.
    """
    role, search = query.get("role", ""), query.get("search", "").lower()
    sort_by, sort_order = query.get("sort_by", "joined_at"), query.get("sort_order", "asc")
    if role not in {"", "owner", "member"}:
        raise _refusal("role", "owner or member")
    if sort_by not in _ORDERS:
        raise _refusal("sort_by", ", ".join(_ORDERS))
    if sort_order not in {"asc", "desc"}:
        raise _refusal("sort_order", "asc or desc")
    found = [room for room in rooms if role in {"", room.role} and search in room.name.lower()]
    found.sort(key=_ORDERS[sort_by], reverse=sort_order == "desc")
    return RoomList(rooms=tuple(found))


def _refusal(name: str, values: str) -> SignalingRefused:
    return SignalingRefused(SignalingCode.MALFORMED, f"`{name}` is one of: {values}")
