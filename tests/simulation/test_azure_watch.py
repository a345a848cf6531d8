"""Each invariant of a hub on Azure Storage complains of what it is there for: an account is changed as no store may."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from azure_cluster import LookingFormats
from azure_watch import Watch
from broken import Broken
from leftovers import in_host_on_azure
from timekeeping import Timekeeping
from workload import World, app_for

import holdtrue
from holdtrue.core import events as ev
from holdtrue.core.projection import Condition, Projection, Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.envelopes import Envelope, pack_message
from holdtrue.stores.azure_storage.instances_row import start_values
from holdtrue.stores.azure_storage.keeping import PREFIX
from holdtrue.stores.azure_storage.names import SENTINEL, HubNames, row_key
from holdtrue.stores.azure_storage.rows import event_values
from holdtrue.stores.azure_storage.sentinel import (
    Local,
    Owed,
    Sentinel,
    State,
    next_episode,
    read_sentinel,
    sentinel_values,
)
from holdtrue.stores.azure_storage.service import ANY, Do, Operation, Row
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

NAMES = HubNames("Simulated")
CONTROL, WORK = NAMES.control(0), NAMES.work_items
SETTINGS = AzureStorageSettings(
    partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0, local_activities=False
)
WAITS = [["echo", "a"], ["events", "Go", 1, ["x"]], ["echo", "b"]]


class Told:
    """A hub on an account with one host and its client, watched; `stop` lets nobody but the test write."""

    def __init__(self) -> None:
        self.model = StorageModel(SimulatedEnvironment(1))
        self.times = Timekeeping(lambda: 0.0, 20.0, 5.0)
        self.code = 1
        formats = LookingFormats(self.model, NAMES)
        self.watch = Watch(self.model, NAMES, formats, self.times, code=lambda: self.code)
        self.model.account.watch = self._applied
        self.now = SimulatedEnvironment(3).now

    def _applied(self, verb: str, given: tuple[Any, ...], outcome: Any) -> None:
        self.times.read(self.now())
        self.watch.applied(verb, given, outcome)

    async def open(self) -> None:
        self.store = AzureStorageStore(self.model, NAMES.hub, environment=SimulatedEnvironment(7), settings=SETTINGS)
        await self.store.open()
        settings = HostSettings(name="h", retention=False, schedules=False, idle_seconds=1.0)
        self.host = holdtrue.Host(app_for(World()), self.store, settings=settings, environment=SimulatedEnvironment(2))
        await self.host.start()
        self.client = self.host.client

    async def stop(self) -> None:
        await self.host.stop()

    async def waiting(self, name: str = "a") -> None:
        """One that waits for an event, and is served by nobody any more."""
        await self.client.start("program", input=[WAITS, []], instance_id=name, start_id=f"start {name}")
        while (status := await self.client.get_status(name)) is None or status.history_size < 7:
            await asyncio.sleep(0.5)
        await self.stop()

    async def ended(self, name: str = "a") -> None:
        """One that has ended."""
        await self.client.start("program", input=[[["echo", "a"]], []], instance_id=name, start_id=f"start {name}")
        await self.client.wait_for_completion(name)
        await self.stop()

    # -- what stands there -----------------------------------------------------------------------------

    def sentinel(self, name: str = "a") -> Sentinel:
        return read_sentinel(next(row for row in self.rows(name) if row.key == SENTINEL))

    def rows(self, name: str = "a") -> list[Row]:
        return self.model.tables.look(NAMES.history, name)

    def row(self, name: str = "a") -> Row:
        (row,) = self.model.tables.look(NAMES.instances, name)
        return row

    # -- what no store may do --------------------------------------------------------------------------

    async def write_row(self, name: str = "a", **values: Any) -> None:
        operation = Operation(do=Do.MERGE, partition=name, key="", values=values, etag=ANY)
        await self.model.tables.write(NAMES.instances, operation)

    async def write(self, *events: ev.AnyEvent, name: str = "a", first: int | None = None, **state: Any) -> None:
        """Events behind the history, or from `first` on, as its next commit."""
        before = self.sentinel(name)
        begin = before.state.rows if first is None else first
        made: dict[str, Any] = {
            "rows": begin + len(events),
            "episode": next_episode(before.state.episode, "lie"),
            "previous": before.state.episode,
        }
        execution = state.pop("execution", before.execution_id)
        after = msgspec.structs.replace(before.state, **(made | state))
        operations = [
            Operation(do=Do.REPLACE, partition=name, key=row_key(begin + at), values=event_values(event, execution))
            for at, event in enumerate(events)
        ]
        operations.append(self._sentinel(name, execution, after))
        await self.model.tables.transact(NAMES.history, operations)

    def _sentinel(self, name: str, execution: str, state: State) -> Operation:
        values = sentinel_values(execution, True, self.now(), state)
        return Operation(do=Do.REPLACE, partition=name, key=SENTINEL, values=values)

    async def start_over(self, name: str = "a", execution: str = "another") -> None:
        """The row of another start."""
        started = ev.ExecutionStarted(
            timestamp=self.now(), instance_id=name, execution_id=execution, name="program", generation=9
        )
        values = start_values(started, hub=NAMES.hub, start_id=f"start {execution}", at=self.now())
        await self.model.tables.write(
            NAMES.instances, Operation(do=Do.REPLACE, partition=name, key="", values=values, etag=ANY)
        )

    async def begin(self, execution: str, *events: ev.AnyEvent) -> None:
        """The first commit of an execution of a start of its own, whatever stands there."""
        started = ev.ExecutionStarted(
            timestamp=self.now(), instance_id="a", execution_id=execution, name="program", generation=9
        )
        projection = self.projection()
        projection.execution_id, projection.status = execution, Status.RUNNING
        await self.write(
            ev.OrchestratorStarted(timestamp=self.now()),
            started,
            *events,
            ev.OrchestratorCompleted(timestamp=self.now()),
            first=0,
            execution=execution,
            start_id=f"start {execution}",
            projection=projection,
            started=started,
        )

    async def vanishes(
        self, event: ev.AnyEvent, queue: str = CONTROL, *, execution: str | None = None, start_id: str | None = None
    ) -> None:
        """A message is put, and goes."""
        says = Envelope(id="put by a test", instance_id="a", event=event, execution_id=execution, start_id=start_id)
        id, receipt = await self.model.queues.put(queue, pack_message(says).text)
        await self.model.queues.remove(queue, id, receipt)

    def projection(self, name: str = "a") -> Projection:
        found = self.watch.entries[name].projection
        assert found is not None
        return found.copy()


def event(payload: str = "x", name: str = "Go") -> ev.EventRaised:
    return ev.EventRaised(timestamp=5, name=name, input=f'"{payload}"')


Lie = Callable[[Told], Awaitable[None]]
LIES: dict[str, Lie] = {}


def lie(complaint: str) -> Callable[[Lie], Lie]:
    def note(one: Lie) -> Lie:
        LIES[complaint] = one
        return one

    return note


# -- histories and their sentinel ------------------------------------------------------------------------


@lie("rows are committed, and 2 is not among them")
async def a_row_is_lost(told: Told) -> None:
    await told.waiting()
    operation = Operation(do=Do.DELETE, partition="a", key=row_key(2), etag=ANY)
    await told.model.tables.write(NAMES.history, operation)


@lie("event 2 was")
async def a_row_is_rewritten(told: Told) -> None:
    await told.waiting()
    operation = Operation(do=Do.MERGE, partition="a", key=row_key(2), values={"Name": "another"}, etag=ANY)
    await told.model.tables.write(NAMES.history, operation)


@lie("its history had 7 events, and has 6")
async def a_history_shrinks(told: Told) -> None:
    await told.waiting()
    await told.write(rows=6)


@lie("was the last")
async def a_stale_writer(told: Told) -> None:
    await told.waiting()
    await told.write(previous="1-older")


@lie("its history cannot be")
async def a_task_is_answered_twice(told: Told) -> None:
    await told.waiting()
    await told.write(ev.TaskCompleted(timestamp=told.now(), task_scheduled_id=0, result='"a"'))


@lie("an event stands twice in its history")
async def an_event_stands_twice(told: Told) -> None:
    await told.waiting()
    await told.write(event(), event())


@lie("the sentinel says COMPLETED, its history RUNNING")
async def a_sentinel_lies(told: Told) -> None:
    await told.waiting()
    ended = told.projection()
    ended.status = Status.COMPLETED
    await told.write(projection=ended)


@lie("its sentinel has no projection")
async def a_sentinel_is_silent(told: Told) -> None:
    await told.waiting()
    await told.write(projection=None)


@lie("is to be rewound, and has not failed")
async def what_has_not_failed_is_rewound(told: Told) -> None:
    await told.ended()
    pending = told.projection()
    pending.status = Status.PENDING
    await told.write(projection=pending)


@lie("before its time by any clock")
async def a_timer_is_early(told: Told) -> None:
    await told.waiting()
    late = told.now() + 1_000 * ev.TICKS_PER_SECOND
    await told.write(
        ev.TimerCreated(timestamp=told.now(), fire_at=late, event_id=7),
        ev.TimerFired(timestamp=told.now(), timer_id=7, fire_at=late),
    )


@lie("is held, and its history has grown")
async def a_held_one_grows(told: Told) -> None:
    await told.waiting()
    await told.write(condition=Condition(kind="held", reason="its code does not fit", since=1))
    told.code = 2
    await told.write(ev.OrchestratorStarted(timestamp=told.now()))  # other code may try
    await told.write(condition=Condition(kind="held", reason="nor does this", since=2))
    await told.write(ev.OrchestratorStarted(timestamp=told.now()))


@lie("as local: it is")
async def what_runs_is_no_activity(told: Told) -> None:
    await told.waiting()
    state = told.sentinel().state
    local = [Local(execution=told.sentinel().execution_id, episode=state.episode, ordinals=[0])]
    await told.write(local=local, keeper="nobody")


@lie("the message that is kept for what runs is gone")
async def a_keeper_is_gone(told: Told) -> None:
    await told.waiting()
    state = told.sentinel().state
    scheduled = ev.TaskScheduled(timestamp=told.now(), event_id=8, name="echo")
    local = [Local(execution=told.sentinel().execution_id, episode=state.episode, ordinals=[state.rows])]
    await told.write(scheduled, local=local, keeper="nobody")


@lie("nothing runs for it any more, and its sentinel names")
async def what_has_ended_names_what_runs(told: Told) -> None:
    await told.ended()
    await told.write(keeper="nobody")


# -- executions of one id --------------------------------------------------------------------------------


@lie("execution another begins, and")
async def one_begins_beside_another(told: Told) -> None:
    await told.waiting()
    await told.begin("another")


@lie("'a' is started as another, and")
async def one_is_started_over_another(told: Told) -> None:
    await told.waiting()
    await told.start_over()


@lie("begins a second time")
async def what_was_followed_comes_again(told: Told) -> None:
    await told.ended()
    first = told.sentinel().execution_id
    await told.start_over()
    await told.begin("another")
    await told.begin(first)


@lie("a query would miss it")
async def a_row_says_that_it_has_ended(told: Told) -> None:
    await told.waiting()
    await told.write_row(RuntimeStatus="Completed")


@lie("has it too")
async def an_event_comes_to_two(told: Told) -> None:
    await told.ended()
    await told.start_over()
    await told.begin("another", event())
    done = told.projection()
    done.status, done.output = Status.COMPLETED, "1"
    await told.write(
        ev.ExecutionCompleted(timestamp=told.now(), result="1", status=int(Status.COMPLETED)), projection=done
    )
    await told.start_over(execution="a third")
    await told.begin("a third", event())


@lie("'a' was COMPLETED, and is TERMINATED")
async def an_end_changes(told: Told) -> None:
    await told.ended()
    before = told.projection()
    before.status = Status.TERMINATED
    told.watch._an_end_stays("a", told.projection(), before, None)


# -- messages ----------------------------------------------------------------------------------------------


@lie("vanishes from simulated-control-00: EventRaised")
async def an_event_vanishes(told: Told) -> None:
    await told.waiting()
    await told.vanishes(event())


@lie("vanishes from simulated-control-00: TaskCompleted")
async def a_result_vanishes(told: Told) -> None:
    await told.waiting()
    execution = told.sentinel().execution_id
    await told.vanishes(ev.TaskCompleted(timestamp=1, task_scheduled_id=4, result="1"), execution=execution)


@lie("vanishes from simulated-control-00: TimerFired")
async def a_timer_vanishes(told: Told) -> None:
    await told.waiting()
    execution = told.sentinel().execution_id
    await told.vanishes(ev.TimerFired(timestamp=1, timer_id=4, fire_at=1), execution=execution)


@lie("vanishes from simulated-control-00: ExecutionTerminated")
async def a_request_to_end_vanishes(told: Told) -> None:
    await told.waiting()
    await told.vanishes(ev.ExecutionTerminated(timestamp=1, input=None))


@lie("vanishes from simulated-control-00: ExecutionSuspended")
async def a_request_to_rest_vanishes(told: Told) -> None:
    await told.waiting()
    await told.vanishes(ev.ExecutionSuspended(timestamp=1, reason=None))


@lie("vanishes from simulated-control-00: ExecutionStarted")
async def a_start_vanishes(told: Told) -> None:
    await told.ended()
    await told.start_over()
    started = ev.ExecutionStarted(timestamp=1, instance_id="a", execution_id="another", name="program")
    await told.vanishes(started, execution="another", start_id="start another")


@lie("vanishes from simulated-workitems")
async def a_work_item_vanishes(told: Told) -> None:
    await told.waiting()
    await told.vanishes(
        ev.TaskScheduled(timestamp=1, event_id=9, name="echo"), WORK, execution=told.sentinel().execution_id
    )


@lie("vanishes from beside its history")
async def a_kept_message_vanishes(told: Told) -> None:
    await told.client.start("program", input=[WAITS, []], instance_id="a", start_at=timedelta(seconds=1_000))
    await told.client.raise_event("a", "Go", "x")
    while not (kept := [row.key for row in told.rows() if row.key.startswith(PREFIX)]):
        await asyncio.sleep(1.0)
    await told.stop()
    await told.model.tables.write(NAMES.history, Operation(do=Do.DELETE, partition="a", key=kept[0], etag=ANY))


@lie("that nobody can read vanishes")
async def what_nobody_can_read_vanishes(told: Told) -> None:
    await told.waiting()
    id, receipt = await told.model.queues.put(CONTROL, "garbage")
    await told.model.queues.remove(CONTROL, id, receipt)


@lie("was acknowledged, and nothing came of it")
async def an_acknowledged_event_was_never_put(told: Told) -> None:
    await told.waiting()
    told.watch.messages.told_raised("a", "never put")
    told.watch.messages.all_had_their_effect()


@lie("was acknowledged, and has never begun")
async def an_acknowledged_start_never_begins(told: Told) -> None:
    await told.waiting()
    told.watch.messages.told_started("a", "never begun")
    told.watch.messages.all_had_their_effect()


# -- readers -----------------------------------------------------------------------------------------------


@lie("a client read 'a' as")
async def a_read_of_what_never_was(told: Told) -> None:
    await told.waiting()
    seen = told.projection()
    seen.status = Status.COMPLETED
    told.watch.saw("a", seen, 0)


@lie("a client read 'a' as None")
async def a_read_that_misses_it(told: Told) -> None:
    await told.waiting()
    told.watch.saw("a", None, told.watch.moment)


@lie("is missing, and nobody has purged it")
async def a_read_of_a_missing_history(told: Told) -> None:
    await told.waiting()
    told.watch.saw("a", told.projection(), 0, missing=True)


@lie("a query for ['RUNNING'] misses 'a'")
async def a_query_that_misses_it(told: Told) -> None:
    await told.waiting()
    told.watch.listed([], frozenset({Status.RUNNING}), told.watch.moment)


@lie("a query shows an instance twice")
async def a_query_that_shows_it_twice(told: Told) -> None:
    await told.waiting()
    told.watch.listed([told.projection()] * 2, frozenset({Status.RUNNING}), told.watch.moment)


@pytest.mark.parametrize("complaint", LIES)
def test_it_is_told(complaint: str) -> None:
    async def main() -> None:
        told = Told()
        await told.open()
        with pytest.raises(Broken) as caught:
            await LIES[complaint](told)
        assert complaint in str(caught.value)

    run(main())


def test_nothing_is_told_of_what_is_as_it_must_be() -> None:
    async def main() -> None:
        told = Told()
        await told.open()
        await told.client.start("program", input=[WAITS, []], instance_id="a", start_id="start a")
        told.watch.messages.told_started("a", "start a")
        assert await told.client.raise_event("a", "Go", "x")
        told.watch.messages.told_raised("a", "x")
        await told.client.wait_for_completion("a")
        await told.stop()
        told.watch.messages.all_had_their_effect()
        assert told.watch.rows_are_late() == [] == told.watch.left()
        assert told.watch.open() == {}
        told.watch.listed([told.projection()], frozenset({Status.COMPLETED}), told.watch.moment)

    run(main())


# -- at rest -----------------------------------------------------------------------------------------------


def test_rows_that_are_behind_are_told() -> None:
    async def main() -> None:
        told = Told()
        await told.open()
        await told.ended()
        await told.write_row(CustomStatus='"another"')
        assert ["custom status" in line for line in told.watch.rows_are_late()] == [True]
        await told.write_row(RuntimeStatus="Running")
        assert ["says RUNNING, it is COMPLETED" in line for line in told.watch.rows_are_late()] == [True]
        await told.model.tables.write(NAMES.instances, Operation(do=Do.DELETE, partition="a", key="", etag=ANY))
        assert ["has no row" in line for line in told.watch.rows_are_late()] == [True]

    run(main())


def test_what_stands_for_nobody_is_told() -> None:
    async def main() -> None:
        told = Told()
        await told.open()
        await told.ended()
        assert told.watch.left() == []
        execution, episode = told.sentinel().execution_id, told.sentinel().state.episode
        extra = Operation(do=Do.INSERT, partition="a", key=f"~owed-{episode}", values={"Holdtrue": "0:{}"})
        await told.model.tables.write(NAMES.history, extra)
        assert ["extra rows" in line for line in told.watch.left()] == [True]
        await told.write(owed=[Owed(execution=execution, episode=episode, first=0, end=0, extra=1)])
        await told.model.blobs.create_container(NAMES.large_messages)
        await told.model.blobs.put_blob(NAMES.large_messages, "a/message-1.json.gz", b"")
        for key, table in (("", NAMES.instances), (SENTINEL, NAMES.history)):
            await told.model.tables.write(table, Operation(do=Do.DELETE, partition="a", key=key, etag=ANY))
        found = told.watch.left()
        assert [any(word in line for line in found) for word in ("its history has", "has the blob")] == [True, True]

    run(main())


def test_what_a_host_keeps_for_nothing_is_told() -> None:
    async def main() -> None:
        told = Told()
        await told.open()
        await told.client.start("program", input=[[["echo", "a"]], []], instance_id="a")
        await told.client.wait_for_completion("a")
        await asyncio.sleep(60)
        assert in_host_on_azure("h", told.host, told.store, set()) == []
        told.store._adopter.kept_for.add("gone")
        told.store._waiting._noted.add("gone")
        told.store._taking._waiting["gone"] = []
        told.store._mail._in_hand[9] = (CONTROL, "gone")
        assert in_host_on_azure("h", told.host, told.store, set()) == [
            "h holds 1 instances with messages",
            "h holds 1 messages in hand",
            "h holds 1 notes of what waits",
            "h holds 1 notes of what is kept",
        ]
        told.store._mail.forget_all()
        told.store._taking._waiting.clear()
        await told.stop()

    run(main())
