"""A little task hub in memory for these tests: virtual time, activities run on the spot, no threads, no store.

By default every episode begins with a replay of the whole history, so that whatever a test runs is proven
to replay; `live=True` keeps the running code instead.
"""

import asyncio
import heapq
import inspect
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core import dialect as dialects
from holdtrue.core import events as ev
from holdtrue.core.episode import Episode, state_of
from holdtrue.core.messages import ActivityTask, InboundMessage, OutboundMessage, Start
from holdtrue.core.outgoing import cancel_message
from holdtrue.core.projection import TERMINAL, Projection, Status
from holdtrue.core.replay import Run

SECOND = ev.TICKS_PER_SECOND
BEGINNING = 1_700_000_000 * SECOND


class Instance:
    def __init__(self, start: Start) -> None:
        self.record = start
        self.state = state_of(start)
        self.history: list[Any] = []
        self.inbox: list[InboundMessage] = [InboundMessage(event=start.started)]
        self.run: Run | None = None
        self.wake = False


class Hub:
    """`calls` lists the activities run, as (name, input payload)."""

    def __init__(self, app: App, *, live: bool = False, dialect: str = "dotnet") -> None:
        self.app = app
        self.live = live
        self.dialect = dialect
        self.now = BEGINNING
        self.instances: dict[str, Instance] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.work: list[ActivityTask] = []
        self.delayed: list[tuple[int, int, OutboundMessage]] = []
        self._ids = count()

    def start(
        self,
        orchestrator: Any,
        input: Any = None,
        *,
        instance_id: str = "main",
        version: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        definition = None if isinstance(orchestrator, str) else self.app.orchestrator_of(orchestrator)
        execution = f"x{next(self._ids)}"
        started = ev.ExecutionStarted(
            timestamp=self.now,
            instance_id=instance_id,
            execution_id=execution,
            name=orchestrator if definition is None else definition.name,
            input=None if input is None else self.app.converter.encode(input),
            version=version,
            tags=tags,
        )
        self._create(Start(started=started, start_id=execution, dialect=self.dialect))
        return instance_id

    def _create(self, start: Start) -> None:
        self.instances[start.started.instance_id] = Instance(start)

    def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        payload = None if data is None else self.app.converter.encode(data)
        self.deliver(instance_id, ev.EventRaised(timestamp=self.now, name=name, input=payload))

    def cancel(self, instance_id: str, reason: str = "enough") -> None:
        self._send(cancel_message(instance_id, reason, self.now))

    def deliver(self, instance_id: str, event: Any) -> None:
        self.instances[instance_id].inbox.append(InboundMessage(event=event))

    def run(self, *, seconds: float = 10_000_000) -> None:
        """Work until nothing is left to do, time moving on as it must, at most so far."""
        end = self.now + int(seconds * SECOND)
        for _ in range(100_000):
            if self._turn():
                continue
            if not self.delayed or self.delayed[0][0] > end:
                return
            self.now = max(self.now, self.delayed[0][0])
            while self.delayed and self.delayed[0][0] <= self.now:
                self._send(heapq.heappop(self.delayed)[2])
        raise AssertionError("the orchestrations go on for ever")

    def _turn(self) -> bool:
        busy = False
        for instance in list(self.instances.values()):
            if instance.inbox or instance.wake:
                self._episode(instance)
                busy = True
        work, self.work = self.work, []
        for task in work:
            self._run_activity(task)
        return busy or bool(work)

    def _episode(self, instance: Instance) -> None:
        messages, instance.inbox = instance.inbox, []
        state = instance.state
        dialect = dialects.DIALECTS[instance.record.dialect]
        run = instance.run if self.live else None
        if run is None:
            run = Run(self.app.author, dialect)
            try:
                run.replay(instance.history, unfinished=instance.wake)
            except BaseException:
                instance.inbox = messages
                raise
        if instance.wake:
            # First the execution that has only begun, by itself.
            messages, instance.inbox = [], messages
        making = Episode(state, messages, now=self.now, new_id=lambda: f"x{next(self._ids)}")
        going = (instance.wake or bool(making.feed)) and making.decide(run.step(making.feed))
        while going:
            run.close()
            run = Run(self.app.author, dialect)
            going = making.decide(run.step(making.feed))
        commit = making.commit()
        if commit.replace:
            instance.history = []
            instance.state = state_of(
                Start(
                    started=next(e for e in commit.events if type(e) is ev.ExecutionStarted),
                    start_id=instance.record.start_id,
                    dialect=instance.record.dialect,
                )
            )
        # What the hub would read back: through the history's own encoding.
        instance.history += ev.decode_events(ev.encode_events(commit.events))
        if commit.replace:
            instance.state.extend(instance.history)
        instance.state.projection = commit.projection
        run.history_size = len(instance.history)
        instance.run, instance.wake = (None if commit.wake else run), commit.wake
        cancelled = {(commit.instance_id, ordinal) for ordinal in commit.cancelled}
        self.delayed = [d for d in self.delayed if (d[2].instance_id, d[2].scheduled) not in cancelled]
        heapq.heapify(self.delayed)
        self.work = [t for t in self.work if (t.instance_id, t.scheduled) not in cancelled]
        self.work += commit.activities
        for start in commit.starts:
            self._create(start)
        for message in commit.messages:
            if message.due is not None and message.due > self.now:
                heapq.heappush(self.delayed, (message.due, next(self._ids), message))
            else:
                self._send(message)

    def _send(self, message: OutboundMessage) -> None:
        target = self.instances.get(message.instance_id)
        if target is not None and target.state.projection.status not in TERMINAL:
            target.inbox.append(
                InboundMessage(event=message.event, execution_id=message.execution_id, scheduled=message.scheduled)
            )

    def _run_activity(self, task: ActivityTask) -> None:
        self.calls.append((task.name, task.input))
        definition = self.app.activities[task.name]
        context = SimpleNamespace(orchestration_id=task.instance_id, task_id=task.task_id)
        event: Any
        try:
            value = self.app.converter.decode(task.input, definition.input_type)
            result = definition.function(context, value) if definition.takes_input else definition.function(context)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            payload = None if result is None else self.app.converter.encode(result)
            event = ev.TaskCompleted(timestamp=self.now, task_scheduled_id=task.task_id, result=payload)
        except Exception as error:
            event = ev.TaskFailed(timestamp=self.now, task_scheduled_id=task.task_id, failure=self.app.failure(error))
        self._send(
            OutboundMessage(
                instance_id=task.instance_id, execution_id=task.execution_id, scheduled=task.scheduled, event=event
            )
        )

    # -- reading -----------------------------------------------------------------------------------------

    def status(self, instance_id: str = "main") -> Projection:
        return self.instances[instance_id].state.projection

    def output(self, instance_id: str = "main", expected_type: Any = None) -> Any:
        """What a completed instance returned."""
        status = self.status(instance_id)
        assert status.status is Status.COMPLETED, (status.status, status.failure)
        return self.app.converter.decode(status.output, expected_type)

    def failure(self, instance_id: str = "main") -> ev.FailureDetails:
        status = self.status(instance_id)
        assert status.status is Status.FAILED, (status.status, status.output)
        assert status.failure is not None
        return status.failure

    def events(self, kind: type, instance_id: str = "main") -> Iterator[Any]:
        return (event for event in self.instances[instance_id].history if type(event) is kind)


def run_once(app: App, orchestrator: Any, input: Any = None, **options: Any) -> Any:
    """Start, run to the end, and give the output."""
    hub = Hub(app, **options)
    hub.start(orchestrator, input)
    hub.run()
    return hub.output()
