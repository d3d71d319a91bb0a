"""What each message of a peer means: one synchronous step, answered or forwarded at once.

Nothing here waits, so no step sees another half done. What a peer claims to be is compared with
what its connection registered before anything is forwarded. Logs carry the type and the length of
a message, never more of it.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from fsm_worker.signaling.identities import Caller, Identities
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.link import CloseCode, Link
from fsm_worker.signaling.room import Registration
from fsm_worker.signaling.rooms import Rooms
from fsm_worker.signaling.trust import Trust
from protocol.signaling import (
    Answer,
    Candidate,
    DiscoverPeers,
    Error,
    FromPeer,
    IceServer,
    MetadataUpdated,
    Offer,
    PeerList,
    PeerMessage,
    Ping,
    Pong,
    Register,
    RegisteredAuth,
    SignalingCode,
    SignalingRefused,
    UpdateMetadata,
    canonical,
    decode_from_peer,
    encode,
)

logger = logging.getLogger(__name__)


class Hub:
    """All peers of one server.

    Args:
        limits: how much is taken.
        ice_servers: STUN and TURN servers that peers are told of.
        trust: whom the operator lets us believe.
        clock: monotonic seconds.
        wall: seconds since 1970.
        key: under which names and rooms prove themselves, 32 bytes; none makes one for this run.
    """

    def __init__(
        self,
        limits: Limits,
        ice_servers: Sequence[IceServer] = (),
        trust: Trust | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        *,
        key: bytes | None = None,
    ) -> None:
        self.rooms = Rooms(limits, clock, wall, key)
        self.identities = Identities(trust, wall, key)
        self.counted: Counter[str] = Counter()
        self._ice_servers = tuple(ice_servers)
        self._links: dict[Registration, Link] = {}
        self._new: set[Link] = set()  # registered since the last tick

    def received(self, link: Link, data: str | bytes) -> None:
        """Takes one frame of a peer; a refusal is a reply."""
        self.counted["messages"] += 1
        if link.rate.take():
            try:
                text = canonical(data)
                message = decode_from_peer(text)
                logger.debug("< %s, length %d", type(message).__name__, len(data))
                self._take(link, message, text)
            except SignalingRefused as refusal:
                self.refuse(link, refusal)
        else:
            sentence = "too many messages: wait a second and repeat"
            self.refuse(link, SignalingRefused(SignalingCode.RATE_LIMITED, sentence))
        if link.overflowed:
            self._slow(link)

    def refuse(self, link: Link, refusal: SignalingRefused) -> None:
        """Tells a peer why something was not done."""
        self.counted["refused"] += 1
        name = link.registration.peer_id if link.registration else "unregistered peer"
        # Whoever repeats a mistake does not fill the log with it.
        level = logging.DEBUG if refusal.code in link.refused else logging.INFO
        link.refused.add(refusal.code)
        logger.log(level, "x %s to %r", refusal.code, name)
        code = str(refusal.code)
        link.send(Error(reason=code, code=code, message=refusal.sentence))

    def left(self, link: Link) -> None:
        """The connection is gone; removes only what it itself registered."""
        registration = link.registration
        self._new.discard(link)
        if registration is not None and self._links.pop(registration, None) is not None:
            self.rooms.leave(registration)
            logger.info("peer %r left room %s", registration.peer_id, registration.room_id)

    def tick(self) -> None:
        """Every `ping_every_s`: a sign of life for the peers, and old rooms go.

        sleap-rtc's short-lived clients read exactly one frame after each question, so who has
        just come is left alone until the next time.
        """
        ping = encode(Ping())
        for link in tuple(self._links.values()):
            if link not in self._new:
                self._post(link, ping)
        self._new.clear()
        if gone := self.rooms.sweep():
            logger.info("%d empty rooms expired", gone)

    def delete_peer(self, caller: Caller, peer_id: str) -> int:
        """Removes a peer on the word of who registered it; says how many there were."""
        mine = self.rooms.of_caller(caller, peer_id)
        for registration in mine:
            self.rooms.leave(registration)
            self._dismiss(registration, CloseCode.REMOVED, SignalingCode.ROOM_CLOSED)
        return len(mine)

    def delete_room(self, caller: Caller, room_id: str) -> int:
        """Removes a room on the word of who made it; says how many peers were in it.

        Raises:
            SignalingRefused: `room_not_found` or `not_authorised`.
        """
        inside = self.rooms.delete(room_id, caller)
        for registration in inside:
            self._dismiss(registration, CloseCode.REMOVED, SignalingCode.ROOM_CLOSED)
        return len(inside)

    def _take(self, link: Link, message: FromPeer, text: str) -> None:
        match message:
            case Register():
                self._register(link, message)
            case UpdateMetadata():
                me = self._known_as(link, message.peer_id)
                link.send(MetadataUpdated(metadata=self.rooms.merge(me, message.metadata)))
            case DiscoverPeers():
                me = self._known_as(link, message.from_peer_id)
                peers = self.rooms.discover(me, message.filters)
                link.send(PeerList(to_peer_id=me.peer_id, peers=peers, count=len(peers)))
            case Offer() | Answer() | Candidate():
                self._forward(self._known_as(link, message.sender), message.target, text)
            case PeerMessage():
                me = self._known_as(link, message.from_peer_id)
                self._forward(me, message.to_peer_id, text)
            case Error():
                me = self._known_as(link, message.sender or None)
                signed = Error(
                    reason=message.reason,
                    message=message.message,
                    current_status=message.current_status,
                    target=message.target,
                    sender=me.peer_id,
                )
                self._forward(me, message.target, encode(signed))
            case Ping():
                link.send(Pong())
            case Pong():
                pass

    def _known_as(self, link: Link, claimed: str | None) -> Registration:
        """The registration of this connection, if it is who it claims to be."""
        me = link.registration
        if me is None:
            raise SignalingRefused(
                SignalingCode.NOT_REGISTERED, "register in a room before anything else"
            )
        if claimed is not None and claimed != me.peer_id:
            raise SignalingRefused(
                SignalingCode.FORGED_SENDER,
                f"this connection is {me.peer_id!r} and speaks in no other name",
            )
        return me

    def _forward(self, me: Registration, target: str, text: str) -> None:
        self._post(self._links[self.rooms.find(me, target)], text)
        self.counted["forwarded"] += 1

    def _register(self, link: Link, message: Register) -> None:
        me = link.registration
        if me is not None:
            if message.peer_id != me.peer_id or message.room_id not in (None, me.room_id):
                raise SignalingRefused(
                    SignalingCode.ALREADY_REGISTERED,
                    f"this connection is {me.peer_id!r} already: open another one for another name",
                )
            self.rooms.publish(me, message.role, message.metadata)
        else:
            me = self._enter(link, message)
        # There is no mesh here. A worker of sleap-rtc that claims to lead one would take the others
        # of the room for members of it, and ends when the server does not know `mesh_connect`: it
        # is told that it leads, and alone.
        leads = bool(message.is_admin)
        others = () if leads else self.rooms.others(me)
        link.send(
            RegisteredAuth(
                room_id=me.room_id,
                token=self.rooms.token_for(me),
                peer_id=me.peer_id,
                admin_peer_id=me.peer_id if leads else None,
                peer_list=tuple(peer.peer_id for peer in others),
                peer_metadata={peer.peer_id: peer.metadata for peer in others},
                ice_servers=self._ice_servers,
            )
        )

    def _enter(self, link: Link, message: Register) -> Registration:
        caller = self._caller(link, message)
        room_id = message.room_id or ""
        if not room_id and message.api_key and caller is not None:
            room_id = self.rooms.home(caller)
        me, replaced = self.rooms.enter(
            room_id,
            message.peer_id,
            token=message.token,
            caller=caller,
            role=message.role,
            metadata=message.metadata,
        )
        if replaced is not None:
            self._dismiss(replaced, CloseCode.SUPERSEDED, SignalingCode.SUPERSEDED)
        link.registration = me
        self._links[me] = link
        self._new.add(link)
        logger.info("peer %r (%s) registered in room %s", me.peer_id, me.role, me.room_id)
        return me

    def _caller(self, link: Link, message: Register) -> Caller | None:
        """Who registers; `None` for somebody who brings the room's token and proves no name.

        sleap-rtc sends its JWT or API key along with the token. They are of another server's
        accounts, and the token alone opens the room: one that means nothing here is no reason to
        refuse, it only proves no name.
        """
        known = self.identities
        try:
            if message.id_token:
                return known.of_id_token(message.id_token)
            if message.api_key:
                return known.of_api_key(message.api_key)
            if message.jwt:
                return known.of_jwt(message.jwt, direct=link.direct)
        except SignalingRefused:
            if message.id_token or not message.token:
                raise
        if not message.token:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "registering takes the room's token (in the session string), or an id_token, a "
                "jwt or an api_key that opens the room",
            )
        return None

    def _dismiss(self, registration: Registration, code: CloseCode, why: SignalingCode) -> None:
        link = self._links.pop(registration)
        sentence = {
            SignalingCode.SUPERSEDED: "this peer registered again on a newer connection",
            SignalingCode.ROOM_CLOSED: "the user who made this peer or its room removed it",
        }[why]
        link.send(Error(reason=str(why), code=str(why), message=sentence))
        link.end(code, sentence)

    def _post(self, link: Link, text: str) -> None:
        link.post(text)
        if link.overflowed:
            self._slow(link)

    def _slow(self, link: Link) -> None:
        """A peer that does not read leaves its room at once; its socket was cut already."""
        registration = link.registration
        if registration is not None and registration in self._links:
            self.counted["cut_off"] += 1
            logger.warning("peer %r does not read what it is sent: cut off", registration.peer_id)
        self.left(link)
