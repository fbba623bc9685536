"""A captioner without a network, and a client that calls an ASGI application directly."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from effcap.caption import Caption
from effcap.samplers import Sampler

BOUNDARY = "----a-boundary"


class FakeCaptioner:
    """Captions a photo of one color with the amounts of red, green and blue.

    Attributes:
        batches: (images, sampler, indices) of all calls.
        proceed: batches wait until it is set, as it is at first.
        error: raised by batches, if any.
    """

    def __init__(self) -> None:
        self.encoder = SimpleNamespace(
            input_keys=("images", "features"), image_size=(8, 8), fit="squash", resample=None
        )
        self.decoder = SimpleNamespace(max_text_length=16)
        self.tokenizer = SimpleNamespace(encode_prefix=lambda text: text.split())
        self.tokenizer.vocabulary_size = 100
        self.sampler: Sampler | None = None
        self.prefix = ""
        self.batches: list[tuple[np.ndarray, Sampler, list[int]]] = []
        self.proceed = threading.Event()
        self.proceed.set()
        self.error: Exception | None = None

    def generate_batch(
        self,
        inputs: Mapping[str, np.ndarray],
        sampler: Sampler,
        batch_size: int,
        indices: Sequence[int],
        *,
        prefix: str,
    ) -> list[list[Caption]]:
        images = inputs["images"]
        self.batches.append((images, sampler, list(indices)))
        assert self.proceed.wait(20)
        if self.error is not None:
            raise self.error
        count = getattr(sampler, "num_captions", 1)
        return [
            [
                Caption(" ".join([prefix, *color_words(image[0, 0])]).strip(), -1.0 - k, (1, 2))
                for k in range(count)
            ]
            for image in images
        ]


def color_words(pixel: Sequence[int]) -> list[str]:
    """Returns the caption of a color, by 16 levels as encoders of photos lose the last bits."""
    return [f"{name}{int(value) // 16}" for name, value in zip("rgb", pixel, strict=True)]


def photo_bytes(color: tuple[int, int, int] = (200, 40, 8), size: int = 16) -> bytes:
    """Returns a PNG of one color."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """Returns the body and the Content-Type of a form of (field, file name or None, contents)."""
    body = b""
    for name, file_name, data in parts:
        header = f'Content-Disposition: form-data; name="{name}"'
        if file_name is not None:
            header += f'; filename="{file_name}"\r\nContent-Type: image/png'
        body += f"--{BOUNDARY}\r\n{header}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


@dataclass
class Answer:
    """The answer of an application."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def call(
    app: Callable,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Calls an ASGI application as a server does.

    Args:
        app: application.
        method, path: of the request.
        body: bytes, or chunks as they arrive; after an `Ellipsis` in them nothing arrives.
        headers: headers besides Host.
    """
    chunks = [body] if isinstance(body, bytes) else list(body)
    given = {name.lower(): value for name, value in (headers or {}).items()}
    names = {"host": "127.0.0.1:7860", **given}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("127.0.0.1", 7860),
        "client": ("127.0.0.1", 50000),
        "headers": [(k.encode(), v.encode()) for k, v in names.items()],
    }
    answer = Answer()

    async def receive() -> dict[str, Any]:
        if not chunks or chunks[0] is ...:
            await asyncio.Event().wait()
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


async def post(app: Callable, body: Any, content_type: str = "application/json") -> Answer:
    """Posts a body, or a value as JSON, to /caption."""
    data = body if isinstance(body, bytes | list) else json.dumps(body).encode()
    return await call(app, "POST", "/caption", data, {"Content-Type": content_type})
