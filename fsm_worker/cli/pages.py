"""`diagrams`: writes the pages about the machines, or compares them."""

from argparse import Namespace

from fsm_worker import diagrams
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import ExitCode


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    del console
    code = diagrams.main(["--check"] if options.check else [])
    return {0: ExitCode.DONE, 2: ExitCode.USAGE}.get(code, ExitCode.FAILED)
