"""A program at one end of a measurement: a process that is asked for things, one at a time.

A question is one line of JSON on its standard input, with the name of what to do in `do`; the
answer is one line of JSON on its standard output. The end of its input ends it.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
Handlers = Mapping[str, Callable[..., Awaitable[Answer]]]

ROOT = Path(__file__).resolve().parents[1]
_LONGEST_LINE = 4 * 1024 * 1024
_PATIENCE = 100.0  # seconds for one answer
_GOODBYE = 15.0  # seconds to end after the input's end


class ProgramEnded(RuntimeError):
    """A program ended, or fell silent, before it had answered; its own words are on stderr."""


class Program:
    """A running program; made by `started`."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls, module: str, *, environment: Mapping[str, str] | None = None
    ) -> "AsyncIterator[Program]":
        """Starts `python -m MODULE`, and ends it with the block.

        Args:
            module: one of `bench.ends`.
            environment: variables beside our own.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            cwd=ROOT, env={**os.environ, **(environment or {})}, limit=_LONGEST_LINE,
        )  # fmt: skip
        try:
            yield cls(module, process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(_GOODBYE):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def ask(self, do: str, **fields: object) -> Answer:
        """Asks for something, and waits for the answer.

        Args:
            do: the name of a handler of the program.
            fields: its arguments.

        Raises:
            ProgramEnded: there is no answer.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        line = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            await stdin.drain()
            async with asyncio.timeout(_PATIENCE):
                line = await stdout.readline()
        if not line:
            raise ProgramEnded(f"{self._module} did not answer {do!r}")
        answer: Answer = json.loads(line)
        return answer


async def serve(handlers: Handlers) -> None:
    """Answers questions until the input's end; what a handler raises ends the program.

    Args:
        handlers: by the name that a question gives in `do`.
    """
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        question = json.loads(line)
        answer = await handlers[question.pop("do")](**question)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
