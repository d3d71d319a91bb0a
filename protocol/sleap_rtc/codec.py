"""Text and bytes of the dialect to frames and back, seen from either side.

`decode` and `encode` are a worker's; `decode_from_worker` and `encode_from_client` a client's.
"""

from typing import Any, Final

from protocol.bulk import MAX_CHUNK
from protocol.errors import ErrorCode, ProtocolError
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.log_text import as_log_text, without_markers
from protocol.sleap_rtc.table import ROW_OF, ROWS, Row, row_of_text
from protocol.table import Direction

#: Most bytes of a text frame, in UTF-8.
MAX_TEXT: Final = 64 * 1024

_KEEP_ALIVE: Final = b"KEEP_ALIVE"
#: sleap-rtc's client looks for this in the bytes of a file too, and decodes those that have it.
_MARKER: Final = b"PROGRESS_REPORT::"
_MIDDLE: Final = len(b"PROGRESS")
_W, _C = Direction.TO_WORKER, Direction.TO_CLIENT
_NOT_PERFORMED: Final = {row.tag: row for row in ROWS if row.frame is f.NotPerformed}


def decode(data: str | bytes) -> f.Frame:
    """A frame from what a client sent to a worker.

    Args:
        data: one data-channel message.

    Raises:
        ProtocolError: `too_large`, `too_deep`, `malformed`, `unknown_type`, or `path_error` where
            a name or a path would lead out of its folder.
    """
    return _decode(data, _W)


def decode_from_worker(data: str | bytes) -> f.Frame:
    """A frame from what a worker sent to a client; text without a known tag is output.

    Args:
        data: one data-channel message.

    Raises:
        ProtocolError: as `decode`, but never `unknown_type`.
    """
    return _decode(data, _C)


def encode(frame: f.Frame) -> str | bytes:
    """A frame as a worker says it to a client.

    No text in it makes a client see another frame: see `protocol.sleap_rtc.log_text`.

    Raises:
        ProtocolError: `malformed` if it is not a worker's to say or would not be read as it is
            meant, `too_large`, or `path_error`.
    """
    return _encode(frame, _C)


def encode_from_client(frame: f.Frame) -> str | bytes:
    """A frame as a client says it to a worker; otherwise as `encode`."""
    return _encode(frame, _W)


def refusal(frame: f.NotPerformed, sentence: str) -> f.Frame:
    """The answer by which a client learns that its flow is not performed here.

    Args:
        frame: what a client sent, from `decode`.
        sentence: why not and what to do instead; clients cut it at two colons.

    Raises:
        ProtocolError: `unknown_type` if it is not a frame of a client's.
    """
    row = _NOT_PERFORMED.get(frame.tag)
    if row is None or row.refusal is None:
        raise ProtocolError(
            ErrorCode.UNKNOWN_TYPE, f"{frame.tag[:64]!a} is nothing that a client asks for"
        )
    return row.refusal(frame.body or "", sentence)


def chunks(payload: bytes) -> tuple[f.Chunk, ...]:
    """The bytes of a file, cut so that either side takes all of them for bytes of the file.

    Almost always that is one chunk. sleap-rtc reads two things out of a file's bytes: a chunk that
    is the keep-alive, which it drops, and one that holds a progress report, on which its client
    fails.

    Args:
        payload: 1 to `protocol.bulk.MAX_CHUNK` bytes.
    """
    if payload == _KEEP_ALIVE:
        return f.Chunk(payload=payload[:4]), f.Chunk(payload=payload[4:])
    pieces: list[f.Chunk] = []
    start = 0
    while (found := payload.find(_MARKER, start)) >= 0:
        pieces.append(f.Chunk(payload=payload[start : found + _MIDDLE]))
        start = found + _MIDDLE
    return *pieces, f.Chunk(payload=payload[start:])


# --- Reading --------------------------------------------------------------------------------


def _decode(data: str | bytes, direction: Direction) -> f.Frame:
    if isinstance(data, bytes):
        return f.KeepAlive() if data == _KEEP_ALIVE else _chunk(data)
    _check_text(data)
    row = row_of_text(data, direction)
    if row is None:
        if direction is _C:
            return f.LogText(text=data)
        raise ProtocolError(
            ErrorCode.UNKNOWN_TYPE, f"no frame of this dialect begins as {data[:64]!a}"
        )
    rest = data[len(row.tag) :]
    if row.frame is f.NotPerformed:
        body = rest.removeprefix(row.separator) if rest else None
        return f.NotPerformed(tag=row.tag, body=body)
    if bool(rest) is not bool(row.fields):
        raise ProtocolError(ErrorCode.MALFORMED, f"{row.tag} has other fields: send {row.spelling}")
    return row.frame(**_fields(row, rest.removeprefix(row.separator)))


def _fields(row: Row, rest: str) -> dict[str, Any]:
    """The values in what follows a row's head; none for a row without fields."""
    if not row.fields:
        return {}
    return {
        name: kind.read(text)
        for (name, kind), text in zip(row.fields, row.split(rest), strict=True)
    }


def _chunk(data: bytes) -> f.Chunk:
    if len(data) > MAX_CHUNK:
        raise ProtocolError(
            ErrorCode.TOO_LARGE, f"a chunk of {len(data)} bytes: at most {MAX_CHUNK} are taken"
        )
    return f.Chunk(payload=data)


def _check_text(text: str) -> None:
    # Text has at least as many bytes as characters: hold no second copy of what is too large.
    size = len(text)
    if size <= MAX_TEXT:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise ProtocolError(
                ErrorCode.MALFORMED, "the text is no Unicode: replace the lone surrogates"
            ) from error
    if size > MAX_TEXT:
        raise ProtocolError(
            ErrorCode.TOO_LARGE,
            f"a text of at least {size} bytes: send at most {MAX_TEXT}, the rest in the next",
        )


# --- Writing --------------------------------------------------------------------------------


def _encode(frame: f.Frame, direction: Direction) -> str | bytes:
    match frame:
        case f.KeepAlive():
            return _KEEP_ALIVE
        case f.Chunk(payload=payload):
            _chunk(payload)
            if chunks(payload) != (frame,):
                raise ProtocolError(
                    ErrorCode.MALFORMED,
                    "these bytes would not be taken for a file's: cut them with `chunks`",
                )
            return payload
        case f.LogText(text=text) if direction is _C:
            text = as_log_text(text)
        case f.NotPerformed(tag=tag, body=body):
            row = _row_to_say(_NOT_PERFORMED.get(tag), frame, direction)
            text = _said(row, "" if body is None else row.separator + body, direction)
        case _:
            row = _row_to_say(ROW_OF.get(type(frame)), frame, direction)
            text = _said(row, _written(row, frame), direction)
    _check_text(text)
    return text


def _row_to_say(row: Row | None, frame: f.Frame, direction: Direction) -> Row:
    if row is None or direction not in row.direction:
        side = "worker" if direction is _C else "client"
        raise ProtocolError(
            ErrorCode.MALFORMED, f"{type(frame).__name__} is nothing that a {side} says here"
        )
    return row


def _said(row: Row, rest: str, direction: Direction) -> str:
    return row.tag + (without_markers(rest) if direction is _C else rest)


def _written(row: Row, frame: f.Frame) -> str:
    """What follows the tag: the separator and the fields, if there are any."""
    if not row.fields:
        return ""
    values = {name: getattr(frame, name) for name, _ in row.fields}
    rest = row.between.join(kind.write(values[name]) for name, kind in row.fields)
    _check_text(rest)
    if _fields(row, rest) != values:
        raise ProtocolError(
            ErrorCode.MALFORMED, f"{row.tag} would be read otherwise: check its fields"
        )
    return row.separator + rest
