"""Compares what a job needs with what a worker has; every requirement that is not met is said."""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from protocol.messages import Gpu
from protocol.need import (
    MAX_REQUIREMENTS,
    NeedRefused,
    compute_of,
    count_of,
    gpu_of,
    name_of,
    shown,
    size_of,
    unknown,
)

_MIB: Final = 2**20


class Offer(NamedTuple):
    """What a job gets on a worker.

    Attributes:
        gpu: the GPU; None without one. What it does not tell is 0 or empty.
        runners: the names of the programs that are run.
        tags: the words that the operator has declared.
        cpus: cores.
        memory_mb: MiB of the machine.
        disk_free_mb: MiB that are free where jobs are kept.
    """

    gpu: Gpu | None = None
    runners: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    cpus: int = 0
    memory_mb: int = 0
    disk_free_mb: int = 0


def unmet(need: Mapping[str, str], offer: Offer) -> tuple[str, ...]:
    """Tell what of a need is not met.

    Args:
        need: as `protocol.need` describes it; from a peer, it may hold anything.
        offer: what there is.

    Returns:
        A sentence for each requirement that is not met, that can't be read, or that is not known.
    """
    if len(need) > MAX_REQUIREMENTS:
        return (f"{len(need)} requirements are too many: write at most {MAX_REQUIREMENTS}",)
    found = []
    for name, text in need.items():
        check = _CHECKS.get(name)
        if check is None:
            found.append(unknown(name))
            continue
        try:
            has = check(name, text.strip(), offer)
        except NeedRefused as refusal:
            found.append(refusal.sentence)
        else:
            found += [f"{shown(name, text.strip())} is asked for; {has}"] if has else []
    return tuple(found)


# Each gives what there is instead, or nothing where the requirement is met.


def _gpu(name: str, text: str, offer: Offer) -> str:
    wanted = gpu_of(name, text)
    if isinstance(wanted, int):
        has = 0 if offer.gpu is None else 1
        return f"a job gets {has} here" if wanted > has else ""
    if offer.gpu is None:
        return _NO_GPU
    if not offer.gpu.model:
        return f"what the GPU here is {_UNKNOWN}"
    return "" if wanted.lower() in offer.gpu.model.lower() else f"the GPU here is {offer.gpu.model}"


def _vram(name: str, text: str, offer: Offer) -> str:
    wanted = size_of(name, text)
    if offer.gpu is None:
        return _NO_GPU
    if not offer.gpu.memory_mb:
        return f"how much memory the GPU here has {_UNKNOWN}"
    return "" if _fits(wanted, offer.gpu.memory_mb) else (
        f"the GPU here has {offer.gpu.memory_mb} MiB"
    )  # fmt: skip


def _compute(name: str, text: str, offer: Offer) -> str:
    wanted = compute_of(name, text)
    if offer.gpu is None:
        return _NO_GPU
    has = offer.gpu.compute_capability
    if not has:
        return f"what the GPU here can do {_UNKNOWN}"
    return "" if compute_of(name, has) >= wanted else f"the GPU here has {has}"


def _runner(name: str, text: str, offer: Offer) -> str:
    wanted = name_of(name, text)
    if any(has == wanted or has.startswith(f"{wanted} ") for has in offer.runners):
        return ""
    return f"here are {', '.join(offer.runners) or 'none'}"


def _tag(name: str, text: str, offer: Offer) -> str:
    if name_of(name, text) in offer.tags:
        return ""
    return f"here are {', '.join(offer.tags) or 'none'}"


def _disk(name: str, text: str, offer: Offer) -> str:
    wanted = size_of(name, text)
    return "" if wanted <= offer.disk_free_mb * _MIB else (
        f"{offer.disk_free_mb} MiB are free where jobs are kept"
    )  # fmt: skip


def _memory(name: str, text: str, offer: Offer) -> str:
    wanted = size_of(name, text)
    return "" if _fits(wanted, offer.memory_mb) else f"this machine has {offer.memory_mb} MiB"


def _cpus(name: str, text: str, offer: Offer) -> str:
    return "" if count_of(name, text) <= offer.cpus else f"a job may use {offer.cpus} here"


def _fits(wanted: int, memory_mb: int) -> bool:
    """By the whole GiB: of a card of 24 GiB the driver keeps some and shows 24564 MiB."""
    return wanted <= math.ceil(memory_mb / 1024) * 2**30


_NO_GPU: Final = "there is no GPU here"
_UNKNOWN: Final = "is not known: its operator can declare it"
_CHECKS: Final[Mapping[str, Callable[[str, str, Offer], str]]] = {
    "gpu": _gpu,
    "vram": _vram,
    "compute": _compute,
    "runner": _runner,
    "disk": _disk,
    "memory": _memory,
    "cpus": _cpus,
    "tag": _tag,
}
