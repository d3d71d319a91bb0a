"""Files on their way."""

from collections.abc import Iterator

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received
from protocol.lifecycle import (
    ReceivingState,
    SendingState,
    SessionState,
)
from tests.exploration.invariants.common import J, M, R, asked, fired
from tests.exploration.stage import Frozen, Stage


def files_move_for_who_wants_them_and_is_here(_before: Frozen, stage: Stage) -> Iterator[str]:
    for file in stage.world.moving(M.SENDING):
        results = stage.world.get(M.RESULTS, file.facts.job)
        if results is None or results.state is not R.DELIVERING:
            yield f"{file.subject} is sent, and nobody has asked for it"
    for file in stage.world.moving(M.RECEIVING):
        if stage.state(M.JOB, file.facts.job) is not J.STAGING:
            yield f"{file.subject} arrives, and nobody needs it"
    for file in (*stage.world.moving(M.RECEIVING), *stage.world.moving(M.SENDING)):
        state = stage.state(M.SESSION, file.facts.session)
        if state is None:
            yield f"{file.subject} has outlived its session"
        moves = file.state in {ReceivingState.RECEIVING, SendingState.SENDING}
        if moves and state is not SessionState.ATTACHED:
            yield f"{file.subject} is {file.state}, and its session is {state}"
        if file.state is ReceivingState.SUSPENDED and state is not SessionState.DETACHED:
            yield f"{file.subject} is not asked for again"
    for name, subject, kind in stage.tasks:
        sends = kind is f.SendRanges
        if sends and stage.state(name, subject) is not SendingState.SENDING:
            yield f"bytes of {subject} go out, and it is {stage.state(name, subject)}"


def nobody_waits_for_a_link_that_is_there(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after == ReceivingState.SUSPENDED and not isinstance(step.event, e.LinkCut):
            yield f"{type(step.event).__name__} suspends it"
    for step in fired(stage, M.SENDING):
        if step.after == SendingState.SUSPENDED and not isinstance(step.event, e.LinkCut):
            yield f"{type(step.event).__name__} suspends it"


def stored_means_hashed(before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after == ReceivingState.STORED and not isinstance(step.event, e.DigestMatched):
            yield "stored, and nobody has hashed it"
        if isinstance(step.event, e.DigestMatched):
            if step.after != ReceivingState.STORED or not asked(step, f.ConfirmStored):
                yield "it is here and whole, and its sender does not hear so"
        if isinstance(step.event, e.ChunksCompleted) and step.after != ReceivingState.VERIFYING:
            yield "it is complete, and is not hashed"
    del before


def who_waits_for_bytes_has_asked_for_them(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        again = isinstance(step.event, e.LinkResumed | e.DigestMismatched | e.TimerExpired)
        first = step.before == ReceivingState.OFFERED
        if step.after == ReceivingState.RECEIVING and (again or first):
            if not asked(step, f.AskMissing, f.OpenIncoming):
                yield "it waits for bytes that nobody was asked for"
    for step in fired(stage, M.SENDING):
        if step.before == step.after == SendingState.OFFERED and not asked(step, f.OfferFile):
            yield "it waits for an answer to an offer that was not made"


def a_file_that_is_refused_is_let_go_and_its_sender_hears_why(
    _before: Frozen, stage: Stage
) -> Iterator[str]:
    for step in fired(stage, M.RECEIVING):
        if step.after != ReceivingState.REFUSED:
            continue
        gave_up = isinstance(step.event, Received)
        left = isinstance(step.event, e.SessionEnded | e.Superseded)
        if gave_up and not asked(step, f.DropIncoming):
            yield "its sender gave it up, and it is kept"
        elif left and not asked(step, f.KeepIncoming):
            yield "what had arrived is lost"
        elif not gave_up and not left and not asked(step, f.RefuseIncoming):
            yield "its sender does not hear that it is refused"
    for step in fired(stage, M.SENDING):
        ours = isinstance(step.event, e.SourceFailed | e.EffectFailed | e.Unwanted)
        if step.after == SendingState.REFUSED and ours and not asked(step, f.AbortOutgoing):
            yield "its receiver waits for a file that does not come"


FILE_LAWS = (
    files_move_for_who_wants_them_and_is_here,
    nobody_waits_for_a_link_that_is_there,
    stored_means_hashed,
    who_waits_for_bytes_has_asked_for_them,
    a_file_that_is_refused_is_let_go_and_its_sender_hears_why,
)
