"""`RTCWorkerClient`: owns the WebRTC lifecycle, the inbox and the managers, and only wires them.

The constructor, `run_worker` and the public attributes are those of sleap-rtc's class of the same
name. What happens when is in `fsm_worker.machines`; how, in `fsm_worker.services`.
"""

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from fsm_worker.effects import ClosePeer, HandleConnection, KeepIceAlive, Owner, TurnAway
from fsm_worker.events import RecvOffer, SentAnswer, Started, TerminateRequested
from fsm_worker.folders import WORKER_KEY, claimed, make_private
from fsm_worker.identity import Identity, KnownClients
from fsm_worker.journal import FILE_NAME, Journal
from fsm_worker.machines.engine import Step
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from fsm_worker.machines.worlds import at_rest, worker_world
from fsm_worker.runtime import Runtime
from fsm_worker.seams.channels import fingerprint
from fsm_worker.seams.gathering import closed, gathered
from fsm_worker.seams.guests import Guests
from fsm_worker.seams.loopback import allow_loopback
from fsm_worker.seams.peer_lane import PeerLane
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.readiness import readiness
from fsm_worker.seams.room import enter_room, take_word
from fsm_worker.seams.sessions import Sessions
from fsm_worker.seams.signaling_link import SignalingLink
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.job_coordinator import JobCoordinator
from fsm_worker.services.job_executor import JobExecutor
from fsm_worker.services.launcher import LocalLauncher
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.runners import builtin_runners
from fsm_worker.services.shared_storage import SharedStorage
from fsm_worker.services.spool import SharedPackages, Spools
from fsm_worker.services.state_manager import StateManager
from fsm_worker.settings import WorkerSettings
from fsm_worker.work_threads import WorkThreads
from protocol.messages import Progress, Telemetry
from protocol.signaling import Answer
from protocol.table import MachineName


class RTCWorkerClient:
    """A worker.

    Args:
        chunk_size: bytes of one bulk chunk, header included; kept for callers of sleap-rtc, the
            native dialect negotiates it.
        gpu_id: index of the GPU to use.
        shared_storage_root: root of a storage that clients see, too; None takes the settings'.
        settings: everything else.
    """

    def __init__(
        self,
        chunk_size: int = 32 * 1024,
        gpu_id: int = 0,
        shared_storage_root: str | None = None,
        *,
        settings: WorkerSettings | None = None,
    ) -> None:
        self.settings = settings or WorkerSettings()
        self.chunk_size = chunk_size
        self.shared_storage_root = shared_storage_root
        state = self.settings.state
        make_private(state)
        (state / "jobs").mkdir(exist_ok=True)
        self.identity = Identity.load(state / WORKER_KEY)
        self.clients = KnownClients(state / "clients.json", self.identity.key)
        self.world = worker_world()
        self.journal = Journal(state / FILE_NAME)
        self.runtime = Runtime(
            self.world,
            self.journal,
            overrides=self.settings.timers,
            watch=self._answer_refusals,
        )
        shared = SharedStorage(shared_storage_root or self.settings.shared_storage)
        runners = {**builtin_runners(self.settings.sleap_nn), **self.settings.runners}
        emit, self.threads = self.runtime.post, WorkThreads()
        self.signaling = SignalingLink(
            "", emit=emit, on_message=lambda word: take_word(self.runtime, self.peers, word)
        )
        self.guests = Guests(
            self.runtime, Spools(state / "guests"), self._take_chunk, SharedPackages(shared),
            allowed=self.settings.allow_sleap_rtc, secret=self.settings.sleap_rtc_secret,
            files=self.threads.files,
        )  # fmt: skip
        self.links = PeerLinks(
            self.runtime, self.identity, self.clients, "worker",
            on_chunk=self._take_chunk, say=self.signaling.refuse, guests=self.guests,
        )  # fmt: skip
        self.sessions = Sessions(self.world, emit, self.links.write, name=self.settings.name)
        self.links.sessions, self.handshake = self.sessions, self.links.handshake
        self.capabilities = WorkerCapabilities(
            gpu_id, emit=emit, disk=state, declared=self.settings.declared, shared=shared,
            runners=tuple(sorted({runner.name for runner in runners.values()})),
        )  # fmt: skip
        self.progress_reporter = ProgressReporter(emit=emit, deliver=self._tell_owner)
        self.file_manager = FileManager(
            state / "jobs", emit=emit, send=self.sessions.send, send_bulk=self.links.send_bulk,
            spawn=self.runtime.spawn, cancel=self.runtime.cancel,
            incoming_of=MachineName.JOB, outgoing_of=MachineName.RESULTS, shared=shared,
            files=self.threads.files,
        )  # fmt: skip
        self.job_executor = JobExecutor(
            capabilities=self.capabilities, file_manager=self.file_manager,
            progress_reporter=self.progress_reporter, launcher=LocalLauncher(),
            runners=runners, emit=emit, telemetry=self._tell_owner,
            packages=self.threads.packages, slot=self.threads.slot,
        )  # fmt: skip
        self.peers = PeerLane(
            self.world, emit=emit, send=self.sessions.send, signal=self.signaling.send,
            allowed=self.settings.allow_sleap_rtc, locked=lambda: self.guests.locked,
        )  # fmt: skip
        self.job_coordinator = JobCoordinator(
            self.world, send=self.peers.send, send_log=self.links.send_log,
            spawn=self.runtime.spawn, cancel=self.runtime.cancel, emit=emit,
            log_of=self.job_executor.log_of, unmet=self.capabilities.compatibility,
            tell_peer=self.peers.tell, durations=self.settings.timers,
            journal=self.journal.path,
        )  # fmt: skip
        self.state_manager = StateManager(
            self.world, name=self.settings.name, send=self.signaling.send,
            tell=self.sessions.send, emit=emit, say=self.settings.say, ready=self.settings.ready,
            foreign=self.settings.allow_sleap_rtc,
        )  # fmt: skip
        # an owner's value is the attribute that performs its effects; WebRTC is this class itself
        self.runtime.bind({owner: getattr(self, owner, self) for owner in Owner})
        self._peers: dict[str, RTCPeerConnection] = {}
        self._given: RTCPeerConnection | None = None

    @property
    def status(self) -> str:
        """The worker's status in sleap-rtc's four words."""
        return self.state_manager.status

    @property
    def gpu_memory_mb(self) -> int:
        """Memory of the chosen GPU (MiB); 0 without one."""
        return self.capabilities.gpu_memory_mb

    @property
    def gpu_model(self) -> str:
        """Name of the chosen GPU; empty without one."""
        return self.capabilities.gpu_model

    @property
    def cuda_version(self) -> str:
        """Highest CUDA version of the driver; empty without one."""
        return self.capabilities.cuda_version

    # --- lifecycle ---------------------------------------------------------------------------

    async def run_worker(
        self,
        pc: RTCPeerConnection | None,
        DNS: str,  # noqa: N803 - sleap-rtc's name
        port_number: int | str,
        room_id: str | None = None,
        token: str | None = None,
    ) -> None:
        """Runs until the worker has stopped; cancelling it stops everything at once.

        Args:
            pc: serves the first offer; later ones get their own. None makes all.
            DNS: the signaling server, `ws://HOST` or `wss://HOST`.
            port_number: its port.
            room_id: the room to join; None makes one.
            token: of that room.

        Raises:
            SignalingUnreachable: no signaling server answers there.
            SignalingRefused: it gives no name or no room.
            StateInUse: another worker has this state folder.
        """
        allow_loopback()
        self._given = pc
        url = f"{DNS.rstrip('/')}:{port_number}"
        session, id_token = await enter_room(
            url,
            room_id,
            token,
            key=self.identity.key,
            secret=self.clients.secret,
            public_url=self.settings.public_url or url,
        )
        self.signaling.url, self.peers.name = url, session.peer
        self.state_manager.join(session, id_token)
        with claimed(self.settings.state), self.journal:
            try:
                self.runtime.post(MachineName.WORKER, THE_WORKER, Started())
                self.runtime.post(MachineName.SIGNALLING, THE_SERVER, Started())
                await self.runtime.run(until=partial(at_rest, self.world))
            finally:
                await self.clean_exit()

    def terminate(self) -> None:
        """Asks the worker to leave: it drains; asked again, it stops."""
        self.runtime.post(MachineName.WORKER, THE_WORKER, TerminateRequested())

    def handle_signals(self) -> None:
        """SIGINT and SIGTERM ask the worker to leave, from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.terminate)

    async def clean_exit(self) -> None:
        """Closes every peer connection and every manager; nothing of ours is left."""
        async with AsyncExitStack() as last:  # whoever is cancelled here closes the others still
            for manager in (self.threads, self.guests, self.file_manager):  # threads last
                last.push_async_callback(manager.close)
            last.push_async_callback(self.progress_reporter.aclose)
            last.push_async_callback(self.job_executor.close)
            if self._given is not None:
                last.push_async_callback(closed, self._given)
            for link in self._peers:
                last.push_async_callback(self._close, link)

    # --- WebRTC ------------------------------------------------------------------------------

    async def handle_connection(self, effect: HandleConnection) -> None:
        """Answers an offer: a peer connection of its own, and an answer through signaling."""
        if not isinstance(effect.event, RecvOffer):
            return
        link, event = effect.subject, effect.event
        pc, self._given = self._given or self._new_peer(), None
        self._peers[link] = pc
        self.links.open(
            link,
            lambda: (fingerprint(pc.localDescription.sdp), fingerprint(pc.remoteDescription.sdp)),
        )
        pc.on("datachannel", lambda channel: self.on_datachannel(link, channel))
        pc.on("iceconnectionstatechange", lambda: self.on_iceconnectionstatechange(link))
        pc.on("connectionstatechange", lambda: self.on_iceconnectionstatechange(link))
        await pc.setRemoteDescription(RTCSessionDescription(sdp=event.sdp, type="offer"))
        sdp = await gathered(pc, await pc.createAnswer())
        self.runtime.post(MachineName.LINK, link, SentAnswer())
        self.signaling.send(
            Answer(sender=self.peers.name, target=event.peer, sdp=sdp, link=event.about)
        )

    def on_datachannel(self, link: str, channel: RTCDataChannel) -> None:
        """A data channel of the peer: its frames become events."""
        self.links.attach(link, channel)

    def on_iceconnectionstatechange(self, link: str) -> None:
        """Readiness strings of the peer connection become events."""
        pc = self._peers.get(link)
        event = readiness(pc) if pc is not None else None
        if event is not None:
            self.runtime.post(MachineName.LINK, link, event)

    def keep_ice_alive(self, effect: KeepIceAlive) -> None:
        """Pings the peer: a path that dies raises no event."""
        self.links.keep_alive(effect.subject)

    async def close_peer(self, effect: ClosePeer) -> None:
        """Closes the link's peer connection."""
        await self._close(effect.subject)

    async def turn_away(self, effect: TurnAway) -> None:
        """Closes the link of a guest that may not come in, once it was told so."""
        await self.guests.turn_away(effect)
        await self._close(effect.subject)

    async def _close(self, link: str) -> None:
        self.links.forget(link)
        pc = self._peers.pop(link, None)
        if pc is not None:
            await closed(pc)

    def _new_peer(self) -> RTCPeerConnection:
        servers = [RTCIceServer(urls=url) for url in self.settings.ice_servers]
        return RTCPeerConnection(RTCConfiguration(iceServers=servers))

    # What the managers below are given before the managers above exist.

    def _take_chunk(self, session: str, frame: bytes) -> None:
        self.file_manager.take_chunk(session, frame)

    def _tell_owner(self, message: Progress | Telemetry) -> None:
        self.job_coordinator.tell(message.job, message)

    def _answer_refusals(self, step: Step) -> None:
        self.sessions.answer_refusals(step)
