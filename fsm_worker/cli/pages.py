"""`diagrams`: writes or checks the pages about the machines."""

import contextlib
import sys
from argparse import Namespace

from fsm_worker import diagrams
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import ExitCode


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    with contextlib.ExitStack() as stack:
        if console.as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        result = diagrams.main(["--check"] if options.check else [])
    code = {0: ExitCode.DONE, 2: ExitCode.USAGE}.get(result, ExitCode.FAILED)
    console.emit("diagrams", checked=options.check, agree=code is ExitCode.DONE)
    return code
