"""How long every timer of a machine runs: the only place with durations of lifecycles.

Where else a number of seconds stands, it bounds a wait inside one effect, or a program's wait for
the sake of its user, and a comment says so.

A value is seconds, or a function of the machine's facts; None means that the timer is not armed
(no limit was asked for). An operator's overrides are seconds by timer.
"""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fsm_worker.events import Timer

#: ZMQ stop, then SIGINT, then SIGTERM: what each gets before the next (seconds).
STOP_STEPS = (30.0, 20.0, 10.0)

Duration = float | Callable[[Any], float | None]

SECONDS: Mapping[Timer, Duration] = MappingProxyType(
    {
        Timer.PROBE: 60.0,
        Timer.CLEAN: 60.0,
        Timer.STOP: 60.0,
        Timer.LINGER: 600.0,
        Timer.LEASE: 30.0,
        Timer.DRAIN: lambda facts: facts.grace_s or None,
        # each side asks the STUN servers for up to 5 s, one after the other
        Timer.NEGOTIATION: 20.0,
        Timer.ICE: 15.0,
        Timer.DTLS: 10.0,
        Timer.AUTH: 10.0,
        Timer.PING: 5.0,
        Timer.QUIET: 15.0,
        Timer.LOST: 15.0,
        Timer.CLOSE: 5.0,
        Timer.SESSION: 24 * 3600.0,
        # at most 4 s for an attempt, and up to 2 s between: a path comes back at any moment
        Timer.REDIAL: lambda _facts: 4.0 + random.uniform(0.0, 2.0),  # noqa: S311 - not a secret
        Timer.STAGING: 1800.0,  # since the last byte that came
        # what lies in the shared storage is copied first, as other inputs come while staging
        Timer.PREFLIGHT: lambda facts: 1800.0 if facts.shared else 60.0,
        Timer.QUEUE: lambda facts: facts.queue_s or 7 * 24 * 3600.0,
        Timer.PREPARE: 120.0,
        Timer.WALL: lambda facts: facts.wall_s or None,
        Timer.REPEAT: 1.0,
        Timer.STEP: lambda facts: STOP_STEPS[facts.step],
        Timer.KILL: 10.0,
        Timer.UNKILLABLE: 20.0,
        Timer.COLLECT: 3600.0,
        Timer.RETENTION: 7 * 24 * 3600.0,
        Timer.DELIVERY: 600.0,  # since the last byte that left
        Timer.CONNECT: 20.0,
        Timer.REGISTER: 15.0,
        Timer.SILENCE: 30.0,
        Timer.DEAD: 30.0,
        Timer.STABLE: 60.0,
        # full jitter: the workers of a lab must not come back in one moment
        Timer.DELAY: lambda facts: random.uniform(0.0, min(60.0, 2.0**facts.tries)),  # noqa: S311 - not a secret
        Timer.IDLE: 60.0,
        # longer than a reservation can last without a job: the worker ends that one, and says so
        Timer.TALK: 600.0,
    }
)

#: What a client's machines have instead, beneath its program's overrides.
CLIENT: Mapping[Timer, float] = MappingProxyType(
    {
        Timer.SESSION: 60.0,  # somebody waits for it: it gives up before a worker forgets it
        Timer.CLOSE: 2.0,  # and wants to leave
    }
)


def seconds(timer: Timer, facts: object, overrides: Mapping[Timer, float]) -> float | None:
    """How long `timer` runs for a machine with these facts (seconds; None: not armed)."""
    if timer in overrides:
        return overrides[timer]
    duration = SECONDS[timer]
    return duration(facts) if callable(duration) else duration


if missing := set(Timer) - set(SECONDS):
    raise TypeError(f"no duration for {sorted(missing)}: add it to machines.defaults")
