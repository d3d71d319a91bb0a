"""Where this program keeps its state, on each operating system."""

import os
from pathlib import Path

import platformdirs


def state_folder(role: str) -> Path:
    """The folder of a role ("worker" or "client"); `FSM_WORKER_STATE` moves both.

    Args:
        role: names the folder inside.
    """
    chosen = os.environ.get("FSM_WORKER_STATE")
    base = Path(chosen) if chosen else platformdirs.user_state_path("fsm-worker", appauthor=False)
    return base / role
