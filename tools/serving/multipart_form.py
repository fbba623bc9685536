"""Reads multipart forms part by part, with limits that hold while the bytes arrive."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from effcap.tools.serving.request_error import RequestError

MAX_FIELDS = 64
MAX_FIELD_BYTES = 2**16
MAX_HEADERS, MAX_HEADER_BYTES = 16, 2**13  # of a part


class MultipartForm:
    """The parts of a form: fields by name, and files.

    Args:
        content_type: header of the request, with the boundary.
        max_files: maximum number of files.
        max_file_bytes: maximum size of a file.

    Attributes:
        fields: (name, text) of each field.
        files: (field name, file name, contents) of each file.

    Raises:
        RequestError: the header has no boundary.
    """

    def __init__(self, content_type: str, max_files: int, max_file_bytes: int) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: list[tuple[str, str, bytes]] = []
        self._max_files, self._max_file_bytes = max_files, max_file_bytes
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise RequestError(400, "Expected a boundary in the Content-Type of a multipart form")
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise self._damaged(error) from None

    def feed(self, chunk: bytes) -> None:
        """Parses the next bytes of the body.

        Raises:
            RequestError: the form is damaged or exceeds a limit.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise self._damaged(error) from None

    def finish(self) -> None:
        """Checks that the body ended with the form.

        Raises:
            RequestError: it did not.
        """
        if not self._ended:
            raise RequestError(400, "The multipart form is truncated: its last boundary is missing")

    def _damaged(self, error: Exception) -> RequestError:
        return RequestError(400, f"The multipart form is damaged: {error}")

    def _begin_part(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._num_headers = self._num_header_bytes = 0
        self._header_name, self._header_value = b"", b""
        self._data = bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header_bytes(end - start)
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header_bytes(end - start)
        self._header_value += data[start:end]

    def _count_header_bytes(self, count: int) -> None:
        self._num_header_bytes += count
        if self._num_header_bytes > MAX_HEADER_BYTES:
            raise RequestError(
                413,
                f"Expected at most {MAX_HEADER_BYTES} bytes of headers in each part of the form. "
                "Received: more",
            )

    def _end_header(self) -> None:
        self._num_headers += 1
        if self._num_headers > MAX_HEADERS:
            raise RequestError(
                413,
                f"Expected at most {MAX_HEADERS} headers in each part of the form. Received: more",
            )
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name, self._header_value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name, file_name = options.get(b"name"), options.get(b"filename")
        if name is None:
            raise RequestError(400, "Expected a name in the Content-Disposition of each part")
        self._name = name.decode(errors="replace")
        self._file_name = None if file_name is None else file_name.decode(errors="replace")
        if self._file_name is not None and len(self.files) == self._max_files:
            raise RequestError(
                413, f"Expected at most {self._max_files} photos per request. Received: more"
            )
        if self._file_name is None and len(self.fields) == MAX_FIELDS:
            raise RequestError(413, f"Expected at most {MAX_FIELDS} fields. Received: more")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]
        is_file = self._file_name is not None
        limit = self._max_file_bytes if is_file else MAX_FIELD_BYTES
        if len(self._data) > limit:
            shown = self._file_name if is_file else f"the field {self._name}"
            raise too_large(shown or "a photo", limit)

    def _end_part(self) -> None:
        if self._file_name is None:
            self.fields.append((self._name, self._data.decode(errors="replace")))
        else:
            self.files.append((self._name, self._file_name, bytes(self._data)))
        self._data = bytearray()

    def _end(self) -> None:
        self._ended = True


def too_large(name: str, limit: int) -> RequestError:
    """Returns the error for a part with more bytes than its limit."""
    size = f"{limit / 2**20:g} MB" if limit >= 2**20 else f"{limit} bytes"
    reason = f"expected at most {size}. Received: more"
    return RequestError(413, f"{name} is too large: {reason}", [(name, reason)])
