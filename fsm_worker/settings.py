"""What the operator of a worker may choose; the defaults suit a test as well as a lab."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fsm_worker.events import Timer
from fsm_worker.folders import state_folder
from fsm_worker.services.declared import Declared
from fsm_worker.services.recipe import Runner
from protocol.proof import SessionString


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings of one worker process.

    Args:
        state: folder of its key, its clients, its journal and its jobs.
        name: for people.
        public_url: by which clients find the signaling server, where it is not the worker's own.
        ice_servers: STUN and TURN URLs; none gathers host candidates only.
        sleap_nn: the `sleap-nn` program; None takes the one on the PATH, if there is one.
        runners: the operator's own, by the words that ask for them; beside the built-in ones.
        declared: what the operator says of the machine; it stands over what the driver says.
        shared_storage: root of a storage that clients see, too; they may name paths in it.
        timers: seconds by timer, instead of the defaults.
        allow_sleap_rtc: clients of sleap-rtc may come in. They have no key: whoever is in the room
            may run the packages that this worker runs, unless there is a secret.
        sleap_rtc_secret: the room secret that they have to prove to hold, as URL-safe base64; empty
            asks for no proof.
        say: shows a line to the operator.
        ready: hears how clients get here, once the room is entered.
    """

    state: Path = field(default_factory=lambda: state_folder("worker"))
    name: str = field(default_factory=socket.gethostname)
    public_url: str = ""
    ice_servers: tuple[str, ...] = ()
    sleap_nn: Path | None = None
    runners: Mapping[tuple[str, ...], Runner] = field(default_factory=dict)
    declared: Declared = field(default_factory=Declared)
    shared_storage: Path | None = None
    timers: Mapping[Timer, float] = field(default_factory=dict)
    allow_sleap_rtc: bool = False
    sleap_rtc_secret: str = field(default="", repr=False)
    say: Callable[[str], None] = lambda _line: None
    ready: Callable[[SessionString], None] = lambda _session: None
