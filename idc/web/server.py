"""The page over HTTP, for browsers of this machine alone.

It listens on the loopback address. What reaches it all the same are other sites' pages in the same browser: under a
name of theirs that leads here (DNS rebinding) or by forms sent here (CSRF). So a request must name a loopback host, and
one that comes from a page must come from ours. Nothing that a client sends is a path or an address; the pictures it
sends are kept until they are answered, and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from idc.backbone.pixels import PIXEL_LIMIT
from idc.captioner import Captioner, ImageError
from idc.web import answers
from idc.web.examples import Example
from idc.web.uploads import Limits, Refused, read_images

HOSTS = ("localhost", "127.0.0.1", "::1")  # under any port: an SSH tunnel begins at another
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}  # fmt: skip


def make_app(
    captioner: Captioner, name: str, examples: Sequence[Example] = (), limits: Limits | None = None
) -> web.Application:
    """The application. name: of the model, as the page shows it."""
    app = web.Application(middlewares=[_guard])
    app.on_response_prepare.append(_add_headers)
    for path, (file, kind) in FILES.items():
        app.router.add_get(path, _sender(resources.files("idc.web").joinpath(file).read_text("utf-8"), kind))
    _Pairs(captioner, name, examples, limits or Limits()).add_to(app)
    return app


class _Pairs:
    """What is asked of the model."""

    def __init__(self, captioner: Captioner, name: str, examples: Sequence[Example], limits: Limits) -> None:
        self._captioner, self._name, self._examples, self._limits = captioner, name, examples, limits
        self._threads = ThreadPoolExecutor(limits.working, "pair")
        self._held = 0  # requests whose images are in memory

    def add_to(self, app: web.Application) -> None:
        """Its addresses, and its end."""
        app.router.add_get("/about", self.about)
        app.router.add_post("/caption", self.caption)
        app.router.add_post(r"/examples/{number:\d{1,3}}", self.example)
        app.on_cleanup.append(self._end)

    async def about(self, request: web.Request) -> web.Response:
        """What the page shows before anything is asked."""
        examples = [{"name": one.name, "thumbnails": one.thumbnails} for one in self._examples]
        limits = {"bytes": self._limits.image_bytes, "pixels": PIXEL_LIMIT}
        return web.json_response({"model": self._name, "limits": limits, "examples": examples})

    async def caption(self, request: web.Request) -> web.Response:
        """The answer to two images."""

        def made() -> dict[str, Any]:
            return answers.answer(self._captioner, answers.read(before, "before"), answers.read(after, "after"))

        async with self._place():
            before, after = await read_images(request, self._limits)
            return await self._made(made)

    async def example(self, request: web.Request) -> web.Response:
        """The answer to an example."""
        number = int(request.match_info["number"])
        if number >= len(self._examples):
            raise Refused(404, "there is no such example")

        def made() -> dict[str, Any]:
            return answers.answer(self._captioner, *self._examples[number].pixels())

        async with self._place():
            return await self._made(made)

    async def _made(self, make: Callable[[], dict[str, Any]]) -> web.Response:
        try:
            return web.json_response(await asyncio.get_running_loop().run_in_executor(self._threads, make))
        except ImageError as error:
            raise Refused(422, str(error)) from None

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among those who wait; Refused where there is none, and after the limit of time."""
        if self._held >= self._limits.waiting:
            raise Refused(503, f"{self._held} pairs are waiting already: try again in a moment")
        self._held += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                yield
        except TimeoutError:
            raise Refused(
                503, f"no answer within {self._limits.seconds:g} s: try again, or with smaller images"
            ) from None
        finally:
            self._held -= 1

    async def _end(self, app: web.Application) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _sender(text: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def send(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return send


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        _check_sender(request)
        return await handler(request)
    except Refused as refused:
        return web.json_response({"error": str(refused)}, status=refused.status)


def _check_sender(request: web.Request) -> None:
    """Refused: the request names another host than this machine, or comes from the page of another site."""
    host = request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in HOSTS:
        raise Refused(403, "this page is for browsers of its own machine: open it as 127.0.0.1 or localhost")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise Refused(403, "this came from the page of another site")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
