"""The two worlds: the machines of a worker, and those of a client."""

from fsm_worker.machines.client_signalling import CLIENT_SIGNALLING
from fsm_worker.machines.coupling import CLIENT_COUPLINGS, WORKER_COUPLINGS
from fsm_worker.machines.engine import Instance
from fsm_worker.machines.registry import CLIENT_TABLES, WORKER_TABLES
from fsm_worker.machines.signalling import SIGNALLING
from fsm_worker.machines.worker import WORKER
from fsm_worker.machines.world import THE_SERVER, THE_WORKER, World
from protocol.table import MachineName


def worker_world() -> World:
    """A worker's machines, before anything has happened."""
    world = World(WORKER_TABLES, WORKER_COUPLINGS)
    world.machines[MachineName.WORKER][THE_WORKER] = Instance(WORKER, THE_WORKER)
    world.machines[MachineName.SIGNALLING][THE_SERVER] = Instance(SIGNALLING, THE_SERVER)
    return world


def at_rest(world: World) -> bool:
    """Whether a worker has stopped, and has said goodbye to its server and to every peer."""
    worker = world.get(MachineName.WORKER, THE_WORKER)
    server = world.get(MachineName.SIGNALLING, THE_SERVER)
    return (
        worker is not None
        and worker.facts.gone
        and (server is None or server.final or server.state is SIGNALLING.initial)
        and not world.live(MachineName.LINK)
    )


def client_world() -> World:
    """A client's machines, before anything has happened."""
    world = World(CLIENT_TABLES, CLIENT_COUPLINGS)
    server = Instance(CLIENT_SIGNALLING, THE_SERVER)
    world.machines[MachineName.SIGNALLING][THE_SERVER] = server
    return world
