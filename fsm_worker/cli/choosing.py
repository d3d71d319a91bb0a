"""Which of several workers gets a job: the first that meets its needs and keeps its slot for it."""

from fsm_worker.cli.console import one_line
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.workers import look_around
from fsm_worker.client.connection import ConnectionOver, ReservationRefused
from protocol.errors import ErrorCode, ProtocolError
from protocol.need import Need


async def choose(client: Client, targets: list[Target], need: Need) -> Target:
    """Reserves a worker; where all that could do it are taken, gives the first of them.

    Args:
        client: who we are.
        targets: the workers to ask, the preferred ones first.
        need: what the job needs.

    Returns:
        The worker.

    Raises:
        CommandFailed: none can do it; the sentence has every requirement that is not met.
    """
    here = [worker for worker in await look_around(targets) if worker.target is not None]
    taken: Target | None = None
    against = []
    for worker in here:
        target = worker.target
        if target is None:
            continue
        if not worker.properties:  # its room says that it is not there
            against.append(f"{worker.name}: {worker.state}")
            continue
        try:
            async with client.connected(target) as connection:
                await connection.reserve(need)
        except ReservationRefused as refusal:
            reasons = "; ".join(one_line(reason, 300) for reason in refusal.reasons)
            if refusal.code is not ErrorCode.NEED_UNMET:
                taken = taken or target
            client.console.emit(
                "refused", worker=worker.name, code=refusal.code, reasons=refusal.reasons
            )
            against.append(f"{worker.name}: {reasons}")
        except (CommandFailed, ConnectionOver, ProtocolError) as error:
            against.append(f"{worker.name}: {one_line(str(error), 300)}")
        else:
            client.console.emit("reserved", worker=worker.name, session=target.text)
            client.console.say(f"{worker.name} keeps its slot for this job")
            return target
    if taken is not None:
        client.console.say("all workers that can do it are taken: it waits in a queue")
        return taken
    for line in against:
        client.console.warn(line)
    raise CommandFailed(
        ExitCode.NO_WORKER,
        f"no worker can take this job ({' | '.join(against) or 'none is known here'})",
    )
