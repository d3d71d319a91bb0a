"""Chooses how a watched job is shown."""

import os
import sys
from collections.abc import Callable

from fsm_worker.cli.console import Console
from fsm_worker.cli.live import LiveView
from fsm_worker.cli.objects import ObjectView
from fsm_worker.cli.plain import PlainView
from fsm_worker.cli.view import View
from fsm_worker.services.transfer import Moved


def view_for(console: Console) -> View:
    """Bars where standard output is a terminal that can draw them, else lines or objects."""
    if console.as_json:
        return ObjectView(console)
    if console.quiet or not sys.stdout.isatty() or os.environ.get("TERM", "") == "dumb":
        return PlainView(console)
    return LiveView()


def can_ask(console: Console) -> bool:
    """Whether somebody is there to answer a question."""
    return not console.as_json and sys.stdin.isatty() and sys.stdout.isatty()


def files_to(view: View) -> Callable[[Moved], None]:
    """What tells a view how far files have come."""

    def watch(moved: Moved) -> None:
        view.moved("downloading" if moved.incoming else "uploading", moved.done, moved.size)

    return watch
