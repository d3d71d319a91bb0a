"""sleap-rtc as it is on PyPI, in a folder of its own: pinned, checked by its hash, never edited.

It is installed without its dependencies; what its senders import of them is aiortc alone, and that
is the product's, so both are measured on the same one.
"""

import asyncio
import sys
from pathlib import Path

from bench.program import ROOT

FOLDER = ROOT / ".venv-bench"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class PackageMissing(RuntimeError):
    """The package can't be had: the sentence says why."""


async def sleap_rtc() -> Path:
    """Gives the folder to import it from; installs it there if it is not.

    Raises:
        PackageMissing: pip or the registry can't be reached, or has something else.
    """
    pinned = _REQUIREMENTS.read_text(encoding="utf-8")
    installed = FOLDER / "installed.txt"
    if installed.is_file() and installed.read_text(encoding="utf-8") == pinned:
        return FOLDER
    pip = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
        "--upgrade", "--timeout", "10", "--retries", "1",
        "--target", str(FOLDER), "--requirement", str(_REQUIREMENTS),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await pip.communicate()
    if pip.returncode != 0:
        words = said.decode(errors="replace").strip().splitlines()
        raise PackageMissing(words[-1] if words else f"pip ended with {pip.returncode}")
    installed.write_text(pinned, encoding="utf-8")
    return FOLDER
