"""Reads the samples of a tar: members that share a name up to the last suffix."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from effcap.images import IMAGE_SUFFIXES, LARGEST_FILE
from effcap.trainers.data.shards.filters import Fault, Filters
from effcap.trainers.data.shards.tar import TarMember, TarReader

LARGEST_TEXT = 2**24  # bytes of a txt or json


@dataclass
class TarSample:
    """A sample of a shard.

    Attributes:
        key: name of the members without their last suffix.
        members: members by suffix in lower case, such as ".jpg".
        faults: faults of members by suffix; under "", a fault of the whole sample.
        checksums: CRC-32 of photos by suffix.
        texts: contents by suffix: the caption of ".txt", the fields of ".json" that may hold
            captions.
    """

    key: str
    members: dict[str, TarMember] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> str | None:
        """Suffix of the photo; of several photos, the first in the order of IMAGE_SUFFIXES."""
        return next((suffix for suffix in IMAGE_SUFFIXES if suffix in self.members), None)

    def fault(self) -> Fault | None:
        """Returns the fault of the photo or of the whole sample; None if there is none."""
        if "" in self.faults:
            return self.faults[""]
        if self.image is None:
            return Fault("no image", f"only {', '.join(self.members)}")
        return self.faults.get(self.image)

    def captions(self, source: str) -> list[Any] | Fault:
        """Returns the unedited captions, or the fault if there are none.

        Args:
            source: source of captions, as `Filters.caption`.
        """
        fields = self.texts.get(".json", {})
        if source == "auto":
            texts = fields.get("captions")
            if isinstance(texts, list) and texts:
                return texts
            source = "txt" if ".txt" in self.members else "caption"
        if source == "txt":
            if ".txt" not in self.members:
                return Fault("no caption", "no txt")
            return self.faults.get(".txt") or [self.texts[".txt"]]
        if ".json" in self.faults:
            return self.faults[".json"]
        if source not in fields:
            missing = f"no {source!r} in json" if ".json" in self.members else "no txt and no json"
            return Fault("no caption", missing)
        texts = fields[source]
        if texts == []:
            return Fault("no caption", f"{source!r} in json is empty")
        return texts if isinstance(texts, list) else [texts]


def read_samples(reader: TarReader, filters: Filters) -> list[TarSample]:
    """Reads the samples of a tar, in the order of their first members, and checks their photos.

    The members of a sample do not have to be adjacent. Only the location of a photo is kept.
    """
    samples: dict[str, TarSample] = {}
    for member in reader:
        path = PurePosixPath(member.name)
        if not path.suffix or member.kind == "other":
            continue
        key, suffix = member.name.removesuffix(path.suffix), path.suffix.lower()
        sample = samples.setdefault(key, TarSample(key))
        if suffix in sample.members:
            sample.faults[""] = Fault("duplicate key", f"{path.name} occurs more than once")
            continue
        sample.members[suffix] = member
        fault = _read_member(reader, member, suffix, sample, filters)
        if fault is not None:
            sample.faults[suffix] = fault
    return list(samples.values())


def _read_member(
    reader: TarReader, member: TarMember, suffix: str, sample: TarSample, filters: Filters
) -> Fault | None:
    """Reads and checks a member; stores checksums and texts in the sample."""
    if member.kind != "file":
        return Fault("not a regular file", f"{member.name} is a {member.kind}")
    is_text = suffix in text_suffixes(filters.caption)
    limit = LARGEST_TEXT if is_text else LARGEST_FILE
    if member.size > limit:
        return Fault("member too large", f"{member.name} has {member.size} bytes")
    data = reader.read()
    if data is None:
        return Fault("truncated", f"the shard ends within {member.name}")
    if suffix in IMAGE_SUFFIXES:
        sample.checksums[suffix] = zlib.crc32(data)
        return filters.image_fault(data)
    if not is_text:
        return None
    try:
        if suffix == ".txt":
            sample.texts[suffix] = data.decode("utf-8-sig")
        else:
            sample.texts[suffix] = _json_fields(data, filters.caption)
    except UnicodeDecodeError as error:
        return Fault("caption not in UTF-8", f"{member.name}: {error}")
    except (ValueError, RecursionError) as error:
        return Fault("json unreadable", f"{member.name}: {error}")
    return None


def text_suffixes(source: str) -> tuple[str, ...]:
    """Returns the suffixes of members that may hold captions, by `Filters.caption`."""
    return {"auto": (".txt", ".json"), "txt": (".txt",)}.get(source, (".json",))


def _json_fields(data: bytes, source: str) -> dict[str, Any]:
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError(f"Expected a JSON object. Received: {type(content).__name__}")
    names = ("captions", "caption") if source == "auto" else (source,)
    return {name: content[name] for name in names if name in content}
