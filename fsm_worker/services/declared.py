"""What an operator says of the machine by hand, where nothing can measure it: `[declare]`.

It stands over what the driver says, and is published with the names of what was declared. Which
programs a worker runs can't be declared: those are there, or are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from protocol.messages import Gpu
from protocol.need import NeedRefused, compute_of, name_of

#: Of tags, and of GPUs on one machine.
MOST: Final = 64
_MOST_MIB: Final = 2**30  # a pebibyte


class DeclarationRefused(ValueError):
    """The table `[declare]` can't be used: write it as the sentence says, which names the key."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What is declared; empty or 0 where nothing is.

    Args:
        gpu_model: the model of the GPUs.
        gpu_memory_mb: MiB of one GPU, or as much of it as jobs may count on.
        gpu_compute: compute capability of the GPUs, as `8.0`.
        gpu_count: how many GPUs there are, where the driver shows fewer.
        tags: free words that a job can ask for.
    """

    gpu_model: str = ""
    gpu_memory_mb: int = 0
    gpu_compute: str = ""
    gpu_count: int = 0
    tags: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is declared."""
        return tuple(name for name, value in vars(self).items() if value)

    def over(self, measured: tuple[Gpu | None, ...]) -> tuple[Gpu | None, ...]:
        """Put the declaration over what the driver says.

        Args:
            measured: the GPUs; None for one of which the driver says nothing.

        Returns:
            As many, or more where more are declared. Without a declaration the same.
        """
        if not (self.gpu_model or self.gpu_memory_mb or self.gpu_compute or self.gpu_count):
            return measured
        missing = max(self.gpu_count or 1, len(measured)) - len(measured)
        return tuple(self._described(gpu) for gpu in (*measured, *(None,) * missing))

    def _described(self, gpu: Gpu | None) -> Gpu:
        known = gpu or Gpu(uuid="", model="", memory_mb=0, memory_free_mb=0)
        memory_mb = self.gpu_memory_mb or known.memory_mb
        return msgspec.structs.replace(
            known,
            model=self.gpu_model or known.model,
            memory_mb=memory_mb,
            memory_free_mb=min(known.memory_free_mb, memory_mb),
            compute_capability=self.gpu_compute or known.compute_capability,
        )


def read_declared(table: Mapping[str, object]) -> Declared:
    """Read the table `[declare]`.

    Args:
        table: what stands there.

    Returns:
        The declaration.

    Raises:
        DeclarationRefused: if it can't be used.
    """
    known = tuple(vars(Declared()))
    for key in table:
        if key == "runners":
            raise DeclarationRefused(
                "declare.runners: programs are not declared: give each a [runners.NAME] of its own"
            )
        if key not in known:
            raise DeclarationRefused(f"declare: there is no {key[:40]!r}: {', '.join(known)} are")
    return Declared(
        gpu_model=_model(table.get("gpu_model", "")),
        gpu_memory_mb=_number(table, "gpu_memory_mb", _MOST_MIB, "24576"),
        gpu_compute=_compute(table.get("gpu_compute", "")),
        gpu_count=_number(table, "gpu_count", MOST, "2"),
        tags=_tags(table.get("tags", [])),
    )


def _model(value: object) -> str:
    if not isinstance(value, str) or len(value) > 100 or not (value.isprintable() or not value):
        raise DeclarationRefused('declare.gpu_model: write it as "NVIDIA A100"')
    return value.strip()


def _number(table: Mapping[str, object], key: str, most: int, example: str) -> int:
    if key not in table:
        return 0
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise DeclarationRefused(
            f"declare.{key}: write a number from 1 to {most}, such as {example}"
        )
    return value


def _compute(value: object) -> str:
    try:
        if isinstance(value, str):
            if value:
                compute_of("compute", value)
            return value
    except NeedRefused:
        pass
    raise DeclarationRefused('declare.gpu_compute: write it as "8.0", with its quotes')


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MOST:
        raise DeclarationRefused(
            f'declare.tags: write a list of at most {MOST} words, as ["lab-b"]'
        )
    tags = []
    for tag in value:
        try:
            tags.append(name_of("tag", tag if isinstance(tag, str) else ""))
        except NeedRefused:
            raise DeclarationRefused(
                f"declare.tags: {str(tag)[:40]!r} is no tag: write letters, digits and ` ._+/()-`"
            ) from None
    return tuple(dict.fromkeys(tags))
