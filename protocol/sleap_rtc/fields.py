"""How one field of a frame is read and written, and what it may hold.

Reading is total: a text gives a value or a `ProtocolError`. Writing is checked by reading what was
written, so what could not be read is never said.
"""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from protocol.bulk import MAX_FILE
from protocol.errors import ErrorCode, ProtocolError
from protocol.sleap_rtc.frames import (
    AuthReason,
    Fault,
    PackageKind,
    SharedAction,
    SharedSide,
)

#: Bounds, in bytes of UTF-8.
MAX_NAME: Final = 255  # what a file system takes for one name
MAX_PATH: Final = 4096  # PATH_MAX of Linux
MAX_MESSAGE: Final = 4096
MAX_ID: Final = 128
MAX_PROOF: Final = 512
MAX_COMMAND: Final = 64

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SIZE: Final = re.compile(r"[0-9]+", re.ASCII)
_STATUS: Final = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


class Kind(NamedTuple):
    """A kind of field."""

    read: Callable[[str], Any]  # raises ProtocolError
    write: Callable[[Any], str] = str
    shown: str = ""  # what a spelling shows; empty: the field's name in angle brackets


def _malformed(sentence: str) -> ProtocolError:
    return ProtocolError(ErrorCode.MALFORMED, sentence)


def _path_error(sentence: str) -> ProtocolError:
    return ProtocolError(ErrorCode.PATH_ERROR, sentence)


def _bounded(text: str, limit: int, what: str) -> str:
    size = len(text.encode())
    if size > limit:
        raise ProtocolError(
            ErrorCode.TOO_LARGE, f"{what} of {size} bytes: at most {limit} are taken"
        )
    return text


def text_of(limit: int, what: str) -> Kind:
    """Any text of at most `limit` bytes; `what` says in a refusal what it is."""
    return Kind(lambda text: _bounded(text, limit, what))


def _choice(options: type[StrEnum]) -> Kind:
    shown = "|".join(options)

    def read(text: str) -> StrEnum:
        try:
            return options(text)
        except ValueError as error:
            raise _malformed(f"{text[:64]!a} is not one of {shown}: send one of these") from error

    return Kind(read, shown=shown)


def _name(text: str) -> str:
    _bounded(text, MAX_NAME, "a file name")
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        raise _path_error(f"{text[:64]!a} is no plain file name: send a name without any folder")
    if _CONTROL.search(text):
        raise _path_error(f"{text[:64]!a} has a control character in it: rename the file")
    return text


def _without_colon(text: str) -> str:
    if ":" in text:
        raise _malformed(f"{text[:64]!a} has a colon, where clients cut: leave it out")
    return text


def _folder(text: str) -> str:
    _bounded(text, MAX_PATH, "a folder")
    if _CONTROL.search(text):
        raise _path_error("the folder has a control character in its name: rename it")
    return text


def _relative(text: str) -> str:
    _bounded(text, MAX_PATH, "a path")
    if _CONTROL.search(text) or "\\" in text:
        raise _path_error(f"{text[:64]!a} has a control character or a backslash: separate by `/`")
    if text.startswith("/") or _DRIVE.match(text):
        raise _path_error(f"{text[:64]!a} is absolute: send it relative to the shared storage")
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise _path_error(f"{text[:64]!a} has an empty part, `.` or `..`: send the plain path")
    return text


def _size(text: str) -> int:
    if not _SIZE.fullmatch(text):
        raise _malformed(f"{text[:64]!a} is no size: send the number of bytes in digits")
    # As long as the text is, its value is not worth computing.
    if len(text) > len(str(MAX_FILE)) or int(text) > MAX_FILE:
        raise ProtocolError(ErrorCode.TOO_LARGE, f"no file has more than {MAX_FILE} bytes")
    return int(text)


def _status(text: str) -> int:
    if not _STATUS.fullmatch(text):
        raise _malformed(f"{text[:64]!a} is no exit status: send a number")
    return int(text)


def _id(text: str) -> str:
    _bounded(text, MAX_ID, "a job's name")
    if not _ID.fullmatch(text):
        raise _malformed(f"{text[:64]!a} names no job: use letters, digits, `.`, `_` and `-`")
    return text


class _Command(Struct, frozen=True):
    """All that is read of a control message; jsonpickle's own keys are as unknown as any other."""

    command: str


class _ErrorOnly(Struct, frozen=True):
    error: str


class _Errors(Struct, frozen=True):
    errors: tuple[Fault, ...]


def _json(kind: type[Struct], text: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise ProtocolError(ErrorCode.TOO_DEEP, "JSON nested too deeply: send it flat") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise _malformed(f"not the JSON object that is wanted here: {error}") from error


def _command(text: str) -> str:
    command: str = _json(_Command, text).command
    return _bounded(command, MAX_COMMAND, "a command")


def _fault(text: str) -> str:
    error: str = _json(_ErrorOnly, text).error
    return error


def _faults(text: str) -> tuple[Fault, ...]:
    errors: tuple[Fault, ...] = _json(_Errors, text).errors
    return errors


NAME: Final = Kind(_name)
NAME_FOR_CLIENT: Final = Kind(lambda text: _without_colon(_name(text)))
FOLDER: Final = Kind(_folder)
FOLDER_FOR_CLIENT: Final = Kind(lambda text: _without_colon(_folder(text)))
RELATIVE: Final = Kind(_relative)
SIZE: Final = Kind(_size)
STATUS: Final = Kind(_status)
ID: Final = Kind(_id)
#: sleap-rtc writes a Python bool or `false`, and reads all but `true` as false.
GUI: Final = Kind(lambda text: text.lower() == "true", shown="True|False")
PACKAGE_KIND: Final = _choice(PackageKind)
ACTION: Final = _choice(SharedAction)
SIDE: Final = _choice(SharedSide)
REASON: Final = _choice(AuthReason)
PROOF: Final = text_of(MAX_PROOF, "a proof")
MESSAGE: Final = text_of(MAX_MESSAGE, "a message")
JOB_NAME: Final = text_of(MAX_NAME, "a name")
# These three are written by Python's `json`, as sleap-rtc does, so that the bytes are the same.
COMMAND: Final = Kind(_command, lambda command: json.dumps({"command": command}), "<json>")
FAULT: Final = Kind(_fault, lambda error: json.dumps({"error": error}), "<json>")
FAULTS: Final = Kind(
    _faults, lambda errors: json.dumps({"errors": msgspec.to_builtins(errors)}), "<json>"
)
#: As long as a frame may be, and read no further.
TEXT: Final = Kind(str)
REPORT: Final = Kind(str, shown="<json>")
