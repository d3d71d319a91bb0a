"""Rows of the worker's table: the free slot is kept for somebody, for a while.

Laws:

- A reservation has one holder and an end. A forgotten one blocks nobody: its timer gives the slot
  back.
- While it lasts, only a job of the holder gets the slot; that job ends the reservation.
- It lasts longer while a job of the holder is on its way in, and ends all the same after some
  minutes: whoever has begun to upload waits in the queue then.
- Whoever is refused hears everything that stands against it. Whoever asks hears an answer, also
  where what is here can't be looked at.
"""

from fsm_worker.effects import (
    CheckNeed,
    ConfirmRelease,
    EndReservation,
    GrantReservation,
    PublishStatus,
    RefuseReservation,
    ReplyError,
    arm,
    do,
)
from fsm_worker.events import (
    JournalFailed,
    NeedChecked,
    NeedCheckFailed,
    ReservationClaimed,
    ReservationUnclaimed,
    SlotRequested,
    TerminateRequested,
    Timer,
)
from fsm_worker.machines.draining import leaving
from fsm_worker.machines.engine import Guard, Ignored, Row, fold, put, take
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.messages import Release, Reserve

S, E = WorkerState, ErrorCode

#: How often a reservation can be renewed.
RENEWALS = 3
#: How often it goes on by itself, because a job of its holder is on its way in: ten minutes.
HOLDS = 20

fits = Guard("fits", lambda _facts, event: not event.unmet)
holder = Guard("holder", lambda facts, event: event.key == facts.holder)
holders_job = Guard("holders_job", lambda facts, event: event.owner == facts.holder)
renewable = Guard("renewable", lambda facts, _event: facts.renewals < RENEWALS)
claimed = Guard("claimed", lambda facts, _event: facts.claimed)
holdable = Guard("holdable", lambda facts, _event: facts.holds < HOLDS)

_TAKEN = (S.STARTING, S.BUSY, S.CLEANING, S.DRAINING, S.MAINTENANCE, S.DEGRADED)
_HERE = (S.AVAILABLE, S.RESERVED, *_TAKEN, S.STOPPING)
_GOES = do(RefuseReservation, code=E.WORKER_LEAVING, sentence="it leaves: ask another worker")
_LEAVING = do(EndReservation, code=E.WORKER_LEAVING, sentence="the worker leaves")

ROWS = (
    # what is needed is looked at in every state: what never fits is said at once
    Row("W37", _HERE, Reserve, (), None, (), (CheckNeed,)),
    Row("W38", _HERE, NeedChecked, (~fits,), None, (),
        (do(RefuseReservation, code=E.NEED_UNMET, sentence="this worker can't do it"),)),
    Row("W81", _HERE, NeedCheckFailed, (), None, (),
        (do(RefuseReservation, code=E.INTERNAL,
            sentence="what it has can't be looked at now: ask again, or another worker"),)),
    Row("W39", (S.AVAILABLE,), NeedChecked, (fits,), S.RESERVED,
        (take("holder", "key"), put("renewals", 0), put("holds", 0), put("claimed", False)),
        (GrantReservation, PublishStatus, arm(Timer.LEASE))),
    Row("W40", (S.RESERVED,), NeedChecked, (fits, holder, renewable), S.RESERVED,
        (fold("renewals", "renewals += 1", lambda facts, _event: facts.renewals + 1),),
        (GrantReservation, arm(Timer.LEASE))),
    Row("W41", (S.RESERVED,), NeedChecked, (fits, holder, ~renewable), None, (),
        (do(RefuseReservation, code=E.IN_PROGRESS,
            sentence="it was renewed as often as it may be: submit a job now"),)),
    Row("W42", (S.RESERVED,), NeedChecked, (fits, ~holder), None, (),
        (do(RefuseReservation, code=E.WORKER_BUSY,
            sentence="it is reserved for somebody else: ask again soon"),)),
    Row("W72", _TAKEN, NeedChecked, (fits, leaving), None, (), (_GOES,)),
    Row("W73", (S.STOPPING,), NeedChecked, (fits,), None, (), (_GOES,)),
    Row("W43", _TAKEN, NeedChecked, (fits, ~leaving), None, (),
        (do(RefuseReservation, code=E.WORKER_BUSY,
            sentence="its slot is not free now: submit to wait in its queue, or ask again"),)),
    # it ends
    Row("W44", (S.RESERVED,), SlotRequested, (holders_job,), S.BUSY,
        (take("slot", "job"),), (PublishStatus,)),
    Row("W45", (S.RESERVED,), Release, (holder,), S.AVAILABLE, (),
        (ConfirmRelease, PublishStatus)),
    Row("W46", (S.RESERVED,), Timer.LEASE, (~claimed,), S.AVAILABLE, (),
        (do(EndReservation, code=E.RESERVATION_EXPIRED,
            sentence="no job of yours came in time: reserve again"), PublishStatus)),
    Row("W47", (S.RESERVED,), Timer.LEASE, (claimed, holdable), S.RESERVED,
        (fold("holds", "holds += 1", lambda facts, _event: facts.holds + 1),),
        (arm(Timer.LEASE),)),
    Row("W71", (S.RESERVED,), Timer.LEASE, (claimed, ~holdable), S.AVAILABLE, (),
        (do(EndReservation, code=E.RESERVATION_EXPIRED,
            sentence="your job takes long to arrive: it waits in the queue now"), PublishStatus)),
    Row("W48", (S.RESERVED,), ReservationClaimed, (), None, (put("claimed", True),)),
    Row("W49", (S.RESERVED,), ReservationUnclaimed, (), None, (put("claimed", False),)),
    Row("W50", (S.RESERVED,), TerminateRequested, (), S.STOPPING, (put("asked", True),),
        (_LEAVING, PublishStatus, arm(Timer.LINGER))),
    Row("W51", (S.RESERVED,), JournalFailed, (), S.STOPPING, (take("reason"),),
        (_LEAVING, PublishStatus, arm(Timer.LINGER))),
    # nothing to give back
    Row("W52", (S.RESERVED,), Release, (~holder,), None, (),
        (do(ReplyError, code=E.NOT_HOLDER, sentence="the reservation is somebody else's"),)),
    Row("W53", (S.AVAILABLE, *_TAKEN, S.STOPPING), Release, (), None, (),
        (do(ReplyError, code=E.NOT_HOLDER, sentence="you have no reservation: it is over"),)),
)  # fmt: skip

IGNORED = (
    Ignored((S.STOPPED,), (NeedChecked, NeedCheckFailed), "nobody can hear the answer"),
)  # fmt: skip
