"""Between values and what stands in rows, queues and blobs: the store's one place for the format."""

import gzip
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.messages import ActivityTask, DeadLetter, OutboundMessage, Start
from holdtrue.core.projection import Projection, Status, initial
from holdtrue.stores.errors import StoreCorrupt, StoreError
from holdtrue.stores.protocol import InstanceRecord

from .access import Access
from .arrivals import Arrived
from .names import escape_key, unescape_key
from .owing import RowExtra
from .planning import LogRow, decode_log
from .sentinel import Sentinel
from .service import Instant, QueueMessage, Row, Value
from .verdicts import RowView

log = logging.getLogger("holdtrue.azure_storage")

LONGEST_DELAY = 6 * 86_400
"""Seconds that a message is put ahead at most; who gets it then puts it again (rule 13)."""


class Unreadable(StoreError):
    """A queue message that nobody can read."""


class HistoryRow(msgspec.Struct, frozen=True):
    """A row of a history: its ordinal, its event, what it asks for beyond."""

    ordinal: int
    event: ev.AnyEvent
    more: RowExtra = RowExtra()


class StartOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a start .NET's row has no column for."""

    dialect: str = "dotnet"
    deadline: Ticks | None = None
    event: OutboundMessage | None = None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be put: the id of its envelope, what it is, and who sends it (empty: a client)."""

    id: str
    what: ActivityTask | Start | OutboundMessage
    sender: str = ""
    sender_execution: str = ""
    episode: int = 0

    @property
    def due(self) -> Ticks | None:
        """Not before this."""
        what = self.what
        if isinstance(what, Start):
            return what.started.scheduled_start  # type: ignore[no-any-return]
        return what.due if isinstance(what, OutboundMessage) else None


class Content(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a queue message says."""

    id: str
    instance_id: str
    event: ev.AnyEvent
    execution_id: str | None = None
    sender: str = ""
    sender_execution: str = ""
    episode: int = 0
    scheduled: int | None = None
    start_id: str | None = None
    dialect: str = "dotnet"
    due: Ticks | None = None
    options: ActivityOptions | None = None

    def arrived(self, number: int, message: QueueMessage) -> Arrived:
        """As it came, under a number of the store's."""
        return Arrived(
            key=number,
            id=self.id,
            event=self.event,
            execution_id=self.execution_id,
            scheduled=self.scheduled,
            start_id=self.start_id,
            dialect=self.dialect,
            sender=self.sender,
            sender_execution=self.sender_execution,
            episode=self.episode,
            delivery=message.dequeue_count,
            inserted=message.inserted,
        )

    def task(self) -> ActivityTask:
        """The activity that it asks for; raises Unreadable where it asks for none."""
        event = self.event
        if not isinstance(event, ev.TaskScheduled) or self.execution_id is None:
            raise Unreadable(f"a {type(event).__name__} of instance {self.instance_id!r} is no work item")
        return ActivityTask(
            instance_id=self.instance_id,
            execution_id=self.execution_id,
            task_id=event.event_id,
            scheduled=-1 if self.scheduled is None else self.scheduled,
            name=event.name,
            input=event.input,
            version=event.version,
            tags=event.tags,
            options=self.options,
        )


class Formats:
    """The format of one hub."""

    def __init__(self, access: Access) -> None:
        self._access = access

    # -- names -----------------------------------------------------------------------------------------

    def partition_key(self, instance_id: str) -> str:
        """The partition key of an instance."""
        return escape_key(instance_id)

    def instance_of(self, row: Row) -> str:
        """The instance of a row."""
        return unescape_key(row.partition)

    def delay_until(self, due: Ticks) -> int:
        """Whole seconds until a time, rounded up, no more than may be put ahead."""
        left = due - self._access.environment.now()
        return max(0, min(LONGEST_DELAY, -(-left // TICKS_PER_SECOND)))

    # -- blobs -----------------------------------------------------------------------------------------

    def log_name(self, instance_id: str, episode: str) -> str:
        """The blob of a redo log."""
        return f"{escape_key(instance_id)}/holdtrue-{episode}-log.json.gz"

    async def put_blob(self, name: str, data: bytes) -> None:
        """Write a blob, which nothing names yet."""
        container = self._access.names.large_messages
        blobs = self._access.service.blobs
        packed = gzip.compress(data, 6, mtime=0)

        async def put() -> None:
            await blobs.create_container(container)
            await blobs.put_blob(container, name, packed)

        await self._access.read(f"blob {name!r}", put)

    async def get_blob(self, name: str) -> bytes:
        """A blob; raises StoreCorrupt where it is gone or none of ours."""
        container = self._access.names.large_messages
        data = await self._access.read(f"blob {name!r}", lambda: self._access.service.blobs.get_blob(container, name))
        if data is None:
            raise StoreCorrupt(f"the blob {name!r} of container {container!r} is gone")
        return gzip.decompress(data)

    async def redo_log(self, name: str) -> list[LogRow]:
        """A redo log from its blob."""
        try:
            return decode_log(await self.get_blob(name))
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"the redo log {name!r}: {error}") from error

    async def delete_blob(self, name: str) -> None:
        """Delete a blob that nothing names any more."""
        container = self._access.names.large_messages
        await self._access.read(f"blob {name!r}", lambda: self._access.service.blobs.delete_blob(container, name))

    # -- history ---------------------------------------------------------------------------------------

    def event_values(
        self,
        instance_id: str,
        event: ev.AnyEvent,
        execution_id: str,
        ordinal: int,
        more: RowExtra,
        blobs: list[tuple[str, bytes]],
    ) -> dict[str, Value | None]:
        """The columns of a history row; what must be in blobs before it is written goes to `blobs`."""
        return {
            "EventType": type(event).__name__,
            "ExecutionId": execution_id,
            "Event": ev.encode_events(event).decode(),
            "More": msgspec.json.encode(more).decode(),
        }

    async def event(self, instance_id: str, row: Row) -> HistoryRow:
        """An event from its row."""
        return HistoryRow(
            int(row.key, 16),
            ev.decode_event(str(row.values["Event"])),
            msgspec.json.decode(str(row.values["More"]), type=RowExtra),
        )

    async def history(self, instance_id: str, rows: Sequence[Row], sentinel: Sentinel) -> list[HistoryRow]:
        """The history that counts: the rows of the sentinel's execution, no more than are committed.

        Raises StoreCorrupt where rows are missing.
        """
        most = sentinel.state.rows if sentinel.is_ours else None
        found: list[HistoryRow] = []
        for row in rows:
            if row.values.get("ExecutionId") != sentinel.execution_id or (most is not None and len(found) >= most):
                continue
            one = await self.event(instance_id, row)
            if one.ordinal != len(found):
                break
            found.append(one)
        if most is not None and len(found) != most:
            raise StoreCorrupt(
                f"instance {instance_id!r}: {most} events are committed and {len(found)} are there; its history is "
                "damaged. Restore it, or purge the instance"
            )
        return found

    # -- the instances row -----------------------------------------------------------------------------

    def row_view(self, row: Row) -> RowView:
        """What a judgement rests on."""
        values = row.values
        return RowView(
            execution_id=str(values.get("ExecutionId") or ""),
            status=_status(values.get("RuntimeStatus")),
            start_id=_text(values.get("StartId")),
            generation=_number(values.get("Generation")),
            created_at=_ticks(values.get("CreatedTime")) or 0,
            completed_at=_ticks(values.get("CompletedTime")),
        )

    def custom_status(self, row: Row) -> str | None:
        """The custom status of a row; the text `null` is none."""
        text = _text(row.values.get("CustomStatus"))
        return None if text in (None, "null") else text

    def output(self, row: Row | None) -> str | None:
        """The output column."""
        return None if row is None else _text(row.values.get("Output"))

    def start_options(self, row: Row | None) -> StartOptions | None:
        """What .NET's row has no column for; None where the start is not ours."""
        text = None if row is None else _text(row.values.get("HoldtrueStart"))
        return None if text is None else msgspec.json.decode(text, type=StartOptions)

    async def input_of_row(self, row: Row) -> tuple[bool, str | None]:
        """Whether the row tells the input, and the input."""
        return True, _text(row.values.get("Input"))

    def start_row(self, start: Start) -> dict[str, Value | None]:
        """The row of a start."""
        started: ev.ExecutionStarted = start.started
        options = StartOptions(start.dialect, start.deadline, start.event)
        return {
            "Input": started.input,
            "CreatedTime": Instant(started.timestamp),
            "Name": started.name,
            "Version": started.version or "",
            "RuntimeStatus": "Pending",
            "LastUpdatedTime": Instant(started.timestamp),
            "ExecutionId": started.execution_id,
            "Generation": started.generation,
            "Tags": msgspec.json.encode(started.tags).decode(),
            "ParentInstanceId": "" if started.parent is None else started.parent.instance_id,
            "ScheduledStartTime": None if started.scheduled_start is None else Instant(started.scheduled_start),
            "StartId": start.start_id,
            "HoldtrueStart": msgspec.json.encode(options).decode(),
            "HoldtrueStarted": ev.encode_events(started).decode(),
        }

    def rewound_row(self, now: Ticks) -> dict[str, Value | None]:
        """What a rewind changes at once."""
        return {"RuntimeStatus": "Pending", "LastUpdatedTime": Instant(now)}

    def row_of(
        self, projection: Projection, start_id: str, *, first: bool, status: bool
    ) -> dict[str, Value | None]:
        """The columns that a commit writes."""
        values: dict[str, Value | None] = {
            "CustomStatus": projection.custom_status or "null",
            "ExecutionId": projection.execution_id,
            "LastUpdatedTime": Instant(projection.last_updated_at),
            "ParentInstanceId": "" if projection.parent is None else projection.parent.instance_id,
        }
        if first:
            values |= {
                "Name": projection.name,
                "Version": projection.version or "",
                "CreatedTime": Instant(projection.created_at),
                "RuntimeStatus": "Running",
                "Tags": msgspec.json.encode(projection.tags).decode(),
                "Generation": projection.generation,
                "Input": projection.input,
                "StartId": start_id,
            }
        if status:
            values["RuntimeStatus"] = _NAMES[projection.status]
            if projection.status.is_terminal:
                values["CompletedTime"] = Instant(projection.completed_at or projection.last_updated_at)
                values["Output"] = projection.output if projection.failure is None else projection.failure.message
        return values

    async def waiting_start(self, row: Row, instance_id: str) -> Start:
        """The start that a Pending row stands for."""
        options = self.start_options(row) or StartOptions()
        text = _text(row.values.get("HoldtrueStarted"))
        assert text is not None
        started = ev.decode_event(text)
        return Start(
            started=started,
            start_id=_text(row.values.get("StartId")) or "",
            dialect=options.dialect,
            deadline=options.deadline,
            event=options.event,
        )

    async def waiting_record(self, instance_id: str, row: Row) -> InstanceRecord:
        """The record of an instance that only its row tells of."""
        start = await self.waiting_start(row, instance_id)
        projection = initial(start.started)
        projection.status = _status(row.values.get("RuntimeStatus"))
        return InstanceRecord(
            projection=projection,
            started=start.started,
            start_id=start.start_id,
            dialect=start.dialect,
            deadline=start.deadline,
        )

    # -- messages --------------------------------------------------------------------------------------

    async def text_of(self, parcel: Parcel) -> str:
        """The text of a queue message."""
        what = parcel.what
        content: Any
        common = {
            "id": parcel.id,
            "sender": parcel.sender,
            "sender_execution": parcel.sender_execution,
            "episode": parcel.episode,
        }
        if isinstance(what, ActivityTask):
            event = ev.TaskScheduled(
                timestamp=0,
                event_id=what.task_id,
                name=what.name,
                input=what.input,
                version=what.version,
                tags=what.tags,
            )
            content = Content(
                **common,  # type: ignore[arg-type]
                instance_id=what.instance_id,
                event=event,
                execution_id=what.execution_id,
                scheduled=what.scheduled,
                options=what.options,
            )
        elif isinstance(what, Start):
            content = Content(
                **common,  # type: ignore[arg-type]
                instance_id=what.started.instance_id,
                event=what.started,
                execution_id=what.started.execution_id,
                start_id=what.start_id,
                dialect=what.dialect,
                due=parcel.due,
            )
        else:
            content = Content(
                **common,  # type: ignore[arg-type]
                instance_id=what.instance_id,
                event=what.event,
                execution_id=what.execution_id,
                scheduled=what.scheduled,
                due=what.due,
            )
        return msgspec.json.encode(content).decode()

    async def read_message(self, message: QueueMessage) -> Content:
        """What a queue message says; raises Unreadable."""
        try:
            return msgspec.json.decode(message.text, type=Content)
        except msgspec.DecodeError as error:
            raise Unreadable(f"queue message {message.id}: {error}") from error

    def unreadable_letter(self, queue: str, message: QueueMessage, error: Unreadable) -> DeadLetter:
        """The dead letter of a message that nobody can read."""
        event = ev.GenericEvent(timestamp=message.inserted, data=message.text[:20_000])
        return DeadLetter(
            instance_id="", reason=f"{error} (queue {queue})", message=OutboundMessage(instance_id="", event=event)
        )


_NAMES = {
    Status.RUNNING: "Running",
    Status.COMPLETED: "Completed",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.PENDING: "Pending",
    Status.SUSPENDED: "Suspended",
}
_STATUSES = {name: status for status, name in _NAMES.items()}


def _status(value: Value | None) -> Status:
    return _STATUSES.get(str(value), Status.PENDING)


def _text(value: Value | None) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Value | None) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _ticks(value: Value | None) -> Ticks | None:
    return value.ticks if isinstance(value, Instant) else None
