"""Reads TensorBoard event files."""

from __future__ import annotations

import io

from PIL import Image


def read_events(folder) -> dict:
    """Scalars, pictures and texts of event files: {tag: [(step, value)]}."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict = {}
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
                found.setdefault(value.tag, []).append((event.step, content))
    return found
