"""What a job asks of a worker: `vram=16GiB,runner=sleap-nn` on the command line, a map on the wire.

| name | what it asks for | written as |
| --- | --- | --- |
| `gpu` | so many GPUs, or one whose model's name holds this | `1`, `A100` |
| `vram` | memory of the GPU | `16GiB`, `16384MiB` |
| `compute` | the GPU's compute capability, or a higher one | `8.0` |
| `runner` | a program that the worker runs, by its name or its first words | `sleap-nn` |
| `disk` | free space where jobs are kept | `50GiB` |
| `memory` | memory of the machine | `32GiB` |
| `cpus` | processor cores | `8` |
| `tag` | a word that the operator has declared | `lab-b` |

Sizes are those of IEC 80000-13 (`MiB`, `GiB`, `TiB`) and of the SI (`MB`, `GB`, `TB`).
"""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

#: As `reserve` carries it: the text of each requirement by its name.
Need: TypeAlias = dict[str, str]

#: Characters that `parse_need` takes.
MAX_NEED: Final = 1000
#: Requirements that a worker looks at.
MAX_REQUIREMENTS: Final = 32

_UNITS: Final = {"MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
                 "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Z]{2,3})", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/()-]{0,63}")


class NeedRefused(ValueError):
    """A requirement says nothing that can be compared: write it as the sentence says.

    Args:
        sentence: what was written, and what could be.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def size_of(name: str, text: str) -> int:
    """Read a size.

    Args:
        name: of the requirement, for the sentence.
        text: a number with a unit.

    Returns:
        Bytes, rounded up.

    Raises:
        NeedRefused: if it is none.
    """
    size = _SIZE.fullmatch(text)
    unit = _UNITS.get(size[2].upper()) if size is not None else None
    if size is None or unit is None:
        raise NeedRefused(f"{shown(name, text)} is no size: write it as 16GiB or 16384MiB")
    return math.ceil(float(size[1]) * unit)


def count_of(name: str, text: str) -> int:
    """Read a number of things.

    Args:
        name: of the requirement, for the sentence.
        text: at most five digits.

    Returns:
        The number.

    Raises:
        NeedRefused: if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise NeedRefused(f"{shown(name, text)} is no number: write it as 8")
    return int(text)


def compute_of(name: str, text: str) -> tuple[int, int]:
    """Read a compute capability (CUDA C++ Programming Guide, "Compute Capabilities").

    Args:
        name: of the requirement, for the sentence.
        text: such as `8.0` or `9`.

    Returns:
        Major and minor number.

    Raises:
        NeedRefused: if it is none.
    """
    found = re.fullmatch(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?", text)
    if found is None:
        raise NeedRefused(f"{shown(name, text)} is no compute capability: write it as 8.0")
    return int(found[1]), int(found[2] or 0)


def name_of(name: str, text: str) -> str:
    """Read a name, or a part of one.

    Args:
        name: of the requirement, for the sentence.
        text: at most 64 letters, digits and ` ._+/()-`, the first a letter or a digit.

    Returns:
        The same.

    Raises:
        NeedRefused: if it is none.
    """
    if not _NAME.fullmatch(text):
        raise NeedRefused(
            f"{shown(name, text)} is no name: write at most 64 letters, digits and ` ._+/()-`"
        )
    return text


def gpu_of(name: str, text: str) -> int | str:
    """Read what is asked of a GPU.

    Args:
        name: of the requirement, for the sentence.
        text: one or two digits are a number of GPUs, anything else is part of a model's name.

    Returns:
        The number, or the part of the name.

    Raises:
        NeedRefused: if it is neither.
    """
    if re.fullmatch(r"[0-9]{1,2}", text):
        return int(text)
    if not _NAME.fullmatch(text):
        raise NeedRefused(
            f"{shown(name, text)} is no number and no name of a model: write it as 1 or A100"
        )
    return text


#: What reads each requirement; its keys are the names that there are.
READERS: Final[Mapping[str, Callable[[str, str], object]]] = MappingProxyType({
    "gpu": gpu_of,
    "vram": size_of,
    "compute": compute_of,
    "runner": name_of,
    "disk": size_of,
    "memory": size_of,
    "cpus": count_of,
    "tag": name_of,
})  # fmt: skip


def unknown(name: str) -> str:
    """Say that there is no such requirement.

    Args:
        name: as it was written.

    Returns:
        A sentence that lists those that there are.
    """
    return f"{name[:40]!r} is no need that is known: {', '.join(READERS)} are"


def parse_need(text: str) -> Need:
    """Read requirements as a person writes them.

    Args:
        text: `name=value`, several of them with commas between; at most `MAX_NEED` characters.

    Returns:
        The text of each by its name, in the order written; each can be compared.

    Raises:
        NeedRefused: at the first that can't be, that is not known, or that stands there twice.
    """
    if len(text) > MAX_NEED:
        raise NeedRefused(f"a need has at most {MAX_NEED} characters, and this has {len(text)}")
    need: Need = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise NeedRefused(f"{part[:40]!r} is no need: write NAME=VALUE, such as vram=16GiB")
        if name not in READERS:
            raise NeedRefused(unknown(name))
        if name in need:
            raise NeedRefused(f"{name} is asked for twice: write it once")
        READERS[name](name, value)
        need[name] = value
    return need


def shown(name: str, text: str) -> str:
    """Write a requirement for a sentence.

    Args:
        name: its name.
        text: its value, as somebody sent it.

    Returns:
        Both, without what a terminal would act on, and not longer than a line.
    """
    return f"{name}={text[:40] if text.isprintable() else repr(text[:40])}"
