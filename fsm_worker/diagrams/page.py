"""What every generated page is made of."""

from collections.abc import Iterable, Sequence

#: First line of every generated page.
BANNER = "_Generated from the tables by `make diagrams`; do not edit._"


def page(title: str, *blocks: str) -> str:
    """A page: its title, and its blocks."""
    return "\n\n".join((BANNER, f"# {title}", *blocks)) + "\n"


def md_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def summary(of: type[object]) -> str:
    """The first line of what a type says of itself."""
    return (of.__doc__ or "").strip().partition("\n")[0]


def sides(worker: bool, client: bool) -> str:
    """Which processes have it."""
    return "worker, client" if worker and client else "worker" if worker else "client"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
