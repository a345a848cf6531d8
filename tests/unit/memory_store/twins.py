"""Does the same to a hub in memory and to one in SQLite, and says what each answered, in words that fit both.

Keys and tokens are each store's own affair: instances and messages are told by what they are.
"""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdtrue.core import events as ev
from holdtrue.core.messages import CANCEL_EVENT, OutboundMessage
from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.environment import Environment
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import (
    ActivityResult,
    CommitResult,
    Delivery,
    InstanceQuery,
    LockedActivity,
    LockedInstance,
    SendOutcome,
    StoredSchedule,
    TaskHubStore,
    Tick,
    TickCommit,
    is_rewinding,
)
from holdtrue.stores.sqlite import SqliteStore
from tests.conformance import acting
from tests.conformance.acting import (
    EVERY,
    NONE,
    SECOND,
    Held,
    act,
    again,
    child,
    done,
    end,
    fail,
    history_of,
    raised,
    rewind,
    start,
    suspend,
    tell,
    terminate,
    timer,
    went_wrong,
    with_work,
)

IDS = [f"i{n}" for n in range(6)]
CODE = ("code", "child", "other")


class SetClock(Environment):
    """Time stands still until it is set; stores write on the loop."""

    inline_writer = True

    def __init__(self) -> None:
        self.ticks = 1_000 * SECOND

    def now(self) -> ev.Ticks:
        return self.ticks

    def monotonic(self) -> float:
        return self.ticks / SECOND


class Side:
    """One kind of hub with its hosts, and what each of them has in hand."""

    def __init__(self, clock: SetClock, stores: list[TaskHubStore]) -> None:
        self.clock = clock
        self.stores = stores
        self.held: list[dict[str, Held]] = [{} for _ in stores]
        self.items: list[LockedActivity] = []
        self.ids: dict[int, str] = {}

    async def open(self) -> None:
        for number, store in enumerate(self.stores):
            await store.open()
            await store.join(f"h{number}", CODE[: 2 + number], ("act",))

    async def close(self) -> None:
        for store in self.stores:
            await store.close()

    # -- what is in hand -------------------------------------------------------------------------------

    async def adopt(self, host: int, locked: LockedInstance) -> Any:
        held = Held(self.stores[host], locked, self.clock)
        self.ids[held.lease.key] = held.id
        if held.record.length:
            await held.load()
        for others in self.held:
            others.pop(held.id, None)
        self.held[host][held.id] = held
        return (held.id, _record(locked.record), [_message(m) for m in held.inbox])

    def deliver(self, host: int, deliveries: list[Delivery]) -> Any:
        told = []
        for delivery in deliveries:
            instance_id = self.ids[delivery.instance]
            held = self.held[host].get(instance_id)
            if held is not None and held.lease.key == delivery.instance:
                held.inbox.append(delivery.message)
            told.append((instance_id, _message(delivery.message)))
        return told

    def sent(self, host: int, outcome: SendOutcome) -> Any:
        return outcome.result, self.deliver(host, [outcome.delivery] if outcome.delivery else [])

    async def seen(self) -> Any:
        """All that clients see."""
        store = self.stores[0]
        records = (await store.query(InstanceQuery(page_size=1_000))).records
        info = await store.info()
        return (
            [_record(record) for record in records],
            [await history_of(store, record.projection.instance_id) for record in records],
            [await _activities(store, record.projection.instance_id) for record in records],
            [sorted(await store.children(record.projection.instance_id)) for record in records],
            ({name: n for name, n in info.instances.items() if n}, info.messages, info.activities, info.hosts),
            [(s.at, s.letter) for s in await store.dead_letters()],
            [(s.schedule_id, s.state, s.due) for s in await store.get_schedules()],
            await store.ticks("s"),
            await store.expired(None, self.clock.now(), 2, 10),
        )


async def _activities(store: TaskHubStore, instance_id: str) -> Any:
    return sorted((a.task_id, a.scheduled, a.name, a.running, a.run, a.progress, a.waits_for_worker)
                  for a in await store.activities_of(instance_id))  # fmt: skip


def _record(record: Any) -> Any:
    p = record.projection
    return (p, record.started, record.start_id, record.condition, record.length, record.size, record.waits_for_worker)


def _message(message: Any) -> Any:
    return (message.event, message.execution_id, message.scheduled)


def sides(folder: Path, hosts: int = 2) -> tuple[Side, Side]:
    """A hub of each kind, with so many hosts."""
    clock = SetClock()
    hub = MemoryHub()
    memory: list[TaskHubStore] = [MemoryStore(hub, environment=clock, lease_seconds=3_600) for _ in range(hosts)]
    path = str(folder / "hub.db")
    sqlite: list[TaskHubStore] = [
        SqliteStore(path, environment=clock, lease_seconds=3_600, synchronous="normal") for _ in range(hosts)
    ]
    return Side(clock, memory), Side(clock, sqlite)


# -- what is done to both ----------------------------------------------------------------------------------

Deed = Callable[[Side], Any]


async def do_both(one: Side, two: Side, deed: Deed, number: int) -> tuple[Any, Any]:
    """Do it to both, with the same ids; what each answered."""
    answers = []
    for side in (one, two):
        acting._numbers = itertools.count(number * 1_000)
        answers.append(await deed(side))
    return answers[0], answers[1]


def any_deed(chance: random.Random, hosts: int = 2) -> tuple[str, Deed]:
    """A deed and what it is; all that chance decides is decided here, before either side sees it."""
    host, instance_id = chance.randrange(hosts), chance.choice(IDS)
    seed = chance.getrandbits(32)
    name = chance.choice([*_DEEDS, "step", "step", "step", "lock", "lock"])
    deed = _DEEDS[name]
    return f"{name} by {host} on {instance_id} (seed {seed})", lambda side: deed(
        side, host, instance_id, random.Random(seed)
    )


async def _create(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    now = side.clock.now()
    request = start(
        instance_id,
        name=chance.choice(CODE),
        start_id=chance.choice([None, None, "mine"]),
        over=chance.choice([TERMINAL, TERMINAL, NONE, EVERY]),
        take=chance.random() < 0.3,
        at=now,
        begins=chance.choice([None, None, None, now + 20 * SECOND]),
        deadline=chance.choice([None, None, None, now + 15 * SECOND]),
        event=chance.choice([None, ev.EventRaised(timestamp=1, name="first", input="1")]),
    )
    (outcome,) = await side.stores[host].create([request])
    taken = None if outcome.taken is None else await side.adopt(host, outcome.taken)
    return outcome.result, outcome.status, outcome.execution_id, outcome.condition, taken


async def _send(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    messages = [
        raised(instance_id, "e", 1),
        raised(instance_id, "e", 2),
        terminate(instance_id, '"why"'),
        suspend(instance_id),
        rewind(instance_id),
        OutboundMessage(instance_id=instance_id, event=ev.ExecutionResumed(timestamp=1)),
        OutboundMessage(instance_id=instance_id, event=ev.EventRaised(timestamp=1, name=CANCEL_EVENT, input="null")),
    ]
    outcomes = await side.stores[host].send(chance.sample(messages, 2))
    return [side.sent(host, outcome) for outcome in outcomes]


async def _lock(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    # All of them: in which order those of one moment come is each store's own affair.
    locked = await side.stores[host].lock(100)
    return sorted([await side.adopt(host, one) for one in locked], key=lambda one: one[0])


async def _step(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    held = _choose(side, host, chance)
    if held is None or not _takes_a_step(held):
        return None
    free, more = itertools.islice((n for n in itertools.count() if n not in held.state.open), 2)
    choices = [
        [],
        [act(free), act(more)],
        [act(free, "unserved")],
        [timer(free, side.clock.now() + chance.choice([0, 10, 30]) * SECOND)],
        [child(free, chance.choice(IDS))],
        [tell(free, chance.choice([*IDS, "nobody"]), "told", "1")],
        [end(output='"o"')],
        [fail()],
        [again(input='"next"')],
    ]
    actions = chance.choice(choices)
    cancel = tuple(held.state.open)[:1] if chance.random() < 0.2 else ()
    commit = held.episode(
        *actions, cancel=cancel, custom=chance.choice([acting.UNSET, acting.UNSET, '"c"']), now=side.clock.now()
    )
    commit.wake = commit.wake or chance.random() < 0.05
    keep = chance.random() < 0.6
    takes = chance.choice([0, 1])
    committing = held.committing(commit, keep, takes, takes)
    (outcome,) = await side.stores[host].commit([committing])
    if outcome.result is not CommitResult.COMMITTED or commit.ended or not keep:
        side.held[host].pop(held.id, None)
    elif commit.replace:
        await side.stores[host].put_back([held.lease])
        side.held[host].pop(held.id, None)
    side.items += outcome.activities
    taken = [await side.adopt(host, one) for one in outcome.taken]
    items = [(item.task, item.run) for item in outcome.activities]
    return outcome.result, items, taken, sorted(map(str, side.deliver(host, outcome.deliveries))), outcome.dead


async def _batch(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    """Episodes of all in hand in one call, late ones among them; none writes to another of the batch."""
    batch = []
    for name in sorted(side.held[host]):
        held = side.held[host][name]
        free = next(n for n in itertools.count() if n not in held.state.open)
        # No activities: in which order those of one moment come is each store's own affair.
        action = chance.choice([timer(free, side.clock.now() + 5 * SECOND), end(), fail(), tell(free, name, "m")])
        if _takes_a_step(held):
            batch.append(held.committing(held.episode(action, now=side.clock.now()), chance.random() < 0.5))
    outcomes = await side.stores[host].commit(batch)
    told = []
    for committing, outcome in zip(batch, outcomes, strict=True):
        if outcome.result is not CommitResult.COMMITTED or committing.commit.ended or not committing.keep:
            del side.held[host][committing.commit.instance_id]
        told.append((outcome.result, side.deliver(host, outcome.deliveries)))
    return told


def _takes_a_step(held: Held) -> bool:
    """Neither ended nor to be rewound, which is a commit of its own kind."""
    return held.state.projection.status not in TERMINAL and not is_rewinding(held.record)


def _choose(side: Side, host: int, chance: random.Random) -> Held | None:
    held = side.held[host]
    return held[chance.choice(sorted(held))] if held else None


async def _put_back(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    held = _choose(side, host, chance)
    if held is not None:
        await side.stores[host].put_back([held.lease])
        if chance.random() < 0.7:
            del side.held[host][held.id]  # else it writes late


async def _park(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    held = _choose(side, host, chance)
    if held is not None and _takes_a_step(held):
        del side.held[host][held.id]
        await side.stores[host].park([held.lease], Condition(kind="held", reason="why", since=3))


async def _items(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    items = await side.stores[host].lock_activities(chance.choice([1, 5]))
    side.items += items
    return [(item.task, item.run, item.details, item.scheduled_at) for item in items]


async def _complete(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    if not side.items:
        return None
    item = side.items.pop(chance.randrange(len(side.items)))
    store, event = side.stores[host], chance.choice([done, went_wrong])(item)
    way = chance.randrange(4)
    if way == 0:
        await store.put_back_activities([item.ref])
        return None
    if way == 1:
        side.items.append(item)
        return await store.report(item.ref, chance.choice([None, "1"]), chance.choice([None, "2"]))
    held = side.held[host].get(item.task.instance_id)
    if way == 2 and held is not None:
        held.inbox.append(with_work(item, event))
        return None
    (outcome,) = await store.complete([ActivityResult(ref=item.ref, event=event)])
    return outcome.accepted, side.deliver(host, [outcome.delivery] if outcome.delivery else [])


async def _wait(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    due = await side.stores[host].fire_due(side.clock.now())
    return due.ready, due.next_due, sorted(map(str, side.deliver(host, due.deliveries)))


async def _fetch(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    return sorted(map(str, side.deliver(host, await side.stores[host].fetch())))


async def _purge(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    purged = await side.stores[host].purge(chance.sample(IDS, 2), recursive=chance.random() < 0.5)
    return purged.instances, purged.children, sorted(purged.refused)


async def _join(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    store = side.stores[host]
    if chance.random() < 0.5:
        await store.leave()
        side.held[host].clear()
    return await store.join(f"h{host}", CODE[: chance.choice([1, 2, 3])], ("act",))


async def _renew(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    return await side.stores[host].renew()


async def _resend(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    store = side.stores[host]
    numbers = [letter.number for letter in await store.dead_letters()]
    return await (store.resend(numbers) if chance.random() < 0.7 else store.dismiss(numbers[:1]))


async def _tick(side: Side, host: int, instance_id: str, chance: random.Random) -> Any:
    store, now = side.stores[host], side.clock.now()
    (schedule,) = await store.get_schedules() or [None]
    if schedule is None:
        stored = StoredSchedule(schedule_id="s", definition="{}", state="0", due=now, etag=0)
        return await store.put_schedule(stored, expect=None) is not None
    outcome = await store.commit_tick(
        TickCommit(
            schedule_id="s",
            etag=schedule.etag,
            state=str(now),
            due=now + SECOND,
            tick=Tick(schedule_id="s", due=now, decided_at=now, decision="started"),
            request=start(instance_id, name="code", over=chance.choice([TERMINAL, EVERY]), at=now),
            guard=chance.choice([None, *IDS[:2]]),
            state_if_refused=chance.choice([None, "refused"]),
            messages=[raised(chance.choice(IDS), "tick")],
        )
    )
    return None if outcome is None or isinstance(outcome, bool) else (outcome.result, outcome.status)


_DEEDS: dict[str, Callable[[Side, int, str, random.Random], Any]] = {
    "create": _create,
    "send": _send,
    "lock": _lock,
    "step": _step,
    "batch": _batch,
    "put back": _put_back,
    "park": _park,
    "items": _items,
    "complete": _complete,
    "wait": _wait,
    "fetch": _fetch,
    "purge": _purge,
    "join": _join,
    "renew": _renew,
    "resend": _resend,
    "tick": _tick,
}
