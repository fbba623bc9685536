"""Starts and stops the captioning server."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any

from effcap.tools.serving.guard import Guard
from effcap.tools.serving.serve_options import ServeOptions
from effcap.utils.progress import print_line

if TYPE_CHECKING:
    from effcap.caption_generator import CaptionGenerator
    from effcap.tools.serving.caption_service import CaptionService

PACKAGES = ("fastapi", "uvicorn", "python_multipart")
PAGE_PACKAGES = ("gradio",)
MAX_CONNECTIONS = 500
NOT_STARTED = "the application did not start; the lines above say why"


def serve(
    captioners: Any = "flickr8k-lite0",
    options: ServeOptions | None = None,
    *,
    block: bool = True,
) -> Server:
    """Serves captioners: a page to drop photos on, and an endpoint.

    The server listens at `options.host`, by default for this machine only, and has no passwords.

    Args:
        captioners: a captioner, or the name or folder of a preset; or several of them, as a
            sequence of presets or a mapping from names to captioners or presets.
        options: address and limits. Default `ServeOptions()`.
        block: serve until the process is interrupted or terminated. Otherwise return at once, as in
            a notebook; call `close` on the server.

    Returns:
        The server, stopped if `block` is True.

    Raises:
        ImportError: the packages of the extra "serve", or of "api" without the page, are not
            installed.
        OSError: the address cannot be used.
        ValueError: a captioner does not take photos.

    Example:

    ```python
    server = effcap.tools.serve(captioner, ServeOptions(port=0), block=False)
    print(server.url)
    server.close()
    ```
    """
    server = Server(captioners, options or ServeOptions())
    server.start()
    if block:
        server.wait()
    return server


def load_captioners(captioners: Any, options: ServeOptions) -> dict[str, CaptionGenerator]:
    """Returns captioners by name, and loads those that are presets.

    Args:
        captioners: as in `serve`.
        options: names the engine and the precision of presets.

    Raises:
        FileNotFoundError, ValueError: a preset is missing or damaged, or two have the same name.
    """
    from effcap.tools.captioning.results import load_captioner

    return {
        name: load_captioner(one, precision=options.precision, engine=options.engine)
        for name, one in named_captioners(captioners).items()
    }


def named_captioners(captioners: Any) -> dict[str, Any]:
    """Returns captioners or presets by name.

    Raises:
        ValueError: two have the same name.
    """
    from effcap.tools.captioning.results import model_name

    if isinstance(captioners, Mapping):
        return dict(captioners)
    if isinstance(captioners, str | PathLike) or not isinstance(captioners, Sequence):
        captioners = [captioners]
    named: dict[str, Any] = {}
    for one in captioners:
        name = model_name(one) if isinstance(one, str | PathLike) else one.name
        if name in named:
            raise ValueError(f"Expected presets of different names. Received: {name} twice")
        named[name] = one
    return named


def create_app(service: CaptionService) -> Guard:
    """Returns the application with the endpoints and, by its options, the page.

    Args:
        service: captions the photos.
    """
    from effcap.tools.serving.api import add_start, create_api

    api = create_api(service)
    if not service.options.page:
        return Guard(add_start(api), service.options)
    from effcap.tools.serving.page_app import mount_page

    return Guard(mount_page(api, service), service.options)


class Server:
    """A captioning server in a thread of its own.

    Args:
        captioners, options: as in `serve`.
    """

    def __init__(self, captioners: Any, options: ServeOptions) -> None:
        check_packages(options.page)
        self.options = options
        self._socket = listen(options.host, options.port)
        self.host, self.port = self._socket.getsockname()[:2]
        try:
            from effcap.tools.serving.caption_service import CaptionService

            self.service = CaptionService(load_captioners(captioners, options), options)
            self.service.compile()
            self._app = create_app(self.service)
        except BaseException:
            self._socket.close()
            raise
        self._stop, self._abort = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    @property
    def url(self) -> str:
        """Address of the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{self.port}"

    def start(self) -> None:
        """Starts serving, and prints the address."""
        self._thread.start()
        print_line(f"Serving {', '.join(self.service.captioners.names)} at {self.url}")
        print_line(f"POST photos to {self.url}/caption, described at {self.url}/docs")

    def wait(self) -> None:
        """Serves until SIGINT or SIGTERM, then stops as `close` does; another one cuts requests."""

        def stop(*_: object) -> None:
            if self._abort.is_set():
                raise KeyboardInterrupt
            (self._abort if self._stop.is_set() else self._stop).set()

        former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        print_line("Press Ctrl+C to stop")
        try:
            while self._thread.is_alive() and not self._stop.wait(0.5):
                pass
            if self._thread.is_alive():
                print_line("Finishing the requests that run. Press Ctrl+C again to cut them")
        finally:
            self.close()
            for number, handler in former.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Stops accepting requests, finishes those that run, and stops.

        Requests take at most `options.timeout` seconds. Photos that a page still captions are
        dropped.

        Raises:
            RuntimeError: the server had failed.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.service.close()
        self._socket.close()
        if self._failure is not None:
            raise RuntimeError(f"The server failed: {self._failure}") from self._failure

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except SystemExit:  # raised by Uvicorn
            self._failure = RuntimeError(NOT_STARTED)
        except BaseException as error:
            self._failure = error

    async def _serve(self) -> None:
        import uvicorn

        from effcap.tools.serving.connection import TimedProtocol

        config = uvicorn.Config(
            self._app,
            http=TimedProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(self.options.timeout) + 1,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        while not serving.done() and not self._stop.is_set():
            await asyncio.wait([serving], timeout=0.1)
        self._app.closing.set()
        server.should_exit = True
        while not serving.done() and not self._abort.is_set():
            await asyncio.wait([serving], timeout=0.1)
        if not serving.done():
            logging.getLogger("uvicorn.error").disabled = True  # logs each request that is cut
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return
        await serving
        if not server.started:
            raise RuntimeError(NOT_STARTED)


def check_packages(page: bool = True) -> None:
    """Checks that the packages of the extra "serve" are installed.

    Args:
        page: whether those of the page are needed, too; without, the extra "api" is enough.

    Raises:
        ImportError: they are not.
    """
    import importlib.util

    specs = {
        name: importlib.util.find_spec(name)
        for name in (*PACKAGES, *(PAGE_PACKAGES if page else ()))
    }
    # A folder of that name in the current one has a specification without a file.
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        extra = "serve" if page else "api"
        hint = "; or --no-page, for the endpoints alone" if missing == [*PAGE_PACKAGES] else ""
        raise ImportError(
            f"The server requires further packages: pip install 'effcap[{extra}]' "
            f"(missing: {', '.join(missing)}){hint}"
        )


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address.

    Raises:
        OSError: the address is in use, not allowed or unknown.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"Expected the name or address of this machine as host. "
                      f"Received: {host} ({error})") from None  # fmt: skip
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(
            f"Cannot listen at {host}, port {port}: {reason}. Choose another --host or --port "
            "(0 for a free one)"
        ) from None
    return listener
