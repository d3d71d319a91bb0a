"""Which names an archive's members may have, on every system that may unpack them.

The rules are those of the strictest reader: Windows (`Naming Files, Paths, and Namespaces`,
learn.microsoft.com) and file systems that ignore case or normalise Unicode (NTFS, APFS). A name
that passes means one file in one place everywhere.
"""

import os
import re
import unicodedata
from collections.abc import Callable

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{digit}" for device in ("com", "lpt") for digit in "123456789¹²³"}
)
_MAX_PART_BYTES = 255
_MAX_NAME_BYTES = 1024


def _not_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_device(part: str) -> bool:
    return part.split(".", maxsplit=1)[0].rstrip(" ").casefold() in _DEVICES


# In this order: a later test may rely on an earlier one.
_NAME_FAULTS: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda name: not name, "has no name"),
    (_not_unicode, "has a name that is not Unicode text"),
    (lambda name: len(name.encode()) > _MAX_NAME_BYTES, "has a name longer than 1024 bytes"),
    (_CONTROL.search, "has a control character in its name"),
    (lambda name: "\\" in name, "has a backslash in its name"),
    (lambda name: name.startswith("/") or _DRIVE.match(name), "has an absolute name"),
)
_PART_FAULTS: tuple[tuple[Callable[[str], object], str], ...] = (
    (lambda part: part in ("", ".", ".."), "has an empty part, `.` or `..` in its name"),
    (lambda part: len(part.encode()) > _MAX_PART_BYTES, "has a part of more than 255 bytes"),
    (lambda part: part.endswith((".", " ")), "has a part that ends in a dot or a space"),
    (_is_device, "has a name that means a device on Windows"),
)


class ArchiveRefused(ValueError):
    """An archive, or a folder to be packed, has something in it that is not let through.

    Args:
        member: the name of the culprit; empty for the archive as a whole.
        sentence: what is wrong with it, and what to do.
    """

    def __init__(self, member: str, sentence: str) -> None:
        shown = ascii(member[:200])
        super().__init__(f"{shown} {sentence}" if member else f"the archive {sentence}")
        self.member = member
        self.sentence = sentence


def parts_of(name: str, *, max_depth: int, windows: bool = os.name == "nt") -> tuple[str, ...]:
    """Check a member's name and take it apart.

    Args:
        name: with `/` between its parts, and one at its end if it is a folder's.
        max_depth: how many parts it may have.
        windows: refuse the characters too that only Windows can't have in a file's name.

    Returns:
        The parts, at least one; joined to a folder they stay inside it.

    Raises:
        ArchiveRefused: if the name is empty, absolute, too long or too deep, climbs with `..`, or
            would mean something else on another system.
    """
    why = next((why for fault, why in _NAME_FAULTS if fault(name)), None)
    if windows and set(name) & set('<>:"|?*'):
        why = why or "has a character in its name that Windows does not allow"
    parts = tuple(name.removesuffix("/").split("/"))
    if len(parts) > max_depth:
        why = why or f"lies deeper than {max_depth} folders"
    for part in parts:
        why = why or next((why for fault, why in _PART_FAULTS if fault(part)), None)
    if why:
        raise ArchiveRefused(name, f"{why}: rename it")
    return parts


class Names:
    """The names seen so far, to find two that are one file somewhere."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}  # folded → as written, is a folder
        self._members: set[str] = set()

    def add(self, parts: tuple[str, ...], *, folder: bool) -> None:
        """Note a member and the folders above it.

        Args:
            parts: from `parts_of`.
            folder: whether the member is one.

        Raises:
            ArchiveRefused: if the member was there already, differs from another only in case or
                in Unicode form, or is a file where another member needs a folder.
        """
        name = "/".join(parts)
        for end in range(1, len(parts) + 1):
            prefix = "/".join(parts[:end])
            is_folder = folder or end < len(parts)
            known, known_folder = self._seen.setdefault(_folded(prefix), (prefix, is_folder))
            if known != prefix:
                raise ArchiveRefused(
                    name,
                    f"is the same name as {known!a} where case or Unicode form do not "
                    "count: rename one",
                )
            if known_folder != is_folder:
                raise ArchiveRefused(name, f"needs {prefix!a} to be a file and a folder")
        if name in self._members:
            raise ArchiveRefused(name, "is there twice: pack it once")
        self._members.add(name)


def _folded(name: str) -> str:
    # Twice, since folding can leave a form that is not normal (Unicode 15, 3.13 D145).
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
