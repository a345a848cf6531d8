"""A small faithful imitation of .NET's order of writes, as of June 2025.

DurableTask.AzureStorage wrote an episode so: messages to the queues, the history in one transaction with its sentinel,
the instances row in another table, and last the deletion of the message that had driven it.  Its storage client sent a
transaction again whose answer was lost, and took the refusal (412: it had written it itself) for another worker:
"Split brain detected".  Then the row was never written.  A test compares the requests made here with recordings of
the real code, kind by kind.

One process, one loop, nothing at the same time; leases and blobs are left out.
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from holdtrue.core import events as ev
from holdtrue.core.events import Ticks
from holdtrue.core.projection import Status
from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.columns import STATUS_NAMES
from holdtrue.stores.azure_storage.envelopes import Envelope, decode, encode
from holdtrue.stores.azure_storage.names import SENTINEL, HubNames, escape_key, partition_of, row_key
from holdtrue.stores.azure_storage.row_reading import read_event
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.service import (
    All,
    Conflict,
    Do,
    Filter,
    Instant,
    Operation,
    QueueMessage,
    Row,
    Service,
    Test,
    Unsure,
    Value,
)
from holdtrue.stores.azure_storage.service import (
    Any as AnyOf,
)

from . import old_code

STATUS_COLUMNS = (
    "ExecutionId,Name,Version,Output,CustomStatus,CreatedTime,LastUpdatedTime,CompletedTime,RuntimeStatus,"
    "ScheduledStartTime,Generation,Tags"
).split(",")
"""What a status is read from."""
LATER_COLUMNS = frozenset({"GenerateNewTrace"})
"""Columns of events that came after June 2025; and these of one type only:"""
LATER_OF_CHILDREN = "Tags"
TRIES = 3
FIRST_EPISODES_TO_GO_WELL = 5
"""So many work items must go well before a dispatcher that has failed stops waiting between two."""
ENDED = (ev.ExecutionCompleted,)


class SplitBrain(Exception):
    """The history was written by another; so it seemed."""


class Batch(msgspec.Struct, kw_only=True):
    """Messages of one execution, and its history as it was when the first of them came."""

    instance_id: str
    execution_id: str | None
    queue: str
    messages: list[tuple[QueueMessage, Envelope]]
    history: list[ev.AnyEvent]
    execution: str | None
    sentinel: str | None


class OldOrder:
    """Client and worker of a hub, in the old order of writes.

    `service` is the account; `replay_terminal` is allowReplayingTerminalInstances.  `back_off` seconds are waited
    between work items after one has failed (10 in .NET), `retry_after` before a request without an answer is sent
    again, `poll` between two looks at the queues.  `log` gets what .NET would have logged.
    """

    def __init__(
        self,
        service: Service,
        hub: str,
        partitions: int = 4,
        *,
        replay_terminal: bool = False,
        back_off: float = 10.0,
        retry_after: float = 0.8,
        poll: float = 0.1,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._service = service
        self._names = HubNames(hub)
        self._partitions = partitions
        self._replay_terminal = replay_terminal
        self._back_off = back_off
        self._retry_after = retry_after
        self._poll = poll
        self._log = log
        self._sequence = itertools.count(1)
        self._ready: list[Batch] = []
        self._failed_lately = 0
        self._not_before = 0.0

    # -- the client --------------------------------------------------------------------------------------

    async def status(self, instance_id: str) -> str | None:
        """RuntimeStatus as a client of .NET reads it: from the instances row, whatever the history says."""
        row = await self._row(instance_id)
        return None if row is None else str(row.values["RuntimeStatus"])

    async def start(self, name: str, instance_id: str, given: str | None) -> str:
        """Start an instance over whatever is there; its execution id."""
        before = await self._row(instance_id)
        generation = 0 if before is None else int(str(before.values.get("Generation", 0))) + 1
        started = ev.ExecutionStarted(
            timestamp=REAL.now(),
            instance_id=instance_id,
            execution_id=uuid.uuid4().hex,
            name=name,
            input=given,
            generation=generation,
        )
        await self._put(self._envelope(started, instance_id, started.execution_id))
        values: dict[str, Value | None] = {
            "Input": given,
            "CreatedTime": Instant(started.timestamp),
            "Name": name,
            "Version": "",
            "RuntimeStatus": "Pending",
            "LastUpdatedTime": Instant(REAL.now()),
            "TaskHubName": self._names.hub,
            "ExecutionId": started.execution_id,
            "Generation": generation,
            "Tags": "null",
        }
        etag = None if before is None else before.etag
        do = Do.INSERT if before is None else Do.REPLACE
        key = escape_key(instance_id)
        await self._service.tables.write(
            self._names.instances, Operation(do=do, partition=key, key="", values=values, etag=etag)
        )
        return started.execution_id

    async def start_if_not_running(self, name: str, instance_id: str, given: str | None) -> str | None:
        """What the timer of the report does: ask for the status, and start if it is not running (its execution id)."""
        if await self.status(instance_id) in ("Pending", "Running", "Suspended"):
            return None
        return await self.start(name, instance_id, given)

    async def raise_event(self, instance_id: str, name: str, given: str) -> None:
        """Raise an external event."""
        event = ev.EventRaised(timestamp=REAL.now(), name=name, input=given)
        await self._put(self._envelope(event, instance_id, None))

    async def terminate(self, instance_id: str, reason: str) -> None:
        """Ask for an end."""
        await self._put(self._envelope(ev.ExecutionTerminated(timestamp=REAL.now(), input=reason), instance_id, None))

    # -- the worker --------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Serve the hub until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._poll)

    async def step(self) -> None:
        """Take what is in the queues, and run what may be run now."""
        now = time.monotonic()
        for number in range(self._partitions):
            await self._take(self._names.control(number))
        while self._ready and now >= self._not_before:
            batch = self._ready.pop(0)
            try:
                if await self._process(batch) and self._failed_lately:
                    self._failed_lately -= 1
                if self._failed_lately:
                    self._not_before = time.monotonic() + self._back_off
            except SplitBrain:
                # The next work item was being waited for, and comes at once; those after it wait.
                self._failed_lately = FIRST_EPISODES_TO_GO_WELL
        while messages := await self._service.queues.take(self._names.work_items, 1, 300):
            await self._activity(messages[0])

    async def _take(self, queue: str) -> None:
        for message in await self._service.queues.take(queue, 32, 300):
            envelope = decode(message.text)
            assert isinstance(envelope, Envelope)
            known = next(
                (
                    batch
                    for batch in self._ready
                    if batch.instance_id == envelope.instance_id and batch.execution_id == envelope.execution_id
                ),
                None,
            )
            if known is not None:
                known.messages.append((message, envelope))
                continue
            if isinstance(envelope.event, ev.ExecutionStarted) and envelope.event.parent is None:
                await self._row(envelope.instance_id)
            history, execution, sentinel = await self._history(envelope.instance_id, envelope.execution_id)
            self._ready.append(
                Batch(
                    instance_id=envelope.instance_id,
                    execution_id=envelope.execution_id,
                    queue=queue,
                    messages=[(message, envelope)],
                    history=history,
                    execution=execution,
                    sentinel=sentinel,
                )
            )

    async def _history(
        self, instance_id: str, execution_id: str | None
    ) -> tuple[list[ev.AnyEvent], str | None, str | None]:
        """The history of an execution (None: whichever is there), its id, and the sentinel's etag."""
        where: Filter = Test("PartitionKey", "eq", escape_key(instance_id))
        if execution_id is not None:
            of = AnyOf((Test("RowKey", "eq", SENTINEL), Test("ExecutionId", "eq", execution_id)))
            where = All((where, of))
        rows = (await self._service.tables.query(self._names.history, where)).rows
        sentinel = next((row for row in rows if row.key == SENTINEL), None)
        if sentinel is None:
            return [], None, None
        execution = str(sentinel.values["ExecutionId"])
        if execution_id not in (None, execution):
            return [], None, sentinel.etag
        events = [
            read_event(row.values, instance_id)[0]
            for row in rows
            if row.values.get("ExecutionId") == execution and row.key != SENTINEL
        ]
        return events, execution, sentinel.etag

    async def _process(self, batch: Batch) -> bool:
        """Run one work item; false if there was nothing to run."""
        started = next((one for one in batch.history if isinstance(one, ev.ExecutionStarted)), None)
        fresh: list[ev.AnyEvent] = [envelope.event for _, envelope in batch.messages]
        started = started or next((one for one in fresh if isinstance(one, ev.ExecutionStarted)), None)
        end = next((one for one in batch.history if isinstance(one, ENDED)), None)
        status = "missing" if started is None else None if end is None else STATUS_NAMES[Status(end.status)]
        if started is None or (end is not None and not self._replay_terminal):
            self._log(f"{batch.instance_id}: Discarding {len(fresh)} dequeued history event(s): Instance is {status}")
            await self._delete(batch)
            return False
        new, step = await self._episode(batch, started, fresh)
        try:
            await self._checkpoint(batch, started.execution_id, new)
        except SplitBrain:
            self._log(
                f"{batch.instance_id}: Split brain detected: Another worker already updated the history for this "
                f"instance - the {len(new)} history event result(s) will be discarded"
            )
            for message, _ in batch.messages:
                await self._service.queues.hide(
                    batch.queue, message.id, message.receipt, min(2**message.dequeue_count, 600)
                )
            raise
        await self._write_row(batch, started, new, step)
        await self._delete(batch)
        return True

    async def _episode(
        self, batch: Batch, started: ev.ExecutionStarted, fresh: Sequence[ev.AnyEvent]
    ) -> tuple[list[ev.AnyEvent], old_code.Step]:
        """Run the code, and send what it asks for: before anything of it is written."""
        new: list[ev.AnyEvent] = [ev.OrchestratorStarted(timestamp=REAL.now()), *fresh]
        step = old_code.run(started, [*batch.history, *new])
        terminated = next((one for one in fresh if isinstance(one, ev.ExecutionTerminated)), None)
        sent: list[Envelope] = []
        for id, asked in step.actions:
            event, envelope = self._asked(id, asked, started)
            new.append(event)
            sent.append(envelope)
        if step.ended or terminated is not None:
            new.append(_end(step, terminated))
            answer = _answer(started, new[-1])
            if answer is not None and started.parent is not None:
                sent.append(self._envelope(answer, started.parent.instance_id, started.parent.execution_id))
        new.append(ev.OrchestratorCompleted(timestamp=REAL.now()))
        episode = sum(isinstance(one, ev.OrchestratorStarted) for one in (*batch.history, *new))
        for envelope in sent:
            envelope.sender, envelope.sender_execution = started.instance_id, started.execution_id
            envelope.episode = episode
            await self._put(envelope)
        return new, step

    def _asked(
        self, id: int, asked: old_code.Call | old_code.Child, started: ev.ExecutionStarted
    ) -> tuple[ev.AnyEvent, Envelope]:
        given = msgspec.json.encode(asked.input).decode()
        if isinstance(asked, old_code.Call):
            task = ev.TaskScheduled(timestamp=REAL.now(), event_id=id, name=asked.name)
            told = msgspec.structs.replace(task, input=f"[{given}]")
            return task, self._envelope(told, started.instance_id, started.execution_id, {})
        child = ev.SubOrchestrationInstanceCreated(
            timestamp=REAL.now(), event_id=id, name=asked.name, instance_id=asked.instance_id
        )
        begin = ev.ExecutionStarted(
            timestamp=REAL.now(),
            instance_id=asked.instance_id,
            execution_id=uuid.uuid4().hex,
            name=asked.name,
            input=given,
            parent=ev.ParentInstance(started.instance_id, started.execution_id, id, -1, started.name),
        )
        return child, self._envelope(begin, asked.instance_id, begin.execution_id, {})

    async def _checkpoint(self, batch: Batch, execution_id: str, new: Sequence[ev.AnyEvent]) -> None:
        """The history in one transaction.  Sent again where no answer came; a refusal is taken for another worker."""
        first = len(batch.history) if batch.execution == execution_id else 0
        key = escape_key(batch.instance_id)
        rows = [
            Operation(do=Do.REPLACE, partition=key, key=row_key(first + n), values=_columns(event, execution_id))
            for n, event in enumerate(new)
        ]
        mark: dict[str, Value | None] = {
            "ExecutionId": execution_id,
            "IsCheckpointComplete": True,
            "CheckpointCompletedTimestamp": Instant(REAL.now()),
        }
        do = Do.INSERT if batch.sentinel is None else Do.MERGE
        rows.append(Operation(do=do, partition=key, key=SENTINEL, values=mark, etag=batch.sentinel))
        for _ in range(TRIES):
            try:
                await self._service.tables.transact(self._names.history, rows)
                return
            except Unsure:
                await asyncio.sleep(self._retry_after)
            except Conflict as error:
                raise SplitBrain from error
        raise SplitBrain

    async def _write_row(
        self, batch: Batch, started: ev.ExecutionStarted, new: Sequence[ev.AnyEvent], step: old_code.Step
    ) -> None:
        """The instances row, by a merge without If-Match: another table, so no transaction with the history."""
        values: dict[str, Value | None] = {
            "CustomStatus": step.custom_status or "null",
            "ExecutionId": started.execution_id,
            "LastUpdatedTime": Instant(new[-1].timestamp),
        }
        if any(isinstance(one, ev.ExecutionStarted) for one in new):
            values |= {
                "Name": started.name,
                "Version": "",
                "CreatedTime": Instant(started.timestamp),
                "RuntimeStatus": "Running",
                "Input": started.input,
            }
        end = next((one for one in new if isinstance(one, ENDED)), None)
        if end is not None:
            values |= {
                "RuntimeStatus": STATUS_NAMES[Status(end.status)],
                "CompletedTime": Instant(REAL.now()),
                "Output": end.result if end.failure is None else end.failure.message,
            }
        await self._service.tables.write(
            self._names.instances,
            Operation(do=Do.MERGE, partition=escape_key(batch.instance_id), key="", values=values),
        )

    async def _delete(self, batch: Batch) -> None:
        for message, _ in batch.messages:
            await self._service.queues.remove(batch.queue, message.id, message.receipt)

    async def _activity(self, message: QueueMessage) -> None:
        """Run an activity, send its result, delete its work item."""
        envelope = decode(message.text)
        assert isinstance(envelope, Envelope)
        task = envelope.event
        assert isinstance(task, ev.TaskScheduled)
        result: ev.AnyEvent
        try:
            given = msgspec.json.decode(task.input or "[null]")[0]
            text = msgspec.json.encode(old_code.activity(task.name, given)).decode()
            result = ev.TaskCompleted(timestamp=REAL.now(), task_scheduled_id=task.event_id, result=text)
        except old_code.Boom as error:
            failure = ev.FailureDetails(message=str(error), error_type="")
            result = ev.TaskFailed(timestamp=REAL.now(), task_scheduled_id=task.event_id, failure=failure)
        answer = self._envelope(result, envelope.instance_id, envelope.execution_id)
        answer.sender, answer.sender_execution = envelope.sender, envelope.sender_execution
        answer.episode = envelope.episode
        await self._put(answer)
        await self._service.queues.remove(self._names.work_items, message.id, message.receipt)

    # -- one request each --------------------------------------------------------------------------------

    async def _row(self, instance_id: str) -> Row | None:
        where = Test("PartitionKey", "eq", escape_key(instance_id))
        page = await self._service.tables.query(self._names.instances, where, select=STATUS_COLUMNS, top=1)
        return page.rows[0] if page.rows else None

    def _envelope(
        self, event: Any, instance_id: str, execution_id: str | None, context: dict[str, str] | None = None
    ) -> Envelope:
        return Envelope(
            id=str(uuid.uuid4()),
            instance_id=instance_id,
            event=event,
            execution_id=execution_id,
            sequence=next(self._sequence),
            context=context,
        )

    async def _put(self, envelope: Envelope) -> None:
        number = partition_of(envelope.instance_id, self._partitions)
        work = isinstance(envelope.event, ev.TaskScheduled)
        queue = self._names.work_items if work else self._names.control(number)
        await self._service.queues.put(queue, encode(envelope).replace('"GenerateNewTrace":false,', ""))


def _columns(event: ev.AnyEvent, execution_id: str) -> dict[str, Value | None]:
    """A row's columns as they were then."""
    values = event_values(event, execution_id)
    later = LATER_COLUMNS | ({LATER_OF_CHILDREN} if isinstance(event, ev.SubOrchestrationInstanceCreated) else set())
    return {name: value for name, value in values.items() if name not in later}


def _end(step: old_code.Step, terminated: ev.ExecutionTerminated | None) -> ev.ExecutionCompleted:
    at: Ticks = REAL.now()
    if terminated is not None:
        return ev.ExecutionCompleted(
            timestamp=at, event_id=step.next_id, status=int(Status.TERMINATED), result=terminated.input
        )
    if step.failure is not None:
        failure = ev.FailureDetails(message=step.failure, error_type="")
        return ev.ExecutionCompleted(timestamp=at, event_id=step.next_id, status=int(Status.FAILED), failure=failure)
    return ev.ExecutionCompleted(timestamp=at, event_id=step.next_id, status=int(Status.COMPLETED), result=step.output)


def _answer(started: ev.ExecutionStarted, end: Any) -> ev.AnyEvent | None:
    """What a child tells its parent."""
    if started.parent is None:
        return None
    if end.status == Status.COMPLETED:
        return ev.SubOrchestrationInstanceCompleted(
            timestamp=REAL.now(), task_scheduled_id=started.parent.task_id, result=end.result
        )
    failure = end.failure or ev.FailureDetails(message=end.result or "", error_type="")
    return ev.SubOrchestrationInstanceFailed(
        timestamp=REAL.now(), task_scheduled_id=started.parent.task_id, failure=failure
    )
