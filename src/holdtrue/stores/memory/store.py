"""The in-memory task hub store: one process's view of a hub in memory.

What each verb does stands with its subject (`starts`, `inbox`, `commits`, `locking`, ...); here it is only
put to the hub, at one moment and without any wait, and the others are told of it.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence

from holdtrue.core.events import AnyEvent, HistoryEvent, Ticks
from holdtrue.core.messages import OutboundMessage, WorkRef
from holdtrue.core.projection import Condition
from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors
from holdtrue.stores.leases import LeaseSeen, LeaseWatch
from holdtrue.stores.protocol import (
    ActivityInfo,
    ActivityResult,
    CommitOutcome,
    Committing,
    CompleteOutcome,
    CreateOutcome,
    CreateRequest,
    Delivery,
    Due,
    HubInfo,
    InstanceCopy,
    InstanceQuery,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
    Notice,
    Page,
    Purged,
    SendOutcome,
    StoredDeadLetter,
    StoredSchedule,
    Tick,
    TickCommit,
)

from . import backup, commits, copies, inbox, locking, purging, reading, schedules, starts
from .hub import Member, MemoryHub, Moment

_PIECE = 1_024
"""Events of a history handed out at a time."""


class MemoryStore:
    """A task hub in this process's memory: gone with it, for one event loop at a time.

    Several stores on one `hub` are to each other as several processes: `die` is the sudden end of one.
    `lease_seconds` is after how long a host that does not renew its lease loses what it holds.
    """

    def __init__(self, hub: MemoryHub, *, environment: Environment = REAL, lease_seconds: float = 120.0) -> None:
        self.hub = hub
        self.alive = True
        self._environment = environment
        self._lease_seconds = lease_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._number = 0
        self._forsaken = 0
        self._lost = False
        self._leases = LeaseWatch()
        self._member: Member | None = None
        self._turn = 0
        self._notify: Callable[[Notice], None] | None = None
        self._context: contextvars.Context | None = None

    @property
    def location(self) -> None:
        return None

    @property
    def takes_ahead(self) -> bool:
        return True

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None:
            return
        if any(store.is_used_on_another(loop) for store in self.hub.stores):
            raise errors.StoreUnavailable(
                f"hub {self.hub.name!r} is open on another event loop; a hub in memory is for one loop: close it "
                "there first, or use an SQLite hub"
            )
        self._loop = loop
        self.hub.stores.append(self)

    def is_used_on_another(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is open on another loop that goes on."""
        return self._loop is not None and self._loop is not loop and not self._loop.is_closed()

    async def close(self) -> None:
        if self._loop is not None and self.alive:
            await self.leave()
        self._end()

    def die(self) -> None:
        """The sudden end of the process that this store stands for: the others find out at their next `renew`."""
        self.alive = False
        if self in self.hub.stores:
            self.hub.stores.remove(self)

    def _end(self) -> None:
        self._loop = None
        self._notify = None
        if self in self.hub.stores:
            self.hub.stores.remove(self)

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        moment = self._moment()
        locking.remove(moment, self._forsaken)
        self._forsaken = 0
        member = locking.join(
            moment,
            Member(
                number=moment.host,
                name=name,
                lease_seconds=self._lease_seconds,
                orchestrators=tuple(orchestrators),
                queues=tuple(queues),
                store=self,
            ),
        )
        self._member, self._number, self._lost = member, member.number, False
        self._done(moment)
        return member.number

    def host_lost(self) -> None:
        """This store does not know (any more) what it holds as a host; it is given up when it joins again."""
        self._number, self._forsaken = 0, self._number or self._forsaken
        self._lost = True

    async def leave(self) -> None:
        if self._number:
            moment = self._moment()
            locking.remove(moment, self._number)
            self._number, self._member = 0, None
            self._done(moment)

    async def renew(self) -> list[str]:
        moment = self._moment()
        self._require_host()
        if not moment.host:
            raise self._lease_lost()
        hub = self.hub
        hub.members[moment.host].renewals += 1
        others = [member for member in hub.members.values() if member.number != moment.host]
        leases = (LeaseSeen(member.number, member.renewals, member.lease_seconds) for member in others)
        over = self._leases.over(leases, self._environment.monotonic())
        dead = [member for member in others if member.number in over or not member.store.alive]
        for member in dead:
            locking.remove(moment, member.number)
        self._done(moment)
        return [member.name for member in dead]

    def _lease_lost(self) -> errors.LeaseLost:
        return errors.LeaseLost(
            f"hub {self.hub.name!r}: this host does not take part (any more): it was stopped for longer than its "
            "lease, or never joined. What it held is with others; join again"
        )

    def _require_host(self) -> None:
        if self._lost:
            raise self._lease_lost()

    # -- moments ---------------------------------------------------------------------------------------

    def _open_hub(self) -> MemoryHub:
        if self._loop is None:
            raise errors.StoreUnavailable(f"hub {self.hub.name!r} is closed; open it first")
        return self.hub

    def _moment(self) -> Moment:
        hub, number = self._open_hub(), self._number
        if number and number not in hub.members:
            # It was taken for dead.
            self.host_lost()
            number = 0
        return Moment(hub, self._environment.now(), number)

    def _done(self, moment: Moment) -> None:
        """Tell the others what was done; and this one, where it has something to fetch."""
        hub = self.hub
        if moment.own:
            hub.announce(self, Notice(work=True))
        if len(hub.stores) > 1 and (moment.work or moment.changed or moment.schedules):
            notice = Notice(work=moment.work, changed=tuple(moment.changed), schedules=moment.schedules)
            for store in hub.stores:
                if store is not self and store.is_listening:
                    hub.announce(store, notice)

    def listen(self, notify: Callable[[Notice], None]) -> None:
        self._notify = notify
        # It is called as whoever listens, not as whoever did something.
        self._context = contextvars.copy_context()

    @property
    def is_listening(self) -> bool:
        """Whether it wants to be told what others do."""
        return self._notify is not None

    def tell_soon(self, notice: Notice) -> None:
        """Call who listens here, at the next turn of the loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._hear, notice, context=self._context)

    def _hear(self, notice: Notice) -> None:
        if self._notify is not None and self.alive:
            self._notify(notice)

    # -- clients ---------------------------------------------------------------------------------------

    async def create(self, requests: Sequence[CreateRequest]) -> list[CreateOutcome]:
        moment = self._moment()
        outcomes = [starts.create(moment, request) for request in requests]
        self._done(moment)
        return outcomes

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        moment = self._moment()
        outcomes = [inbox.post(moment, message) for message in messages]
        self._done(moment)
        return outcomes

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        hub = self._open_hub()
        found = [hub.of(instance_id) for instance_id in instance_ids]
        return [None if one is None else reading.status(hub, one) for one in found]

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        hub = self._open_hub()
        instance = hub.of(instance_id)
        return [] if instance is None else reading.activities(hub, instance)

    async def history(self, instance_id: str, first: int = 0) -> AsyncIterator[Sequence[HistoryEvent]]:
        instance = self._open_hub().of(instance_id)
        # As it is now: what comes while it is read is not of this moment.
        events = [] if instance is None else instance.history[first:]
        for at in range(0, len(events), _PIECE):
            yield events[at : at + _PIECE]

    async def query(self, query: InstanceQuery) -> Page:
        return reading.query(self._open_hub(), query)

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        hub = self._open_hub()
        found = [hub.of(instance_id) for instance_id in instance_ids]
        return [None if one is None else copies.read(one) for one in found]

    async def put_copies(
        self, copies_: Sequence[InstanceCopy], *, replace: bool = False, run: bool = False
    ) -> list[str]:
        moment = self._moment()
        standing = copies.put(moment, copies_, replace=replace, run=run)
        self._done(moment)
        return standing

    async def children(self, instance_id: str) -> list[str]:
        return [child.projection.instance_id for child in reading.children(self._open_hub(), instance_id)]

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        moment, counts = self._moment(), Purged(refused=[])
        for instance_id in instance_ids:
            purging.purge(moment, instance_id, recursive, counts)
        self._done(moment)
        return counts

    # -- hosts -----------------------------------------------------------------------------------------

    async def lock(self, limit: int) -> list[LockedInstance]:
        self._require_host()
        moment = self._moment()
        names = () if self._member is None else self._member.orchestrators
        locked = locking.lock(moment, limit, names, self._turn + 1)
        self._turn += bool(locked)
        return locked

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        self._require_host()
        moment = self._moment()
        if queues is None:
            queues = () if self._member is None else self._member.queues
        locked = locking.lock_activities(moment, limit, queues, self._turn + 1)
        self._turn += bool(locked)
        return locked

    async def load(self, lease: Lease) -> list[AnyEvent] | None:
        instance = self._open_hub().instances.get(lease.key)
        return None if instance is None or instance.lock != lease.token else list(instance.history)

    async def commit(self, commits_: Sequence[Committing]) -> list[CommitOutcome]:
        moment = self._moment()
        outcomes = commits.commit(moment, commits_)
        self._done(moment)
        return outcomes

    async def park(self, leases: Sequence[Lease], condition: Condition) -> None:
        moment = self._moment()
        for lease in leases:
            locking.park(moment, lease, condition)
        self._done(moment)

    async def put_back(self, leases: Sequence[Lease]) -> None:
        moment = self._moment()
        locking.put_back(moment, leases)
        self._done(moment)

    async def complete(self, results: Sequence[ActivityResult]) -> list[CompleteOutcome]:
        moment = self._moment()
        outcomes = [inbox.complete(moment, result) for result in results]
        self._done(moment)
        return outcomes

    async def put_back_activities(self, refs: Sequence[WorkRef]) -> None:
        moment = self._moment()
        locking.put_back_activities(moment, refs)
        self._done(moment)

    async def spare(self, waiting: Sequence[WorkRef]) -> list[WorkRef]:
        """None: a host takes little more than it can begin, and what it has taken it keeps."""
        return []

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        return locking.report(self._moment(), ref, progress, details)

    async def cancelled(self, refs: Sequence[WorkRef]) -> list[WorkRef]:
        hub = self._open_hub()
        return [ref for ref in refs if hub.held_activity(ref.key, ref.token) is None]

    async def fetch(self) -> list[Delivery]:
        moment = self._moment()
        return inbox.fetch(moment) if moment.host else []

    async def fire_due(self, now: Ticks) -> Due:
        moment = self._moment()
        due = inbox.fire(moment, now)
        self._done(moment)
        return due

    # -- schedules -------------------------------------------------------------------------------------

    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        moment = self._moment()
        etag = schedules.put(moment, schedule, expect)
        self._done(moment)
        return etag

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        return schedules.listed(self._open_hub(), due_by)

    async def delete_schedule(self, schedule_id: str) -> bool:
        moment = self._moment()
        removed = schedules.delete(moment, schedule_id)
        self._done(moment)
        return removed

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        moment = self._moment()
        outcome = schedules.tick(moment, tick)
        self._done(moment)
        return outcome

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        return schedules.ticks(self._open_hub(), schedule_id, after, limit)

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        return schedules.trim(self._moment(), before, schedule_id)

    # -- dead letters and upkeep -----------------------------------------------------------------------

    async def dead_letters(self, *, limit: int = 100, after: int = 0) -> list[StoredDeadLetter]:
        letters = self._open_hub().letters.values()
        return [
            StoredDeadLetter(number=one.number, at=one.at, letter=one.letter) for one in letters if one.number > after
        ][:limit]

    async def resend(self, numbers: Sequence[int]) -> int:
        moment = self._moment()
        sent = inbox.resend(moment, numbers)
        self._done(moment)
        return sent

    async def dismiss(self, numbers: Sequence[int]) -> int:
        letters = self._open_hub().letters
        return sum(letters.pop(number, None) is not None for number in numbers)

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        return reading.expired(self._open_hub(), name, completed_before, keep, limit, excluding)

    async def upkeep(self) -> None:
        self._open_hub()

    async def info(self) -> HubInfo:
        return reading.info(self._open_hub())

    async def backup(self, target: str) -> None:
        backup.write(self._open_hub(), target)
