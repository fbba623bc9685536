"""Reads TensorBoard event files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image


def read_events(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Returns (step, value) pairs of the scalars, images and texts of event files by tag."""
    from tensorboardX.proto.event_pb2 import Event

    events: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + size]), data[12 + size + 4 :]
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                content = value.simple_value
                if kind == "image":
                    content = Image.open(io.BytesIO(value.image.encoded_image_string))
                elif kind == "tensor":
                    content = value.tensor.string_val[0].decode()
                events.setdefault(value.tag, []).append((event.step, content))
    return events
