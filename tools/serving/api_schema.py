"""JSON schemas of requests and answers, with the fields of the samplers."""

from __future__ import annotations

from typing import Any

from effcap.samplers.registry import SAMPLERS
from effcap.tools.serving.caption_service import CaptionService
from effcap.tools.serving.sampler_settings import sampler_settings

CAPTION = {
    "type": "object",
    "required": ["text", "score", "confidence", "is_finished"],
    "properties": {
        "text": {"type": "string"},
        "score": {"type": "number", "description": "Log-probability in nats."},
        "confidence": {
            "type": "number",
            "description": "Geometric mean of the probabilities of the tokens, in 0..1.",
        },
        "is_finished": {
            "type": "boolean",
            "description": "False if max_new_tokens cut the caption.",
        },
        "tokens": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "token": {"type": "integer"},
                    "text": {"type": "string"},
                    "score": {"type": "number"},
                },
            },
            "description": "The generated tokens with their log-probabilities, with details.",
        },
    },
}
ANSWER = {
    "type": "object",
    "required": ["captions", "scores", "photos", "preset", "sampler", "prefix"],
    "properties": {
        "captions": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The best caption of each photo.",
        },
        "scores": {
            "type": "array",
            "items": {"type": "number"},
            "description": "The score of each of them.",
        },
        "photos": {
            "type": "array",
            "description": "All captions of each photo, best first.",
            "items": {
                "type": "object",
                "required": ["name", "captions"],
                "properties": {
                    "name": {"type": "string"},
                    "captions": {"type": "array", "items": CAPTION},
                },
            },
        },
        "preset": {"type": "string"},
        "sampler": {"type": "object", "description": "The sampler with all its fields."},
        "prefix": {"type": "string"},
    },
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "photos": {
            "type": "array",
            "description": "The photos that are wrong.",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "error": {"type": "string"}},
            },
        },
    },
}
STATUSES = {
    "400": "The body is damaged or has no photos.",
    "403": "A page of another site sent the request, or the server was addressed by another name.",
    "408": "The request did not arrive in time.",
    "413": "There are too many bytes or photos.",
    "415": "The Content-Type is neither multipart/form-data nor application/json.",
    "422": "A photo cannot be read, or a setting is wrong. No photo was captioned.",
    "503": "The queue is full; Retry-After says when to try again.",
    "504": "The captions took too long and were dropped.",
}


def caption_schema(service: CaptionService) -> dict[str, Any]:
    """Returns the OpenAPI description of requests to POST /caption and their answers."""
    settings = setting_schemas(service)
    options = service.options
    photos = {
        "type": "array",
        "minItems": 1,
        "maxItems": options.max_photos,
        "description": f"Image files of at most {options.max_upload:g} MB and "
        f"{options.max_megapixels:g} megapixels each.",
    }
    files = {**photos, "items": {"type": "string", "format": "binary"}}
    data = {"type": "string", "contentEncoding": "base64"}
    named = {
        "type": "object",
        "required": ["data"],
        "properties": {"name": {"type": "string"}, "data": data},
    }
    encoded = {**photos, "items": {"anyOf": [data, named]}}
    responses: dict[str, Any] = {
        status: {"description": text, "content": {"application/json": {"schema": ERROR}}}
        for status, text in STATUSES.items()
    }
    responses["200"] = {
        "description": "The captions, in the order of the photos.",
        "content": {"application/json": {"schema": ANSWER}},
    }

    def content(field: dict[str, Any]) -> dict[str, Any]:
        properties = {"photos": field, **settings}
        return {"schema": {"type": "object", "required": ["photos"], "properties": properties}}

    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": content(files),
                "application/json": content(encoded),
            },
        },
        "responses": dict(sorted(responses.items())),
    }


def setting_schemas(service: CaptionService) -> dict[str, Any]:
    """Returns the schema of each setting of a request besides its photos."""
    names = service.captioners.names
    return {
        "preset": {
            "type": "string",
            "enum": names,
            "default": names[0],
            "description": "Preset that captions.",
        },
        "sampler": {
            "type": "string",
            "enum": list(SAMPLERS),
            "description": "Sampler; that of the preset if neither it nor its fields are given, "
            "otherwise beam.",
        },
        "prefix": {"type": "string", "description": "Text that captions begin with and continue."},
        "details": {
            "type": "boolean",
            "default": False,
            "description": "Whether captions have their tokens and the log-probabilities of these.",
        },
        **{name: setting.schema() for name, setting in sampler_settings().items()},
    }
