"""Every bound of the signaling server in one place, and the buckets that hold the rates."""

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """How much of everything one server takes; times in seconds, sizes in bytes."""

    rooms: int = 1024
    peers_per_room: int = 64
    members_per_room: int = 256  # accounts that may come back without the room's token
    room_metadata: int = 160 * 1024  # of all peers together: a peer list fits into one frame
    peer_metadata: int = 8 * 1024
    peer_id_length: int = 128  # characters
    empty_room_s: float = 2 * 3600.0  # after this long with nobody in it a room is gone
    connections: int = 2048
    register_within_s: float = 15.0  # a connection that says nothing does not stay
    outgoing_messages: int = 128  # waiting for one peer; above that the peer is cut off
    outgoing_length: int = 1024 * 1024  # characters
    close_within_s: float = 2.0  # a peer that was told to go is cut off after this
    request_within_s: float = 10.0  # from the first byte of an HTTP request to its last header
    body: int = 16 * 1024  # of an HTTP request
    body_within_s: float = 10.0
    message_rate: float = 50.0  # a second, of one connection
    message_burst: float = 200.0
    request_rate: float = 5.0  # HTTP requests a second that change something, of one address
    request_burst: float = 60.0
    addresses: int = 1024  # whose request rate is remembered
    ping_every_s: float = 30.0  # `ping` messages; sleap-rtc reconnects after 90 s without one
    socket_ping_s: float = 20.0  # WebSocket pings, and the time that a pong may take
    shutdown_s: float = 1.0  # what is still connected then is cut off


class Bucket:
    """A token bucket: `rate` a second, and `burst` at once after a rest.

    Args:
        rate: how many are allowed a second in the long run.
        burst: how many are allowed at once.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def take(self) -> bool:
        """Whether one more is allowed now; if so it is counted."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class AddressRates:
    """One bucket for each address seen lately; the one unused for longest is forgotten first."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether one more request of this address is allowed now."""
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            if len(self._buckets) >= self._limits.addresses:
                self._buckets.popitem(last=False)
            bucket = Bucket(self._limits.request_rate, self._limits.request_burst, self._clock)
        self._buckets[address] = bucket
        return bucket.take()

    def __len__(self) -> int:
        return len(self._buckets)
