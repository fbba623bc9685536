"""Drives a headless Chromium through its debugging pipe, without further packages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Returns the path of Chromium; skips the test without one."""
    for name in PROGRAMS:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip(f"no browser found: none of {', '.join(PROGRAMS)} is installed")


# The browser reads commands from descriptor 3 and writes messages to 4.
START = """
import os, sys
commands, messages = (os.dup(int(number)) for number in sys.argv[1:3])
while min(commands, messages) < 5:
    commands, messages = os.dup(commands), os.dup(messages)
os.dup2(commands, 3)
os.dup2(messages, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Chromium:
    """A browser with one page.

    Args:
        profile: empty folder for its files.
        width, height: size of the window.
        dark: whether pages are shown in their dark color scheme.

    Attributes:
        requested: addresses that the page requested, except data: and blob: ones.
        problems: messages of errors and of refused resources in the page's console.
    """

    def __init__(
        self, profile: Path, width: int = 1280, height: int = 900, *, dark: bool = False
    ) -> None:
        program = find_chromium()
        to_browser, self._commands = os.pipe()
        self._messages, from_browser = os.pipe()
        command = [
            *(sys.executable, "-c", START, str(to_browser), str(from_browser), program),
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *("--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._answers: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._session: str | None = None
        self.requested: list[str] = []
        self.problems: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        (page, *_) = [
            target
            for target in self.call("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Runs a command of the DevTools protocol and returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            try:
                answer = self._answers.get(timeout=60)
            except Empty:
                raise TimeoutError(f"the browser did not answer to {method}") from None
            if answer["id"] == self._number:
                break
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, url: str) -> None:
        """Opens a page."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression, or of its promise."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.evaluate(f"Boolean({expression})"):
                return
            time.sleep(0.1)
        page = self.evaluate("document.body.innerText.slice(0, 2000)")
        raise TimeoutError(f"{expression} is not true after {seconds} s. The page:\n{page}")

    def choose_files(self, selector: str, paths: list[Path]) -> None:
        """Gives files to an input of a page, as dropping them does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def hover(self, selector: str) -> None:
        """Moves the mouse over an element."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        """Writes a picture of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> None:
        buffer = b""
        while chunk := os.read(self._messages, 2**16):
            *messages, buffer = (buffer + chunk).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self._answers.put(message)
                else:
                    self._note(message["method"], message["params"])
        os.close(self._messages)

    def _note(self, method: str, params: dict[str, Any]) -> None:
        """Keeps what the tests ask about of an event."""
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requested.append(url)
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
