"""ICE on a machine whose only interface is loopback: a laptop in flight mode, a bare container.

aioice 0.13 never offers 127.0.0.1 or ::1, so there it gathers nothing and ICE stays `new` for ever.
Where no other address exists, and only there, loopback is gathered on purpose.
"""

from collections.abc import Callable

import aioice.ice

_original: Callable[..., list[str]] = aioice.ice.get_host_addresses


def _with_loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    addresses = _original(use_ipv4=use_ipv4, use_ipv6=use_ipv6)
    return addresses or (["127.0.0.1"] if use_ipv4 else [])


def allow_loopback() -> None:
    """Lets ICE use loopback where there is nothing else; calling it again changes nothing."""
    aioice.ice.get_host_addresses = _with_loopback
