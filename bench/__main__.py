"""`python -m bench`: measures everything, and writes `bench/RESULTS.md`."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import connect, progress, step_cost, throughput
from bench.report import Section, page

_PAGE = Path(__file__).with_name("RESULTS.md")
_ALL = ("step_cost", "connect", "progress", "throughput")


async def _measure(what: str, folder: Path) -> Section:
    match what:
        case "step_cost":
            return step_cost.measure()
        case "connect":
            return await connect.measure(folder)
        case "progress":
            return await progress.measure(folder)
        case _:
            return await throughput.measure(folder)


async def _run(wanted: Sequence[str]) -> str:
    begin = time.monotonic()
    sections = []
    for what in wanted:
        print(f"{time.monotonic() - begin:5.0f} s  {what} …", flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            sections.append(await _measure(what, Path(folder)))
    return page(sections, time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", choices=_ALL, action="append", help="measure this, and only print it; repeatable"
    )
    chosen = parser.parse_args()
    text = asyncio.run(_run(chosen.only or _ALL))
    print(text)
    if not chosen.only:
        _PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
