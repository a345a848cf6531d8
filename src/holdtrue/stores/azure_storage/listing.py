"""Reads more of an instance than its status, and figures of all: histories, copies, children, counts."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from holdtrue.core.events import (
    AnyEvent,
    ExecutionStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from holdtrue.core.outgoing import work_item
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.errors import StoreCorrupt, StoreUnavailable
from holdtrue.stores.protocol import (
    ActivityCopy,
    ActivityInfo,
    HubInfo,
    InstanceCopy,
    InstanceRecord,
    queue_name,
)

from .access import Access
from .columns import STATUS_NAMES
from .formats import Formats, HistoryRow
from .holding import Held
from .host_rows import HostRows
from .local import places
from .progress import Report, Reports
from .purged_starts import PurgedStarts
from .reading import Reader
from .verdicts import names_newer_start, stands

log = logging.getLogger("holdtrue.azure_storage")

SCHEMA_VERSION = 1
COPY_TRIES = 20
"""How often an instance is read that goes on between its record and its history."""
_CHILD_ANSWERS = (SubOrchestrationInstanceCompleted, SubOrchestrationInstanceFailed)


class Listing:
    """Reads of many."""

    def __init__(
        self,
        access: Access,
        formats: Formats,
        reader: Reader,
        reports: Reports,
        hosts: HostRows,
        purged: PurgedStarts,
    ) -> None:
        self._access = access
        self._formats = formats
        self._reader = reader
        self._reports = reports
        self._hosts = hosts
        self._purged = purged

    # -- histories -------------------------------------------------------------------------------------

    async def history(self, instance_id: str) -> list[AnyEvent]:
        """The events of the current execution; none where it has no history (yet, where a newer start waits)."""
        return [one.event for one in await self._rows(instance_id)]

    async def _rows(self, instance_id: str) -> list[HistoryRow]:
        return (await self._rows_and_local(instance_id))[0]

    async def _rows_and_local(self, instance_id: str) -> tuple[list[HistoryRow], set[int]]:
        """The rows, and the ordinals of what runs on the host that scheduled it (rule 16)."""
        partition, row = await asyncio.gather(
            self._access.history_partition(instance_id), self._access.instances_row(instance_id)
        )
        sentinel = partition.sentinel
        if not stands(sentinel, row) or await self._purged.has_child(instance_id, row, sentinel):
            return [], set()
        if row is not None and names_newer_start(self._formats.row_view(row), sentinel):
            return [], set()
        local = {ordinal for execution, ordinal in places(sentinel.state.local) if execution == sentinel.execution_id}
        rows = await self._reader.rows_of(instance_id, partition.rows, sentinel)
        return (rows, local) if rows is not None else await self._rows_and_local(instance_id)

    async def history_of(self, held: Held) -> list[AnyEvent] | None:
        """The events of a held instance; None where somebody else wrote since it was taken."""
        partition = await self._access.history_partition(held.instance_id)
        if partition.sentinel is None or partition.sentinel.etag != held.etag:
            return None
        rows = await self._formats.history(held.instance_id, partition.rows, partition.sentinel)
        return [one.event for one in rows]

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        """The activities without a result yet, with what they have reported.

        That one runs is known where its host has scheduled it, where it must begin in time, or where it reported
        something.
        """
        found, local = await self._rows_and_local(instance_id)
        rows = _open_activities(found)
        (record,) = await self._reader.records([instance_id])
        if not rows or record is None or record.projection.status in TERMINAL:
            return []
        reports = await self._reports.of(instance_id, record.projection.execution_id)
        served = await self._hosts.queues()
        return [_info(row, reports.get(row.ordinal), served, row.ordinal in local) for row in rows]

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        """Instances with what stands in their rows; messages that are still in a queue are not among it."""
        return [await self._copy(instance_id) for instance_id in instance_ids]

    async def _copy(self, instance_id: str) -> InstanceCopy | None:
        for _ in range(COPY_TRIES):
            standing = await self._reader.standing(instance_id)
            record, sentinel = standing.record, standing.sentinel
            if record is None:
                return None
            rows = await self._rows(instance_id)
            history = [row.event for row in rows]
            started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
            if len(rows) != record.length or (
                started is not None and started.execution_id != record.started.execution_id
            ):
                continue  # it went on between the two reads
            execution, activities = record.projection.execution_id, list[ActivityCopy]()
            if record.projection.status not in TERMINAL:
                reports = await self._reports.of(instance_id, execution)
                activities = [_activity_copy(record, row, reports.get(row.ordinal)) for row in _open_activities(rows)]
            woken = sentinel is not None and record.length > 0 and sentinel.state.woken
            return InstanceCopy(record=record, history=history, activities=activities, wake=woken)
        raise StoreUnavailable(f"instance {instance_id!r} changes while it is read: try again")

    # -- children --------------------------------------------------------------------------------------

    async def children(self, instance_id: str) -> list[str]:
        """The direct children: those whose rows name it, and those that its history asks for."""
        rows, events = await asyncio.gather(self._access.children_rows(instance_id), self.history(instance_id))
        found = dict.fromkeys(self._formats.instance_of(row) for row in rows)
        asked = {
            event.event_id: event.instance_id for event in events if isinstance(event, SubOrchestrationInstanceCreated)
        }
        answered = {event.task_scheduled_id for event in events if isinstance(event, _CHILD_ANSWERS)}
        wanted = {task: name for task, name in asked.items() if name not in found}
        for (task, name), record in zip(wanted.items(), await self._reader.records(list(wanted.values())), strict=True):
            parent = None if record is None else record.projection.parent
            # One that has not begun, and stands nowhere yet, is named by the history alone.
            starts = record is None and task not in answered
            if starts or (parent is not None and parent.instance_id == instance_id):
                found[name] = None
        return list(found)

    async def readable_children(self, instance_id: str) -> list[str]:
        """The direct children, as far as rows can be read: where its history cannot be, those whose rows name it."""
        try:
            return await self.children(instance_id)
        except StoreCorrupt as error:
            log.warning("its children are known by their rows alone: %s", error)
            return [self._formats.instance_of(row) for row in await self._access.children_rows(instance_id)]

    # -- figures ---------------------------------------------------------------------------------------

    async def info(self, dead_letters: int) -> HubInfo:
        """Figures of the hub; messages and work items are the queues' own approximate counts."""
        # A terminal row stands over no live execution; what the others say is verified.
        ended = {STATUS_NAMES[status]: status.name for status in TERMINAL}
        counts: Counter[str] = Counter()
        columns = ("PartitionKey", "RowKey", "RuntimeStatus")
        async for rows in self._access.pages(self._access.names.instances, None, select=columns):
            told = [ended.get(str(row.values.get("RuntimeStatus"))) for row in rows]
            counts.update(status for status in told if status is not None)
            live = [self._formats.instance_of(row) for row, status in zip(rows, told, strict=True) if status is None]
            counts.update(one.projection.status.name for one in await self._reader.readable(live) if one is not None)
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
            hosts=[host.name for host in await self._hosts.alive(anew=True)],
            size=0,
            schema_version=SCHEMA_VERSION,
        )


def _open_activities(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """The rows of the activities that have no result."""
    found: dict[int, HistoryRow] = {}
    for row in rows:
        event = row.event
        if isinstance(event, TaskScheduled):
            found[event.event_id] = row
        elif isinstance(event, TaskCompleted | TaskFailed):
            found.pop(event.task_scheduled_id, None)
    return list(found.values())


def _activity_copy(record: InstanceRecord, row: HistoryRow, report: Report | None) -> ActivityCopy:
    assert isinstance(row.event, TaskScheduled)
    task = work_item(record.projection, row.event, row.ordinal, row.more.options)
    copy = ActivityCopy(task=task, at=row.event.timestamp)
    if report is not None:
        copy.run, copy.progress, copy.details, copy.heartbeat_at = (
            report.run, report.progress, report.details, report.at,
        )  # fmt: skip
    return copy


def _info(row: HistoryRow, report: Report | None, served: frozenset[str], local: bool) -> ActivityInfo:
    event = row.event
    assert isinstance(event, TaskScheduled)
    info = ActivityInfo(task_id=event.event_id, scheduled=row.ordinal, name=event.name, running=False, run=0)
    if report is not None:
        info.running, info.run = report.running, report.run
        info.progress, info.heartbeat_at = report.progress, report.at
    if local:
        info.running, info.run = True, max(1, info.run)
    elif report is None:
        tag = None if row.more.options is None else row.more.options.tag
        info.waits_for_worker = queue_name(event.name, tag) not in served
    return info
