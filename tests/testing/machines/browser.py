"""Headless Chromium, driven over its DevTools protocol: what a person would do, by its own mouse, keys and files."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from testing.machines.namespaces import require_commands

LIMIT_S, START_LIMIT_S = 30, 60
NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-port=0",
)  # fmt: skip
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Enter": 13, " ": 32}


class Page:
    """One tab. `requests`: the addresses it has asked for. `faults`: of its scripts, and what its policy forbade."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requests: list[str] = []
        self.faults: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Takes what the browser sends, until it ends."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._asked.pop(told["id"]).set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(told["params"]["exceptionDetails"]))
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["source"] != "network":
                self.faults.append(told["params"]["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its result."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await asyncio.wait_for(answer, LIMIT_S)
        assert "error" not in told, f"{method}: {told['error']}"
        return told["result"]

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression: str) -> None:
        """Returns once an expression is true."""
        for _ in range(LIMIT_S * 20):
            if await self.value(f"Boolean({expression})"):
                return
            await asyncio.sleep(0.05)
        text = await self.value("document.body.innerText")
        raise AssertionError(f"after {LIMIT_S} s not so: {expression}; the page says: {text}")

    async def text(self, selector: str) -> str:
        """The visible text of an element."""
        return await self.value(f"document.querySelector({selector!r}).innerText.trim()")

    async def box(self, selector: str) -> Mapping[str, float]:
        """Where an element is in the window: left, top, width, height; it is scrolled there first."""
        return await self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); return e.getBoundingClientRect().toJSON() }})"
            f"(document.querySelector({selector!r}))"
        )

    async def mouse(self, kind: str, x: float, y: float, pressed: bool = True) -> None:
        """mousePressed, mouseMoved or mouseReleased of the left button."""
        await self.call(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=int(pressed), clickCount=1
        )

    async def click(self, selector: str) -> None:
        """In the middle of an element."""
        box = await self.box(selector)
        x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
        await self.mouse("mousePressed", x, y)
        await self.mouse("mouseReleased", x, y, pressed=False)

    async def press(self, key: str) -> None:
        """A key, down and up."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    async def choose(self, selector: str, file: Path) -> None:
        """A file in the dialogue of a field."""
        root = await self.call("DOM.getDocument", depth=0)
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])

    async def drop(self, selector: str, *files: Path) -> None:
        """Files, dragged from elsewhere onto an element."""
        box = await self.box(selector)
        x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
        data = {"items": [], "files": list(map(str, files)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    async def window(self, width: int, height: int, phone: bool = False, dark: bool = False) -> None:
        """Another size of the window, and other wishes of the person before it."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[wish])

    async def screenshot(self, file: Path) -> None:
        """The whole page as a PNG."""
        shown = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shown["data"]))


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Page]:
    """A page in a browser of its own, which ends with it. Skips the test where no browser can be had."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        require_commands(NAMES[:1], NAMES[:1])
        program = NAMES[0]
    profile = Path(tempfile.mkdtemp(prefix="idc-browser-"))
    environment = os.environ | {"HOME": str(profile)}
    browser = subprocess.Popen(
        [program, *SWITCHES, f"--user-data-dir={profile}", "about:blank"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(profile, browser)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tab = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Network", "Runtime", "Log", "DOM"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=address)
                await page.until(f"location.href === {address!r} && document.readyState === 'complete'")
                yield page
                listening.cancel()
    finally:
        browser.kill()
        browser.wait(LIMIT_S)
        shutil.rmtree(profile, ignore_errors=True)


async def _port(profile: Path, browser: subprocess.Popen) -> int:
    file = profile / "DevToolsActivePort"
    for _ in range(START_LIMIT_S * 20):
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        assert browser.poll() is None, f"the browser ended with exit code {browser.returncode}"
        await asyncio.sleep(0.05)
    raise AssertionError(f"the browser does not answer after {START_LIMIT_S} s")
