"""Laws of logs: any way of reading one gives the same text, in pieces that a channel can carry."""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsm_worker.services.log_stream import (
    MAX_TEXT,
    LogCursor,
    LogFeed,
    LogPiece,
    LogReader,
    OffsetRefused,
    coalesce,
    plain,
)

LIMIT = 256


def screen(text: str) -> str:
    """The model: a terminal of one character at a time whose carriage return clears the line."""
    lines: list[list[str]] = [[]]
    returned = False
    for character in text:
        if character == "\n":
            lines.append([])
            returned = False
        elif character == "\r":
            returned = True
        else:
            if returned:
                lines[-1].clear()
                returned = False
            lines[-1].append(character)
    return "\n".join("".join(line) for line in lines)


def decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def read_all(path: Path, offset: int = 0, limit: int = MAX_TEXT) -> list[LogPiece]:
    pieces = []
    while (piece := LogReader(path).read(offset, limit, final=True)).next > offset:
        pieces.append(piece)
        offset = piece.next
    return pieces


def joined(pieces: list[LogPiece]) -> str:
    return "".join(piece.text for piece in pieces)


FRAGMENT = st.one_of(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\r", b"\n\r"]),
    st.sampled_from(["é", "€", "😀", "x", "\x1b[K", "\ufeff"]).map(str.encode),
    st.sampled_from([b"\xff", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80", b"\xed\xa0\x80", b"\0"]),
    st.binary(max_size=5),
    st.sampled_from([b"=" * 100, b"\r" * 300, b"\n" * 300, b"\x01" * 300, "é".encode() * 200]),
)


@given(st.text(alphabet="ab\r\n"))
def test_what_is_left_to_see_is_what_a_terminal_shows(text) -> None:
    assert coalesce(text) == screen(text)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(FRAGMENT, st.booleans()), max_size=30), st.integers(LIMIT, 2 * LIMIT))
@example([(b"10%\r", True), (b"\n", True)], LIMIT)
@example([(b"10%\r", True), (b"20%", True)], LIMIT)
@example([(b"\xe2", True), (b"\x82\xac", True)], LIMIT)
def test_reading_while_the_file_grows_gives_the_whole_log(fragments, limit) -> None:
    """Fragments are appended one by one; where the flag says so, a reader reads what is there."""
    whole = b"".join(fragment for fragment, _ in fragments)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "job.log"
        reader = LogReader(path)
        pieces: list[LogPiece] = []
        offset = 0

        def read_what_is_there(*, final: bool) -> None:
            nonlocal offset
            while (piece := reader.read(offset, limit, final=final)).next > offset:
                pieces.append(piece)
                offset = piece.next

        with path.open("ab", buffering=0) as log:
            for fragment, look in fragments:
                log.write(fragment)
                if look:
                    read_what_is_there(final=False)
                    so_far = log.tell()
                    # Only half a character or one carriage return may be left unread.
                    assert so_far - offset <= 4
        read_what_is_there(final=True)

        assert offset == len(whole)
        assert screen(joined(pieces)) == screen(decoded(whole))
        assert joined(pieces[:1])[:1] != "\r"
        at = 0
        for number, piece in enumerate(pieces):
            assert piece.offset == at
            at = piece.next
            assert "\r" not in piece.text[1:]
            assert len(msgspec.json.encode(piece.text)) - 2 <= limit
            # A client that lost the rest goes on here.
            again = joined(pieces[: number + 1]) + joined(read_all(path, at, limit))
            assert screen(again) == screen(decoded(whole))


@pytest.mark.parametrize("style", ["\r{}", "{}\r"])
def test_a_million_progress_updates_are_a_handful_of_pieces(tmp_path, style) -> None:
    path = tmp_path / "job.log"
    with path.open("w", newline="") as log:
        log.write("epoch 1\n")
        log.writelines(style.format(f"step {at}/1000000") for at in range(1, 1_000_001))
        log.write("\ndone\n")
    pieces = read_all(path)
    assert len(pieces) <= 3
    assert sum(len(piece.text) for piece in pieces) < 200
    assert screen(joined(pieces)) == "epoch 1\nstep 1000000/1000000\ndone\n"


def test_a_line_of_200_kb_comes_whole_in_several_pieces(tmp_path) -> None:
    path = tmp_path / "job.log"
    line = "é" * 100_000
    path.write_text(f"before\n{line}\nafter\n", encoding="utf-8")
    pieces = read_all(path)
    assert joined(pieces) == f"before\n{line}\nafter\n"
    assert 6 < len(pieces) < 15
    assert all(len(piece.text.encode()) <= MAX_TEXT for piece in pieces)


def test_even_output_that_is_no_text_fits_into_a_frame(tmp_path) -> None:
    path = tmp_path / "job.log"
    path.write_bytes(b"\x01" * 100_000 + bytes(range(256)) * 400)
    pieces = read_all(path)
    assert all(len(msgspec.json.encode(piece)) < MAX_TEXT + 100 for piece in pieces)
    assert screen(joined(pieces)) == screen(decoded(path.read_bytes()))


@pytest.mark.parametrize("limit", [-5, 0, 10**9])
def test_an_unreasonable_limit_counts_as_the_nearest_reasonable_one(tmp_path, limit) -> None:
    (tmp_path / "job.log").write_bytes(b"x" * 100_000)
    piece = LogReader(tmp_path / "job.log").read(0, limit)
    assert len(piece.text) == (LIMIT if limit <= 0 else MAX_TEXT)


def test_what_the_next_byte_decides_is_left_until_it_is_there(tmp_path) -> None:
    path = tmp_path / "job.log"
    reader = LogReader(path)
    piece = reader.read(0)
    assert piece == LogPiece(0, 0, "")
    for data, text, after in [
        (b"10%\r", "10%", 3),  # it may be replaced, or be at the end of its line
        (b"20%\r", "\r20%", 7),
        (b"\r", "", 8),
        (b"\n", "\n", 10),
        (b"\xe2\x82", "", 10),
        (b"\xac", "€", 13),
        (b"\xe2", "", 13),
    ]:
        with path.open("ab") as log:
            log.write(data)
        piece = reader.read(piece.next)
        assert (piece.text, piece.next) == (text, after)
    assert reader.read(13, final=True) == LogPiece(13, 14, "\ufffd")


@pytest.mark.parametrize("offset", [-1, 4, 2**70])
def test_an_offset_of_another_log_is_refused_instead_of_waited_for(tmp_path, offset) -> None:
    (tmp_path / "job.log").write_bytes(b"abc")
    with pytest.raises(OffsetRefused, match="read it from 0"):
        LogReader(tmp_path / "job.log").read(offset)
    with pytest.raises(OffsetRefused, match="read it from 0"):
        LogReader(tmp_path / "absent.log").read(offset)


# --- Following --------------------------------------------------------------------------------


WRITER = """
import sys

def out(text):
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
    print(file=sys.stderr, flush=True)
    sys.stdin.readline()

out("epoch 1\\n")
for step in range(5):
    out(f"\\rstep {step} €")
out("\\nepoch 2")
out(" done\\n")
"""


async def test_a_follower_sees_what_another_process_writes_and_ends_with_it(tmp_path) -> None:
    path = tmp_path / "job.log"
    feed = LogFeed()
    with path.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER),
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=asyncio.subprocess.PIPE,
        )

    async def watch() -> None:
        while await child.stderr.readline():
            feed.grew()
            child.stdin.write(b"\n")
        await child.wait()
        feed.close()

    async def follow(offset: int) -> list[LogPiece]:
        return [piece async for piece in LogCursor(path, offset, feed)]

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(watch())
        followers = [group.create_task(follow(0)) for _ in range(3)]
        later = group.create_task(follow(0))
    for follower in (*followers, later):
        pieces = follower.result()
        assert screen(joined(pieces)) == "epoch 1\nstep 4 €\nepoch 2 done\n"
        assert pieces[-1].next == path.stat().st_size
    resumed = await follow(followers[0].result()[0].next)
    assert screen(followers[0].result()[0].text + joined(resumed)) == screen(
        decoded(path.read_bytes())
    )


async def test_a_slow_reader_gets_only_the_last_of_what_was_replaced_meanwhile(tmp_path) -> None:
    path = tmp_path / "job.log"
    feed = LogFeed()
    cursor = LogCursor(path, 0, feed)
    with path.open("ab", buffering=0) as log:
        log.write(b"0%")
        assert (await anext(cursor)).text == "0%"
        for percent in range(1, 101):
            log.write(b"\r%d%%" % percent)
            feed.grew()
        assert (await anext(cursor)).text == "\r100%"
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await anext(cursor)


async def test_a_closed_log_gives_up_its_last_half_character(tmp_path) -> None:
    path = tmp_path / "job.log"
    path.write_bytes(b"end\r\xe2")
    feed = LogFeed()
    cursor = LogCursor(path, 0, feed)
    assert (await anext(cursor)).text == "end"
    waiting = asyncio.ensure_future(anext(cursor))
    feed.close()
    assert await waiting == LogPiece(3, 5, "\r\ufffd")
    assert [piece async for piece in cursor] == []


async def test_bytes_that_show_nothing_make_no_piece(tmp_path) -> None:
    path = tmp_path / "job.log"
    path.write_bytes(b"\r\r\r")
    feed = LogFeed()
    feed.close()
    cursor = LogCursor(path, 0, feed)
    assert [piece async for piece in cursor] == []
    assert cursor.offset == 3


async def test_a_cancelled_wait_loses_nothing(tmp_path) -> None:
    path = tmp_path / "job.log"
    feed = LogFeed()
    cursor = LogCursor(path, 0, feed)
    for patience in (0, 0.02):  # seconds: cut off while it reads, and while it waits
        waiting = asyncio.ensure_future(anext(cursor))
        assert await asyncio.wait({waiting}, timeout=patience) == (set(), {waiting})
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    path.write_bytes(b"later\n")
    feed.grew()
    assert await anext(cursor) == LogPiece(0, 6, "later\n")


# --- Showing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.1\tok\r\n", "loss 0.1\tok\r\n"),
        ("\x1b[31mred\x1b[0m \x1b[1;5Hx", "red x"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("\x1b]52;c;Y3VybA==\x07paste", "paste"),
        ("a\x9b31mb\x9d0;title\x9cc", "abc"),
        ("\x1bP$q\x1b\\\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\x", "x"),
        ("\x1bc\x1b(0\x1b#8\x1b7x", "x"),
        ("a\x08b\x07c\x00d\x7fe", "abcde"),
        ("\x1b]0;unfinished\nnext", "0;unfinished\nnext"),
        ("cut \x1b[3", "cut 3"),
        ("\x1b\x1b[m[31mx", "[31mx"),
        ("é € 😀 \u200d", "é € 😀 \u200d"),
        ("\ud800", "\ufffd"),
    ],
)
def test_nothing_that_commands_a_terminal_is_shown(text, shown) -> None:
    assert plain(text) == shown


@given(st.text(st.sampled_from("\x1b\x9b\x9d]P[;?0 /mc\\\x07\x9c\n\t\rx\x00\x85")))
def test_what_is_shown_has_no_control_character_left(text) -> None:
    shown = plain(text)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown)
    assert plain(shown) == shown
    assert shown.count("\n") == text.count("\n")


def test_hostile_output_is_cleaned_in_linear_time() -> None:
    for text in ("\x1b]" * 100_000, "\x1b[" + "0" * 200_000, "\x1b" + " " * 200_000):
        assert len(plain(text)) <= len(text)
