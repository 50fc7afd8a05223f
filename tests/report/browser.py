"""A headless Chromium, driven over its pipe: the DevTools protocol as JSON with a zero byte behind each message."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1200,1600",
)

# Chromium reads its orders at 3 and answers at 4; moved up first, lest one overwrites the other. A process of its own,
# since JAX must not be forked
PLACE_PIPES = """
import os, sys
reads, writes = os.dup2(int(sys.argv[1]), 103), os.dup2(int(sys.argv[2]), 104)
os.dup2(reads, 3), os.dup2(writes, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def program() -> str | None:
    """Return the browser that is installed, if one is."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One page in the browser, and all that it asked for and complained of."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write, self.buffer, self.count = read, write, b"", 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        self.session = None
        found = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path: pathlib.Path) -> None:
        """Open a file."""
        self.call("Page.navigate", {"url": path.resolve().as_uri()})

    def value(self, expression: str):
        """Evaluate JavaScript, awaiting a promise, and return what it gives."""
        found = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}; {self.complaints}"
            time.sleep(0.1)

    def screenshot(self, path: pathlib.Path | None = None, clip: dict | None = None) -> bytes:
        """Take a picture (PNG) of what is in view, or of a part of the page: x, y, width, height."""
        part = {} if clip is None else {"clip": {"scale": 1, **clip}, "captureBeyondViewport": True}
        data = base64.b64decode(self.call("Page.captureScreenshot", {"format": "png", **part})["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def call(self, method: str, parameters: dict | None = None, *, session: str | None = "own") -> dict:
        """Send a message and return its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters or {}}
        if session == "own":
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self, seconds: float = 120) -> dict:
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], seconds)[0], "the browser must answer, got silence"
            self.buffer += os.read(self.read, 1 << 20)
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        what, told = message.get("method"), message.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif what == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])
        return message


@contextlib.contextmanager
def browser(folder: pathlib.Path) -> Iterator[Page]:
    """Start Chromium with a profile in a folder; end it, and only it, afterwards."""
    to_browser, from_browser = os.pipe(), os.pipe()

    pipes = (to_browser[0], from_browser[1])
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PLACE_PIPES,
            *map(str, pipes),
            program() or "chromium",
            *FLAGS,
            f"--user-data-dir={folder}",
        ],
        pass_fds=pipes,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Page(from_browser[0], to_browser[1])
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])
