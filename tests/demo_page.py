"""Uses the page of zoo.demo in a headless Chromium, from the keyboard: `python tests/demo_page.py [SCREENSHOT]`, in an
environment with gradio, websockets and this project's dependencies. Whatever the page asks of another machine fails
the test.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
PORT, DEBUG = 7872, 9333
FOUND = "[...document.querySelectorAll('textarea')].map(t => t.value).join('|')"
FOCUSED = "document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || ''"


class Browser:
    """A tab of Chromium, spoken to by its DevTools protocol; `asked` are the addresses that the page asked for."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.asked: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("method") == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)


def wait(what: str, check: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := check():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"{what}: not after {seconds:g} s")


def get(url: str) -> bytes:
    return urllib.request.urlopen(url, timeout=5).read()


def used(tab: Browser, page: str, screenshot: str | None) -> dict[str, Any]:
    """Gives the page a picture, goes to the button and presses it, and waits for the answer."""
    tab.call("Network.enable")
    tab.call("Page.navigate", url=page)
    wait("a field for the picture", lambda: tab.value("!!document.querySelector('input[type=file]')"))
    time.sleep(2)
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    field = tab.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=field, files=[str(ROOT / "samples" / "digit_7.png")])
    wait("the picture", lambda: tab.value("!!document.querySelector('img')"))
    tab.value("document.activeElement.blur()")
    walked = []
    while not walked or walked[-1] != "Run":
        assert len(walked) < 40, f"Tab does not lead to the button: {walked}"
        tab.press("Tab", 9)
        walked.append(str(tab.value(FOCUSED)).strip())
    tab.press("Enter", 13)
    found = wait("an answer", lambda: "7 (7)" in (said := tab.value(FOUND)) and said)
    wait("the drawn result", lambda: tab.value("document.querySelectorAll('img').length") >= 2)
    time.sleep(1)
    foreign = [url for url in tab.asked if not url.startswith((page, "data:", "blob:", "about:"))]
    assert not foreign, foreign
    if screenshot:
        data = tab.call("Page.captureScreenshot", format="png")["data"]
        Path(screenshot).write_bytes(base64.b64decode(data))
    return {"tabs to Run": len(walked), "requests": len(tab.asked), "found": found.split("\n")[0]}


def main(screenshot: str | None = None) -> None:
    page = f"http://127.0.0.1:{PORT}/"
    demo = [sys.executable, "-m", "zoo.demo", "lenet5", "--port", str(PORT), "--device", "cpu"]
    with tempfile.TemporaryDirectory() as profile:
        chromium = [
            shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu",
            f"--remote-debugging-port={DEBUG}", f"--user-data-dir={profile}", "--window-size=1280,1000",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
        ]  # fmt: skip
        server = subprocess.Popen(demo, cwd=ROOT)
        browser = subprocess.Popen(chromium, stderr=subprocess.DEVNULL)
        try:
            wait("the page", lambda: get(page))
            tabs = wait("Chromium", lambda: json.loads(get(f"http://127.0.0.1:{DEBUG}/json")))
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(url, max_size=1 << 26) as socket:
                print(json.dumps(used(Browser(socket), page, screenshot)))
        finally:
            browser.terminate()
            server.terminate()
            browser.wait()
            server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:2])
