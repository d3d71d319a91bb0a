"""From a peer's message to the machine that decides it, by the message table alone."""

from collections.abc import Collection
from typing import Any, NamedTuple

from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import THE_WORKER, World
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import Message
from protocol.table import ROW_OF, MachineName, MessageRow, Right


class Route(NamedTuple):
    """Where a message goes."""

    machine: MachineName
    subject: str


#: Machines of which a message asks for work, and not only for an answer.
_WORK = (MachineName.WORKER, MachineName.JOB)
#: What a peer hears when it names a thing that it may not see, or that is not there.
_UNKNOWN = {
    Right.OWN_JOB: (ErrorCode.UNKNOWN_JOB, "no job of yours has this id here"),
    Right.OWN_TRANSFER: (ErrorCode.UNKNOWN_TRANSFER, "no file of this number is on its way"),
}


def route(
    world: World,
    message: Message,
    *,
    link: str = "",
    session: str,
    key: str,
    rights: Collection[str],
) -> Route:
    """Finds the machine of a message, and checks the right that its row asks for.

    Args:
        world: the machines of this side.
        message: what the peer said.
        link: the link it came by.
        session: the session of that link.
        key: the public key that the link has proved.
        rights: what that key may do.

    Raises:
        ProtocolError: `not_authorised`, `unknown_job` or `unknown_transfer`.
    """
    row = ROW_OF[type(message)]
    here = MachineName.JOB in world.tables  # a client asks nobody for rights
    if row.right is Right.OPERATE and Right.OPERATE not in rights:
        raise ProtocolError(
            ErrorCode.NOT_AUTHORISED, f"only an operator of this worker may {row.tag} it"
        )
    if here and row.machine in _WORK and row.right is Right.SUBMIT and row.right not in rights:
        raise ProtocolError(
            ErrorCode.NOT_AUTHORISED, "this key may submit no job here: ask the worker's operator"
        )
    subject = _subject(row, message, link, session)
    # a client has no job machines: it takes what the worker it trusts sends of its jobs
    if row.right is Right.OWN_JOB and here:
        job = world.get(MachineName.JOB, str(getattr(message, "job", "")))
        if job is None or job.facts.owner != key:
            raise ProtocolError(*_UNKNOWN[Right.OWN_JOB])
    if row.right is Right.OWN_TRANSFER and world.get(row.machine, subject) is None:
        raise ProtocolError(*_UNKNOWN[Right.OWN_TRANSFER])
    return Route(row.machine, subject)


def _subject(row: MessageRow, message: Any, link: str, session: str) -> str:
    if row.subject == "transfer":
        return f"{session}/{message.transfer}"
    if row.subject:
        return str(getattr(message, row.subject))
    if row.machine is MachineName.WORKER:
        return THE_WORKER
    return link if row.machine is MachineName.LINK else session


def objection(step: Step) -> ProtocolError | None:
    """What a peer is told of a message that its machine did not take (None: it was taken)."""
    if step.verdict is not Verdict.ILLEGAL:
        return None
    return ProtocolError(ErrorCode.NOT_ALLOWED, step.sentence)
