"""Files over links that break: nothing is lost, nothing is sent twice for nothing."""

import asyncio
import os
from pathlib import Path

import pytest

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.services.archive import unpack, verify_manifest
from fsm_worker.services.recipe import Runner
from fsm_worker.services.transfer import Moved
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome
from tests.e2e.lab import job_id, open_lab, until_final

SIZE = 12 * 1024 * 1024
COPY = {("copy",): Runner("copy", ("cp",), results=("copy.bin",))}


async def test_an_upload_and_a_download_survive_a_lost_link(tmp_path: Path) -> None:
    content = os.urandom(SIZE)
    cuts: dict[bool, int] = {}
    closing: list[asyncio.Task[None]] = []

    async with asyncio.timeout(90), open_lab(tmp_path, runners=COPY) as lab:
        loop = asyncio.get_running_loop()

        def watch(moved: Moved) -> None:
            if moved.done > moved.size // 3 and moved.incoming not in cuts:
                cuts[moved.incoming] = moved.done
                closing.extend(
                    loop.create_task(pc.close()) for pc in list(lab.worker._peers.values())
                )

        async with lab.client(watch=watch) as client:
            archive = lab.package("copy data.bin copy.bin\n", data__bin=content)
            job = job_id()
            await client.submit(job, archive)
            last = (await until_final(client, job))[-1]
            assert isinstance(last, m.JobStateChanged)
            assert last.outcome is Outcome.SUCCEEDED, last.problems
            unpack(await client.fetch(job, tmp_path), tmp_path / "results")
            verify_manifest(tmp_path / "results")
            assert (tmp_path / "results" / "copy.bin").read_bytes() == content
    assert set(cuts) == {False, True}  # both directions were really cut
    assert all(0 < done < SIZE for done in cuts.values())
    assert all(task.done() for task in closing)


async def test_a_damaged_frame_is_answered_and_the_session_goes_on(tmp_path: Path) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab, lab.client() as client:
        channel = _control_channel(client)
        channel.send("{")
        channel.send('{"msg": {"type": "no_such_thing"}}')
        assert (await client.status()).name == "lab"  # two strikes are forgiven
        errors = [n for n in await _until_quiet(client) if isinstance(n, m.Error)]
        assert [error.code for error in errors] == ["malformed", "unknown_type"]


def _control_channel(client: WorkerConnection) -> object:
    (channels,) = client._link._links._links.values()
    return channels.by_label["control"]


async def _until_quiet(client: WorkerConnection) -> list[m.Message]:
    heard: list[m.Message] = []
    async for message in client.news():
        heard.append(message)
        if isinstance(message, m.WorkerStatus) and len(heard) > 2:
            return heard
    return heard


async def test_a_second_fetch_while_the_first_goes_on_has_an_answer(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path, runners=COPY) as lab:
        under_way = asyncio.Event()

        def watch(moved: Moved) -> None:
            if moved.incoming:
                under_way.set()

        async with lab.client(watch=watch) as client, asyncio.TaskGroup() as group:
            job = job_id()
            script = "copy data.bin copy.bin\n"
            await client.submit(job, lab.package(script, data__bin=os.urandom(SIZE // 3)))
            await until_final(client, job)
            given_up = group.create_task(client.fetch(job, tmp_path))
            await under_way.wait()
            with pytest.raises(ProtocolError) as refusal:
                await client.fetch(job, tmp_path)
            assert refusal.value.code is ErrorCode.IN_PROGRESS
            given_up.cancel()
            await asyncio.wait({given_up})
            # the worker says that they are on their way, and so they are
            unpack(await client.fetch(job, tmp_path), tmp_path / "results")
            verify_manifest(tmp_path / "results")
