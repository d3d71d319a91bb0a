"""A client's peer connections: the only other place beside `RTCWorkerClient` that has any."""

from collections.abc import Callable, Sequence

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from fsm_worker.effects import AcceptAnswer, ClosePeer, KeepIceAlive, MakeOffer
from fsm_worker.events import RecvAnswer
from fsm_worker.runtime import Runtime
from fsm_worker.seams.channels import fingerprint
from fsm_worker.seams.gathering import closed, gathered
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.readiness import readiness
from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL, NATIVE_SUBPROTOCOL
from protocol.table import MachineName


class Dialler:
    """Makes and closes a client's peer connections.

    Args:
        runtime: whose inbox takes the events.
        links: listens to the channels.
        ice_servers: STUN and TURN URLs; none gathers host candidates only.
        send_offer: sends a link's offer, an SDP, to the worker through signaling.
    """

    def __init__(
        self,
        runtime: Runtime,
        links: PeerLinks,
        ice_servers: Sequence[str],
        send_offer: Callable[[str, str], None],
    ) -> None:
        self._runtime = runtime
        self._links = links
        self._ice_servers = tuple(ice_servers)
        self._send_offer = send_offer
        self._peers: dict[str, RTCPeerConnection] = {}

    async def make_offer(self, effect: MakeOffer) -> None:
        """Makes a peer connection with its three channels, and sends the offer."""
        link = effect.subject
        servers = [RTCIceServer(urls=url) for url in self._ice_servers]
        pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._peers[link] = pc
        self._links.open(
            link,
            lambda: (fingerprint(pc.localDescription.sdp), fingerprint(pc.remoteDescription.sdp)),
        )
        pc.on("iceconnectionstatechange", lambda: self._changed(link))
        pc.on("connectionstatechange", lambda: self._changed(link))
        for label in (CONTROL_LABEL, LOG_LABEL, BULK_LABEL):
            self._links.attach(link, pc.createDataChannel(label, protocol=NATIVE_SUBPROTOCOL))
        self._send_offer(link, await gathered(pc, await pc.createOffer()))

    async def accept_answer(self, effect: AcceptAnswer) -> None:
        """Gives the peer connection the worker's answer."""
        if isinstance(effect.event, RecvAnswer):
            answer = RTCSessionDescription(sdp=effect.event.sdp, type="answer")
            await self._peers[effect.subject].setRemoteDescription(answer)

    def keep_ice_alive(self, effect: KeepIceAlive) -> None:
        """Pings the worker."""
        self._links.keep_alive(effect.subject)

    async def close_peer(self, effect: ClosePeer) -> None:
        """Closes the link's peer connection."""
        await self._close(effect.subject)

    async def close(self) -> None:
        """Closes every peer connection."""
        for link in list(self._peers):
            await self._close(link)

    async def _close(self, link: str) -> None:
        self._links.forget(link)
        pc = self._peers.pop(link, None)
        if pc is not None:
            await closed(pc)

    def _changed(self, link: str) -> None:
        pc = self._peers.get(link)
        event = readiness(pc) if pc is not None else None
        if event is not None:
            self._runtime.post(MachineName.LINK, link, event)
