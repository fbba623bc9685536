"""Finds the columns of photos, captions and prefixes in a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from effcap.trainers.data.csv_reader import PREFIX
from effcap.trainers.data.example import one_line
from effcap.trainers.data.json_reader import METADATA_CAPTIONS

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "photo", "picture", "jpg")  # the first one counts
CAPTIONS = (*METADATA_CAPTIONS, "sentences", "sentence", "description")  # likewise
NUMBERED = re.compile(r"(text|caption|sentence)_?(\d+)")  # each has one of several captions


class RowColumns(NamedTuple):
    """Names of the columns that are read.

    Attributes:
        image: column of the photos.
        captions: columns of captions.
        prefix: column of texts that the captions continue; None if there is none.
    """

    image: str
    captions: tuple[str, ...]
    prefix: str | None = None

    @property
    def names(self) -> list[str]:
        """All names, each once."""
        prefix = () if self.prefix is None else (self.prefix,)
        return list(dict.fromkeys((self.image, *self.captions, *prefix)))


def find_columns(
    schema: pyarrow.Schema,
    source: str,
    image_column: str | None = None,
    caption_column: str | Sequence[str] | None = None,
    prefix_column: str = PREFIX,
) -> RowColumns:
    """Finds columns by their names and types.

    Args:
        schema: names and types of all columns.
        source: the data, for messages.
        image_column: column of photos. None takes the first of `IMAGES`, or the only column of
            images.
        caption_column: one or several columns of captions. None takes the first of `CAPTIONS`, or
            those with numbers, such as "caption_0" and "caption_1".
        prefix_column: column of prefixes; "prefix" may be missing.

    Raises:
        ValueError: a column is missing, is used twice, or has another type.
    """
    image = image_column if image_column is not None else _find_image(schema, source)
    if caption_column is None:
        captions = _find_captions(schema, source)
    else:
        captions = (caption_column,) if isinstance(caption_column, str) else tuple(caption_column)
    prefix = prefix_column if prefix_column != PREFIX or PREFIX in schema.names else None
    columns = RowColumns(image, captions, prefix)
    wanted = [image, *captions, *([] if prefix is None else [prefix])]
    if missing := [name for name in wanted if name not in schema.names]:
        raise ValueError(
            f"Expected a column {' and '.join(map(repr, missing))} in {source}. "
            f"Received columns: {_names(schema)}"
        )
    if repeated := [name for name in columns.names if wanted.count(name) > 1]:
        raise ValueError(
            f"Expected different columns for photos, captions and prefixes of {source}. "
            f"Received: {repeated[0]!r} twice"
        )
    _check_types(schema, source, columns)
    return columns


def plain_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Returns a type without views, as polars writes them, and dictionaries, as pandas does."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if types.is_struct(kind):
        fields = [kind[i] for i in range(kind.num_fields)]
        return pyarrow.struct([(field.name, plain_type(field.type)) for field in fields])
    if types.is_list(kind) or types.is_large_list(kind):
        make = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return make(plain_type(kind.value_type))
    if types.is_string_view(kind):
        return pyarrow.string()
    return pyarrow.binary() if types.is_binary_view(kind) else kind


def is_image(kind: pyarrow.DataType) -> bool:
    """Returns whether values of a type can be photos: bytes, paths, or both as on the hub."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return {kind[i].name for i in range(kind.num_fields)} >= {"bytes", "path"}
    return is_bytes(kind) or is_text(kind)


def is_bytes(kind: pyarrow.DataType) -> bool:
    """Returns whether values of a type are bytes."""
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def is_text(kind: pyarrow.DataType) -> bool:
    """Returns whether values of a type are texts."""
    import pyarrow

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _find_image(schema: pyarrow.Schema, source: str) -> str:
    named = [name for name in IMAGES if name in schema.names and is_image(schema.field(name).type)]
    images = [field.name for field in schema if is_image(field.type) and not is_text(field.type)]
    if not named and len(images) != 1:
        raise ValueError(
            f"Expected a column of photos in {source}: {' or '.join(IMAGES)}, or another one that "
            f"is named (image_column). Received columns: {_names(schema)}"
        )
    return (named or images)[0]


def _find_captions(schema: pyarrow.Schema, source: str) -> tuple[str, ...]:
    named = [name for name in CAPTIONS if name in schema.names]
    if named:
        return (named[0],)
    matches = [match for name in schema.names if (match := NUMBERED.fullmatch(name))]
    numbered = sorted(
        (match for match in matches if match[1] == matches[0][1]), key=lambda match: int(match[2])
    )
    if not numbered:
        raise ValueError(
            f"Expected a column of captions in {source}: {', '.join(CAPTIONS)}, caption_0 and "
            "further numbers, or others that are named (caption_column). "
            f"Received columns: {_names(schema)}"
        )
    return tuple(match[0] for match in numbered)


def _check_types(schema: pyarrow.Schema, source: str, columns: RowColumns) -> None:
    import pyarrow

    kinds = {name: schema.field(name).type for name in columns.names}
    if not is_image(kinds[columns.image]):
        raise ValueError(
            f"Expected bytes, paths or images {{bytes, path}} in the column {columns.image!r} of "
            f"{source}. Received: {one_line(str(kinds.pop(columns.image)))}"
        )
    for name in columns.captions:
        kind = kinds[name]
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
            kind = kind.value_type
        if not (is_text(kind) or pyarrow.types.is_null(kind)):
            raise ValueError(
                f"Expected texts, or lists of texts, in the column {name!r} of {source}. "
                f"Received: {one_line(str(kinds[name]))}"
            )
    if columns.prefix is not None and not is_text(kinds[columns.prefix]):
        raise ValueError(
            f"Expected texts in the column {columns.prefix!r} of {source}. "
            f"Received: {one_line(str(kinds[columns.prefix]))}"
        )


def _names(schema: pyarrow.Schema) -> str:
    return one_line(", ".join(f"{field.name} ({field.type})" for field in schema)) or "none"
