"""Tells clients about jobs and reservations: states, snapshots, logs, promises, and why it is so.

What may be asked, and when, is decided by the tables `worker`, `job` and `session`. A job is told
to every session of its owner's key; what a detached session misses is in its outbox.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from fsm_worker.effects import (
    CheckNeed,
    ConfirmRelease,
    EndReservation,
    GrantReservation,
    RefuseReservation,
    ReplyError,
    ReportState,
    SendExplanation,
    SendJobs,
    SendSnapshot,
    StreamLog,
)
from fsm_worker.events import (
    Event,
    NeedChecked,
    NeedCheckFailed,
    Received,
    Timer,
    event_name,
    key_of,
)
from fsm_worker.facts import JobFacts
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.reservation import RENEWALS
from fsm_worker.machines.world import THE_WORKER, World
from fsm_worker.services.explanation import NothingKnown, explanation
from fsm_worker.services.log_stream import LogCursor, LogFeed, OffsetRefused
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, ResultsState, WorkerState
from protocol.table import MachineName, tag_of

log = logging.getLogger(__name__)

#: Bytes of the snapshots in one answer to `jobs_get`; a frame holds little more.
MOST_BYTES = 48 * 1024


class JobCoordinator:
    """Speaks with clients about jobs and reservations.

    Args:
        world: to look up who owns what.
        send: sends a message to a session.
        send_log: sends a log message to a session when there is room.
        spawn: runs a task of a session.
        cancel: ends one.
        log_of: finds a job's log and its feed.
        journal: the file that says which rows have fired.
        emit: reports events.
        unmet: says what of a need is not met here; it may block.
        tell_peer: tells whoever has this key, and has no session, about its job.
        durations: seconds by timer, instead of the defaults.
    """

    def __init__(
        self,
        world: World,
        *,
        send: Callable[[str, m.Message], None],
        send_log: Callable[[str, m.Message], Awaitable[None]],
        spawn: Callable[
            [tuple[MachineName, str], Callable[[], Coroutine[Any, Any, None]], str], None
        ],
        cancel: Callable[[tuple[MachineName, str], str], None],
        log_of: Callable[[str], tuple[Path, LogFeed] | None],
        journal: Path,
        emit: Callable[[MachineName, str, Event], None],
        unmet: Callable[[Mapping[str, str]], tuple[str, ...]],
        tell_peer: Callable[[str, m.Message], None] = lambda _key, _message: None,
        durations: Mapping[Timer, float] = MappingProxyType({}),
    ) -> None:
        self._world = world
        self._send = send
        self._send_log = send_log
        self._spawn = spawn
        self._cancel = cancel
        self._log_of = log_of
        self._journal = journal
        self._emit = emit
        self._unmet = unmet
        self._tell_peer = tell_peer
        self._durations = durations
        self._submitted: dict[str, float] = {}

    # --- ports -----------------------------------------------------------------------------

    def tell(self, job: str, message: m.Message) -> None:
        """Sends a message about a job to its owner's sessions."""
        instance = self._world.get(MachineName.JOB, job)
        if instance is not None:
            self._tell_owner(instance.facts.owner, message)

    def _tell_owner(self, owner: str, message: m.Message) -> None:
        for session in self._world.live(MachineName.SESSION):
            if session.facts.key == owner:
                self._send(session.subject, message)
        self._tell_peer(owner, message)

    # --- reservations ----------------------------------------------------------------------

    def check_need(self, effect: CheckNeed) -> None:
        """Compares what the asker needs with what is here; each asker has a task of its own."""
        event = effect.event
        if isinstance(event, Received):
            need, task = dict(event.message.need), f"need of {event.session} at"
            address = (MachineName.WORKER, effect.subject)
            self._cancel(address, task)  # whoever asks again wants the newer answer
            self._spawn(address, partial(self._check, event.key, event.session, need), task)

    async def _check(self, key: str, session: str, need: Mapping[str, str]) -> None:
        answer: NeedChecked | NeedCheckFailed
        try:
            unmet = await asyncio.to_thread(self._unmet, need)
        except Exception as error:  # whatever it is, the asker waits for an answer
            log.warning("! what this worker has can't be looked at: %s", error, exc_info=error)
            answer = NeedCheckFailed(key=key, session=session)
        else:
            answer = NeedChecked(key=key, session=session, unmet=unmet)
        self._emit(MachineName.WORKER, THE_WORKER, answer)

    def grant_reservation(self, effect: GrantReservation) -> None:
        """Tells the asker that the slot is kept for it."""
        if isinstance(effect.event, NeedChecked):
            lease = seconds(Timer.LEASE, effect.facts, self._durations) or 0.0
            left = RENEWALS - effect.facts.renewals
            self._send(effect.event.session, m.Reserved(seconds=lease, renewals=left))

    def refuse_reservation(self, effect: RefuseReservation) -> None:
        """Tells the asker everything that stands against it."""
        event = effect.event
        if isinstance(event, NeedChecked | NeedCheckFailed):
            unmet = event.unmet if isinstance(event, NeedChecked) else ()
            refusal = m.ReserveRefused(
                code=effect.code,
                reasons=unmet or (effect.sentence,),
                state=WorkerState(effect.after),
            )
            self._send(event.session, refusal)

    def confirm_release(self, effect: ConfirmRelease) -> None:
        """Tells the asker that its reservation is over."""
        if isinstance(effect.event, Received):
            self._send(effect.event.session, m.Released())

    def end_reservation(self, effect: EndReservation) -> None:
        """Tells the holder that its reservation is over, though it did not ask for that."""
        over = m.ReservationOver(code=effect.code, reason=effect.sentence)
        self._tell_owner(effect.facts.holder, over)

    # --- effects ---------------------------------------------------------------------------

    def report_state(self, effect: ReportState) -> None:
        """Tells the owner which row fired."""
        facts: JobFacts = effect.facts
        self._tell_owner(
            facts.owner,
            m.JobStateChanged(
                job=effect.subject,
                before=JobState(effect.before),
                state=JobState(effect.after),
                row=effect.row,
                event=event_name(key_of(effect.event)),
                outcome=facts.outcome,
                problems=facts.problems,
                stage=facts.stage,
                stages=facts.stages,
                results=facts.results,
            ),
        )

    def send_snapshot(self, effect: SendSnapshot) -> None:
        """Tells the asker everything about the job."""
        if isinstance(effect.event, Received):
            known = self._world.get
            for job in [job for job in self._submitted if known(MachineName.JOB, job) is None]:
                del self._submitted[job]
            self._submitted.setdefault(effect.subject, time.time())
            snapshot = self._snapshot(effect.subject, effect.facts, JobState(effect.after))
            self._send(effect.event.session, snapshot)

    def send_jobs(self, effect: SendJobs) -> None:
        """Tells the asker its jobs."""
        if isinstance(effect.event, Received):
            newest: list[m.JobSnapshot] = []
            room = MOST_BYTES
            jobs = self._world.all(MachineName.JOB)
            for job in sorted(jobs, key=lambda job: -self._submitted.get(job.subject, 0.0)):
                if job.facts.owner != effect.event.key:
                    continue
                snapshot = self._snapshot(job.subject, job.facts, job.state)
                room -= len(msgspec.json.encode(snapshot))
                if room < 0:
                    break
                newest.append(snapshot)
            self._send(effect.event.session, m.Jobs(jobs=tuple(reversed(newest))))

    def reply_error(self, effect: ReplyError) -> None:
        """Answers the message with a typed error."""
        if isinstance(effect.event, Received):
            self._send(
                effect.event.session,
                m.Error(
                    code=effect.code,
                    message=effect.sentence,
                    about=tag_of(type(effect.event.message)),
                    job=str(getattr(effect.event.message, "job", "")),
                    row=effect.row,
                ),
            )

    def send_explanation(self, effect: SendExplanation) -> None:
        """Tells the asker which rows led there, read from the journal.

        Of the worker's rows nobody else's data is told: no facts, no jobs, no owners.
        """
        if isinstance(effect.event, Received):
            job = effect.subject if effect.of is MachineName.JOB else ""
            session, task = effect.event.session, f"explanation of {job or THE_WORKER} to"
            about = tag_of(type(effect.event.message))
            self._cancel((MachineName.SESSION, session), task)
            self._spawn(
                (MachineName.SESSION, session), partial(self._explain, session, job, about), task
            )

    async def _explain(self, session: str, job: str, about: str) -> None:
        try:
            self._send(session, await asyncio.to_thread(explanation, self._journal, job))
        except (OSError, sqlite3.Error, NothingKnown) as error:
            why = getattr(error, "strerror", None) or error  # its path is nobody's business
            sentence = f"the worker's journal can't be read: {why}"
            refusal = m.Error(code=ErrorCode.INTERNAL, message=sentence, about=about, job=job)
            self._send(session, refusal)

    def stream_log(self, effect: StreamLog) -> None:
        """Sends the job's log from an offset to the asker, and follows it."""
        if not isinstance(effect.event, Received):
            return
        session, task = effect.event.session, f"log of {effect.subject} to"
        found = self._log_of(effect.subject)
        if found is None:  # it was refused before it had a log
            self._spawn(
                (MachineName.SESSION, session),
                partial(self._end_log, session, effect.subject),
                task,
            )
            return
        path, feed = found
        offset = effect.event.message.offset
        self._cancel((MachineName.SESSION, session), task)  # one stream of a log for each reader
        self._spawn(
            (MachineName.SESSION, session),
            partial(self._follow, session, effect.subject, LogCursor(path, offset, feed)),
            task,
        )

    async def _end_log(self, session: str, job: str) -> None:
        with contextlib.suppress(ConnectionError):  # the reader has gone
            await self._send_log(session, m.LogEnd(job=job, size=0))

    async def _follow(self, session: str, job: str, cursor: LogCursor) -> None:
        told = cursor.offset
        try:
            async for piece in cursor:  # bytes that show nothing belong to the next piece
                await self._send_log(
                    session, m.Log(job=job, offset=told, next=piece.next, text=piece.text)
                )
                told = piece.next
            if told < cursor.offset:
                await self._send_log(
                    session, m.Log(job=job, offset=told, next=cursor.offset, text="")
                )
            await self._send_log(session, m.LogEnd(job=job, size=cursor.offset))
        except ConnectionError:
            log.debug("- log of %s: the reader has gone; it asks again by offset", job)
        except OffsetRefused as error:
            self._refuse_log(session, job, error.code, error.sentence)
        except OSError as error:
            sentence = f"the log can't be read: {error.strerror}"
            self._refuse_log(session, job, ErrorCode.INTERNAL, sentence)

    def _refuse_log(self, session: str, job: str, code: ErrorCode, sentence: str) -> None:
        self._send(session, m.Error(code=code, message=sentence, about="log_get", job=job))

    # --- inside ----------------------------------------------------------------------------

    def _snapshot(self, job: str, facts: JobFacts, state: JobState) -> m.JobSnapshot:
        found = self._log_of(job)
        results = self._world.get(MachineName.RESULTS, job)
        held = results.state if results is not None else ResultsState.NONE
        return m.JobSnapshot(
            job=job,
            name=facts.name,
            state=state,
            outcome=facts.outcome,
            problems=facts.problems,
            stage=facts.stage,
            stages=facts.stages,
            log_bytes=found[0].stat().st_size if found is not None and found[0].exists() else 0,
            results=msgspec.structs.replace(facts.results, state=held),
            submitted_at=self._submitted.get(job, 0.0),
        )
