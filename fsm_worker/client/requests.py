"""Which answer belongs to which question: the client's open requests."""

import asyncio
from typing import NamedTuple

from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.table import tag_of


class ReservationRefused(Exception):
    """The worker does not keep its slot for us: ask another, or later.

    Args:
        code: `need_unmet` where it can never do the job.
        reasons: everything that stands against it, a sentence each.
    """

    def __init__(self, code: ErrorCode, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.code = code
        self.reasons = reasons


class _Request(NamedTuple):
    tag: str
    job: str
    reply: type[m.Message] | tuple[type[m.Message], ...]
    event: str  # of the row that a change of state must name to be the answer
    future: "asyncio.Future[m.Message]"


class Requests:
    """Requests that have no answer yet.

    A message table's row says which replies a message can get; here the first of the asked kind
    that is about the same job is the answer, and an error that names the message is a refusal.
    """

    def __init__(self) -> None:
        self._open: list[_Request] = []

    def ask(
        self,
        message: m.Message,
        reply: type[m.Message] | tuple[type[m.Message], ...],
        event: str = "",
    ) -> "asyncio.Future[m.Message]":
        """A future of the answer to `message`; `forget` it when it is no longer wanted."""
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        job = str(getattr(message, "job", ""))
        self._open.append(_Request(tag_of(type(message)), job, reply, event, future))
        return future

    def forget(self, future: "asyncio.Future[m.Message]") -> None:
        """Nobody waits for it any more."""
        self._open = [request for request in self._open if request.future is not future]
        future.cancel()

    def hear(self, message: m.Message) -> bool:
        """Takes a message; true if it was a refusal of a request, and so is news to nobody else."""
        job = str(getattr(message, "job", ""))
        for request in self._open:
            if request.future.done():
                continue
            if isinstance(message, m.Error):
                if (message.about, message.job) == (request.tag, request.job):
                    request.future.set_exception(ProtocolError(message.code, message.message))
                    return True
            elif (
                isinstance(message, request.reply)
                and request.job in {"", job}
                and request.event in {"", getattr(message, "event", "")}
            ):
                request.future.set_result(message)
                return False
        return False

    def fail(self, error: Exception) -> None:
        """No answer will come."""
        for request in self._open:
            if not request.future.done():
                request.future.set_exception(error)
