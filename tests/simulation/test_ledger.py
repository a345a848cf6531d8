"""Each invariant complains of what it is there for: the ledger is told of things that must not happen."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import leftovers
import msgspec
import pytest
from broken import Broken
from cluster import MemoryHubs, SqliteHub
from ledger import Ledger
from timekeeping import Timekeeping

from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Status
from holdtrue.stores.memory.store import MemoryStore
from holdtrue.stores.protocol import CommitOutcome, CommitResult, CreateOutcome, CreateResult
from holdtrue.testing.virtual_time import Part
from tests.conformance.acting import EVERY, NONE, Clock, Held, act, end, raised, start

SECOND = ev.TICKS_PER_SECOND
HOST = Part("h1")
DONE = CommitOutcome(result=CommitResult.COMMITTED)


class Told:
    """A hub in memory with one host, and a ledger that is told of its calls, and of others that there were not."""

    def __init__(self) -> None:
        self.hubs = MemoryHubs()
        self.hub = self.hubs.hub
        self.store = MemoryStore(self.hub)
        self.clock = Clock()
        self.times = Timekeeping(lambda: 0.0, 20.0, 5.0)
        self.times.read(self.clock.now() + 3_600 * SECOND)
        self.code = 1
        self.ledger = Ledger(lambda: self.store, self.times, code_of=lambda part: self.code, queued=self.hubs.queued)

    async def call(self, verb: str, *given: Any) -> Any:
        outcome = await getattr(self.store, verb)(*given)
        self.tell(verb, *given, outcome=outcome)
        return outcome

    def tell(self, verb: str, *given: Any, outcome: Any) -> None:
        self.ledger.applied(HOST, verb, given, outcome)

    async def begun(self, name: str = "a") -> Held:
        """An instance that has scheduled its activity 0."""
        await self.call("create", [start(name)])
        (locked,) = await self.call("lock", 10)
        held = Held(self.store, locked, self.clock)
        await self.commit(held, act(0))
        return held

    async def commit(self, held: Held, *actions: Any) -> None:
        await self.call("commit", [held.committing(held.episode(*actions))])

    def entry(self, name: str = "a") -> Any:
        return self.ledger.entries[name]


Lie = Callable[[Told], Awaitable[None]]


async def a_status_that_is_not_of_the_history(told: Told) -> None:
    held = await told.begun()
    told.hub.instances[held.lease.key].projection.custom_status = '"lie"'
    await told.call("send", [raised("a", "e", '"1"')])


async def an_instance_that_is_gone(told: Told) -> None:
    held = await told.begun()
    told.hub.remove(told.hub.instances[held.lease.key])
    told.ledger.check_all()


async def a_history_that_is_not_what_was_committed(told: Told) -> None:
    held = await told.begun()
    told.hub.instances[held.lease.key].history.pop()
    told.ledger.check_all()


async def a_read_of_what_never_was(told: Told) -> None:
    await told.begun()
    seen = told.entry().projection.copy()
    seen.status = Status.COMPLETED
    told.ledger.saw("a", seen, told.ledger.moment)


async def a_read_of_what_was_before_it_began(told: Told) -> None:
    await told.begun()
    told.ledger.saw("a", None, told.ledger.moment)


async def an_end_that_is_changed(told: Told) -> None:
    held = await told.begun()
    commit = held.episode(end())
    await told.call("commit", [held.committing(commit)])
    more = [ev.OrchestratorStarted(timestamp=1), ev.OrchestratorCompleted(timestamp=1)]
    late = msgspec.structs.replace(commit, first=len(told.entry().history), events=more)
    told.tell("commit", [held.committing(late)], outcome=[DONE])


async def a_projection_that_is_not_of_its_events(told: Told) -> None:
    held = await told.begun()
    commit = held.episode(act(1))
    commit.projection = commit.projection.copy()
    commit.projection.status = Status.SUSPENDED
    told.tell("commit", [held.committing(commit)], outcome=[DONE])


async def a_stale_writer(told: Told) -> None:
    held = await told.begun()
    commit = held.episode(act(1))
    commit.first -= 1
    told.tell("commit", [held.committing(commit)], outcome=[DONE])


async def a_commit_under_a_lock_that_another_has(told: Told) -> None:
    held = await told.begun()
    await told.call("send", [raised("a", "e", '"1"')])
    await told.call("put_back", [held.lease])
    await told.call("lock", 10)
    told.tell("commit", [held.committing(held.episode(act(1)))], outcome=[DONE])


async def a_commit_to_nobody(told: Told) -> None:
    held = await told.begun()
    del told.ledger.entries["a"]
    told.tell("commit", [held.committing(held.episode(act(1)))], outcome=[DONE])


def _outcome(result: CreateResult) -> CreateOutcome:
    return CreateOutcome(result=result, instance_id="a", execution_id="x")


async def a_start_over_one_that_goes_on(told: Told) -> None:
    await told.begun()
    request = start("a", over=NONE)
    told.tell("create", [request], outcome=[_outcome(CreateResult.REPLACED)])


async def a_start_that_is_said_to_be_made_already(told: Told) -> None:
    request = start("a", over=NONE)
    told.tell("create", [request], outcome=[_outcome(CreateResult.ALREADY)])


async def a_start_that_is_refused_for_nothing(told: Told) -> None:
    request = start("a", over=NONE)
    told.tell("create", [request], outcome=[_outcome(CreateResult.REFUSED)])


async def a_singleton_beside_another(told: Told) -> None:
    await told.begun()
    request = start("a", over=EVERY)
    told.tell("commit_tick", SimpleNamespace(request=request), outcome=_outcome(CreateResult.REPLACED))


async def a_purge_of_one_that_goes_on(told: Told) -> None:
    held = await told.begun()
    told.hub.remove(told.hub.instances[held.lease.key])
    told.tell("purge", ["a"], outcome=None)


async def an_event_that_comes_twice(told: Told) -> None:
    held = await told.begun()
    (outcome,) = await told.call("send", [raised("a", "e", '"1"')])
    twice = [outcome.delivery.message, msgspec.structs.replace(outcome.delivery.message, key=99)]
    held.inbox = twice
    await told.commit(held)


async def an_event_that_vanishes(told: Told) -> None:
    held = await told.begun()
    await told.call("send", [raised("a", "e", '"1"')])
    told.hub.instances[held.lease.key].inbox.clear()
    await told.call("send", [raised("a", "e", '"2"')])


async def a_message_to_nobody_that_is_taken(told: Told) -> None:
    await told.begun()
    (outcome,) = await told.call("send", [raised("a", "e", '"1"')])
    told.tell("send", [raised("b", "e", '"2"')], outcome=[outcome])


async def a_dead_letter_that_is_gone(told: Told) -> None:
    told.ledger.letters.append(OutboundMessage(instance_id="b", event=raised("b", "e").event))
    told.ledger.check_all()


async def a_dead_letter_that_is_said_to_be_sent(told: Told) -> None:
    told.tell("resend", [1], outcome=1)


async def a_held_one_that_grows(told: Told) -> None:
    held = await told.begun()
    told.entry().held_by = told.code
    await told.commit(held, act(1))


async def a_step_that_is_taken_twice(told: Told) -> None:
    history = (await told.begun(), told.entry().history)[1]
    scheduled = next(event for event in history if type(event) is ev.TaskScheduled)
    done = ev.TaskCompleted(timestamp=1, task_scheduled_id=scheduled.event_id, result=None)
    told.ledger._no_step_twice("a", [*history, done, scheduled])


async def an_execution_that_begins_twice(told: Told) -> None:
    history = (await told.begun(), told.entry().history)[1]
    told.ledger._no_step_twice("a", [*history, *history[:2]])


async def two_results_of_one_task(told: Told) -> None:
    history = (await told.begun(), told.entry().history)[1]
    done = ev.TaskCompleted(timestamp=1, task_scheduled_id=0, result=None)
    told.ledger._one_result_each("a", [*history, done, done])


async def a_step_behind_the_end(told: Told) -> None:
    history = (await told.begun(), told.entry().history)[1]
    ended = ev.ExecutionCompleted(timestamp=1, event_id=9, status=Status.COMPLETED)
    told.ledger._one_result_each("a", [*history, ended, history[0]])


async def an_answer_of_a_child_that_goes_on(told: Told) -> None:
    await told.begun("b")
    made = ev.SubOrchestrationInstanceCreated(timestamp=1, event_id=0, name="child", instance_id="b")
    answered = ev.SubOrchestrationInstanceCompleted(timestamp=1, task_scheduled_id=0, result=None)
    told.ledger._an_answer_has_its_child("a", [made, answered], [answered])


async def a_timer_that_is_early(told: Told) -> None:
    fired = ev.TimerFired(timestamp=1, timer_id=0, fire_at=told.clock.now() + 7_200 * SECOND)
    told.times.no_timer_is_early("a", [fired])


async def a_time_that_is_before_a_timer_that_fired(told: Told) -> None:
    fired = ev.TimerFired(timestamp=1, timer_id=0, fire_at=5)
    told.times.its_time_has_come("a", [ev.OrchestratorStarted(timestamp=4), fired])


async def a_lease_that_is_taken_from_one_that_renews(told: Told) -> None:
    told.times.joined(HOST)
    told.times.joined(Part("h2"))
    told.tell("renew", outcome=["h2"])


async def a_lease_that_one_keeps_who_stands_still(told: Told) -> None:
    now = 0.0
    told.times._time = lambda: now
    told.times.joined(HOST)
    told.times.joined(Part("h2"))
    while now < 60:
        now += 5
        told.tell("renew", outcome=[])


LIES: dict[Lie, str] = {
    a_status_that_is_not_of_the_history: "is read as",
    an_instance_that_is_gone: "is not there against what was committed",
    a_history_that_is_not_what_was_committed: "the stored history of",
    a_read_of_what_never_was: "a client read",
    a_read_of_what_was_before_it_began: "a client read",
    an_end_that_is_changed: "which had ended",
    a_projection_that_is_not_of_its_events: "is not that of its history",
    a_stale_writer: "a stale writer",
    a_commit_under_a_lock_that_another_has: "under a lock that another has since",
    a_commit_to_nobody: "which is not there",
    a_start_over_one_that_goes_on: "took the place of a RUNNING instance unasked",
    a_start_that_is_said_to_be_made_already: "nobody had made it",
    a_start_that_is_refused_for_nothing: "nothing stood in its way",
    a_singleton_beside_another: "over a RUNNING one",
    a_purge_of_one_that_goes_on: "it had not ended",
    an_event_that_comes_twice: "came once more",
    an_event_that_vanishes: "in the line of 'a' are the events",
    a_message_to_nobody_that_is_taken: "a message to 'b' was answered",
    a_dead_letter_that_is_gone: "dead letters are kept",
    a_dead_letter_that_is_said_to_be_sent: "are said to be gone",
    a_held_one_that_grows: "which is held",
    a_step_that_is_taken_twice: "took the steps",
    an_execution_that_begins_twice: "began twice",
    two_results_of_one_task: "which is not outstanding",
    a_step_behind_the_end: "stands behind the end",
    an_answer_of_a_child_that_goes_on: "which is RUNNING",
    a_timer_that_is_early: "before its time by any clock",
    a_time_that_is_before_a_timer_that_fired: "before its own time has come",
    a_lease_that_is_taken_from_one_that_renews: "took h2 for dead",
    a_lease_that_one_keeps_who_stands_still: "lets it keep it",
}


def _tell(lie: Lie) -> None:
    async def main() -> None:
        told = Told()
        await told.store.open()
        await told.store.join("h1", ["code"], ["act"])
        await lie(told)

    asyncio.run(main())


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_is_found(lie: Lie) -> None:
    with pytest.raises(Broken, match=LIES[lie]):
        _tell(lie)


def test_the_truth_is_no_lie() -> None:
    async def truth(told: Told) -> None:
        held = await told.begun()
        (outcome,) = await told.call("send", [raised("a", "e", '"1"')])
        held.inbox.append(outcome.delivery.message)
        await told.commit(held)
        await told.commit(held, end())
        told.ledger.check_all()
        assert told.hubs.left() == []

    _tell(truth)


# -- what is left behind -----------------------------------------------------------------------------------


def test_what_a_hub_in_memory_keeps_for_nobody_is_found() -> None:
    async def plant(told: Told) -> None:
        held = await told.begun()
        await told.commit(held, end())
        instance = told.hub.instances[held.lease.key]
        assert told.hubs.left() == []
        instance.lock = 7
        told.hub.send_mail(1, instance, 5)
        told.hub.children["a"] = {}
        told.hub.keys["gone"] = 99
        told.hub.ready["code"] = {99: instance}
        told.hub._due = [(0, 99, n) for n in range(leftovers.SPARE + 1)]
        found = told.hubs.left()
        wanted = ("mail", "locks", "children of nobody", "ids", "ready instances", "times of messages")
        for what in wanted:
            assert any(f"holds {what}" in line for line in found), (what, found)
        assert len(found) == len(wanted)
        with pytest.raises(Broken, match="left behind"):
            leftovers.nothing_is_left(found)

    _tell(plant)


def test_what_a_file_keeps_for_nobody_is_found(tmp_path: Path) -> None:
    import apsw

    async def main() -> None:
        hub = SqliteHub()
        try:
            store = hub.store(Clock())
            await store.open()
            assert hub.left() == []
            connection = apsw.Connection(f"{hub.folder}/hub.db")
            connection.execute("insert into message (instance, key, event) values (9, 1, x'00')")
            connection.execute("insert into mail values (3, 9, 1)")
            connection.execute("insert into history values (77, x'00')")
            connection.execute("insert into large values (9, x'00')")
            connection.close()
            assert [line.split(" ", 4)[4] for line in hub.left()] == [
                "messages",
                "mail",
                "large starts without instance",
                "history of nobody",
            ]
            await store.close()
        finally:
            hub.close()

    asyncio.run(main())


def test_what_a_host_keeps_for_nothing_is_found() -> None:
    sessions = type("Sessions", (), {"__len__": lambda self: 2, "bytes": 5})()
    dispatcher = SimpleNamespace(
        sessions=sessions, _ready=[], _busy=0, _handing_in=SimpleNamespace(_results=[1]), load=0
    )
    host = SimpleNamespace(dispatcher=dispatcher, pool=None, changes=SimpleNamespace(_watches={"a": []}))
    store = MemoryStore(MemoryHubs().hub)
    store._forsaken = 4
    assert leftovers.in_host("h1", host, store) == [
        "h1 holds 2 sessions",
        "h1 holds 5 bytes of sessions",
        "h1 holds 1 results to hand in",
        "h1 holds 1 waits for changes",
        "h1 holds 4 a number that is given up",
    ]
