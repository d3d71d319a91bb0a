"""Whether who asks is a program on this machine, as far as an address and headers can tell."""

import ipaddress
from collections.abc import Mapping

#: What a program that passes a request on adds to it.
_PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address.

    Args:
        address: numeric, or the name `localhost`.
    """
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def came_directly(headers: Mapping[str, str]) -> bool:
    """Whether a request to a server on loopback shows no sign of having come from elsewhere.

    Loopback alone does not say who asks: a proxy on this machine passes on what the internet
    sends, and a web page in a browser on this machine connects to every port of it. The first
    adds headers, the second has to send `Origin` (RFC 6455, 4.1; Fetch, 3.2), and where it calls
    the address by a name of its own, that name is in `Host`.

    Args:
        headers: of the request; names in lower case.
    """
    if "origin" in headers or any(name in headers for name in _PASSED_ON):
        return False
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
