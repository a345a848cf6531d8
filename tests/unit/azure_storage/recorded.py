"""What the .NET provider wrote, as recorded (tools/extract_recordings.py): messages, rows, blobs' names, hubs."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from holdtrue.stores.azure_storage.dotnet_json import from_time_text
from holdtrue.stores.azure_storage.service import Instant, Value

FILE = Path(__file__).resolve().parents[2] / "data" / "azure_storage" / "recorded.json.gz"


@cache
def recorded() -> dict[str, Any]:
    """All of it."""
    found: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))
    return found


def columns(row: dict[str, Any]) -> dict[str, Value | None]:
    """A row's columns as the store has them, in their order and without the keys."""
    return {
        name: Instant(from_time_text(value[0], name)) if isinstance(value, list) else value
        for name, value in row.items()
        if name not in ("PartitionKey", "RowKey", "Timestamp")
    }


def history_rows() -> list[tuple[str, str, dict[str, Any]]]:
    """Every event's row as it was written: recording, method, row."""
    return [(name, method, row) for name, method, row in recorded()["history"] if "EventType" in row]
