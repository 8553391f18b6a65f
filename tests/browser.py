"""A headless Chromium driven over its debugging port, for pages as people meet them: keys, widths, what is fetched.

>>> with Browser(tmp_path) as browser:
...     browser.open(page, width=400)
...     browser.evaluate("document.title")
"""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
#: Marks tests that need it.
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")


class Browser:
    """One page in one browser. ``requests`` holds the addresses that the page asked for since it was opened."""

    def __init__(self, home: Path):
        self.home, self.requests = home, []
        self._number, self._events = 0, []

    def __enter__(self) -> "Browser":
        import websocket

        self._process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
             "--remote-debugging-port=0", f"--user-data-dir={self.home / 'profile'}", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        said = next(line for line in self._process.stderr if "DevTools listening" in line)
        self._socket = websocket.create_connection(re.search(r"ws://\S+", said)[0], suppress_origin=True, timeout=60)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *failure: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)

    def _call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        own = {"sessionId": session} if session else {}
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters, **own}))
        while (said := self._next()).get("id") != self._number:
            pass
        assert "error" not in said, said["error"]
        return said["result"]

    def _next(self) -> dict[str, Any]:
        said = json.loads(self._socket.recv())
        if said.get("method") == "Network.requestWillBeSent":
            self.requests.append(said["params"]["request"]["url"])
        self._events.append(said.get("method"))
        return said

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol to the page."""
        return self._call(method, self._session, **parameters)

    def open(self, page: Path | str, width: int = 1300, height: int = 900) -> None:
        """Load a file, or an address, and wait until it is loaded."""
        address = page.as_uri() if isinstance(page, Path) else page
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.requests, self._events = [], []
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._next()

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        said = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, by its name and its Windows code: ``press("Tab", 9)``, ``press("Enter", 13, "\\r")``."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def picture(self, path: Path, whole: bool = False) -> Path:
        """What is to be seen, or the whole page, as a PNG file."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def printed(self, path: Path) -> Path:
        """The page as it is printed on A4, as a PDF file."""
        found = self.call("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(found["data"]))
        return path
