"""Files on their way in and out: opens, asks, hashes, names, offers and sends.

Which of these happens when is decided by the tables `receiving` and `sending`. Chunks pass no
table: they come from the bulk lane (`take_chunk`) and go to it (`send_ranges`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fsm_worker.effects import (
    AbortOutgoing,
    AskMissing,
    ConfirmStored,
    DeleteResults,
    DropIncoming,
    KeepIncoming,
    OfferFile,
    OpenIncoming,
    RefuseIncoming,
    SendRanges,
    StopSending,
    VerifyIncoming,
)
from fsm_worker.events import (
    ChunksCompleted,
    DigestMatched,
    DigestMismatched,
    Event,
    FileProgressed,
    Received,
    SourceFailed,
    StorageFailed,
)
from fsm_worker.facts import FileFacts
from fsm_worker.services.incoming_file import IncomingFile
from fsm_worker.services.opening import closed_in_threads, opened_in_thread
from fsm_worker.services.shared_storage import SharedStorage
from fsm_worker.services.transfer import (
    Moved,
    OutgoingFile,
    Sender,
    SessionLane,
    SourceChanged,
    pump,
)
from fsm_worker.work_threads import InThread
from protocol.bulk import DEFAULT_CHUNK, MAX_CHUNK, MAX_SPANS, RangesRefused, decode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import (
    FileAbort,
    FileNeed,
    FileOffer,
    FileRefused,
    FileStored,
    InputFile,
)
from protocol.table import MachineName

#: Seconds between two `file_progressed` of one file.
SAY_EVERY = 10.0


class FileManager:
    """Moves files.

    Args:
        root: folder of all jobs: `root/JOB/…`.
        emit: reports events.
        send: sends control messages.
        send_bulk: sends a chunk to a session when there is room.
        spawn: runs a task of a machine's subject.
        cancel: ends the task of an effect of a machine's subject.
        incoming_of: the machine that is told that incoming files move (the worker's jobs).
        outgoing_of: the same for outgoing files (the worker's results).
        watch: is told how far files have come, for progress bars.
        shared: the storage that clients see, too.
        chunk: bytes of the largest chunk that is taken, header included.
        files: threads in which files are hashed; see `work_threads`.
    """

    def __init__(
        self,
        root: Path,
        *,
        emit: Callable[[MachineName, str, Event], None],
        send: Sender,
        send_bulk: Callable[[str, bytes], Awaitable[None]],
        spawn: Callable[
            [tuple[MachineName, str], Callable[[], Coroutine[Any, Any, None]], str], None
        ],
        cancel: Callable[[tuple[MachineName, str], str], None],
        incoming_of: MachineName | None = None,
        outgoing_of: MachineName | None = None,
        watch: Callable[[Moved], None] = lambda _moved: None,
        shared: SharedStorage | None = None,
        chunk: int = DEFAULT_CHUNK,
        files: InThread = asyncio.to_thread,
    ) -> None:
        self.root = root
        self.shared = shared or SharedStorage()
        self._emit = emit
        self._send = send
        self._send_bulk = send_bulk
        self._spawn = spawn
        self._cancel = cancel
        self._incoming_of = incoming_of
        self._outgoing_of = outgoing_of
        self._watch = watch
        self._chunk = chunk
        self._file_thread = files
        self._expected: dict[tuple[str, str], tuple[Path, InputFile]] = {}
        self._incoming: dict[str, IncomingFile] = {}
        self._wanted: dict[str, FileFacts] = {}  # incoming files that are not over, by subject
        self._left: dict[tuple[str, str], IncomingFile] = {}  # by job and name: let go of, and kept
        self._kept: set[str] = set()  # let go of while they were opened, by subject
        self._doors: dict[tuple[str, str], asyncio.Lock] = {}  # by job and name
        self._outgoing: dict[str, OutgoingFile] = {}
        self._said: dict[str, float] = {}
        self._saving: set[str] = set()

    # --- ports -----------------------------------------------------------------------------

    def folder(self, job: str) -> Path:
        """The folder of a job."""
        return self.root / job

    def results_of(self, job: str) -> Path:
        """Where a job's packed results are."""
        return self.folder(job) / "results.zip"

    def expect(self, job: str, files: Iterable[InputFile], directory: Path) -> None:
        """Takes these files of this job, and no others, into `directory`."""
        for file in files:
            self._expected[job, file.name] = (directory, file)

    def forget(self, job: str) -> None:
        """Takes no more files of this job."""
        for key in [key for key in self._left if key[0] == job]:
            self._left.pop(key).close()
        for kept in (self._expected, self._doors):
            for key in [key for key in kept if key[0] == job]:
                del kept[key]

    def take_chunk(self, session: str, frame: bytes) -> None:
        """Writes a chunk to its file; chunks of files that are not open are dropped.

        Raises:
            ProtocolError: the frame is no chunk.
        """
        chunk = decode_chunk(frame, limit=MAX_CHUNK)
        subject = f"{session}/{chunk.transfer}"
        file = self._incoming.get(subject)
        if file is None:
            return
        facts = self._wanted[subject]
        if len(frame) > facts.chunk:
            sentence = f"a chunk of {len(frame)} bytes is over the {facts.chunk} agreed"
            raise ProtocolError(ErrorCode.TOO_LARGE, sentence)
        try:
            file.write(chunk.offset, chunk.payload)
        except (ProtocolError, OSError) as error:
            self._not_stored(subject, error)
            return
        moved = Moved(
            job=facts.job, name=file.name, done=file.received, size=file.size, incoming=True
        )
        self._moved(subject, moved)
        if file.complete:
            self._emit(MachineName.RECEIVING, subject, ChunksCompleted())
        elif file.save_due and subject not in self._saving:
            self._saving.add(subject)
            self._spawn(
                (MachineName.RECEIVING, subject), partial(self._save, subject, file), "save"
            )

    async def _save(self, subject: str, file: IncomingFile) -> None:
        """What has arrived survives a crash from here on; not on the loop, for it waits."""
        try:
            await asyncio.to_thread(file.save)
        finally:
            self._saving.discard(subject)

    async def close(self) -> None:
        """Keeps what has arrived for a later offer of the same content."""
        files = (*self._incoming.values(), *self._left.values())
        self._incoming.clear()
        self._left.clear()
        await closed_in_threads(files)

    # --- effects: in -----------------------------------------------------------------------

    async def open_incoming(self, effect: OpenIncoming) -> None:
        """Opens the partial file of an announced file, and asks for what is missing."""
        facts, key = effect.facts, (effect.facts.job, effect.facts.name)
        expected = self._expected.get(key)
        if expected is None or (expected[1].size, expected[1].root) != (facts.size, facts.root):
            sentence = f"{facts.name} was not announced with this size and hash"
            self._not_stored(effect.subject, ProtocolError(ErrorCode.NOT_ANNOUNCED, sentence))
            return
        self._wanted[effect.subject] = replace(facts, chunk=min(facts.chunk, self._chunk))
        async with self._door(key):
            file = self._left.pop(key, None)  # of an earlier offer of the same content
            if file is None:
                try:
                    place = expected[0], facts.name, facts.size, facts.root
                    file = await opened_in_thread(partial(IncomingFile.open, *place))
                except (ProtocolError, OSError) as error:
                    self._not_stored(effect.subject, error)
                    return
            if effect.subject in self._wanted:
                self._incoming[effect.subject] = file
                self._ask(effect.subject, facts.session, facts.transfer)
            elif effect.subject not in self._kept:
                await asyncio.to_thread(file.discard)
            elif key in self._expected:  # its sender left while the disk was busy
                self._left[key] = file
            else:
                await asyncio.to_thread(file.close)
            self._kept.discard(effect.subject)

    def _door(self, key: tuple[str, str]) -> asyncio.Lock:
        """Opening, hashing and dropping one file of one job wait for each other."""
        return self._doors.setdefault(key, asyncio.Lock())

    def ask_missing(self, effect: AskMissing) -> None:
        """Asks again for what is missing."""
        self._ask(effect.subject, effect.facts.session, effect.facts.transfer)

    def _ask(self, subject: str, session: str, transfer: int) -> None:
        file = self._incoming.get(subject)
        if file is None:
            return
        if file.complete:
            self._emit(MachineName.RECEIVING, subject, ChunksCompleted())
            return
        ranges, chunk = file.missing()[:MAX_SPANS], self._wanted[subject].chunk
        self._send(session, FileNeed(transfer=transfer, ranges=ranges, chunk=chunk))

    async def verify_incoming(self, effect: VerifyIncoming) -> None:
        """Hashes the bytes, and gives the file its name if they are right."""
        facts, subject = effect.facts, effect.subject
        async with self._door((facts.job, facts.name)):
            file = self._incoming.get(subject)
            right = file is not None and await self._file_thread(file.verify)
            if file is None or subject not in self._wanted:
                return  # given up meanwhile; whoever gave it up sees to the file
            if right:
                await asyncio.to_thread(file.publish)
                self._emit(MachineName.RECEIVING, subject, DigestMatched())
                return
            await asyncio.to_thread(file.discard)
            place = self._expected[facts.job, facts.name][0], facts.name, facts.size, facts.root
            again = await opened_in_thread(partial(IncomingFile.open, *place))
            if subject in self._wanted:
                self._incoming[subject] = again
                self._emit(MachineName.RECEIVING, subject, DigestMismatched())
            else:
                await asyncio.to_thread(again.discard)

    def confirm_stored(self, effect: ConfirmStored) -> None:
        """Tells the sender that the file is here."""
        facts = effect.facts
        self._over(effect.subject)
        self._expected.pop((facts.job, facts.name), None)
        self._send(facts.session, FileStored(transfer=facts.transfer, root=facts.root))

    async def refuse_incoming(self, effect: RefuseIncoming) -> None:
        """Tells the sender why not, and drops what came."""
        facts = effect.facts
        self._send(
            facts.session,
            FileRefused(transfer=facts.transfer, code=facts.code, message=facts.reason),
        )
        await self._drop(effect.subject, facts)

    async def drop_incoming(self, effect: DropIncoming) -> None:
        """Drops what came."""
        await self._drop(effect.subject, effect.facts)

    def keep_incoming(self, effect: KeepIncoming) -> None:
        """Lets go of the file, for the next offer of it."""
        file, opening = self._incoming.get(effect.subject), effect.subject in self._wanted
        self._over(effect.subject)
        if file is not None:
            self._left[effect.facts.job, effect.facts.name] = file
        elif opening:
            self._kept.add(effect.subject)

    async def _drop(self, subject: str, facts: FileFacts) -> None:
        file = self._incoming.get(subject)
        self._over(subject)
        if file is not None:
            async with self._door((facts.job, facts.name)):
                await asyncio.to_thread(file.discard)

    def _not_stored(self, subject: str, error: ProtocolError | OSError) -> None:
        if isinstance(error, ProtocolError):
            code, reason = error.code, error.sentence
        else:  # without its path, which is nobody's business
            code, reason = ErrorCode.DISK_FULL, f"the disk refused: {error.strerror}"
        self._emit(MachineName.RECEIVING, subject, StorageFailed(code=code, reason=reason))

    # --- effects: out ----------------------------------------------------------------------

    def offer_file(self, effect: OfferFile) -> None:
        """Offers a file to the peer."""
        facts = effect.facts
        self._send(
            facts.session,
            FileOffer(
                transfer=facts.transfer,
                job=facts.job,
                name=facts.name,
                size=facts.size,
                root=facts.root,
                chunk=facts.chunk,
            ),
        )

    async def send_ranges(self, effect: SendRanges) -> None:
        """Sends the ranges that the peer asked for."""
        facts = effect.facts
        if not isinstance(effect.event, Received):
            return
        try:
            file = await self._source(effect)
            job, name, size = facts.job, facts.name, facts.size
            sent = size - sum(end - start for start, end in effect.event.message.ranges)

            def on_sent(count: int) -> None:
                nonlocal sent
                sent += count
                done = min(sent, size)
                moved = Moved(job=job, name=name, done=done, size=size, incoming=False)
                self._moved(effect.subject, moved)

            lane = SessionLane(facts.session, self._send_bulk)
            await pump(file.chunks(effect.event.message.ranges), lane, on_sent)
        except ConnectionError:
            return  # the link went: the coupling suspends, and the peer asks again
        except (SourceChanged, RangesRefused) as error:
            self._emit(MachineName.SENDING, effect.subject, SourceFailed(reason=error.sentence))
        except OSError as error:  # without its path, which is nobody's business
            reason = f"{facts.name} can't be read: {error.strerror}"
            self._emit(MachineName.SENDING, effect.subject, SourceFailed(reason=reason))

    async def _source(self, effect: SendRanges) -> OutgoingFile:
        subject, facts = effect.subject, effect.facts
        file = self._outgoing.get(subject)
        if file is None:
            path = Path(facts.path) if facts.path else self.results_of(facts.job)
            file = await OutgoingFile.open(
                path, facts.transfer, facts.chunk, in_thread=self._file_thread
            )
            if (file.size, file.root) != (facts.size, facts.root):
                raise SourceChanged(path, "changed")
            self._outgoing[subject] = file
        file.chunk = facts.chunk
        return file

    def stop_sending(self, effect: StopSending) -> None:
        """Sends no more of the file."""
        self._cancel((MachineName.SENDING, effect.subject), "send_ranges")
        self._over(effect.subject)

    def abort_outgoing(self, effect: AbortOutgoing) -> None:
        """Tells the receiver that the file will not come."""
        facts = effect.facts
        self._cancel((MachineName.SENDING, effect.subject), "send_ranges")
        self._over(effect.subject)
        self._send(facts.session, FileAbort(transfer=facts.transfer, message=facts.reason))

    async def delete_results(self, effect: DeleteResults) -> None:
        """Deletes the archive; the log stays."""
        await asyncio.to_thread(self.results_of(effect.subject).unlink, missing_ok=True)

    # --- progress --------------------------------------------------------------------------

    def _moved(self, subject: str, moved: Moved) -> None:
        self._watch(moved)
        now = time.monotonic()
        if now - self._said.get(subject, -SAY_EVERY) < SAY_EVERY:
            return
        self._said[subject] = now
        machine = self._incoming_of if moved.incoming else self._outgoing_of
        if machine is not None:
            self._emit(machine, moved.job, FileProgressed())
        if moved.incoming:
            self._emit(MachineName.RECEIVING, subject, FileProgressed())

    def _over(self, subject: str) -> None:
        for known in (self._incoming, self._outgoing, self._wanted, self._said):
            known.pop(subject, None)
