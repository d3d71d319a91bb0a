"""The kinds of all decoders, by the decoder's name."""

from tests.fuzz.archive_kinds import ARCHIVES
from tests.fuzz.conftest import NAMES
from tests.fuzz.kinds import Kinds
from tests.fuzz.setting_kinds import SETTINGS
from tests.fuzz.wire_kinds import WIRE
from tests.fuzz.word_kinds import WORD_KINDS

_ALL = {**WIRE, **ARCHIVES, **WORD_KINDS, **SETTINGS}
KINDS: dict[str, Kinds] = {name: _ALL[name] for name in NAMES}
