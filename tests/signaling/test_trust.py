"""Whom an operator lets a server believe: keys, tokens, and where a request came from."""

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fsm_worker.signaling.identities import Caller, Identities, Standing
from fsm_worker.signaling.jwt_names import checked_name, unchecked_name
from fsm_worker.signaling.nearness import came_directly
from fsm_worker.signaling.trust import JwtKey, NoUsableKey, Trust, read_api_keys
from protocol.signaling import SignalingRefused
from tests.signaling.tokens import FAR, SECRET, base64url, jwt, jwt_of, pem

KEY = JwtKey.of_secret(SECRET)
NOW = 1_800_000_000.0
#: RFC 7515, A.1: a token that others made, and its key. It expires at 1300819380.
RFC_KEY = base64.urlsafe_b64decode(
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
)
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)


def test_the_example_of_the_standard_is_read() -> None:
    key = JwtKey.of_secret(RFC_KEY)
    with pytest.raises(SignalingRefused, match="names nobody"):
        checked_name(RFC_TOKEN, key, 1300819379.0)
    with pytest.raises(SignalingRefused, match="expired"):
        checked_name(RFC_TOKEN, key, 1300819380.0)
    with pytest.raises(SignalingRefused, match="another key"):
        checked_name(RFC_TOKEN, KEY, 1300819379.0)
    assert unchecked_name(RFC_TOKEN, 1300819379.0).startswith("bearer-")


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "alice", "exp": FAR}, "alice"),
        ({"sub": 583231, "exp": FAR}, "583231"),  # GitHub's ids are numbers
        ({"username": "bob", "exp": FAR}, "bob"),
        ({"sub": "alice", "username": "bob", "exp": FAR}, "alice"),
        ({"sub": "alice", "exp": FAR, "nbf": NOW + 59, "iat": NOW, "roles": ["x"]}, "alice"),
    ],
)
def test_a_token_names_its_subject(claims: dict[str, Any], name: str) -> None:
    assert checked_name(jwt(claims), KEY, NOW) == name
    assert unchecked_name(jwt(claims, secret=b"another"), NOW) == name


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (jwt({"sub": "a", "exp": NOW}), "expired"),
        (jwt({"sub": "a", "exp": FAR, "nbf": NOW + 61}), "not valid yet"),
        (jwt({"sub": "a"}), "never expires"),
        (jwt({"exp": FAR}), "names nobody"),
        (jwt({"sub": "", "exp": FAR}), "names nobody"),
        (jwt({"sub": "x" * 129, "exp": FAR}), "names nobody"),
        (jwt({"sub": "a\nb", "exp": FAR}), "names nobody"),
        (jwt({"sub": "a", "exp": FAR, "aud": "another.example"}), "another server"),
        (jwt({"sub": "a", "exp": FAR}, secret=b"another"), "another key"),
        (jwt({"sub": "a", "exp": FAR}, header={"alg": "none"}), "no JWT signed with HS256"),
        (jwt({"sub": "a", "exp": FAR}, header={"alg": "HS512"}), "no JWT signed with HS256"),
        (jwt({"sub": "a", "exp": FAR}, header={"alg": ["HS256"]}), "no JWT"),
        (jwt({"sub": "a", "exp": FAR}, header={"alg": "HS256", "crit": ["x"]}), "no JWT"),
        (jwt({"sub": "a", "exp": "soon"}), "no JWT"),
        (jwt({"sub": ["a"], "exp": FAR}), "no JWT"),
        (jwt(b'{"sub":"a","exp":1e999}'), "no JWT"),
        (jwt(b"[" * 3000), "no JWT"),
        (jwt(b"\xff"), "no JWT"),
        (f"{base64url(b'[' * 5000)}.e30.", "no JWT"),
        (jwt({"sub": "a" * 9000, "exp": FAR}), "at most"),
        ("", "no JWT"),
        ("..", "no JWT"),
        ("\ud800.x.y", "no JWT"),
    ],
)
def test_a_token_that_proves_nothing_is_refused_in_words(token: str, why: str) -> None:
    with pytest.raises(SignalingRefused, match=why) as refused:
        checked_name(token, KEY, NOW)
    assert refused.value.code == "not_authenticated"
    assert len(refused.value.sentence) < 200


def test_a_token_without_a_signature_is_not_checked_by_leaving_it_out() -> None:
    unsigned = jwt({"sub": "a", "exp": FAR}).rpartition(".")[0] + "."
    with pytest.raises(SignalingRefused):
        checked_name(unsigned, KEY, NOW)


def test_a_token_names_the_audience_that_the_operator_set() -> None:
    key = JwtKey.of_secret(SECRET, audience="here")
    for aud in ("here", ["there", "here"]):
        assert checked_name(jwt({"sub": "a", "exp": FAR, "aud": aud}), key, NOW) == "a"
    for claims in ({}, {"aud": []}, {"aud": ["there"]}):
        with pytest.raises(SignalingRefused, match="another server"):
            checked_name(jwt({"sub": "a", "exp": FAR, **claims}), key, NOW)


def test_unchecked_tokens_expire_too_and_nameless_ones_differ() -> None:
    with pytest.raises(SignalingRefused, match="expired"):
        unchecked_name(jwt({"sub": "a", "exp": NOW}), NOW)
    assert unchecked_name(jwt({"sub": "a"}), NOW) == "a"  # it has no expiry that could be over
    assert unchecked_name(jwt({"x": 1}), NOW) != unchecked_name(jwt({"x": 2}), NOW)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)  # a busy machine is no finding
@given(
    st.text()
    | st.builds(jwt, st.binary())
    | st.builds(
        jwt,
        st.dictionaries(st.sampled_from(["sub", "username", "exp", "nbf", "aud"]), JSON_VALUES),
        header=st.dictionaries(st.sampled_from(["alg", "crit", "b64", "kid"]), JSON_VALUES),
    )
)
def test_any_text_names_somebody_or_is_refused(token: str) -> None:
    for read in (lambda: checked_name(token, KEY, NOW), lambda: unchecked_name(token, NOW)):
        try:
            name = read()
        except SignalingRefused as refusal:
            assert refusal.code == "not_authenticated"
        else:
            assert 0 < len(name) <= 128


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_file_with_a_public_key_checks_what_its_private_key_signed(
    tmp_path: Path, kind: str
) -> None:
    own, other = (
        Ed25519PrivateKey.generate() if kind == "ed25519" else generate_rsa(65537, 2048)
        for _ in range(2)
    )
    (tmp_path / "key").write_bytes(pem(own))
    key = JwtKey.of_file(tmp_path / "key")
    assert key.algorithm == {"ed25519": "EdDSA", "rsa": "RS256"}[kind]
    claims = {"sub": "alice", "exp": FAR}
    assert checked_name(jwt_of(own, claims), key, NOW) == "alice"
    # The public half is no secret: signing with it as one must not pass.
    header = {"alg": key.algorithm}
    for forged in (
        jwt_of(other, claims),
        jwt(claims, secret=pem(own)),
        jwt(claims, secret=pem(own), header=header),
    ):
        with pytest.raises(SignalingRefused):
            checked_name(forged, key, NOW)


def test_a_file_with_a_secret_ends_before_its_newline(tmp_path: Path) -> None:
    for ending in (b"", b"\n", b"\r\n"):
        (tmp_path / "key").write_bytes(b"hs256:" + SECRET + ending)
        key = JwtKey.of_file(tmp_path / "key", audience="here")
        assert checked_name(jwt({"sub": "a", "exp": FAR, "aud": "here"}), key, NOW) == "a"


def test_a_file_without_a_usable_key_is_refused_in_words(tmp_path: Path) -> None:
    """A public key in a form that is not read must not become a secret that everybody knows."""
    ed25519 = Ed25519PrivateKey.generate()
    public = ed25519.public_key()
    private = ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwk = '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
    for data, why in (
        (b"", "neither"),
        (b"hs256:too-short\n", "at least 32 bytes"),
        (SECRET, "hs256:"),
        (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).splitlines()[1],
            "hs",
        ),
        (private, "public half"),
        (b"-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----\n", "public half"),
        (pem(generate_rsa(65537, 1024)), "2048 bits"),  # noqa: S505 - refused here
        (pem(generate_private_key(SECP256R1())), "Ed25519"),
        (public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "neither"),
        (public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "neither"),
        (jwk.encode(), "neither"),
        (b"hs256:" + SECRET + b"\nsecond line\n", "neither"),
        (b"x" * (1024 * 1024 + 1), "too large"),
    ):
        (tmp_path / "key").write_bytes(data)
        with pytest.raises(NoUsableKey, match=why):
            JwtKey.of_file(tmp_path / "key")
    with pytest.raises(NoUsableKey, match="another file"):
        JwtKey.of_file(tmp_path / "missing")
    with pytest.raises(NoUsableKey, match="another file"):
        JwtKey.of_file(tmp_path)


def test_api_keys_are_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        "# lab\n\nalice slp_acct_0123456789\n#bob slp_acct_old\nalice  slp_acct_abcdefghij\n"
    )
    trust = Trust(api_keys=read_api_keys(path))
    assert trust.account("slp_acct_0123456789") == trust.account("slp_acct_abcdefghij")
    assert trust.account("slp_acct_abcdefghij") == "alice"
    assert trust.account("slp_acct_old") is None
    assert trust.account("\ud800") is None
    assert "slp_" not in repr(trust)
    for line in ("alice", "a b c", "alice short", "a slp_acct_0123456789\nb slp_acct_0123456789"):
        path.write_text(f"\n{line}\n")
        with pytest.raises(NoUsableKey, match=r"keys, line [23]: write") as refused:
            read_api_keys(path)
        assert "0123456789" not in str(refused.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(NoUsableKey, match="UTF-8"):
        read_api_keys(path)


def test_a_setting_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="leave one out"):
        Trust(jwt=KEY, unchecked=True)
    with pytest.raises(ValueError, match="longer"):
        Trust(api_keys={"short": "alice"})
    with pytest.raises(ValueError, match="printable"):
        Trust(api_keys={"slp_acct_0123456789": ""})


def test_no_setting_shows_its_secrets() -> None:
    trust = Trust(jwt=KEY, api_keys={"slp_acct_0123456789": "alice"})
    assert repr(trust) == "<Trust jwt=<JwtKey HS256> unchecked=False 1 API keys>"


def test_the_same_name_in_two_standings_is_two_callers() -> None:
    token = jwt({"sub": "alice", "exp": FAR})
    checked = Identities(Trust(jwt=KEY, api_keys={"slp_acct_0123456789": "alice"}), lambda: NOW)
    unchecked = Identities(Trust(unchecked=True), lambda: NOW)
    account = Caller("alice", Standing.ACCOUNT)
    assert checked.of_jwt(token, direct=False) == account
    assert checked.of_api_key("slp_acct_0123456789") == account
    assert unchecked.of_jwt(token, direct=True) == Caller("alice", Standing.UNCHECKED) != account
    anonymous = checked.sign_in()
    assert checked.of_bearer(token, direct=False) == account
    assert checked.of_bearer("slp_acct_0123456789", direct=False) == account
    assert checked.of_bearer(anonymous.id_token, direct=False) == Caller(anonymous.username)
    for bearer, direct in ((token, False), ("a.b", True), ("slp_acct_0123456789", True)):
        with pytest.raises(SignalingRefused, match="not_authenticated"):
            unchecked.of_bearer(bearer, direct=direct)


@pytest.mark.parametrize(
    ("headers", "direct"),
    [
        ({"host": "127.0.0.1:8080"}, True),
        ({"host": "127.0.0.1"}, True),
        ({"host": "localhost:8080"}, True),
        ({"host": "[::1]:8080"}, True),
        ({"host": "[::1]"}, True),
        ({}, False),
        ({"host": "evil.example:8080"}, False),  # a name of its own that leads to 127.0.0.1
        ({"host": "192.0.2.1:8080"}, False),
        ({"host": "127.0.0.1:8080", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:8080", "origin": "null"}, False),
        ({"host": "127.0.0.1:8080", "x-forwarded-for": "192.0.2.1"}, False),
        ({"host": "127.0.0.1:8080", "forwarded": "for=192.0.2.1"}, False),
        ({"host": "127.0.0.1:8080", "via": "1.1 proxy"}, False),
    ],
)
def test_a_browser_and_a_proxy_are_told_from_a_program_on_this_machine(
    headers: dict[str, str], direct: bool
) -> None:
    assert came_directly(headers) is direct
