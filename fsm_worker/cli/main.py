"""Reads the command line, and runs the one command that it names."""

import contextlib
import importlib
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsm_worker.cli.console import Console

#: The module of each command, with a function `run`; imported when the command is.
MODULES = {
    "worker": "worker",
    "signal": "signal_server",
    "submit": "submit",
    "attach": "attach",
    "stop": "end",
    "cancel": "end",
    "fetch": "fetch",
    "jobs": "jobs",
    "explain": "explain",
    "workers": "workers",
    "drain": "drain",
    "undrain": "drain",
    "doctor": "doctor",
    "diagrams": "pages",
    "demo": "demo",
}
_GLOBAL = {"-h", "--help", "--version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code, one of `ExitCode`.

    Raises:
        SystemExit: after `--help`, `--version` and usage errors.
    """
    complaint = foreign_protocol()
    if complaint:
        print(complaint, file=sys.stderr)
        return 2
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _GLOBAL):
        arguments.insert(0, "worker")
    options: Namespace = _from("parsers", "build_parser")().parse_args(arguments)
    console: Console = _from("console", "Console")(
        as_json=options.json, verbosity=-1 if options.quiet else min(options.verbose, 2)
    )
    console.start_logging(logging.WARNING if options.command == "worker" else logging.ERROR)
    run: Callable[[Namespace, Console], int] = _from(MODULES[options.command], "run")
    return _guarded(lambda: int(run(options, console)), console)


def _from(module: str, name: str) -> Callable[..., Any]:
    """Imports late: `--help` must not wait for WebRTC."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"fsm_worker.cli.{module}"), name)
    return found


def _guarded(work: Callable[[], int], console: "Console") -> int:
    """Turns every exception into one line and an exit code."""
    codes = importlib.import_module("fsm_worker.cli.exit_codes")
    try:
        return work()
    except BrokenPipeError:
        # Who read our output has gone; Python would complain when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(codes.ExitCode.DETACHED)
    except (Exception, KeyboardInterrupt) as error:
        code, sentence = int(codes.exit_code_for(error)), codes.sentence_for(error)
        if console.verbosity >= 2:
            logging.getLogger(__name__).exception("- the command ended by an exception")
        console.emit("error", exit_code=code, message=sentence)
        console.warn(sentence)
        return code


def foreign_protocol() -> str:
    """Says whether another program's `protocol` stands before ours; empty if not."""
    try:
        found = importlib.import_module("protocol")
    except ImportError as error:
        return f"the package `protocol` can't be imported ({error}): install fsm-worker again"
    if hasattr(found, "NATIVE_VERSION"):
        return ""
    where = getattr(found, "__file__", None) or next(iter(getattr(found, "__path__", [])), "?")
    return (
        f"{where} is another program's module `protocol`, and hides fsm-worker's: run in another "
        "folder, or in a virtual environment without it"
    )
