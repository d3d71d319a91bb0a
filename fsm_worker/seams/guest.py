"""One client of sleap-rtc: its frames become events, and what the worker says becomes its frames.

A guest stands in for a native client, in this process. Its session, its job and its files are at
the worker's machines what any client's are; nothing past it knows the dialect. What decides
anything becomes an event of the guest's machine; bytes, output and progress only pass through.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable

from fsm_worker.events import (
    ChunksCompleted,
    ControlOpened,
    Event,
    FrameArrived,
    GuestRefused,
    JobTold,
    LogOver,
    PackageAnnounced,
    PackageEnded,
    PackageTaken,
    PackageWanted,
    ProofChecked,
    ResultsLost,
    ResultsOffered,
    SharedJobAsked,
)
from fsm_worker.facts import GuestFacts
from fsm_worker.runtime import Runtime
from fsm_worker.seams import guest_words as words
from fsm_worker.seams.channels import Channels
from fsm_worker.seams.spools import Spool, Spools
from protocol import CONTROL_LABEL, sleap_rtc
from protocol import messages as m
from protocol.bulk import MAX_CHUNK, decode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, LinkState, Outcome
from protocol.sleap_rtc import auth
from protocol.sleap_rtc import frames as f
from protocol.table import MachineName

log = logging.getLogger(__name__)

_UP = frozenset({LinkState.UP, LinkState.SUSPECT})
_OVER = frozenset({LinkState.CLOSING, LinkState.CLOSED, LinkState.FAILED, LinkState.REJECTED})
_STRAY = "bytes came that belong to no announced file: send FILE_META first"


def fresh_id() -> str:
    """The id of a new job at the worker; a client's own name of it may be anybody's."""
    return f"job-{secrets.token_hex(8)}"


class Guest:
    """What stands in for one client.

    Args:
        link: by which it is here.
        channels: of the link; one channel carries all.
        runtime: whose inbox takes the events.
        spools: where files are kept on their way.
        secret: the room's, that it has to prove to hold; empty if there is none.

    Attributes:
        opened: what the link's machine is told of the channel.
        nonce: that the client has to answer, if there is a secret.
        proof: its answer, once it came.
        arriving: a file that the client has announced, until its machine keeps or refuses it.
        package: the file that was kept, until it is the worker's.
        results: the file that the worker sends.
        transfers: the last transfer number that was given out.
    """

    def __init__(
        self, link: str, channels: Channels, runtime: Runtime, spools: Spools, secret: str
    ) -> None:
        self.link = link
        self.channels = channels
        self.session = f"guest-{link}"
        self.opened = ControlOpened(
            native=False, foreign_allowed=True, secret=bool(secret), session=self.session
        )
        self.nonce = auth.nonce(secrets.token_bytes(auth.NONCE_SIZE)) if secret else ""
        self.proof = ""
        self.arriving: Spool | None = None
        self.package: Spool | None = None
        self.results: Spool | None = None
        self.transfers = 0
        self._runtime = runtime
        self._spools = spools
        self._secret = secret
        self._taking: Spool | None = None  # the file that bytes belong to
        self._line = ""  # output whose line has not ended yet
        self._strayed = False  # the client was told that its bytes belong to none

    @property
    def facts(self) -> GuestFacts:
        """Of its machine."""
        instance = self._runtime.world.get(MachineName.GUEST, self.link)
        return instance.facts if instance is not None else GuestFacts()

    def post(self, event: Event) -> None:
        """Tells the guest's machine."""
        self._runtime.post(MachineName.GUEST, self.link, event)

    def ask(self, message: m.Message) -> None:
        """Says something to the worker, as a native client does."""
        # From outside, and so after all that was said before it has had its whole effect.
        asyncio.get_running_loop().call_soon(
            self._runtime.post, MachineName.LINK, self.link, FrameArrived(message=message)
        )

    def say(self, frames: Iterable[f.Frame]) -> None:
        """Says something to the client, now or never."""
        for frame in frames:
            try:
                self.channels.send(CONTROL_LABEL, sleap_rtc.encode(frame))
            except ProtocolError as error:
                log.warning("! link %s: can't be said in sleap-rtc's words: %s", self.link, error)

    async def say_paced(self, frame: f.Frame) -> None:
        """Says it when there is room.

        Raises:
            LinkGone: the link ended.
            ProtocolError: it can't be said.
        """
        await self.channels.paced(CONTROL_LABEL, sleap_rtc.encode(frame))

    # --- from the client -----------------------------------------------------------------------

    def hear(self, data: str | bytes) -> Event | None:
        """What a frame of the client becomes; before its proof only the proof is read.

        The link's machine is told `ProofChecked`, the guest's machine everything else.

        Raises:
            ProtocolError: it is no frame of the dialect.
        """
        link = self._runtime.world.get(MachineName.LINK, self.link)
        if link is None or link.state in _OVER:
            return None
        if self._secret and link.state not in _UP:
            return self._prove(data)
        try:
            frame = sleap_rtc.decode(data)
        except ProtocolError as error:
            refused = words.unread(data, error)
            if refused is None:
                raise
            return refused
        return self._read(frame)

    def _read(self, frame: f.Frame) -> Event | None:
        match frame:
            case f.Chunk(payload=payload):
                return self._keep(payload)
            case f.FileMeta():
                return self._announced(frame)
            case f.EndOfFile():
                self._taking, self._strayed = None, False
                return PackageEnded()
            case f.SharedStorageJob():
                return SharedJobAsked(job=fresh_id())
            case _:
                return words.read(frame)

    def _prove(self, data: str | bytes) -> Event | None:
        try:
            frame = sleap_rtc.decode(data)
        except ProtocolError:
            return None
        if not isinstance(frame, f.AuthResponse) or self.proof:
            return None
        self.proof = frame.proof
        right = auth.hmac_proved(self._secret, self.nonce, frame.proof)
        reason = "" if right else "the peer did not prove that it holds the room secret"
        return ProofChecked(proved=right, trusted=right, reason=reason)

    def _keep(self, payload: bytes) -> Event | None:
        if self._taking is not None:
            self._taking.append(payload)
            return None
        told, self._strayed = self._strayed, True
        return None if told else GuestRefused(reason=_STRAY)

    def _announced(self, frame: f.FileMeta) -> Event:
        reason = ""
        self._strayed = True  # if it is refused: that is said once, not of its bytes too
        self._taking = None
        if self.arriving is not None:
            reason = "two packages at once: announce the next when this one has ended"
        else:
            try:
                self._taking = self.arriving = self._spools.open(frame.size)
            except ProtocolError as error:
                reason = error.sentence
            except OSError as error:
                reason = f"the worker's disk refused: {error.strerror}"
        return PackageAnnounced(name=frame.name, size=frame.size, gui=frame.gui, reason=reason)

    def let_go(self, spool: Spool) -> None:
        """The file is about to be deleted: bytes that still come for it belong to none."""
        if self._taking is spool:
            self._taking = None

    # --- from the worker -----------------------------------------------------------------------

    def take(self, message: m.Message) -> None:
        """What the worker says to the session of the guest."""
        facts = self.facts
        match message:
            case m.Welcome():
                self.ask(m.Resume(received=0))
            case m.Ping():
                self.say((f.KeepAlive(),))
            case m.JobSnapshot() | m.JobStateChanged() if message.job == facts.job:
                self.post(
                    JobTold(
                        state=message.state,
                        stage=message.stage,
                        outcome=message.outcome,
                        problems=message.problems,
                        results=message.results,
                    )
                )
            case m.Progress() if message.job == facts.job and facts.gui:
                if not self.channels.full(CONTROL_LABEL):  # a newer one replaces it
                    self.say((words.report(facts, message),))
            case m.FileNeed():
                self.post(PackageWanted(ranges=message.ranges))
            case m.FileStored():
                self.post(PackageTaken())
            case m.FileOffer() if message.job == facts.job:
                self.post(
                    ResultsOffered(transfer=message.transfer, size=message.size, root=message.root)
                )
            case m.FileAbort():
                reason = message.message or "the worker could not send the results"
                self.post(ResultsLost(reason=reason))
            case m.Error():
                self._refused(message, facts)
            case _:
                pass  # what no word of this dialect says

    def _refused(self, error: m.Error, facts: GuestFacts) -> None:
        if error.job not in {"", facts.job}:
            return
        if error.about == "log_get":
            self.post(LogOver())
        elif error.about == "fetch":
            self.post(ResultsLost(reason=error.message))
        elif error.about == "submit":
            problem = m.Problem(code=error.code, sentence=error.message)
            refused = JobTold(
                state=JobState.REJECTED, outcome=Outcome.REJECTED, problems=(problem,)
            )
            self.post(refused)
        elif error.code is not ErrorCode.UNKNOWN_TRANSFER:  # word of files that are over
            self.post(GuestRefused(reason=error.message))

    async def take_log(self, message: m.Message) -> None:
        """Output of the job, when there is room for it.

        Raises:
            LinkGone: the link ended.
        """
        facts, over = self.facts, isinstance(message, m.LogEnd)
        if getattr(message, "job", "") != facts.job:
            return
        text, self._line = words.whole_lines(self._line, getattr(message, "text", ""), over=over)
        for frame in words.output(facts.kind, text):
            await self.say_paced(frame)
        if over:
            self.post(LogOver())

    def take_chunk(self, frame: bytes) -> None:
        """Bytes of the results.

        Raises:
            OSError: the disk is full or fails.
            ProtocolError: it is no chunk.
        """
        chunk = decode_chunk(frame, limit=MAX_CHUNK)
        if self.results is not None and chunk.transfer == self.facts.transfer:
            self.results.write(chunk.offset, chunk.payload)
            if self.results.complete:
                self.post(ChunksCompleted())
