"""Links and sessions."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received
from fsm_worker.machines.link import STRIKES
from protocol import messages as m
from protocol.lifecycle import (
    LinkState,
    SessionState,
)
from tests.exploration.invariants.common import BEFORE_UP, LINK_OVER, UP, M, asked, fired
from tests.exploration.stage import Frozen, Stage


def a_session_is_carried_by_the_link_it_names(_before: Frozen, stage: Stage) -> Iterator[str]:
    held = set()
    for session in stage.world.moving(M.SESSION):
        attached = session.state is SessionState.ATTACHED
        if attached is not bool(session.facts.link):
            yield f"{session.state} by {session.facts.link!r}"
        if attached:
            held.add(session.facts.link)
            link = stage.world.get(M.LINK, session.facts.link)
            if link is None or link.state not in UP:
                yield f"{session.subject} hangs on a link that is over"
            elif link.facts.key != session.facts.key:
                yield f"{session.subject} of {session.facts.key} is used by {link.facts.key}"
    for link in stage.world.moving(M.LINK):
        if link.state in UP and link.subject not in held:
            yield f"{link.subject} is up, and carries nothing"


def a_link_that_is_over_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    live = {link.subject for link in stage.world.moving(M.LINK) if not link.final}
    for name, subject in stage.open:
        if name is M.LINK and subject not in live:
            yield f"the peer connection of {subject} is left open"
    for link in stage.world.live(M.LINK):
        if (M.LINK, link.subject) not in stage.open:
            yield f"{link.subject} is {link.state}, and its peer connection is closed"


def who_does_not_get_in_hears_why(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        never_up = step.before in {LinkState.NEW, *BEFORE_UP}
        if never_up and step.after in {LinkState.FAILED, LinkState.REJECTED}:
            if not asked(step, f.ReportLinkFailure, f.RefuseOffer):
                yield f"{step.before} ends as {step.after} without a word"
            facts: Any = step.facts
            if not facts.reason:
                yield f"{step.before} ends as {step.after}, and no sentence says why"


def nobody_gets_in_without_a_proof(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if step.before in UP or step.after not in UP:
            continue
        event: Any = step.event
        allowed = isinstance(event, e.ControlOpened) and (
            not event.native and event.foreign_allowed and not event.secret
        )
        proved = isinstance(event, e.ProofChecked) and event.proved and event.trusted
        if not allowed and not proved:
            yield f"{type(event).__name__} lets it in"


def rejected_is_a_reproach_and_failed_is_none(_before: Frozen, stage: Stage) -> Iterator[str]:
    """A link that breaks has failed; who does wrong is rejected; who says goodbye is let go."""
    breaks = e.IceFailed | e.PeerClosed | e.ChannelClosed | e.EffectFailed
    for step in fired(stage, M.LINK):
        event = step.event
        broken = isinstance(event, breaks) or (
            isinstance(event, e.TimerExpired) and step.after in LINK_OVER
            and event.timer is not e.Timer.AUTH
        )  # fmt: skip
        gap = isinstance(event, e.FrameArrived) and step.before in UP and step.after in LINK_OVER
        if step.before == LinkState.CLOSING:
            if step.after != LinkState.CLOSED:
                yield f"it was closed, and is {step.after}"
        elif (broken or gap) and step.after != LinkState.FAILED:
            yield f"it broke, and is {step.after}"
        bye = isinstance(event, Received) and isinstance(event.message, m.Bye)
        if (bye or isinstance(event, e.Superseded)) and step.after != LinkState.CLOSED:
            yield f"it is no longer needed, and is {step.after}"


def three_frames_without_meaning_are_too_many(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if isinstance(step.event, e.FrameRefused) and step.before in UP:
            if (step.after == LinkState.CLOSING) is not (step.event.strikes >= STRIKES):
                yield f"strike {step.event.strikes}: {step.after}"


def the_handshake_begins_with_a_hello(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        opened = isinstance(step.event, e.ControlOpened) and step.event.native
        if opened and not asked(step, f.SendHello):
            yield "the channel is open, and nobody speaks"


def a_proof_lets_in(_before: Frozen, stage: Stage) -> Iterator[str]:
    """And a refused one ends the link at once."""
    for step in fired(stage, M.LINK):
        if isinstance(step.event, e.ProofChecked) and step.before == LinkState.AUTHENTICATING:
            good = step.event.proved and step.event.trusted
            if step.after != (LinkState.UP if good else LinkState.REJECTED):
                yield f"proved {step.event.proved}, trusted {step.event.trusted}: {step.after}"
        if step.before == LinkState.AUTHENTICATING and isinstance(
            step.event, e.FrameArrived | e.FrameRefused
        ):
            if step.after != LinkState.REJECTED:
                yield "it speaks before its proof, and stays"


def a_silent_peer_is_asked_and_then_let_go(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if not isinstance(step.event, e.TimerExpired):
            continue
        if step.event.timer in {e.Timer.PING, e.Timer.QUIET} and not asked(step, f.KeepIceAlive):
            yield "nobody asks for a sign of life"
        if step.event.timer is e.Timer.QUIET and step.after != LinkState.SUSPECT:
            yield f"silent, and {step.after}"
        if step.event.timer is e.Timer.LOST and step.after != LinkState.FAILED:
            yield f"silent for long, and {step.after}"
    for link in stage.world.moving(M.LINK):
        if link.state is LinkState.UP and not {e.Timer.PING, e.Timer.QUIET} <= set(link.armed):
            yield "nobody watches for silence"


def a_sign_of_life_is_one(_before: Frozen, stage: Stage) -> Iterator[str]:
    """Every valid frame makes a suspected link well again."""
    for step in fired(stage, M.LINK):
        if step.before == LinkState.SUSPECT and isinstance(step.event, Received | e.FrameArrived):
            if step.after == LinkState.SUSPECT:
                yield f"{type(step.event).__name__} counts for nothing"


def a_numbered_frame_is_acknowledged(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        event = step.event
        if isinstance(event, e.FrameArrived) and event.number and step.before in UP:
            due = event.number <= event.expected
            if due and not asked(step, f.SendAck):
                yield "its sender keeps it for ever"
            if due is not (step.after in UP):
                yield f"number {event.number} of {event.expected}: {step.after}"
            if asked(step, f.ReadMessage) is not (event.number == event.expected):
                yield f"number {event.number} of {event.expected} is read, or is not"
        if isinstance(event, e.FrameArrived) and not event.number and step.before in UP:
            if not asked(step, f.ReadMessage):
                yield "a frame without a number is not read"


def a_farewell_is_said_before_a_link_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.LINK):
        if step.before in {*BEFORE_UP, *UP} and isinstance(
            step.event, e.WorkerStopping | e.SessionEnded
        ):
            if step.after != LinkState.CLOSING or not asked(step, f.Farewell):
                yield "its peer waits for somebody who has gone"


def a_session_that_is_over_keeps_nothing(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        if step.after == SessionState.CLOSED and not asked(step, f.ForgetSession):
            yield "its outbox is kept"


def a_session_ends_by_farewell_time_or_force(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        ends = isinstance(step.event, e.OutOfStep | e.OutboxFilled | e.WorkerStopping)
        if isinstance(step.event, e.TimerExpired) and step.event.timer is e.Timer.SESSION:
            ends = True
        if ends and step.after != SessionState.CLOSED:
            yield f"{type(step.event).__name__}: {step.after}"
        if not isinstance(step.event, e.LinkLost) or step.before != SessionState.ATTACHED:
            continue
        after = SessionState.CLOSED if step.event.farewell else SessionState.DETACHED
        if step.after != after:
            yield f"farewell {step.event.farewell}: {step.after}"


def whoever_has_its_link_is_welcomed(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in fired(stage, M.SESSION):
        if isinstance(step.event, e.LinkUp):
            if step.after != SessionState.ATTACHED or not asked(step, f.SendWelcome, f.HoldOutbox):
                yield "a link has proved itself, and its client does not hear so"


LINK_LAWS = (
    a_session_is_carried_by_the_link_it_names,
    a_link_that_is_over_is_closed,
    who_does_not_get_in_hears_why,
    nobody_gets_in_without_a_proof,
    rejected_is_a_reproach_and_failed_is_none,
    three_frames_without_meaning_are_too_many,
    the_handshake_begins_with_a_hello,
    a_proof_lets_in,
    a_silent_peer_is_asked_and_then_let_go,
    a_sign_of_life_is_one,
    a_numbered_frame_is_acknowledged,
    a_farewell_is_said_before_a_link_is_closed,
    a_session_that_is_over_keeps_nothing,
    a_session_ends_by_farewell_time_or_force,
    whoever_has_its_link_is_welcomed,
)
