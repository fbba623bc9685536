"""Members of a tar that share a name up to their last suffix are a sample."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from effcap.images import IMAGE_SUFFIXES, LARGEST_FILE
from effcap.trainers.data.shards.filters import Fault, Filters
from effcap.trainers.data.shards.tar import Member, TarWalk

LARGEST_TEXT = 2**24  # bytes of a txt or json


@dataclass
class Sample:
    """What a shard holds under one key.

    Attributes:
        key: the members' name without their last suffix.
        members: by suffix in lower case, such as ".jpg".
        faults: by suffix, why that member cannot be used; under "", why none of them can.
        checksums: by suffix, the CRC-32 of a photo.
        texts: by suffix, ".txt": the caption; ".json": the fields that may hold captions.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> str | None:
        """Suffix of the photo; of several, the first in the order of IMAGE_SUFFIXES."""
        return next((suffix for suffix in IMAGE_SUFFIXES if suffix in self.members), None)

    def fault(self) -> Fault | None:
        """Why the sample cannot be used, whatever its captions; None where it can."""
        if "" in self.faults:
            return self.faults[""]
        if self.image is None:
            return Fault("no image", f"only {', '.join(self.members)}")
        return self.faults.get(self.image)

    def captions(self, source: str) -> list[Any] | Fault:
        """What is given as captions, or why nothing is; `source` as `Filters.caption`."""
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


def read_samples(walk: TarWalk, filters: Filters) -> list[Sample]:
    """The samples of a tar, in the order in which they begin, their photos checked.

    Their members may lie apart. Of photos nothing is kept but where they are.
    """
    samples: dict[str, Sample] = {}
    for member in walk:
        path = PurePosixPath(member.name)
        if not path.suffix or member.kind == "other":
            continue
        key, suffix = member.name.removesuffix(path.suffix), path.suffix.lower()
        sample = samples.setdefault(key, Sample(key))
        if suffix in sample.members:
            sample.faults[""] = Fault("key twice", f"{path.name} is there more than once")
            continue
        sample.members[suffix] = member
        fault = _read(walk, member, suffix, sample, filters)
        if fault is not None:
            sample.faults[suffix] = fault
    return list(samples.values())


def _read(
    walk: TarWalk, member: Member, suffix: str, sample: Sample, filters: Filters
) -> Fault | None:
    """Reads and checks a member; what is kept of it goes to the sample."""
    if member.kind != "file":
        return Fault("no file of its own", f"{member.name} is a {member.kind}")
    is_text = suffix in wanted_texts(filters.caption)
    limit = LARGEST_TEXT if is_text else LARGEST_FILE
    if member.size > limit:
        return Fault("member too large", f"{member.name} has {member.size} bytes")
    data = walk.read()
    if data is None:
        return Fault("cut off", f"the shard ends within {member.name}")
    if suffix in IMAGE_SUFFIXES:
        sample.checksums[suffix] = zlib.crc32(data)
        return filters.image_fault(data)
    if not is_text:
        return None
    try:
        if suffix == ".txt":
            sample.texts[suffix] = data.decode("utf-8-sig")
        else:
            sample.texts[suffix] = _fields(data, filters.caption)
    except UnicodeDecodeError as error:
        return Fault("caption not in UTF-8", f"{member.name}: {error}")
    except (ValueError, RecursionError) as error:
        return Fault("json unreadable", f"{member.name}: {error}")
    return None


def wanted_texts(source: str) -> tuple[str, ...]:
    """Suffixes of the members in which captions are looked for."""
    return {"auto": (".txt", ".json"), "txt": (".txt",)}.get(source, (".json",))


def _fields(data: bytes, source: str) -> dict[str, Any]:
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError(f"expected an object. Received: {type(content).__name__}")
    names = ("captions", "caption") if source == "auto" else (source,)
    return {name: content[name] for name in names if name in content}
