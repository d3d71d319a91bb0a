"""Data channels to events; the same on both sides.

The only code that reads raw frames and readiness strings of aiortc's channels. It makes, answers
and closes no peer connection: `RTCWorkerClient` does that for the worker, `client.dialler` for a
client. Handlers given to aiortc are plain functions that put an event into the inbox.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

from aiortc import RTCDataChannel

from fsm_worker.effects import (
    Farewell,
    RefuseOffer,
    ReportLinkFailure,
    SendAck,
    SendPong,
)
from fsm_worker.events import (
    ChannelClosed,
    ControlOpened,
    EffectFailed,
    Event,
    Flushed,
    FrameArrived,
    FrameRefused,
    GuestRefused,
    ProofChecked,
    Received,
)
from fsm_worker.identity import Identity, Trust
from fsm_worker.runtime import Runtime
from fsm_worker.seams.channels import (
    NO_LANE,
    NO_TEXT,
    NUMBER,
    TOO_FAST,
    WRONG_LANE,
    Channels,
    LinkGone,
)
from fsm_worker.seams.guest import Guest
from fsm_worker.seams.guests import Guests
from fsm_worker.seams.handshake import Handshake
from fsm_worker.seams.sessions import Sessions
from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL, NATIVE_SUBPROTOCOL
from protocol import messages as m
from protocol.codec import Frame, decode, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import LinkState
from protocol.table import ROW_OF, Direction, Lane, MachineName, Replay

log = logging.getLogger(__name__)

#: Control frames of one link that may wait for their turn.
MOST_WAITING = 1024
_UP = frozenset({LinkState.UP, LinkState.SUSPECT})


class PeerLinks:
    """All links of this process.

    Args:
        runtime: whose inbox takes the events.
        identity: our key.
        trust: says whether a proved peer may come in, and what it may do then.
        role: "worker" or "client".
        on_log: takes a log message (client), by session.
        on_chunk: takes a bulk frame, by session.
        say: sends words to a peer through signaling, where there is no link (worker).
        on_failure: hears why there is no link (client).
        secret: the one-time invitation (client); empty if the worker knows us.
        guests: stand in for clients of another dialect (worker); None lets none in.

    Attributes:
        handshake: performs the first words of every link.
    """

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        trust: Trust,
        role: str,
        *,
        on_chunk: Callable[[str, bytes], None],
        on_log: Callable[[m.Message], None] = lambda _message: None,
        say: Callable[[str, ErrorCode, str], None] = lambda _peer, _code, _text: None,
        on_failure: Callable[[ErrorCode, str], None] = lambda _code, _reason: None,
        secret: bytes = b"",
        guests: Guests | None = None,
    ) -> None:
        self._runtime = runtime
        self._inbound = Direction.TO_WORKER if role == "worker" else Direction.TO_CLIENT
        self._on_chunk = on_chunk
        self._on_log = on_log
        self._say = say
        self._on_failure = on_failure
        self._guests = guests
        self._links: dict[str, Channels] = {}
        self.handshake = Handshake(self._links, identity, trust, role, secret, self._post)
        self._strangers: dict[str, Guest] = {}  # who speaks another dialect, by link
        self.sessions: Sessions | None = None

    # --- what the owner of the peer connection calls -----------------------------------------

    def open(self, link: str, fingerprints: Callable[[], tuple[str, str]]) -> None:
        """A link begins; `fingerprints` gives ours and theirs once both descriptions are set."""
        channels = self._links[link] = Channels()
        channels.fingerprints = fingerprints

    def attach(self, link: str, channel: RTCDataChannel) -> None:
        """Listens to a data channel of the link."""
        channels = self._links.get(link)
        if channels is None or channel.label in channels.by_label or link in self._strangers:
            return
        label, native = channel.label, channel.protocol == NATIVE_SUBPROTOCOL
        opened = ControlOpened(native=native)
        guest = None
        if not (native or channels.by_label or self._guests is None):
            guest = self._guests.welcome(link, channels)
        if guest is not None:  # its one channel stands for all
            self._strangers[link], label, opened = guest, CONTROL_LABEL, guest.opened
        channels.add(label, channel)
        channel.on("close", lambda: self._post(link, ChannelClosed()))
        lanes = {CONTROL_LABEL: self._control, LOG_LABEL: self._log, BULK_LABEL: self._bulk}
        hear = lanes.get(label, lambda link, _data: self._strike(link, NO_LANE))
        hear = partial(self._foreign, guest) if guest is not None else hear
        channel.on("message", lambda data: hear(link, data))
        if label == CONTROL_LABEL or not native:
            if channel.readyState == "open":
                self._post(link, opened)
            else:
                channel.on("open", lambda: self._post(link, opened))

    def forget(self, link: str) -> None:
        """The peer connection is closed."""
        channels = self._links.pop(link, None)
        if channels is not None:
            channels.end()
        if self._strangers.pop(link, None) is not None and self._guests is not None:
            self._guests.forget(link)

    # --- sending ---------------------------------------------------------------------------

    def write(self, link: str, frame: Frame) -> None:
        """Sends a control frame, or drops it if the link is over (its session has it)."""
        channels, guest = self._links.get(link), self._strangers.get(link)
        if guest is not None:
            if frame.seq and self.sessions is not None:  # nothing is lost on the way to it
                self.sessions.acknowledged(self._session_of(link), frame.seq)
            guest.take(frame.msg)
        elif channels is not None:
            channels.send(CONTROL_LABEL, encode(frame))

    async def send_bulk(self, session: str, frame: bytes) -> None:
        """Sends a bulk chunk when there is room.

        Raises:
            LinkGone: the session has no link.
        """
        guest, channels = self._link_of(session)
        if guest is not None:
            guest.take_chunk(frame)
        else:
            await channels.paced(BULK_LABEL, frame)

    async def send_log(self, session: str, message: m.Message) -> None:
        """Sends a log message when there is room; unnumbered, it is read again by offset.

        Raises:
            LinkGone: the session has no link.
        """
        guest, channels = self._link_of(session)
        if guest is not None:
            await guest.take_log(message)
        else:
            await channels.paced(LOG_LABEL, encode(Frame(msg=message)))

    def _link_of(self, session: str) -> tuple[Guest | None, Channels]:
        instance = self._runtime.world.get(MachineName.SESSION, session)
        link = instance.facts.link if instance is not None else ""
        channels = self._links.get(link)
        if channels is None:
            raise LinkGone("the session has no link")
        return self._strangers.get(link), channels

    # --- receiving -------------------------------------------------------------------------

    def _post(self, link: str, event: Event) -> None:
        self._runtime.post(MachineName.LINK, link, event)

    def _post_frame(
        self, link: str, made: Callable[[], Event], machine: MachineName = MachineName.LINK
    ) -> None:
        """What a frame became; a peer that sends more than can be decided is told, and let go."""
        channels = self._links.get(link)
        if channels is None or channels.flooded:
            return
        if channels.waiting >= MOST_WAITING:
            channels.flooded = True
            self._answer(link, TOO_FAST)
            self._post(link, FrameRefused(code=TOO_FAST.code, strikes=MOST_WAITING))
            return
        channels.waiting += 1

        def event() -> Event:
            channels.waiting -= 1
            return made()

        self._runtime.post(machine, link, event)

    def _session_of(self, link: str) -> str:
        instance = self._runtime.world.get(MachineName.LINK, link)
        return instance.facts.session if instance is not None else ""

    def _control(self, link: str, data: str | bytes) -> None:
        frame = self._decoded(link, data, Lane.CONTROL)
        if frame is None:
            return
        row = ROW_OF[type(frame.msg)]
        if (frame.seq > 0) is not (row.replay is Replay.ALL):
            self._strike(link, NUMBER)
            return
        sessions = self.sessions
        if sessions is not None and frame.ack and self._carries(link):
            sessions.acknowledged(self._session_of(link), frame.ack)
        if row.machine is MachineName.LINK:
            self._post_frame(link, lambda: Received(message=frame.msg, link=link))
            return
        self._post_frame(
            link,
            lambda: FrameArrived(
                number=frame.seq,
                expected=sessions.expected(self._session_of(link)) if sessions else 0,
                message=frame.msg,
            ),
        )

    def _log(self, link: str, data: str | bytes) -> None:
        frame = self._decoded(link, data, Lane.LOG)
        if frame is not None and self._is_up(link):
            self._alive(link)
            self._on_log(frame.msg)

    def _bulk(self, link: str, data: str | bytes) -> None:
        if isinstance(data, str):
            self._strike(link, NO_TEXT)
        elif self._is_up(link):
            self._alive(link)
            try:
                self._on_chunk(self._session_of(link), data)
            except ProtocolError as error:
                self._strike(link, error)

    def _foreign(self, guest: Guest, link: str, data: str | bytes) -> None:
        """What a client of another dialect says is an event of the guest that stands in for it."""
        event: Event | None
        try:
            event = guest.hear(data)
        except ProtocolError as error:
            event = GuestRefused(reason=error.sentence) if self._count(link, error) else None
        if self._is_up(link):
            self._alive(link)
        if event is not None:
            machine = MachineName.LINK if isinstance(event, ProofChecked) else MachineName.GUEST
            self._post_frame(link, lambda: event, machine)

    def _is_up(self, link: str) -> bool:
        """Bulk does not pass the tables: it is gated by the link's state alone."""
        instance = self._runtime.world.get(MachineName.LINK, link)
        return instance is not None and instance.state in _UP

    def _carries(self, link: str) -> bool:
        """Whether the link is proved, and is the one that its session holds."""
        session = self._runtime.world.get(MachineName.SESSION, self._session_of(link))
        return self._is_up(link) and session is not None and session.facts.link == link

    def _alive(self, link: str) -> None:
        """Bulk is a sign of life too; said once a second, not for each chunk."""
        channels = self._links.get(link)
        now = time.monotonic()
        if channels is not None and now - channels.heard > 1.0:
            channels.heard = now
            self._post(link, FrameArrived())

    def _decoded(self, link: str, data: str | bytes, lane: Lane) -> Frame | None:
        try:
            frame = decode(data, self._inbound)
            if ROW_OF[type(frame.msg)].lane is not lane:
                raise WRONG_LANE
        except ProtocolError as error:
            self._strike(link, error)
            return None
        return frame

    def _strike(self, link: str, error: ProtocolError) -> None:
        if self._count(link, error):
            self._answer(link, error)

    def _answer(self, link: str, error: ProtocolError) -> None:
        """Tells a peer what was wrong; aiortc, which calls this, would end over what is raised."""
        if self.sessions is None or not self._is_up(link):
            return
        try:
            answer = m.Error(code=error.code, message=error.sentence)
            self.sessions.send(self._session_of(link), answer)
        except ValueError as failure:  # longer than the peer takes
            self._post(link, EffectFailed(effect="answer", reason=str(failure)))

    def _count(self, link: str, error: ProtocolError) -> bool:
        channels = self._links.get(link)
        if channels is None or channels.flooded:
            return False
        channels.strikes += 1
        channels.flooded = channels.strikes > MOST_WAITING  # its table has closed it long before
        log.info("! link %s: %s", link, error)
        refused = FrameRefused(code=error.code, strikes=channels.strikes)
        self._post_frame(link, lambda: refused)
        return True

    # --- effects ---------------------------------------------------------------------------

    def keep_alive(self, link: str) -> None:
        """Sends a ping."""
        channels = self._links.get(link)
        if channels is not None:
            channels.pings += 1
            self.write(link, Frame(msg=m.Ping(n=channels.pings)))

    def send_pong(self, effect: SendPong) -> None:
        """Answers a ping."""
        if isinstance(effect.event, Received):
            self.write(effect.subject, Frame(msg=m.Pong(n=effect.event.message.n)))

    def send_ack(self, effect: SendAck) -> None:
        """Says what has arrived."""
        if self.sessions is not None:
            received = self.sessions.lane(effect.facts.session).received
            self.write(effect.subject, Frame(ack=received, msg=m.Ack()))

    async def farewell(self, effect: Farewell) -> None:
        """Says bye and waits until it has left; the table's timer bounds the wait."""
        channels = self._links.get(effect.subject)
        if channels is not None:
            bye = m.Bye(code=effect.code, reason=effect.facts.reason)
            self.write(effect.subject, Frame(msg=bye))
            await channels.flushed(CONTROL_LABEL)
        self._post(effect.subject, Flushed())

    def refuse_offer(self, effect: RefuseOffer) -> None:
        """Says through signaling why there is no answer."""
        self._say(effect.facts.peer, effect.code, effect.facts.reason)

    def report_link_failure(self, effect: ReportLinkFailure) -> None:
        """Says in words why there is no link."""
        log.warning("! link %s with %s: %s", effect.subject, effect.facts.peer, effect.facts.reason)
        self._on_failure(effect.code, effect.facts.reason)
        self._say(effect.facts.peer, effect.code, effect.facts.reason)
