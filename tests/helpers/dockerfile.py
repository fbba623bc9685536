"""Parses the instructions of a Dockerfile that EffCap's use, and a .dockerignore."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER",
    "WORKDIR",
}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """An instruction: its name in capitals, what follows it, and the number of its first line."""

    name: str
    text: str
    line: int

    def words(self) -> list[str]:
        """Returns the words of a list in JSON, or else those that a shell would see."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True)
class Copy:
    """A COPY: where it copies from, which paths, and where to."""

    stage: str | None  # None for the build context
    sources: tuple[str, ...]
    target: str


@dataclass
class Stage:
    """A stage of a Dockerfile."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, name: str) -> Instruction | None:
        """Returns the last instruction of a name, which is the one in force; None without any."""
        found = [one for one in self.instructions if one.name == name]
        return found[-1] if found else None

    def copies(self) -> list[Copy]:
        """Returns what the stage copies."""
        return [parse_copy(one) for one in self.instructions if one.name == "COPY"]

    def environment(self) -> dict[str, str]:
        """Returns the variables that ENV sets, with references to others as they are."""
        found = [one.words() for one in self.instructions if one.name == "ENV"]
        return dict(word.split("=", 1) for words in found for word in words)

    def command(self) -> list[str]:
        """Returns the words that a container runs: those of ENTRYPOINT, then those of CMD."""
        found = [self.last(name) for name in ("ENTRYPOINT", "CMD")]
        return [word for one in found if one is not None for word in one.words()]

    def health_check(self) -> list[str]:
        """Returns the words of the command of HEALTHCHECK; [] without one."""
        check = self.last("HEALTHCHECK")
        return [] if check is None else json.loads(check.text.partition("CMD ")[2])


def parse_dockerfile(text: str) -> list[Stage]:
    """Returns the stages of a Dockerfile.

    Raises:
        ValueError: an instruction is unknown, or comes before the first FROM and is not ARG.
    """
    stages: list[Stage] = []
    for instruction in instructions(text):
        if instruction.name not in KNOWN:
            raise ValueError(f"Line {instruction.line}: unknown instruction {instruction.name}")
        if instruction.name == "FROM":
            base, *rest = instruction.words()
            if rest and (len(rest) != 2 or rest[0].upper() != "AS"):
                raise ValueError(f"Line {instruction.line}: expected FROM IMAGE AS NAME")
            stages.append(Stage(base, rest[1] if rest else None))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name != "ARG":
            raise ValueError(f"Line {instruction.line}: {instruction.name} before FROM")
    return stages


def instructions(text: str) -> Iterator[Instruction]:
    """Yields instructions, those of several lines as one."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (parts or line.strip()):
            continue
        first = first if parts else number
        parts.append(line.rstrip().removesuffix("\\").strip())
        if line.rstrip().endswith("\\"):
            continue
        name, _, rest = " ".join(parts).partition(" ")
        yield Instruction(name.upper(), rest.strip(), first)
        parts = []
    if parts:
        raise ValueError(f"Line {first}: the last line ends with a backslash")


def parse_copy(instruction: Instruction) -> Copy:
    """Returns what a COPY instruction copies.

    Raises:
        ValueError: it has an unknown option, or no target.
    """
    words = instruction.words()
    options = [word for word in words if word.startswith("--")]
    paths = [word for word in words if not word.startswith("--")]
    if len(paths) < 2 or any(not option.startswith("--from=") for option in options):
        raise ValueError(f"Line {instruction.line}: cannot read COPY {instruction.text}")
    stage = options[0].partition("=")[2] if options else None
    return Copy(stage, tuple(paths[:-1]), paths[-1])


class DockerIgnore:
    """The rules of a .dockerignore: the last one that matches a path or a folder above it wins."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(_pattern(line.lstrip("!")), line.startswith("!")) for line in lines]

    def excludes(self, path: str) -> bool:
        """Returns whether a path, relative to the build context, is left out of it."""
        parts = path.strip("/").split("/")
        heads = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        is_excluded = False
        for pattern, is_exception in self._rules:
            if any(pattern.fullmatch(head) for head in heads):
                is_excluded = not is_exception
        return is_excluded

    def files(self, root: Path, source: str) -> Iterator[Path]:
        """Yields the files of the build context at a path, relative to its root."""
        path = root / source
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            relative = file.relative_to(root)
            if file.is_file() and not self.excludes(relative.as_posix()):
                yield relative


def _pattern(text: str) -> re.Pattern[str]:
    """Returns the regular expression of a pattern."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", text.strip("/"))
    wildcards = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wildcards.get(piece, re.escape(piece)) for piece in pieces))
