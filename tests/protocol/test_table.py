"""Laws of the message table: messages and machines meet in it, in both directions."""

import re

import pytest

from fsm_worker.events import Timer, event_name
from fsm_worker.machines.registry import CLIENT_TABLES, WORKER_TABLES
from protocol import messages as m
from protocol.table import (
    MESSAGES,
    ROW_OF,
    Direction,
    Lane,
    MachineName,
    MessageRow,
    Replay,
    Right,
    tag_of,
)

TABLES = {Direction.TO_WORKER: WORKER_TABLES, Direction.TO_CLIENT: CLIENT_TABLES}
ARRIVALS = [
    (row, side) for row in MESSAGES for side in Direction.BOTH if side in row.direction
]  # fmt: skip


def names(value: MessageRow | Direction) -> str:
    return value.tag if isinstance(value, MessageRow) else str(value.name)


def test_every_message_has_exactly_one_row() -> None:
    kinds = [row.message for row in MESSAGES]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == set(m.Message.__subclasses__()) == set(ROW_OF)


def test_no_two_messages_share_a_wire_name() -> None:
    tags = [row.tag for row in MESSAGES]
    assert len(tags) == len(set(tags))
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", tag) for tag in tags), "a tag was forgotten"


def test_a_message_s_event_is_its_tag_with_the_direction_in_front() -> None:
    for row in MESSAGES:
        assert row.event == f"recv_{tag_of(row.message)}" == event_name(row.message)


@pytest.mark.parametrize(("row", "side"), ARRIVALS, ids=names)
def test_whoever_may_receive_a_message_has_a_row_that_performs_it(
    row: MessageRow, side: Direction
) -> None:
    table = TABLES[side][row.machine]
    assert any(entry.on is row.message for entry in table.rows), (
        f"{table.name} on this side has no row for {row.event}"
    )


@pytest.mark.parametrize("side", TABLES, ids=names)
def test_no_machine_waits_for_a_message_that_nobody_may_send_it(side: Direction) -> None:
    for name, table in TABLES[side].items():
        for on in table.events():
            if isinstance(on, Timer) or not issubclass(on, m.Message):
                continue
            row = ROW_OF[on]
            assert row.machine is name, f"{row.event} is addressed to {row.machine}, not {name}"
            # the link and the file machines are one table for both sides
            other = name in {MachineName.LINK, MachineName.RECEIVING, MachineName.SENDING}
            assert side in row.direction or other


def test_the_subject_of_a_message_is_one_of_its_fields() -> None:
    for row in MESSAGES:
        assert row.subject == "" or row.subject in row.message.__struct_fields__
        needs_subject = row.machine in {
            MachineName.JOB,
            MachineName.RESULTS,
            MachineName.RECEIVING,
            MachineName.SENDING,
        }
        assert needs_subject is (row.subject != ""), row.tag


def test_nothing_about_a_job_can_be_asked_without_owning_it() -> None:
    asked = {row.tag for row in MESSAGES
             if Direction.TO_WORKER in row.direction and "job" in row.message.__struct_fields__
             and row.right is not Right.OWN_JOB}  # fmt: skip
    assert asked == {"submit", "error"}, "a submission makes the owner; an error asks for nothing"


def test_only_the_handshake_needs_no_key() -> None:
    assert {row.tag for row in MESSAGES if row.right is Right.NONE} == {"hello", "proof"}


def test_what_the_link_itself_decides_is_outside_the_count() -> None:
    for row in MESSAGES:
        if row.machine is MachineName.LINK or row.lane is Lane.LOG:
            assert row.replay is Replay.NEVER, row.tag


def test_a_reply_can_travel_back_to_the_asker() -> None:
    for row, side in ARRIVALS:
        if row.direction is Direction.BOTH:
            continue
        back = Direction.TO_CLIENT if side is Direction.TO_WORKER else Direction.TO_WORKER
        for reply in row.replies:
            assert back in ROW_OF[reply].direction, f"{row.tag} is answered by {tag_of(reply)}"
