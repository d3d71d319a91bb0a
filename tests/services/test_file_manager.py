"""Laws of files on their way: what has arrived is kept, and what is over leaves nothing behind."""

import asyncio
import contextlib
import hashlib
import inspect
import os
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import structs

from fsm_worker import effects as ef
from fsm_worker import events as ev
from fsm_worker.facts import FileFacts
from fsm_worker.seams.channels import LinkGone
from fsm_worker.services import file_manager, incoming_file
from fsm_worker.services.file_manager import SAY_EVERY, FileManager, Moved
from fsm_worker.services.incoming_file import IncomingFile
from protocol import messages as m
from protocol.bulk import HEADER_SIZE, decode_chunk, encode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.table import MachineName

PATIENCE = 10.0  # seconds after which a test gives up; no test waits for it to pass
JOB, OTHER, NAME = "job-00000001", "job-00000002", "package.zip"
DATA = bytes(at * at % 251 for at in range(10_000))
SIZE, HALF, WRONG = len(DATA), len(DATA) // 2, bytes(len(DATA))
IN, OUT = MachineName.RECEIVING, MachineName.SENDING


def file_of(subject: str, job: str = JOB, data: bytes = DATA, **more) -> FileFacts:
    session, _, transfer = subject.partition("/")
    known = {"session": session, "transfer": int(transfer), "job": job, "name": NAME}
    content = {"size": len(data), "root": hashlib.sha256(data).hexdigest()}
    return FileFacts(**known | content | more)


def need(facts: FileFacts, *ranges: tuple[int, int]) -> tuple[str, m.FileNeed]:
    return facts.session, m.FileNeed(transfer=facts.transfer, ranges=ranges, chunk=facts.chunk)


FIRST, SECOND = file_of("s-1/1"), file_of("s-2/7")


class Rig:
    """One manager, and everybody that it tells something."""

    def __init__(self, root: Path, **more) -> None:
        self.emitted, self.sent, self.bulk, self.moved, self.tasks = [], [], [], [], []
        self.room, self.busy, self.gone = asyncio.Event(), asyncio.Event(), False
        self.room.set()
        self.manager = FileManager(
            root, emit=lambda *told: self.emitted.append(told),
            send=lambda *told: self.sent.append(told), send_bulk=self.send_bulk,
            spawn=self.spawn, cancel=self.cancel, watch=self.moved.append,
            incoming_of=MachineName.JOB, outgoing_of=MachineName.RESULTS, **more,
        )  # fmt: skip

    async def send_bulk(self, _session: str, frame: bytes) -> None:
        self.busy.set()
        await self.room.wait()
        if self.gone:
            raise LinkGone("the session has no link")
        self.bulk.append(frame)

    def spawn(self, address, work, name: str) -> asyncio.Task:
        self.tasks.append(asyncio.create_task(work(), name=f"{name} {address}"))
        return self.tasks[-1]

    def cancel(self, address, prefix: str) -> None:
        for task in self.tasks:
            if task.get_name() == f"{prefix} {address}":
                task.cancel()

    def do(self, kind, facts: FileFacts, *ranges: tuple[int, int]):
        """Performs an effect as the runtime does: at once, or as a task of its subject."""
        subject = f"{facts.session}/{facts.transfer}"
        event = ev.Received(message=need(facts, *ranges)[1])
        effect = kind(subject=facts.job if kind is ef.DeleteResults else subject, event=event,
                      facts=facts, row="T1", before="a", after="b")  # fmt: skip
        method = getattr(self.manager, kind.method())
        if not inspect.iscoroutinefunction(method):
            return method(effect)
        machine = OUT if kind is ef.SendRanges else IN
        return self.spawn((machine, subject), partial(method, effect), kind.method())

    def inputs(self, job: str = JOB) -> Path:
        return self.manager.folder(job) / "inputs"

    def left(self) -> list[str]:
        return sorted(path.name for path in self.inputs().iterdir())

    def expect(self, job: str = JOB, data: bytes = DATA) -> None:
        self.inputs(job).mkdir(parents=True, exist_ok=True)
        file = m.InputFile(name=NAME, size=len(data), root=file_of("s-1/1", data=data).root)
        self.manager.expect(job, [file], self.inputs(job))

    async def open(self, facts: FileFacts, *span: int, data: bytes = DATA) -> None:
        await self.do(ef.OpenIncoming, facts)
        if span:
            self.chunk(facts, *span, data)

    def chunk(self, facts: FileFacts, start: int, end: int, data: bytes = DATA) -> None:
        self.manager.take_chunk(facts.session, encode_chunk(facts.transfer, start, data[start:end]))

    def said(self, facts: FileFacts, machine: MachineName = IN) -> list[ev.Event]:
        to = machine, f"{facts.session}/{facts.transfer}"
        return [told[2] for told in self.emitted if told[:2] == to]

    @contextlib.asynccontextmanager
    async def slow(self, call: str, kind, facts: FileFacts) -> AsyncIterator[None]:
        """Begins an effect whose thread, its work done, waits until the block has run."""
        entered, go, real = threading.Event(), threading.Event(), getattr(IncomingFile, call)

        def held(*args, **options):
            done = real(*args, **options)
            entered.set()
            assert go.wait(PATIENCE)
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(IncomingFile, call, staticmethod(held) if call == "open" else held)
            task = self.do(kind, facts)
            assert await asyncio.to_thread(entered.wait, PATIENCE)
            try:
                yield
            finally:
                go.set()
                await asyncio.wait([task])


@pytest.fixture
async def rig(tmp_path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    rig.expect()
    yield rig
    await rig.manager.close()


async def test_files_of_two_jobs_are_asked_for_hashed_named_and_confirmed(rig) -> None:
    files = [(FIRST, JOB, DATA), (file_of("s-1/2", OTHER, DATA[::-1]), OTHER, DATA[::-1])]
    for facts, job, data in files:
        rig.expect(job, data)
        await rig.open(facts, HALF, SIZE, data=data)
    for facts, _, data in files:
        assert ev.ChunksCompleted() not in rig.said(facts)
        rig.chunk(facts, 0, HALF, data)
        assert rig.said(facts)[-1] == ev.ChunksCompleted()
    await asyncio.gather(*(rig.do(ef.VerifyIncoming, facts) for facts, _, _ in files))
    for facts, job, data in files:
        assert rig.said(facts)[-1] == ev.DigestMatched()
        rig.do(ef.ConfirmStored, facts)
        stored = m.FileStored(transfer=facts.transfer, root=facts.root)
        assert [told for told in rig.sent if told[1].transfer == facts.transfer] == [
            need(facts, (0, SIZE)), ("s-1", stored)]  # fmt: skip
        assert (rig.inputs(job) / NAME).read_bytes() == data


@pytest.mark.parametrize("other", [{"size": 5}, {"root": "0" * 64}, {"name": "x"}, {"job": OTHER}])
async def test_only_what_was_announced_is_taken(rig, other) -> None:
    await rig.open(file_of("s-1/1", **other))
    assert [event.code for event in rig.said(FIRST)] == [ErrorCode.NOT_ANNOUNCED]
    assert (rig.left(), rig.sent) == ([], [])


async def test_a_file_without_bytes_is_complete_at_once(rig) -> None:
    rig.expect(data=b"")
    await rig.open(file_of("s-1/1", data=b""))
    assert (rig.said(FIRST), rig.sent) == ([ev.ChunksCompleted()], [])


async def test_a_file_that_was_let_go_of_goes_on_with_the_next_offer_of_it(rig) -> None:
    await rig.open(FIRST, 100, HALF)
    rig.do(ef.KeepIncoming, FIRST)
    rig.chunk(FIRST, HALF, SIZE)  # too late: it was let go of
    await rig.open(SECOND, 0, 100)
    assert rig.sent[1:] == [need(SECOND, (0, 100), (HALF, SIZE))]
    rig.chunk(SECOND, HALF, SIZE)
    await rig.do(ef.VerifyIncoming, SECOND)
    assert (rig.inputs() / NAME).read_bytes() == DATA


async def test_forgetting_a_job_closes_what_was_left_of_it_and_of_no_other(rig) -> None:
    rig.expect(OTHER)
    theirs = file_of("s-1/2", OTHER)
    for facts in (FIRST, theirs):
        await rig.open(facts, 0, HALF)
        rig.do(ef.KeepIncoming, facts)
    rig.manager.forget(JOB)
    again = IncomingFile.open(rig.inputs(), NAME, SIZE, FIRST.root)
    assert again.missing() == ((HALF, SIZE),)  # unlocked, with all that had arrived
    again.discard()
    await rig.open(SECOND)
    assert [event.code for event in rig.said(SECOND)] == [ErrorCode.NOT_ANNOUNCED]
    await rig.open(theirs)
    assert rig.sent[-1] == need(theirs, (HALF, SIZE))


async def test_a_refused_file_leaves_nothing_even_while_the_disk_still_opens_it(rig) -> None:
    facts = file_of("s-1/1", code=ErrorCode.DISK_FULL, reason="the disk is full")
    async with rig.slow("open", ef.OpenIncoming, facts):
        await rig.do(ef.RefuseIncoming, facts)
    assert rig.left() == []
    refusal = m.FileRefused(transfer=1, code=facts.code, message=facts.reason)
    await rig.open(SECOND, 0, HALF)  # and nothing holds its lock
    assert rig.sent == [("s-1", refusal), need(SECOND, (0, SIZE))]
    await rig.do(ef.RefuseIncoming, SECOND)
    assert rig.left() == []


async def test_a_file_kept_for_a_job_that_is_forgotten_meanwhile_is_closed(rig) -> None:
    async with rig.slow("open", ef.OpenIncoming, FIRST):
        rig.do(ef.KeepIncoming, FIRST)
        rig.manager.forget(JOB)
    IncomingFile.open(rig.inputs(), NAME, SIZE, FIRST.root).discard()  # nothing holds its lock


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_sender_that_comes_back_while_the_disk_is_slow_loses_nothing(rig, at_once) -> None:
    before = IncomingFile.open(rig.inputs(), NAME, SIZE, FIRST.root)
    before.write(0, DATA[:HALF])
    before.close()
    async with rig.slow("open", ef.OpenIncoming, FIRST):
        rig.do(ef.KeepIncoming, FIRST)
        if at_once:
            await asyncio.wait([rig.do(ef.OpenIncoming, SECOND)], timeout=0.2)
    if not at_once:
        rig.do(ef.OpenIncoming, SECOND)
    await asyncio.gather(*rig.tasks)
    assert (rig.said(SECOND), rig.sent) == ([], [need(SECOND, (HALF, SIZE))])


@pytest.mark.parametrize("call", ["verify", "publish"])
async def test_a_sender_that_leaves_before_its_file_is_stored_can_offer_it_again(rig, call) -> None:
    await rig.open(FIRST, 0, SIZE)
    async with rig.slow(call, ef.VerifyIncoming, FIRST):
        rig.do(ef.KeepIncoming, FIRST)
    await rig.open(SECOND)
    assert rig.said(SECOND) == [ev.ChunksCompleted()]
    await rig.do(ef.VerifyIncoming, SECOND)
    assert rig.said(SECOND)[-1] == ev.DigestMatched()
    assert rig.left() == [NAME]


async def test_a_file_given_up_while_wrong_bytes_are_hashed_leaves_nothing(rig) -> None:
    await rig.open(FIRST, 0, SIZE, data=WRONG)
    async with rig.slow("verify", ef.VerifyIncoming, FIRST):
        dropping = rig.do(ef.DropIncoming, FIRST)
        await asyncio.wait([dropping], timeout=0.2)
    await dropping
    rig.chunk(FIRST, 0, HALF)  # of a file that is over: dropped
    assert (rig.left(), len(rig.sent)) == ([], 1)


async def test_a_chunk_that_comes_twice_changes_nothing(rig) -> None:
    await rig.open(FIRST, 0, HALF)
    rig.chunk(FIRST, 0, HALF, WRONG)  # what is there is not written over
    rig.chunk(FIRST, HALF, SIZE)
    await rig.do(ef.VerifyIncoming, FIRST)
    rig.chunk(FIRST, 0, HALF, WRONG)  # it has its name, and nobody has confirmed it yet
    rig.do(ef.ConfirmStored, FIRST)
    rig.chunk(FIRST, 0, HALF, WRONG)
    assert ((rig.inputs() / NAME).read_bytes(), rig.left()) == (DATA, [NAME])
    await rig.open(SECOND)  # nor is a file that is stored taken once more
    refusals = [event.code for *_, event in rig.emitted if isinstance(event, ev.StorageFailed)]
    assert refusals == [ErrorCode.NOT_ANNOUNCED]


async def test_a_chunk_of_no_open_file_is_dropped_and_what_is_no_chunk_is_refused(rig) -> None:
    await rig.open(file_of("s-1/1", chunk=4096))
    rig.chunk(file_of("s-1/2"), 0, HALF)
    rig.chunk(file_of("s-2/1"), 0, HALF)
    assert (rig.emitted, rig.moved) == ([], [])
    with pytest.raises(ProtocolError, match="malformed"):
        rig.manager.take_chunk("s-1", b"no chunk")
    with pytest.raises(ProtocolError, match="too_large"):
        rig.chunk(FIRST, 0, 4096)  # with its header it is over what was agreed
    rig.chunk(FIRST, 0, 4096 - HEADER_SIZE)
    assert rig.moved[-1].done == 4096 - HEADER_SIZE


@pytest.mark.parametrize(("offered", "agreed"), [(65536, 8192), (4096, 4096)])
async def test_the_smaller_of_both_sides_chunks_is_agreed(tmp_path, offered, agreed) -> None:
    rig, facts = Rig(tmp_path, chunk=8192), file_of("s-1/1", chunk=offered)
    rig.expect()
    await rig.open(facts)
    assert rig.sent == [need(file_of("s-1/1", chunk=agreed), (0, SIZE))]
    with pytest.raises(ProtocolError, match=f"over the {agreed} agreed"):
        rig.chunk(facts, 0, agreed)
    rig.chunk(facts, 0, agreed - HEADER_SIZE)
    assert rig.moved[-1].done == agreed - HEADER_SIZE
    await rig.manager.close()


async def test_a_later_request_may_ask_for_smaller_chunks(rig, results) -> None:
    await rig.do(ef.SendRanges, results, (0, HALF))
    rig.bulk.clear()
    await rig.do(ef.SendRanges, structs.replace(results, chunk=5000), (0, HALF))
    assert max(map(len, rig.bulk)) == 5000


async def test_machines_hear_now_and_then_that_bytes_move(rig, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr(file_manager, "time", SimpleNamespace(monotonic=lambda: now))
    await rig.open(FIRST)
    said = [(MachineName.JOB, JOB, ev.FileProgressed()), (IN, "s-1/1", ev.FileProgressed())]
    waits = {0.0: 1, 1.0: 1, SAY_EVERY - 1.5: 1, 0.75: 2, SAY_EVERY / 2: 2}
    for number, (later, times) in enumerate(waits.items()):
        now += later
        rig.chunk(FIRST, number * 10, number * 10 + 10)
        assert rig.emitted == said * times
    assert rig.moved[4:] == [Moved(job=JOB, name=NAME, done=50, size=SIZE, incoming=True)]


async def test_bytes_of_another_hash_are_thrown_away_and_asked_for_again(rig) -> None:
    await rig.open(FIRST, 0, SIZE, data=WRONG)
    await rig.do(ef.VerifyIncoming, FIRST)
    assert (rig.said(FIRST)[-1], NAME in rig.left()) == (ev.DigestMismatched(), False)
    rig.do(ef.AskMissing, FIRST)
    assert rig.sent == [need(FIRST, (0, SIZE))] * 2
    rig.chunk(FIRST, 0, SIZE)
    await rig.do(ef.VerifyIncoming, FIRST)
    assert rig.said(FIRST)[-1] == ev.DigestMatched()


async def test_a_folder_without_room_is_a_full_disk(rig, monkeypatch) -> None:
    monkeypatch.setattr(IncomingFile, "open", partial(IncomingFile.open, free=lambda _: 100))
    await rig.open(FIRST)
    told = [(event.code, "free some space" in event.reason) for event in rig.said(FIRST)]
    assert (told, rig.left()) == ([(ErrorCode.DISK_FULL, True)], [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
@pytest.mark.parametrize("words", ["free some space", "the disk refused"])
async def test_a_disk_that_refuses_a_chunk_is_told_with_its_code(rig, words) -> None:
    await rig.open(FIRST)
    device = ("/dev/full", os.O_RDWR) if "space" in words else (os.devnull, os.O_RDONLY)
    handle = rig.manager._incoming["s-1/1"]._file.fileno()
    with os.fdopen(os.open(*device), "rb", buffering=0) as bad:
        os.dup2(bad.fileno(), handle)
    rig.chunk(FIRST, 0, HALF)
    told = [(event.code, words in event.reason) for event in rig.said(FIRST)]
    assert told == [(ErrorCode.DISK_FULL, True)]


async def test_what_arrives_is_saved_and_found_by_the_next_process(rig, monkeypatch) -> None:
    monkeypatch.setattr(incoming_file, "SAVE_EVERY", 1000)
    await rig.open(FIRST, 0, 2000)
    rig.chunk(FIRST, 2000, HALF)  # the save is under way: no second one beside it
    assert [task.get_name().split()[0] for task in rig.tasks] == ["open_incoming", "save"]
    await asyncio.gather(*rig.tasks)
    assert [name.rpartition(".")[2] for name in rig.left()] == ["part", "ranges"]
    await rig.manager.close()
    later = Rig(rig.manager.root)
    later.expect()
    await later.open(SECOND)
    await later.manager.close()
    assert later.sent == [need(SECOND, (HALF, SIZE))]


@pytest.fixture
def results(rig) -> FileFacts:
    rig.manager.results_of(JOB).write_bytes(DATA)
    return file_of("s-1/3", name=f"{JOB}.zip", chunk=4096)


async def test_the_ranges_that_were_asked_for_are_sent_and_nothing_else(rig, results) -> None:
    rig.do(ef.OfferFile, results)
    offer = m.FileOffer(transfer=3, job=JOB, name=f"{JOB}.zip", size=SIZE, root=results.root,
                        chunk=4096)  # fmt: skip
    assert rig.sent == [("s-1", offer)]
    await rig.do(ef.SendRanges, results, (100, HALF), (9000, SIZE))
    got = [decode_chunk(frame) for frame in rig.bulk]
    assert b"".join(chunk.payload for chunk in got) == DATA[100:HALF] + DATA[9000:]
    assert all(DATA[chunk.offset :].startswith(chunk.payload) for chunk in got)
    assert max(map(len, rig.bulk)) == 4096
    assert (rig.moved[-1].done, rig.moved[-1].incoming) == (SIZE, False)
    assert rig.emitted == [(MachineName.RESULTS, JOB, ev.FileProgressed())]


@pytest.mark.parametrize("how", ["changed", "changed later", "removed", "too much", "link gone"])
async def test_a_file_that_is_not_as_offered_says_so_and_a_link_that_goes_does_not(
    rig, results, how
) -> None:
    path, end, rig.gone = rig.manager.results_of(JOB), SIZE + (how == "too much"), "gone" in how
    if how == "changed later":
        await rig.do(ef.SendRanges, results, (0, 10))
    if how == "removed":
        path.unlink()
    elif how.startswith("changed"):
        path.write_bytes(DATA[::-1])
        os.utime(path, ns=(1, 1))
    await rig.do(ef.SendRanges, results, (20, end))
    failures = [type(event) for event in rig.said(results, OUT)]
    assert (failures, rig.sent) == ([] if rig.gone else [ev.SourceFailed], [])
    assert {decode_chunk(frame).offset for frame in rig.bulk} <= {0}


@pytest.mark.parametrize("aborted", [False, True])
async def test_what_is_unwanted_is_sent_no_further(rig, results, aborted) -> None:
    rig.room.clear()
    sending = rig.do(ef.SendRanges, results, (0, SIZE))
    await rig.busy.wait()
    other = rig.do(ef.SendRanges, file_of("s-1/4"), (0, 1))
    rig.do(ef.AbortOutgoing if aborted else ef.StopSending, file_of("s-1/3", reason="why"))
    await asyncio.wait([sending], timeout=PATIENCE)
    assert sending.cancelled()
    assert not other.done()
    assert rig.sent == ([("s-1", m.FileAbort(transfer=3, message="why"))] if aborted else [])


async def test_deleted_results_are_gone_and_may_be_deleted_again(rig, results) -> None:
    for _ in range(2):
        await rig.do(ef.DeleteResults, results)
    assert {path.name for path in rig.manager.folder(JOB).iterdir()} == {"inputs"}
