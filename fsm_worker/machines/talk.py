"""One negotiation with a client of sleap-rtc, which speaks through the signaling server.

It is the peer's word for one job of it. What it asks for is asked of the worker as a native client
does; what the worker answers is put into its words.

Laws:

- Who may not submit a job negotiates none: it hears why, and nothing is remembered of it.
- A promise is the worker's. What it has not promised does not end with its reservation, and what it
  has promised is told when it ends.
- A job belongs to one negotiation: the one that the slot was kept for. A job that was there before
  is none of it.
- How its job ended is said once, and ends it.
- A forgotten one ends by itself.
"""

from fsm_worker.effects import (
    AskSlot,
    GiveSlotBack,
    RefuseWord,
    TellComing,
    TellJob,
    TellKept,
    TellLost,
    TellNotDropped,
    TellRefused,
    TellReleased,
    TellUnknown,
    ThrowJobAway,
    arm,
)
from fsm_worker.events import (
    Crowded,
    DropRefused,
    EffectFailed,
    JobAsked,
    JobAssigned,
    JobCame,
    JobDropped,
    JobGone,
    JobTold,
    SlotKept,
    SlotLost,
    SlotRefused,
    SlotReleased,
    Timer,
)
from fsm_worker.facts import TalkFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, put, take
from protocol.lifecycle import JobState, TalkState
from protocol.table import MachineName

S = TalkState

may = Guard("may", lambda _facts, event: not event.reason)
assigned = Guard("assigned", lambda facts, _event: facts.assigned)
ended = Guard("ended", lambda _facts, event: event.state in {JobState.DONE, JobState.REJECTED})

_who = (take("peer"), take("label"))
_anew = (*_who, take("key"), take("need"), take("older"), put("assigned", False), put("job", ""))

_BEFORE = (S.ASKED, S.KEPT)
_AT_WORK = (S.WORKING, S.ENDING)
_TALKS = (*_BEFORE, S.WORKING)
LIVE = (*_BEFORE, *_AT_WORK)

ROWS = (
    # it asks for the slot, or asks anew
    Row("P1", (S.NEW, *LIVE), JobAsked, (may,), S.ASKED, _anew, (AskSlot, arm(Timer.TALK))),
    Row("P2", (S.NEW,), JobAsked, (~may,), S.OVER, _who, (RefuseWord,)),
    Row("P3", LIVE, JobAsked, (~may,), None, (), (RefuseWord,)),
    # it says that it comes
    Row("P4", _TALKS, JobAssigned, (may,), None, (put("assigned", True),), (AskSlot,)),
    Row("P5", _TALKS, JobAssigned, (~may,), None, (), (RefuseWord,)),
    Row("P6", (S.NEW,), JobAssigned, (may,), S.OVER, _who, (TellUnknown,)),
    Row("P7", (S.NEW,), JobAssigned, (~may,), S.OVER, _who, (RefuseWord,)),
    # it thinks better of it
    Row("P8", _BEFORE, JobDropped, (may,), None, (), (GiveSlotBack,)),
    Row("P9", _BEFORE, JobDropped, (~may,), None, (), (RefuseWord,)),
    Row("P10", (S.WORKING,), JobDropped, (), None, (), (ThrowJobAway,)),
    Row("P11", (S.NEW,), JobDropped, (may,), S.OVER, _who, (TellUnknown,)),
    Row("P12", (S.NEW,), JobDropped, (~may,), S.OVER, _who, (RefuseWord,)),
    # what the worker answers
    Row("P13", _BEFORE, SlotKept, (~assigned,), S.KEPT, (), (TellKept, arm(Timer.TALK))),
    Row("P14", _BEFORE, SlotKept, (assigned,), S.KEPT, (), (TellComing, arm(Timer.TALK))),
    Row("P15", (S.WORKING,), SlotKept, (), None, (), (TellComing,)),
    Row("P16", (S.ASKED,), SlotRefused, (), S.OVER, (), (TellRefused,)),
    Row("P17", (S.KEPT, S.WORKING), SlotRefused, (), None, (), (TellRefused,)),
    Row("P18", _BEFORE, SlotReleased, (), S.OVER, (), (TellReleased,)),
    Row("P19", _TALKS, DropRefused, (), None, (), (TellNotDropped,)),
    Row("P20", (S.KEPT,), SlotLost, (), S.OVER, (), (TellLost,)),
    # its job
    Row("P21", (S.KEPT,), JobCame, (), S.WORKING, (take("job"),)),
    Row("P22", _AT_WORK, JobTold, (~ended,), None, (), (TellJob,)),
    Row("P23", _AT_WORK, JobTold, (ended,), S.OVER, (), (TellJob,)),
    Row("P24", (S.WORKING,), JobGone, (), S.ENDING, (), (arm(Timer.TALK),)),
    # nobody asks for it any more
    Row("P25", LIVE, Crowded, (), S.OVER),
    Row("P26", (*_BEFORE, S.ENDING), Timer.TALK, (), S.OVER),
)  # fmt: skip

IGNORED = (
    Ignored((S.ENDING,), (JobAssigned, JobDropped), "how its job ended is told next"),
    Ignored((S.ENDING,), (SlotKept, SlotRefused, DropRefused), "its job has ended"),
    Ignored(_AT_WORK, (SlotReleased, SlotLost), "its job has come: it needs no promise"),
    Ignored((S.ASKED,), (SlotLost,), "it was promised nothing"),
    Ignored(_BEFORE, (JobTold,), "of a job that is none of it"),
    Ignored(LIVE, (EffectFailed,), "the peer may ask again, and its timer runs"),
    Ignored((S.OVER,), (JobAsked, JobAssigned, JobDropped, SlotKept, SlotRefused, SlotReleased,
                        SlotLost, DropRefused, JobTold, Crowded, EffectFailed),
            "the negotiation is over"),
)  # fmt: skip

TALK = Table(
    MachineName.TALK,
    TalkState,
    TalkFacts,
    initial=S.NEW,
    final=(S.OVER,),
    rows=ROWS,
    ignored=IGNORED,
)
