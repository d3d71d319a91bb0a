"""A client's place in the worker's room: it gets it, or its user hears what to put right."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from fsm_worker.client.connection import ConnectionOver
from protocol.errors import ErrorCode
from tests.e2e.lab import connected, open_lab


@pytest.mark.drives("signalling S20", "session K32")
@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        ({"token": "nobody's"}, ErrorCode.NOT_AUTHENTICATED, "token"),
        ({"room": "nowhere"}, ErrorCode.ABORTED, "no such room"),
    ],
    ids=["token", "room"],
)
async def test_who_brings_the_wrong_session_string_hears_what_is_wrong_with_it(
    tmp_path: Path, wrong: dict[str, str], code: ErrorCode, says: str
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        with pytest.raises(ConnectionOver) as over:
            async with connected(tmp_path, structs.replace(lab.session, **wrong), lab.identity):
                pass
        assert (over.value.code, says in str(over.value)) == (code, True), over.value
        async with lab.client() as client:  # the right one
            assert (await client.status()).name == "lab"
