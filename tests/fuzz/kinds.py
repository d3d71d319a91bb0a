"""For each kind of message and of file: inputs that are accepted as it, and inputs that are not."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st
from msgspec import inspect as mi

from tests.fuzz.of_types import Bytes, Values, as_json, sound, unsound


def _anything(_got: Any) -> bool:
    return True


class Kind(NamedTuple):
    """One kind of what a decoder reads.

    Args:
        sound: inputs that are accepted, all of them.
        unsound: inputs that are refused, all of them; None if nothing of this kind can be.
        is_read: whether what the decoder gave is of this kind.
    """

    sound: Bytes
    unsound: Bytes | None
    is_read: Callable[[Any], bool] = _anything


Kinds = dict[str, Kind]


def of_json(good: Values, bad: Values, is_read: Callable[[Any], bool] = _anything) -> Kind:
    """A kind that is one JSON object; one that is cut, or goes on, is refused."""
    written = good.map(as_json)
    ends = st.sampled_from((lambda data: data[:-1], lambda data: data + b","))
    spoilt = st.builds(lambda data, end: end(data), written, ends)
    worse = bad.map(as_json)
    return Kind(written, st.one_of(worse, worse, spoilt), is_read)


def of_struct(cls: type, is_read: Callable[[Any], bool] | None = None) -> Kind:
    """A kind that is one struct, and nothing beside it."""
    info = mi.type_info(cls)
    return of_json(sound(info), unsound(info), is_read or (lambda got: type(got) is cls))


def of_text(good: st.SearchStrategy[str], bad: st.SearchStrategy[str]) -> Kind:
    """A kind that is a text in UTF-8; one with other bytes in it is refused."""
    written = good.map(str.encode)
    other = st.builds(
        lambda data, more: data + more,
        written,
        st.sampled_from((b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x82")),
    )
    return Kind(written, st.one_of(bad.map(str.encode), bad.map(str.encode), other))
