"""Texts that are too large for a column or a queue: which go to blobs, under which names, and their bytes.

A blob is written before anything names it.  What is unpacked is bounded: a small blob can hold a gigabyte of nothing.
Pure.
"""

import gzip
import zlib
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from .dotnet_json import FormatError
from .names import own_folder
from .service import Value

MOST_COLUMN_BYTES = 60 * 1024
"""Of a text column in UTF-16, as the tables count; what is longer moves to a blob."""
MOST_MESSAGE_BYTES = 45 * 1024
"""Of a message in UTF-8; what is longer moves to a blob, and a wrapper goes into the queue."""
MOST_BLOB_BYTES = 256 * 1024 * 1024
"""What a blob may unpack to, unless its reader says otherwise."""

MORE = "HoldtrueMore"
"""Our column on a history row: what .NET's format has no place for, as JSON."""
MOVED = ("Name", "Input", "Result", "Output", "Reason", "Details", "Correlation", "FailureDetails", "Tags")
"""The columns that .NET moves."""
ALSO_MOVED = (
    "Version",
    "InstanceId",
    "OrchestrationInstance",
    "ParentInstance",
    "ParentExecutionId",
    "ParentTraceContext",
    "Data",
    "State",
    MORE,
)
"""Those that it would not: the service would refuse the row for good, and the whole commit with it."""
_NAME_SUFFIX = "BlobName"
BLOB_SUFFIX = ".json.gz"
"""All blobs end so, whoever wrote them."""


class Blob(msgspec.Struct, frozen=True):
    """A blob to be written: its name in the hub's container of large payloads, and its bytes."""

    name: str
    data: bytes


def pack(text: str) -> bytes:
    """A text as a blob holds it: gzip of UTF-8."""
    return gzip.compress(text.encode(), 6, mtime=0)


def unpack(data: bytes, place: str, limit: int = MOST_BLOB_BYTES) -> str:
    """The text in a blob.  Raises FormatError where it is no gzip, is cut short, or holds more than `limit` bytes."""
    parts: list[bytes] = []
    left, rest = limit + 1, data
    try:
        while rest:
            stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
            part = stream.decompress(rest, left)
            left -= len(part)
            parts.append(part)
            if left <= 0:
                raise FormatError(place, f"it unpacks to more than {limit} bytes")
            if not stream.eof:
                raise FormatError(place, "it is cut short")
            rest = stream.unused_data
        return b"".join(parts).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise FormatError(place, f"it is no gzip of a text ({error})") from error


def is_large(text: str) -> bool:
    """Whether a text is too large for a column."""
    if len(text) * 4 <= MOST_COLUMN_BYTES:
        return False
    return len(text.encode("utf-16-le", "surrogatepass")) > MOST_COLUMN_BYTES


def moved_out(
    values: Mapping[str, Value | None], instance_id: str, row_key: str, chance: str
) -> tuple[dict[str, Value | None], list[Blob]]:
    """A history row's columns with the large ones emptied and their blobs named; the blobs, to be written before.

    `chance` is 8 upper-case hex digits, another for each row.
    """
    kept = dict(values)
    blobs: list[Blob] = []
    for column in (*MOVED, *ALSO_MOVED):
        text = values.get(column)
        if isinstance(text, str) and is_large(text):
            event = values.get("EventType")
            name = f"{own_folder(instance_id)}/history-{row_key}-{event}-{chance}-{column}.json.gz"
            blobs.append(Blob(name, pack(text)))
            kept[column] = ""
            kept[column + _NAME_SUFFIX] = name
    return kept, blobs


def blobs_named(values: Mapping[str, Value]) -> dict[str, str]:
    """The columns of a row that are in blobs: column to the blob's name.  Most rows have none."""
    found: dict[str, str] = {}
    for column in values:
        if column.endswith(_NAME_SUFFIX) and column.removesuffix(_NAME_SUFFIX) in _ALL_MOVED:
            name = values[column]
            if isinstance(name, str) and name:
                found[column.removesuffix(_NAME_SUFFIX)] = name
    return found


_ALL_MOVED = frozenset((*MOVED, *ALSO_MOVED))


def moved_back(values: Mapping[str, Value], texts: Mapping[str, str]) -> dict[str, Value]:
    """A row's columns with the texts of its blobs put in, by column."""
    return {**values, **texts}


def blob_at(text: str | None, container: str) -> str | None:
    """The name of the blob that a column's text gives the URL of, by whatever endpoint; None for any other text."""
    if text is None or not text.startswith(("http://", "https://")) or not text.endswith(BLOB_SUFFIX):
        return None
    try:
        path = urlsplit(text).path
    except ValueError:
        return None
    _, found, name = path.partition(f"/{container}/")
    return unquote(name) if found and name else None
