"""Reads requests for captions: multipart forms, or JSON with photos in base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from effcap.tools.serving.caption_service import Upload
from effcap.tools.serving.multipart_form import MultipartForm, too_large
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.sampler_settings import sampler_settings
from effcap.tools.serving.serve_options import ServeOptions

PHOTOS = "photos"
MAX_SETTINGS = 2**16  # bytes of JSON besides the contents of the photos
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


@dataclass(frozen=True)
class CaptionRequest:
    """A request for captions.

    Attributes:
        uploads: photos.
        preset: name of a captioner; None for the first.
        sampler: name of a sampler; None for that of the preset.
        prefix: text that captions continue; None for that of the preset.
        details: whether tokens are part of the answer.
        fields: fields of the sampler as given.
    """

    uploads: list[Upload]
    preset: str | None = None
    sampler: str | None = None
    prefix: str | None = None
    details: bool = False
    fields: dict[str, Any] = field(default_factory=dict)


async def read_request(
    content_type: str, body: AsyncIterator[bytes], options: ServeOptions
) -> CaptionRequest:
    """Reads the body of a request.

    Args:
        content_type: header of the request.
        body: the bytes as they arrive.
        options: limits.

    Raises:
        RequestError: the body has another format, is damaged or exceeds a limit.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = MultipartForm(content_type, options.max_photos, options.photo_bytes)
        async for chunk in body:
            form.feed(chunk)
        form.finish()
        return from_form(form)
    if kind == "application/json":
        data = bytearray()
        async for chunk in body:
            data += chunk
        return from_json(bytes(data), options)
    raise RequestError(
        415,
        "Expected a Content-Type of multipart/form-data or application/json. "
        f"Received: {kind[:80] or 'none'}",
    )


def from_form(form: MultipartForm) -> CaptionRequest:
    """Returns the request of a multipart form.

    Raises:
        RequestError: a photo is in another field than "photos", or a field is repeated.
    """
    for name, file_name, _ in form.files:
        if name != PHOTOS:
            raise RequestError(
                400,
                f'Expected photos in the field "{PHOTOS}". '
                f"Received: {file_name[:80]} in {name[:80]!r}",
            )
    uploads = [
        Upload(file_name or f"photo {number}", data)
        for number, (_, file_name, data) in enumerate(form.files, 1)
    ]
    values: dict[str, Any] = {}
    for name, text in form.fields:
        if name == PHOTOS:
            raise RequestError(
                400,
                'Expected files in the field "photos": with curl, -F photos=@dog.jpg. Paths and '
                "URLs are never opened. Received: text",
            )
        if name in values:
            values[name] = repeated(name, values[name], text)
        else:
            values[name] = text
    return make_request(uploads, values)


def repeated(name: str, former: Any, text: str) -> list[Any]:
    """Returns the values of a field that a form has several times.

    Raises:
        RequestError: it takes one value.
    """
    setting = sampler_settings().get(name)
    if setting is None or setting.kind not in ("integers", "texts"):
        raise RequestError(400, f"Expected one {name[:80]}. Received: several")
    return [*(former if isinstance(former, list) else [former]), text]


def from_json(data: bytes, options: ServeOptions) -> CaptionRequest:
    """Returns the request of a JSON body.

    Raises:
        RequestError: it is no such JSON, a photo is not base64, or something exceeds a limit.
    """
    # Photos have no commas, so that this bounds the objects which the parser makes of any body.
    values_at_most = sum(data.count(sign) for sign in (b",", b"[", b"{"))
    if values_at_most > MAX_SETTINGS + 4 * options.max_photos:
        raise settings_too_large()
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"Expected JSON. Received: {error}") from None
    if not isinstance(values, dict):
        raise RequestError(400, f"Expected a JSON object. Received: {type(values).__name__}")
    photos = values.pop(PHOTOS, None)
    if not isinstance(photos, list):
        raise RequestError(400, f'Expected a list "{PHOTOS}". Received: {type(photos).__name__}')
    if len(photos) > options.max_photos:
        raise RequestError(
            413,
            f"Expected at most {options.max_photos} photos per request. Received: {len(photos)}",
        )
    names = [photo.get("name", "") for photo in photos if isinstance(photo, dict)]
    try:
        settings = json.dumps([values, names], ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        reason = "Expected flat JSON with whole characters. Received: a surrogate, or deep nesting"
        raise RequestError(400, reason) from None
    if len(settings) > MAX_SETTINGS:
        raise settings_too_large()
    uploads = [decode_photo(photo, number, options) for number, photo in enumerate(photos, 1)]
    return make_request(uploads, values)


def settings_too_large() -> RequestError:
    """Returns the error for JSON with too much besides the photos."""
    return RequestError(
        413, f"Expected at most {MAX_SETTINGS} bytes of JSON besides the photos. Received: more"
    )


def decode_photo(photo: Any, number: int, options: ServeOptions) -> Upload:
    """Returns a photo of a JSON body: a text in base64, or an object with "name" and "data".

    Raises:
        RequestError: it has another form, is not base64 or too large.
    """
    name = f"photo {number}"
    if isinstance(photo, dict):
        name, photo = photo.get("name", name), photo.get("data")
    if not isinstance(photo, str) or not isinstance(name, str):
        raise RequestError(
            400, f'Expected photo {number} in base64, or {{"name": TEXT, "data": BASE64}}'
        )
    if photo.startswith("data:"):
        photo = photo.partition(",")[2]
    if len(photo) > options.photo_bytes * 4 / 3 + 4:
        raise too_large(name, options.photo_bytes)
    try:
        return Upload(name, base64.b64decode(photo, validate=True))
    except (binascii.Error, ValueError):
        reason = "expected base64. Paths and URLs are never opened"
        raise RequestError(400, f"Cannot read {name}: {reason}", [(name, reason)]) from None


def make_request(uploads: list[Upload], values: Mapping[str, Any]) -> CaptionRequest:
    """Returns a request of photos and other values.

    Raises:
        RequestError: there is no photo, or a value has another type.
    """
    if not uploads:
        raise RequestError(400, 'Expected at least one photo in "photos". Received: none')
    values = dict(values)
    texts: dict[str, str | None] = {}
    for name in ("preset", "sampler", "prefix"):
        texts[name] = values.pop(name, None)
        if texts[name] is not None and not isinstance(texts[name], str):
            raise RequestError(422, f"Expected {name} as a text. Received: {texts[name]!r:.80}")
    details = values.pop("details", False)
    if isinstance(details, str) and details.lower() in TRUE + FALSE:
        details = details.lower() in TRUE
    if not isinstance(details, bool):
        raise RequestError(422, f"Expected details as true or false. Received: {details!r:.80}")
    return CaptionRequest(uploads, **texts, details=details, fields=values)
