"""Strategies made from a type's own description: values that it takes, and values that it does not.

What a type takes is read where the decoder reads it (`msgspec.inspect`): patterns, bounds, tags
and enumerations. So a `job` here is an id that gets past its pattern, and one that breaks it
breaks nothing else.
"""

import functools
import json
import re
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as mi

Values = st.SearchStrategy[Any]
Bytes = st.SearchStrategy[bytes]

#: Characters that a user may write; no halves of surrogate pairs.
WORDS = st.text(max_size=12)
_INTS = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
#: What JSON can hold, and everybody reads alike.
JSON = st.recursive(
    st.none() | st.booleans() | _INTS | _FLOATS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
#: One value of each kind that JSON has.
_SAMPLES: dict[str, Any] = {
    "null": None, "boolean": True, "number": 7, "text": "no such word", "array": [[]],
    "object": {"no such": 1},
}  # fmt: skip


#: What is done to a text that has a pattern's form.
_SPOILT = ("", "{0}\n", "\n{0}", " {0}", "A{0}", "{0}/..", "\u0661{0}", "{0}" * 70)


def as_json(value: Any) -> bytes:
    """As Python writes it: with lone surrogates and `NaN`, where they are in it."""
    return json.dumps(value).encode()


# --- What a type takes --------------------------------------------------------------------------


def sound(kind: mi.Type) -> Values:
    """Values that a decoder of this type takes."""
    match kind:
        case mi.StructType():
            return _sound_struct(kind)
        case mi.UnionType(types=kinds):
            return st.one_of([sound(one) for one in kinds])
        case mi.ListType(item_type=item) | mi.VarTupleType(item_type=item):
            return st.lists(sound(item), max_size=3)
        case mi.TupleType(item_types=items):
            return st.tuples(*map(sound, items)).map(list)
        case mi.DictType(value_type=value):
            return st.dictionaries(WORDS, sound(value), max_size=3)
        case mi.EnumType(cls=cls):
            return st.sampled_from([member.value for member in cls])
        case mi.LiteralType(values=values):
            return st.sampled_from(values)
        case mi.IntType(ge=low, le=high):
            return _around(-(2**63) if low is None else low, 2**63 - 1 if high is None else high)
        case mi.FloatType(ge=low):
            return st.floats(min_value=low, allow_nan=False, allow_infinity=False)
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.StrType():
            return _sound_text(kind)
        case mi.AnyType():
            return JSON
        case _:
            raise TypeError(f"no values of {kind} are known here: add a case")


def _around(low: int, high: int) -> Values:
    """Numbers between two bounds, and the bounds themselves more often than chance has it."""
    return st.integers(low, high) | st.sampled_from((low, high))


# What is shared is looked through by Hypothesis once.
_matching = functools.cache(st.from_regex)


def _sound_text(kind: mi.StrType) -> Values:
    if kind.pattern is not None:
        return _matching(kind.pattern)
    if kind.max_length is None:
        return WORDS
    low = kind.min_length or 0
    return st.text(min_size=low, max_size=low + 12) | st.just("x" * kind.max_length)


def _sound_struct(kind: mi.StructType) -> Values:
    needed = {field.encode_name: sound(field.type) for field in kind.fields if field.required}
    left = {field.encode_name: sound(field.type) for field in kind.fields if not field.required}
    tag = {kind.tag_field: st.just(kind.tag)} if kind.tag_field else {}
    return st.fixed_dictionaries({**tag, **needed}, optional=left)


# --- What it does not ---------------------------------------------------------------------------


def unsound(kind: mi.Type) -> Values:
    """Values that differ in one place from those that it takes; nothing, if it takes all."""
    others = [value for name, value in _SAMPLES.items() if name not in _in_json(kind)]
    return st.one_of(_unsound(kind), st.sampled_from(others)) if others else _unsound(kind)


def _in_json(kind: mi.Type) -> frozenset[str]:
    match kind:
        case mi.UnionType(types=kinds):
            return frozenset().union(*map(_in_json, kinds))
        case mi.StructType() | mi.DictType():
            return frozenset({"object"})
        case mi.ListType() | mi.VarTupleType() | mi.TupleType():
            return frozenset({"array"})
        case mi.StrType() | mi.EnumType() | mi.LiteralType():
            return frozenset({"text"})
        case mi.IntType() | mi.FloatType():
            return frozenset({"number"})
        case mi.BoolType():
            return frozenset({"boolean"})
        case mi.NoneType():
            return frozenset({"null"})
        case _:
            return frozenset(_SAMPLES)


def _unsound(kind: mi.Type) -> Values:
    """Those of the right kind of JSON."""
    match kind:
        case mi.StructType():
            return _unsound_struct(kind)
        case mi.UnionType(types=kinds):
            # a number that is none of the one kind may be one of the other
            some = [one for one in kinds if not isinstance(one, mi.NoneType)]
            return _unsound(some[0]) if len(some) == 1 else st.nothing()
        case mi.ListType(item_type=item) | mi.VarTupleType(item_type=item):
            most, worse = kind.max_length, unsound(item).map(lambda value: [value])
            if most is None:
                return worse
            return worse | sound(item).map(lambda value: [value] * (most + 1))
        case mi.TupleType(item_types=(*before, last)):
            rest = [sound(one) for one in before]
            return st.tuples(*rest, unsound(last)).map(list) | st.tuples(*rest).map(list)
        case mi.DictType(value_type=value):
            return st.dictionaries(WORDS, unsound(value), min_size=1, max_size=2)
        case mi.EnumType() | mi.LiteralType():
            return st.just("no such word")
        case mi.IntType(ge=low, le=high):
            under = [] if low is None else [low - 1]
            over = [] if high is None else [high + 1]
            return st.sampled_from([0.5, *under, *over])
        case mi.FloatType(ge=low):
            return st.nothing() if low is None else st.sampled_from((low - 0.5, low - 1, -1e300))
        case mi.StrType():
            return _unsound_text(kind)
        case _:
            return st.nothing()


def _unsound_text(kind: mi.StrType) -> Values:
    found: list[Values] = []
    if (pattern := kind.pattern) is not None:
        spoilt = st.builds(str.format, st.sampled_from(_SPOILT), sound(kind))
        found.append(spoilt.filter(lambda text: not re.search(pattern, text)))
    if kind.max_length is not None:
        found.append(st.just("x" * (kind.max_length + 1)))
    if kind.min_length:
        found.append(st.just("x" * (kind.min_length - 1)))
    return st.one_of(found)


def _unsound_struct(kind: mi.StructType) -> Values:
    good, found = _sound_struct(kind), []
    for field in kind.fields:
        name, bad = field.encode_name, unsound(field.type)
        if not bad.is_empty:
            found.append(st.builds(_with, good, st.just(name), bad))
        if field.required:
            found.append(st.builds(_without, good, st.just(name)))
    if kind.tag_field:
        tags = st.sampled_from(("no_such_type", "", None, 1))
        found.append(st.builds(_with, good, st.just(kind.tag_field), tags))
        found.append(st.builds(_without, good, st.just(kind.tag_field)))
    return st.one_of(found)


def _with(value: dict[str, Any], name: str, other: Any) -> dict[str, Any]:
    return {**value, name: other}


def _without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: one for key, one in value.items() if key != name}
