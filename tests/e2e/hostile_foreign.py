"""A client of sleap-rtc that is up to no good, and what the worker must say to each of its frames.

The worker's slot is somebody else's meanwhile: what is submitted waits. As in `hostile_visit`, each
method says something, and gives all that is due.
"""

import asyncio
import itertools
import json
from collections import Counter

from protocol.lifecycle import GuestState
from protocol.table import MachineName
from tests.e2e.hostile_native import PATIENCE_S, Step
from tests.e2e.sleap_client import SleapClient
from tests.rows.steps import Steps

G = GuestState
#: What is due is told up to here.
AND_SO_ON = "…"
_NO_SHARED = "PATH_ERROR::this worker has no shared storage…"
_BOTH_FIRST = "PATH_ERROR::send JOB_ID, SHARED_INPUT_PATH and SHARED_OUTPUT_PATH first…"
_ONE_JOB = "PATH_ERROR::one job at a time…"
_PACKAGES_ONLY = "this worker takes packages only…"
#: Flows that are not performed, and their answers.
_FLOWS = (
    ("FS_GET_INFO", f"FS_ERROR::INVALID_REQUEST::{_PACKAGES_ONLY}"),
    ("USE_WORKER_PATH::/etc/passwd", f"WORKER_PATH_ERROR::{_PACKAGES_ONLY}"),
    ("FILE_UPLOAD_END", f"FILE_UPLOAD_ERROR::{_PACKAGES_ONLY}"),
    ("JOB_SUBMIT::j-1::{}", "JOB_REJECTED::j-1::…"),
    ("FS_WRITE_SLP::{}", "FS_WRITE_SLP_ERROR::…"),
)
#: Texts that are no frames, and what is said of them; a link takes two.
_NONSENSE = (
    ("hello", "no frame of this dialect begins as 'hello'"),
    ("FILE_META::x", "FILE_META has too few fields…"),
    ("FILE_META::x:-1:False", AND_SO_ON),
    ("FILE_META::../x.zip:9:False", AND_SO_ON),
    ("PACKAGE_TYPE::dance", AND_SO_ON),
    ("OUTPUT_DIR::" + "x" * 70_000, AND_SO_ON),
    ("END_OF_FILE::1", "END_OF_FILE has other fields…"),
    ("CONTROL_COMMAND::[]", AND_SO_ON),
)
_SILENT = ("OUTPUT_DIR::models", "AUTH_RESPONSE::proof", "JOB_ID::mine", b"KEEP_ALIVE")
STRIKES = 2


def fits(text: str, due: str) -> bool:
    if due.endswith(AND_SO_ON):
        return text.startswith(due.removesuffix(AND_SO_ON))
    return text == due


class ForeignVisit:
    """One link of that dialect.

    Args:
        client: connected.
        steps: what the worker's machines do.
        package: one that the worker runs.
        reached: is told what was done, and what came of it.
    """

    def __init__(
        self, client: SleapClient, steps: Steps, package: bytes, reached: Counter[tuple[str, str]]
    ) -> None:
        self.client, self.steps, self.package, self.reached = client, steps, package, reached
        self.state = G.WAITING
        self.kind = "train"
        self.size = 0
        self.got = b""
        self.taking = self.told_of_strays = False
        self.strikes = 0
        self.submitted = 0
        self._fences = itertools.count(1)
        self._read = 0

    async def plays(self, step: Step) -> None:
        """Does it, and hears what is due, and nothing else."""
        before = self.state
        expected = getattr(self, step.word)(step)
        if self.state is G.SUBMITTED is not before:  # it waits now, and is not told of
            await self.steps.until(MachineName.JOB, "J14", self.submitted)
        fence = f"fence-{next(self._fences)}"
        command = json.dumps({"command": fence})
        self._say(f"CONTROL_COMMAND::{command}")
        expected = [*expected, *self._sentence(f"'{fence}' is no command here…")]
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.client.texts) - self._read < len(expected):
                    self.client._moved.clear()
                    await self.client._moved.wait()
        except TimeoutError:
            pass  # what is missing is said below
        got = self.client.texts[self._read :]
        self._read = len(self.client.texts)
        missing = sorted(expected, key=len, reverse=True)  # what is told exactly is looked at first
        for text in got:
            due = next((due for due in missing if fits(text, due)), None)
            assert due is not None, f"{step} in {before}: {text!r} came, and {missing} is due"
            missing.remove(due)
        assert not missing, f"{step} in {before}: {missing} did not come"
        self.reached[step.word, before] += 1

    def _say(self, frame: str | bytes) -> None:
        self.client.say(frame)

    def _sentence(self, text: str) -> list[str]:
        if self.kind == "track":
            return [f"TRACK_LOG:fsm-worker: {text}", f"INFERENCE_ERROR::{text}"]
        return [f"fsm-worker: {text}" + ("" if text.endswith(AND_SO_ON) else "\n")]

    # --- its package -------------------------------------------------------------------------

    def names_its_kind(self, step: Step) -> list[str]:
        kind = "track" if step.way % 4 == 0 else "train"
        self._say(f"PACKAGE_TYPE::{kind}")
        if self.state in {G.WAITING, G.RECEIVING}:
            self.kind = kind
        return []

    def announces(self, step: Step) -> list[str]:
        size = len(self.package) + (step.way % 3 == 0)
        self._say(f"FILE_META::p.zip:{size}:False")
        self.told_of_strays, self.taking = True, self.state is G.WAITING
        if self.state is not G.WAITING:
            return self._sentence("one package at a time: send the next when this job has ended")
        self.state, self.size, self.got = G.RECEIVING, size, b""
        return []

    def sends_bytes(self, step: Step) -> list[str]:
        data = (self.package, self.package, self.package[:-9], bytes(99))[step.way % 4]
        self._say(data)
        if self.taking:
            self.got += data
            return []
        told, self.told_of_strays = self.told_of_strays, True
        stray = "bytes came that belong to no announced file: send FILE_META first"
        return [] if told else self._sentence(stray)

    def ends_its_file(self, _step: Step) -> list[str]:
        self._say("END_OF_FILE")
        self.taking = self.told_of_strays = False
        if self.state is G.WAITING:
            return self._sentence("no file was taken: announce the package with FILE_META first")
        if self.state is G.SUBMITTED:
            return []
        self.state = G.WAITING
        if len(self.got) != self.size:
            return self._sentence(
                f"{len(self.got)} bytes came and {self.size} were announced: send the package again"
            )
        if self.got != self.package or self.kind == "track":
            return self._sentence("the package …")
        self.state, self.submitted = G.SUBMITTED, self.submitted + 1
        return []

    def gives_up(self, step: Step) -> list[str]:
        words = ("JOB_STOP", "JOB_CANCEL", 'ZMQ_CTRL::{"command": "stop"}')
        self._say(words[step.way % 3])
        before, self.state = self.state, G.WAITING
        if before is G.RECEIVING:
            self.taking = False
            return self._sentence("the package is thrown away: it was not submitted yet")
        if before is G.SUBMITTED:
            return [*self._sentence("the job was cancelled"), "TRAIN_JOB_ERROR::done::-15"]
        return self._sentence("there is no job of yours that runs: send a package first")

    # --- the rest ----------------------------------------------------------------------------

    def asks_for_another_flow(self, step: Step) -> list[str]:
        question, answer = _FLOWS[step.way % len(_FLOWS)]
        self._say(question)
        return [answer]

    def names_a_path(self, step: Step) -> list[str]:
        side = ("INPUT", "OUTPUT")[step.way % 2]
        outside = step.way % 3 == 0
        self._say(f"SHARED_{side}_PATH::{'/etc' if outside else 'a/b'}")
        if outside:
            return ["PATH_ERROR::…"]
        return [_NO_SHARED if self.state is G.WAITING else _ONE_JOB]

    def starts_a_shared_job(self, _step: Step) -> list[str]:
        self._say("SHARED_STORAGE_JOB::start")
        return [_BOTH_FIRST if self.state is G.WAITING else _ONE_JOB]

    def says_what_needs_no_answer(self, step: Step) -> list[str]:
        self._say(_SILENT[step.way % len(_SILENT)])
        return []

    def says_nonsense(self, step: Step) -> list[str]:
        if self.strikes >= STRIKES:
            return []
        self.strikes += 1
        text, said = _NONSENSE[step.way % len(_NONSENSE)]
        self._say(text)
        return self._sentence(said)

    async def leaves(self, way: int) -> None:
        """Gives its job up, or leaves it; sometimes it is let go."""
        await self.plays(Step("gives_up", way=way))
        if way % 2:
            for _ in range(STRIKES + 1 - self.strikes):
                self._say("hello")
            async with asyncio.timeout(PATIENCE_S):
                await self.client.closed.wait()
