"""One running server for the tests of a module that need no special one; a room for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import Room, SignIn
from tests.signaling.peer import owner_and_room


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(limits=Limits(request_burst=1000.0)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def owner_room(server: SignalingServer) -> tuple[SignIn, Room]:
    return await owner_and_room(server)


@pytest_asyncio.fixture(loop_scope="module")
async def room(owner_room: tuple[SignIn, Room]) -> Room:
    return owner_room[1]
