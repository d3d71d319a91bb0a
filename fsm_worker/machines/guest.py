"""One client of sleap-rtc, and the native client that stands in for it.

Laws:

- A guest is as long as its link. What was submitted is a job like any other, and outlives it; what
  was not is thrown away with it.
- One package at a time. Nothing of it reaches the worker before it is complete: as many bytes as
  announced, and hashed here, since this dialect announces no hash.
- How a job ended is said after everything that it printed, and once.
- `TRAINING_JOBS_DONE` and `INFERENCE_JOBS_DONE` are said of a job that ended well, and of no other.
- Of a job in the shared storage, both paths were found good before it is submitted; how it ended is
  said once more, with the folder that holds its results.
- Results go to the client when they hash to what the worker has announced; the worker hears that
  they have arrived when they have left for the client.
"""

from typing import Any

from fsm_worker.effects import (
    AcceptPath,
    AskCancel,
    AskStop,
    CheckInput,
    CheckOutput,
    CheckPackage,
    ConfirmResults,
    DropArriving,
    DropPackage,
    FeedPackage,
    FetchResults,
    HandOver,
    KeepArriving,
    RefuseFlow,
    RefusePath,
    RefuseResults,
    RefuseShared,
    SubmitPackage,
    SubmitShared,
    TakeResults,
    TellEnd,
    TellGuest,
    TellReason,
    TellStage,
    do,
)
from fsm_worker.events import (
    CancelAsked,
    ChunksCompleted,
    EffectFailed,
    FlowAsked,
    FolderNamed,
    GuestCame,
    GuestLeft,
    GuestRefused,
    HandedOver,
    InputChecked,
    InputNamed,
    JobTold,
    LogOver,
    OutputChecked,
    OutputNamed,
    PackageAnnounced,
    PackageChecked,
    PackageEnded,
    PackageNamed,
    PackageTaken,
    PackageWanted,
    PathRefused,
    ResultsLost,
    ResultsOffered,
    SharedJobAsked,
    SharedJobNamed,
    StopAsked,
)
from fsm_worker.facts import GuestFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, failure_of, put, take
from protocol.lifecycle import GuestState, JobState, Outcome
from protocol.messages import ResultsInfo
from protocol.table import MachineName

S = GuestState
#: Whether the job has ended, as the worker told it.
_ENDED = (JobState.DONE, JobState.REJECTED)

roomy = Guard("roomy", lambda _facts, event: not event.reason)
sound = Guard("sound", lambda _facts, event: bool(event.root))
stage_begins = Guard(
    "stage_begins",
    lambda facts, event: event.state is JobState.RUNNING and event.stage > facts.stage,
)
ended = Guard("ended", lambda _facts, event: event.state in _ENDED)
log_over = Guard("log_over", lambda facts, _event: facts.log_over)
has_outcome = Guard("has_outcome", lambda facts, _event: facts.outcome is not Outcome.NONE)
with_results = Guard("with_results", lambda _facts, event: bool(event.results.root))
described = Guard(
    "described", lambda facts, _event: bool(facts.label and facts.input and facts.output)
)
kept_results = Guard("kept_results", lambda facts, _event: bool(facts.results.root))


def _says(sentence: str) -> Any:
    return do(TellGuest, sentence=sentence)


_how = (take("outcome"), take("problems"), take("results"))
_untold = (
    put("root", ""),
    put("stage", -1),
    put("log_over", False),
    put("outcome", Outcome.NONE),
    put("problems", ()),
    put("results", ResultsInfo()),
    put("transfer", 0),
)
_fresh = (put("job", ""), put("stages", ()), put("shared", False), *_untold)
_described_anew = (put("input", ""), put("output", ""))
_BOTH_FIRST = do(
    RefuseShared,
    sentence="send JOB_ID, SHARED_INPUT_PATH and SHARED_OUTPUT_PATH first, and wait until both"
    " paths are validated",
)
_ONE_AT_A_TIME = do(
    RefuseShared, sentence="one job at a time: send the next when this one has ended"
)
_NO_JOB = _says("there is no job of yours that runs: send a package first")
_GIVEN_UP = _says("the package is thrown away: it was not submitted yet")

_BEFORE = (S.RECEIVING, S.CHECKING)
_RESULTS = (S.RETURNING, S.HANDING)
_BUSY = (*_BEFORE, S.SUBMITTED, *_RESULTS)
LIVE = (S.WAITING, *_BUSY)

ROWS = (
    Row("Q1", (S.NEW,), GuestCame, (), S.WAITING, (take("session"),)),
    # what it says of its package, before the bytes or after them
    Row("Q2", (S.WAITING, S.RECEIVING), PackageNamed, (), None, (take("kind"),)),
    Row("Q3", (S.WAITING, S.RECEIVING), FolderNamed, (), None, (take("folder"),)),
    Row("Q4", (S.WAITING,), PackageAnnounced, (roomy,), S.RECEIVING,
        (take("name"), take("size"), take("gui"), *_fresh), (KeepArriving,)),
    Row("Q5", (S.WAITING,), PackageAnnounced, (~roomy,), None, (), (DropArriving, TellReason)),
    Row("Q6", _BUSY, PackageAnnounced, (), None, (),
        (DropArriving, _says("one package at a time: send the next when this job has ended"))),
    Row("Q7", (S.RECEIVING,), PackageEnded, (), S.CHECKING, (), (CheckPackage,)),
    Row("Q8", (S.WAITING,), PackageEnded, (), None, (),
        (_says("no file was taken: announce the package with FILE_META first"),)),
    Row("Q9", (S.CHECKING,), PackageChecked, (sound,), S.SUBMITTED,
        (take("root"), take("job"), take("stages")), (SubmitPackage,)),
    Row("Q10", (S.CHECKING,), PackageChecked, (~sound,), S.WAITING, (), (DropPackage, TellReason)),
    Row("Q11", (S.CHECKING,), EffectFailed, (failure_of(CheckPackage),), S.WAITING,
        (), (DropPackage, TellReason)),
    Row("Q12", _BEFORE, StopAsked, (), S.WAITING, (), (DropPackage, _GIVEN_UP)),
    Row("Q13", _BEFORE, CancelAsked, (), S.WAITING, (), (DropPackage, _GIVEN_UP)),
    # the worker has the job
    Row("Q14", (S.SUBMITTED,), PackageWanted, (), None, (), (FeedPackage,)),
    Row("Q15", (S.SUBMITTED,), PackageTaken, (), None, (), (DropPackage,)),
    Row("Q16", (S.SUBMITTED,), StopAsked, (), None, (), (AskStop,)),
    Row("Q17", (S.SUBMITTED,), CancelAsked, (), None, (), (AskCancel,)),
    Row("Q18", (S.SUBMITTED,), JobTold, (~ended, stage_begins), None,
        (take("stage"),), (TellStage,)),
    Row("Q19", (S.SUBMITTED,), JobTold, (~ended, ~stage_begins), None),
    Row("Q20", (S.SUBMITTED,), JobTold, (ended, ~log_over), None, _how),
    Row("Q21", (S.SUBMITTED,), JobTold, (ended, log_over, with_results), S.RETURNING,
        _how, (TellEnd, FetchResults)),
    Row("Q22", (S.SUBMITTED,), JobTold, (ended, log_over, ~with_results), S.WAITING,
        _how, (TellEnd, DropPackage)),
    Row("Q23", (S.SUBMITTED,), LogOver, (~has_outcome,), None, (put("log_over", True),)),
    Row("Q24", (S.SUBMITTED,), LogOver, (has_outcome, kept_results), S.RETURNING,
        (), (TellEnd, FetchResults)),
    Row("Q25", (S.SUBMITTED,), LogOver, (has_outcome, ~kept_results), S.WAITING,
        (), (TellEnd, DropPackage)),
    # its results
    Row("Q26", (S.RETURNING,), ResultsOffered, (), None, (take("transfer"),), (TakeResults,)),
    Row("Q27", (S.RETURNING,), ChunksCompleted, (), S.HANDING, (), (HandOver,)),
    Row("Q28", (S.RETURNING,), ResultsLost, (), S.WAITING, (), (DropPackage, TellReason)),
    Row("Q29", (S.RETURNING,), EffectFailed, (failure_of(TakeResults),), S.WAITING,
        (), (RefuseResults, DropPackage)),
    Row("Q30", (S.HANDING,), HandedOver, (), S.WAITING, (), (ConfirmResults, DropPackage)),
    Row("Q31", (S.HANDING,), EffectFailed, (failure_of(HandOver),), S.WAITING,
        (), (RefuseResults, DropPackage)),
    # a job in the shared storage: its name, its paths, its start
    Row("Q37", (S.WAITING,), SharedJobNamed, (), None, (take("label"), *_described_anew)),
    Row("Q38", (S.WAITING,), InputNamed, (), None, (put("input", ""),), (CheckInput,)),
    Row("Q39", (S.WAITING,), OutputNamed, (), None, (put("output", ""),), (CheckOutput,)),
    Row("Q40", (S.WAITING,), InputChecked, (roomy,), None,
        (take("input", "path"), take("kind"), take("stages")), (do(AcceptPath, side="input"),)),
    Row("Q41", (S.WAITING,), InputChecked, (~roomy,), None, (), (RefusePath,)),
    Row("Q42", (S.WAITING,), OutputChecked, (roomy,), None,
        (take("output", "path"),), (do(AcceptPath, side="output"),)),
    Row("Q43", (S.WAITING,), OutputChecked, (~roomy,), None, (), (RefusePath,)),
    Row("Q44", (S.WAITING,), EffectFailed, (failure_of(CheckInput, CheckOutput),), None,
        (), (RefusePath,)),
    Row("Q45", (S.WAITING,), SharedJobAsked, (described,), S.SUBMITTED,
        (*_untold, take("job"), put("shared", True)), (SubmitShared,)),
    Row("Q46", (S.WAITING,), SharedJobAsked, (~described,), None, (), (_BOTH_FIRST,)),
    Row("Q47", _BUSY, InputNamed, (), None, (), (_ONE_AT_A_TIME,)),
    Row("Q48", _BUSY, OutputNamed, (), None, (), (_ONE_AT_A_TIME,)),
    Row("Q49", _BUSY, SharedJobAsked, (), None, (), (_ONE_AT_A_TIME,)),
    Row("Q50", LIVE, PathRefused, (), None, (), (RefusePath,)),
    # in every state
    Row("Q32", (S.WAITING, *_RESULTS), StopAsked, (), None, (), (_NO_JOB,)),
    Row("Q33", (S.WAITING, *_RESULTS), CancelAsked, (), None, (), (_NO_JOB,)),
    Row("Q34", LIVE, FlowAsked, (), None, (), (RefuseFlow,)),
    Row("Q35", LIVE, GuestRefused, (), None, (), (TellReason,)),
    Row("Q36", LIVE, GuestLeft, (), S.GONE, (), (DropPackage,)),
)  # fmt: skip

_AFTER = (S.CHECKING, S.SUBMITTED, *_RESULTS)
_NOT_SUBMITTED = (S.WAITING, *_BEFORE)
IGNORED = (
    Ignored(_AFTER, (PackageNamed, FolderNamed), "of a package that is not taken now"),
    Ignored(_AFTER, (PackageEnded,), "of a package that was refused"),
    Ignored((S.WAITING, S.RECEIVING, S.SUBMITTED, *_RESULTS), (PackageChecked,),
            "of a package that was thrown away"),
    Ignored((*_NOT_SUBMITTED, *_RESULTS), (PackageWanted, PackageTaken), "of an earlier job"),
    Ignored((*_NOT_SUBMITTED, *_RESULTS), (JobTold, LogOver), "of an earlier job"),
    Ignored((*_NOT_SUBMITTED, S.SUBMITTED, S.HANDING), (ResultsOffered, ChunksCompleted),
            "of earlier results"),
    Ignored((*_NOT_SUBMITTED, S.SUBMITTED, S.HANDING), (ResultsLost,),
            "their bytes are here, or nobody waits for them"),
    Ignored((*_NOT_SUBMITTED, S.SUBMITTED, S.RETURNING), (HandedOver,), "of earlier results"),
    Ignored(_BUSY, (SharedJobNamed, InputChecked, OutputChecked), "of a job that is not taken now"),
    Ignored(LIVE, (EffectFailed,), "the client hears of the job, whatever could not be said"),
    Ignored((S.GONE,), (PackageNamed, FolderNamed, PackageAnnounced, PackageEnded, PackageChecked,
                        PackageWanted, PackageTaken, JobTold, LogOver, ResultsOffered, ResultsLost,
                        ChunksCompleted, HandedOver, StopAsked, CancelAsked, FlowAsked,
                        SharedJobNamed, InputNamed, OutputNamed, InputChecked, OutputChecked,
                        PathRefused, SharedJobAsked,
                        GuestRefused, GuestLeft, EffectFailed), "the client has gone"),
)  # fmt: skip

GUEST = Table(
    MachineName.GUEST,
    GuestState,
    GuestFacts,
    initial=S.NEW,
    final=(S.GONE,),
    rows=ROWS,
    ignored=IGNORED,
)
