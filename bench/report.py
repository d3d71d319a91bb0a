"""What was measured, and on what: samples, sections, and the page they make."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

#: Every figure is the median of so many repetitions.
REPETITIONS = 5


@dataclass(frozen=True)
class Sample:
    """Repetitions of one figure.

    Args:
        name: what was measured.
        values: one a repetition, all of one unit.
    """

    name: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{_short(self.median)} ({_short(low)} to {_short(high)})"


@dataclass(frozen=True)
class Line:
    """One of our figures beside what it is measured against, in the same run.

    Args:
        ours: the product.
        beside: the limit or the peer; None where it could not be had.
    """

    ours: Sample
    beside: Sample | None

    @property
    def ratio(self) -> str:
        """Ours in units of the other, repetition by repetition."""
        if self.beside is None:
            return "-"
        pairs = zip(self.ours.values, self.beside.values, strict=True)
        return str(Sample("", tuple(ours / beside for ours, beside in pairs)))


@dataclass(frozen=True)
class Section:
    """One measurement.

    Args:
        title: what is asked.
        unit: of all its figures.
        how: how it was measured.
        lines: the answers.
        notes: what a reader has to know of this run.
    """

    title: str
    unit: str
    how: str
    lines: Sequence[Line]
    notes: Sequence[str] = ()


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile.

    Args:
        values: at least one.
        share: 0.99 for the 99th.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def page(sections: Sequence[Section], seconds: float) -> str:
    """The whole page, as Markdown.

    Args:
        sections: in the order to show.
        seconds: that the run took.
    """
    parts = [
        "# What it costs",
        "Written by `python -m bench`; change nothing here by hand. Each figure is the median of"
        f" {REPETITIONS} repetitions (lowest to highest). A ratio is ours to the other's, taken"
        " within each repetition. All on one machine, no network between.",
        _machine(seconds),
        *(_section(section) for section in sections),
    ]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> str:
    rows = [
        f"| ours ({section.unit}) | | beside ({section.unit}) | | ratio |",
        "|---|--:|---|--:|--:|",
    ]
    for line in section.lines:
        other = line.beside
        beside = f"{other.name} | {other}" if other is not None else "not measured | -"
        rows.append(f"| {line.ours.name} | {line.ours} | {beside} | {line.ratio} |")
    parts = [f"## {section.title}", section.how, "\n".join(rows), *section.notes]
    return "\n\n".join(parts)


def _machine(seconds: float) -> str:
    load = ", ".join(f"{number:.2f}" for number in os.getloadavg())
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores",
        "load": f"{load} (1, 5, 15 minutes, at the end)",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "duration": f"{seconds:.0f} s",
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


_LIBRARIES = ("aiortc", "aioice", "pyzmq", "transitions", "msgspec")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _short(number: float) -> str:
    """Three digits that count."""
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.3g}"
