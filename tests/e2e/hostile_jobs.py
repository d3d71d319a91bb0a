"""What a hostile native client does about jobs and packages, and what the worker must answer.

`JobVisit` has one method for each thing that it does (`hostile_visit` has the rest); the method
says it, and gives every reply that is due, and no other may come.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from protocol import BULK_LABEL
from protocol import messages as m
from protocol.bulk import encode_chunk
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import ROW_OF, Replay, tag_of
from tests.e2e.hostile_native import (
    INPUT,
    PATIENCE_S,
    Job,
    Native,
    Place,
    Reply,
    Step,
    due,
    refused,
)

J, O, W, E = JobState, Outcome, WorkerState, ErrorCode  # noqa: E741
_FINAL = (J.DONE, J.REJECTED)
#: A hash that nothing here has.
_NO_ROOT = "0" * 64
#: Come by themselves, or stand for nothing that was asked for.
_ASIDE = (m.Ack, m.Ping, m.Pong, m.Telemetry, m.Progress, m.Log)


class JobVisit:
    """One link, from its welcome to its end."""

    def __init__(self, peer: Native, place: Place) -> None:
        self.peer, self.place = peer, place
        self.jobs: dict[str, Job] = {}
        self.queue: list[Job] = []
        self.status: Reply | None = None  # the newest that was said in this session
        self._pings = itertools.count(1)
        self._transfers = itertools.count(1)
        self._read = len(peer.heard)
        self._last: m.Message | None = None
        place.visits += 1

    async def plays(self, step: Step) -> None:
        """Does it, and hears what is due, and nothing else."""
        expected = getattr(self, step.word)(step)
        ping = next(self._pings)
        self.place.said.add(m.Ping)
        self.peer.say(m.Ping(n=ping))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self._news()) < len(expected) or m.Pong(n=ping) not in self.peer.heard:
                    await self.peer.moves()
        except TimeoutError:
            pass  # what is missing is said below
        got = self._news()
        self._read = len(self.peer.heard)
        missing = list(expected)
        for message in got:
            fitting = next((reply for reply in missing if reply.fits(message)), None)
            assert fitting is not None, f"{step}: {message} came, and {missing} is due"
            missing.remove(fitting)
            self._note(message)
        assert not missing, f"{step}: {missing} did not come"
        for reply in expected or [None]:
            said = reply.fields.get("code", tag_of(reply.kind)) if reply is not None else "nothing"
            self.place.reached[step.word, str(said)] += 1

    def _news(self) -> list[m.Message]:
        return [said for said in self.peer.heard[self._read :] if not isinstance(said, _ASIDE)]

    def _note(self, message: m.Message) -> None:
        """What can't be known beforehand: numbers and hashes that the worker chose."""
        match message:
            case m.FileOffer(job=job):
                self.jobs[job].offered = message
            case m.JobStateChanged(state=J.DONE, outcome=O.SUCCEEDED, job=job):
                assert message.results.root, "its log is a result at least"
            case m.WorkerStatus():
                self.status = due(m.WorkerStatus, state=message.state, job=message.job)
            case m.Jobs():
                mine = {one.job: one.state for one in message.jobs if one.job in self.jobs}
                assert mine == {job.id: job.state for job in self.jobs.values()}
                assert self.place.good not in {one.job for one in message.jobs}
            case m.LogEnd(job=job, size=size):
                pieces = [one for one in self.peer.told(m.Log) if one.job == job]
                assert not pieces or pieces[-1].next == size

    def _say(self, message: m.Message) -> None:
        self.peer.say(message)
        self.place.said.add(type(message))
        if ROW_OF[type(message)].replay is Replay.ALL:
            self._last = message

    # --- jobs --------------------------------------------------------------------------------

    def _id(self, which: int) -> str:
        """Four of ours, one of the other client, one of nobody."""
        if which == 4:
            return self.place.good
        return "nobodys-job" if which > 4 else f"hostile-{self.place.visits}-{which}"

    def submit(self, step: Step) -> list[Reply]:
        job, name = self._id(step.which), f"name-{step.way % 2}"
        if step.which > 4:
            return self.submit_what_no_worker_runs(step)
        script = "wait" if step.which == 3 else "done"
        package = self.place.packages[script]
        file = m.InputFile(name=INPUT, size=package.size, root=package.root)
        message = m.Submit(job=job, spec=m.JobSpec(name=name), inputs=(file,))
        self._say(message)
        known = self.jobs.get(job)
        if job == self.place.good or (known is not None and known.name != name):
            return [refused(E.JOB_CONFLICT, message)]
        known = self.jobs.setdefault(job, Job(job, name, script))
        return [due(m.JobSnapshot, job=job, state=known.state, outcome=known.outcome, name=name)]

    def submit_what_no_worker_runs(self, step: Step) -> list[Reply]:
        job = f"hostile-{self.place.visits}-bad"
        message = m.Submit(job=job, spec=m.JobSpec(kind="?", name="bad"))
        self._say(message)
        self.jobs.setdefault(job, Job(job, "bad", "", J.REJECTED, O.REJECTED))
        return [due(m.JobSnapshot, job=job, state=J.REJECTED, outcome=O.REJECTED)]

    def attach(self, step: Step) -> list[Reply]:
        def answer(job: Job) -> list[Reply]:
            return [due(m.JobSnapshot, job=job.id, state=job.state, outcome=job.outcome)]

        return self._of_mine(m.Attach(job=self._id(step.which)), answer)

    def explain(self, step: Step) -> list[Reply]:
        def answer(job: Job) -> list[Reply]:
            return [due(m.Explained, job=job.id, state=job.state)]

        return self._of_mine(m.Explain(job=self._id(step.which)), answer)

    def log_get(self, step: Step) -> list[Reply]:
        offset = 0 if step.way % 3 else 2**40
        message = m.LogGet(job=self._id(step.which), offset=offset)

        def answer(job: Job) -> list[Reply]:
            if job.state is J.REJECTED:  # it never had a log
                return [due(m.LogEnd, job=job.id, size=0)]
            if offset:
                job.follows = False  # the newer question ends the older one
                return [due(m.Error, code=E.MALFORMED, about="log_get", job=job.id)]
            job.follows = job.state not in _FINAL
            return [] if job.follows else [due(m.LogEnd, job=job.id)]

        return self._of_mine(message, answer)

    def stop(self, step: Step) -> list[Reply]:
        message = m.Stop(job=self._id(step.which))

        def answer(job: Job) -> list[Reply]:
            if job.state is J.RUNNING:
                job.state = J.STOPPING
                return [self._changed(job)]
            code = E.IN_PROGRESS if job.state is J.STOPPING else E.ALREADY_TERMINAL
            return self._given_up(job) or [refused(code, message)]

        return self._of_mine(message, answer)

    def cancel(self, step: Step) -> list[Reply]:
        message = m.Cancel(job=self._id(step.which))

        def answer(job: Job) -> list[Reply]:
            if job.id != self.place.slot:
                return self._given_up(job) or [refused(E.ALREADY_TERMINAL, message)]
            cancelling = due(m.JobStateChanged, job=job.id, state=J.CANCELLING, outcome=O.NONE)
            return [cancelling, *self._leaves_slot(job, O.CANCELLED)]

        return self._of_mine(message, answer)

    def _of_mine(self, message: Any, answer: Callable[[Job], list[Reply]]) -> list[Reply]:
        self._say(message)
        job = self.jobs.get(message.job)
        return answer(job) if job is not None else [refused(E.UNKNOWN_JOB, message)]

    def _changed(self, job: Job) -> Reply:
        return due(m.JobStateChanged, job=job.id, state=job.state, outcome=job.outcome)

    def _given_up(self, job: Job) -> list[Reply]:
        """It waits, and ends at once; nothing is due of one that does not."""
        if job.state not in {J.STAGING, J.QUEUED}:
            return []
        if job in self.queue:
            self.queue.remove(job)
        unwanted = self._unwanted(job, E.ABORTED)
        return [*unwanted, *self._ends(job, O.CANCELLED)]

    def _unwanted(self, job: Job, code: ErrorCode) -> list[Reply]:
        transfer, job.arriving = job.arriving, 0
        return [due(m.FileRefused, transfer=transfer, code=code)] if transfer else []

    def _ends(self, job: Job, outcome: Outcome) -> list[Reply]:
        job.state, job.outcome = J.DONE, outcome
        log = [due(m.LogEnd, job=job.id)] if job.follows else []
        job.follows = False
        return [self._changed(job), *log]

    def _leaves_slot(self, job: Job, outcome: Outcome) -> list[Reply]:
        """Its outcome is fixed; the slot is cleaned, and goes to the next."""
        self.place.slot = ""
        replies = [
            due(m.JobStateChanged, job=job.id, state=J.COLLECTING, outcome=outcome),
            due(m.WorkerStatus, state=W.CLEANING, job=job.id),
            *self._ends(job, outcome),
        ]
        if not self.queue:
            return [*replies, due(m.WorkerStatus, state=W.AVAILABLE, job="")]
        # who asks is told how it is now, and now the next has the slot
        return [*replies, due(m.WorkerStatus, state=W.BUSY, job=self.queue[0].id), *self._granted()]

    def _granted(self) -> list[Reply]:
        """The slot goes to whoever waits longest, if it is free."""
        if self.place.slot or not self.queue:
            return []
        job, self.place.reserved = self.queue.pop(0), False
        self.place.slot, job.state = job.id, J.RUNNING
        preparing = due(m.JobStateChanged, job=job.id, state=J.PREPARING)
        replies = [due(m.WorkerStatus, state=W.BUSY, job=job.id), preparing, self._changed(job)]
        if job.script == "wait":
            return replies
        job.results = "held"
        return [*replies, *self._leaves_slot(job, O.SUCCEEDED)]

    # --- a package comes -----------------------------------------------------------------------

    def file_offer(self, step: Step) -> list[Reply]:
        job, transfer = self.jobs.get(self._id(step.which)), next(self._transfers)
        package = self.place.packages[(job and job.script) or "done"]
        right = {"name": INPUT, "size": package.size, "root": package.root}
        wrong = {0: {"root": _NO_ROOT}, 1: {"size": package.size + 1}, 2: {"name": "other.zip"}}
        spoilt: dict[str, Any] = wrong.get(step.way % 12, {})
        message = m.FileOffer(transfer=transfer, job=self._id(step.which), **{**right, **spoilt})
        self._say(message)
        if job is None:
            return [refused(E.UNKNOWN_JOB, message)]
        if job.state is not J.STAGING:
            return [due(m.FileRefused, transfer=transfer, code=E.ABORTED)]
        refusal = [due(m.FileRefused, transfer=transfer, code=E.NOT_ANNOUNCED)]
        if "name" in spoilt:
            return refusal
        if spoilt:  # what is offered as the package is none, so there will be none
            job.arriving = 0
            return [*refusal, *self._ends(job, O.FAILED)]
        job.arriving = transfer
        return [due(m.FileNeed, transfer=transfer, ranges=((0, package.size),))]

    def upload(self, step: Step) -> list[Reply]:
        job = self.jobs.get(self._id(step.which))
        if job is None or not job.arriving:
            return []
        package, transfer = self.place.packages[job.script], job.arriving
        data, middle = package.path.read_bytes(), package.size // 2
        bad = step.way % 5 == 0
        if bad:
            data = bytes(byte ^ 1 for byte in data)
        for start, end in ((middle, package.size), (middle, package.size), (0, middle + 1)):
            self.peer.lanes[BULK_LABEL].send(encode_chunk(transfer, start, data[start:end]))
        if not bad:
            job.arriving, job.state = 0, J.QUEUED
            self.queue.append(job)
            stored = due(m.FileStored, transfer=transfer, root=package.root)
            validating = due(m.JobStateChanged, job=job.id, state=J.VALIDATING)
            return [stored, validating, self._changed(job), *self._granted()]
        job.tries += 1
        if job.tries <= 2:
            return [due(m.FileNeed, transfer=transfer, ranges=((0, package.size),))]
        return [*self._unwanted(job, E.HASH_MISMATCH), *self._ends(job, O.FAILED)]
