"""Lengths of time and amounts of data, as people write and read them."""

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_duration(text: str) -> float:
    """Reads `90`, `90s`, `15m`, `2h`, `1h30m` or `1.5d`.

    Args:
        text: what a person wrote; a bare number means seconds.

    Returns:
        Seconds, more than 0.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    if not re.fullmatch(f"({_PART.pattern})+", text):
        raise ValueError(f"{text[:40]!r} is no duration: write 90s, 15m, 2h, 1h30m or 1d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds < 10 * 365 * 86400:
        raise ValueError(f"{text[:40]!r} is no duration that a job can have: write 15m or 2h")
    return seconds


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s` or `2 h 10 min`.

    Args:
        seconds: not negative.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def amount(size: float) -> str:
    """`812 B`, `1.4 KiB`, `3.0 MiB` or `12.5 GiB`.

    Args:
        size: bytes.
    """
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
