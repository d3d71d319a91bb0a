"""The generated pages say what the tables say: all of it, in a form that can be read."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fsm_worker import diagrams
from fsm_worker.diagrams.machine import machine_page
from fsm_worker.diagrams.page import BANNER
from fsm_worker.diagrams.picture import MOST_ARROWS, pictures
from fsm_worker.diagrams.sources import UnknownRow, place_of
from fsm_worker.diagrams.text import coupling_page, messages_page, render
from fsm_worker.events import Timer, event_name
from fsm_worker.machines import registry
from fsm_worker.machines.engine import Table
from protocol.table import MESSAGES, MachineName

EACH = pytest.mark.parametrize("name", registry.MACHINES)
#: Words that Mermaid reads as its own where a state diagram names a state.
LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<file>[^)#]+)(?:#L(?P<line>\d+))?\)")
ROOT = Path(__file__).parents[1]
MERMAID = {"state", "note", "end", "direction", "class", "classDef", "style", "as", "click", "hide"}


def tables_of(page: str) -> list[list[list[str]]]:
    """The Markdown tables of a page, by lines and cells, without their rulers."""
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("| ")]
    return [
        [[cell.strip() for cell in line.strip("|").split(" |")] for line in block
         if not line.startswith("| ---")]
        for block in blocks
    ]  # fmt: skip


def states_of(table: Table[Any, Any]) -> list[Any]:
    return list(table.states.__members__.values())


def event_of(label: str) -> str:
    bare = label.removesuffix("?")
    return f"timer_{bare[6:]}_expired" if bare.startswith("timer ") else bare


def moves(table: Table[Any, Any]) -> set[tuple[Any, Any, str]]:
    return {
        (source, row.to, event_name(row.on))
        for row in table.rows
        for source in row.sources
        if row.to is not None and row.to is not source
    }


@EACH
def test_the_pictures_show_every_change_of_state_once_and_nothing_else(name: str) -> None:
    table = registry.MACHINES[name]
    drawn = [
        (source, arrow.target, event_of(label))
        for picture in pictures(table)
        for arrow in picture.arrows
        for source in arrow.start
        for label in arrow.labels
    ]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == moves(table)


@EACH
def test_a_picture_fits_one_screen(name: str) -> None:
    assert all(len(picture.arrows) <= MOST_ARROWS for picture in pictures(registry.MACHINES[name]))


@EACH
def test_how_it_goes_shows_every_state_the_beginning_first_and_every_end(name: str) -> None:
    table = registry.MACHINES[name]
    goes = [picture for picture in pictures(table) if not picture.title.startswith("What else")]
    for picture in goes:
        shown = {state for arrow in picture.arrows for state in (*arrow.start, arrow.target)}
        lines = [line.strip() for line in picture.mermaid.splitlines()]
        assert lines.count(f"[*] --> {table.initial}") <= (table.initial in shown)
        ends = {line.split()[0] for line in lines if line.endswith("--> [*]")}
        assert ends == set(table.final) & shown
    assert f"[*] --> {table.initial}" in goes[0].mermaid
    drawn = {
        s for picture in goes for arrow in picture.arrows for s in (*arrow.start, arrow.target)
    }
    assert drawn == set(states_of(table))


@EACH
def test_pictures_of_one_machine_have_titles_of_their_own(name: str) -> None:
    titles = [picture.title for picture in pictures(registry.MACHINES[name])]
    assert len(titles) == len(set(titles))


@EACH
def test_mermaid_can_read_the_names_of_states(name: str) -> None:
    for state in states_of(registry.MACHINES[name]):
        assert re.fullmatch("[a-z_]+", state.value)
        assert state.value not in MERMAID


@EACH
def test_a_page_has_every_row_in_the_table_s_order(name: str) -> None:
    table = registry.MACHINES[name]
    rows = tables_of(machine_page(name))[0]
    assert rows[0] == ["row", "from", "event", "guards", "to", "sets", "effects"]
    assert [LINK.fullmatch(row[0])["text"] for row in rows[1:]] == [row.id for row in table.rows]


@pytest.mark.parametrize("page", [*registry.MACHINES, "coupling"])
def test_every_row_leads_to_the_line_on_which_it_is_written(page: str) -> None:
    text = coupling_page() if page == "coupling" else machine_page(page)
    found = [match for match in LINK.finditer(text) if match["line"]]
    assert found
    for match in found:
        source = (ROOT / "diagrams" / match["file"]).resolve().read_text().splitlines()
        line = " ".join(source[int(match["line"]) - 1 :][:2])
        written = re.search(r'(?:Row|Coupling)\(\s*f?"([A-Z]+)(\w*|\{[^"]*)"', line)
        assert written is not None, match["text"]
        kind = match["text"].rstrip("0123456789")
        assert written[1] == kind
        assert written[2].startswith("{") or written[1] + written[2] == match["text"]


def test_a_row_that_is_written_nowhere_has_no_line() -> None:
    with pytest.raises(UnknownRow):
        place_of("Z1")


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = render()
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert target in pages or (ROOT / "diagrams" / target).resolve().exists(), (
                f"{name} links to {target}"
            )


@EACH
def test_the_grid_decides_every_pair_as_the_table_does(name: str) -> None:
    table = registry.MACHINES[name]
    head, *lines = tables_of(machine_page(name))[-1]
    assert head == ["event", *states_of(table)]
    assert [line[0] for line in lines] == [event_name(on) for on in table.events()]
    for on, line in zip(table.events(), lines, strict=True):
        for state, cell in zip(states_of(table), line[1:], strict=True):
            rows = [row.id for row in table.by_pair.get((state, on), ())]
            words = cell.split()
            assert words[: len(rows)] == rows
            ignored = (state, on) in table.ignored
            assert [word[0] for word in words[len(rows) :]] in ([["·"]] if ignored else [[], ["?"]])


@EACH
def test_a_page_has_the_reason_of_everything_that_is_ignored(name: str) -> None:
    page = machine_page(name)
    for reason in registry.MACHINES[name].ignored.values():
        assert re.search(rf"^[0-9]+\. {re.escape(reason)}$", page, re.MULTILINE)


def test_a_row_s_id_names_one_row() -> None:
    known: dict[str, tuple[MachineName, object]] = {}
    for table in registry.MACHINES.values():
        for row in table.rows:
            assert known.setdefault(row.id, (table.name, row)) == (table.name, row)


def test_the_message_page_has_every_message_and_where_it_is_legal() -> None:
    said, heard = tables_of(messages_page())
    tags = [f"`{row.tag}`" for row in MESSAGES]
    assert [line[0] for line in said[1:]] == [line[0] for line in heard[1:]] == tags
    where = {line[0]: line[2:] for line in heard[1:]}
    assert where["`resume`"] == ["session", "attached", "-"]
    assert where["`hello`"] == ["link", "authenticating", "authenticating"]
    assert where["`stop`"] == ["job of `job`", "any but new", "-"]


@pytest.mark.parametrize("side", ["worker", "client"])
def test_the_message_page_and_the_machines_say_the_same_seen_from_either(side: str) -> None:
    heard = tables_of(messages_page())[1]
    column = heard[0].index(f"legal at the {side}")
    tables = registry.WORKER_TABLES if side == "worker" else registry.CLIENT_TABLES
    for row, line in zip(MESSAGES, heard[1:], strict=True):
        table = tables.get(row.machine)
        shown = line[column]
        if table is None or shown == "-":
            continue
        states = {state.value for state in states_of(table)}
        legal = states if shown == "any" else (
            states - {shown.removeprefix("any but ")} if shown.startswith("any but ")
            else set(shown.split(", "))
        )  # fmt: skip
        takes = {state.value for state, on in table.by_pair if on is row.message}
        assert legal == takes, row.tag
    named = {line[1] for line in heard[1:] if line[column] != "-"}
    read = {event_name(on) for table in tables.values() for on in table.events()}
    shared = {"link", "receiving", "sending"}  # one table for both sides
    own = {
        event_name(on)
        for name, table in tables.items()
        for on in table.events()
        if name not in shared and event_name(on) in {row.event for row in MESSAGES}
    }
    assert own <= named <= read


def test_a_message_that_no_machine_hears_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    astray = [
        row._replace(machine=MachineName.RESULTS) if row.tag == "stop" else row for row in MESSAGES
    ]
    monkeypatch.setattr(registry, "MESSAGES", astray)
    monkeypatch.setattr(registry, "ROW_OF", {row.message: row for row in astray})
    assert set(registry.disagreements()) == {
        "stop is legal in no state of the worker's machine results",
        "job listens to recv_stop, which goes to results",
    }


def test_pages_are_the_same_under_every_hash_seed(tmp_path: Path) -> None:
    pages = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        subprocess.run(
            [sys.executable, "-m", "fsm_worker.diagrams", "--out", out],
            env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True,
        )  # fmt: skip
        written = (path for path in out.rglob("*") if path.is_file())
        pages.append({path.relative_to(out).as_posix(): path.read_bytes() for path in written})
    assert pages[0] == pages[1]
    assert set(pages[0]) == set(render())


def test_the_check_names_the_rows_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagrams.main(["--out", str(tmp_path)]) == 0
    assert diagrams.main(["--check", "--out", str(tmp_path)]) == 0
    page = tmp_path / "job.md"
    page.write_text(re.sub(r"(\| \[J36\]\S+ \|) running", r"\1 queued", page.read_text()))
    capsys.readouterr()
    assert diagrams.main(["--check", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"\n-\| \[J36\]\S+ \| queued \|", shown)
    assert re.search(r"\n\+\| \[J36\]\S+ \| running \|", shown)
    assert "job.md: rows J36 differ\n" in shown
    assert "run `make diagrams`" in shown
    assert len(re.findall(r"\| queued \| recv_stop \|", page.read_text())) == 1  # nothing written


def test_a_row_that_only_moved_to_another_line_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diagrams.main(["--out", str(tmp_path)])
    page = tmp_path / "job.md"
    page.write_text(re.sub(r"#L(\d+)", r"#L1\1", page.read_text()))
    capsys.readouterr()
    assert diagrams.main(["--check", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "job.md: rows are on other lines of their files\n" in shown
    assert "J36" not in shown


def test_a_page_that_no_table_makes_any_more_is_found_and_removed(tmp_path: Path) -> None:
    diagrams.main(["--out", str(tmp_path)])
    gone, ours = tmp_path / "gone.md", tmp_path / "flow.md"
    old = tmp_path / "schema" / "gone.json"
    old.write_text("{}\n")
    gone.write_text(f"{BANNER}\n\n# Machine: gone\n")
    ours.write_text("# Written by a person\n")
    assert diagrams.main(["--check", "--out", str(tmp_path)]) == 1
    assert diagrams.main(["--out", str(tmp_path)]) == 0
    assert not gone.exists()
    assert not old.exists()
    assert ours.exists()


def test_outside_a_checkout_a_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert diagrams.main([]) == 2
    assert "--out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@EACH
def test_timers_are_shown_with_how_long_they_run(name: str) -> None:
    armed = {on.value for on in registry.MACHINES[name].events() if isinstance(on, Timer)}
    shown = [table for table in tables_of(machine_page(name)) if table[0][0] == "timer"]
    assert {line[0] for table in shown for line in table[1:]} == armed
