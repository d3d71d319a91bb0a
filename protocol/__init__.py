"""What may be said: messages, their table, their codec, and the states that travel in them.

This package is pure. It does no I/O, knows no clock and no event loop, and imports only
`msgspec` and the standard library, so that any peer on any platform can use it.
"""

#: Version of the native data-channel dialect; also the sub-protocol of its channels.
NATIVE_VERSION = 1
NATIVE_SUBPROTOCOL = "fsm-worker.v1"
#: Labels of the three data channels of the native dialect: bulk never delays a cancel.
CONTROL_LABEL = "control"
LOG_LABEL = "log"
BULK_LABEL = "bulk"
