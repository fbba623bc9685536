"""Guards the files of the page: refuses others than its uploads, and uploads beyond a limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effcap.tools.serving.guard import App, Message, Receive, Send, answer
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.upload_folder import MAX_BYTES, delete_old_files

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"
RETRY_AFTER = 600  # seconds


class PageFiles:
    """ASGI middleware before Gradio, which copies any file and address named in a mounted app.

    Args:
        app: application with the page.
        folder: folder of the uploads of the page.
    """

    def __init__(self, app: App, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == UPLOAD and await self.is_full():
            await discard(receive)
            await answer(send, full())
            return
        if scope["type"] != "http" or scope["path"] != JOIN:
            await self.app(scope, receive, send)
            return
        body, complete = bytearray(), False
        while not complete:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            complete = not message.get("more_body", False)
        try:
            self.check(bytes(body))
        except RequestError as error:
            await answer(send, error)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)

    async def is_full(self) -> bool:
        """Returns whether the uploads of the last hour take too much; older ones are deleted.

        Gradio deletes old files too, except those of uploads that broke off.
        """
        return await asyncio.to_thread(delete_old_files, self.folder) > MAX_BYTES

    def check(self, body: bytes) -> None:
        """Checks all files that a body names, wherever they are in it.

        Raises:
            RequestError: the body is not JSON, or names a file that was not uploaded.
        """
        try:
            paths = list(named_files(json.loads(body)))
        except (ValueError, RecursionError):
            raise RequestError(400, "Expected JSON") from None
        for path in paths:
            if not self.is_upload(path):
                raise RequestError(
                    403, "Only files that were uploaded to the page can be captioned"
                )

    def is_upload(self, path: Any) -> bool:
        """Returns whether a path is that of an uploaded file."""
        if not isinstance(path, str):
            return False
        try:
            resolved = Path(path).resolve()
            return resolved.is_relative_to(self.folder) and resolved.is_file()
        except (OSError, ValueError, RuntimeError):  # too long, a null character, a loop of links
            return False


async def discard(receive: Receive) -> None:
    """Receives the body of a request, so that the client reads the answer."""
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await receive()


def full() -> RequestError:
    """Returns the error for a folder of uploads that is full."""
    reason = f"The photos of the last hour take more than {MAX_BYTES / 2**30:g} GB. Try again later"
    return RequestError(503, reason, retry_after=RETRY_AFTER)


def named_files(value: Any) -> Iterator[Any]:
    """Yields the values of all keys "path" in a JSON value."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from named_files(item)
