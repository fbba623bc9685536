"""The HTTP endpoints: POST /caption, GET /health and their documentation."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.requests import ClientDisconnect

from effcap.caption import Caption
from effcap.samplers.registry import to_config
from effcap.tools.serving.api_docs import docs_page
from effcap.tools.serving.api_schema import caption_schema
from effcap.tools.serving.caption_request import CaptionRequest, read_request
from effcap.tools.serving.caption_service import CaptionService
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.served_captioners import CaptionSettings
from effcap.version import __version__

Result = TypeVar("Result")
CLIENT_CLOSED = 499  # nginx's status of requests whose client left; nobody receives it


def create_api(service: CaptionService) -> FastAPI:
    """Returns the application with the endpoints, without the page.

    Args:
        service: captions the photos.
    """
    app = FastAPI(
        title="EffCap",
        version=__version__,
        description="Captions photos.",
        docs_url=None,  # FastAPI's pages load scripts from the internet
        redoc_url=None,
    )

    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.status, error.headers())

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "The server failed; its log says why"}, 500)

    @app.post(
        "/caption",
        summary="Captions photos",
        openapi_extra=caption_schema(service),
        response_class=JSONResponse,
    )
    async def caption(request: Request) -> JSONResponse:
        return JSONResponse(await answer_caption(request, service))

    @app.get("/health", summary="Reports the state of the server")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "presets": service.captioners.names,
            "queue": service.batcher.num_waiting,
            "running": service.batcher.num_running,
            "version": __version__,
        }

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), service))

    return app


def add_start(app: FastAPI) -> FastAPI:
    """Makes the documentation of the endpoints what is served at /, and returns the application."""

    @app.get("/", include_in_schema=False)
    async def start() -> RedirectResponse:
        return RedirectResponse("docs")

    return app


async def answer_caption(request: Request, service: CaptionService) -> dict[str, Any]:
    """Returns the JSON answer of a request for captions.

    Raises:
        RequestError: the request is wrong, a photo cannot be read, the queue is full, or it takes
            too long.
    """

    started, timeout = time.monotonic(), service.options.timeout
    content_type = request.headers.get("content-type", "")
    try:
        wanted = await read_request(content_type, request.stream(), service.options)
    except ClientDisconnect:
        raise RequestError(CLIENT_CLOSED, "The client has disconnected") from None
    settings = service.captioners.settings(
        wanted.preset, wanted.sampler, wanted.fields, wanted.prefix
    )
    left = timeout - (time.monotonic() - started)
    try:
        work = until_disconnected(request, service.caption(settings, wanted.uploads))
        captions = await asyncio.wait_for(work, left)
    except (TimeoutError, asyncio.TimeoutError):
        raise RequestError(504, f"The captions took longer than {timeout:g} seconds") from None
    return caption_json(wanted, settings, captions)


async def until_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits work, and cancels it if the client disconnects.

    Raises:
        RequestError: the client has disconnected.
    """

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks: list[asyncio.Task] = [asyncio.create_task(work), asyncio.create_task(disconnect())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise RequestError(CLIENT_CLOSED, "The client has disconnected")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def caption_json(
    request: CaptionRequest, settings: CaptionSettings, captions: list[list[Caption]]
) -> dict[str, Any]:
    """Returns the answer to a request; see `ANSWER` in `api_schema`."""
    return {
        "captions": [found[0].text for found in captions],
        "scores": [found[0].score for found in captions],
        "photos": [
            {
                "name": upload.name,
                "captions": [one_caption(caption, request.details) for caption in found],
            }
            for upload, found in zip(request.uploads, captions, strict=True)
        ],
        "preset": settings.preset,
        "sampler": to_config(settings.sampler),
        "prefix": settings.prefix,
    }


def one_caption(caption: Caption, details: bool) -> dict[str, Any]:
    """Returns the entry of a caption."""
    entry: dict[str, Any] = {
        "text": caption.text,
        "score": caption.score,
        "confidence": caption.confidence,
        "is_finished": caption.is_finished,
    }
    if details:
        entry["tokens"] = [dataclasses.asdict(detail) for detail in caption.details]
    return entry
