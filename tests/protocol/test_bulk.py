"""Laws of chunk frames and byte ranges."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.bulk import (
    DEFAULT_CHUNK,
    HEADER_SIZE,
    MAX_CHUNK,
    MAX_FILE,
    MAX_SPANS,
    MAX_TRANSFER,
    Chunk,
    ChunkRefused,
    Ranges,
    RangesRefused,
    TooScattered,
    decode_chunk,
    encode_chunk,
)
from protocol.errors import ErrorCode

GOLDEN = Path(__file__).parent / "golden" / "chunk.hex"


def golden() -> bytes:
    lines = GOLDEN.read_text(encoding="ascii").splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def test_the_golden_chunk_is_written_byte_by_byte() -> None:
    assert encode_chunk(7, 65512, b"fsm-worker") == golden()


def test_the_golden_chunk_is_read() -> None:
    assert decode_chunk(golden()) == Chunk(7, 65512, memoryview(b"fsm-worker"))


@given(
    st.integers(0, MAX_TRANSFER),
    st.integers(0, MAX_FILE - 300),
    st.binary(min_size=1, max_size=300),
    st.sampled_from([bytes, bytearray, memoryview]),
)
@example(MAX_TRANSFER, MAX_FILE - 1, b"x", bytes)
def test_what_is_written_is_read_back(transfer, offset, payload, kind) -> None:
    frame = kind(encode_chunk(transfer, offset, payload))
    chunk = decode_chunk(frame)
    assert (chunk.transfer, chunk.offset, chunk.payload) == (transfer, offset, payload)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: golden()[:24] + tail))
def test_any_bytes_give_a_chunk_or_a_refusal(frame) -> None:
    try:
        chunk = decode_chunk(frame)
    except ChunkRefused as refused:
        assert refused.sentence.endswith(".")
    else:
        assert encode_chunk(chunk.transfer, chunk.offset, chunk.payload) == frame


@given(st.data())
def test_a_flipped_bit_never_reaches_the_file(data) -> None:
    """Flips of the transfer number and the offset are left to the hash of the whole file."""
    frame = bytearray(golden())
    at = data.draw(st.sampled_from([*range(4), *range(16, len(frame))]))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ChunkRefused):
        decode_chunk(frame)


def changed(at: int, *values: int) -> bytes:
    frame = bytearray(golden())
    frame[at : at + len(values)] = bytes(values)
    return bytes(frame)


@pytest.mark.parametrize(
    ("frame", "code", "about"),
    [
        ("END_OF_FILE", ErrorCode.MALFORMED, "text"),
        (b"", ErrorCode.MALFORMED, "header of 24"),
        (golden()[:23], ErrorCode.MALFORMED, "had 23"),
        (golden()[:24], ErrorCode.MALFORMED, "at least one byte"),
        (changed(0, 2), ErrorCode.VERSION_UNKNOWN, "version 2"),
        (changed(3, 1), ErrorCode.MALFORMED, "reserved"),
        (golden() + b"x", ErrorCode.MALFORMED, "announces 10 bytes but carries 11"),
        (golden()[:-1], ErrorCode.MALFORMED, "announces 10 bytes but carries 9"),
        (changed(16, 255, 255, 255, 255), ErrorCode.MALFORMED, "announces 4294967295"),
        (changed(33, 0), ErrorCode.HASH_MISMATCH, "send it again"),
        (changed(8, 255), ErrorCode.MALFORMED, "beyond the end"),
        (changed(8, 127, *[255] * 7), ErrorCode.MALFORMED, "beyond the end"),
        (golden() + bytes(DEFAULT_CHUNK), ErrorCode.TOO_LARGE, "over the agreed 65536"),
    ],
    ids=lambda value: value if isinstance(value, str) else "frame",
)
def test_a_frame_that_is_no_chunk_is_refused_with_its_reason(frame, code, about) -> None:
    with pytest.raises(ChunkRefused) as refused:
        decode_chunk(frame)
    assert refused.value.code is code
    assert about in refused.value.sentence


@pytest.mark.parametrize("limit", [4096, DEFAULT_CHUNK, MAX_CHUNK])
def test_the_agreed_size_counts_the_header_in_both_directions(limit) -> None:
    frame = encode_chunk(1, 0, bytes(limit - HEADER_SIZE), limit=limit)
    assert len(frame) == limit
    assert len(decode_chunk(frame, limit=limit).payload) == limit - HEADER_SIZE
    with pytest.raises(ChunkRefused, match="over the agreed"):
        encode_chunk(1, 0, bytes(limit - HEADER_SIZE + 1), limit=limit)
    with pytest.raises(ChunkRefused, match="over the agreed"):
        decode_chunk(frame, limit=limit - 1)


@pytest.mark.parametrize(
    ("transfer", "offset", "payload"),
    [
        (-1, 0, b"x"),
        (MAX_TRANSFER + 1, 0, b"x"),
        (1, -1, b"x"),
        (1, MAX_FILE, b"x"),
        (1, 2**64, b"x"),
        (1, 0, b""),
    ],
)
def test_what_would_not_decode_is_not_written(transfer, offset, payload) -> None:
    with pytest.raises(ChunkRefused):
        encode_chunk(transfer, offset, payload)


SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: tuple(sorted(pair)))


@given(st.lists(SPAN, max_size=20), SPAN, st.integers(0, 70))
def test_ranges_are_the_set_of_their_bytes(spans, asked, size) -> None:
    """The model is a set of integers."""
    ranges = Ranges.of(spans)
    model = {byte for start, end in spans for byte in range(start, end)}
    assert {byte for start, end in ranges.spans for byte in range(start, end)} == model
    assert all(start < end for start, end in ranges.spans)
    assert all(
        left[1] < right[0] for left, right in zip(ranges.spans, ranges.spans[1:], strict=False)
    )
    assert ranges.total == len(model)
    assert ranges.covers(*asked) == model.issuperset(range(*asked))
    missing = [byte for start, end in ranges.missing(size) for byte in range(start, end)]
    assert missing == [byte for byte in range(size) if byte not in model]
    below = {byte for start, end in ranges.below(size).spans for byte in range(start, end)}
    assert below == {byte for byte in model if byte < size}


@given(st.permutations(range(12)))
def test_the_order_of_arrival_leaves_no_trace(order) -> None:
    assert Ranges.of((at, at + 1) for at in order) == Ranges(((0, 12),))


def test_a_scattering_sender_cannot_make_ranges_grow() -> None:
    ranges = Ranges.of((2 * at, 2 * at + 1) for at in range(MAX_SPANS))
    with pytest.raises(TooScattered):
        ranges.add(2 * MAX_SPANS, 2 * MAX_SPANS + 1)
    assert len(ranges.add(1, 2).spans) == MAX_SPANS - 1
    assert len(ranges.missing(2**40)) == MAX_SPANS


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (4, 3)])
def test_a_range_that_is_none_is_refused(start, end) -> None:
    with pytest.raises(RangesRefused):
        Ranges().add(start, end)
