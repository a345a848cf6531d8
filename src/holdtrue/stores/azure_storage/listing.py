"""Reads more than one instance, or more of one than its status: pages, histories, children, figures.

A page is made of rows that were read and, where they are not terminal, verified (rule 7).  The account keeps rows by
id, a page is in order of creation: the rows that a query finds are read whole and sorted.
"""

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Sequence

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import (
    AnyEvent,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    Ticks,
)
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.protocol import ActivityInfo, HubInfo, InstanceQuery, InstanceRecord, Page

from .access import Access
from .formats import Formats
from .holding import Held
from .names import escape_key
from .reading import AT_ONCE, Reader
from .service import All, Filter, Test
from .service import Any as AnyOf

NAMES = {
    Status.RUNNING: "Running",
    Status.COMPLETED: "Completed",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.PENDING: "Pending",
    Status.SUSPENDED: "Suspended",
}
SCHEMA_VERSION = 1


class Listing:
    """Reads of many."""

    def __init__(self, access: Access, formats: Formats, reader: Reader) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader

    # -- histories -------------------------------------------------------------------------------------

    async def history(self, instance_id: str) -> list[AnyEvent]:
        """The events of the current execution; none where it has no history."""
        partition = await self._access.history_partition(instance_id)
        sentinel = partition.sentinel
        if sentinel is None or not sentinel.has_history or sentinel.state.purging:
            return []
        if sentinel.state.log is not None:
            return [row.event for row in await self._formats.redo_log(sentinel.state.log)]
        return [one.event for one in await self._formats.history(instance_id, partition.rows, sentinel)]

    async def history_of(self, held: Held) -> list[AnyEvent] | None:
        """The events of a held instance; None where somebody else wrote since it was taken."""
        partition = await self._access.history_partition(held.instance_id)
        if partition.sentinel is None or partition.sentinel.etag != held.etag:
            return None
        rows = await self._formats.history(held.instance_id, partition.rows, partition.sentinel)
        return [one.event for one in rows]

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        """The activities without a result yet."""
        open_tasks: dict[int, ActivityInfo] = {}
        for ordinal, event in enumerate(await self.history(instance_id)):
            if isinstance(event, TaskScheduled):
                open_tasks[event.event_id] = ActivityInfo(
                    task_id=event.event_id, scheduled=ordinal, name=event.name, running=False, run=0
                )
            elif isinstance(event, TaskCompleted | TaskFailed):
                open_tasks.pop(event.task_scheduled_id, None)
        (record,) = await self._reader.records([instance_id])
        return [] if record is None or record.projection.status in TERMINAL else list(open_tasks.values())

    # -- children --------------------------------------------------------------------------------------

    async def children(self, instance_id: str) -> list[str]:
        """The direct children: those whose rows name it, and those that its history asks for."""
        rows, events = await asyncio.gather(self._access.children_rows(instance_id), self.history(instance_id))
        found = dict.fromkeys(self._formats.instance_of(row) for row in rows)
        asked = [event.instance_id for event in events if isinstance(event, SubOrchestrationInstanceCreated)]
        for name, record in zip(asked, await self._reader.records(asked), strict=True):
            parent = None if record is None else record.projection.parent
            if parent is not None and parent.instance_id == instance_id:
                found[name] = None
        return list(found)

    # -- pages -----------------------------------------------------------------------------------------

    async def query(self, asked: InstanceQuery) -> Page:
        """One page of instances, in order of creation."""
        after = None if asked.token is None else _read_token(asked.token)
        records = [one for one in await self._verified(_filter(asked)) if _fits(one, asked)]
        records.sort(key=_place, reverse=asked.newest_first)
        if after is not None:
            records = [one for one in records if (_place(one) < after if asked.newest_first else _place(one) > after)]
        size = max(1, asked.page_size)
        page = records[:size]
        return Page(records=page, token=_token(page[-1]) if len(records) > size else None)

    async def _verified(self, where: Filter | None) -> list[InstanceRecord]:
        rows = await self._access.query(self._access.names.instances, where)
        names = [self._formats.instance_of(row) for row in rows]
        found: list[InstanceRecord] = []
        for begin in range(0, len(names), AT_ONCE):
            records = await self._reader.records(names[begin : begin + AT_ONCE])
            found += [record for record in records if record is not None]
        return found

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str],
    ) -> list[str]:
        """Ended top-level instances that ended before, or beyond the newest so many; the oldest end first."""
        rows = await self._access.query(self._access.names.instances, _terminal())
        ended = []
        for row in rows:
            view, orchestration = self._formats.row_view(row), str(row.values.get("Name") or "")
            if view.completed_at is None or row.values.get("ParentInstanceId"):
                continue
            if (name is None or orchestration == name) and orchestration not in excluding:
                ended.append((view.completed_at, self._formats.instance_of(row)))
        ended.sort()
        count = 0 if keep is None else max(0, len(ended) - keep)
        before = 0 if completed_before is None else sum(at < completed_before for at, _ in ended)
        return [instance_id for _, instance_id in ended[: min(limit, max(count, before))]]

    async def info(self, hosts: list[str], dead_letters: int) -> HubInfo:
        """Figures of the hub; messages and work items are the queues' own approximate counts."""
        counts = Counter(record.projection.status.name for record in await self._verified(None))
        names, queues = self._access.names, self._access.service.queues
        messages = [
            await self._access.read(queue, lambda: queues.approximate_count(queue))  # noqa: B023
            for queue in (names.control(number) for number in range(self._access.partitions))
        ]
        activities = await self._access.read(names.work_items, lambda: queues.approximate_count(names.work_items))
        return HubInfo(
            instances=dict(counts),
            messages=sum(messages),
            activities=activities,
            dead_letters=dead_letters,
            hosts=hosts,
            size=0,
            schema_version=SCHEMA_VERSION,
        )


def _terminal() -> Filter:
    return AnyOf(tuple(Test("RuntimeStatus", "eq", NAMES[status]) for status in sorted(TERMINAL)))


def _filter(asked: InstanceQuery) -> Filter | None:
    """What the rows of a query have for certain; a row that is not terminal may have any verified status."""
    parts: list[Filter] = []
    if asked.prefix:
        low = escape_key(asked.prefix)
        parts.append(Test("PartitionKey", "ge", low))
        parts.append(Test("PartitionKey", "lt", low[:-1] + chr(ord(low[-1]) + 1)))
    if asked.statuses is not None:
        live = [status for status in Status if status not in TERMINAL]
        wanted = sorted({*asked.statuses, *live})
        parts.append(AnyOf(tuple(Test("RuntimeStatus", "eq", NAMES[status]) for status in wanted)))
    if asked.name is not None:
        parts.append(Test("Name", "eq", asked.name))
    return All(tuple(parts)) if parts else None


def _fits(record: InstanceRecord, asked: InstanceQuery) -> bool:
    p, tags = record.projection, record.started.tags or {}
    return (
        (asked.statuses is None or p.status in asked.statuses)
        and (asked.name is None or p.name == asked.name)
        and (asked.prefix is None or p.instance_id.startswith(asked.prefix))
        and (asked.created_from is None or p.created_at >= asked.created_from)
        and (asked.created_to is None or p.created_at < asked.created_to)
        and (asked.completed_to is None or (p.completed_at is not None and p.completed_at < asked.completed_to))
        and all(tags.get(tag) == value for tag, value in (asked.tags or {}).items())
    )


def _place(record: InstanceRecord) -> tuple[Ticks, str]:
    return record.projection.created_at, record.projection.instance_id


def _token(record: InstanceRecord) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_place(record))).decode()


def _read_token(token: str) -> tuple[Ticks, str]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token.encode()), type=tuple[int, str])
    except (msgspec.DecodeError, binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise InvalidInput(f"{token!r} is no token of a page; give the one that the page before came with") from error
