"""`diagrams/`: written from the tables, and compared with them.

python -m fsm_worker.diagrams            writes ./diagrams
python -m fsm_worker.diagrams --check    says what differs, and writes nothing
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fsm_worker.diagrams.page import BANNER
from fsm_worker.diagrams.schema import FOLDER
from fsm_worker.diagrams.text import render as render
from fsm_worker.machines.registry import disagreements

#: Where in its file a row is.
_LINE = re.compile(r"(?<=\.py)#L\d+")
#: A line of a table with rows, as it stands in a diff.
_CHANGED_ROW = re.compile(r"^[+-]\| \[([A-Z]+[0-9]+)\]")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        0 when the pages were written or agree, 1 when they differ, 2 when there is no checkout.
    """
    options = _parser().parse_args(argv)
    out = options.out
    if out is None:
        if not Path("fsm_worker", "machines").is_dir():
            sys.stderr.write(
                "this folder is no checkout of fsm-worker: run this in one, or name a folder with"
                " --out\n"
            )
            return 2
        out = Path("diagrams")
    faults = disagreements()
    for fault in faults:
        sys.stderr.write(f"{fault}: mend the tables, or delete what none needs\n")
    if options.check:
        return _check(out) or bool(faults)
    _write(out)
    return int(bool(faults))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fsm_worker diagrams",
        description="Writes a page for each machine, the message table and the coupling table.",
        epilog="example: python -m fsm_worker diagrams --check",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where the pages differ"
    )
    parser.add_argument("--out", type=Path, help="folder of the pages (default: ./diagrams)")
    return parser


def _write(out: Path) -> None:
    pages = render()
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    for name in _left_over(out, pages):
        (out / name).unlink()
    sys.stdout.write(f"wrote {len(pages)} pages into {out}\n")


def _check(out: Path) -> int:
    pages = render()
    differ = 0
    for name, text in pages.items():
        path = out / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old != text:
            differ += 1
            _show(path, old, text)
    for name in _left_over(out, pages):
        differ += 1
        sys.stdout.write(f"{out / name}: no table makes this page any more\n")
    if differ:
        sys.stdout.write(f"{differ} pages differ from the tables: run `make diagrams`\n")
        return 1
    sys.stdout.write(f"{len(pages)} pages agree with the tables\n")
    return 0


def _show(path: Path, old: str, new: str) -> None:
    """A unified diff, and the rows that it touches by name; a row that only moved is not named."""
    old, new = (_LINE.sub("", text) for text in (old, new))
    if old == new:
        sys.stdout.write(f"{path}: rows are on other lines of their files\n")
        return
    diff = list(
        difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{path}", f"{path} (from the tables)", lineterm=""
        )
    )
    rows = dict.fromkeys(found[1] for line in diff if (found := _CHANGED_ROW.match(line)))
    sys.stdout.write("\n".join(diff) + "\n")
    if rows:
        sys.stdout.write(f"{path}: rows {', '.join(rows)} differ\n")


def _left_over(out: Path, pages: dict[str, str]) -> Iterator[str]:
    """Pages that were generated once, and are not any more."""
    for path in sorted(out.glob("*.md")):
        if path.name not in pages and path.read_text(encoding="utf-8").startswith(BANNER):
            yield path.name
    for path in sorted(out.glob(f"{FOLDER}/*.json")):
        if (name := path.relative_to(out).as_posix()) not in pages:
            yield name
