"""The dialect of sleap-rtc on a data channel: what its clients and a worker say to each other.

The words are those of sleap-rtc 0.0.7, and of its releases of November 2025 where those differ:
text frames that begin with a tag, and raw bytes, all on one ordered channel without a sub-protocol.

Decoding is total. Any text and any bytes give a frame or a `ProtocolError`; sizes are bounded
before anything is read, and a tag is looked up in the table and nowhere else.

Program output travels bare in this dialect. No line of it is ever written so that a client of
sleap-rtc would take it for a frame: see `protocol.sleap_rtc.log_text`.
"""

from protocol.sleap_rtc.codec import MAX_TEXT as MAX_TEXT
from protocol.sleap_rtc.codec import chunks as chunks
from protocol.sleap_rtc.codec import decode as decode
from protocol.sleap_rtc.codec import decode_from_worker as decode_from_worker
from protocol.sleap_rtc.codec import encode as encode
from protocol.sleap_rtc.codec import encode_from_client as encode_from_client
from protocol.sleap_rtc.codec import refusal as refusal
from protocol.sleap_rtc.log_text import as_log_text as as_log_text
from protocol.sleap_rtc.table import ROWS as ROWS
from protocol.sleap_rtc.table import Row as Row
