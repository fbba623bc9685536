"""The error raised for requests that cannot be answered."""

from __future__ import annotations

from collections.abc import Sequence


class RequestError(Exception):
    """A request is refused; becomes a JSON answer.

    Attributes:
        status: HTTP status, 400 to 599.
        reason: what is wrong and what to do.
        photos: (name, reason) of the photos that are wrong, if any.
        retry_after: seconds after which the client may try again, if that helps.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        photos: Sequence[tuple[str, str]] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.photos = list(photos)
        self.retry_after = retry_after

    def as_json(self) -> dict:
        """Returns the body of the answer."""
        body: dict = {"error": self.reason}
        if self.photos:
            body["photos"] = [{"name": name, "error": reason} for name, reason in self.photos]
        return body

    def headers(self) -> dict[str, str]:
        """Returns the headers of the answer besides those of its body."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
