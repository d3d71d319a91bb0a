"""What holds in every state and along every move, in the words of people.

Each law is told the state before a move, and the stage after it with the move's steps and effects.
It yields what is wrong. Laws know states, words and effects; they read no table.
"""

from tests.exploration.invariants.common import UP, WORK, asked, before_of, fired
from tests.exploration.invariants.everybody import EVERYBODY
from tests.exploration.invariants.files import FILE_LAWS
from tests.exploration.invariants.jobs import JOB_LAWS
from tests.exploration.invariants.links import LINK_LAWS
from tests.exploration.invariants.server import (
    SERVER_LAWS,
    a_socket_that_is_not_used_is_closed,
    who_waits_to_be_registered_has_asked,
)
from tests.exploration.invariants.slot import SLOT_LAWS
from tests.exploration.invariants.worker import WORKER_LAWS

__all__ = [
    "EVERYBODY", "FILE_LAWS", "JOB_LAWS", "LINK_LAWS", "SERVER_LAWS", "SLOT_LAWS", "UP",
    "WORK", "WORKER_LAWS", "a_socket_that_is_not_used_is_closed", "asked", "before_of", "fired",
    "who_waits_to_be_registered_has_asked",
]  # fmt: skip
