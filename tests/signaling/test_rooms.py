"""The registry by itself, with clocks that the test moves."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm_worker.signaling.discovery import check_filters, passes
from fsm_worker.signaling.identities import Caller, Identities, Standing
from fsm_worker.signaling.limits import AddressRates, Bucket, Limits
from fsm_worker.signaling.rooms import Rooms
from protocol.signaling import Filters, Metadata, PeerInfo, SignalingCode, SignalingRefused

OWNER, ONE, ME = Caller("owner"), Caller("one"), Caller("me")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rooms(clock: Clock) -> Rooms:
    return Rooms(Limits(rooms=3, peers_per_room=2), clock, wall=lambda: 5.0)


def test_the_token_opens_the_room_and_nothing_else_does(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    peer, replaced = rooms.enter(room.room_id, "a", token=room.token)
    assert replaced is None
    assert rooms.token_for(peer) == room.token
    for wrong in ("", "x", room.token[:-1], room.token + "x", "\ud800", None):
        with pytest.raises(SignalingRefused, match="wrong_token"):
            rooms.enter(room.room_id, "b", token=wrong)
        with pytest.raises(SignalingRefused, match="wrong_token"):
            rooms.enter(room.room_id, "b", token=wrong, caller=Caller("somebody else"))


def test_who_made_the_room_needs_no_token_but_a_wrong_one_stays_wrong(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    rooms.enter(room.room_id, "a", caller=OWNER)
    with pytest.raises(SignalingRefused, match="wrong_token"):
        rooms.enter(room.room_id, "b", token="x", caller=OWNER)


def test_there_is_no_room_but_those_made(rooms: Rooms) -> None:
    with pytest.raises(SignalingRefused, match="room_not_found"):
        rooms.enter("nowhere", "a", token="x")


@pytest.mark.parametrize("second", [None, Caller("other"), Caller("one", Standing.UNCHECKED)])
@pytest.mark.parametrize("first", [None, ONE])
def test_a_peer_id_is_not_taken_from_its_holder(
    rooms: Rooms, first: Caller | None, second: Caller | None
) -> None:
    room = rooms.create(OWNER)
    holder, _ = rooms.enter(room.room_id, "a", token=room.token, caller=first)
    with pytest.raises(SignalingRefused, match="peer_id_taken"):
        rooms.enter(room.room_id, "a", token=room.token, caller=second)
    assert rooms.is_current(holder)


def test_the_same_user_replaces_its_own_registration(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    old, _ = rooms.enter(room.room_id, "a", token=room.token, caller=ONE)
    new, replaced = rooms.enter(room.room_id, "a", token=room.token, caller=ONE)
    assert replaced is old
    assert rooms.is_current(new)
    assert not rooms.is_current(old)
    for call in (
        lambda: rooms.others(old),
        lambda: rooms.find(old, "a"),
        lambda: rooms.token_for(old),
        lambda: rooms.discover(old, Filters()),
        lambda: rooms.publish(old, "worker", Metadata()),
        lambda: rooms.merge(old, Metadata()),
    ):
        with pytest.raises(SignalingRefused, match="superseded"):
            call()


def test_a_late_leave_of_a_replaced_registration_removes_nothing(rooms: Rooms) -> None:
    """sleap-rtc: the late close of an old socket deleted the new registration."""
    room = rooms.create(OWNER)
    old, _ = rooms.enter(room.room_id, "a", token=room.token, caller=ONE)
    new, _ = rooms.enter(room.room_id, "a", token=room.token, caller=ONE)
    assert not rooms.leave(old)
    assert rooms.is_current(new)
    assert rooms.leave(new)
    assert not rooms.leave(new)
    assert rooms.peer_count == 0


def test_peers_of_another_room_are_out_of_reach(rooms: Rooms) -> None:
    one, two = rooms.create(OWNER), rooms.create(OWNER)
    mine, _ = rooms.enter(one.room_id, "a", token=one.token)
    rooms.enter(two.room_id, "b", token=two.token)
    assert rooms.others(mine) == ()
    with pytest.raises(SignalingRefused, match="no_such_peer"):
        rooms.find(mine, "b")
    with pytest.raises(SignalingRefused, match="not_in_room"):
        rooms.discover(mine, Filters(room_id=two.room_id))
    with pytest.raises(SignalingRefused, match="wrong_token"):
        rooms.enter(two.room_id, "c", token=one.token)


def test_rooms_and_peers_are_bounded(rooms: Rooms) -> None:
    made = [rooms.create(OWNER) for _ in range(3)]
    with pytest.raises(SignalingRefused, match="too_many_rooms"):
        rooms.create(OWNER)
    for name in ("a", "b"):
        rooms.enter(made[0].room_id, name, token=made[0].token, caller=ONE)
    with pytest.raises(SignalingRefused, match="room_full"):
        rooms.enter(made[0].room_id, "c", token=made[0].token)
    rooms.enter(made[0].room_id, "b", token=made[0].token, caller=ONE)  # replaces, adds nobody


def test_an_empty_room_expires_and_one_with_a_peer_does_not(rooms: Rooms, clock: Clock) -> None:
    left, held, unused = (rooms.create(OWNER) for _ in range(3))
    peer, _ = rooms.enter(left.room_id, "a", token=left.token)
    stays, _ = rooms.enter(held.room_id, "a", token=held.token)
    clock.now += 7100.0
    rooms.leave(peer)
    clock.now += 100.0  # the unused room is 2 h old, the left one empty for 100 s
    with pytest.raises(SignalingRefused, match="room_not_found"):
        rooms.enter(unused.room_id, "a", token=unused.token)
    assert rooms.sweep() == 1
    clock.now += 7100.0
    assert rooms.sweep() == 1
    assert rooms.room_count == 1
    assert rooms.is_current(stays)


def test_making_a_room_makes_place_of_expired_ones(rooms: Rooms, clock: Clock) -> None:
    for _ in range(3):
        rooms.create(OWNER)
    clock.now += 7200.0
    rooms.create(OWNER)
    assert rooms.room_count == 1


def test_metadata_is_merged_tags_united_new_properties_over_old(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    first = Metadata(tags=("x", "y"), properties={"status": "available", "gpu": "h"})
    peer, _ = rooms.enter(room.room_id, "a", token=room.token, role="worker", metadata=first)
    merged = rooms.merge(peer, Metadata(tags=("y", "z"), properties={"status": "busy"}))
    assert merged == Metadata(tags=("x", "y", "z"), properties={"status": "busy", "gpu": "h"})
    assert peer.info() == PeerInfo(peer_id="a", role="worker", metadata=merged, connected_at=5.0)
    rooms.publish(peer, "client", Metadata())
    assert peer.info().metadata == Metadata()


def test_metadata_is_bounded_for_a_peer_and_for_a_room(clock: Clock) -> None:
    rooms = Rooms(Limits(peer_metadata=100, room_metadata=150), clock)
    room = rooms.create(OWNER)
    small, large = (Metadata(properties={"x": "y" * n}) for n in (40, 100))
    a, _ = rooms.enter(room.room_id, "a", token=room.token, caller=ONE, metadata=small)
    with pytest.raises(SignalingRefused, match="too_large"):
        rooms.enter(room.room_id, "b", token=room.token, metadata=large)
    assert rooms.peer_count == 1
    with pytest.raises(SignalingRefused, match="too_large"):
        rooms.merge(a, large)
    with pytest.raises(SignalingRefused, match="too_large"):
        rooms.publish(a, "r" * 33, small)
    assert a.metadata == small
    b, _ = rooms.enter(room.room_id, "b", token=room.token, metadata=small)
    with pytest.raises(SignalingRefused, match="too_large"):
        rooms.enter(room.room_id, "c", token=room.token, metadata=small)
    rooms.enter(room.room_id, "a", token=room.token, caller=ONE, metadata=small)  # replaces
    rooms.leave(b)
    rooms.enter(room.room_id, "c", token=room.token, metadata=small)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "a\x00", "\ud800"])
def test_a_peer_id_is_short_and_printable(rooms: Rooms, name: str) -> None:
    room = rooms.create(OWNER)
    with pytest.raises(SignalingRefused, match="malformed"):
        rooms.enter(room.room_id, name, token=room.token)


def test_only_its_maker_removes_a_room(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    peer, _ = rooms.enter(room.room_id, "a", token=room.token)
    with pytest.raises(SignalingRefused, match="not_authorised"):
        rooms.delete(room.room_id, Caller("other"))
    assert rooms.delete(room.room_id, OWNER) == (peer,)
    assert not rooms.is_current(peer)
    assert not rooms.leave(peer)
    with pytest.raises(SignalingRefused, match="room_not_found"):
        rooms.delete(room.room_id, OWNER)


def test_accounts_that_were_let_in_are_remembered_and_only_so_many(clock: Clock) -> None:
    rooms = Rooms(Limits(members_per_room=2), clock, wall=lambda: 5.0)
    owner = Caller("owner", Standing.ACCOUNT)
    a, b, c = (Caller(name, Standing.ACCOUNT) for name in "abc")
    room = rooms.create(owner)

    def come(who: Caller, token: str | None) -> None:
        rooms.leave(rooms.enter(room.room_id, "x", token=token, caller=who)[0])

    come(owner, None)  # takes no place
    come(Caller("a"), room.token)  # nor does one that will never come again
    for who in (a, b):
        come(who, room.token)
    come(a, None)  # so "b" has not come for longest
    come(c, room.token)
    for who in (a, c, owner):
        come(who, None)
        assert [info.room_id for info in rooms.listed(who)] == [room.room_id]
    for stranger in (b, Caller("a"), Caller("c")):
        with pytest.raises(SignalingRefused, match="wrong_token"):
            come(stranger, None)
        assert rooms.listed(stranger) == ()


def test_who_names_no_room_has_one_until_it_expires(rooms: Rooms, clock: Clock) -> None:
    rooms.create(OWNER)
    home = rooms.home(ME)
    assert rooms.home(ME) == home
    assert rooms.room_count == 2
    clock.now += 7200.0
    assert rooms.listed(ME) == ()
    assert rooms.home(ME) != home


def test_a_user_finds_its_own_registrations_only(rooms: Rooms) -> None:
    one, two = rooms.create(OWNER), rooms.create(OWNER)
    mine, _ = rooms.enter(one.room_id, "a", token=one.token, caller=ME)
    rooms.enter(two.room_id, "a", token=two.token)
    assert rooms.of_caller(ME, "a") == (mine,)
    assert rooms.of_caller(ME, "b") == ()


HAS: dict[str, Any] = {"status": "available", "gpu_memory_mb": 8000, "flag": True}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), True),
        (Filters(role="worker"), True),
        (Filters(role="client"), False),
        (Filters(tags=("sleap-rtc", "other")), True),
        (Filters(tags=("other",)), False),
        (Filters(properties={"status": "available"}), True),
        (Filters(properties={"status": "busy"}), False),
        (Filters(properties={"missing": "x"}), False),
        (Filters(properties={"missing": None}), False),
        (Filters(properties={"gpu_memory_mb": {"$gte": 8000}}), True),
        (Filters(properties={"gpu_memory_mb": {"$gte": 8001}}), False),
        (Filters(properties={"gpu_memory_mb": {"$gte": 1, "$lte": 7999}}), False),
        (Filters(properties={"gpu_memory_mb": {"$lte": 8000.5}}), True),
        (Filters(properties={"gpu_memory_mb": {"$eq": 8000}}), True),
        (Filters(properties={"status": {"$gte": "a"}}), False),
        (Filters(properties={"gpu_memory_mb": {"$gte": "a"}}), False),
    ],
)
def test_a_filter_lets_pass_what_it_says(filters: Filters, expected: bool) -> None:
    metadata = Metadata(tags=("sleap-rtc",), properties=HAS)
    check_filters(filters)
    assert passes(PeerInfo(peer_id="a", role="worker", metadata=metadata), filters) is expected


def test_a_comparison_that_does_not_exist_is_refused_even_if_nobody_is_there(rooms: Rooms) -> None:
    room = rooms.create(OWNER)
    peer, _ = rooms.enter(room.room_id, "a", token=room.token)
    with pytest.raises(SignalingRefused, match="malformed"):
        rooms.discover(peer, Filters(properties={"x": {"$regex": ".*"}}))


def test_an_id_token_proves_the_name_it_was_given_for() -> None:
    identities = Identities()
    one, two = identities.sign_in(), identities.sign_in()
    assert identities.of_id_token(one.id_token) == Caller(one.username)
    assert one.username != two.username
    proof = one.id_token.rpartition(".")[2]
    for forged in ("", ".", "x", one.username, f"{two.username}.{proof}", one.id_token[:-1]):
        with pytest.raises(SignalingRefused, match="not_authenticated"):
            identities.of_id_token(forged)
    with pytest.raises(SignalingRefused, match="not_authenticated"):
        Identities().of_id_token(one.id_token)


@settings(deadline=None)  # a busy machine is no finding
@given(st.text())
def test_no_text_but_a_token_proves_a_name(text: str) -> None:
    with pytest.raises(SignalingRefused):
        Identities().of_id_token(text)


def test_a_bucket_allows_its_burst_and_then_its_rate(clock: Clock) -> None:
    bucket = Bucket(rate=2.0, burst=3.0, clock=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 3600.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_addresses_have_a_rate_each_and_are_forgotten_oldest_first(clock: Clock) -> None:
    rates = AddressRates(Limits(request_rate=0.001, request_burst=1.0, addresses=2), clock)
    assert rates.take("a")
    assert not rates.take("a")
    assert rates.take("b")
    assert not rates.take("a")
    assert rates.take("c")  # "b" was unused for longest
    assert not rates.take("a")
    assert rates.take("b")
    assert len(rates) == 2


# --- a restart of the server --------------------------------------------------------------------

KEY = b"k" * 32


def restarted(clock: Clock, key: bytes = KEY) -> Rooms:
    return Rooms(Limits(rooms=3, peers_per_room=2), clock, wall=lambda: 5.0, key=key)


def test_a_room_s_token_opens_it_again_after_a_restart_under_the_same_key(clock: Clock) -> None:
    room = restarted(clock).create(OWNER)
    again = restarted(clock)
    registration, _ = again.enter(room.room_id, "worker", token=room.token, caller=OWNER)
    assert again.token_for(registration) == room.token
    again.enter(room.room_id, "client", token=room.token)
    assert again.room_count == 1


def test_after_a_restart_nothing_else_opens_a_room(clock: Clock) -> None:
    account = Caller("lab", Standing.ACCOUNT)
    owned = restarted(clock).create(account)
    again = restarted(clock)
    for token, caller in ((None, account), ("", account), (owned.token + "x", None)):
        with pytest.raises(SignalingRefused) as refusal:
            again.enter(owned.room_id, "p", token=token, caller=caller)
        assert refusal.value.code is SignalingCode.ROOM_NOT_FOUND
    again.enter(owned.room_id, "p", token=owned.token)
    with pytest.raises(SignalingRefused) as refusal:  # whose it was is forgotten, not given away
        again.enter(owned.room_id, "q", caller=Caller("other", Standing.ACCOUNT))
    assert refusal.value.code is SignalingCode.WRONG_TOKEN
    with pytest.raises(SignalingRefused):
        restarted(clock, key=b"x" * 32).enter(owned.room_id, "p", token=owned.token)


def test_a_removed_room_stays_removed_and_an_old_one_is_not_brought_back(clock: Clock) -> None:
    rooms = restarted(clock)
    room = rooms.create(OWNER)
    rooms.delete(room.room_id, OWNER)
    with pytest.raises(SignalingRefused):
        rooms.enter(room.room_id, "p", token=room.token)
    again = restarted(clock)
    clock.now += Limits().empty_room_s
    with pytest.raises(SignalingRefused):
        again.enter(room.room_id, "p", token=room.token)
