"""The pages of the dialects that no machine hears directly: sleap-rtc's, signaling, the trainer."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from fsm_worker.diagrams.page import md_table, page, summary
from fsm_worker.diagrams.schema import FOLDER
from protocol.registry import PEER, SIGNALING, SLEAP_RTC, TRAINER, Dialect, tag
from protocol.sleap_rtc.table import ROWS
from protocol.table import Direction

_TO = {
    Direction.TO_WORKER: "to the worker",
    Direction.TO_CLIENT: "to the client",
    Direction.BOTH: "both ways",
}


def dialect_pages() -> dict[str, str]:
    """Every such page: its file name, and its text."""
    return {
        "sleap_rtc.md": _sleap_rtc(),
        "signaling.md": _json(SIGNALING, "Signaling"),
        "peer.md": _json(
            PEER, "peer messages", " When each is said is decided by the table [talk](talk.md)."
        ),
        "trainer.md": _json(TRAINER, "Trainer"),
    }


def direction(of: Direction) -> str:
    """Who hears it, in words."""
    return _TO[of]


def _sleap_rtc() -> str:
    return page(
        "Dialect: sleap-rtc",
        f"{SLEAP_RTC.about} Each row is one of `protocol/sleap_rtc/table.py`, in its order. A"
        " frame of the type `NotPerformed` is answered in the client's words, and changes nothing;"
        " what the others change is decided by the table [guest](guest.md).",
        md_table(
            ("frame", "meaning", "direction", "type"),
            (
                (
                    f"`{row.spelling}`" if row.tag else "_bare_",
                    row.meaning,
                    direction(row.direction),
                    row.frame.__name__,
                )
                for row in ROWS
            ),
        ),
    )


def _json(dialect: Dialect, title: str, more: str = "") -> str:
    return page(
        f"Dialect: {title.lower()}",
        f"{dialect.about} What each field means, and its unit, is said in"
        f" [`{dialect.module}`](../{dialect.module}); a field with a default may be left out. As"
        f" JSON Schema: [{dialect.name}.json]({FOLDER}/{dialect.name}.json).{more}",
        *(block for who in dialect.said for block in _said(dialect, who)),
    )


def _said(dialect: Dialect, who: str) -> Iterator[str]:
    yield f"## From {who}"
    yield md_table(
        ("message", "meaning", "fields"),
        ((f"`{tag(kind)}`", summary(kind), _fields(kind)) for kind in dialect.said[who]),
    )


def _fields(kind: type[Struct]) -> str:
    shown = []
    for field in msgspec.structs.fields(kind):
        default = "" if field.required else f" = {_default(field)}"
        shown.append(f"`{field.encode_name}: {_type(field.type)}{default}`")
    return "<br>".join(shown)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"{field.default_factory.__name__}()"
    return repr(field.default)


def _type(of: Any) -> str:
    """A type as it is written, without its bounds: those are in the schema."""
    origin, args = get_origin(of), get_args(of)
    if origin is Annotated:
        return _type(args[0])
    if origin in {Union, UnionType}:
        return " | ".join(map(_type, args))
    if args:
        return f"{origin.__name__}[{', '.join(map(_type, args))}]"
    return {type(None): "None", Ellipsis: "..."}.get(of) or str(of.__name__)
