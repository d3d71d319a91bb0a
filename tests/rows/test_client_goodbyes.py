"""A session that one side has ended on purpose: the client's user hears which side, and why."""

import asyncio
from pathlib import Path

import pytest

from fsm_worker.machines.link import STRIKES
from protocol import CONTROL_LABEL
from protocol.errors import ErrorCode
from protocol.table import MachineName
from tests.e2e.lab import open_lab
from tests.rows.steps import Steps
from tests.rows.test_client_sessions import until_over

LINK, SESSION = MachineName.LINK, MachineName.SESSION


@pytest.mark.drives("session K4", "link L37 L39")
async def test_a_client_whose_worker_leaves_hears_that(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        lab.worker.terminate()
        over = await until_over(client)
        assert over.code is ErrorCode.WORKER_LEAVING
        assert str(over) == "the session has ended: the worker leaves"


@pytest.mark.drives("session K4", "link L36 L37")
async def test_a_client_that_is_sent_away_for_nonsense_is_not_told_that_the_worker_leaves(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        links = client._link._links._links
        for _ in range(STRIKES):
            links[client._link.world.live(LINK)[0].subject].send(CONTROL_LABEL, "{}")
        over = await until_over(client)
        assert over.code is ErrorCode.MALFORMED
        assert str(over) == "the session has ended: too many frames without meaning"


@pytest.mark.drives("session K4", "link L36")
async def test_a_client_that_a_worker_tells_nonsense_does_not_say_that_the_worker_has_left(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        for channels in lab.worker.links._links.values():
            for _ in range(STRIKES):
                channels.send(CONTROL_LABEL, "{}")
        over = await until_over(client)
        assert over.code is ErrorCode.ABORTED
        assert "too many frames without meaning" in str(over)


@pytest.mark.drives("session K5", "link L53")
async def test_who_still_listens_when_the_program_leaves_is_not_told_that_the_worker_has_left(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        worker = Steps(lab.worker)
        async with lab.client() as client:
            listening = asyncio.create_task(until_over(client))
        over = await listening
        assert (over.code, str(over)) == (ErrorCode.ABORTED, "this client has left")
        await worker.until(SESSION, "N4")  # it has said goodbye
