"""The README and the documents say what is true."""

import re
from pathlib import Path

import pytest

from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.parsers import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "examples").rglob("*.md"))]  # fmt: skip


def test_the_rows_in_the_readme_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| J\d+ \|.*$", README, re.MULTILINE)
    table = (ROOT / "diagrams" / "job.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 4
    assert set(rows) <= set(table)


def test_the_exit_codes_in_the_readme_are_those_of_the_program() -> None:
    shown = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert shown == [(str(int(code)), code.meaning) for code in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_is_one(page: Path) -> None:
    for line in re.findall(r"^python -m fsm_worker(.*)$", page.read_text("utf-8"), re.MULTILINE):
        words = line.split("#")[0].split()
        build_parser().parse_args(words or ["worker"])


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8"))
        assert set(named) <= targets
