"""A client that says anything, beside good ones of both dialects: they are served all the same."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis import strategies as st

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.identity import Identity
from fsm_worker.services.archive import unpack
from fsm_worker.services.recipe import Runner
from protocol.errors import ErrorCode
from protocol.lifecycle import GuestState, JobState, Outcome
from protocol.table import MESSAGES, Direction, Right
from tests.e2e.hostile_foreign import ForeignVisit
from tests.e2e.hostile_native import Native, Place, Step
from tests.e2e.hostile_visit import Visit
from tests.e2e.lab import Lab, open_lab
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import is_available, script
from tests.rows.jobs import submitted, until_state
from tests.rows.steps import Steps

E, G = ErrorCode, GuestState
#: Runs a scene where the worker lives, and gives what came of it.
Play = Callable[[Awaitable[Any]], Any]
Parts = tuple[tuple[str, ...], ...]
#: What a native client does in each visit, in an order that is drawn: what leads somewhere if
#: nothing comes between, and each word of `Visit` by itself.
NATIVE = (
    ("submit", "file_offer", "upload"),
    ("submit", "log_get", "file_offer", "upload", "stop", "fetch"),
    ("submit", "file_offer", "upload", "upload", "upload"),
    ("submit", "file_offer", "upload", "fetch", "fetch", "file_need", "file_stored"),
    ("fetch", "file_need", "file_stored", "fetch", "file_refused"),
    ("submit", "file_offer", "upload", "log_get", "stop", "stop", "cancel"),
    ("reserve", "reserve", "reserve", "reserve", "reserve", "release"),
    *((word,) for word in (
        "submit", "submit_what_no_worker_runs", "attach", "explain", "log_get", "stop", "cancel",
        "file_offer", "upload", "file_abort", "fetch", "file_need", "file_stored", "file_refused",
        "worker_get", "explain_worker", "jobs_get", "reserve", "release", "drain", "resume",
        "says_what_needs_no_answer", "sends_bytes_of_no_file", "says_the_last_once_more",
        "says_nonsense", "says_nonsense",
    )),
)  # fmt: skip
#: The same of a client of sleap-rtc.
FOREIGN = (
    *(("gives_up", "names_its_kind", "announces", "sends_bytes", "ends_its_file"),) * 5,
    *((word,) for word in (
        "names_its_kind", "names_its_kind", "announces", "sends_bytes", "ends_its_file", "gives_up",
        "gives_up", "names_a_path", "names_a_path", "asks_for_another_flow",
        "asks_for_another_flow", "starts_a_shared_job", "starts_a_shared_job",
        "says_what_needs_no_answer", "says_what_needs_no_answer", "says_nonsense", "says_nonsense",
    )),
)  # fmt: skip


@st.composite
def visits_of(draw: st.DrawFn, parts: Parts) -> tuple[list[Step], int]:
    """What is done, and how the visit ends."""
    steps = []
    for words in draw(st.permutations(parts)):
        # a story is about one job of its own, a word by itself about anybody's
        which = draw(st.integers(0, 5) if len(words) == 1 else st.integers(0, 3))
        steps += [Step(word, which, draw(st.integers(0, 2**16))) for word in words]
    return steps, draw(st.integers(0, 4))


#: What has to come of all that: every code that one client alone can have, and every answer.
REACHED = {
    *map(str, (
        E.MALFORMED, E.TOO_LARGE, E.TOO_DEEP, E.UNKNOWN_TYPE, E.VERSION_UNKNOWN, E.NOT_AUTHORISED,
        E.NEED_UNMET, E.WORKER_BUSY, E.NOT_HOLDER, E.UNKNOWN_JOB, E.JOB_CONFLICT,
        E.ALREADY_TERMINAL, E.IN_PROGRESS, E.UNKNOWN_TRANSFER, E.NOT_ANNOUNCED, E.HASH_MISMATCH,
        E.RESULTS_NOT_READY, E.RESULTS_EXPIRED, E.ABORTED,
    )),
    "job_snapshot", "job_state", "jobs", "explained", "worker_status", "reserved", "released",
    "file_need", "file_stored", "file_offer", "file_abort", "log_end", "nothing",
}  # fmt: skip


@contextlib.contextmanager
def kept(made: contextlib.AbstractAsyncContextManager[Any]) -> Iterator[tuple[Any, Play]]:
    """Holds what is opened while its loop stands still: Hypothesis draws between two runs of it."""
    with asyncio.Runner() as runner:
        over, opened = asyncio.Event(), runner.get_loop().create_future()

        async def hold() -> None:
            async with made as value:
                opened.set_result(value)
                await over.wait()

        async def playing(scene: Awaitable[Any]) -> Any:
            """Plays it, if the worker does not end before."""
            played = asyncio.ensure_future(scene)
            await asyncio.wait((played, holding), return_when=asyncio.FIRST_COMPLETED)
            if not played.done():
                holding.result()
            return await played

        holding = runner.get_loop().create_task(hold())
        try:
            yield runner.run(playing(opened)), lambda scene: runner.run(playing(scene))
        finally:
            over.set()
            runner.run(asyncio.wait((holding,)))
            holding.result()


def drawn(parts: Parts, number: int, examples: int, plays: Callable[[Any], None]) -> None:
    """Plays so many visits, the same in every run.

    One worker hears all of them and remembers, so a fault is told as it is: nothing is played again
    to find a shorter one.
    """
    faults: list[BaseException] = []

    @seed(number)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(visits_of(parts))
    def one(example: Any) -> None:
        if not faults:
            try:
                plays(example)
            except BaseException as fault:
                faults.append(fault)
                raise

    one()


#: Programs of the packages: one is over at once, one ends when it is told to, one never does.
def runners(door: Path) -> dict[tuple[str, ...], Runner]:
    held = f"read _ < {door}; echo model > model.bin"
    return {
        ("done",): Runner("done", ("true",), results=()),
        ("wait",): Runner("wait", ("sleep", "30"), results=()),
        ("held",): Runner("held", ("sh", "-c", held), results=("model.bin",)),
    }


@contextlib.asynccontextmanager
async def two_keys(folder: Path) -> AsyncIterator[tuple[Lab, WorkerConnection, Identity, Path]]:
    """A worker, its good client, the key of a hostile one, and the door that `held` waits at."""
    hostile, state, door = Identity.load(folder / "hostile.key"), folder / "worker", folder / "door"
    state.mkdir(mode=0o700)
    (state / "clients.json").write_text(json.dumps({hostile.key: [Right.SUBMIT]}))
    os.mkfifo(door)
    made = open_lab(folder, runners=runners(door), allow_sleap_rtc=True)
    async with asyncio.timeout(100), made as lab, lab.client() as good:
        yield lab, good, hostile, door


def test_a_native_client_gets_the_answer_that_is_due_and_a_good_one_its_model(
    tmp_path: Path,
) -> None:
    with kept(two_keys(tmp_path)) as ((lab, good, hostile, door), play):
        place = Place({word: lab.package(f"{word}\n") for word in ("done", "wait")})

        async def visit(steps: list[Step], way: int) -> None:
            name, session = f"hostile-{place.visits}", f"session-{place.visits}"
            async with Native.dials(lab.session, hostile, name=name) as peer:
                await peer.is_served(session)
                one = Visit(peer, place)
                for step in steps:
                    await one.plays(step)
                await one.leaves(way)

        def visits(visiting: tuple[list[Step], int]) -> None:
            before = place.reached.copy()
            play(visit(*visiting))
            for word, reply in place.reached - before:
                event(f"{word}: {reply}")

        place.good = place.slot = play(submitted(lab, good, "held\n"))
        play(until_state(good, place.good, JobState.RUNNING))
        drawn(NATIVE, 31, 3, visits)
        play(asyncio.to_thread(door.write_text, "go\n"))
        play(until_state(good, place.good, JobState.DONE, Outcome.SUCCEEDED))
        unpack(play(good.fetch(place.good, tmp_path)), tmp_path / "results")
        assert (tmp_path / "results" / "model.bin").read_text() == "model\n"
        place.slot = ""
        play(is_available(lab))
        drawn(NATIVE, 32, 3, visits)
        last = play(submitted(lab, good, "done\n"))
        play(until_state(good, last, JobState.DONE, Outcome.SUCCEEDED))
        assert place.said == {
            row.message for row in MESSAGES if Direction.TO_WORKER in row.direction
        }
        assert REACHED - {reply for _, reply in place.reached} == set()


def test_a_client_of_sleap_rtc_is_told_what_is_due_and_a_good_one_is_served(
    tmp_path: Path,
) -> None:
    with kept(two_keys(tmp_path)) as ((lab, good, _, door), play):
        package = script("done\n")
        reached: Counter[tuple[str, str]] = Counter()

        async def visit(steps: list[Step], way: int) -> None:
            name = f"hostile-{reached.total()}"
            async with SleapClient.open(lab.session, name) as client:
                one = ForeignVisit(client, Steps(lab.worker), package, reached)
                for step in steps:
                    await one.plays(step)
                await one.leaves(way)

        def visits(visiting: tuple[list[Step], int]) -> None:
            before = reached.copy()
            play(visit(*visiting))
            for word, state in reached - before:
                event(f"{word} while {state}")

        async def is_served() -> None:
            async with SleapClient.open(lab.session, "good") as guest:
                await guest.submit(package)
                await guest.gets()
                said = [text for text in guest.texts if text.startswith("TRAIN")]
                assert said == [
                    "TRAIN_JOB_START::done",
                    "TRAIN_JOB_END::done",
                    "TRAINING_JOBS_DONE",
                ]

        job = play(submitted(lab, good, "held\n"))
        play(until_state(good, job, JobState.RUNNING))
        drawn(FOREIGN, 33, 6, visits)
        play(asyncio.to_thread(door.write_text, "go\n"))
        play(until_state(good, job, JobState.DONE, Outcome.SUCCEEDED))
        play(is_served())
        assert {state for _, state in reached} == {G.WAITING, G.RECEIVING, G.SUBMITTED}
        for state in (G.WAITING, G.SUBMITTED):
            assert {word for words in FOREIGN for word in words} - {
                word for word, there in reached if there is state
            } == set()
