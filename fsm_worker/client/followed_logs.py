"""The logs that a client follows: each is read from our place in it, across links."""

from collections.abc import Callable

from protocol import messages as m


class FollowedLogs:
    """Which logs are followed, and how much of each is here.

    Args:
        send: says something to the worker.
    """

    def __init__(self, send: Callable[[m.Message], None]) -> None:
        self._send = send
        self._followed: dict[str, int] = {}  # bytes that we have of each log
        self._asked: dict[str, int] = {}  # from where each was last asked for

    def follow(self, job: str, offset: int) -> None:
        """Asks for a job's log, from so many bytes on."""
        self._followed[job] = offset
        self._ask(job)

    def ask_again(self) -> None:
        """A link is new: asks for every log from our place in it."""
        for job in self._followed:
            self._ask(job)

    def follows_on(self, message: m.Log | m.LogEnd) -> bool:
        """Whether a piece, or the end, comes right after what we have of that log.

        It may be of an earlier request, or of a stream that went on with a new link: the log's lane
        and the control lane overtake each other. Then the log is asked for again from our place.
        """
        job, have = message.job, self._followed.get(message.job)
        if have is None:
            return False
        if (message.offset if isinstance(message, m.Log) else message.size) == have:
            if isinstance(message, m.Log):
                self._followed[job] = message.next
            else:
                del self._followed[job]
            return True
        if self._asked.get(job) != have:
            self._ask(job)
        return False

    def _ask(self, job: str) -> None:
        self._asked[job] = self._followed[job]
        self._send(m.LogGet(job=job, offset=self._followed[job]))
