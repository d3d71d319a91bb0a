"""Turns an input into a slightly wrong one; the same seed gives the same mutants."""

import random
import re
from collections.abc import Callable, Sequence

#: Most bytes of a mutant; decoders with a larger bound are shown that by cases of their own.
LONGEST = 4096

_NUMBERS = (
    *("-1", "0", "1", "127", "128", "255", "256", "32767", "65535", "65536", "2147483647"),
    *("2147483648", "4294967295", "4294967296", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551616", "-9223372036854775809", "1e308", "1e999"),
    *("-0", "0.5", "NaN", "Infinity", "00", "0x10", "9" * 400, "9" * 4400),
)
#: Words that mean something to one decoder or another.
_WORDS = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        *("null", "true", "{}", "[]", '""', "[" * 40, '{"a":' * 40, "]", "}", '"', "\\", "\\ud800"),
        *("::", ":", "/", "../", "..\\", "C:", "CON", ".", " ", "\x00", "\r", "\n", "\r\n", "\t"),
        *("\x1b[2J", "\x1b]0;", "\x9b", "\u202e", "\ufeff", "\ud800", "\U0010ffff", "\u0661"),
        *("PROGRESS_REPORT::", "FILE_META::", "END_OF_FILE", "JOB_", "KEEP_ALIVE", "type", "PK"),
        *("$(", "`", "&&", "#", "'", "=", ",", "GiB", "[[", "]]", '"""', "'''"),
    )
)
_DIGITS = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")

Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _flip(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _insert(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    new = rng.choice(_WORDS) if rng.random() < 0.6 else rng.randbytes(rng.randint(1, 4))
    return data[:at] + new + data[at:]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / 12)))


def _delete(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _duplicate(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 100)) + data[end:]


def _splice(rng: random.Random, data: bytes, pool: Sequence[bytes]) -> bytes:
    other = rng.choice(pool)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _truncate(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def _number(rng: random.Random, data: bytes, _pool: Sequence[bytes]) -> bytes:
    found = list(_DIGITS.finditer(data))
    if not found:
        start, end = _span(rng, data)
        width = min(end - start, 8)
        edge = rng.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
        return data[:start] + edge.to_bytes(width, "big") + data[start + width :]
    number = rng.choice(found)
    return data[: number.start()] + rng.choice(_NUMBERS).encode() + data[number.end() :]


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _insert, _delete, _duplicate, _splice, _truncate, _number,
)  # fmt: skip


def mutant(seed: str, pool: Sequence[bytes]) -> bytes:
    """One mutant.

    Args:
        seed: decides it, together with the pool.
        pool: inputs to start from, at least one.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, and no secret
    data = rng.choice(pool)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(MUTATIONS)(rng, data, pool) if data else rng.choice(pool)
    return data[:LONGEST]
