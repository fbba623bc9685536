"""Options of the captioning server."""

from __future__ import annotations

from dataclasses import dataclass

from effcap.precision import EngineName, PrecisionName, check_engine

MEGABYTE = 2**20
LIMITS = (
    "queue_size", "max_photos", "max_upload", "max_request", "max_megapixels", "timeout",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Address and limits of the captioning server.

    Args:
        host: address to listen at. The default accepts connections of this machine only, 0.0.0.0
            those of the network.
        port: port to listen at, 0 for a free one.
        allow_host: names under which the server is reached besides localhost and addresses, such
            as that of a proxy. Requests for other names are refused, because a page of another
            site could send them.
        batch_size: photos captioned at once.
        engine: what runs presets: "keras", or "openvino", which is faster on a processor.
        precision: arithmetic of presets. "bfloat16" keeps the weights in half the memory, and
            "int8", with OpenVINO only, in a quarter.
        page: serve the page, which needs Gradio; otherwise only the endpoints.
        queue_size: photos that wait for a batch at most; further requests get status 503.
        max_photos: photos per request.
        max_upload: megabytes per photo.
        max_request: megabytes per request.
        max_megapixels: megapixels per photo.
        timeout: seconds that a request takes at most, with its upload; then its photos are dropped.

    Raises:
        ValueError: a value is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    allow_host: tuple[str, ...] = ()
    batch_size: int = 8
    engine: EngineName = "keras"
    precision: PrecisionName = "float32"
    page: bool = True
    queue_size: int = 256
    max_photos: int = 32
    max_upload: float = 20.0
    max_request: float = 100.0
    max_megapixels: float = 100.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        check_engine(self.engine, self.precision)
        for name in ("batch_size", "queue_size", "max_photos"):
            if getattr(self, name) < 1:
                self._refuse(name, "of at least 1")
        for name in ("max_upload", "max_request", "max_megapixels", "timeout"):
            if not 0 < getattr(self, name) < float("inf"):
                self._refuse(name, "above 0")
        if not 0 <= self.port <= 65535:
            self._refuse("port", "of 0 to 65535")
        if isinstance(self.allow_host, str):
            self._refuse("allow_host", "as a sequence of names")

    def _refuse(self, name: str, expected: str) -> None:
        raise ValueError(f"Expected {name} {expected}. Received: {getattr(self, name)}")

    @property
    def photo_bytes(self) -> int:
        """Maximum number of bytes of a photo."""
        return int(self.max_upload * MEGABYTE)

    @property
    def request_bytes(self) -> int:
        """Maximum number of bytes of a request."""
        return int(self.max_request * MEGABYTE)
