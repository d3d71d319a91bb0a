"""aiortc's readiness strings become events here, and nowhere else.

aiortc 1.16 has ICE states new, checking, completed, failed, closed and connection states new,
connecting, connected, failed, closed. Consent that is lost goes to `closed`, as a normal close by
the peer does; there is no `disconnected`.
"""

from aiortc import RTCPeerConnection

from fsm_worker.events import Event, IceCompleted, IceFailed, PeerClosed


def readiness(pc: RTCPeerConnection) -> Event | None:
    """What a change of a peer connection's states means; None if it means nothing yet."""
    if pc.connectionState == "closed":
        return PeerClosed()
    if "failed" in {pc.iceConnectionState, pc.connectionState}:
        return IceFailed()
    return IceCompleted() if pc.iceConnectionState == "completed" else None
