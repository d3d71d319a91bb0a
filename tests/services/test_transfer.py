"""Laws of files on their way in and out."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm_worker.services import disk, incoming_file, transfer
from fsm_worker.services.transfer import (
    AlreadyArriving,
    AnnouncementRefused,
    IncomingFile,
    NotEnoughDisk,
    NotVerified,
    OutgoingFile,
    RangesRefused,
    SourceChanged,
    hash_file,
    pump,
)
from protocol.bulk import HEADER_SIZE, MAX_CHUNK, MAX_SPANS, ChunkRefused, decode_chunk
from protocol.errors import ErrorCode

MIB = 1024 * 1024
ABC = b"abcdefghij"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def receiving(directory: Path, data: bytes, name: str = "out.zip", **options) -> IncomingFile:
    return IncomingFile.open(directory, name, len(data), sha256(data), reserve=0, **options)


def visible(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if not path.name.startswith(".")]


# --- Receiving --------------------------------------------------------------------------------


@st.composite
def deliveries(draw):
    """The announced bytes, and what a bad lane does: chunks in any order, some of them wrong."""
    data = draw(st.binary(max_size=300))
    actions = []
    for _ in range(draw(st.integers(0, 15))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, len(data)))
        wrong = draw(st.integers(0, 9)) == 0
        payload = draw(st.binary(min_size=end - start, max_size=end - start)) if wrong else None
        actions.append((start, data[start:end] if payload is None else payload))
        actions.append(draw(st.sampled_from(["", "", "", "save", "restart"])))
    return data, actions


@settings(deadline=None, max_examples=60)
@given(deliveries())
def test_a_file_appears_only_if_its_bytes_hash_to_what_was_announced(delivery) -> None:
    data, actions = delivery
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        incoming = receiving(directory, data)
        model = bytearray(len(data))
        there: set[int] = set()
        for action in actions:
            if action == "save":
                incoming.save()
            elif action == "restart":
                incoming.close()
                incoming = receiving(directory, data)
            elif action:
                start, payload = action
                bytes_of = range(start, start + len(payload))
                if not there.issuperset(bytes_of):
                    model[start : start + len(payload)] = payload
                there.update(bytes_of)
                incoming.write(start, payload)
            assert incoming.received == len(there)
            assert visible(directory) == []
        for start, end in incoming.missing():
            assert there.isdisjoint(range(start, end))
            model[start:end] = data[start:end]
            incoming.write(start, data[start:end])
        assert incoming.complete
        assert incoming.missing() == ()
        assert incoming.verify() == (model == data)
        if model == data:
            assert incoming.publish().read_bytes() == data
            assert [path.name for path in directory.iterdir()] == ["out.zip"]
        else:
            with pytest.raises(NotVerified):
                incoming.publish()
            incoming.discard()
            assert list(directory.iterdir()) == []


RECEIVER = """
import sys
from pathlib import Path
from fsm_worker.services.transfer import IncomingFile

directory, size, root = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
incoming = IncomingFile.open(directory, "model.zip", size, root, reserve=0)
source = Path(sys.argv[4]).read_bytes()
for offset in (0, 200_000, 100_000):
    incoming.write(offset, source[offset:offset + 65_000])
incoming.save()
incoming.write(300_000, source[300_000:365_000])
print("written", flush=True)
sys.stdin.read()
"""


def test_a_killed_receiver_is_resumed_by_the_next_process(tmp_path) -> None:
    source = tmp_path / "source"
    source.write_bytes(data := os.urandom(400_000))
    target = tmp_path / "in"
    target.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", RECEIVER, target, str(len(data)), sha256(data), source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout.readline() == b"written\n"
        with pytest.raises(AlreadyArriving):
            receiving(target, data)
        child.kill()
    assert visible(target) == []

    incoming = receiving(target, data, "model.zip")
    assert incoming.missing() == ((65_000, 100_000), (165_000, 200_000), (265_000, 400_000))
    for start, end in incoming.missing():
        incoming.write(start, data[start:end])
    assert incoming.verify()
    assert incoming.publish().read_bytes() == data


def test_what_was_saved_is_never_more_than_what_is_on_disk(tmp_path) -> None:
    """After a power cut the partial file can be shorter than it was; then less is believed."""
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC[:4])
    incoming.write(6, ABC[6:])
    incoming.close()
    with (tmp_path / f".{sha256(ABC)}.part").open("r+b") as part:
        part.truncate(7)
    resumed = receiving(tmp_path, ABC)
    assert resumed.missing() == ((4, 6), (7, 10))
    resumed.close()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\0" * 40,
        b'{"size": 10, "spans": [[0, 4]',
        b'{"size": 11, "spans": [[0, 4]]}',
        b'{"size": 10, "spans": [[4, 0]]}',
        b'{"size": 10, "spans": [[-4, 2]]}',
        b'{"size": 10, "spans": "all"}',
        b'{"size": 10, "spans": "\xff"}',
        b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        json.dumps({"size": 10, "spans": [[2 * at, 2 * at + 1] for at in range(2000)]}).encode(),
    ],
    ids=lambda record: record[:30].decode(errors="replace").replace("\0", "0"),
)
def test_a_record_that_makes_no_sense_costs_no_more_than_a_fresh_start(tmp_path, record) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, b"wrong")
    incoming.close()
    (tmp_path / f".{sha256(ABC)}.ranges").write_bytes(record)
    again = receiving(tmp_path, ABC)
    assert again.missing() == ((0, 10),)
    again.write(0, ABC)
    assert again.verify()
    assert again.publish().read_bytes() == ABC


def test_a_stale_record_never_claims_the_holes_of_a_new_partial_file(tmp_path) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC)
    incoming.close()
    (tmp_path / f".{sha256(ABC)}.part").unlink()
    fresh = receiving(tmp_path, ABC)
    assert fresh.missing() == ((0, 10),)
    assert not (tmp_path / f".{sha256(ABC)}.ranges").exists()
    fresh.discard()


def test_a_record_claims_nothing_whose_sync_failed(tmp_path, monkeypatch) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC[:4])
    incoming.save()
    incoming.write(4, ABC[4:])
    part, sync = incoming._file.fileno(), os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: sync(10**6 if handle == part else handle))
        with pytest.raises(OSError, match="Bad file descriptor"):
            incoming.close()
    resumed = receiving(tmp_path, ABC)
    assert resumed.missing() == ((4, 10),)
    resumed.discard()


def test_whoever_gets_the_lock_late_never_writes_into_the_published_file(
    tmp_path, monkeypatch
) -> None:
    """The first transfer publishes between the second one's open and its lock."""
    first = receiving(tmp_path, ABC)
    first.write(0, ABC)
    assert first.verify()
    lock = disk._lock
    late = iter([first.publish])

    def lock_late(file) -> None:
        for publish in late:
            publish()
        lock(file)

    monkeypatch.setattr(disk, "_lock", lock_late)
    second = receiving(tmp_path, ABC)
    second.write(0, b"XXXXXXXXXX")
    assert (tmp_path / "out.zip").read_bytes() == ABC
    second.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_an_empty_file_arrives_without_a_chunk(tmp_path) -> None:
    incoming = receiving(tmp_path, b"")
    assert incoming.complete
    assert incoming.verify()
    assert incoming.publish().read_bytes() == b""


def test_an_incomplete_file_is_not_verified(tmp_path) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC[:9])
    assert not incoming.complete
    assert not incoming.verify()
    with pytest.raises(NotVerified, match="send the file again"):
        incoming.publish()
    incoming.discard()


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (10, 1), (9, 2), (2**64, 1)])
def test_a_chunk_outside_the_file_is_refused(tmp_path, offset, size) -> None:
    incoming = receiving(tmp_path, ABC)
    with pytest.raises(ChunkRefused, match="outside"):
        incoming.write(offset, bytes(size))
    assert incoming.received == 0
    incoming.discard()


@pytest.mark.parametrize("end", ["close", "discard"])
def test_a_late_chunk_is_refused_and_changes_nothing(tmp_path, end) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC)
    assert incoming.verify()
    getattr(incoming, end)()
    with pytest.raises(ChunkRefused) as refused:
        incoming.write(0, b"XXXX")
    assert refused.value.code is ErrorCode.UNKNOWN_TRANSFER
    assert visible(tmp_path) == []
    incoming.discard()  # also after close, and harmless after a discard
    assert [path.name for path in tmp_path.iterdir()] == []
    incoming.close()


def test_a_chunk_that_comes_again_after_the_file_was_published_changes_nothing(tmp_path) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC)
    assert incoming.verify()
    incoming.publish()
    incoming.write(0, b"XXXX")
    assert visible(tmp_path) == ["out.zip"]
    assert (tmp_path / "out.zip").read_bytes() == ABC


def test_a_discard_leaves_the_file_to_the_transfer_that_took_it_over(tmp_path) -> None:
    first = receiving(tmp_path, ABC)
    first.write(0, ABC[:5])
    first.close()
    second = receiving(tmp_path, ABC)
    first.discard()
    second.write(5, ABC[5:])
    assert second.verify()
    assert second.publish().read_bytes() == ABC


def test_a_file_of_the_final_name_is_replaced_in_one_step(tmp_path) -> None:
    (tmp_path / "out.zip").write_bytes(b"old")
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC)
    assert incoming.verify()
    assert (tmp_path / "out.zip").read_bytes() == b"old"
    assert incoming.publish().read_bytes() == ABC


def test_a_scattering_sender_is_asked_again_instead_of_remembered(tmp_path) -> None:
    size = 4 * MAX_SPANS
    incoming = receiving(tmp_path, bytes(size))
    for offset in range(0, size, 2):
        incoming.write(offset, b"\0")
    assert incoming.dropped == MAX_SPANS
    assert len(incoming.missing()) == MAX_SPANS
    for start, end in incoming.missing():
        incoming.write(start, bytes(end - start))
    assert incoming.verify()
    incoming.discard()


def test_saves_fall_due_and_happen_by_themselves_at_the_latest(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(incoming_file, "SAVE_EVERY", 4)
    monkeypatch.setattr(incoming_file, "SAVE_AT_LATEST", 8)
    record = tmp_path / f".{sha256(ABC)}.ranges"
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC[:3])
    assert not incoming.save_due
    incoming.write(3, ABC[3:5])
    assert incoming.save_due
    assert not record.exists()
    incoming.write(5, ABC[5:9])
    assert not incoming.save_due
    assert json.loads(record.read_bytes()) == {"size": 10, "spans": [[0, 9]]}
    incoming.discard()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/b", "/etc/passwd", "..\\x", "C:x", "a\0b", "a\nb", "a\udc80"),
        *("x.", "x ", "con", "NUL.txt", "com1 .log", "a" * 256, "é" * 128),
        *(f".{'0' * 64}.part", ".x.ranges"),
    ],
)
def test_a_name_that_is_not_plain_everywhere_is_refused(tmp_path, name) -> None:
    with pytest.raises(AnnouncementRefused) as refused:
        receiving(tmp_path, ABC, name)
    assert refused.value.code is ErrorCode.PATH_ERROR
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["console.log", ".gitignore", "a b.zip", "é" * 127, "v1..2"])
def test_an_ordinary_name_is_taken(tmp_path, name) -> None:
    incoming = receiving(tmp_path, ABC, name)
    incoming.write(0, ABC)
    assert incoming.verify()
    assert incoming.publish() == tmp_path / name


@pytest.mark.parametrize(
    ("size", "root"),
    [(-1, "0" * 64), (2**63, "0" * 64), (1, ""), (1, "A" * 64), (1, "../" * 30), (1, "0" * 65)],
)
def test_a_size_or_hash_that_cannot_be_is_refused(tmp_path, size, root) -> None:
    with pytest.raises(AnnouncementRefused):
        IncomingFile.open(tmp_path, "out.zip", size, root)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_not_replaced_by_a_file(tmp_path) -> None:
    (tmp_path / "out.zip").mkdir()
    with pytest.raises(AnnouncementRefused, match="is a directory"):
        receiving(tmp_path, ABC)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_planted_link_is_not_written_through(tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / f".{sha256(ABC)}.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        receiving(tmp_path, ABC)
    assert victim.read_bytes() == b"precious"


def test_a_record_that_cannot_be_read_leaves_no_lock_behind(tmp_path) -> None:
    record = tmp_path / f".{sha256(ABC)}.ranges"
    record.mkdir()
    with pytest.raises(OSError, match="directory"):
        receiving(tmp_path, ABC)
    record.rmdir()
    receiving(tmp_path, ABC).discard()


def test_a_file_that_does_not_fit_is_refused_before_a_byte_is_sent(tmp_path) -> None:
    asked = []

    def free(directory: Path) -> int:
        asked.append(directory)
        return 1_000

    with pytest.raises(NotEnoughDisk, match="free some space") as refused:
        IncomingFile.open(tmp_path, "out.zip", 901, "0" * 64, reserve=100, free=free)
    assert (refused.value.needed, refused.value.free) == (1_001, 1_000)
    assert refused.value.code is ErrorCode.DISK_FULL
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []
    IncomingFile.open(tmp_path, "out.zip", 900, "0" * 64, reserve=100, free=free).discard()


def test_a_resumed_file_needs_room_for_what_is_missing_only(tmp_path) -> None:
    incoming = receiving(tmp_path, ABC)
    incoming.write(0, ABC[:8])
    incoming.close()
    with pytest.raises(NotEnoughDisk) as refused:
        receiving(tmp_path, ABC, free=lambda _: 1)
    assert refused.value.needed == 2
    resumed = receiving(tmp_path, ABC, free=lambda _: 2)
    assert resumed.received == 8
    resumed.discard()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
def test_a_disk_that_fills_up_under_way_is_named_and_keeps_what_arrived(tmp_path) -> None:
    incoming = receiving(tmp_path, ABC, free=lambda _: 12345)
    incoming.write(0, ABC[:4])
    handle = incoming._file.fileno()
    disk, full = os.dup(handle), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, handle)
    with pytest.raises(NotEnoughDisk) as refused:
        incoming.write(4, ABC[4:])
    assert (refused.value.needed, refused.value.free) == (6, 12345)
    os.dup2(disk, handle)
    os.close(disk)
    os.close(full)
    assert incoming.missing() == ((4, 10),)
    incoming.write(4, ABC[4:])
    assert incoming.verify()
    assert incoming.publish().read_bytes() == ABC


# --- Sending ----------------------------------------------------------------------------------


SPANS = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)).map(sorted), max_size=6)


@settings(deadline=None, max_examples=30)
@given(SPANS, st.sampled_from([4096, 5000, 65536]))
async def test_the_frames_are_the_asked_bytes_once(spans, chunk) -> None:
    data = bytes(at * at % 251 for at in range(20_000))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "results.zip"
        path.write_bytes(data)
        outgoing = await OutgoingFile.open(path, 9, chunk)
        assert (outgoing.size, outgoing.root) == (len(data), sha256(data))
        sent = []
        for frame in outgoing.chunks(spans):
            assert len(frame) <= chunk
            piece = decode_chunk(frame, limit=chunk)
            assert piece.transfer == 9
            end = piece.offset + len(piece.payload)
            assert piece.payload == data[piece.offset : end]
            sent += range(piece.offset, end)
    assert sent == sorted({byte for start, end in spans for byte in range(start, end)})


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 5)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [grow, shrink, touch, remove])
@pytest.mark.parametrize("when", ["before", "between"])
async def test_a_source_that_changed_is_not_sent_as_if_it_had_not(tmp_path, change, when) -> None:
    path = tmp_path / "results.zip"
    path.write_bytes(bytes(200_000))
    outgoing = await OutgoingFile.open(path, 1)
    chunks = outgoing.chunks([(0, 200_000)])
    if when == "between":
        next(chunks)
    change(path)
    if (when, change) == ("between", remove):
        assert len(list(chunks)) == 3  # what is open is still what was announced
    else:
        with pytest.raises(SourceChanged, match="send it again"):
            list(chunks)
    chunks.close()


async def test_a_source_that_is_still_written_to_is_not_announced(tmp_path, monkeypatch) -> None:
    (tmp_path / "x").write_bytes(ABC)

    def hash_and_grow(path: Path) -> tuple[int, str]:
        answer = hash_file(path)
        grow(path)
        return answer

    monkeypatch.setattr(transfer, "hash_file", hash_and_grow)
    with pytest.raises(SourceChanged):
        await OutgoingFile.open(tmp_path / "x", 1)


@pytest.mark.parametrize("spans", [[(0, 11)], [(10, 11)], [(5, 2)], [(-1, 2)]])
async def test_ranges_outside_the_file_are_refused_at_once(tmp_path, spans) -> None:
    (tmp_path / "x").write_bytes(ABC)
    outgoing = await OutgoingFile.open(tmp_path / "x", 1)
    with pytest.raises(RangesRefused):
        outgoing.chunks(spans)


async def test_only_regular_files_in_known_frame_sizes_are_sent(tmp_path) -> None:
    with pytest.raises(AnnouncementRefused, match="no regular file"):
        await OutgoingFile.open(tmp_path, 1)
    (tmp_path / "x").write_bytes(ABC)
    for chunk in (0, 4095, MAX_CHUNK + 1):
        with pytest.raises(AnnouncementRefused, match="choose 4096 to 262144"):
            await OutgoingFile.open(tmp_path / "x", 1, chunk)
    with pytest.raises(FileNotFoundError):
        await OutgoingFile.open(tmp_path / "y", 1)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path) -> None:
    data = os.urandom(MIB + 17)
    (tmp_path / "x").write_bytes(data)
    assert hash_file(tmp_path / "x") == (len(data), sha256(data))


# --- From disk to disk ------------------------------------------------------------------------


class SocketLane:
    """Frames over TCP, each with its length in front; `drain` is the back-pressure."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def send(self, frame: bytes) -> None:
        self.writer.write(len(frame).to_bytes(4, "big") + frame)
        await self.writer.drain()


async def test_64_mib_go_from_disk_to_disk_in_a_few_mib_of_memory(tmp_path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for block in range(64):
            file.write(block.to_bytes(4, "big") * (MIB // 4))
    (tmp_path / "in").mkdir()
    outgoing = await OutgoingFile.open(source, 1)
    incoming = IncomingFile.open(tmp_path / "in", "x", outgoing.size, outgoing.root, reserve=0)
    arrived = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while not incoming.complete:
                frame = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
                piece = decode_chunk(frame)
                incoming.write(piece.offset, piece.payload)
                if incoming.save_due:
                    await asyncio.to_thread(incoming.save)
        await writer.wait_closed()
        arrived.set()

    sent = 0

    def on_sent(count: int) -> None:
        nonlocal sent
        sent += count

    tracemalloc.start()
    try:
        async with asyncio.timeout(60), await asyncio.start_server(receive, "127.0.0.1", 0) as at:
            _, writer = await asyncio.open_connection(*at.sockets[0].getsockname())
            await pump(outgoing.chunks(incoming.missing()), SocketLane(writer), on_sent)
            await arrived.wait()
            writer.close()
            await writer.wait_closed()
        assert await asyncio.to_thread(incoming.verify)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await asyncio.to_thread(incoming.publish)
    assert sent == 64 * MIB
    assert hash_file(tmp_path / "in" / "x") == (64 * MIB, outgoing.root)
    assert peak < 8 * MIB


class GatedLane:
    """A lane with room for one frame a permit."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(0)
        self.waiting = asyncio.Event()
        self.frames: list[bytes] = []

    async def send(self, frame: bytes) -> None:
        self.waiting.set()
        await self.room.acquire()
        self.frames.append(frame)


async def test_the_pump_reads_no_further_than_a_batch_ahead_of_its_lane() -> None:
    taken = 0

    def frames():
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield bytes(65536)

    lane = GatedLane()
    async with asyncio.TaskGroup() as group:
        group.create_task(pump(frames(), lane))
        await lane.waiting.wait()
        assert taken * 65536 == transfer.BATCH
        for _ in range(200):
            lane.room.release()
    assert len(lane.frames) == taken == 200


async def test_a_pump_that_is_cancelled_at_its_lane_closes_the_file(tmp_path) -> None:
    (tmp_path / "x").write_bytes(bytes(MIB))
    chunks = (await OutgoingFile.open(tmp_path / "x", 1)).chunks([(0, MIB)])
    lane = GatedLane()
    task = asyncio.create_task(pump(chunks, lane))
    await lane.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chunks.gi_frame is None
    assert lane.frames == []


async def test_a_pump_that_is_cancelled_while_it_reads_closes_the_file_after_the_read() -> None:
    reading, go_on, closed = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def frames():
        try:
            loop.call_soon_threadsafe(reading.set)
            go_on.wait()
            yield bytes(100)
        finally:
            closed.set()

    task = asyncio.create_task(pump(frames(), GatedLane()))
    await reading.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_a_pump_tells_that_its_source_changed_after_what_was_good(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(3 * MIB))
    chunks = (await OutgoingFile.open(path, 1)).chunks([(0, 3 * MIB)])
    lane = GatedLane()
    task = asyncio.create_task(pump(chunks, lane))
    await lane.waiting.wait()
    touch(path)
    for _ in range(100):
        lane.room.release()
    with pytest.raises(SourceChanged):
        await task
    payloads = sum(len(frame) - HEADER_SIZE for frame in lane.frames)
    assert MIB - 65536 < payloads <= MIB
    assert chunks.gi_frame is None
