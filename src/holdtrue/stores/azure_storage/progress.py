"""What activities that run have last told of themselves: rows of the hub's own table, joined at reading.

A row is there only where something was reported, and goes with the work item.
"""

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.messages import ActivityTask
from holdtrue.stores.errors import StoreCorrupt

from .access import Access, extra_of
from .formats import Formats
from .large import Blob, pack, unpack
from .names import OWN, escape_key, own_folder
from .sentinel import columns, extra_text
from .service import ANY, All, Do, Operation, Row, Test

QUIET_TICKS: Ticks = 5 * TICKS_PER_SECOND
"""A sign of life that tells nothing else is written no sooner than this after the last."""
BLOB_COLUMN = "HoldtrueBlob"


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an activity reported: in which run, when, its progress and where it would go on (JSON texts).

    `running` false: its host has put it back since.
    """

    execution: str
    scheduled: int
    run: int
    at: Ticks
    progress: str | None = None
    details: str | None = None
    running: bool = True


class Reports:
    """The reports of a hub's activities."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats

    async def write(self, task: ActivityTask, report: Report) -> None:
        """Write what a running activity reports."""
        key = _key(report.execution, report.scheduled)
        try:
            values = extra_text(report)
        except ValueError:
            name = f"{own_folder(task.instance_id)}/{OWN}{key}-report.json.gz"
            await self._formats.put_blob(Blob(name, pack(msgspec.json.encode(report).decode())))
            values = {**columns(""), BLOB_COLUMN: name}
        await self._access.write_own(
            Operation(do=Do.REPLACE, partition=_partition(task.instance_id), key=key, values=values)
        )

    async def read(self, task: ActivityTask) -> Report | None:
        """What was last reported of a work item."""
        row = await self._access.get_own(_partition(task.instance_id), _key(task.execution_id, task.scheduled))
        return None if row is None else await self._report(row)

    async def of(self, instance_id: str, execution: str) -> dict[int, Report]:
        """The reports of an execution's activities, by the ordinals of their scheduling events."""
        low = f"{escape_key(execution)} "
        where = All(
            (
                Test("PartitionKey", "eq", _partition(instance_id)),
                Test("RowKey", "ge", low),
                Test("RowKey", "lt", f"{low[:-1]}!"),
            )
        )
        found = [await self._report(row) for row in await self._access.query_own(where)]
        return {report.scheduled: report for report in found}

    async def _report(self, row: Row) -> Report:
        name = row.values.get(BLOB_COLUMN)
        text = unpack(await self._formats.get_blob(name), f"blob {name!r}") if isinstance(name, str) else extra_of(row)
        try:
            return msgspec.json.decode(text, type=Report)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"the report {row.key!r} of an activity of {row.partition!r}: {error}") from error

    async def forget(self, task: ActivityTask) -> None:
        """Its work item is gone."""
        key = _key(task.execution_id, task.scheduled)
        operation = Operation(do=Do.DELETE, partition=_partition(task.instance_id), key=key, etag=ANY)
        await self._access.delete_own(operation)

    async def forget_all(self, instance_id: str) -> None:
        """The instance is gone."""
        rows = await self._access.query_own(
            Test("PartitionKey", "eq", _partition(instance_id)), select=("PartitionKey", "RowKey")
        )
        await self._access.delete_all_own(rows)


def _partition(instance_id: str) -> str:
    return f"reports {escape_key(instance_id)}"


def _key(execution: str, scheduled: int) -> str:
    return f"{escape_key(execution)} {scheduled:020d}"
