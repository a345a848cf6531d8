"""Between values and what stands in rows, queues and blobs: the codecs, and the blobs that they name.

The codecs are pure (`rows`, `instances_row`, `envelopes`, `large`); here their blobs are written and fetched.
"""

import itertools
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.messages import ActivityTask, DeadLetter, OutboundMessage, Start
from holdtrue.core.projection import Projection, Status, initial
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.stores.protocol import InstanceRecord

from .access import Access, extra_of
from .arrivals import Arrived
from .dotnet_json import FormatError
from .dotnet_leftovers import without_leftovers
from .envelopes import Envelope, Wrapped, decode, decode_blob, pack_message
from .instances_row import (
    InstancesRow,
    column_blob,
    commit_values,
    failure_text,
    read_row,
    rewound_values,
    start_values,
)
from .large import MOST_BLOB_BYTES, Blob, blob_at, blobs_named, moved_back, moved_out, pack, unpack
from .names import OWN, escape_key, own_folder, row_key, unescape_key
from .owing import Extra, RowExtra
from .planning import LogRow, decode_extra, decode_log, encode_log
from .row_reading import read_event
from .rows import event_values
from .sentinel import Sentinel, columns, extra_text
from .service import QueueMessage, Row, TooLarge, Value
from .verdicts import RowView

LONGEST_DELAY = 6 * 86_400
"""Seconds that a message is put ahead at most; who gets it then puts it again (rule 13)."""
START_COLUMN = "HoldtrueStart"
"""Our column of a start: what .NET's row has no place for."""
BLOB_COLUMN = "HoldtrueBlob"
"""Our column of an extra row whose text is in a blob."""


class HistoryRow(msgspec.Struct, frozen=True):
    """A row of a history: its ordinal, its event, what it asks for beyond."""

    ordinal: int
    event: ev.AnyEvent
    more: RowExtra = RowExtra()


class StartOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a start .NET's row has no column for; `started` where the columns tell another (without its input).

    `execution` is the start's own: the row's is that of the last continue-as-new.
    """

    dialect: str = "dotnet"
    deadline: Ticks | None = None
    event: OutboundMessage | None = None
    started: ev.ExecutionStarted | None = None
    execution: str = ""


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be put: the id of its envelope, what it is, and who sends it (empty: a client).

    `context` are the tags of the orchestration that sends it, `runs` how often an activity was begun before.
    """

    id: str
    what: ActivityTask | Start | OutboundMessage
    sender: str = ""
    sender_execution: str = ""
    episode: int = 0
    context: dict[str, str] | None = None
    runs: int = 0

    @property
    def due(self) -> Ticks | None:
        """Not before this."""
        what = self.what
        if isinstance(what, Start):
            return what.started.scheduled_start  # type: ignore[no-any-return]
        return what.due if isinstance(what, OutboundMessage) else None


def arrived_as(envelope: Envelope, number: int, message: QueueMessage) -> Arrived:
    """A message as it came, under a number of the store's."""
    return Arrived(
        key=number,
        id=envelope.id,
        event=envelope.event,
        execution_id=envelope.execution_id,
        scheduled=envelope.scheduled,
        start_id=envelope.start_id,
        dialect=envelope.dialect,
        sender=envelope.sender,
        sender_execution=envelope.sender_execution,
        episode=envelope.episode,
        delivery=message.dequeue_count,
        inserted=message.inserted,
    )


def task_of(envelope: Envelope) -> ActivityTask:
    """The activity that a message asks for; raises FormatError where it asks for none.

    Its ordinal is negative where .NET sent it, and another for each task: reports and idempotency keys name it.
    """
    event = envelope.event
    if not isinstance(event, ev.TaskScheduled) or envelope.execution_id is None:
        raise FormatError(f"message to instance {envelope.instance_id!r}", "it is no work item")
    return ActivityTask(
        instance_id=envelope.instance_id,
        execution_id=envelope.execution_id,
        task_id=event.event_id,
        scheduled=-1 - event.event_id if envelope.scheduled is None else envelope.scheduled,
        name=event.name,
        input=event.input,
        version=event.version,
        tags=event.tags,
        options=envelope.options,
    )


class Formats:
    """The format of one hub; its messages are put as they are, or (`base64`) as older .NET hosts read them."""

    def __init__(self, access: Access, *, base64: bool = False) -> None:
        self._access = access
        self._base64 = base64
        self._random = access.environment.random()
        self._sequence = itertools.count(1)

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

    async def put_blob(self, blob: Blob) -> None:
        """Write a blob, which nothing names yet."""
        container, blobs = self._access.names.large_messages, self._access.service.blobs

        async def put() -> None:
            await blobs.create_container(container)
            await blobs.put_blob(container, blob.name, blob.data)

        await self._access.read(f"blob {blob.name!r}", put)

    async def get_blob(self, name: str) -> bytes:
        """A blob's bytes; raises StoreCorrupt where it is gone, FormatError where it is larger than any of ours."""
        container, blobs = self._access.names.large_messages, self._access.service.blobs
        try:
            data = await self._access.read(
                f"blob {name!r}", lambda: blobs.get_blob(container, name, most=MOST_BLOB_BYTES)
            )
        except TooLarge as error:
            raise FormatError(f"blob {name!r}", f"it has more than {MOST_BLOB_BYTES} bytes") from error
        if data is None:
            raise StoreCorrupt(f"the blob {name!r} of container {container!r} is gone")
        return data

    async def delete_blob(self, name: str) -> None:
        """Delete a blob that nothing names any more."""
        container = self._access.names.large_messages
        await self._access.read(f"blob {name!r}", lambda: self._access.service.blobs.delete_blob(container, name))

    def _url(self, blob: Blob) -> str:
        return self._access.service.blob_url(self._access.names.large_messages, blob.name)

    def log_blob(self, instance_id: str, episode: str, rows: Sequence[LogRow]) -> Blob:
        """The blob of a redo log."""
        return Blob(f"{own_folder(instance_id)}/{OWN}{episode}-log.json.gz", pack(encode_log(rows)))

    async def redo_log(self, name: str) -> list[LogRow]:
        """A redo log from its blob."""
        return self.log_in(await self.get_blob(name), name)

    def log_in(self, data: bytes, name: str) -> list[LogRow]:
        """The redo log in a blob's bytes; raises StoreCorrupt where it is none."""
        try:
            return decode_log(unpack(data, f"redo log {name!r}"))
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"the redo log {name!r}: {error}") from error

    # -- extra rows ------------------------------------------------------------------------------------

    def extra_values(self, instance_id: str, label: str, extra: Any, blobs: list[Blob]) -> dict[str, Value | None]:
        """The columns of an extra row; where they would be too large, its text goes to a blob named by `label`."""
        try:
            return extra_text(extra)
        except ValueError:
            text = msgspec.json.encode(extra).decode()
            blob = Blob(f"{own_folder(instance_id)}/{OWN}{label}.json.gz", pack(text))
            blobs.append(blob)
            return {**columns(""), BLOB_COLUMN: blob.name}

    async def text_of_extra(self, row: Row) -> str:
        """What an extra row holds, or the blob that it names; raises StoreCorrupt."""
        name = row.values.get(BLOB_COLUMN)
        if isinstance(name, str):
            return unpack(await self.get_blob(name), f"blob {name!r}")
        return extra_of(row)

    async def extra_in(self, row: Row) -> Extra:
        """The debt that an extra row holds; raises StoreCorrupt."""
        try:
            return decode_extra(await self.text_of_extra(row))
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"the extra row {row.key!r} of instance partition {row.partition!r}: {error}") from error

    # -- history ---------------------------------------------------------------------------------------

    def event_values(
        self,
        instance_id: str,
        event: ev.AnyEvent,
        execution_id: str,
        ordinal: int,
        more: RowExtra,
        blobs: list[Blob],
        *,
        continued: bool = False,
    ) -> dict[str, Value | None]:
        """The columns of a history row; what must be in blobs before it is written goes to `blobs`."""
        values = event_values(
            event, execution_id, more, place=f"event {ordinal} of instance {instance_id!r}", continued=continued
        )
        kept, moved = moved_out(values, instance_id, row_key(ordinal), f"{self._random.getrandbits(32):08X}")
        blobs += moved
        return kept

    async def event(self, instance_id: str, row: Row) -> HistoryRow:
        """An event from its row, and its blobs."""
        values, place = row.values, f"row {row.key} of instance {instance_id!r}"
        named = blobs_named(values)
        if named:
            texts = {column: unpack(await self.get_blob(name), place) for column, name in named.items()}
            values = moved_back(values, texts)
        event, more = read_event(values, instance_id, place=place)
        return HistoryRow(int(row.key, 16), event, more)

    async def history(self, instance_id: str, rows: Sequence[Row], sentinel: Sentinel) -> list[HistoryRow]:
        """The history that counts: the rows of the sentinel's execution, no more than are committed.

        What means nothing in them is left out (`dotnet_leftovers`).  Raises StoreCorrupt where rows are missing.
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
                "damaged. Restore it, or terminate the instance and purge it"
            )
        counting = without_leftovers([one.event for one in found])
        return [HistoryRow(one.ordinal, event, one.more) for one, event in zip(found, counting, strict=False)]

    # -- the instances row -----------------------------------------------------------------------------

    def _row(self, row: Row) -> InstancesRow:
        return read_row(row.values, place=f"instances row of {self.instance_of(row)!r}")

    def row_view(self, row: Row) -> RowView:
        """What a judgement rests on."""
        found = self._row(row)
        return RowView(
            execution_id=found.execution_id,
            status=found.status,
            start_id=found.start_id,
            is_child=found.parent_id is not None,
            generation=found.generation,
            created_at=found.created_at,
            last_updated_at=found.last_updated_at,
            completed_at=found.completed_at,
        )

    def custom_status(self, row: Row) -> str | None:
        """The custom status of a row."""
        return self._row(row).custom_status

    def scheduled_start(self, row: Row) -> Ticks | None:
        """Not before this is the start of a row to begin."""
        return self._row(row).scheduled_start

    def output(self, row: Row | None) -> str | None:
        """The output column."""
        return None if row is None else self._row(row).output

    def start_options(self, row: Row | None) -> StartOptions | None:
        """What .NET's row has no column for; None where the start is not ours."""
        text = None if row is None else row.values.get(START_COLUMN)
        if row is None or not isinstance(text, str):
            return None
        try:
            return msgspec.json.decode(text, type=StartOptions)
        except msgspec.DecodeError as error:
            raise FormatError(f"instances row of {self.instance_of(row)!r}", f"its {START_COLUMN}: {error}") from error

    async def input_of_row(self, row: Row) -> tuple[bool, str | None]:
        """Whether the row tells the input, and the input."""
        found = self._row(row)
        name = found.input_is_elsewhere or blob_at(found.input, self._access.names.large_messages)
        if name is None:
            return True, found.input
        place = f"blob {name!r}"
        try:
            data = await self.get_blob(name)
        except StoreCorrupt:
            return False, None
        text = unpack(data, place)
        if "/message-" in name:
            event = decode_blob(data, place).event
            return (True, event.input) if isinstance(event, ev.ExecutionStarted) else (False, None)
        return True, text

    async def start_row(self, start: Start) -> dict[str, Value | None]:
        """The row of a start; an input that is too large for it is written as a blob."""
        started: ev.ExecutionStarted = start.started
        # Each try has a blob of its own: a purge of what stood there before may still delete that of an earlier one.
        attempt = f"{started.execution_id}-{self._random.getrandbits(32):08x}"
        blob = column_blob(started.instance_id, attempt, "Input", started.input)
        if blob is not None:
            await self.put_blob(blob)
        values = start_values(
            started,
            hub=self._access.names.hub,
            start_id=start.start_id,
            at=started.timestamp,
            input_url=None if blob is None else self._url(blob),
        )
        bare = msgspec.structs.replace(started, input=None)
        told = read_row(values).started(started.instance_id, None)
        options = StartOptions(
            start.dialect, start.deadline, start.event, None if told == bare else bare, started.execution_id
        )
        return {**values, START_COLUMN: msgspec.json.encode(options).decode()}

    def rewound_row(self, now: Ticks) -> dict[str, Value | None]:
        """What a rewind changes at once."""
        return rewound_values(now)

    async def row_of(
        self, projection: Projection, start_id: str, *, first: bool, status: bool
    ) -> dict[str, Value | None]:
        """The columns that a commit writes; payloads that are too large for them are written as blobs."""
        instance_id, execution = projection.instance_id, projection.execution_id
        input_blob = column_blob(instance_id, execution, "Input", projection.input) if first else None
        output_blob = None
        if status and projection.status.is_terminal:
            text = projection.output
            if text is None and projection.failure is not None:
                text = failure_text(projection.failure)
            output_blob = column_blob(instance_id, execution, "Output", text)
        for blob in (input_blob, output_blob):
            if blob is not None:
                await self.put_blob(blob)
        return commit_values(
            projection,
            hub=self._access.names.hub,
            first=first,
            status=status,
            start_id=start_id,
            input_url=None if input_blob is None else self._url(input_blob),
            output_url=None if output_blob is None else self._url(output_blob),
        )

    async def waiting_start(self, row: Row, instance_id: str, *, input_may_be_gone: bool = False) -> Start:
        """The start that a Pending row stands for.

        Raises StoreCorrupt where the blob of its input is gone, unless that may be: nothing begins with another input.
        """
        found, options = self._row(row), self.start_options(row) or StartOptions()
        known, text = await self.input_of_row(row)
        if not known and not input_may_be_gone:
            raise StoreCorrupt(
                f"instance {instance_id!r} has not begun, and the blob of its input is gone: it was lost, or its purge "
                "was cut short. Nothing was changed; restore the blob, or purge the instance"
            )
        started = found.started(instance_id, text)
        if options.started is not None:
            started = msgspec.structs.replace(options.started, input=text)
        return Start(
            started=started,
            start_id=found.start_id or found.execution_id,
            dialect=options.dialect,
            deadline=options.deadline,
            event=options.event,
        )

    async def waiting_record(self, instance_id: str, row: Row, *, input_may_be_gone: bool = False) -> InstanceRecord:
        """The record of an instance that only its row tells of.  Raises StoreCorrupt as `waiting_start`."""
        start = await self.waiting_start(row, instance_id, input_may_be_gone=input_may_be_gone)
        projection = initial(start.started)
        projection.status = self._row(row).status
        return InstanceRecord(
            projection=projection,
            started=start.started,
            start_id=start.start_id,
            dialect=start.dialect,
            deadline=start.deadline,
        )

    async def unverified_record(self, row: Row) -> InstanceRecord:
        """The record as the row alone tells it, which may be behind."""
        found, instance_id = self._row(row), self.instance_of(row)
        record = await self.waiting_record(instance_id, row, input_may_be_gone=True)
        projection = record.projection
        projection.last_updated_at, projection.completed_at = found.last_updated_at, found.completed_at
        projection.custom_status, projection.tags = found.custom_status, found.tags
        if found.parent_id is not None:
            projection.parent = ev.ParentInstance(found.parent_id, "", -1, -1)
        output, blob = found.output, blob_at(found.output, self._access.names.large_messages)
        if blob is not None:
            output = unpack(await self.get_blob(blob), f"blob {blob!r}")
        if found.status is Status.FAILED:
            projection.failure = ev.FailureDetails(message=output or "", error_type="")
        elif found.status.is_terminal:
            projection.output = output
        record.verified = False
        return record

    # -- messages --------------------------------------------------------------------------------------

    async def text_of(self, parcel: Parcel) -> str:
        """The text of a queue message; one that is too large for a queue is written as a blob."""
        packed = pack_message(self._envelope(parcel))
        if packed.blob is not None:
            await self.put_blob(packed.blob)
        return b64encode(packed.text.encode()).decode() if self._base64 else packed.text

    def _envelope(self, parcel: Parcel) -> Envelope:
        what = parcel.what
        common: dict[str, Any] = {
            "id": parcel.id,
            "sequence": next(self._sequence),
            "sender": parcel.sender,
            "sender_execution": parcel.sender_execution,
            "episode": parcel.episode,
        }
        if isinstance(what, ActivityTask):
            event = ev.TaskScheduled(
                timestamp=self._access.environment.now(),
                event_id=what.task_id,
                name=what.name,
                input=what.input,
                version=what.version,
                tags=what.tags,
            )
            return Envelope(
                **common,
                instance_id=what.instance_id,
                event=event,
                execution_id=what.execution_id,
                scheduled=what.scheduled,
                options=what.options,
                context=parcel.context or {},
                runs=parcel.runs,
            )
        if isinstance(what, Start):
            started: ev.ExecutionStarted = what.started
            return Envelope(
                **common,
                instance_id=started.instance_id,
                event=started,
                execution_id=started.execution_id,
                start_id=what.start_id,
                dialect=what.dialect,
                due=parcel.due,
                context=None if started.parent is None else parcel.context or {},
            )
        scheduled = what.scheduled
        return Envelope(
            **common,
            instance_id=what.instance_id,
            event=what.event,
            execution_id=what.execution_id,
            # What .NET asked for names no ordinal.
            scheduled=None if scheduled is not None and scheduled < 0 else scheduled,
            due=what.due,
        )

    async def read_message(self, message: QueueMessage) -> Envelope:
        """What a queue message says; raises FormatError where nobody can read it."""
        found = decode(message.text, f"queue message {message.id}")
        if isinstance(found, Wrapped):
            return decode_blob(await self.get_blob(found.blob), f"blob {found.blob!r}")
        return found

    def unreadable_letter(self, queue: str, message: QueueMessage, error: Exception) -> DeadLetter:
        """The dead letter of a message that nobody can read."""
        event = ev.GenericEvent(timestamp=message.inserted, data=message.text[:20_000])
        return DeadLetter(
            instance_id="", reason=f"{error} (queue {queue})", message=OutboundMessage(instance_id="", event=event)
        )
