"""Laws of proofs, session strings and keys."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from fsm_worker.identity import Identity, KeyUnreadable, KnownClients, Only, proved
from protocol.messages import Hello, Proof
from protocol.proof import (
    SESSION_PREFIX,
    BadSessionString,
    SessionString,
    from_text,
    invitation,
    to_text,
    transcript,
)

ordinary = settings(derandomize=True, deadline=None, max_examples=100)

CLIENT = Hello(versions=(1,), role="client", key="Kc", nonce="Nc", session="s-1", generation=2)
WORKER = Hello(versions=(1,), role="worker", key="Kw", nonce="Nw")
PRINTS = ("aa:bb", "cc:dd")
SIGNED = transcript("client", CLIENT, WORKER, PRINTS)


# --- transcript -----------------------------------------------------------------------------------


def client(**fields: Any) -> bytes:
    return transcript("client", structs.replace(CLIENT, **fields), WORKER, PRINTS)


def worker(**fields: Any) -> bytes:
    return transcript("client", CLIENT, structs.replace(WORKER, **fields), PRINTS)


CHANGED = {
    "the signer's role": transcript("worker", CLIENT, WORKER, PRINTS),
    "session": client(session="s-2"),
    "generation": client(generation=3),
    "the client's key": client(key="Kx"),
    "the client's nonce": client(nonce="Nx"),
    "the client's versions": client(versions=(1, 2)),
    "the worker's key": worker(key="Kx"),
    "the worker's nonce": worker(nonce="Nx"),
    "the worker's versions": worker(versions=()),
    "the client's fingerprint": transcript("client", CLIENT, WORKER, ("aa:bc", "cc:dd")),
    "the worker's fingerprint": transcript("client", CLIENT, WORKER, ("aa:bb", "cc:de")),
    "fingerprints exchanged": transcript("client", CLIENT, WORKER, ("cc:dd", "aa:bb")),
    "hellos exchanged": transcript("client", WORKER, CLIENT, PRINTS),
    "a text moved from one field to the next": client(key="KcN", nonce="c"),
}


@pytest.mark.parametrize("other", CHANGED.values(), ids=CHANGED.keys())
def test_a_proof_holds_for_nothing_else(other: bytes) -> None:
    assert other != SIGNED


def test_no_two_of_these_changes_give_one_transcript() -> None:
    assert len({SIGNED, *CHANGED.values()}) == len(CHANGED) + 1


def test_fingerprints_are_compared_whatever_their_case() -> None:
    assert transcript("client", CLIENT, WORKER, ("AA:BB", "CC:DD")) == SIGNED


def test_the_transcript_is_the_one_of_version_1() -> None:
    """Peers of other versions of this program must come to the same bytes."""
    assert SIGNED.hex() == "1c13f7278922903ab185227ac60454aabc02ee79cec10d71b05e98705b6fee56"


# --- signatures -----------------------------------------------------------------------------------


@dataclass
class Signer:
    identity: Identity
    signature: str


@pytest.fixture
def alice() -> Signer:
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    return Signer(identity, identity.sign(SIGNED))


def test_a_signature_proves_its_key_for_its_transcript(alice: Signer) -> None:
    assert proved(alice.identity.key, alice.signature, SIGNED)


def test_a_signature_proves_no_other_transcript(alice: Signer) -> None:
    for other in CHANGED.values():
        assert not proved(alice.identity.key, alice.signature, other)


def test_a_signature_proves_no_other_key(alice: Signer) -> None:
    bob = Identity(Ed25519PrivateKey.generate())
    assert not proved(bob.key, alice.signature, SIGNED)


@pytest.mark.parametrize("broken", ["", "?", "AAAA", "é", "A" * 86, "A" * 5000, "\x00"])
def test_a_malformed_key_or_signature_proves_nothing(alice: Signer, broken: str) -> None:
    assert not proved(broken, alice.signature, SIGNED)
    assert not proved(alice.identity.key, broken, SIGNED)


@ordinary
@given(st.text(max_size=100), st.text(max_size=100))
def test_no_text_proves_anything_by_chance(key: str, signature: str) -> None:
    assert not proved(key, signature, SIGNED)


# --- who may come in ------------------------------------------------------------------------------


def hello(key: str) -> Hello:
    return structs.replace(CLIENT, key=key)


def invited(secret: bytes, signed: bytes = SIGNED) -> Proof:
    return Proof(signature="", invitation=invitation(secret, signed))


def test_an_invitation_shows_the_secret_for_one_transcript_only() -> None:
    assert invitation(b"s" * 32, SIGNED) != invitation(b"t" * 32, SIGNED)
    assert invitation(b"s" * 32, SIGNED) != invitation(b"s" * 32, CHANGED["the client's nonce"])


def test_the_first_client_with_the_invitation_is_known_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "state" / "clients.json"
    known = KnownClients(path)
    assert known(hello("alice"), Proof(signature=""), SIGNED) != ""
    assert known(hello("alice"), invited(b"guess" * 8), SIGNED) != ""
    assert known(hello("alice"), invited(known.secret, CHANGED["session"]), SIGNED) != ""
    assert known(hello("alice"), invited(known.secret), SIGNED) == ""
    assert known(hello("alice"), Proof(signature=""), SIGNED) == ""
    assert "another client" in known(hello("bob"), invited(known.secret), SIGNED)
    assert KnownClients(path)(hello("alice"), Proof(signature=""), SIGNED) == ""
    assert KnownClients(path)(hello("bob"), Proof(signature=""), SIGNED) != ""


def test_whoever_has_the_worker_s_line_or_its_own_key_is_an_operator(tmp_path: Path) -> None:
    path = tmp_path / "clients.json"
    path.write_text('{"carol": ["submit"]}', encoding="utf-8")
    known = KnownClients(path, own="Kw")
    known(hello("alice"), invited(known.secret), SIGNED)
    both = ("submit", "operate")
    assert [known.rights(key) for key in ("alice", "Kw", "carol", "bob", "")] == [
        both, both, ("submit",), (), (),
    ]  # fmt: skip
    assert known(hello("Kw"), Proof(signature=""), SIGNED) == ""
    assert KnownClients(path).rights("carol") == ("submit",)
    assert KnownClients(path).rights("Kw") == ()


def test_a_damaged_list_of_clients_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "clients.json"
    path.write_text("[", encoding="utf-8")
    with pytest.raises(KeyUnreadable, match="invite the clients again"):
        KnownClients(path)


def test_a_client_trusts_the_worker_of_its_session_string_only() -> None:
    trust = Only("Kw")
    assert trust(WORKER, Proof(signature=""), SIGNED) == ""
    assert "another worker" in trust(hello("Kx"), Proof(signature=""), SIGNED)


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    first = Identity.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path).key == first.key
    assert len(from_text(first.key)) == 32
    for damage in ("", "é", "AAAA"):
        path.write_text(damage, encoding="utf-8")
        with pytest.raises(KeyUnreadable, match="restore it"):
            Identity.load(path)


# --- session strings ------------------------------------------------------------------------------

STRING = SessionString(
    url="ws://127.0.0.1:8765", room="r-7", token="t-1", peer="w-1", key="Kw", secret="S"
)


def test_a_session_string_comes_back_whole_and_takes_the_space_around_it() -> None:
    assert SessionString.decode(STRING.encode()) == STRING
    assert SessionString.decode(f"  {STRING.encode()}\n") == STRING


def test_a_session_string_is_one_word() -> None:
    text = STRING.encode()
    assert text.startswith("fsm-worker:")
    assert text == "".join(text.split())
    assert "=" not in text


@ordinary
@given(st.lists(st.text(max_size=40), min_size=6, max_size=6))
def test_any_session_string_comes_back(parts: list[str]) -> None:
    fields = dict(zip(SessionString.__struct_fields__, parts, strict=True))
    string = SessionString(**fields)
    assert SessionString.decode(string.encode()) == string


def test_a_session_string_of_a_newer_worker_can_be_read() -> None:
    newer = b'{"url":"u","room":"r","token":"t","peer":"p","key":"k","relay":"x"}'
    assert SessionString.decode(SESSION_PREFIX + to_text(newer)) == SessionString(
        url="u", room="r", token="t", peer="p", key="k"
    )


def test_a_session_string_that_was_cut_anywhere_is_not_one() -> None:
    text = STRING.encode()
    for length in range(len(text)):
        with pytest.raises(BadSessionString, match="copy the whole line"):
            SessionString.decode(text[:length])
    with pytest.raises(BadSessionString):
        SessionString.decode(text[1:])


DAMAGED = {
    "nothing": "",
    "words": "python -m fsm_worker submit",
    "no base64": SESSION_PREFIX + "???",
    "not ASCII": SESSION_PREFIX + "é",
    "no JSON": SESSION_PREFIX + to_text(b"\xff\x00"),
    "no object": SESSION_PREFIX + to_text(b"[]"),
    "no room": SESSION_PREFIX + to_text(b'{"url":"u","token":"t","peer":"p","key":"k"}'),
    "a room that is a number": SESSION_PREFIX
    + to_text(b'{"url":"u","room":1,"token":"t","peer":"p","key":"k"}'),
    "a line break inside": STRING.encode()[:40] + "\n" + STRING.encode()[40:],
    "twice": STRING.encode() * 2,
    "endless": SESSION_PREFIX + "A" * 5000,
    "a pit of brackets": SESSION_PREFIX + to_text(b'{"x":' + b"[" * 2900),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_session_string_says_what_to_do(text: str) -> None:
    with pytest.raises(BadSessionString, match="copy the whole line"):
        SessionString.decode(text)


@ordinary
@given(st.text() | st.text().map(lambda text: SESSION_PREFIX + text) | st.binary().map(
    lambda raw: SESSION_PREFIX + to_text(raw)))  # fmt: skip
def test_any_text_is_a_session_string_or_a_bad_one(text: str) -> None:
    with contextlib.suppress(BadSessionString):
        SessionString.decode(text)


@ordinary
@given(st.binary())
def test_bytes_survive_their_text(data: bytes) -> None:
    assert from_text(to_text(data)) == data
