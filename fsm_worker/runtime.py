"""The loop that joins machines and managers: one inbox, journal, effects, timers, tasks.

An event comes in; the world decides; the steps are journalled; the effects are performed. What an
effect reports while it is performed is decided before the next event from outside, so a reaction is
complete before anything else happens. Nothing here decides anything.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from fsm_worker.effects import Do, Effect, Owner, StartTimer
from fsm_worker.events import (
    EffectFailed,
    Event,
    JournalFailed,
    Timer,
    TimerExpired,
    event_name,
    key_of,
)
from fsm_worker.journal import Journal, JournalBroken
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import THE_WORKER, World
from protocol.errors import ErrorCode, ProtocolError
from protocol.table import MachineName

log = logging.getLogger(__name__)

Address = tuple[MachineName, str]
Posted = tuple[MachineName, str, Event | Callable[[], Event | None]]
Emit = Callable[[MachineName, str, Event], None]


class UnboundEffect(TypeError):
    """A table names an effect that no owner performs: write the method, or drop the effect."""


def bind(world: World, owners: Mapping[Owner, object]) -> dict[type[Effect], Callable[[Any], Any]]:
    """The dispatch table: every effect of the world's tables, and the one method that performs it.

    Raises:
        UnboundEffect: an owner or its method is missing.
    """
    used = {
        entry.effect if isinstance(entry, Do) else entry
        for table in world.tables.values()
        for row in table.rows
        for entry in row.effects
    } - {StartTimer}
    bindings = {}
    for effect in sorted(used, key=lambda kind: kind.__name__):
        method = getattr(owners.get(effect.owner), effect.method(), None)
        if not callable(method):
            raise UnboundEffect(
                f"{effect.__name__} needs the method {effect.owner}.{effect.method()}"
            )
        bindings[effect] = method
    return bindings


class Runtime:
    """Runs one world.

    Args:
        world: the machines.
        journal: where steps are kept.
        overrides: seconds by timer, instead of the defaults.
        watch: is told every step after its effects were started; it must not block.
    """

    def __init__(
        self,
        world: World,
        journal: Journal | None,
        *,
        overrides: Mapping[Timer, float] | None = None,
        watch: Callable[[Step], None] | None = None,
    ) -> None:
        self.world = world
        self.journal = journal
        self.overrides = dict(overrides or {})
        self.bindings: dict[type[Effect], Callable[[Any], Any]] = {}
        self.counts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
        self._watch = watch
        self._inbox: deque[Posted] = deque()
        self._reactions: deque[Posted] = deque()
        self._performing = False
        self._woken = asyncio.Event()
        self._timers: dict[tuple[MachineName, str, Timer], asyncio.TimerHandle] = {}
        self._tasks: dict[asyncio.Task[None], Address] = {}
        self._group: asyncio.TaskGroup | None = None

    def bind(self, owners: Mapping[Owner, object]) -> None:
        """Connects effects with the objects that perform them; see `bind`."""
        self.bindings = bind(self.world, owners)

    def post(
        self, machine: MachineName, subject: str, event: Event | Callable[[], Event | None]
    ) -> None:
        """Puts an event into the inbox; a callable makes the event when its turn has come.

        Must be called on the loop. It never blocks.
        """
        (self._reactions if self._performing else self._inbox).append((machine, subject, event))
        self._woken.set()

    def spawn(
        self, address: Address, work: Callable[[], Coroutine[Any, Any, None]], name: str
    ) -> None:
        """Runs a task of a subject; what it raises becomes `EffectFailed` of that subject.

        Args:
            address: the subject.
            work: makes the coroutine when the task begins, if it ever does.
            name: of the task, for `cancel` and for the log.
        """
        if self._group is None:
            return
        task = self._group.create_task(
            self._guard(address, work, name), name=f"{name} {address[1]}"
        )
        self._tasks[task] = address
        task.add_done_callback(lambda done: self._tasks.pop(done, None) and None)

    def cancel(self, address: Address, prefix: str = "") -> None:
        """Cancels the tasks of a subject whose names start with `prefix`."""
        for task, owner in list(self._tasks.items()):
            if owner == address and task.get_name().startswith(prefix):
                task.cancel()

    async def run(self, until: Callable[[], bool]) -> None:
        """Decides and performs until `until()` is true after an event, then ends all tasks.

        Cancelling it ends timers and tasks too.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    while not until():
                        await self._next()
                finally:
                    self._group = None
                    for task in list(self._tasks):
                        task.cancel()
        finally:
            for handle in self._timers.values():
                handle.cancel()
            self._timers.clear()

    async def _next(self) -> None:
        while not self._reactions and not self._inbox:
            self._woken.clear()
            await self._woken.wait()
        source = self._reactions or self._inbox
        machine, subject, event = source.popleft()
        made = event() if callable(event) else event
        if made is not None:
            await self._decide(machine, subject, made)

    async def _decide(self, machine: MachineName, subject: str, event: Event) -> None:
        steps = self.world.feed(machine, subject, event)
        for step in steps:
            self.counts[step.verdict] += 1
            _log_step(step)
        effects = [(step, effect) for step in steps for effect in step.effects]
        for step, effect in effects:
            if effect.urgent:
                self._perform(step, effect)
        written = self.journal.keep(steps) if self.journal is not None else None
        if written is not None:
            try:
                await written
            except JournalBroken as error:
                log.warning("! %s", error)
                failed = JournalFailed(reason=str(error))
                self._reactions.append((MachineName.WORKER, THE_WORKER, failed))
        for step, effect in effects:
            if not effect.urgent:
                self._perform(step, effect)
        for step in steps:
            if step.verdict is Verdict.ROW and step.row:
                self._disarm(step)
            if self._watch is not None:
                self._watch(step)

    def _perform(self, step: Step, effect: Effect) -> None:
        if isinstance(effect, StartTimer):
            self._start_timer(effect)
            return
        address = (step.machine, step.subject)
        method = self.bindings[type(effect)]
        if inspect.iscoroutinefunction(method):
            # law: an effect that is asked for again replaces itself where it is still under way
            self.cancel(address, f"{effect.method()} ")
            self.spawn(address, partial(method, effect), effect.method())
            return
        self._performing = True
        try:
            method(effect)
        except Exception as error:
            self._failed(address, effect.method(), error)
        finally:
            self._performing = False

    async def _guard(
        self, address: Address, work: Callable[[], Coroutine[Any, Any, None]], name: str
    ) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(address, name, _cause(error))

    def _failed(self, address: Address, name: str, error: Exception) -> None:
        log.warning("! %s %s: %s failed: %s", *address, name, error, exc_info=error)
        code = error.code if isinstance(error, ProtocolError) else ErrorCode.INTERNAL
        reason = error.sentence if isinstance(error, ProtocolError) else f"{name}: {_words(error)}"
        self.post(*address, EffectFailed(effect=name, reason=reason, code=code))

    def _start_timer(self, effect: StartTimer) -> None:
        key = (effect.machine, effect.subject, effect.timer)
        if old := self._timers.pop(key, None):
            old.cancel()
        delay = seconds(effect.timer, effect.facts, self.overrides)
        if delay is None:
            return
        event = TimerExpired(timer=effect.timer, serial=effect.serial)

        def expire() -> None:
            self._timers.pop(key, None)
            self.post(effect.machine, effect.subject, event)

        self._timers[key] = asyncio.get_running_loop().call_later(delay, expire)

    def _disarm(self, step: Step) -> None:
        instance = self.world.get(step.machine, step.subject)
        armed = instance.armed if instance is not None else {}
        for timer in Timer:
            key = (step.machine, step.subject, timer)
            if timer not in armed and key in self._timers:
                self._timers.pop(key).cancel()


def _cause(error: Exception) -> Exception:
    """What went wrong, where a task group has wrapped it: its own words say nothing of it."""
    while isinstance(error, ExceptionGroup) and isinstance(error.exceptions[0], Exception):
        error = error.exceptions[0]
    return error


def _words(error: Exception) -> str:
    """What a peer may be told: an operating system's word without its path, which is ours alone."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _log_step(step: Step) -> None:
    """One line a step; the first glyph says what kind: `=` row, `.` ignored, `!` illegal."""
    name = event_name(key_of(step.event))
    if step.verdict is Verdict.ROW:
        log.debug(
            "= %s %s: %s %s -> %s (%s)",
            step.machine, step.subject, name, step.before, step.after, step.row,
        )  # fmt: skip
    elif step.verdict is Verdict.ILLEGAL:
        log.warning("! %s %s: %s", step.machine, step.subject, step.sentence)
    else:
        log.debug(". %s %s: %s, %s", step.machine, step.subject, name, step.sentence)
