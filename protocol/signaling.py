"""What a peer and a signaling server say to each other before there is a data channel.

The words are those of sleap-rtc 0.0.7: JSON text frames on a WebSocket, tagged by `type`, and
a few HTTP calls. A peer registers in a room, discovers who else is there, and exchanges an offer
and an answer with one of them; the server forwards those without reading the session description.

Decoding is total. Any input gives a message or a `SignalingRefused`; size and depth are bounded
before the JSON is parsed. Unknown fields are ignored (newer peers live), unknown types are
refused as such.

No message shows its contents in its `repr`: tokens and session descriptions must not reach a log
through a careless format string.
"""

import re
from enum import StrEnum
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct, field

MAX_FRAME = 256 * 1024  # bytes, both directions
MAX_DEPTH = 32  # nested arrays and objects


class SignalingCode(StrEnum):
    """Why a frame or a request was refused. A code is never reused for another meaning."""

    # The message itself
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    UNKNOWN_TYPE = "unknown_type"
    RATE_LIMITED = "rate_limited"

    # Who may
    NOT_AUTHENTICATED = "not_authenticated"  # the id_token is not one of this server
    NOT_AUTHORISED = "not_authorised"  # known, but this is not theirs to do
    WRONG_TOKEN = "wrong_token"  # noqa: S105 - the name of a refusal, not a credential
    NOT_REGISTERED = "not_registered"
    ALREADY_REGISTERED = "already_registered"  # this connection is another peer already
    FORGED_SENDER = "forged_sender"
    PEER_ID_TAKEN = "peer_id_taken"
    SUPERSEDED = "superseded"  # the same identity registered again on a newer connection

    # Rooms
    ROOM_NOT_FOUND = "room_not_found"
    ROOM_CLOSED = "room_closed"
    ROOM_FULL = "room_full"
    TOO_MANY_ROOMS = "too_many_rooms"
    NOT_IN_ROOM = "not_in_room"  # asked about a room that is not the asker's own
    NO_SUCH_PEER = "no_such_peer"


#: Refusals that the same credentials will meet again: a new sign-in or a new session string is
#: needed, waiting does not help.
CREDENTIALS_REFUSED = frozenset(
    {
        SignalingCode.NOT_AUTHENTICATED,
        SignalingCode.NOT_AUTHORISED,
        SignalingCode.WRONG_TOKEN,
        SignalingCode.ROOM_NOT_FOUND,
    }
)


class SignalingRefused(Exception):
    """A frame or a request was refused: answer it, or tell the user, with code and sentence.

    Args:
        code: the closed code that a program reads.
        sentence: what was wrong and what to do next, for a person; never a part of the frame
            other than its type.
    """

    def __init__(self, code: SignalingCode, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


class _Discreet(Struct, frozen=True, kw_only=True):
    """Shows its kind and nothing else."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Message(_Discreet, frozen=True, kw_only=True, tag_field="type"):
    """Base of all frames; the tag is the wire name."""


class Metadata(Struct, frozen=True, kw_only=True):
    """What a peer publishes about itself to its room."""

    tags: tuple[str, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


class Filters(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which peers to list; a filter that is left out lets all pass."""

    role: str | None = None
    room_id: str | None = None  # only the asker's own room is ever listed
    tags: tuple[str, ...] = ()  # one in common suffices
    #: For each name the value, or bounds: `{"$eq": value}`, `{"$gte": number}`, `{"$lte": number}`
    properties: dict[str, Any] = field(default_factory=dict)


class PeerInfo(Struct, frozen=True, kw_only=True):
    """One peer as others of its room see it."""

    peer_id: str
    role: str
    metadata: Metadata
    connected_at: float | str = 0.0  # seconds since 1970 from this server; others may send text


class IceServer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A STUN or TURN server, with the field names of RTCIceServer (W3C WebRTC 1.0, 4.2.4)."""

    urls: str | tuple[str, ...]
    username: str | None = None
    credential: str | None = None

    def __repr__(self) -> str:
        return f"<IceServer {self.urls}>"


# --- Peer to server -------------------------------------------------------------------------


class Register(Message, frozen=True, kw_only=True, tag="register", omit_defaults=True):
    """Enters a room under a name.

    Needs the room's token, or a proof of who comes: an id_token, a JWT or an API key. The server
    decides which rooms open for whom.
    """

    peer_id: str
    #: May be left out when the same connection registers again, and with an API key: the server
    #: then says which room it is.
    room_id: str | None = None
    token: str | None = None  # the room's
    id_token: str | None = None  # the peer's own, from `/anonymous-signin`
    jwt: str | None = None  # RFC 7519; from whoever the server's operator trusts
    api_key: str | None = None  # likewise
    role: str = "peer"
    is_admin: bool | None = None  # every worker of sleap-rtc 0.0.7 claims to lead a mesh
    metadata: Metadata = field(default_factory=Metadata)


class UpdateMetadata(Message, frozen=True, kw_only=True, tag="update_metadata"):
    """Merges into what is published: tags are united, properties replaced one by one."""

    peer_id: str
    metadata: Metadata


class DiscoverPeers(Message, frozen=True, kw_only=True, tag="discover_peers"):
    """Asks who else is in the room."""

    from_peer_id: str
    filters: Filters = field(default_factory=Filters)


# --- Peer to peer, forwarded by the server ----------------------------------------------------


class Offer(Message, frozen=True, kw_only=True, tag="offer", omit_defaults=True):
    """A WebRTC offer; not trickled, so it carries its candidates."""

    sender: str
    target: str
    sdp: str | dict[str, Any]  # text from sleap-rtc and from us; some peers send the object
    link: str = ""  # names this offer; its answer repeats it (not of sleap-rtc, which ignores it)


class Answer(Message, frozen=True, kw_only=True, tag="answer", omit_defaults=True):
    """The answer to an offer."""

    sender: str
    target: str
    sdp: str | dict[str, Any]
    link: str = ""  # of the offer


class Candidate(Message, frozen=True, kw_only=True, tag="candidate", omit_defaults=True):
    """One ICE candidate of a peer that trickles."""

    sender: str = ""
    target: str = ""
    candidate: str | dict[str, Any] | None = None


class PeerMessage(Message, frozen=True, kw_only=True, tag="peer_message"):
    """A message of the application that needs no data channel."""

    from_peer_id: str
    to_peer_id: str
    payload: dict[str, Any]


class Error(Message, frozen=True, kw_only=True, tag="error", omit_defaults=True):
    """A refusal: from the server, or, with a sender, from the peer that an offer went to.

    Args:
        reason: what a program reads; the same as `code` in a refusal of this server.
        code: a member of `SignalingCode`, if this server refused.
        message: the same for a person.
        target: the peer that it is for (peer to peer only).
        sender: the peer that it is from, set by the server; empty if the server itself refused.
        current_status: status of a worker that refuses an offer.
    """

    reason: str = ""
    code: str = ""
    message: str = ""
    target: str = ""
    sender: str = ""
    current_status: str = ""


# --- Server to peer -------------------------------------------------------------------------


class RegisteredAuth(Message, frozen=True, kw_only=True, tag="registered_auth"):
    """The peer is in the room; `token` goes back only to the connection that may have it."""

    room_id: str = ""
    token: str = ""
    peer_id: str = ""
    admin_peer_id: str | None = None  # of sleap-rtc's mesh: the peer itself if it claimed to be
    peer_list: tuple[str, ...] = ()
    peer_metadata: dict[str, Metadata] = field(default_factory=dict)
    ice_servers: tuple[IceServer, ...] = ()
    mesh_ice_servers: tuple[IceServer, ...] = ()


class MetadataUpdated(Message, frozen=True, kw_only=True, tag="metadata_updated"):
    """What is published now, after a merge."""

    metadata: Metadata = field(default_factory=Metadata)


class PeerList(Message, frozen=True, kw_only=True, tag="peer_list"):
    """Who else is in the room; the asker is left out."""

    to_peer_id: str = ""
    peers: tuple[PeerInfo, ...] = ()
    count: int = 0


# --- Both ways ------------------------------------------------------------------------------


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """The server says every 30 s that it is there; a peer may ask for a pong."""


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """Answers a ping; nobody has to."""


FromPeer = (
    Register
    | UpdateMetadata
    | DiscoverPeers
    | Offer
    | Answer
    | Candidate
    | PeerMessage
    | Error
    | Ping
    | Pong
)
FromServer = (
    RegisteredAuth
    | MetadataUpdated
    | PeerList
    | Offer
    | Answer
    | Candidate
    | PeerMessage
    | Error
    | Ping
    | Pong
)


# --- HTTP -----------------------------------------------------------------------------------


class SignIn(_Discreet, frozen=True, kw_only=True):
    """Answer of `POST /anonymous-signin`."""

    id_token: str
    username: str


class Room(_Discreet, frozen=True, kw_only=True):
    """Answer of `POST /create-room`."""

    room_id: str
    token: str


class RoomInfo(Struct, frozen=True, kw_only=True):
    """One room of somebody; its token is not in it."""

    room_id: str
    name: str
    role: str  # "owner" or "member"
    created_by: str
    joined_at: float  # seconds since 1970
    expires_at: float | None  # likewise; None while a peer is in it


class RoomList(Struct, frozen=True, kw_only=True):
    """Answer of `GET /api/auth/rooms`."""

    rooms: tuple[RoomInfo, ...] = ()


_T = TypeVar("_T")

# --- Codec ----------------------------------------------------------------------------------

_FROM_PEER: msgspec.json.Decoder[FromPeer] = msgspec.json.Decoder(FromPeer)
_FROM_SERVER: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


def _tags(*kinds: type[Message]) -> frozenset[str]:
    return frozenset(str(kind.__struct_config__.tag) for kind in kinds)


_PEER_TAGS = _tags(*get_args(FromPeer))
_SERVER_TAGS = _tags(*get_args(FromServer))


class _TagOnly(Struct, frozen=True):
    type: str = ""


_TAG: msgspec.json.Decoder[_TagOnly] = msgspec.json.Decoder(_TagOnly)

# A string, closed or cut off, or one bracket. No alternative can fail after having begun, so the
# scan takes time linear in the frame whatever it holds.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def encode(message: FromPeer | FromServer) -> str:
    """A message as JSON text.

    Raises:
        SignalingRefused: `too_large` if it takes more than `MAX_FRAME` bytes, `malformed` if a
            text in it is no Unicode (a lone surrogate) or a number has no place in JSON.
    """
    kind = type(message).__name__
    try:
        data = _ENCODER.encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise SignalingRefused(
            SignalingCode.MALFORMED, f"{kind} holds a value that JSON cannot carry: {error}"
        ) from error
    if len(data) > MAX_FRAME:
        raise SignalingRefused(
            SignalingCode.TOO_LARGE,
            f"{kind} takes {len(data)} bytes and a signaling frame holds {MAX_FRAME}: "
            "send it over the data channel",
        )
    return data.decode()


def decode_from_peer(data: str | bytes) -> FromPeer:
    """A message from what a peer sent to a server.

    Args:
        data: one WebSocket message; text, or the same text as UTF-8 bytes.

    Raises:
        SignalingRefused: `too_large`, `too_deep`, `malformed` or `unknown_type`.
    """
    return _decode(data, _FROM_PEER, _PEER_TAGS)


def decode_from_server(data: str | bytes) -> FromServer:
    """A message from what a server sent to a peer; otherwise as `decode_from_peer`."""
    return _decode(data, _FROM_SERVER, _SERVER_TAGS)


def canonical(data: str | bytes) -> str:
    """The same JSON value written so that every parser reads it alike.

    JSON leaves open what a repeated key means (RFC 8259, 4). A server that checked one reading
    and forwarded the bytes would let a peer say something else to whoever reads them otherwise.

    Raises:
        SignalingRefused: `too_large`, `too_deep` or `malformed`.
    """
    raw = _bounded(data)
    try:
        return _ENCODER.encode(_ANY.decode(raw)).decode()
    except (ValueError, OverflowError) as error:
        raise SignalingRefused(SignalingCode.MALFORMED, "a frame is one JSON object") from error


def _decode(data: str | bytes, decoder: msgspec.json.Decoder[_T], tags: frozenset[str]) -> _T:
    raw = _bounded(data)
    try:
        return decoder.decode(raw)
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError
        raise _refusal(raw, tags, error) from error


def _bounded(data: str | bytes) -> bytes:
    # Text has at least as many bytes as characters: hold no second copy of what is too large.
    size = len(data)
    if size <= MAX_FRAME:
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        size = len(raw)
    if size > MAX_FRAME:
        raise SignalingRefused(
            SignalingCode.TOO_LARGE,
            f"a frame of at least {size} bytes: at most {MAX_FRAME} are taken",
        )
    _check_depth(raw)
    return raw


def _check_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(raw):
        first = raw[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise SignalingRefused(
                    SignalingCode.TOO_DEEP, f"a frame nested deeper than {MAX_DEPTH} is not read"
                )
        elif first in b"]}":
            depth -= 1


def _refusal(raw: bytes, tags: frozenset[str], error: ValueError) -> SignalingRefused:
    """Tells an unknown type from bad fields, so that newer peers get a useful answer."""
    try:
        tag = _TAG.decode(raw).type
    except ValueError:
        return SignalingRefused(
            SignalingCode.MALFORMED, "a frame is one JSON object with a text field `type`"
        )
    if not tag:
        return SignalingRefused(SignalingCode.MALFORMED, "the frame has no `type`")
    if tag not in tags:
        return SignalingRefused(
            SignalingCode.UNKNOWN_TYPE, f"messages of the type {tag[:64]!r} are not taken here"
        )
    return SignalingRefused(SignalingCode.MALFORMED, f"{tag}: {error}")
