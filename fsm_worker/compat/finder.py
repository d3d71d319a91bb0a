"""`sleap_rtc.worker.*` from here: a finder before all others, and one behind them.

Laws:

- Seven modules are ours, whoever else has them; everything else of `sleap_rtc` is its own.
- The two packages around the seven are those of sleap-rtc where it is installed, else empty ones.
- What `uninstall` leaves behind is what `install` met.
"""

import importlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any, Final

#: By their names in sleap-rtc: which module of ours has the class, and what it is called.
OURS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        f"sleap_rtc.worker.{name}": (where, kind)
        for name, where, kind in (
            ("worker_class", "fsm_worker.compat.worker_class", "RTCWorkerClient"),
            ("capabilities", "fsm_worker.services.capabilities", "WorkerCapabilities"),
            ("job_executor", "fsm_worker.services.job_executor", "JobExecutor"),
            ("file_manager", "fsm_worker.services.file_manager", "FileManager"),
            ("job_coordinator", "fsm_worker.services.job_coordinator", "JobCoordinator"),
            ("state_manager", "fsm_worker.services.state_manager", "StateManager"),
            ("progress_reporter", "fsm_worker.services.progress_reporter", "ProgressReporter"),
        )
    }
)
_PACKAGES: Final = ("sleap_rtc", "sleap_rtc.worker")
#: Importing it configures logging, where nobody has: in sleap-rtc too, and its programs count on
#: that to show what their worker says.
_TALKATIVE: Final = "sleap_rtc.worker.worker_class"


class _OneClass(Loader):
    """Makes a module that holds one class of ours.

    The module of ours itself is not given out: the import system would write sleap-rtc's name into
    its `__spec__`.
    """

    def __init__(self, where: str, kind: str) -> None:
        self._where = where
        self._kind = kind

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module."""
        found = getattr(importlib.import_module(self._where), self._kind)
        vars(module).update(
            {
                self._kind: found,
                "__all__": [self._kind],
                "__doc__": f"`{self._kind}` of fsm-worker: see `{self._where}`.",
            }
        )
        if module.__name__ == _TALKATIVE:
            logging.basicConfig(level=logging.INFO)
            # our engine's library tells of every callback at INFO
            logging.getLogger("transitions").setLevel(logging.WARNING)


class _Nothing(Loader):
    """Makes an empty package."""

    def exec_module(self, module: ModuleType) -> None:
        """Leaves it empty."""
        module.__doc__ = "Of sleap-rtc, which is not installed: only what fsm-worker has of it."


class _SevenModules(MetaPathFinder):
    """Finds the seven; stands before all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Gives one of the seven, or leaves it to others."""
        del path, target
        if fullname not in OURS:
            return None
        return ModuleSpec(fullname, _OneClass(*OURS[fullname]), origin="fsm-worker")


class _EmptyPackages(MetaPathFinder):
    """Finds the packages around the seven; stands behind all others, so nobody else has them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Gives an empty package."""
        del path, target
        if fullname not in _PACKAGES:
            return None
        return ModuleSpec(fullname, _Nothing(), origin="fsm-worker", is_package=True)


@dataclass(frozen=True)
class _Before:
    """What `install` met, to be put back.

    Args:
        finders: the two that were added.
        modules: of `sleap_rtc`, as they were in `sys.modules`.
        names: of each of those that is a package: what stood in it.
    """

    finders: tuple[MetaPathFinder, MetaPathFinder]
    modules: Mapping[str, ModuleType]
    names: Mapping[str, Mapping[str, Any]]


_installed: list[_Before] = []  # at most one


def install() -> None:
    """Makes imports of `sleap_rtc.worker` give this worker's classes; again, it changes nothing.

    A name that a program has imported before stays what it was: call this first.
    """
    if _installed:
        return
    modules = dict(_of_sleap_rtc())
    names = {name: dict(vars(module)) for name, module in modules.items() if _is_package(module)}
    before = _Before((_SevenModules(), _EmptyPackages()), modules, names)
    _installed.append(before)
    for name in OURS:
        sys.modules.pop(name, None)
        package, _, child = name.rpartition(".")
        if package in names:  # `from package import child` looks here before it asks a finder
            vars(modules[package]).pop(child, None)
    sys.meta_path.insert(0, before.finders[0])
    sys.meta_path.append(before.finders[1])


def uninstall() -> None:
    """Puts back what `install` met, however often that was called; without it, does nothing.

    All modules of `sleap_rtc` that were imported meanwhile are forgotten, since what is in them may
    come from here.
    """
    if not _installed:
        return
    before = _installed.pop()
    for finder in before.finders:
        if finder in sys.meta_path:  # others may tidy up there too
            sys.meta_path.remove(finder)
    meanwhile = dict(_of_sleap_rtc())
    for name in meanwhile:
        del sys.modules[name]
    sys.modules.update(before.modules)
    for name in {*OURS, *meanwhile, *before.modules}:
        package, _, child = name.rpartition(".")
        if package not in before.names:
            continue
        inside, then = vars(before.modules[package]), before.names[package]
        if child in then:
            inside[child] = then[child]
        else:
            inside.pop(child, None)


def _of_sleap_rtc() -> Iterator[tuple[str, ModuleType]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _PACKAGES[0]:
            yield name, module


def _is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")
