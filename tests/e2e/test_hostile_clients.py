"""A client that says anything, beside good ones of both dialects: they are served all the same."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

from aiortc import RTCDataChannel
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fsm_worker.client.connection import ConnectionOver
from fsm_worker.examples.digits.package import build_package
from fsm_worker.identity import Identity
from fsm_worker.services.archive import pack
from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import GOOD, digits, until
from tests.fuzz.shapes import SHAPES

#: What is said by hostile clients, and how many of them come.
NATIVE = st.lists(
    st.tuples(
        st.sampled_from((CONTROL_LABEL, CONTROL_LABEL, BULK_LABEL, LOG_LABEL)),
        SHAPES["native to a worker"] | SHAPES["a chunk"] | st.binary(max_size=40),
        st.booleans(),
    ),
    min_size=10,
    max_size=40,
)
FOREIGN = st.lists(
    st.tuples(SHAPES["sleap-rtc to a worker"] | st.binary(max_size=40), st.booleans()),
    min_size=10,
    max_size=40,
)
VISITS = 3


def said_by(strategy: st.SearchStrategy[Any], number: int) -> list[Any]:
    """So many examples; the same in every run."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=VISITS, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def send(channel: RTCDataChannel, data: bytes, as_text: bool) -> None:
    if channel.readyState == "open":
        channel.send(data.decode("utf-8", "replace") if as_text else data)


async def a_native_visit(lab: Lab, words: list[Any], identity: Identity) -> list[m.Message]:
    """Comes in with a good key, says what it likes, and breaks off."""
    heard: list[m.Message] = []
    async with lab.client(identity) as client:
        (channels,) = client._link._links._links.values()
        for label, data, as_text in words:
            if label in channels.by_label:
                send(channels.by_label[label], data, as_text)
        try:
            async with asyncio.timeout(1):
                async for message in client.news():
                    heard.append(message)
        except (TimeoutError, ConnectionOver):
            pass
    return heard


async def test_good_clients_of_both_dialects_are_served_beside_a_hostile_one(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path, allow_sleap_rtc=True) as lab:
        async with lab.client() as good:
            native, foreign = said_by(NATIVE, 1), said_by(FOREIGN, 2)
            heard: list[m.Message] = []
            for number, (words, texts) in enumerate(zip(native, foreign, strict=True)):
                heard += await a_native_visit(lab, words, lab.identity)
                async with SleapClient.open(lab.session, f"hostile-{number}") as hostile:
                    for data, as_text in texts:
                        send(hostile.channel, data, as_text)
                    await asyncio.sleep(0.2)
            refusals = [one for one in heard if isinstance(one, m.Error)]
            assert refusals, "nothing was refused, so nothing hostile was said"
            codes = {one.code for one in refusals if one.message}
            assert ErrorCode.INTERNAL not in codes and len(codes) > 1
            for job in lab.worker.world.live(MachineName.JOB):  # what a hostile one may have made
                await good.cancel(job.subject)
            worker = lab.worker.world.machines[MachineName.WORKER]["worker"]
            await until(lambda: worker.state is WorkerState.AVAILABLE)

            job = job_id()
            folder = build_package(tmp_path / "digits", epochs=2)
            await good.submit(job, pack(folder, tmp_path / "digits.zip"))
            last = (await until_final(good, job))[-1]
            assert isinstance(last, m.JobStateChanged)
            assert (last.state, last.outcome) == (JobState.DONE, Outcome.SUCCEEDED)
        async with SleapClient.open(lab.session, f"good-{secrets.token_hex(2)}") as guest:
            await guest.submit(digits(tmp_path))
            await guest.gets()
            assert [text for text in guest.texts if text.startswith("TRAIN")] == GOOD
