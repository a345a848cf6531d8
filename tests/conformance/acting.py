"""What the conformance tests act with: hubs and hosts, starts, and instances in hand whose episodes are made
by the real core from scripted decisions.

It knows the store protocol and the core; it must not know any store.
"""

import asyncio
import functools
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from holdtrue.core import events as ev
from holdtrue.core.actions import (
    Action,
    ActivityOptions,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    Decision,
    ScheduleTask,
    SendEvent,
)
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.messages import InboundMessage, OutboundMessage, Start, WorkRef
from holdtrue.core.projection import TERMINAL, Status, project
from holdtrue.environment import Environment
from holdtrue.stores.protocol import (
    CommitOutcome,
    CommitResult,
    Committing,
    CreateOutcome,
    CreateRequest,
    CreateResult,
    Delivery,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
    SendOutcome,
    TaskHubStore,
)

SECOND = ev.TICKS_PER_SECOND
EVERY = frozenset(Status)
NONE: frozenset[Status] = frozenset()
LIMIT_SECONDS = 60.0

P = ParamSpec("P")


class Clock(Environment):
    """The real world, but for a wall clock and a monotonic one that can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> ev.Ticks:
        return super().now() + round(self.ahead * SECOND)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


Opener = Callable[[Path, Environment, float], TaskHubStore]
"""Makes a store object on the hub that this folder (or its name) stands for, with a lease of so many seconds."""


class Hub:
    """One task hub under test, and the store objects opened on it, each standing for a process of its own."""

    def __init__(self, opener: Opener, place: Path) -> None:
        self.clock = Clock()
        self._opener = opener
        self._place = place
        self._opened: list[TaskHubStore] = []

    async def open(self, *, clock: Environment | None = None, lease: float = 120.0) -> TaskHubStore:
        """One more store object on this hub, opened."""
        store = self._opener(self._place, clock or self.clock, lease)
        self._opened.append(store)
        await store.open()
        return store

    async def host(
        self,
        name: str = "host",
        *,
        code: Sequence[str] = ("code", "child"),
        queues: Sequence[str] = ("act",),
        clock: Environment | None = None,
        lease: float = 120.0,
    ) -> TaskHubStore:
        """One more store object, that has joined as a host with this code."""
        store = await self.open(clock=clock, lease=lease)
        await store.join(name, code, queues)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()
        self._opened.clear()

    def now(self) -> ev.Ticks:
        return self.clock.now()


def in_hub(test: Callable[Concatenate[Hub, P], Awaitable[None]]) -> Callable[Concatenate[Hub, P], None]:
    """An async test of a hub as an ordinary one, with a limit of time so that what hangs is told."""

    @functools.wraps(test)
    def run(hub: Hub, *args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            try:
                await asyncio.wait_for(test(hub, *args, **kwargs), LIMIT_SECONDS)
            finally:
                await hub.close()

        asyncio.run(main())

    return run


# -- starts and messages -----------------------------------------------------------------------------------

_numbers = itertools.count(1)


def new_id() -> str:
    """An execution id never used before."""
    return f"x{next(_numbers)}"


def start(
    instance_id: str,
    *,
    name: str = "code",
    input: str | None = None,
    execution: str | None = None,
    start_id: str | None = None,
    over: frozenset[Status] = TERMINAL,
    take: bool = False,
    at: ev.Ticks = 1_000 * SECOND,
    begins: ev.Ticks | None = None,
    tags: dict[str, str] | None = None,
    version: str | None = None,
    deadline: ev.Ticks | None = None,
    event: ev.EventRaised | None = None,
    parent: ev.ParentInstance | None = None,
    dialect: str = "dotnet",
) -> CreateRequest:
    """A request to create an instance; `over` says which statuses of an older one it replaces."""
    execution = execution or new_id()
    started = ev.ExecutionStarted(
        timestamp=at,
        instance_id=instance_id,
        execution_id=execution,
        name=name,
        input=input,
        version=version,
        tags=tags,
        scheduled_start=begins,
        parent=parent,
    )
    return CreateRequest(
        start=Start(
            started=started,
            start_id=start_id or execution,
            dialect=dialect,
            deadline=deadline,
            event=None if event is None else OutboundMessage(instance_id=instance_id, event=event),
        ),
        replaceable=over,
        take=take,
    )


async def create(store: TaskHubStore, *requests: CreateRequest) -> list[CreateOutcome]:
    """Create instances that must be accepted."""
    outcomes = await store.create(requests)
    assert all(o.result in (CreateResult.CREATED, CreateResult.REPLACED) for o in outcomes), outcomes
    return outcomes


def raised(instance_id: str, name: str, value: Any = None) -> OutboundMessage:
    """An external event to an instance."""
    return OutboundMessage(
        instance_id=instance_id, event=ev.EventRaised(timestamp=1, name=name, input=json.dumps(value))
    )


def terminate(instance_id: str, reason: str | None = None, *, recurse: bool = False) -> OutboundMessage:
    event = ev.ExecutionTerminated(timestamp=1, input=reason, recurse=recurse)
    return OutboundMessage(instance_id=instance_id, event=event)


def rewind(instance_id: str) -> OutboundMessage:
    return OutboundMessage(instance_id=instance_id, event=ev.ExecutionRewound(timestamp=1, reason="mended"))


def suspend(instance_id: str) -> OutboundMessage:
    return OutboundMessage(instance_id=instance_id, event=ev.ExecutionSuspended(timestamp=1))


async def send(store: TaskHubStore, *messages: OutboundMessage) -> list[SendOutcome]:
    return await store.send(messages)


# -- actions -----------------------------------------------------------------------------------------------


def act(id: int, name: str = "act", input: str | None = None, **options: Any) -> ScheduleTask:
    return ScheduleTask(id=id, name=name, input=input, options=ActivityOptions(**options) if options else None)


def timer(id: int, fire_at: ev.Ticks) -> CreateTimer:
    return CreateTimer(id=id, fire_at=fire_at)


def child(id: int, instance_id: str, input: str | None = None, name: str = "child") -> CreateSubOrchestration:
    return CreateSubOrchestration(id=id, name=name, instance_id=instance_id, input=input)


def tell(id: int, instance_id: str, name: str, input: str | None = None) -> SendEvent:
    return SendEvent(id=id, instance_id=instance_id, name=name, input=input)


def end(id: int = 9_999, output: str | None = None) -> CompleteOrchestration:
    return CompleteOrchestration(id=id, status=Status.COMPLETED, result=output)


def fail(id: int = 9_999, message: str = "down", error_type: str = "ValueError") -> CompleteOrchestration:
    return CompleteOrchestration(
        id=id, status=Status.FAILED, failure=ev.FailureDetails(message=message, error_type=error_type)
    )


def terminated(id: int = 9_999, output: str | None = None) -> CompleteOrchestration:
    return CompleteOrchestration(id=id, status=Status.TERMINATED, result=output)


def again(
    id: int = 9_999, input: str | None = None, keep: tuple[tuple[str, str | None], ...] = ()
) -> CompleteOrchestration:
    return CompleteOrchestration(id=id, status=Status.CONTINUED_AS_NEW, result=input, carryover=keep)


UNSET: Any = object()


class Held:
    """An instance in hand: its lease, what the store told of it, and its episodes."""

    def __init__(self, store: TaskHubStore, locked: LockedInstance, clock: Environment) -> None:
        self.store = store
        self.locked = locked
        self.lease: Lease = locked.lease
        self.record: InstanceRecord = locked.record
        self.inbox: list[InboundMessage] = list(locked.messages)
        self._clock = clock
        self.state = ExecutionState(
            projection=self.record.projection,
            dialect=self.record.dialect,
            start_id=self.record.start_id,
            deadline=self.record.deadline,
            condition=self.record.condition,
        )

    @property
    def id(self) -> str:
        return self.record.projection.instance_id

    async def load(self) -> list[ev.AnyEvent]:
        """Read the history and fold it in; gives it."""
        history = await self.store.load(self.lease)
        assert history is not None, "the lock is lost"
        self.state.open.clear()
        self.state.length = 0
        self.state.extend(history, project_too=False)
        return history

    def take(self, deliveries: Sequence[Delivery]) -> list[ev.HistoryEvent]:
        """Put what is for this instance into its inbox; the events taken."""
        mine = [d.message for d in deliveries if d.instance == self.lease.key]
        self.inbox += mine
        return [m.event for m in mine]

    def episode(
        self,
        *actions: Action,
        custom: Any = UNSET,
        cancel: tuple[int, ...] = (),
        then: Sequence[Action] = (),
        messages: Sequence[InboundMessage] | None = None,
        now: ev.Ticks | None = None,
    ) -> EpisodeCommit:
        """The commit of one episode over the inbox; `then` is what each next execution does after a continue-as-new."""
        batch = self.inbox if messages is None else list(messages)
        if messages is None:
            self.inbox = []
        making = Episode(self.state, batch, now=now or self._clock.now(), new_id=new_id)
        acts = actions or custom is not UNSET or cancel
        if acts and not making.feed and making.state.projection.status not in TERMINAL:
            # The script acts although nothing came.
            making.feed = [ev.OrchestratorStarted(timestamp=now or self._clock.now())]
        script = actions
        while making.feed:
            decision = Decision(
                actions=list(script),
                fed=len(making.feed),
                custom_status=None if custom is UNSET else custom,
                custom_status_set=script is actions and custom is not UNSET,
                cancelled=cancel,
            )
            if not making.decide(decision):
                break
            script = then
        return making.commit()

    async def commit(
        self,
        commit: EpisodeCommit,
        *,
        keep: bool = True,
        take_activities: int = 0,
        take_starts: int = 0,
        expect: CommitResult = CommitResult.COMMITTED,
    ) -> CommitOutcome:
        """Commit it; the state goes along where it was committed."""
        (outcome,) = await self.store.commit([self.committing(commit, keep, take_activities, take_starts)])
        assert outcome.result is expect, outcome
        self.take(outcome.deliveries)
        return outcome

    def committing(
        self, commit: EpisodeCommit, keep: bool = True, take_activities: int = 0, take_starts: int = 0
    ) -> Committing:
        return Committing(
            lease=self.lease, commit=commit, keep=keep, take_activities=take_activities, take_starts=take_starts
        )

    async def step(
        self, *actions: Action, keep: bool = True, take_activities: int = 0, take_starts: int = 0, **episode: Any
    ) -> CommitOutcome:
        """One episode, made and committed; it must be accepted."""
        made = self.episode(*actions, **episode)
        if made.replace:
            self.state = ExecutionState(
                projection=made.projection,
                dialect=self.state.dialect,
                start_id=self.state.start_id,
                deadline=self.state.deadline,
            )
            self.state.extend(made.events, project_too=False)
        return await self.commit(made, keep=keep, take_activities=take_activities, take_starts=take_starts)

    async def put_back(self) -> None:
        await self.store.put_back([self.lease])


async def lock(hub: Hub, store: TaskHubStore, limit: int = 100) -> dict[str, Held]:
    """What there is to lock, by instance id; histories are loaded."""
    held = {}
    for locked in await store.lock(limit):
        one = Held(store, locked, hub.clock)
        if one.record.length:
            await one.load()
        assert one.id not in held, "locked twice"
        held[one.id] = one
    return held


async def lock_one(hub: Hub, store: TaskHubStore, instance_id: str) -> Held:
    """The one instance that there must be to lock."""
    held = await lock(hub, store)
    assert list(held) == [instance_id], list(held)
    return held[instance_id]


async def begin(hub: Hub, store: TaskHubStore, instance_id: str, *actions: Action, **options: Any) -> Held:
    """Create an instance, lock it, and commit its first episode."""
    keep = {key: options.pop(key) for key in ("take_activities", "take_starts", "keep") if key in options}
    custom = options.pop("custom", UNSET)
    await create(store, start(instance_id, **options))
    held = await lock_one(hub, store, instance_id)
    await held.step(*actions, custom=custom, **keep)
    return held


async def ended(hub: Hub, store: TaskHubStore, instance_id: str, *, how: Action | None = None, **options: Any) -> None:
    """Create an instance and let it end at once."""
    await begin(hub, store, instance_id, how or end(), **options)


def done(item: LockedActivity, result: str | None = "1") -> ev.TaskCompleted:
    """The event that a work item's result is."""
    return ev.TaskCompleted(timestamp=1, task_scheduled_id=item.task.task_id, result=result)


def went_wrong(item: LockedActivity, message: str = "down") -> ev.TaskFailed:
    failure = ev.FailureDetails(message=message, error_type="ValueError")
    return ev.TaskFailed(timestamp=1, task_scheduled_id=item.task.task_id, failure=failure)


def with_work(item: LockedActivity, event: ev.AnyEvent | None = None, ref: WorkRef | None = None) -> InboundMessage:
    """A result that is committed along with the episode that it triggers."""
    return InboundMessage(
        event=event or done(item),
        execution_id=item.task.execution_id,
        scheduled=item.task.scheduled,
        work=ref or item.ref,
    )


# -- reading -----------------------------------------------------------------------------------------------


async def record_of(store: TaskHubStore, instance_id: str) -> InstanceRecord:
    (record,) = await store.status([instance_id])
    assert record is not None, f"{instance_id} is not there"
    return record


async def status_of(store: TaskHubStore, instance_id: str) -> Status | None:
    (record,) = await store.status([instance_id])
    return None if record is None else record.projection.status


async def history_of(store: TaskHubStore, instance_id: str, first: int = 0) -> list[ev.HistoryEvent]:
    return [event async for piece in store.history(instance_id, first) for event in piece]


def kinds(events: Sequence[ev.HistoryEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def names(messages: Sequence[InboundMessage]) -> list[str]:
    """The names of external events, in order."""
    return [m.event.name for m in messages if isinstance(m.event, ev.EventRaised)]


async def check_whole(store: TaskHubStore, instance_id: str) -> None:
    """The stored projection equals the one folded from the stored history at once, but for what no event holds."""
    record = await record_of(store, instance_id)
    history = await history_of(store, instance_id)
    assert record.length == len(history)
    folded = project(_first(record), history)
    stored = record.projection
    for member in (
        "instance_id", "execution_id", "name", "version", "status", "input", "output", "failure", "completed_at",
        "scheduled_start", "parent", "tags", "generation",
    ):  # fmt: skip
        assert getattr(stored, member) == getattr(folded, member), member


def _first(record: InstanceRecord) -> Any:
    from holdtrue.core.projection import initial

    return initial(record.started)
