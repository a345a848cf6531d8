"""A task hub in memory: the state that the stores of several (simulated) processes share.

Plain values in dicts that keep their order: nothing here depends on hashes, on a clock or on chance.  What
the verbs do with it stands with their subjects; here is only what keeps the parts of the state together (the
lines of what is ready, the times at which messages are due, the mail of hosts).
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from holdtrue.core.events import AnyEvent, ExecutionStarted, Ticks
from holdtrue.core.messages import ActivityTask, InboundMessage
from holdtrue.core.projection import Condition, Projection
from holdtrue.stores.decisions import AT_REST
from holdtrue.stores.protocol import Notice, StoredDeadLetter, StoredSchedule, Tick

if TYPE_CHECKING:
    from .store import MemoryStore

LOCK_BITS = 40
"""A token is its host's number, shifted by so many bits, plus a counter."""
_SLACK = 64
"""So many entries of messages that are gone may lie among the times before these are counted anew."""


class Delayed(msgspec.Struct, frozen=True):
    """A message and the time before which it is not to be seen."""

    due: Ticks
    message: InboundMessage


class Activity(msgspec.Struct, kw_only=True, gc=False):
    """A work item; `lock` is the token of who holds it, 0 where nobody does."""

    key: int
    instance: int
    at: Ticks
    task: ActivityTask
    queue: str
    lock: int = 0
    run: int = 0
    progress: str | None = None
    details: str | None = None
    heartbeat: Ticks | None = None


class Instance(msgspec.Struct, kw_only=True):
    """An instance and all that belongs to it.

    `lock` is the token of who holds it, 0 where nobody does, below that where it is at rest; `ready` says that it has
    work, `woken` that it asks for an episode without a message; `begins` is its scheduled start, `tried` the hosts that
    could not go on with it while it is held; `ending` that a message may wait which ends it without its code.
    """

    key: int
    projection: Projection
    started: ExecutionStarted
    start_id: str
    dialect: str
    deadline: Ticks | None = None
    condition: Condition | None = None
    begins: Ticks | None = None
    history: list[AnyEvent]
    size: int = 0
    lock: int = 0
    ready: bool = False
    woken: bool = False
    ending: bool = False
    tried: tuple[int, ...] = ()
    inbox: dict[int, InboundMessage]
    delayed: dict[int, Delayed]
    activities: dict[tuple[str, int], Activity]


class Member(msgspec.Struct, kw_only=True):
    """A host that has joined and not left, and the store that stands for its process."""

    number: int
    name: str
    lease_seconds: float
    renewals: int = 0
    orchestrators: tuple[str, ...]
    queues: tuple[str, ...]
    store: "MemoryStore"


class Line:
    """Work items of one queue that nobody holds, the oldest first."""

    __slots__ = ("_in_order", "_items")

    def __init__(self) -> None:
        self._items: dict[int, Activity] = {}
        self._in_order = True

    def add(self, activity: Activity, *, again: bool = False) -> None:
        """One more; `again`: it had left the line, and gets its place back."""
        self._items[activity.key] = activity
        self._in_order = self._in_order and not again

    def remove(self, activity: Activity) -> None:
        """Somebody took it, or nobody wants it."""
        self._items.pop(activity.key, None)

    def first(self, limit: int) -> list[Activity]:
        """Up to `limit`."""
        if not self._in_order:
            self._items = dict(sorted(self._items.items(), key=lambda item: (item[1].at, item[0])))
            self._in_order = True
        return list(islice(self._items.values(), limit))


class MemoryHub:
    """The state of one hub; `name` is how errors call it.

    `announce` tells a store that others made work for it, or changed something.  It may be replaced, to delay
    notices or to drop them.
    """

    def __init__(self, name: str = "memory:") -> None:
        self.name = name
        self.announce: Callable[[MemoryStore, Notice], None] = _tell
        self.stores: list[MemoryStore] = []
        self.instances: dict[int, Instance] = {}
        self.keys: dict[str, int] = {}
        self.children: dict[str, dict[int, None]] = {}
        self.activities: dict[int, Activity] = {}
        self.members: dict[int, Member] = {}
        self.schedules: dict[str, StoredSchedule] = {}
        self.ticks: dict[str, list[Tick]] = {}
        self.letters: dict[int, StoredDeadLetter] = {}
        self.mail: dict[int, dict[int, list[int]]] = {}
        self.ready: dict[str, dict[int, Instance]] = {}
        self.ending: dict[int, Instance] = {}
        self.lines: dict[str, Line] = {}
        self.counts = Counts()
        self._due: list[tuple[Ticks, int, int]] = []
        self._delayed = 0

    # -- instances -------------------------------------------------------------------------------------

    def of(self, instance_id: str) -> Instance | None:
        """The instance of an id."""
        key = self.keys.get(instance_id)
        return None if key is None else self.instances[key]

    def add(self, instance: Instance) -> None:
        """A new instance."""
        key, projection = instance.key, instance.projection
        self.instances[key] = instance
        self.keys[projection.instance_id] = key
        if projection.parent is not None:
            self.children.setdefault(projection.parent.instance_id, {})[key] = None

    def remove(self, instance: Instance) -> None:
        """An instance goes with all that belongs to it."""
        key, projection = instance.key, instance.projection
        self.withdraw(instance)
        self.set_ending(instance, False)
        self.clear_messages(instance)
        for activity in list(instance.activities.values()):
            self.drop(instance, activity)
        if projection.parent is not None:
            siblings = self.children[projection.parent.instance_id]
            del siblings[key]
            if not siblings:
                del self.children[projection.parent.instance_id]
        del self.keys[projection.instance_id]
        del self.instances[key]

    def offer(self, instance: Instance) -> None:
        """It has work; whoever has its code may take it."""
        instance.ready = True
        if not instance.lock:
            self.ready.setdefault(instance.projection.name, {})[instance.key] = instance

    def withdraw(self, instance: Instance) -> None:
        """It is not to be taken any more."""
        if instance.ready:
            instance.ready = False
            name = instance.projection.name
            line = self.ready.get(name)
            if line is not None and line.pop(instance.key, None) is not None and not line:
                del self.ready[name]

    def release(self, instance: Instance) -> None:
        """Nobody holds it any more; it is ready if it has work."""
        self.withdraw(instance)
        instance.lock = 0
        if instance.woken or instance.condition is not None or instance.inbox or not instance.history:
            self.offer(instance)

    def set_ending(self, instance: Instance, ending: bool) -> None:
        """Whether a message may wait that ends it without its code."""
        if instance.ending is not ending:
            instance.ending = ending
            if ending:
                self.ending[instance.key] = instance
            else:
                del self.ending[instance.key]

    # -- messages --------------------------------------------------------------------------------------

    def delay(self, instance: Instance, delayed: Delayed) -> None:
        """A message is for later."""
        key = delayed.message.key
        assert key is not None
        instance.delayed[key] = delayed
        heappush(self._due, (delayed.due, instance.key, key))
        self._delayed += 1

    def forget(self, instance: Instance, key: int) -> Delayed:
        """A delayed message is not wanted any more, or its time has come."""
        self._delayed -= 1
        return instance.delayed.pop(key)

    def clear_messages(self, instance: Instance) -> None:
        """Whatever waits for an instance goes."""
        if instance.inbox:
            instance.inbox = {}
        if instance.delayed:
            self._delayed -= len(instance.delayed)
            instance.delayed = {}

    def next_due(self) -> tuple[Ticks, Instance, int] | None:
        """The delayed message that is due first: when, whose, and its key."""
        due = self._due
        if len(due) > 2 * self._delayed + _SLACK:
            due[:] = [entry for entry in due if self._is_there(entry)]
            heapify(due)
        while due:
            if self._is_there(due[0]):
                when, key, message = due[0]
                return when, self.instances[key], message
            heappop(due)
        return None

    def _is_there(self, entry: tuple[Ticks, int, int]) -> bool:
        instance = self.instances.get(entry[1])
        return instance is not None and entry[2] in instance.delayed

    def send_mail(self, host: int, instance: Instance, key: int) -> None:
        """A message is for an instance that a host holds: it is to fetch it."""
        if instance.lock == AT_REST:
            return
        self.mail.setdefault(host, {}).setdefault(instance.key, []).append(key)

    # -- work items ------------------------------------------------------------------------------------

    def enqueue(self, activity: Activity, *, again: bool = False) -> None:
        """Nobody holds a work item; `again`: any more."""
        line = self.lines.get(activity.queue)
        if line is None:
            line = self.lines[activity.queue] = Line()
        line.add(activity, again=again)

    def drop(self, instance: Instance, activity: Activity) -> None:
        """A work item is done, or nobody wants it."""
        del self.activities[activity.key]
        task = activity.task
        del instance.activities[task.execution_id, task.scheduled]
        if not activity.lock:
            self.lines[activity.queue].remove(activity)

    def held_activity(self, key: int, token: int) -> Activity | None:
        """A work item that is held under this token."""
        activity = self.activities.get(key)
        return activity if activity is not None and token and activity.lock == token else None


class Counts(msgspec.Struct):
    """The last numbers given out, of each kind; none comes again."""

    instance: int = 0
    message: int = 0
    activity: int = 0
    token: int = 0
    host: int = 0
    letter: int = 0


def _tell(store: "MemoryStore", notice: Notice) -> None:
    store.tell_soon(notice)


class Moment:
    """One verb at work: when, for which host (0: none that takes part), and what others have to be told of it."""

    __slots__ = ("_token", "changed", "host", "hub", "now", "own", "schedules", "work")

    def __init__(self, hub: MemoryHub, now: Ticks, host: int) -> None:
        self.hub = hub
        self.now = now
        self.host = host
        self.work = False
        self.schedules = False
        self.changed: list[str] = []
        self.own = False
        self._token = 0

    def token(self) -> int:
        """The fencing token of what this moment locks."""
        if not self._token:
            counts = self.hub.counts
            counts.token += 1
            self._token = self.host << LOCK_BITS | counts.token
        return self._token
