"""What links, sessions and rooms force on each other and on what they carry; see `coupling`."""

from collections import Counter
from collections.abc import Iterator

from fsm_worker.events import (
    Crowded,
    GuestCame,
    GuestLeft,
    LinkCut,
    LinkFar,
    LinkLost,
    LinkNear,
    LinkResumed,
    LinkUp,
    NobodyCanCome,
    RoomEntered,
    RoomLeft,
    RoomRefused,
    SessionEnded,
    Superseded,
    WorkerRefused,
    WorkerStopping,
)
from fsm_worker.machines.world import THE_SERVER, THE_WORKER, Forced, World
from protocol.errors import ErrorCode
from protocol.lifecycle import (
    LinkState,
    ReceivingState,
    SendingState,
    SessionState,
    SignallingState,
    WorkerState,
)
from protocol.table import MachineName

M, W = MachineName, WorkerState
#: Sessions of one key: a client that is killed over and over leaves one each time.
KEEP_SESSIONS = 16
_NEAR = (LinkState.SECURING, LinkState.AUTHENTICATING)
_ANSWERED = (LinkState.CHECKING, *_NEAR)
_MAKING = (LinkState.NEGOTIATING, *_ANSWERED)
_LINK_OVER = (LinkState.CLOSING, LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED)


def worker_has_stopped(world: World) -> Iterator[Forced]:
    """Sessions, links and the place in the room end with the worker."""
    worker = world.get(M.WORKER, THE_WORKER)
    if worker is None or not worker.facts.gone:
        return
    for name in (M.SESSION, M.LINK, M.SIGNALLING):
        for instance in world.live(name):
            if instance.state not in {*_LINK_OVER, SignallingState.DOWN}:
                yield Forced(name, instance.subject, WorkerStopping())


def nobody_can_come(world: World) -> Iterator[Forced]:
    """A worker whom the server refuses leaves, unless somebody is here."""
    server = world.get(M.SIGNALLING, THE_SERVER)
    worker = world.get(M.WORKER, THE_WORKER)
    if (
        server is not None
        and worker is not None
        and server.state is SignallingState.REFUSED
        and worker.state in {W.AVAILABLE, W.MAINTENANCE, W.DEGRADED}
        and not world.live(M.SESSION)
    ):
        yield Forced(M.WORKER, THE_WORKER, NobodyCanCome())


def links_carry_sessions(world: World) -> Iterator[Forced]:
    """A proved link takes its session over, or is turned away."""
    for link in world.moving(M.LINK):
        if link.state not in {LinkState.UP, LinkState.SUSPECT}:
            continue
        facts = link.facts
        session = world.get(M.SESSION, facts.session)
        if session is not None and session.facts.link == link.subject:
            continue
        if session is None or (
            not session.final
            and session.facts.key in {"", facts.key}  # a client's session begins without one
            and facts.generation > session.facts.generation
        ):
            yield Forced(
                M.SESSION,
                facts.session,
                LinkUp(
                    link=link.subject, generation=facts.generation, key=facts.key, peer=facts.peer
                ),
            )
        elif session.final or session.facts.key not in {"", facts.key}:
            yield Forced(M.LINK, link.subject, SessionEnded())
        else:
            yield Forced(M.LINK, link.subject, Superseded())


def links_are_lost(world: World) -> Iterator[Forced]:
    """A session hears that its link is over."""
    for session in world.moving(M.SESSION):
        if session.state is not SessionState.ATTACHED:
            continue
        link = world.get(M.LINK, session.facts.link)
        if link is None or link.state in _LINK_OVER:
            yield Forced(
                M.SESSION,
                session.subject,
                LinkLost(
                    link=session.facts.link,
                    farewell=link is not None and link.facts.farewell,
                    code=link.facts.code if link is not None else "",
                    reason=link.facts.reason if link is not None else "",
                ),
            )


def files_follow_sessions(world: World) -> Iterator[Forced]:
    """Files on their way end, wait and go on with their session."""
    for name in (M.RECEIVING, M.SENDING):
        for file in world.live(name):
            session = world.get(M.SESSION, file.facts.session)
            if session is None or session.final:
                yield Forced(name, file.subject, SessionEnded())
            elif session.state is SessionState.DETACHED:
                if file.state in {ReceivingState.RECEIVING, SendingState.SENDING}:
                    yield Forced(name, file.subject, LinkCut())
            elif name is M.RECEIVING and (
                file.state is ReceivingState.SUSPENDED
                or (
                    file.state is ReceivingState.RECEIVING and file.facts.link != session.facts.link
                )
            ):
                yield Forced(name, file.subject, LinkResumed(link=session.facts.link))


def links_are_too_many(world: World) -> Iterator[Forced]:
    """A client that has its link gives up the others that it dialled: they would only take over."""
    for link in world.live(M.LINK):
        session = world.get(M.SESSION, link.facts.session)
        if link.state in _MAKING and session is not None and session.state is SessionState.ATTACHED:
            yield Forced(M.LINK, link.subject, Superseded())


def links_end_with_sessions(world: World) -> Iterator[Forced]:
    """A client whose session is over keeps no link of it, and proves itself no more."""
    for link in world.live(M.LINK):
        session = world.get(M.SESSION, link.facts.session)
        if link.state not in _LINK_OVER and (session is None or session.final):
            yield Forced(M.LINK, link.subject, SessionEnded())


def links_come_near(world: World) -> Iterator[Forced]:
    """A client's session knows whether a link is about to prove itself."""
    near = any(link.state in _NEAR for link in world.moving(M.LINK))
    for session in world.live(M.SESSION):
        if session.facts.near is not near:
            yield Forced(M.SESSION, session.subject, LinkNear() if near else LinkFar())


def room_comes_and_goes(world: World) -> Iterator[Forced]:
    """A client's session knows whether offers can travel."""
    server = world.get(M.SIGNALLING, THE_SERVER)
    inside = server is not None and server.state in {
        SignallingState.REGISTERED,
        SignallingState.STALE,
    }
    for session in world.live(M.SESSION):
        if session.facts.in_room is not inside:
            yield Forced(M.SESSION, session.subject, RoomEntered() if inside else RoomLeft())


def room_is_refused(world: World) -> Iterator[Forced]:
    """A client whom the server refuses, and no worker has welcomed, ends."""
    server = world.get(M.SIGNALLING, THE_SERVER)
    if server is None or not server.facts.code:
        return
    for session in world.live(M.SESSION):
        if not session.facts.welcomed:
            refusal = WorkerRefused(code=ErrorCode(server.facts.code), reason=server.facts.reason)
            yield Forced(M.SESSION, session.subject, refusal)


def room_is_closed(world: World) -> Iterator[Forced]:
    """A client that was welcomed ends when the server refuses it for good, and it has no link.

    A link that has the worker's answer needs no server any more, and may still come up.
    """
    server = world.get(M.SIGNALLING, THE_SERVER)
    if server is None or server.state is not SignallingState.REFUSED:
        return
    if any(link.state in _ANSWERED for link in world.live(M.LINK)):
        return
    for session in world.live(M.SESSION):
        if session.state is SessionState.DETACHED and session.facts.welcomed:
            refusal = RoomRefused(code=ErrorCode(server.facts.code), reason=server.facts.reason)
            yield Forced(M.SESSION, session.subject, refusal)


def guests_come_and_go(world: World) -> Iterator[Forced]:
    """A client of another dialect is here as long as its link."""
    for link in world.moving(M.LINK):
        up = link.facts.foreign and link.state in {LinkState.UP, LinkState.SUSPECT}
        if up and world.get(M.GUEST, link.subject) is None:
            yield Forced(M.GUEST, link.subject, GuestCame(session=link.facts.session))
    for guest in world.live(M.GUEST):
        carrier = world.get(M.LINK, guest.subject)
        if carrier is None or carrier.state in _LINK_OVER:
            yield Forced(M.GUEST, guest.subject, GuestLeft())


def too_many_sessions(world: World) -> Iterator[Forced]:
    """Of too many sessions of one key the oldest that is detached ends."""
    sessions = world.live(M.SESSION)
    if len(sessions) <= KEEP_SESSIONS:
        return
    counts = Counter(session.facts.key for session in sessions)
    for session in sessions:
        key = session.facts.key
        if session.state is SessionState.DETACHED and counts[key] > KEEP_SESSIONS:
            counts[key] -= 1
            yield Forced(M.SESSION, session.subject, Crowded())
