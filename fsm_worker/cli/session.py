"""Which worker and which job a command means, and the connection to that worker."""

import contextlib
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fsm_worker.cli.addresses import ice_servers
from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.client.remembered import Remembered
from fsm_worker.folders import state_folder
from fsm_worker.identity import Identity
from fsm_worker.seams.signaling_socket import SignalingUnreachable
from fsm_worker.services.transfer import Moved
from protocol.errors import ErrorCode
from protocol.messages import JobId
from protocol.proof import SessionString
from protocol.signaling import SignalingRefused

__all__ = ["Client", "JobId", "Target"]

_VARIABLE = "FSM_WORKER_SESSION"


@dataclass(frozen=True)
class Target:
    """A worker, and a job there where one is meant.

    Args:
        session: where the worker is.
        text: the same as it was written.
        job: its id; empty where none is meant.
    """

    session: SessionString
    text: str
    job: str = ""


class Client:
    """Who we are, and what we remember.

    Args:
        console: for warnings.
        folder: of the key and the memory; None for the user's own.
        stun: a URL, `off`, or empty for the default.

    Attributes:
        key: the file with the key by which workers know us.
    """

    def __init__(self, console: Console, folder: Path | None = None, stun: str = "") -> None:
        self.console = console
        self.folder = folder or state_folder("client")
        self.stun = stun
        self.key = self.folder / "client.key"
        self.memory = Remembered(self.folder / "remembered.json")
        if self.memory.complaint:
            console.warn(self.memory.complaint)

    @classmethod
    def of(cls, options: Namespace, console: Console) -> "Client":
        """The client that a command's options describe."""
        return cls(console, stun=options.stun or os.environ.get("FSM_WORKER_STUN", ""))

    # --- which -------------------------------------------------------------------------------

    def worker(self, given: str | None) -> Target:
        """The worker that is meant.

        Args:
            given: a session string; None for the environment's, else the last one.

        Raises:
            BadSessionString: it is none.
            CommandFailed: there is none.
        """
        text = given or os.environ.get(_VARIABLE, "")
        if not text:
            last = self.memory.last()
            if last is None:
                raise CommandFailed(
                    ExitCode.USAGE,
                    "which worker? Give --session with the line that the worker printed",
                )
            text = last.session
        return Target(SessionString.decode(text), text.strip())

    def workers(self, given: list[str] | None) -> list[Target]:
        """The workers that may be meant, the newest first.

        Args:
            given: session strings; none for the environment's, else for all that are remembered.

        Raises:
            BadSessionString: one is none.
            CommandFailed: there is none.
        """
        texts = [text.strip() for text in given or ()]
        texts = texts or [text for text in (os.environ.get(_VARIABLE, ""),) if text]
        texts = texts or [entry.session for entry in reversed(self.memory.entries)]
        if not texts:
            raise CommandFailed(
                ExitCode.USAGE,
                "which workers? Give --session with the line that a worker printed",
            )
        return [Target(SessionString.decode(text), text) for text in dict.fromkeys(texts)]

    def job(self, given: str | None, session: str | None) -> Target:
        """The job that is meant, and its worker.

        Args:
            given: its id; None for the last one.
            session: a session string; None for the one that the job was submitted to.

        Raises:
            BadSessionString: the session string is none.
            CommandFailed: there is no such job.
        """
        if given is not None:
            known = self.memory.job(given)
            worker = self.worker(session or (known.session if known is not None else None))
            return Target(worker.session, worker.text, given)
        worker = self.worker(session)
        last = self.memory.last_job(worker.text)
        if last is None:
            raise CommandFailed(
                ExitCode.USAGE,
                "which job? None was submitted from here to this worker; `jobs` lists yours there",
            )
        return Target(worker.session, worker.text, last.job)

    def remember(self, target: Target, name: str = "") -> None:
        """Writes down where a job is; that it can't be is no reason to fail."""
        try:
            self.memory.remember(target.text, target.job, name)
        except OSError as error:
            self.console.warn(f"this job can't be remembered here: {sentence_for(error)}")

    # --- connected ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def connected(
        self, target: Target, watch: Callable[[Moved], None] = lambda _moved: None
    ) -> AsyncIterator[WorkerConnection]:
        """A connection to the worker.

        Args:
            target: which one.
            watch: is told how far files have come.

        Raises:
            CommandFailed: the worker can't be reached, or does not let us in.
            ConnectionOver: later, the worker is gone.
        """
        host = urlsplit(target.session.url).hostname or ""
        entered = False
        try:
            async with WorkerConnection.open(
                target.session,
                Identity.load(self.key),
                ice_servers=ice_servers(self.stun, host),
                watch=watch,
            ) as connection:
                entered = True
                worker = one_line(connection.welcome.worker, 100)
                self.console.emit("connected", worker=worker)
                yield connection
        except (SignalingUnreachable, SignalingRefused, ConnectionOver) as error:
            if entered:
                raise
            raise _not_there(error) from error


def _not_there(error: Exception) -> CommandFailed:
    code = exit_code_for(error)
    if code is ExitCode.NOT_AUTHORISED:
        return CommandFailed(code, sentence_for(error))
    if isinstance(error, SignalingUnreachable):
        return CommandFailed(ExitCode.NO_WORKER, sentence_for(error))
    if isinstance(error, ConnectionOver) and error.code is ErrorCode.UNREACHABLE:
        return CommandFailed(
            ExitCode.NO_WORKER,
            f"{sentence_for(error)}: check that it runs, and that its network and yours let UDP "
            "through (`--stun` at both ends finds the way out of most)",
        )
    return CommandFailed(
        ExitCode.NO_WORKER,
        f"no worker answers ({sentence_for(error)}): check that it runs, and use the line that "
        "it printed last",
    )
