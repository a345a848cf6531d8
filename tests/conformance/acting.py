"""What the conformance tests act with: hubs and hosts, starts, and instances in hand whose episodes are made
by the real core from scripted decisions.

It knows the store protocol and the core; it must not know any store.
"""

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

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
from holdtrue.stores.errors import StoreUnavailable
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
    StoredDeadLetter,
    TaskHubStore,
)
from tests.conformance.hubs import Clock as Clock
from tests.conformance.hubs import Hub
from tests.conformance.hubs import in_hub as in_hub
from tests.conformance.hubs import where as where
from tests.conformance.hubs import where_not as where_not

SECOND = ev.TICKS_PER_SECOND
EVERY = frozenset(Status)
NONE: frozenset[Status] = frozenset()


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
    """An instance in hand: its lease, what the store told of it, and its episodes.

    `place` is its hub; without one its clock is enough.
    """

    def __init__(self, store: TaskHubStore, locked: LockedInstance, place: "Hub | Environment") -> None:
        self.store = store
        self.hub = place if isinstance(place, Hub) else None
        self._now = place.now
        self.locked = locked
        self.lease: Lease = locked.lease
        self.record: InstanceRecord = locked.record
        self.inbox: list[InboundMessage] = list(locked.messages)
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

    async def hear(self, *deliveries: Delivery | None) -> list[ev.HistoryEvent]:
        """Take what came along with a call; where a store brings that later, it is waited for and fetched."""
        given = [one for one in deliveries if one is not None]
        if self.hub is None or not self.hub.traits.settles:
            return self.take(given)
        self.hub.came(self.store).extend(given)
        return await self.fetch()

    async def fetch(self) -> list[ev.HistoryEvent]:
        """Take what is there to be fetched for this instance."""
        if self.hub is None:
            return self.take(await self.store.fetch())
        came = await self.hub.fetch(self.store)
        events = self.take(came)
        came[:] = [one for one in came if one.instance != self.lease.key]
        return events

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
        making = Episode(self.state, batch, now=now or self._now(), new_id=new_id)
        acts = actions or custom is not UNSET or cancel
        if acts and not making.feed and making.state.projection.status not in TERMINAL:
            # The script acts although nothing came.
            making.feed = [ev.OrchestratorStarted(timestamp=now or self._now())]
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
        if outcome.result is CommitResult.COMMITTED and keep and not commit.ended:
            await self.hear(*(one for one in outcome.deliveries if one.instance == self.lease.key))
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
    await hub.settle()
    for locked in await store.lock(limit):
        one = Held(store, locked, hub)
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


async def lock_by(hub: Hub, instance_id: str, *stores: TaskHubStore) -> Held:
    """The one instance that there must be to lock, by the first of these hosts that may get it."""
    (first, *others) = stores
    if hub.traits.any_host or not others:
        return await lock_one(hub, first, instance_id)
    held = [one for store in stores for one in (await lock(hub, store)).values()]
    assert [one.id for one in held] == [instance_id], held
    return held[0]


async def stand(hub: Hub, store: TaskHubStore, *children: str) -> None:
    """Children that were asked for stand: on some stores they do so from their own first commit on."""
    if not hub.traits.children_stand:
        locked = await lock(hub, store)
        for name, held in locked.items():
            await held.step(keep=False) if name in children else await held.put_back()


async def letters_of(hub: Hub, store: TaskHubStore, count: int) -> list[StoredDeadLetter]:
    """The dead letters, when there are so many: some stores wait a while for who may yet come."""
    for _ in range(30):
        letters = await store.dead_letters()
        if len(letters) >= count or not hub.traits.settles:
            break
        await store.put_back([one.lease for one in await store.lock(100)])
        await hub.later(20)
    assert len(letters) == count, letters
    return letters


async def work_of(hub: Hub, store: TaskHubStore, given: Sequence[LockedActivity], count: int) -> list[LockedActivity]:
    """The work items that were to be locked along with a commit: as given, else locked now."""
    return list(given) if hub.traits.takes_along else await store.lock_activities(count)


async def offered(hub: Hub, store: TaskHubStore, limit: int) -> list[LockedActivity]:
    """The work items that a host is offered; what another ran without a message comes along with its instance."""

    async def look() -> list[LockedActivity]:
        await store.put_back([one.lease for one in await store.lock(100)])
        return await store.lock_activities(limit)

    return await hub.some(look)


def effective(messages: Sequence[InboundMessage]) -> list[InboundMessage]:
    """Messages, but for those without effect by which a store has an instance looked at."""
    return [one for one in messages if type(one.event) is not ev.GenericEvent]


async def taken(hub: Hub, store: TaskHubStore, *given: LockedInstance | None) -> list[Held]:
    """The instances that were to be locked along with a call: as given, else locked now, as many of the oldest."""
    if not hub.traits.takes_along:
        assert not any(given)
        return list((await lock(hub, store, len(given))).values())
    assert all(given), given
    return [Held(store, one, hub) for one in given if one is not None]


async def lock_anywhere(hub: Hub, store: TaskHubStore) -> dict[str, Held]:
    """What there is to lock for a host; where only owners of partitions get anything, for all hosts at work."""
    held = await lock(hub, store)
    if not hub.traits.any_host:
        for each in hub.at_work():
            with suppress(StoreUnavailable):  # it was closed
                held |= await lock(hub, each)
    return held


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
