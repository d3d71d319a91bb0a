"""The decoders by their names, and a place in memory for those that read files."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.targets import Target, targets

_ALL = targets(Path())
NAMES = [target.name for target in _ALL]
#: Of all targets together.
SHARES = sum(target.share for target in _ALL)
_MEMORY = "/dev/shm"  # a disk would cost more than all that is decoded


@pytest.fixture(scope="session")
def chosen() -> Iterator[Callable[[str], Target]]:
    """Gives a target by its name."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        yield {target.name: target for target in targets(Path(folder))}.__getitem__
