"""The worker's registration, and what it publishes about itself.

One builder makes the registration, so registering again says the same words. The status that peers
see is a function of the machines; nothing here stores one.
"""

import logging
from collections.abc import Callable

from fsm_worker.effects import (
    AnnounceStatus,
    ConfirmDrain,
    Leave,
    PublishStatus,
    ReportReady,
    ReportSignalling,
    SendRegistration,
    SendWorkerStatus,
)
from fsm_worker.events import Event, ProbeSucceeded, Received, StatusChanged
from fsm_worker.machines.worker import published_status
from fsm_worker.machines.world import THE_SERVER, THE_WORKER, World
from protocol import messages as m
from protocol.lifecycle import WorkerState
from protocol.proof import SessionString
from protocol.signaling import FromPeer, Metadata, Register, UpdateMetadata
from protocol.sleap_rtc.peer import JOB_TYPES
from protocol.table import MachineName

log = logging.getLogger(__name__)

TAGS = ("fsm-worker",)
#: What clients of sleap-rtc look for (0.0.7, `client/client_class.py`).
FOREIGN_TAGS = ("sleap-rtc", "training-worker", "inference-worker")


class StateManager:
    """Speaks about the worker as a whole.

    Args:
        world: whose machines are published.
        name: of the worker, for people.
        send: the signaling port.
        tell: sends a message to a session.
        say: shows a line to the operator.
        ready: shows the operator how clients get here.
        emit: reports events.
        foreign: clients of sleap-rtc may come in, and so are to find this worker.
    """

    def __init__(
        self,
        world: World,
        *,
        name: str,
        send: Callable[[FromPeer], None],
        tell: Callable[[str, m.Message], None],
        emit: Callable[[MachineName, str, Event], None],
        say: Callable[[str], None] = lambda _line: None,
        ready: Callable[[SessionString], None] = lambda _session: None,
        foreign: bool = False,
    ) -> None:
        self._world = world
        self._name = name
        self._send = send
        self._tell = tell
        self._say = say
        self._ready = ready
        self._emit = emit
        self._foreign = foreign
        self._session: SessionString | None = None
        self._peer = ""
        self._id_token = ""
        self.capabilities = m.Capabilities()

    # --- ports -----------------------------------------------------------------------------

    def join(self, session: SessionString, id_token: str) -> None:
        """Sets what the registration says: who we are, and which room.

        Args:
            session: names our peer id, the room and its token.
            id_token: proves our peer id.
        """
        self._session, self._id_token = session, id_token
        self._peer = session.peer

    @property
    def status(self) -> str:
        """The worker's status in sleap-rtc's four words."""
        worker = self._world.get(MachineName.WORKER, THE_WORKER)
        return published_status(worker.state if worker is not None else WorkerState.STARTING)

    def registration(self) -> Register:
        """The words that join the room; the same for the same machines."""
        return Register(
            peer_id=self._peer,
            room_id=self._session.room if self._session else None,
            token=self._session.token if self._session else None,
            id_token=self._id_token or None,
            role="worker",
            metadata=self._metadata(),
        )

    def _metadata(self) -> Metadata:
        gpus = self.capabilities.gpus
        mine = [gpu for gpu in gpus if gpu.uuid == self.capabilities.gpu] or gpus
        runners = self.capabilities.runners
        return Metadata(
            tags=TAGS + (FOREIGN_TAGS if self._foreign else ()),
            properties={
                "key": self._session.key if self._session else "",
                "status": self.status,
                "worker_name": self._name,
                "hostname": self.capabilities.hostname,
                "gpu_model": mine[0].model if mine else "",
                "gpu_memory_mb": mine[0].memory_mb if mine else 0,
                "cuda_version": mine[0].cuda if mine else "",
                "runners": list(runners),
                "max_concurrent_jobs": 1,
                "supported_models": [],
                "supported_job_types": [
                    kind for kind, runner in JOB_TYPES.items() if runner in runners
                ],
            },
        )

    # --- effects ---------------------------------------------------------------------------

    def send_registration(self, effect: SendRegistration) -> None:
        """Joins the room."""
        del effect
        self._send(self.registration())

    def publish_status(self, effect: PublishStatus) -> None:
        """Tells the room and every session."""
        if isinstance(effect.event, ProbeSucceeded):
            self.capabilities = effect.event.capabilities
        log.info("= worker is %s %s", effect.after, effect.facts.reason)
        self._emit(MachineName.SIGNALLING, THE_SERVER, StatusChanged())
        for session in self._world.live(MachineName.SESSION):
            self._tell(session.subject, self._status_for(session.facts.key))

    def announce_status(self, effect: AnnounceStatus) -> None:
        """Tells the room."""
        del effect
        self._send(UpdateMetadata(peer_id=self._peer, metadata=self._metadata()))

    def report_ready(self, effect: ReportReady) -> None:
        """Tells the operator how clients get here."""
        del effect
        if self._session is not None:
            self._ready(self._session)

    def send_worker_status(self, effect: SendWorkerStatus) -> None:
        """Answers `worker_get`."""
        if isinstance(effect.event, Received):
            self._tell(effect.subject, self._status_for(effect.event.key))

    def _status_for(self, key: str) -> m.WorkerStatus:
        worker = self._world.get(MachineName.WORKER, THE_WORKER)
        if worker is None:
            return m.WorkerStatus(name=self._name, state=WorkerState.STARTING)
        job = self._world.get(MachineName.JOB, worker.facts.slot)
        mine = job is not None and job.facts.owner == key
        return m.WorkerStatus(
            name=self._name,
            state=worker.state,
            job=worker.facts.slot if mine else "",
            reason=worker.facts.reason,
            capabilities=self.capabilities,
        )

    def confirm_drain(self, effect: ConfirmDrain) -> None:
        """Answers `drain` and `undrain`."""
        if isinstance(effect.event, Received):
            state = WorkerState(effect.after)
            self._tell(effect.event.session, m.DrainState(drained=effect.drained, state=state))

    def report_signalling(self, effect: ReportSignalling) -> None:
        """Tells the operator that the server refuses this worker."""
        self._say(f"The signaling server refuses this worker: {effect.facts.reason}")

    def leave(self, effect: Leave) -> None:
        """Tells the operator that the worker's run is over."""
        self._say(f"The worker has stopped{_because(effect.facts.reason)}.")


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
