"""Who is in which room. Pure: no I/O, no event loop, and the clocks are given.

Laws:

- A peer id is held by one registration at a time. Another one replaces it only if both proved to
  be the same caller; a registration of nobody in particular cannot be replaced at all.
- What a registration may do ends when it is replaced: from then on each call with it is refused,
  and leaving with it removes nothing. So a socket that closes late never takes its successor with
  it.
- Peers see only peers of their own room.
- A room that was empty for `empty_room_s` does not exist any more, whether or not it was swept.
- A room outlives a restart of its server: its token proves itself under the server's key, and
  opens the room again for as long as an empty one is kept. A room that was removed stays removed
  until then.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

import msgspec

from fsm_worker.signaling.discovery import check_filters, passes
from fsm_worker.signaling.identities import Caller, Standing
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.room import HeldRoom, Registration
from protocol.signaling import (
    Filters,
    Metadata,
    PeerInfo,
    Room,
    RoomInfo,
    SignalingCode,
    SignalingRefused,
)

#: Who made a room before a restart: nobody in particular, or some account.
_FORGOTTEN = (Caller(""), Caller("", Standing.ACCOUNT))


class Rooms:
    """The registry of one server.

    Args:
        limits: how much it takes.
        clock: monotonic seconds, for expiry.
        wall: seconds since 1970, for what is shown to people and peers.
        key: of the server, 32 bytes; none makes one that ends with us.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        self._key = key or secrets.token_bytes(32)
        self._began = clock()
        self._removed: set[str] = set()
        self._limits = limits or Limits()
        self._clock = clock
        self._wall = wall
        self._rooms: dict[str, HeldRoom] = {}

    @property
    def room_count(self) -> int:
        """How many rooms there are, those not swept yet included."""
        return len(self._rooms)

    @property
    def peer_count(self) -> int:
        """How many peers are in all rooms together."""
        return sum(len(room.peers) for room in self._rooms.values())

    def create(self, owner: Caller) -> Room:
        """A new empty room.

        Raises:
            SignalingRefused: `too_many_rooms`.
        """
        self.sweep()
        if len(self._rooms) >= self._limits.rooms:
            raise SignalingRefused(
                SignalingCode.TOO_MANY_ROOMS,
                f"this server holds {self._limits.rooms} rooms already: try again later",
            )
        room_id = secrets.token_hex(8)
        token = self._token(room_id, owner)
        self._rooms[room_id] = HeldRoom(room_id, owner, token, self._clock(), self._wall())
        return Room(room_id=room_id, token=token)

    def home(self, owner: Caller) -> str:
        """The room of somebody who names none: the first one made and still there, or a new one.

        sleap-rtc's workers register with an API key alone and are told their room.

        Raises:
            SignalingRefused: `too_many_rooms`.
        """
        now = self._clock()
        for room in self._rooms.values():
            if room.owner == owner and not self._expired(room, now):
                return room.room_id
        return self.create(owner).room_id

    def listed(self, caller: Caller) -> tuple[RoomInfo, ...]:
        """The rooms that a caller made, and those that its account was let into."""
        now, wall = self._clock(), self._wall()
        listed = (
            room.listed_for(
                caller,
                None if room.peers else wall + self._limits.empty_room_s - (now - room.empty_since),
            )
            for room in self._rooms.values()
            if not self._expired(room, now)
        )
        return tuple(info for info in listed if info is not None)

    def sweep(self) -> int:
        """Forgets rooms that were empty for long enough; says how many."""
        now = self._clock()
        gone = [name for name, room in self._rooms.items() if self._expired(room, now)]
        for name in gone:
            del self._rooms[name]
        return len(gone)

    def enter(
        self,
        room_id: str,
        peer_id: str,
        *,
        token: str | None = None,
        caller: Caller | None = None,
        role: str = "peer",
        metadata: Metadata | None = None,
    ) -> tuple[Registration, Registration | None]:
        """Registers a peer; all or nothing.

        Args:
            room_id: the room.
            peer_id: the name to be known by in the room.
            token: the room's token; `HeldRoom.opens_for` says who may leave it out.
            caller: who proved to be it, or `None`.
            role: what it says that it is.
            metadata: what it publishes.

        Returns:
            The registration, and the one of the same caller that it replaced, if any.

        Raises:
            SignalingRefused: `malformed` (the peer id), `room_not_found`, `wrong_token`,
                `peer_id_taken`, `room_full` or `too_large`.
        """
        self._check_name(peer_id)
        room = self._room(room_id, token)
        if not room.opens_for(token, caller):
            raise SignalingRefused(
                SignalingCode.WRONG_TOKEN,
                "the token does not open this room: ask its owner for a new session string"
                if token
                else "this room does not open without its token: ask its owner for it",
            )
        holder = room.peers.get(peer_id)
        if holder is not None and (caller is None or holder.caller != caller):
            raise SignalingRefused(
                SignalingCode.PEER_ID_TAKEN,
                f"another peer is {peer_id!r} in this room: take another name, or wait a minute "
                "if it was yours and its connection broke",
            )
        if holder is None and len(room.peers) >= self._limits.peers_per_room:
            raise SignalingRefused(
                SignalingCode.ROOM_FULL,
                f"the room holds {self._limits.peers_per_room} peers already: try again later",
            )
        registration = Registration(room_id, peer_id, caller, self._wall())
        self._publish(room, registration, role, metadata or Metadata())
        room.peers[peer_id] = registration
        if caller is not None:
            room.remember(caller, registration.connected_at, self._limits.members_per_room)
        return registration, holder

    def leave(self, registration: Registration) -> bool:
        """Takes a peer out of its room; says whether it was still in there."""
        room = self._rooms.get(registration.room_id)
        if room is None or room.peers.get(registration.peer_id) is not registration:
            return False
        del room.peers[registration.peer_id]
        room.empty_since = self._clock()
        return True

    def publish(self, registration: Registration, role: str, metadata: Metadata) -> None:
        """Replaces what a peer says of itself.

        Raises:
            SignalingRefused: `superseded` or `too_large`.
        """
        self._publish(self._current(registration), registration, role, metadata)

    def merge(self, registration: Registration, metadata: Metadata) -> Metadata:
        """Unites tags, puts new properties over old ones, and returns what is published now.

        Raises:
            SignalingRefused: `superseded` or `too_large`.
        """
        before = registration.metadata
        merged = Metadata(
            tags=tuple(dict.fromkeys(before.tags + metadata.tags)),
            properties={**before.properties, **metadata.properties},
        )
        self._publish(self._current(registration), registration, registration.role, merged)
        return merged

    def others(self, registration: Registration) -> tuple[PeerInfo, ...]:
        """All peers of the room but this one, in the order in which they came.

        Raises:
            SignalingRefused: `superseded`.
        """
        room = self._current(registration)
        return tuple(peer.info() for peer in room.peers.values() if peer is not registration)

    def discover(self, registration: Registration, filters: Filters) -> tuple[PeerInfo, ...]:
        """Those of the others that a filter lets pass.

        Raises:
            SignalingRefused: `superseded`, `not_in_room` or `malformed` (an unknown operator).
        """
        if filters.room_id and filters.room_id != registration.room_id:
            raise SignalingRefused(
                SignalingCode.NOT_IN_ROOM, "only peers of your own room are listed: register there"
            )
        check_filters(filters)
        return tuple(info for info in self.others(registration) if passes(info, filters))

    def find(self, registration: Registration, target: str) -> Registration:
        """Another peer of the same room, by name.

        Raises:
            SignalingRefused: `superseded` or `no_such_peer`.
        """
        found = self._current(registration).peers.get(target)
        if found is None:
            raise SignalingRefused(
                SignalingCode.NO_SUCH_PEER,
                f"nobody in this room is {target[:128]!r}: it may have left, discover peers again",
            )
        return found

    def is_current(self, registration: Registration) -> bool:
        """Whether this registration still holds its peer id."""
        room = self._rooms.get(registration.room_id)
        return room is not None and room.peers.get(registration.peer_id) is registration

    def token_for(self, registration: Registration) -> str:
        """The token of a room, for a peer that is in it."""
        return self._current(registration).token

    def of_caller(self, caller: Caller, peer_id: str) -> tuple[Registration, ...]:
        """The registrations under this peer id that this caller made, in any room."""
        held = (room.peers.get(peer_id) for room in self._rooms.values())
        return tuple(peer for peer in held if peer is not None and peer.caller == caller)

    def delete(self, room_id: str, caller: Caller) -> tuple[Registration, ...]:
        """Removes a room; returns who was in it.

        Raises:
            SignalingRefused: `room_not_found`, or `not_authorised` if another user made it.
        """
        room = self._room(room_id)
        if room.owner != caller:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHORISED, "only the user who made a room removes it"
            )
        del self._rooms[room_id]
        if self._clock() - self._began < self._limits.empty_room_s:  # later nothing comes back
            self._removed.add(room_id)
        return tuple(room.peers.values())

    def _token(self, room_id: str, owner: Caller) -> str:
        """What opens a room: a MAC of its name, and of who may come in without it."""
        named = f"room {owner.standing is Standing.ANONYMOUS} {room_id}".encode()
        proof = hmac.new(self._key, named, hashlib.sha256).digest()[:24]
        return base64.urlsafe_b64encode(proof).decode()

    def _again(self, room_id: str, token: str | None) -> HeldRoom | None:
        """A room of an earlier run of this server, of which nothing but its token is known."""
        now = self._clock()
        if now - self._began >= self._limits.empty_room_s:
            self._removed.clear()
            return None
        self.sweep()
        if not token or room_id in self._removed or len(self._rooms) >= self._limits.rooms:
            return None
        for owner in _FORGOTTEN:
            expected = self._token(room_id, owner)
            if hmac.compare_digest(token.encode("utf-8", "surrogatepass"), expected.encode()):
                room = HeldRoom(room_id, owner, expected, now, self._wall())
                return self._rooms.setdefault(room_id, room)
        return None

    def _room(self, room_id: str, token: str | None = None) -> HeldRoom:
        room = self._rooms.get(room_id) or self._again(room_id, token)
        if room is None or self._expired(room, self._clock()):
            raise SignalingRefused(
                SignalingCode.ROOM_NOT_FOUND,
                "there is no such room (an empty one is kept for "
                f"{self._limits.empty_room_s / 3600:g} h): ask its owner for a new session string",
            )
        return room

    def _expired(self, room: HeldRoom, now: float) -> bool:
        return not room.peers and now - room.empty_since >= self._limits.empty_room_s

    def _current(self, registration: Registration) -> HeldRoom:
        if not self.is_current(registration):
            raise SignalingRefused(
                SignalingCode.SUPERSEDED,
                "this connection no longer holds its peer id: register on a new one",
            )
        return self._rooms[registration.room_id]

    def _publish(
        self, room: HeldRoom, registration: Registration, role: str, metadata: Metadata
    ) -> None:
        if len(role) > 32:
            raise SignalingRefused(SignalingCode.TOO_LARGE, "a role has at most 32 characters")
        size = len(msgspec.json.encode(metadata))
        rest = sum(peer.size for name, peer in room.peers.items() if name != registration.peer_id)
        if size > self._limits.peer_metadata or rest + size > self._limits.room_metadata:
            raise SignalingRefused(
                SignalingCode.TOO_LARGE,
                f"metadata of {size} bytes: a peer may publish {self._limits.peer_metadata}, "
                f"all of a room together {self._limits.room_metadata}",
            )
        registration.role = role
        registration.metadata = metadata
        registration.size = size

    def _check_name(self, peer_id: str) -> None:
        if not peer_id or len(peer_id) > self._limits.peer_id_length or not peer_id.isprintable():
            raise SignalingRefused(
                SignalingCode.MALFORMED,
                f"a peer id has 1 to {self._limits.peer_id_length} printable characters",
            )
