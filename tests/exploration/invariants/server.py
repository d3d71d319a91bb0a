"""The connection to the signaling server."""

from collections.abc import Iterator
from typing import Any

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.machines.engine import Verdict
from fsm_worker.machines.world import THE_SERVER
from protocol.lifecycle import (
    SignallingState,
)
from tests.exploration.invariants.common import M, W, armed, asked, fired
from tests.exploration.stage import Frozen, Stage


def a_socket_that_is_not_used_is_closed(_before: Frozen, stage: Stage) -> Iterator[str]:
    server = stage.state(M.SIGNALLING, THE_SERVER)
    unused = {SignallingState.DOWN, SignallingState.BACKOFF, SignallingState.REFUSED, None}
    is_open = (M.SIGNALLING, THE_SERVER) in stage.open
    if is_open is (server in unused):
        yield f"{server}, and the socket is {'open' if is_open else 'closed'}"


def who_waits_to_be_registered_has_asked(_before: Frozen, stage: Stage) -> Iterator[str]:
    S = SignallingState  # noqa: N806 - as in the tables
    for step in fired(stage, M.SIGNALLING):
        if step.before != step.after == S.REGISTERING and not asked(step, f.SendRegistration):
            yield "it waits for an answer that was not asked for"
        if step.before != step.after == S.STALE and not asked(step, f.PingServer):
            yield "it waits for a sign of life that was not asked for"
        if step.after == S.REFUSED and step.before != S.REFUSED:
            event: Any = step.event
            if not (isinstance(event, e.RecvRefusal) and event.final):
                yield f"{type(event).__name__} ends it for good"
        if isinstance(step.event, e.RecvRefusal) and step.before == S.REGISTERING:
            if step.after != (S.REFUSED if step.event.final else S.BACKOFF):
                yield f"refused (final {step.event.final}), it is {step.after}"
        if isinstance(step.event, e.SocketFailed | e.EffectFailed) and step.after != S.BACKOFF:
            yield f"the server is lost, and it is {step.after}"
        if isinstance(step.event, e.RecvRegistered) and step.after != S.REGISTERED:
            yield f"registered, it is {step.after}"
        if isinstance(step.event, e.SignalArrived):
            if step.after != S.REGISTERED:
                yield f"the server speaks, and it is {step.after}"
            if not any(one.timer is e.Timer.SILENCE for one in armed(step)):
                yield "the server speaks, and its silence goes on"
    server = stage.world.get(M.SIGNALLING, THE_SERVER)
    if server is not None and server.state is S.REGISTERED and e.Timer.SILENCE not in server.armed:
        yield "nobody watches for silence of the server"
    if server is not None and server.state is S.REGISTERED and server.facts.tries:
        if e.Timer.STABLE not in server.armed:
            yield "its old failures count for ever"


def the_room_hears_what_changes(_before: Frozen, stage: Stage) -> Iterator[str]:
    was = {kept.name: kept.facts for kept in _before.moving}
    for step in fired(stage, M.SIGNALLING):
        facts: Any = step.facts
        if isinstance(step.event, e.StatusChanged) and not asked(step, f.AnnounceStatus):
            yield "the room does not hear of the worker's state"
        old = was.get(M.SIGNALLING)
        entered = isinstance(step.event, e.RecvRegistered) and M.WORKER in stage.world.tables
        if entered and old is not None:
            new_room = old.room != facts.room or old.room != step.event.room
            if new_room is not asked(step, f.ReportReady):
                yield f"a room that is {'new' if new_room else 'old'}: the operator is told wrong"
            if facts.room != step.event.room:
                yield "the room is not noted"
        if step.after == SignallingState.REFUSED and M.WORKER in stage.world.tables:
            if not asked(step, f.ReportSignalling):
                yield "the operator does not hear that the server refuses"


def losing_the_server_disturbs_nobody(before: Frozen, stage: Stage) -> Iterator[str]:
    if not stage.steps or stage.steps[0].machine is not M.SIGNALLING:
        return
    if stage.status in {W.STOPPING, W.STOPPED}:
        return
    moved = {step.machine for step in stage.steps if step.verdict is Verdict.ROW}
    if disturbed := moved - {M.SIGNALLING, M.WORKER}:
        yield f"it moves {sorted(disturbed)}"
    del before


def whom_nobody_can_reach_does_not_wait(_before: Frozen, stage: Stage) -> Iterator[str]:
    refused = stage.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED
    if refused and stage.status in {W.AVAILABLE, W.DEGRADED} and not stage.world.live(M.SESSION):
        yield "it waits for clients that cannot come"


SERVER_LAWS = (
    a_socket_that_is_not_used_is_closed,
    who_waits_to_be_registered_has_asked,
    the_room_hears_what_changes,
    losing_the_server_disturbs_nobody,
    whom_nobody_can_reach_does_not_wait,
)
