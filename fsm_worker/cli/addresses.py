"""Addresses on the command line, and who can reach them."""

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

#: Asked for our own address on the internet; only where signaling is not on loopback.
DEFAULT_STUN = "stun:stun.l.google.com:19302"


class Listen(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{bracketed(self.host)}:{self.port}"


class Server(NamedTuple):
    """A signaling server."""

    base: str  # ws://HOST or wss://HOST
    host: str
    port: int

    def __str__(self) -> str:
        """As a URL."""
        return f"{self.base}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Reads `ADDR:PORT`; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is something else.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not _is_port(port):
        raise ValueError(
            f"{text[:100]!r} is no address to listen on: write ADDR:PORT, "
            "such as 127.0.0.1:8080 or [::1]:0 (port 0 takes a free one)"
        )
    return Listen(host, int(port))


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and int(text) <= 65535


def parse_signaling(text: str) -> Server:
    """Reads `ws://HOST[:PORT]` or `wss://HOST[:PORT]`.

    Raises:
        ValueError: it is something else.
    """
    wrong = ValueError(f"{text[:200]!r} is no signaling server: write ws://HOST:PORT or wss://HOST")
    try:
        parts = urlsplit(text.strip())
        port = parts.port  # raises if it is no port number
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"ws", "wss"} or not parts.hostname or parts.path.strip("/"):
        raise wrong
    default = 443 if parts.scheme == "wss" else 80
    return Server(f"{parts.scheme}://{bracketed(parts.hostname)}", parts.hostname, port or default)


def parse_stun(text: str) -> str:
    """Reads `stun:HOST[:PORT]`, `turn:…` or `off`.

    Raises:
        ValueError: it is something else.
    """
    text = text.strip()
    if text != "off" and text.partition(":")[0] not in {"stun", "stuns", "turn", "turns"}:
        raise ValueError(f"{text[:100]!r} is no STUN server: write stun:HOST:PORT, or off")
    return text


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_everywhere(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def own_address(host: str) -> str:
    """The address by which others find a server of this machine that listens on `host`.

    Args:
        host: what it listens on.

    Returns:
        `host`; where that means every address, the one that the route to the outside uses, or
        loopback where there is no such route. Nothing is sent to find that out.
    """
    if not is_everywhere(host):
        return host
    six = ":" in host
    # Addresses for documentation (RFC 5737, RFC 3849): connecting a UDP socket only picks a route.
    outside = "2001:db8::1" if six else "192.0.2.1"
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "::1" if six else "127.0.0.1"


def ice_servers(stun: str, signaling_host: str) -> tuple[str, ...]:
    """The STUN servers to use.

    Args:
        stun: what was asked for: a URL, `off`, or empty for the default.
        signaling_host: both peers reach it; on loopback they need no STUN.
    """
    if stun == "off":
        return ()
    if stun:
        return (stun,)
    return () if is_loopback(signaling_host) else (DEFAULT_STUN,)
