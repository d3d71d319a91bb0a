"""What a hostile native client does beside its jobs: results, the slot, frames without meaning."""

import hashlib

from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL
from protocol import messages as m
from protocol.bulk import decode_chunk, encode_chunk
from protocol.codec import MAX_FRAME, Frame, encode
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.hostile_jobs import JobVisit
from tests.e2e.hostile_native import Job, Reply, Step, due, refused

J, O, W, E = JobState, Outcome, WorkerState, ErrorCode  # noqa: E741

_GOOD_CHUNK = encode_chunk(7, 0, b"bytes of no file")
#: Frames without meaning, the lane they come by, and what is said of them. Of these a link takes
#: two: with the third it is let go.
NONSENSE: tuple[tuple[str, str | bytes, ErrorCode], ...] = (
    (CONTROL_LABEL, "{", E.MALFORMED),
    (CONTROL_LABEL, b"\xff\xfe", E.MALFORMED),
    (CONTROL_LABEL, '{"msg": {"type": "no_such_thing"}}', E.UNKNOWN_TYPE),
    (CONTROL_LABEL, encode(Frame(msg=m.WorkerStatus(name="", state=W.BUSY))), E.UNKNOWN_TYPE),
    (CONTROL_LABEL, encode(Frame(seq=9, msg=m.Stop(job="No-Job"))), E.MALFORMED),
    (CONTROL_LABEL, encode(Frame(msg=m.WorkerGet())), E.MALFORMED),  # it needs a number
    (CONTROL_LABEL, encode(Frame(seq=1, msg=m.Ack())), E.MALFORMED),  # and that has none
    (CONTROL_LABEL, '{"msg":' + "[" * 40 + "]" * 40 + "}", E.TOO_DEEP),
    (CONTROL_LABEL, " " * (MAX_FRAME + 1), E.TOO_LARGE),
    (LOG_LABEL, encode(Frame(msg=m.Ack())), E.MALFORMED),  # of another lane
    (BULK_LABEL, "text", E.MALFORMED),
    (BULK_LABEL, b"\x02" + _GOOD_CHUNK[1:], E.VERSION_UNKNOWN),
    (BULK_LABEL, _GOOD_CHUNK[:-1] + b"!", E.HASH_MISMATCH),
)
STRIKES = 2


class Visit(JobVisit):
    """All of it."""

    strikes = 0

    # --- results -------------------------------------------------------------------------------

    def fetch(self, step: Step) -> list[Reply]:
        message = m.Fetch(job=self._id(step.which))

        def answer(job: Job) -> list[Reply]:
            if job.results == "held":
                job.results = "delivering"
                return [due(m.FileOffer, job=job.id, name=f"{job.id}.zip")]
            if job.results:
                return [refused(E.IN_PROGRESS, message)]
            ended = job.state in {J.DONE, J.REJECTED}
            return [refused(E.RESULTS_EXPIRED if ended else E.RESULTS_NOT_READY, message)]

        return self._of_mine(message, answer)

    def file_need(self, step: Step) -> list[Reply]:
        """The right bytes, or bytes that the file has not."""
        job, offer = self._offered(step)
        if job is None:
            return self._of_no_file(m.FileNeed(transfer=offer, ranges=()))
        assert job.offered is not None
        size, bad = job.offered.size, step.way % 2
        self._say(m.FileNeed(transfer=offer, ranges=((0, size + bad),)))
        if bad:
            job.results = "held"
            return [due(m.FileAbort, transfer=offer)]
        return []

    def file_stored(self, step: Step) -> list[Reply]:
        """The word that it has them; with another hash they are still to be delivered."""
        job, offer = self._offered(step)
        if job is None:
            return self._of_no_file(m.FileStored(transfer=offer, root="0" * 64))
        assert job.offered is not None
        root = job.offered.root if step.way % 2 else "0" * 64
        self._say(m.FileStored(transfer=offer, root=root))
        job.results = "held"
        return []

    def file_refused(self, step: Step) -> list[Reply]:
        job, offer = self._offered(step)
        message = m.FileRefused(transfer=offer, code=E.DISK_FULL, message="no room")
        if job is None:
            return self._of_no_file(message)
        self._say(message)
        job.results = "held"
        return []

    def file_abort(self, step: Step) -> list[Reply]:
        job = self.jobs.get(self._id(step.which))
        if job is None or not job.arriving:
            return self._of_no_file(m.FileAbort(transfer=2**32 - 1))
        self._say(m.FileAbort(transfer=job.arriving, message="another time"))
        job.arriving = 0
        return self._ends(job, O.FAILED)  # the sender gave up, so there will be no package

    def _offered(self, step: Step) -> tuple[Job | None, int]:
        """A job whose results are on their way to us, and by which transfer."""
        job = self.jobs.get(self._id(step.which))
        if job is None or job.results != "delivering" or job.offered is None:
            return None, 2**32 - 1
        return job, job.offered.transfer

    def _of_no_file(self, message: m.Message) -> list[Reply]:
        self._say(message)
        return [refused(E.UNKNOWN_TRANSFER, message)]

    async def takes(self, job: Job) -> bytes:
        """Asks for results, and waits for their bytes."""
        assert job.offered is not None
        self.peer.chunks.clear()
        await self.plays(Step("file_need", int(job.id[-1])))
        got = bytearray(job.offered.size)
        have = 0
        while have < job.offered.size:
            while not self.peer.chunks:
                await self.peer.moves()
            chunk = decode_chunk(self.peer.chunks.pop(0))
            got[chunk.offset : chunk.offset + len(chunk.payload)] = chunk.payload
            have += len(chunk.payload)
        assert hashlib.sha256(got).hexdigest() == job.offered.root
        return bytes(got)

    # --- the slot ------------------------------------------------------------------------------

    def worker_get(self, _step: Step) -> list[Reply]:
        self._say(m.WorkerGet())
        return [self._worker_now()]

    def _worker_now(self) -> Reply:
        slot = self.place.slot
        return due(m.WorkerStatus, state=self.place.state, job=slot if slot in self.jobs else "")

    def explain_worker(self, _step: Step) -> list[Reply]:
        self._say(m.ExplainWorker())
        return [due(m.Explained, job="", state=self.place.state)]

    def jobs_get(self, _step: Step) -> list[Reply]:
        self._say(m.JobsGet())  # what is in it, `_note` compares
        return [due(m.Jobs)]

    def reserve(self, step: Step) -> list[Reply]:
        place, fits = self.place, step.way % 4 != 0
        self._say(m.Reserve(need={} if fits else {"vram": "900TiB"}))
        code = E.WORKER_BUSY if fits else E.NEED_UNMET
        if place.reserved and fits and place.renewals == 0:
            code = E.IN_PROGRESS
        elif fits and not place.slot:
            new, place.reserved = not place.reserved, True
            place.renewals = 3 if new else place.renewals - 1
            told = [self._worker_now()] if new else []
            return [due(m.Reserved, renewals=place.renewals), *told]
        return [due(m.ReserveRefused, code=code, state=place.state)]

    def release(self, _step: Step) -> list[Reply]:
        message = m.Release()
        self._say(message)
        if not self.place.reserved:
            return [refused(E.NOT_HOLDER, message)]
        self.place.reserved = False
        return [due(m.Released), self._worker_now()]

    def drain(self, step: Step) -> list[Reply]:
        message = m.Drain(reason="mine") if step.way % 2 else m.Undrain()
        self._say(message)
        return [refused(E.NOT_AUTHORISED, message)]

    # --- without an answer -----------------------------------------------------------------------

    def says_what_needs_no_answer(self, step: Step) -> list[Reply]:
        self._say(m.Ack())
        self._say(m.Pong(n=step.way))
        self._say(m.Error(code=E.INTERNAL, message="no", about="submit"))
        self._say(m.Hello(versions=(1,), role="client", key="K", nonce="N", session="another"))
        self._say(m.Proof(signature="S"))
        return []

    def sends_bytes_of_no_file(self, _step: Step) -> list[Reply]:
        self.peer.lanes[BULK_LABEL].send(_GOOD_CHUNK)
        return []

    def says_the_last_once_more(self, _step: Step) -> list[Reply]:
        """With its number: the worker has it already."""
        if self._last is not None:
            self.peer.say(self._last, number=self.peer._numbers)
        return []

    def resume(self, _step: Step) -> list[Reply]:
        """It has all that is numbered; the newest of the rest is said again."""
        self._say(m.Resume(received=self.peer.newest))
        return [self.status] if self.status is not None else []

    def says_nonsense(self, _step: Step) -> list[Reply]:
        """Each kind in its turn, over all visits."""
        if self.strikes >= STRIKES:
            return []
        self.strikes += 1
        self.place.nonsense += 1
        label, data, code = NONSENSE[self.place.nonsense % len(NONSENSE)]
        self.peer.lanes[label].send(data)
        return [due(m.Error, code=code, about="", row="")]

    # --- its end ---------------------------------------------------------------------------------

    async def leaves(self, way: int) -> None:
        """Gives back what it has, and ends the link in one of five ways."""
        if self.place.reserved:
            await self.plays(Step("release"))
        for job in list(self.jobs.values()):
            if job.results == "held":
                await self.plays(Step("fetch", int(job.id[-1])))
            if job.results == "delivering":
                assert await self.takes(job)
                await self.plays(Step("file_stored", int(job.id[-1]), 1))
        for job in sorted(self.jobs.values(), key=lambda job: job.state is not J.QUEUED):
            if job.state not in {J.DONE, J.REJECTED}:
                await self.plays(Step("cancel", int(job.id[-1])))
        match way % 5:
            case 0:
                self._say(m.Bye(reason="enough"))
            case 1:
                self.peer.say(m.Resume(received=2**40))  # the worker never said so much
                assert "this session is over" in (await self.peer.hears(m.Bye)).reason
            case 2:
                for label, data, _ in NONSENSE[: STRIKES + 1 - self.strikes]:
                    self.peer.lanes[label].send(data)
                assert "without meaning" in (await self.peer.hears(m.Bye)).reason
            case 3:
                self.peer.say(m.WorkerGet(), number=self.peer._numbers + 2)  # one is missing
            case _:
                return  # it breaks off
        await self.peer.is_let_go()
