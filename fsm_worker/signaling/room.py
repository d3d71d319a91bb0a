"""One room: who is in it, who may come in, and whose it is."""

import hmac

from fsm_worker.signaling.identities import Caller, Standing
from protocol.signaling import Metadata, PeerInfo, RoomInfo


class Registration:
    """One peer in one room, as one connection registered it; equal only to itself.

    Attributes:
        room_id: the room.
        peer_id: its name there.
        caller: who proved to be it, or `None` for one that only brought the room's token.
        role: what it says that it is: "worker", "client", …
        metadata: what it publishes.
        size: bytes of that as JSON.
        connected_at: seconds since 1970.
    """

    __slots__ = ("caller", "connected_at", "metadata", "peer_id", "role", "room_id", "size")

    def __init__(self, room_id: str, peer_id: str, caller: Caller | None, at: float) -> None:
        self.room_id = room_id
        self.peer_id = peer_id
        self.caller = caller
        self.connected_at = at
        self.role = ""
        self.metadata = Metadata()
        self.size = 0

    def info(self) -> PeerInfo:
        """What other peers of the room may know of it; never how it proved who it is."""
        return PeerInfo(
            peer_id=self.peer_id,
            role=self.role,
            metadata=self.metadata,
            connected_at=self.connected_at,
        )


class HeldRoom:
    """A room as the server holds it.

    Attributes:
        room_id: its name.
        owner: who made it.
        token: opens it for anybody.
        peers: who is in it, by peer id.
        empty_since: monotonic seconds.

    Args:
        room_id: its name.
        owner: who made it.
        token: opens it for anybody.
        now: monotonic seconds.
        wall: seconds since 1970.
    """

    __slots__ = ("_made_at", "_members", "empty_since", "owner", "peers", "room_id", "token")

    def __init__(self, room_id: str, owner: Caller, token: str, now: float, wall: float) -> None:
        self.room_id = room_id
        self.owner = owner
        self.token = token
        self.peers: dict[str, Registration] = {}
        self.empty_since = now
        self._made_at = wall
        self._members: dict[Caller, float] = {}  # when each came in first, in seconds since 1970

    def opens_for(self, token: str | None, caller: Caller | None) -> bool:
        """Whether somebody may come in.

        Its token opens a room for anybody, and a wrong one for nobody. Without a token it opens
        for who made it, and for an account that was in it before. A room that an anonymous user
        made belongs to no account, and its worker can't invite one by name: there every account
        that the operator trusts may come in. Where the operator takes unchecked JWTs, nobody on
        this machine is told apart, and every room opens.
        """
        if token:
            given = token.encode("utf-8", "surrogatepass")
            return hmac.compare_digest(given, self.token.encode())
        if caller is None:
            return False
        if caller == self.owner or caller.standing is Standing.UNCHECKED:
            return True
        ownerless = self.owner.standing is Standing.ANONYMOUS
        return caller.standing is Standing.ACCOUNT and (ownerless or caller in self._members)

    def remember(self, caller: Caller, at: float, most: int) -> None:
        """Notes that an account was let in; who has not come for longest is forgotten.

        Args:
            caller: an anonymous one is not noted, its name ends with its connection.
            at: seconds since 1970.
            most: how many are remembered.
        """
        if caller.standing is Standing.ANONYMOUS or caller == self.owner:
            return
        self._members[caller] = self._members.pop(caller, at)
        if len(self._members) > most:
            del self._members[next(iter(self._members))]

    def listed_for(self, caller: Caller, expires_at: float | None) -> RoomInfo | None:
        """How the room stands in a caller's list of rooms; `None` if it is not the caller's.

        Args:
            caller: who asks.
            expires_at: seconds since 1970, `None` while somebody is in it.
        """
        joined_at = self._made_at if caller == self.owner else self._members.get(caller)
        if joined_at is None:
            return None
        return RoomInfo(
            room_id=self.room_id,
            name=self.room_id,
            role="owner" if caller == self.owner else "member",
            created_by=self.owner.name,
            joined_at=joined_at,
            expires_at=expires_at,
        )
