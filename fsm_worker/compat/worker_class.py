"""sleap-rtc's `RTCWorkerClient`: its words and its habits, on this worker.

There are two signatures in the field. That of November 2025 has `shared_storage_root`; `room_id`
and `token` come after the port. That of release 0.0.7 has `mounts`, `working_dir` and `name`, and
`api_key` before `room_id`. Here the first is that of positions, and the words of the second are
taken by name.
"""

import asyncio
import contextlib
import functools
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from aiortc import RTCIceGatherer, RTCPeerConnection

from fsm_worker import worker_class
from fsm_worker.compat.room_secret import find_room_secret
from fsm_worker.folders import state_folder
from fsm_worker.machines.engine import Step
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.seams.signaling_socket import NotASignalingUrl
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.nearness import is_loopback
from protocol.lifecycle import SignallingState, WorkerState
from protocol.proof import SessionString
from protocol.table import MachineName

log = logging.getLogger(__name__)

#: What sleap-rtc's own program says whatever the server's port is; its worker does not read it.
_UNREAD_PORT = 8080
#: The environment variable by which sleap-rtc finds the shared storage.
_ROOT = "SHARED_STORAGE_ROOT"
_LEAVING = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.STOPPED)
#: Why a word has no effect here.
_UNUSED = {
    "mounts": "clients are shown none of this machine's folders; a job's files come in its package,"
    " or lie in the shared storage",
    "working_dir": "every job runs in a folder of its own, inside the worker's state folder",
    "api_key": "the worker asks the signaling server for a name of its own, and enters the room "
    "that `room_id` and `token` name, or makes one",
}


class NameTheApiKey(TypeError):
    """An API key stands where the room id belongs: pass it as `api_key=`."""


class RTCWorkerClient(worker_class.RTCWorkerClient):
    """A worker for a program that was written for sleap-rtc's.

    Its room, and how to submit to it, are in the log at INFO. Clients of sleap-rtc may come in, as
    into sleap-rtc's worker; where the room has a secret, those that prove to hold it.

    Args:
        chunk_size: bytes; see `fsm_worker.worker_class`.
        gpu_id: index of the GPU to use; each has a state folder of its own, so that a worker for
            each can run on a machine.
        shared_storage_root: root of a storage that clients see, too; None takes what the
            environment's SHARED_STORAGE_ROOT names, as sleap-rtc does. A list here is 0.0.7's
            `mounts`.
        working_dir: no effect.
        name: for people; None takes the host's.
        mounts: no effect.
        settings: everything else, of which `name` replaces one.

    What has no effect is warned about once, with the reason.
    """

    def __init__(
        self,
        chunk_size: int = 32 * 1024,
        gpu_id: int = 0,
        shared_storage_root: str | os.PathLike[str] | Sequence[object] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        name: str | None = None,
        *,
        mounts: Sequence[object] | None = None,
        settings: WorkerSettings | None = None,
    ) -> None:
        if isinstance(shared_storage_root, Sequence) and not isinstance(shared_storage_root, str):
            shared_storage_root, mounts = None, shared_storage_root
        _warn_of(mounts=mounts, working_dir=working_dir)
        root = shared_storage_root or os.environ.get(_ROOT) or None
        chosen = settings or _settings(gpu_id)
        super().__init__(
            chunk_size,
            gpu_id,
            os.fspath(root) if root is not None else None,
            settings=replace(chosen, name=name or chosen.name),
        )
        self.mounts = list(mounts or ())
        self.working_dir = working_dir
        self.name = self.settings.name
        self._patience = _Patience(math.inf, self._leave)

    async def run_worker(
        self,
        pc: RTCPeerConnection | None,
        DNS: str,  # noqa: N803 - sleap-rtc's name
        port_number: int | str,
        room_id: str | None = None,
        token: str | None = None,
        *,
        api_key: str | None = None,
        room_secret: str | None = None,
        max_reconnect_time: float | None = None,
    ) -> None:
        """Runs until the worker has stopped.

        As in sleap-rtc, Ctrl-C makes this return. The first SIGINT or SIGTERM lets a running job
        end, the second stops it. SIGTERM is left to a program that handles it.

        Args:
            pc: serves the first offer; later ones get their own. None makes all.
            DNS: the signaling server, `ws://HOST[:PORT]` or `wss://HOST[:PORT]`.
            port_number: its port, where `DNS` names none. `wss://HOST` and 8080 mean port 443:
                sleap-rtc's own program says 8080 to every server, and its worker does not read it.
            room_id: the room to join; None makes one.
            token: of that room.
            api_key: no effect.
            room_secret: that clients of sleap-rtc must prove to hold; also looked for where
                sleap-rtc looks, see `find_room_secret`. Without one, whoever is in the room may
                come in.
            max_reconnect_time: seconds without the signaling server after which the worker leaves
                as if it was asked to; None or 0 is no limit.

        Raises:
            NameTheApiKey: `room_id` is an API key, which release 0.0.7 takes in that position.
            NotASignalingUrl: `DNS` and `port_number` name no server.
            SignalingUnreachable: no signaling server answers there.
            SignalingRefused: it gives no name or no room.
            StateInUse: another worker has this state folder; `FSM_WORKER_STATE` names another.
            RoomSecretUnreadable: whether the room has a secret can't be found out.
            BadRoomSecret: it has one that can't be used.
            ValueError: `max_reconnect_time` is below 0, or no number.
        """
        if room_id is not None and room_id.startswith("slp_"):
            raise NameTheApiKey(
                "the argument after the port is the room id, and an API key was given: pass it as "
                "api_key=…, and room_id and token by name"
            )
        base, port = signaling_address(DNS, port_number)
        _warn_of(api_key=api_key)
        self.guests.lock(find_room_secret(room_id, room_secret) or self.settings.sleap_rtc_secret)
        self._patience = _Patience(max_reconnect_time or math.inf, self._leave)
        host = urlsplit(base).hostname or ""
        if not self.settings.ice_servers and not is_loopback(host):
            # aiortc's own choice, as in a connection that the program makes without a configuration
            urls = tuple(str(one.urls) for one in RTCIceGatherer.getDefaultIceServers())
            self.settings = replace(self.settings, ice_servers=urls)
        with contextlib.closing(self._patience), self._leaving_on_signals():
            await super().run_worker(pc, base, port, room_id, token)

    def terminate(self) -> None:
        """Asks the worker to leave, and says so."""
        log.info("leaving: a running job may end; asked again, it is stopped; then, all is killed")
        super().terminate()

    def _leave(self) -> None:
        worker = self.world.get(MachineName.WORKER, THE_WORKER)
        if worker is not None and not worker.facts.leaving and worker.state not in _LEAVING:
            self.terminate()  # asked twice, it would not wait for its job

    def _answer_refusals(self, step: Step) -> None:
        super()._answer_refusals(step)
        self._patience.look(step)

    @contextlib.contextmanager
    def _leaving_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread has signals
            return
        # None: what stands there is no function of Python, and can't be put back by it
        before = {signal.SIGINT: signal.getsignal(signal.SIGINT) or signal.SIG_DFL}
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before[signal.SIGTERM] = signal.SIG_DFL
        loop = asyncio.get_running_loop()
        for number in before:
            loop.add_signal_handler(number, self.terminate)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


class _Patience:
    """Makes a worker leave that has been without its signaling server for too long.

    Args:
        limit: seconds; infinity is for ever.
        leave: asks the worker to leave.

    Raises:
        ValueError: the limit is below 0, or no number.
    """

    def __init__(self, limit: float, leave: Callable[[], None]) -> None:
        if not limit > 0:
            raise ValueError(
                f"max_reconnect_time is {limit}: give seconds above 0, or None for no limit"
            )
        self._limit = limit
        self._leave = leave
        self._timer: asyncio.TimerHandle | None = None

    def look(self, step: Step) -> None:
        """Begins to wait, or stops waiting, as the connection to the server is after a step."""
        if step.machine is not MachineName.SIGNALLING:
            return
        if step.after in (SignallingState.REGISTERED, SignallingState.STALE):
            self.close()
        elif step.after == SignallingState.BACKOFF and not self._timer and self._limit < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self._limit, self._lose_it)

    def close(self) -> None:
        """Stops waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _lose_it(self) -> None:
        log.error("%g s without the signaling server: see max_reconnect_time", self._limit)
        self._leave()


def signaling_address(dns: str, port_number: int | str) -> tuple[str, int]:
    """Where a program of sleap-rtc means its signaling server to be.

    Args:
        dns: `ws://HOST[:PORT]` or `wss://HOST[:PORT]`.
        port_number: counts where `dns` names none; see `RTCWorkerClient.run_worker`.

    Returns:
        `ws://HOST` or `wss://HOST`, and the port.

    Raises:
        NotASignalingUrl: they name no server.
    """
    try:
        parts = urlsplit(dns.strip())
        named = parts.port
        port = named if named is not None else int(port_number)
    except (ValueError, TypeError):
        parts, named, port = urlsplit(""), None, 0
    beyond = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in {"ws", "wss"} or not parts.hostname or beyond or not 0 < port < 65536:
        raise NotASignalingUrl(
            f"{dns[:200]!r} with port {port_number!r} is no signaling server: write "
            "ws://HOST:PORT, or wss://HOST"
        )
    if named is None and parts.scheme == "wss" and port == _UNREAD_PORT:
        port = 443
    host = parts.netloc.rpartition(":")[0] if named is not None else parts.netloc.rstrip(":")
    return f"{parts.scheme}://{host}", port


def _settings(gpu_id: int) -> WorkerSettings:
    return WorkerSettings(
        state=state_folder("worker" if gpu_id == 0 else f"worker-gpu{gpu_id}"),
        allow_sleap_rtc=True,
        say=log.info,
        ready=_say_how_to_get_here,
    )


def _say_how_to_get_here(session: SessionString) -> None:
    log.info("in room %s, token %s", session.room, session.token)
    log.info(
        "submit with: python -m fsm_worker submit --session %s --example digits", session.encode()
    )


def _warn_of(**words: object) -> None:
    for word, value in words.items():
        if value:
            _warn_once(word)


@functools.cache
def _warn_once(word: str) -> None:
    log.warning("%s has no effect: %s", word, _UNUSED[word])
