"""Renders every Mermaid picture of the pages as a reader's browser does, and measures it.

python tools/render_pictures.py --mermaid FILE [--out DIR] [PAGE ...]

Needs Chromium, and Mermaid's `mermaid.min.js`, which `tools/mermaid.sh` gets. Exits with 1 where a
picture can't be drawn, or is larger than one screen.
"""

import argparse
import base64
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

#: CSS pixels that one screen shows beside a browser's own frame.
WIDEST, HIGHEST = 1600, 1100
ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_PATIENCE = 60.0  # seconds that the browser may take to start, and for each picture
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip
_DRAW = """(async text => {
  document.body.innerHTML = '<div id="here" style="display: inline-block"></div>';
  const { svg } = await mermaid.render('picture', text);
  const here = document.getElementById('here');
  here.innerHTML = svg;
  const drawn = here.querySelector('svg');
  const box = drawn.viewBox.baseVal;
  drawn.style.maxWidth = 'none';
  drawn.setAttribute('width', box.width);
  drawn.setAttribute('height', box.height);
  return [Math.ceil(box.width), Math.ceil(box.height)];
})"""


class Source(NamedTuple):
    """One picture as a page has it."""

    page: Path
    title: str  # the nearest heading above it
    text: str


class Size(NamedTuple):
    """How large it is drawn, in CSS pixels."""

    width: int
    height: int

    @property
    def fits(self) -> bool:
        """Whether one screen shows it all."""
        return self.width <= WIDEST and self.height <= HIGHEST


class BrowserFailed(RuntimeError):
    """Chromium does not start, or Mermaid can't read a picture."""


def pages() -> list[Path]:
    """Every page of ours that may have a picture."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("diagrams/*.md")])


def sources(some: Sequence[Path]) -> Iterator[Source]:
    """The pictures of pages, in their order."""
    for page in some:
        text = page.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            above = _HEADING.findall(text[: found.start()])
            yield Source(page, above[-1] if above else "", found[1])


def chromium() -> str | None:
    """The browser of this machine, if it has one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """A page of a headless Chromium that has loaded Mermaid.

    Args:
        talk: the connection to that page, in the DevTools protocol.
        mermaid: `mermaid.min.js`.
    """

    def __init__(self, talk: ClientConnection, mermaid: Path) -> None:
        self._talk = talk
        self._number = 0
        self._run(mermaid.read_text(encoding="utf-8"))
        self._run("mermaid.initialize({ startOnLoad: false, securityLevel: 'strict' })")

    def draw(self, text: str) -> Size:
        """Draws a picture; it stays on the page until the next.

        Raises:
            BrowserFailed: Mermaid can't read it.
        """
        return Size(*self._run(f"{_DRAW}({json.dumps(text)})"))

    def picture(self, size: Size) -> bytes:
        """What is on the page, as PNG."""
        clip = {"x": 0, "y": 0, "width": size.width + 16, "height": size.height + 16, "scale": 1}
        shot = self._ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def _run(self, script: str) -> Any:
        done = self._ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if wrong := done.get("exceptionDetails"):
            raise BrowserFailed(wrong.get("exception", {}).get("description", wrong["text"]))
        return done["result"].get("value")

    def _ask(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        self._talk.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while (heard := json.loads(self._talk.recv(timeout=_PATIENCE))).get("id") != self._number:
            continue
        if "error" in heard:
            raise BrowserFailed(heard["error"]["message"])
        found: dict[str, Any] = heard["result"]
        return found


@contextlib.contextmanager
def browser(mermaid: Path) -> Iterator[Browser]:
    """Starts Chromium, and ends it.

    Args:
        mermaid: `mermaid.min.js`.

    Raises:
        BrowserFailed: there is none, or it does not start.
    """
    program = chromium()
    if program is None:
        raise BrowserFailed("there is no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = _port(Path(profile, "DevToolsActivePort"), process)
            with urlopen(f"http://127.0.0.1:{port}/json/list") as listed:
                page = next(one for one in json.load(listed) if one["type"] == "page")
            with connect(page["webSocketDebuggerUrl"], max_size=None) as talk:
                yield Browser(talk, mermaid)
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _port(said: Path, process: "subprocess.Popen[bytes]") -> int:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends and process.poll() is None:
        if said.is_file() and (lines := said.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise BrowserFailed("Chromium does not start: run it by hand and see what it says")


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="render_pictures.py", description=__doc__)
    parser.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js")
    parser.add_argument("--out", type=Path, help="writes PNGs there")
    parser.add_argument("pages", nargs="*", type=Path, help="all pages, if none is named")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with browser(options.mermaid) as drawer:
        for number, source in enumerate(sources(options.pages or pages()), 1):
            name = f"{source.page.stem}: {source.title}"
            try:
                size = drawer.draw(source.text)
            except BrowserFailed as error:
                wrong += 1
                print(f"! {name}: {error}")
                continue
            wrong += not size.fits
            print(f"{'=' if size.fits else '!'} {size.width:>4} x {size.height:>4}  {name}")
            if options.out:
                file = options.out / f"{number:02}-{source.page.stem}.png"
                file.write_bytes(drawer.picture(size))
    if wrong:
        print(f"{wrong} pictures are wrong: one screen is {WIDEST} x {HIGHEST}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
