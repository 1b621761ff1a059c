"""A headless Chromium for tests, spoken to over the DevTools protocol's pipe.

No library of ours and none to install: messages are JSON ended by a zero byte on two file
descriptors (3 in, 4 out), as Chromium's ``--remote-debugging-pipe`` asks for.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CHROMIUM", "NO_CHROMIUM", "Browser", "browser"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def _starts(program: str) -> bool:
    """Return whether a program says its version; a distribution's placeholder for one does not."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


CHROMIUM = next((path for path in map(shutil.which, _NAMES) if path and _starts(path)), None)
NO_CHROMIUM = f"no Chromium on PATH ({', '.join(_NAMES)}); apt-get install chromium brings one"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_START = "import os,sys; os.dup2(int(sys.argv[1]),3); os.dup2(int(sys.argv[2]),4); "
_START += "os.execvp(sys.argv[3], sys.argv[3:])"
_PATIENCE_S = 60.0


class Browser:
    """One page of one browser.

    ``complaints`` holds what the console and the log said, ``requests`` every address that the
    page asked for, its own included.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer, self._last, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(
        self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> float:
        """Load a page and return the milliseconds from asking for it to having painted it."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Page.navigate", url=page.absolute().as_uri())
        self.wait("Page.loadEventFired")
        # Two frames later everything has been laid out and painted.
        taken = self.value(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame("
            "() => done(performance.now()))))"
        )
        return float(taken)

    def wait(self, event: str) -> None:
        """Wait for an event that comes, or came since the last wait."""
        while not any(seen["method"] == event for seen in self._events):
            self._receive()
        self._events.clear()

    def value(self, script: str) -> Any:
        """Return what a script says, waiting for a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def picture(self, target: Path) -> None:
        """Write a PNG of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, target: Path) -> None:
        """Write the page as PDF, as it would be printed."""
        made = self.call("Page.printToPDF", preferCSSPageSize=True)
        target.write_bytes(base64.b64decode(made["data"]))

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise ConnectionError("the browser has ended")
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._note(message)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        method, facts = event["method"], event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.complaints.append(f"{facts['type']}: {facts['args']}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(facts["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(facts["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(str(facts["request"]["url"]))


@contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """Start Chromium with a profile of its own below ``home``; end it when the block ends."""
    if CHROMIUM is None:
        raise FileNotFoundError(NO_CHROMIUM)
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={home / 'profile'}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        found = Browser(ours_out, ours_in)
        yield found
        found._session = ""
        found.call("Browser.close")
        process.wait(10)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours_out)
        os.close(ours_in)
