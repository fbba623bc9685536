"""Refuses requests before the application sees them: other sites, other paths, too many bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.serve_options import ServeOptions

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# The paths that are served, by method; a name that ends with "/" stands for all paths below it.
# Gradio's other routes, which read files and fetch addresses, do not exist for clients.
GETS = (
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/assets/", "/static/",
    "/health", "/docs", "/openapi.json",
    "/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/startup-events",
    "/gradio_api/upload_progress", "/gradio_api/info", "/gradio_api/app_id",
)  # fmt: skip
POSTS = (
    "/caption", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel",
    "/gradio_api/reset",
)  # fmt: skip
UPLOADS = ("/caption", "/gradio_api/upload")
STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/upload_progress")
MAX_OTHER_BYTES = 2**20  # bodies of requests that upload nothing
MAX_BUFFERED_REQUESTS = 8  # uploads of the largest size that are in memory at once
DRAIN_SECONDS = 5.0

# The page runs Gradio's scripts, which evaluate code; nothing is loaded from anywhere else.
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' "
    "data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri "
    "'self'; form-action 'self'; frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware that limits who asks for what, and how many bytes are sent.

    Args:
        app: application behind it.
        options: limits.

    Attributes:
        closing: set when the server shuts down, which ends streams of events.
    """

    def __init__(self, app: App, options: ServeOptions) -> None:
        self.app, self.options = app, options
        self.closing = asyncio.Event()
        self._hosts = {"localhost", *(name.lower().rstrip(".") for name in options.allow_host)}
        self._buffered = 0  # bytes of uploads that are in memory

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            headers = request_headers(scope)
            self.check_host(headers)
            check_origin(headers)
            check_path(scope["method"], scope["path"])
        except RequestError as error:
            await answer(send, error)
            return
        body = Body(self, scope, headers, receive)
        try:
            await self._forward(scope, body, send)
        finally:
            self._buffered -= body.size

    async def _forward(self, scope: Message, body: Body, send: Send) -> None:
        """Runs the application; answers in its place if the body exceeds a limit."""
        started = finished = False

        async def send_guarded(message: Message) -> None:
            nonlocal started, finished
            if body.error is not None and not started:
                return
            if message["type"] == "http.response.start":
                started = True
                names = {name.lower() for name, _ in message.get("headers", ())}
                added = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message = {
                    **message,
                    "headers": [
                        *message.get("headers", ()),
                        *(pair for pair in added if pair[0] not in names),
                    ],
                }
            elif not message.get("more_body", False):
                finished = True
            await send(message)

        task = asyncio.ensure_future(self.app(scope, body.receive, send_guarded))
        tasks: list[asyncio.Future] = [task]
        if scope["path"].startswith(STREAMS):
            tasks.append(asyncio.ensure_future(self.closing.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in tasks:
                one.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if body.error is not None and not started:
            await body.drain()
            await answer(send, body.error)
        elif isinstance(results[0], Exception):
            raise results[0]
        elif started and not finished:  # a stream that the shutdown ends
            await send({"type": "http.response.body", "body": b""})

    def check_host(self, headers: dict[str, str]) -> None:
        """Checks the name by which the server was addressed.

        A page of another site can make a name of its own point to this machine (DNS rebinding); it
        cannot do so with an address or with localhost.

        Raises:
            RequestError: it is another name.
        """
        name = host_name(headers.get("host", ""))
        if name in self._hosts or is_address(name):
            return
        raise RequestError(
            403,
            f"The server does not answer to the name {name[:80] or '(none)'}. Start it with "
            "--allow-host NAME if this is its name",
        )

    def take(self, count: int) -> bool:
        """Reserves memory for the bytes of an upload; returns whether there is room."""
        if self._buffered + count > MAX_BUFFERED_REQUESTS * self.options.request_bytes:
            return False
        self._buffered += count
        return True


class Body:
    """The body of a request, counted and timed while it arrives.

    Attributes:
        size: bytes that were received.
        error: limit that was exceeded, if any.
    """

    def __init__(
        self, guard: Guard, scope: Message, headers: dict[str, str], receive: Receive
    ) -> None:
        self._guard, self._receive = guard, receive
        options = guard.options
        is_upload = scope["path"] in UPLOADS
        self._limit = options.request_bytes if is_upload else MAX_OTHER_BYTES
        if headers.get("content-type", "").startswith("application/json") and is_upload:
            self._limit = self._limit * 4 // 3 + MAX_OTHER_BYTES  # base64
        self._deadline = time.monotonic() + options.timeout
        self._complete = False
        self.size = 0
        self.error: RequestError | None = None
        length = headers.get("content-length", "0")
        self._announced = int(length) if length.isdigit() else 0

    async def receive(self) -> Message:
        """Receives the next message, as an ASGI application does."""
        if self._complete:
            return await self._receive()
        if self._announced > self._limit:
            return self._refuse(self._too_large())
        try:
            left = max(self._deadline - time.monotonic(), 0.001)
            message = await asyncio.wait_for(self._receive(), left)
        except (TimeoutError, asyncio.TimeoutError):
            seconds = self._guard.options.timeout
            return self._refuse(
                RequestError(408, f"The request did not arrive within {seconds:g} seconds")
            )
        if message["type"] != "http.request":
            return message
        self._complete = not message.get("more_body", False)
        count = len(message.get("body", b""))
        if self.size + count > self._limit:
            return self._refuse(self._too_large())
        if not self._guard.take(count):
            return self._refuse(
                RequestError(503, "Too many uploads at once. Try again", retry_after=5)
            )
        self.size += count
        return message

    async def drain(self) -> None:
        """Discards the rest of the body, so that the client reads the answer; not for long."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not self._complete and self.error is not None and self.error.status != 408:
            try:
                left = max(deadline - time.monotonic(), 0.001)
                message = await asyncio.wait_for(self._receive(), left)
            except (TimeoutError, asyncio.TimeoutError):
                return
            self._complete = not message.get("more_body", False)

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"Expected a request of at most {self._limit / 2**20:.4g} MB. Received: more"
        )

    def _refuse(self, error: RequestError) -> Message:
        self.error = error
        return {"type": "http.disconnect"}


def request_headers(scope: Message) -> dict[str, str]:
    """Returns the headers of a request by name.

    Raises:
        RequestError: there are several Host or Origin headers.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in headers and key in ("host", "origin", "content-length", "content-type"):
            raise RequestError(400, f"Expected one header {key}. Received: several")
        headers[key] = value.decode("latin-1")
    return headers


def host_name(host: str) -> str:
    """Returns the name or address in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Returns whether a host is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_origin(headers: dict[str, str]) -> None:
    """Checks that a request of a browser comes from the server's own page.

    Raises:
        RequestError: it comes from another site.
    """
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and origin is None
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise RequestError(403, f"Pages of {origin[:80]} cannot use this server")
    if site not in ("none", "same-origin") and not is_navigation:
        raise RequestError(403, "Pages of other sites cannot use this server")


def check_path(method: str, path: str) -> None:
    """Checks that a path is served.

    Raises:
        RequestError: it is not, or not by this method.
    """
    allowed = {"GET": GETS, "HEAD": GETS, "POST": POSTS}
    if matches(path, allowed.get(method, ())):
        return
    methods = [name for name, paths in allowed.items() if matches(path, paths)]
    if methods:
        raise RequestError(405, f"{path[:80]} takes {' and '.join(methods)}. Received: {method}")
    raise RequestError(404, f"There is nothing at {path[:80]}")


def matches(path: str, names: tuple[str, ...]) -> bool:
    """Returns whether a path is one of the names or below one that ends with "/"."""
    if ".." in path or "\\" in path or "//" in path:
        return False
    return any(path == name or (name[1:].endswith("/") and path.startswith(name)) for name in names)


async def answer(send: Send, error: RequestError) -> None:
    """Sends the JSON answer of an error and closes the connection."""
    body = json.dumps(error.as_json()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **HEADERS,
        **error.headers(),
    }
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
