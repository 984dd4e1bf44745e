"""A headless Chromium, driven through the pipes of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"/": "Slash", "m": "KeyM", "Enter": "Enter", "Escape": "Escape", "Tab": "Tab"}


def find_chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab. Everything that went wrong in it, and every address that it asked for, is noted."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number, self._rest, self._session = 0, b"", ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for what it gives."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        """One answer or event; events are noted."""
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], 60)[0], "Chromium does not answer"
            self._rest += os.read(self._from, 1 << 20)
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(json.dumps([part.get("value") for part in parameters["args"]]))
        elif method == "Log.entryAdded":
            self.problems.append(parameters["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"a dialog: {parameters['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        return message

    def resize(self, width: int, height: int, scale: float = 1, dark: bool = False) -> None:
        """Be a window, or a telephone, of this size."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, place: str = "") -> None:
        """Open a file and wait until it has shown itself."""
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=page.resolve().as_uri() + place)
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")
        self.settle()

    def run(self, script: str) -> Any:
        """What an expression gives; a promise is waited for."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + 20
        while not self.run(condition):
            assert time.monotonic() < ends, f"never: {condition}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until what was begun is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def press(self, key: str) -> None:
        """Press a key, which goes to what has the focus."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = KEYS.get(key, key)
        number = {"Enter": 13, "Escape": 27, "Tab": 9}.get(key, 0)
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **event)
        self.settle()

    def type(self, text: str) -> None:
        """Type a text."""
        self.ask("Input.insertText", text=text)
        self.settle()

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that fit."""
        found: list[str] = self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)"
        )
        return found

    def choose(self, label: str, value: str) -> None:
        """Choose from the list that has this label."""
        self.run(
            f"(() => {{ const list = document.querySelector('select[aria-label={json.dumps(label)}]');"
            f"list.value = {json.dumps(value)}; list.dispatchEvent(new Event('change')); }})()"
        )
        self.settle()

    def screenshot(self, path: Path) -> None:
        """Keep a picture of what is to be seen."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Browser]:
    """Start Chromium with a fresh profile, and end it."""
    for_browser, to_browser = os.pipe()
    from_browser, of_browser = os.pipe()
    started = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{for_browser} 4>&{of_browser}', "-", program, *FLAGS,
         f"--user-data-dir={profile}"],
        pass_fds=(for_browser, of_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(for_browser)
    os.close(of_browser)
    try:
        browser = Browser(to_browser, from_browser)
        yield browser
        browser._session = ""
        browser.ask("Browser.close")
        started.wait(20)
    finally:
        started.kill()
        started.wait()
        os.close(to_browser)
        os.close(from_browser)
