"""Every picture of every page, drawn by real Mermaid in a real browser, fits one screen."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: The folder that `tools/mermaid.sh` has filled.
FOLDER = os.environ.get("FSM_WORKER_TEST_MERMAID", "")
VERSIONS = sorted(Path(FOLDER).glob("*.js")) if FOLDER else [Path("mermaid.js")]

pytestmark = pytest.mark.skipif(not FOLDER, reason="needs Chromium: run `make test-pictures`")


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("render", ROOT / "tools" / "render_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_the_mermaid_of_most_hosts_and_the_newest() -> None:
    assert len(VERSIONS) == 2


@pytest.mark.parametrize("mermaid", VERSIONS, ids=lambda path: path.stem)
def test_every_picture_can_be_drawn_and_fits_one_screen(mermaid: Path) -> None:
    tool = _tool()
    found = list(tool.sources(tool.pages()))
    assert len(found) >= 15
    with tool.browser(mermaid) as browser:
        sizes = {f"{some.page.name}: {some.title}": browser.draw(some.text) for some in found}
        with pytest.raises(tool.BrowserFailed):
            browser.draw("stateDiagram-v2\n    a --> --> b")
        assert not browser.draw("stateDiagram-v2\n" + "".join(
            f"    s{n} --> s{n + 1}\n" for n in range(30)
        )).fits  # fmt: skip
    assert {name: size for name, size in sizes.items() if not size.fits} == {}
