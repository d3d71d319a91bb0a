"""`doctor`: checks this machine, and says what to do."""

import asyncio
from argparse import Namespace

from fsm_worker.cli.checks import CHECKS, Finding
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import ExitCode


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    del options
    findings = asyncio.run(_look(console))
    if all(finding.ok for finding in findings):
        console.say("nothing to put right")
        return ExitCode.DONE
    return ExitCode.FINDINGS


async def _look(console: Console) -> list[Finding]:
    findings = []
    for check in CHECKS:
        finding = await check()
        findings.append(finding)
        console.emit("check", **finding._asdict())
        line = f"{'✓' if finding.ok else '✗'} {finding.name}: {finding.text}"
        if finding.ok:
            console.say(line)
        else:
            console.show(f"{line}\n  → {finding.advice}")
    return findings
