"""`python -m fsm_worker.compat`: runs a program of sleap-rtc's worker, as it is, on this one."""

import argparse
import importlib
import importlib.util
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from fsm_worker.compat.finder import OURS, install

PROG = "python -m fsm_worker.compat"
_EPILOG = f"""\
examples:
  {PROG} start_worker.py --gpu 1
  {PROG} -m lab.start_worker --gpu 1
  {PROG} -m sleap_rtc.cli worker          (with sleap-rtc installed beside it)

Seven modules of sleap-rtc come from fsm-worker: worker_class, capabilities, job_executor,
file_manager, job_coordinator, state_manager and progress_reporter of sleap_rtc.worker. Its other
modules are its own, and there only if sleap-rtc is installed. A Python process that the program
starts is an ordinary one; start it through this command, too.

The worker keeps its state in the user's state folder, or where FSM_WORKER_STATE says. Words of
sleap-rtc that have no effect here are named in the log, once, with the reason.
"""
_MISSING = (
    "fsm-worker has the worker's part of sleap-rtc only: install sleap-rtc beside it, and the rest "
    "is found"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; the program's own exit code or exception ends it.

    Args:
        argv: the arguments; None takes those of the process.

    Raises:
        SystemExit: after `--help` and usage errors, and where the program raises it.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    words: list[str] = [*(options.module or ()), *options.program]
    if not words:
        parser.error("name a program: a script, or -m and a module")
    install()
    _import_ours()
    try:
        if options.module is not None:
            _run_module(words, parser)
        else:
            _run_script(words, parser)
    except ImportError as error:
        name = error.name or ""
        if name in OURS:
            error.add_note(f"of {name}, fsm-worker has {OURS[name][1]} only")
        elif name.partition(".")[0] == "sleap_rtc":
            error.add_note(_MISSING)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [-h] SCRIPT [ARGUMENT ...]\n       {PROG} [-h] -m MODULE [ARGUMENT ...]",
        description="Runs a program that was written for sleap-rtc's worker on fsm-worker, without "
        "a change to it: what it imports from sleap_rtc.worker is fsm-worker's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER,
        help="the program is this module, looked for as Python does; the rest is for it",
    )  # fmt: skip
    parser.add_argument(
        "program", metavar="SCRIPT", nargs=argparse.REMAINDER,
        help="the program is this file, folder or zip archive; the rest is for it",
    )  # fmt: skip
    return parser


def _import_ours() -> None:
    """Imports the worker before the program's folder comes first.

    There may be a module `protocol` in it, as there is in sleap-rtc's own folder, and it would be
    taken for ours.
    """
    if sys.flags.safe_path:
        importlib.import_module("fsm_worker.compat.worker_class")
        return
    sys.path.append(sys.path.pop(0))
    try:
        importlib.import_module("fsm_worker.compat.worker_class")
    finally:
        sys.path.insert(0, sys.path.pop())


def _run_module(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    name = words[0]
    try:
        found = None if name.startswith(".") else importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that a package around it imports
        found = None
    if found is None:
        parser.error(f"there is no module {name!r}: check the name, and where this is started")
    sys.argv = list(words)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_script(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    path = Path(words[0])
    if not path.exists():
        parser.error(f"there is no file {words[0]!r}: check the name, and where this is started")
    sys.argv = list(words)
    is_file = pkgutil.get_importer(words[0]) is None
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder that this was started in belongs to a module, not to a script
        if is_file:
            sys.path.insert(0, str(path.resolve().parent))
    # runpy puts a folder or an archive into sys.path as it is named: it must outlive a chdir
    runpy.run_path(words[0] if is_file else str(path.absolute()), run_name="__main__")


if __name__ == "__main__":
    main()
