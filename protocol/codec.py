"""Native dialect, version 1: bytes to messages and back.

Decoding is total. Any input gives a frame or a `ProtocolError`; size and depth are bounded before
the JSON is parsed, so a hostile frame costs no more than reading it once.
"""

from functools import reduce
from operator import or_
from typing import Any

import msgspec
from msgspec import Struct

from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import Message
from protocol.table import MESSAGES, Direction

MAX_FRAME = 60 * 1024  # bytes; a control frame never delays a cancel behind it
MAX_DEPTH = 16  # nested arrays and objects


class Frame(Struct, frozen=True, kw_only=True):
    """One control frame.

    Args:
        seq: number of this message in its session and direction, from 1; 0 if unnumbered.
        ack: highest number received from the other side.
        msg: the message.
    """

    seq: int = 0
    ack: int = 0
    msg: Message


def _frame_type(direction: Direction) -> Any:
    kinds = [row.message for row in MESSAGES if direction in row.direction]
    return msgspec.defstruct(
        f"Frame{direction.name}",
        [("msg", reduce(or_, kinds)), ("seq", int, 0), ("ack", int, 0)],
        frozen=True,
        kw_only=True,
    )


_DECODERS: dict[Direction, msgspec.json.Decoder[Any]] = {
    side: msgspec.json.Decoder(_frame_type(side))
    for side in (Direction.TO_WORKER, Direction.TO_CLIENT)
}
_TAGS: dict[Direction, frozenset[str]] = {
    side: frozenset(row.tag for row in MESSAGES if side in row.direction) for side in _DECODERS
}
_ENCODER = msgspec.json.Encoder()


class _TagOnly(Struct, frozen=True):
    type: str | None = None


class _Outline(Struct, frozen=True):
    msg: _TagOnly = _TagOnly()


_OUTLINE = msgspec.json.Decoder(_Outline)


def encode(frame: Frame) -> str:
    """A frame as JSON text.

    Raises:
        ProtocolError: `too_large` if it would not fit into `MAX_FRAME` bytes.
    """
    data = _ENCODER.encode(frame)
    if len(data) > MAX_FRAME:
        kind = type(frame.msg).__name__
        raise ProtocolError(
            ErrorCode.TOO_LARGE,
            f"{kind} takes {len(data)} bytes and a frame holds {MAX_FRAME}: send it in parts",
        )
    return data.decode()


def decode(data: str | bytes, direction: Direction) -> Frame:
    """A frame from what a peer sent.

    Args:
        data: one data-channel message; text, or the same text as UTF-8 bytes.
        direction: whom it was sent to (`TO_WORKER` or `TO_CLIENT`).

    Raises:
        ProtocolError: `too_large`, `too_deep`, `malformed` or `unknown_type`.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > MAX_FRAME:
        raise ProtocolError(
            ErrorCode.TOO_LARGE, f"a frame of {len(raw)} bytes: at most {MAX_FRAME} are taken"
        )
    _check_depth(raw)
    try:
        got = _DECODERS[direction].decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(raw, direction, error) from error
    if got.seq < 0 or got.ack < 0:
        raise ProtocolError(ErrorCode.MALFORMED, "`seq` and `ack` count from 0")
    return Frame(seq=got.seq, ack=got.ack, msg=got.msg)


def _check_depth(raw: bytes) -> None:
    """Counts brackets outside strings; cheaper than parsing, and enough to bound the parser."""
    depth = 0
    in_string = escaped = False
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:  # backslash
                escaped = True
            elif byte == 0x22:  # quotation mark
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ProtocolError(
                    ErrorCode.TOO_DEEP, f"a frame nested deeper than {MAX_DEPTH} is not read"
                )
        elif byte in b"]}":
            depth -= 1


def _refusal(raw: bytes, direction: Direction, error: Exception) -> ProtocolError:
    """Tells an unknown type from bad fields, so that newer peers get a useful answer."""
    try:
        tag = _OUTLINE.decode(raw).msg.type
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return ProtocolError(ErrorCode.MALFORMED, f"not a control frame: {error}")
    if tag is None:
        return ProtocolError(ErrorCode.MALFORMED, "not a control frame: `msg` has no `type`")
    if tag not in _TAGS[direction]:
        return ProtocolError(
            ErrorCode.UNKNOWN_TYPE, f"no message {tag[:64]!r} is taken here in version 1"
        )
    return ProtocolError(ErrorCode.MALFORMED, f"{tag}: {error}")
