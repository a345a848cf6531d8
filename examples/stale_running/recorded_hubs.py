"""Hubs that the real .NET code of June 2025 left behind, as recorded, put into an account."""

import gzip
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.creating import create_hub
from holdtrue.stores.azure_storage.moments import from_table_text
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.service import Do, Instant, Operation, Service, Value

FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "azure_storage" / "stuck.json.gz"
AGE = 3_600 * TICKS_PER_SECOND
"""So long ago the hub was left, in the account's own time: its owners' leases are over."""


@cache
def recorded() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of each recording's tables, as stored; a time is a list of one."""
    return {name: one["hub"] for name, one in json.loads(gzip.decompress(FILE.read_bytes())).items()}


def hub_of(name: str) -> str:
    """What a recording's hub is called."""
    return f"Rec{name}"


async def put(service: Service, name: str) -> None:
    """Make a recording's hub in an account, as it was left; all its times are moved alike.

    The service's own stamps cannot be moved: a lease counts from the stamp of its row.  So it is cut to a second.
    """
    tables = recorded()[name]
    await create_hub(service, HubNames(hub_of(name)), 4, REAL)
    rows = [row for rows in tables.values() for row in rows]
    moved = REAL.now() - AGE - max(_times(rows))
    for table, rows in tables.items():
        for row in rows:
            values = {name: _value(value, moved) for name, value in row.items() if name not in _KEYS}
            if "LastRenewal" in row:
                values["ExpiresAt"] = Instant(from_table_text(row["LastRenewal"][0]) + moved + TICKS_PER_SECOND)
            operation = Operation(do=Do.REPLACE, partition=row["PartitionKey"], key=row["RowKey"], values=values)
            await service.tables.write(table, operation)


_KEYS = ("PartitionKey", "RowKey", "Timestamp")


def _times(rows: Iterable[dict[str, Any]]) -> Iterable[Ticks]:
    return (from_table_text(value[0]) for row in rows for value in row.values() if isinstance(value, list))


def _value(value: Any, moved: Ticks) -> Value:
    found: Value = Instant(from_table_text(value[0]) + moved) if isinstance(value, list) else value
    return found
