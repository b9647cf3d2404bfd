"""A headless Chromium without a network that keeps running: windows of any size, dark pages, paper, measured layout.

    page = browser.open(report, width=390, height=844, dark=True)
    page.value("document.documentElement.scrollWidth")

It is spoken to through two pipes (Chrome DevTools Protocol, one JSON text and a zero byte a message), so that nothing
is needed but the browser. `--dump-dom` of `test_browser` can only look at one window, and once.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a graphics card
    *("--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"),  # no network
]
PATIENCE = 120  # seconds
NO_WEBGL = """{
  const whole = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    return kind.startsWith("webgl") ? null : whole.call(this, kind, ...rest);
  };
}"""


class Browser:
    """One Chromium; `close` ends it."""

    def __init__(self, profile: Path) -> None:
        (to_read, self._tell), (self._hear, to_write) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_read, to_write)]
        actions = [
            *((os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (1, 2)),
            *((os.POSIX_SPAWN_DUP2, end, number) for end, number in zip(ends, (3, 4))),
        ]
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)
        for end in (to_read, to_write, *ends):
            os.close(end)
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """The answer to one command; what the browser tells meanwhile is kept in `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told}"
                return told["result"]
            self.events.append(told)

    def wait_for(self, event: str) -> None:
        while not any(told.get("method") == event for told in self.events):
            self.events.append(self._next())

    def open(
        self, file: Path, width: int = 1280, height: int = 720, dark: bool = False, webgl: bool = True
    ) -> "Page":
        """A new window of that size on a file, loaded; without `webgl` no time goes into three-dimensional pictures."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        page.ask("Page.enable")
        page.window(width, height)
        page.media(dark=dark)
        if not webgl:
            page.ask("Page.addScriptToEvaluateOnNewDocument", source=NO_WEBGL)
        self.events.clear()
        page.ask("Page.navigate", url=file.as_uri())
        self.wait_for("Page.loadEventFired")
        return page

    def close(self) -> None:
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        for end in (self._tell, self._hear):
            os.close(end)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            waiting, _, _ = select.select([self._hear], [], [], PATIENCE)
            heard = os.read(self._hear, 1 << 20) if waiting else b""
            assert heard, "the browser ended, or said nothing for long"
            self._rest += heard
        text, self._rest = self._rest.split(b"\0", 1)
        told: dict[str, Any] = json.loads(text)
        return told


class Page:
    """One window."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target

    def ask(self, method: str, **parameters: Any) -> Any:
        return self.browser.ask(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON; promises are waited for."""
        told = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def window(self, width: int, height: int) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def media(self, dark: bool = False, paper: bool = False) -> None:
        """What the page believes to be shown on: a dark or light screen, or paper."""
        self.ask(
            "Emulation.setEmulatedMedia",
            media="print" if paper else "screen",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def press(self, key: str) -> None:
        """A key as a hand presses it, wherever the focus is."""
        codes = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        given: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes[key]}
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, **given)

    def paper(self) -> bytes:
        """The page as a PDF file, A4."""
        self.ask("Emulation.setEmulatedMedia", media="")  # the browser itself says what paper is like
        told = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(told["data"])

    def close(self) -> None:
        self.browser.ask("Target.closeTarget", targetId=self.target)
