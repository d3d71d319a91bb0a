"""Whether WebRTC works on this machine: two peer connections, and one message there and back."""

import asyncio

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection

from fsm_worker.seams.loopback import allow_loopback


async def echo(patience: float) -> float:
    """Opens a data channel between two connections of this process, and has it echo.

    Args:
        patience: seconds that it may take.

    Returns:
        Seconds that it took.

    Raises:
        TimeoutError: the two did not find each other.
    """
    allow_loopback()
    here, there = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    heard = asyncio.Event()

    def answer(channel: RTCDataChannel) -> None:
        channel.on("message", channel.send)

    there.on("datachannel", answer)
    channel = here.createDataChannel("echo")
    channel.on("open", lambda: channel.send("ping"))
    channel.on("message", lambda _data: heard.set())
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(patience):
            await here.setLocalDescription(await here.createOffer())
            await there.setRemoteDescription(here.localDescription)
            await there.setLocalDescription(await there.createAnswer())
            await here.setRemoteDescription(there.localDescription)
            await heard.wait()
    finally:
        await here.close()
        await there.close()
    return asyncio.get_running_loop().time() - began
