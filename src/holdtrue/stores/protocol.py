"""What a task hub's store must do: the one protocol that every store implements and one suite checks.

Batch first: most calls take and give lists.  Everything that changes something is durable before the call
returns, except locks (losing one to a power cut loses nothing).  A store never interprets user code; what
an episode does comes as one `EpisodeCommit`, which it applies whole or not at all.

Words: a *host* is one engine at work on the hub; it joins and gets a number.  A *token* is the fencing
token of one lock: a commit under a token that is no longer the instance's has no effect (`LEASE_LOST`).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import AnyEvent, ExecutionStarted, HistoryEvent, Ticks
from holdtrue.core.messages import ActivityTask, DeadLetter, InboundMessage, OutboundMessage, Start, WorkRef
from holdtrue.core.projection import Condition, Projection, Status


class InstanceRecord(msgspec.Struct, kw_only=True):
    """An instance as it is committed: its projection and what no event holds.

    `started` is the ExecutionStarted of the current execution, `length` and `size` the events and bytes of
    its history, `waits_for_worker` true where it has work and no live host has its code (derived), `at_rest` where it
    was put there to be looked at and takes no step (`TaskHubStore.put_copies`), `verified` false where it was read from
    a row that may be behind, as it was asked for.
    """

    projection: Projection
    started: ExecutionStarted
    start_id: str
    dialect: str
    deadline: Ticks | None = None
    condition: Condition | None = None
    length: int = 0
    size: int = 0
    waits_for_worker: bool = False
    at_rest: bool = False
    verified: bool = True


def is_rewinding(record: InstanceRecord) -> bool:
    """True where a rewind was accepted and is not done yet: it is Pending again, and has a history all the same."""
    return record.projection.status is Status.PENDING and record.length > 0


class Lease(msgspec.Struct, frozen=True, gc=False):
    """An instance under lock: the store's key of it, and the fencing token."""

    key: int
    token: int


class LockedInstance(msgspec.Struct, kw_only=True):
    """An instance handed to a host: its record, and the messages that wait for it, in order.

    An instance without history (`record.length` 0, status Pending) has its ExecutionStarted as first
    message.
    """

    lease: Lease
    record: InstanceRecord
    messages: list[InboundMessage]


class LockedActivity(msgspec.Struct, kw_only=True, gc=False):
    """A work item handed to a host; `instance` is the store's key of its instance, `run` counts its runs from 1.

    `details` is what its last run reported with a heartbeat (JSON text).
    """

    ref: WorkRef
    instance: int
    task: ActivityTask
    run: int = 1
    details: str | None = None
    scheduled_at: Ticks = 0

    @property
    def resume(self) -> str | None:
        """From where it goes on: what its last run reported, else what the attempt before did (JSON text)."""
        options = self.task.options
        return self.details if self.details is not None or options is None else options.details


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message for an instance that the asking host holds: to be given to it at once."""

    instance: int
    message: InboundMessage


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A start, and over which statuses of an older instance of that id it may be done.

    The same `start_id` again is the same start.  `take` asks for the lock along with the creation, for a
    host that will run it at once.
    """

    start: Start
    replaceable: frozenset[Status]
    take: bool = False


class CreateResult(StrEnum):
    """What became of a start."""

    CREATED = "created"
    REPLACED = "replaced"
    ALREADY = "already"
    """The same start had been accepted before."""
    REFUSED = "refused"
    """An instance of that id stands in a status that may not be replaced."""


class CreateOutcome(msgspec.Struct, kw_only=True):
    """What became of a start; for REFUSED `status` and `condition` tell what stands there.

    `execution_id` is the new one's, for REFUSED that of the instance that stands there.  For REPLACED
    `status` tells what was replaced.
    """

    result: CreateResult
    instance_id: str
    execution_id: str
    status: Status | None = None
    condition: Condition | None = None
    taken: LockedInstance | None = None


class SendResult(StrEnum):
    """What became of a message."""

    ACCEPTED = "accepted"
    NOT_FOUND = "not found"
    ENDED = "ended"
    """The instance has ended: the message was counted and dropped."""


class SendOutcome(msgspec.Struct, kw_only=True):
    """What became of a message; `delivery` where the asking host holds the instance."""

    result: SendResult
    delivery: Delivery | None = None


class CommitResult(StrEnum):
    """What became of an episode."""

    COMMITTED = "committed"
    STALE = "stale"
    """Another commit came in between: load again."""
    LEASE_LOST = "lease lost"


class Committing(msgspec.Struct, kw_only=True, gc=False):
    """An episode to be committed under a lease.

    `keep` false gives the lock back with the commit.  `take_activities` and `take_starts` lock that many
    of its new work items and children for this host at once (the first ones).
    """

    lease: Lease
    commit: EpisodeCommit
    keep: bool = True
    take_activities: int = 0
    take_starts: int = 0


class CommitOutcome(msgspec.Struct, kw_only=True, gc=False):
    """What became of an episode, and what the host gets with it.

    `activities` and `taken` are the work items and children locked for this host, `deliveries` messages
    of this commit for instances that it holds, `dead` what could not be delivered.
    """

    result: CommitResult
    activities: list[LockedActivity] = []
    taken: list[LockedInstance] = []
    deliveries: list[Delivery] = []
    dead: list[DeadLetter] = []


class ActivityResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a work item ended; the event is a TaskCompleted or TaskFailed."""

    ref: WorkRef
    event: AnyEvent


class CompleteOutcome(msgspec.Struct, kw_only=True):
    """What became of an activity's result: `accepted` is false where its lock was lost (somebody else has it)."""

    accepted: bool
    delivery: Delivery | None = None


class Due(msgspec.Struct, kw_only=True):
    """What a look at the clock brought: messages now due for instances that this host holds, and when to look again."""

    deliveries: list[Delivery]
    ready: bool
    """True where instances that nobody holds got work."""
    next_due: Ticks | None


class InstanceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances to list; every given condition must hold.  Times are ticks, `created_to` excluded.

    `any_order`: whatever order costs the store least; a hub in Azure Storage then reads no more rows than it gives.
    `verified` false: what stands in the rows is enough, though it may be behind (`InstanceRecord.verified`).
    """

    statuses: frozenset[Status] | None = None
    name: str | None = None
    prefix: str | None = None
    created_from: Ticks | None = None
    created_to: Ticks | None = None
    completed_to: Ticks | None = None
    tags: dict[str, str] | None = None
    page_size: int = 100
    token: str | None = None
    newest_first: bool = False
    any_order: bool = False
    verified: bool = True


class Page(msgspec.Struct, kw_only=True):
    """Instances, in creation order unless any was good enough, and the token of the next page (None: no more)."""

    records: list[InstanceRecord]
    token: str | None


class Purged(msgspec.Struct, kw_only=True):
    """Counts of a purge: instances deleted, of them children, and ids that were refused (not ended)."""

    instances: int = 0
    children: int = 0
    refused: list[str] = []


class ActivityInfo(msgspec.Struct, kw_only=True):
    """A work item as a status reader sees it: `run` counts runs, `progress` is its own last word (JSON text)."""

    task_id: int
    scheduled: int
    name: str
    running: bool
    run: int
    progress: str | None = None
    heartbeat_at: Ticks | None = None
    waits_for_worker: bool = False


class ActivityCopy(msgspec.Struct, kw_only=True):
    """A work item as it is kept: `at` is when it was scheduled, `run` counts its runs so far; see `ActivityInfo`."""

    task: ActivityTask
    at: Ticks
    run: int = 0
    progress: str | None = None
    details: str | None = None
    heartbeat_at: Ticks | None = None


class InstanceCopy(msgspec.Struct, kw_only=True):
    """An instance with all that belongs to it, as it stood at one moment.

    `messages` are those that wait for it in order, then those that are `due` later; `activities` its outstanding
    work items.  `wake`: it asks for an episode without a message.
    """

    record: InstanceRecord
    history: list[AnyEvent]
    messages: list[OutboundMessage] = []
    activities: list[ActivityCopy] = []
    wake: bool = False


class StoredDeadLetter(msgspec.Struct, kw_only=True):
    """A dead letter as it is kept: its number, when it came, and the letter."""

    number: int
    at: Ticks
    letter: DeadLetter


class StoredSchedule(msgspec.Struct, kw_only=True):
    """A schedule as it is kept: its definition and state as JSON texts, versioned by `etag`.

    `due` is its next tick (None: paused or over).
    """

    schedule_id: str
    definition: str
    state: str
    due: Ticks | None
    etag: int


STARTED = frozenset({"started", "replaced"})
"""Decisions of ticks that made a run."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one tick of a schedule: what was decided, seeing which status, and what it started.

    `decision` is `started`, `replaced`, `skipped`, `queued`, `held` or `missed`.  `due` is unique within a
    schedule.  `count` is over 1 for a record that stands for that many missed ticks, the last one at `due`.
    `status` is the name of the `Status` that was seen (`RUNNING`), None where there was no instance.
    """

    schedule_id: str
    due: Ticks
    decided_at: Ticks
    decision: str
    count: int = 1
    instance_id: str | None = None
    execution_id: str | None = None
    status: str | None = None
    reason: str | None = None


class TickCommit(msgspec.Struct, kw_only=True):
    """One decision of a schedule, applied whole: its new state, its records, and the start it makes.

    Applied only if the schedule still has `etag`; the schedule then has `etag + 1`.  `request` is judged
    in the same transaction, and `completed_tick` gives the record to keep.  The start is also REFUSED
    while the instance `guard` is there and has not ended; the outcome then tells of that one.  Where it
    is refused, `state_if_refused` and `due_if_refused` are written instead (a queued run, say; a None
    state: `state` and `due` are written all the same).
    `missed` are further records of ticks passed over, kept as they are.  `messages` are sent in the same
    transaction, before the start and unless it is refused (to nobody, or to an ended one: no matter).
    """

    schedule_id: str
    etag: int
    state: str
    due: Ticks | None
    tick: Tick | None = None
    request: CreateRequest | None = None
    guard: str | None = None
    state_if_refused: str | None = None
    due_if_refused: Ticks | None = None
    decision_if_refused: str = "skipped"
    missed: list[Tick] = []
    messages: list[OutboundMessage] = []


def completed_tick(commit: TickCommit, outcome: CreateOutcome) -> Tick | None:
    """The record of a tick whose start had this outcome: every store keeps this one (None: no record asked for).

    A refused start is `held` where a held instance stands in its way, else `decision_if_refused`; one
    that took the place of an instance that had not ended is `replaced`.
    """
    tick = commit.tick
    if tick is None:
        return None
    decision, reason = tick.decision, tick.reason
    if outcome.result is CreateResult.REFUSED:
        held = outcome.condition is not None and outcome.condition.kind == "held"
        decision = "held" if held else commit.decision_if_refused
        words = [word for word in (outcome.condition.reason if outcome.condition else None, reason) if word]
        reason = "; ".join(words) or None
    elif outcome.result is CreateResult.REPLACED and outcome.status is not None and not outcome.status.is_terminal:
        decision = "replaced"
    return msgspec.structs.replace(
        tick,
        decision=decision,
        instance_id=outcome.instance_id,
        execution_id=outcome.execution_id,
        status=None if outcome.status is None else outcome.status.name,
        reason=reason,
    )


class HubInfo(msgspec.Struct, kw_only=True):
    """Figures of a hub: instances by status, messages, work items, dead letters, hosts alive, bytes on disk."""

    instances: dict[str, int]
    messages: int
    activities: int
    dead_letters: int
    hosts: list[str]
    size: int
    schema_version: int


class Notice(msgspec.Struct, frozen=True):
    """Why a host is called: there may be new work (`work`), an instance changed (`changed`), a schedule changed."""

    work: bool = True
    changed: tuple[str, ...] = ()
    schedules: bool = False


@runtime_checkable
class TaskHubStore(Protocol):
    """A task hub in some storage.  All ids are instance ids unless they are called keys.

    Every method may raise a `stores.errors.StoreError`: what it says was not done, or (for
    `OutcomeUnknown` alone) is to be read back.
    """

    @property
    def location(self) -> str | None:
        """A path or URL by which another process of this machine opens the same hub (None: none can)."""

    @property
    def takes_ahead(self) -> bool:
        """Whether a host may take more activities than it can start at once: nobody else gets them meanwhile."""

    # -- life ----------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open, create or migrate the hub."""

    async def close(self) -> None:
        """Give back what is held, and close; idempotent."""

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        """Take part as a host that has this code; wakes what waited for it and what is held.  Gives its number.

        `queues` are the activity queues it serves: `queue_name(activity, tag)`.
        """

    async def leave(self) -> None:
        """Give all locks back and stop being a host."""

    def listen(self, notify: Callable[[Notice], None]) -> None:
        """Call `notify` (on the loop) when other processes have made work for this one."""

    async def renew(self) -> list[str]:
        """Prolong this host's lease; take over from hosts that died.  Gives their names.  Raises LeaseLost."""

    # -- clients -------------------------------------------------------------------------------------
    async def create(self, requests: Sequence[CreateRequest]) -> list[CreateOutcome]:
        """Create instances."""

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        """Put messages into instances' inboxes.

        One that asks for a rewind makes a failed instance Pending at once (`projection.rewinding`).  A recursive
        terminate to one that has ended goes on to all under it; so it does from one that takes it, or that
        ends before it could (`commit`), in the same transaction.
        """

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        """The records, None for an id that there is not."""

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        """The outstanding work items of an instance."""

    def history(self, instance_id: str, first: int = 0) -> AsyncIterator[Sequence[HistoryEvent]]:
        """The history of the current execution from an ordinal on, in pieces."""

    async def query(self, query: InstanceQuery) -> Page:
        """One page of instances."""

    async def children(self, instance_id: str) -> list[str]:
        """The ids of the instance's children (of any execution), direct ones."""

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        """Delete ended instances (and those at rest) and all that belongs to them."""

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        """Instances with all that belongs to them, each as it stands at one moment; None for an id that there is not.

        Changes nothing, whoever holds them.
        """

    async def put_copies(
        self, copies: Sequence[InstanceCopy], *, replace: bool = False, run: bool = False
    ) -> list[str]:
        """Put instances there as they stood elsewhere; gives the ids that stand already, and then writes nothing.

        With `replace` those go first, whatever their status.  Without `run` what has not ended is at rest: no host
        gets it or its work items, its messages wait, and it can be purged; with it, it goes on as any other.
        """

    # -- hosts ---------------------------------------------------------------------------------------
    async def lock(self, limit: int) -> list[LockedInstance]:
        """Take up to `limit` instances that have work and whose code this host has, or that a waiting message ends
        whoever has their code (a terminate, a deadline, a cancel before the first step).
        """

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        """Take up to `limit` work items of this host's queues (or of those given)."""

    async def load(self, lease: Lease) -> list[AnyEvent] | None:
        """The whole history of a locked instance; None where the lock is lost: what stands there is another's."""

    async def commit(self, commits: Sequence[Committing]) -> list[CommitOutcome]:
        """Apply episodes, each whole or not at all."""

    async def park(self, leases: Sequence[Lease], condition: Condition) -> None:
        """Hold instances: keep their messages, give back the lock, and offer them again only at the next `join`.

        A terminate, a purge or a replacing start still acts.
        """

    async def put_back(self, leases: Sequence[Lease]) -> None:
        """Give locks back."""

    async def complete(self, results: Sequence[ActivityResult]) -> list[CompleteOutcome]:
        """Hand in results of work items whose instance this host does not hold."""

    async def put_back_activities(self, refs: Sequence[WorkRef]) -> None:
        """Give work items back, to be run by any host."""

    async def spare(self, waiting: Sequence[WorkRef]) -> list[WorkRef]:
        """Which of these work items, that wait for a slot of this host, it should give back: another may have one."""

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        """A running activity's sign of life; false: its lock is lost, or it was asked to stop."""

    async def cancelled(self, refs: Sequence[WorkRef]) -> list[WorkRef]:
        """Which of these work items nobody wants any more."""

    async def fetch(self) -> list[Delivery]:
        """Messages that came from other processes for instances that this host holds."""

    async def fire_due(self, now: Ticks) -> Due:
        """Make messages whose time has come available."""

    # -- schedules -----------------------------------------------------------------------------------
    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        """Write a schedule if its etag is `expect` (None: it is not there yet); its new etag, or None if it is not."""

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        """All schedules by id, or those due."""

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Remove a schedule and its ticks; false if there was none."""

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        """Apply a tick: False if the etag was another's, None without a request, else what became of it."""

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        """Records of ticks in order of time, later than `after`."""

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        """Forget records of ticks due before (of one schedule); how many."""

    # -- dead letters and upkeep -----------------------------------------------------------------------
    async def dead_letters(self, *, limit: int = 100, after: int = 0) -> list[StoredDeadLetter]:
        """Dead letters by number."""

    async def resend(self, numbers: Sequence[int]) -> int:
        """Send dead letters again; how many were taken."""

    async def dismiss(self, numbers: Sequence[int]) -> int:
        """Delete dead letters; how many there were."""

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        """Ended top-level instances, oldest end first, that ended before, or are beyond the newest `keep`.

        `name` asks for those of one orchestration, `excluding` leaves out some orchestrations'.
        """

    async def upkeep(self) -> None:
        """Whatever the store does from time to time to stay small and fast."""

    async def info(self) -> HubInfo:
        """Figures of the hub."""

    async def backup(self, target: str) -> None:
        """A consistent copy while work goes on."""


def queue_name(activity: str, tag: str | None) -> str:
    """The queue of an activity's work items: workers serve names, and tags they are given."""
    return activity if tag is None else f"{activity}\x1f{tag}"
