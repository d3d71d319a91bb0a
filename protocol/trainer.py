"""What a trainer says over ZMQ while it trains, and what it is told.

The messages are those of sleap-nn 0.3.5 (`sleap_nn/training/callbacks.py`): one frame of UTF-8
JSON without a topic, tagged by `event`; epochs and batches count from 0. `max_epochs` and
`sent_at` are additions of `fsm_worker.trainer`, since sleap-nn says neither.

A trainer is a program that somebody brought, so decoding is total and bounded. One value that
makes no sense costs that value, never the message: Python's `json` writes `NaN` and `Infinity`,
which are no JSON, and losses do become NaN.
"""

import json
import math
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ProtocolError

#: Most bytes of one message.
MAX_MESSAGE: Final = 64 * 1024
#: So many metrics with names so long fit into one control frame, however they are written.
MAX_METRICS: Final = 128
MAX_NAME: Final = 100  # characters
MAX_TEXT: Final = 512  # characters
_MAX_REASON: Final = 200  # characters; the reason quotes what was sent

Count = Annotated[int, Meta(ge=0, le=2**53)]


class TrainerMessage(Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of all messages of a trainer; the tag is the event's name."""

    what: str = ""  # which model, where one run trains several
    logs: dict[str, float | None] | None = None  # None: not finite, so there is no number to show
    epoch: Count | None = None
    batch: Count | None = None
    sent_at: float = 0.0  # the trainer's clock, seconds since 1970-01-01 UTC; 0 if it said none

    @property
    def event(self) -> str:
        """The tag: `train_begin`, `epoch_end`, …."""
        return str(self.__struct_config__.tag)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of `logs`, all finite."""
        return {name: value for name, value in (self.logs or {}).items() if value is not None}


class TrainBegin(TrainerMessage, frozen=True, kw_only=True, tag="train_begin"):
    """Training begins."""

    wandb_url: str | None = None
    max_epochs: Count | None = None  # how many epochs there will be


class EpochBegin(TrainerMessage, frozen=True, kw_only=True, tag="epoch_begin"):
    """An epoch begins."""


class BatchStart(TrainerMessage, frozen=True, kw_only=True, tag="batch_start"):
    """A batch begins; sleap-nn does not say of which epoch."""


class BatchEnd(TrainerMessage, frozen=True, kw_only=True, tag="batch_end"):
    """A batch has ended."""


class EpochEnd(TrainerMessage, frozen=True, kw_only=True, tag="epoch_end"):
    """An epoch has ended, validation included."""


class TrainEnd(TrainerMessage, frozen=True, kw_only=True, tag="train_end"):
    """Training has ended; sleap-nn evaluates for some seconds more."""


class StopCommand(Struct, frozen=True, tag_field="command", tag="stop"):
    """Tells the trainer to end with this batch and to keep the model."""


#: The only control message: sleap-nn ignores others, and crashes on what is no JSON object.
STOP: Final = msgspec.json.encode(StopCommand())

KINDS: Final = (TrainBegin, EpochBegin, BatchStart, BatchEnd, EpochEnd, TrainEnd)
_UNION: Final[Any] = reduce(or_, KINDS)


def decode_trainer(data: bytes) -> TrainerMessage:
    """A message from what a trainer sent.

    Args:
        data: the one frame of a ZMQ message.

    Returns:
        The message. Of `logs`, what is no number is skipped, and so is what is beyond
        `MAX_METRICS` or has a name that cannot be shown; a number that is not finite is None.

    Raises:
        ProtocolError: `too_large`, `too_deep`, or `malformed`.
    """
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(
            ErrorCode.TOO_LARGE, f"a message of {len(data)} bytes: send at most {MAX_MESSAGE}"
        )
    fields = _parse(data)
    if not isinstance(fields, dict):
        raise ProtocolError(ErrorCode.MALFORMED, "not a JSON object: send one with an `event`")
    try:
        message: TrainerMessage = msgspec.convert(_cleaned(fields), _UNION)
    except ValueError as error:  # ValidationError, and UnicodeEncodeError of half a surrogate pair
        reason = _text(str(error))[:_MAX_REASON]
        raise ProtocolError(ErrorCode.MALFORMED, f"not a trainer's message: {reason}") from error
    return message


def _parse(data: bytes) -> Any:
    try:
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            # Slower, and as bounded: it takes the three tokens that JSON lacks.
            return json.loads(data.decode(), parse_constant=float)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are among these
        raise ProtocolError(ErrorCode.MALFORMED, f"not UTF-8 JSON: {error}") from error
    except RecursionError as error:
        raise ProtocolError(ErrorCode.TOO_DEEP, "nested too deeply: send flat `logs`") from error


def _cleaned(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without those values that say nothing, so that defaults stand in."""
    kept = {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
    if isinstance(kept.get("logs"), dict):
        kept["logs"] = _metrics(kept["logs"])
    for name in ("what", "wandb_url"):
        text = kept.pop(name, None)
        if isinstance(text, str):
            kept[name] = _text(text)
    if not _is_count(kept.get("max_epochs")):  # libraries write -1 where there is no end
        kept.pop("max_epochs", None)
    if _number(kept.get("sent_at")) is None:
        kept.pop("sent_at", None)
    return kept


def _metrics(logs: dict[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in logs.items():
        if len(found) == MAX_METRICS:
            break
        if (value is None or _is_number(value)) and len(name) <= MAX_NAME and name.isprintable():
            found[name] = _number(value)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    try:
        number = float(value) if _is_number(value) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(text: str) -> str:
    """A text that can be shown; a surrogate without its other half could not even be encoded."""
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in text[:MAX_TEXT])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value) and 0 <= value <= 2**53
