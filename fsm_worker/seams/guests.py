"""The guests of a worker: performs what the table `guest` asks for, and the words of a link's door.

See `fsm_worker.seams.guest` for one of them.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from fsm_worker.effects import (
    AcceptPath,
    AdmitGuest,
    AskCancel,
    AskStop,
    CheckInput,
    CheckOutput,
    CheckPackage,
    ConfirmResults,
    DropArriving,
    DropPackage,
    Effect,
    FeedPackage,
    FetchResults,
    HandOver,
    KeepArriving,
    RefuseFlow,
    RefusePath,
    RefuseResults,
    RefuseShared,
    SendChallenge,
    SubmitPackage,
    SubmitShared,
    TakeResults,
    TellEnd,
    TellGuest,
    TellReason,
    TellStage,
    TurnAway,
)
from fsm_worker.events import (
    FlowAsked,
    HandedOver,
    InputChecked,
    InputNamed,
    OutputChecked,
    OutputNamed,
    PackageChecked,
    PackageWanted,
    ResultsOffered,
    TimerExpired,
)
from fsm_worker.runtime import Runtime
from fsm_worker.seams import guest_words as words
from fsm_worker.seams.channels import Channels, LinkGone
from fsm_worker.seams.guest import READ, Guest, fresh_id
from fsm_worker.seams.spools import SharedPackages, Spool, Spools
from fsm_worker.work_threads import InThread
from protocol import CONTROL_LABEL
from protocol import messages as m
from protocol.bulk import DEFAULT_CHUNK, HEADER_SIZE, encode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.sleap_rtc import auth
from protocol.sleap_rtc import frames as f
from protocol.table import MachineName

#: The one input of a guest's job; what the client calls it is no name of a file here.
_INPUT = "package.zip"
_PAYLOAD = DEFAULT_CHUNK - HEADER_SIZE
#: Seconds for a refusal to leave before its link is closed; a link in its last state has no timer.
_LAST_WORDS_S = 5.0


class Guests:
    """Stands in for clients of sleap-rtc.

    Args:
        runtime: whose inbox takes the events.
        spools: where files are kept on their way.
        on_chunk: takes a bulk frame of a session, as from a native client.
        shared: looks at paths in the shared storage.
        allowed: the operator lets them in.
        secret: of the room, that they have to prove to hold; empty asks for no proof.
        files: threads in which packages and results are hashed and looked at.

    Raises:
        BadRoomSecret: the secret can't be used.
    """

    def __init__(
        self,
        runtime: Runtime,
        spools: Spools,
        on_chunk: Callable[[str, bytes], None],
        shared: SharedPackages,
        *,
        allowed: bool,
        secret: str = "",
        files: InThread = asyncio.to_thread,
    ) -> None:
        self.lock(secret)
        self._file_thread = files
        self._runtime = runtime
        self._spools = spools
        self._on_chunk = on_chunk
        self._shared = shared
        self._allowed = allowed
        self._guests: dict[str, Guest] = {}
        self._doomed: set[Spool] = set()

    def lock(self, secret: str) -> None:
        """From now on, who comes has to prove to hold this secret; an empty one asks for none.

        Raises:
            BadRoomSecret: it can't be used.
        """
        if secret:
            auth.hmac_proof(secret, "")  # before anybody comes
        self._secret = secret

    @property
    def locked(self) -> bool:
        """Whether a secret is asked for."""
        return bool(self._secret)

    def welcome(self, link: str, channels: Channels) -> Guest | None:
        """Makes a guest for a link that speaks sleap-rtc; None if the operator lets none in."""
        if not self._allowed:
            return None
        guest = Guest(link, channels, self._runtime, self._spools, self._secret)
        self._guests[link] = guest
        return guest

    def forget(self, link: str) -> None:
        """The link is closed; its files go with it."""
        guest = self._guests.pop(link, None)
        if guest is not None:
            self._drop_all(guest)

    def _of(self, effect: Effect) -> Guest:
        guest = self._guests.get(effect.subject)
        if guest is None:
            raise LinkGone("the client has gone")
        return guest

    # --- the door ------------------------------------------------------------------------------

    def send_challenge(self, effect: SendChallenge) -> None:
        """Asks for a proof."""
        guest = self._of(effect)
        guest.say((f.AuthChallenge(nonce=guest.nonce),))

    def admit_guest(self, effect: AdmitGuest) -> None:
        """Says that the proof is good."""
        self._of(effect).say((f.AuthSuccess(),))

    async def turn_away(self, effect: TurnAway) -> None:
        """Says that there is none, or that it is wrong; returns when that has left."""
        guest = self._of(effect)
        if isinstance(effect.event, TimerExpired):
            reason = f.AuthReason.TIMEOUT
        else:
            missing = guest.proof == f.NO_PROOF
            reason = f.AuthReason.MISSING if missing else f.AuthReason.INVALID
        guest.say((f.AuthFailure(reason=reason),))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await guest.channels.flushed(CONTROL_LABEL)

    # --- the package ---------------------------------------------------------------------------

    def keep_arriving(self, effect: KeepArriving) -> None:
        """The announced file is the package."""
        guest = self._of(effect)
        guest.package, guest.arriving = guest.arriving, None

    def drop_arriving(self, effect: DropArriving) -> None:
        """Deletes the announced file, whose bytes may still come."""
        guest = self._of(effect)
        self._doom(guest, guest.arriving)
        guest.arriving = None

    async def check_package(self, effect: CheckPackage) -> None:
        """Measures and hashes what came.

        Raises:
            OSError: it can't be read.
        """
        guest = self._of(effect)
        if guest.package is None:
            raise LinkGone("the package was thrown away")
        try:
            root, stages = await self._file_thread(guest.package.check, effect.facts.kind)
        except ProtocolError as refusal:
            guest.post(PackageChecked(reason=refusal.sentence))
            return
        guest.post(PackageChecked(root=root, job=fresh_id(), stages=stages))

    def submit_package(self, effect: SubmitPackage) -> None:
        """Submits the package as a native client does, and asks for the job's log."""
        guest, facts = self._of(effect), effect.facts
        guest.transfers += 1
        file = m.InputFile(name=_INPUT, size=facts.size, root=facts.root)
        guest.ask(m.Submit(job=facts.job, spec=m.JobSpec(name=facts.name), inputs=(file,)))
        guest.ask(m.FileOffer(
            transfer=guest.transfers, job=facts.job, name=_INPUT, size=facts.size, root=facts.root,
        ))  # fmt: skip
        guest.ask(m.LogGet(job=facts.job))

    async def check_input(self, effect: CheckInput) -> None:
        """Looks for a package in the shared storage."""
        guest, event = self._of(effect), effect.event
        if not isinstance(event, InputNamed):
            return
        path = event.path
        try:
            kind, stages = await self._file_thread(self._shared.check_input, path)
        except (ProtocolError, OSError) as error:
            guest.post(InputChecked(path=path, reason=words.reason_of(error)))
        else:
            guest.post(InputChecked(path=path, kind=kind, stages=stages))

    async def check_output(self, effect: CheckOutput) -> None:
        """Looks at the folder for results."""
        guest, event = self._of(effect), effect.event
        if not isinstance(event, OutputNamed):
            return
        reason = ""
        try:
            await self._file_thread(self._shared.check_output, event.path)
        except (ProtocolError, OSError) as error:
            reason = words.reason_of(error)
        guest.post(OutputChecked(path=event.path, reason=reason))

    def submit_shared(self, effect: SubmitShared) -> None:
        """Submits the job in the shared storage, and asks for its log."""
        guest, facts = self._of(effect), effect.facts
        spec = m.JobSpec(kind="shared", name=facts.label, input=facts.input, output=facts.output)
        guest.ask(m.Submit(job=facts.job, spec=spec))
        guest.ask(m.LogGet(job=facts.job))

    async def feed_package(self, effect: FeedPackage) -> None:
        """Sends the worker the bytes that it asks for.

        Raises:
            OSError: the package can't be read.
        """
        guest, event = self._of(effect), effect.event
        package = guest.package
        if package is None or not isinstance(event, PackageWanted):
            return
        for start, end in event.ranges:
            for offset in range(start, end, READ):
                data = await asyncio.to_thread(package.read, offset, min(READ, end - offset))
                for at in range(0, len(data), _PAYLOAD):
                    piece = data[at : at + _PAYLOAD]
                    self._on_chunk(guest.session, encode_chunk(guest.transfers, offset + at, piece))

    def drop_package(self, effect: DropPackage) -> None:
        """Deletes what is kept of the package or of the results."""
        guest = self._guests.get(effect.subject)
        if guest is not None:
            self._drop(guest)

    def _drop(self, guest: Guest) -> None:
        address = (MachineName.GUEST, guest.link)
        for task in ("check_package", "feed_package", "hand_over"):
            self._runtime.cancel(address, f"{task} ")
        self._doom(guest, guest.package, guest.results)
        guest.package = guest.results = None

    def _drop_all(self, guest: Guest) -> None:
        self._drop(guest)
        for task in ("check_input", "check_output"):
            self._runtime.cancel((MachineName.GUEST, guest.link), f"{task} ")
        self._doom(guest, guest.arriving)
        guest.arriving = None

    def _doom(self, guest: Guest, *spools: Spool | None) -> None:
        for spool in spools:
            if spool is not None:
                guest.let_go(spool)
                self._doomed.add(spool)
                address = (MachineName.GUEST, guest.link)
                self._runtime.spawn(address, partial(self._discard, spool), "discard")

    async def _discard(self, spool: Spool) -> None:
        await asyncio.to_thread(spool.discard)
        self._doomed.discard(spool)

    async def close(self) -> None:
        """Deletes what is left of everybody's files."""
        for guest in self._guests.values():
            self._drop_all(guest)
        for spool in list(self._doomed):
            await self._discard(spool)

    # --- the job -------------------------------------------------------------------------------

    def ask_stop(self, effect: AskStop) -> None:
        """Asks the worker to stop the guest's job."""
        self._of(effect).ask(m.Stop(job=effect.facts.job))

    def ask_cancel(self, effect: AskCancel) -> None:
        """Asks the worker to cancel it."""
        self._of(effect).ask(m.Cancel(job=effect.facts.job))

    def tell_stage(self, effect: TellStage) -> None:
        """Says that a command begins."""
        self._of(effect).say(words.stage(effect.facts))

    def tell_end(self, effect: TellEnd) -> None:
        """Says how the job ended."""
        self._of(effect).say(words.ending(effect.facts))

    # --- its results ---------------------------------------------------------------------------

    def fetch_results(self, effect: FetchResults) -> None:
        """Asks the worker for them."""
        self._of(effect).ask(m.Fetch(job=effect.facts.job))

    def take_results(self, effect: TakeResults) -> None:
        """Makes room for them, and asks for their bytes.

        Raises:
            ProtocolError: there is no room.
            OSError: the disk fails.
        """
        guest, event = self._of(effect), effect.event
        if isinstance(event, ResultsOffered):
            guest.results = self._spools.open(event.size)
            guest.ask(m.FileNeed(transfer=event.transfer, ranges=((0, event.size),)))

    async def hand_over(self, effect: HandOver) -> None:
        """Hashes them, and sends the client what is for it.

        Raises:
            ProtocolError: they are not what was announced, or can't be named to the client.
            OSError: the disk fails.
        """
        guest, facts = self._of(effect), effect.facts
        if guest.results is None:
            raise LinkGone("the results were thrown away")
        if await self._file_thread(guest.results.digest) != facts.results.root:
            raise ProtocolError(ErrorCode.HASH_MISMATCH, "the results came with another hash")
        files: tuple[tuple[str, Spool], ...] = ()
        track, well = facts.kind == "track", facts.outcome in words.WELL
        if well or not track:  # tracking that failed has no predictions to hand over
            files = await self._file_thread(guest.results.for_client, facts.kind, facts.name)
        try:
            for name, file in files:
                await guest.say_file(words.result(facts, name, file.size), file)
        except ConnectionError:
            return  # the client went, and its guest with it; the worker keeps the results
        if track and well:
            guest.say((f.InferenceJobsDone(),) if files else words.no_predictions())
        guest.post(HandedOver(files=len(files)))

    def confirm_results(self, effect: ConfirmResults) -> None:
        """Tells the worker that they have arrived."""
        facts = effect.facts
        self._of(effect).ask(m.FileStored(transfer=facts.transfer, root=facts.results.root))

    def refuse_results(self, effect: RefuseResults) -> None:
        """Tells the worker that they have not, and the client why."""
        guest, facts = self._of(effect), effect.facts
        reason = getattr(effect.event, "reason", "")
        text = f"the results could not be sent ({reason}): the worker keeps them for a while"
        guest.say(words.sentence(facts.kind, text))
        guest.ask(m.FileRefused(transfer=facts.transfer, code=ErrorCode.ABORTED, message=reason))

    # --- words ---------------------------------------------------------------------------------

    def tell_guest(self, effect: TellGuest) -> None:
        """Says a sentence."""
        self._of(effect).say(words.sentence(effect.facts.kind, effect.sentence))

    def tell_reason(self, effect: TellReason) -> None:
        """Says why."""
        text = getattr(effect.event, "reason", "")
        self._of(effect).say(words.sentence(effect.facts.kind, text))

    def accept_path(self, effect: AcceptPath) -> None:
        """Says that a path is good."""
        self._of(effect).say((f.PathValidated(side=f.SharedSide(effect.side)),))

    def refuse_path(self, effect: RefusePath) -> None:
        """Says why a path is not."""
        self._of(effect).say((words.path_error(getattr(effect.event, "reason", "")),))

    def refuse_shared(self, effect: RefuseShared) -> None:
        """Says why a job in the shared storage is not taken now."""
        self._of(effect).say((words.path_error(effect.sentence),))

    def refuse_flow(self, effect: RefuseFlow) -> None:
        """Says that a flow is not performed."""
        if isinstance(effect.event, FlowAsked):
            self._of(effect).say((words.refusal(effect.event.frame),))
