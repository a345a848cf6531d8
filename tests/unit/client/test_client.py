"""The client over a real store: what is asked, what is answered, and what the errors say."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import holdtrue
from holdtrue.authoring.errors import NotRegistered, PayloadError
from holdtrue.client.bulk import OPERATIONS
from holdtrue.client.changes import Changes
from holdtrue.client.client import Client, ReusePolicy, StartSpec
from holdtrue.client.errors import (
    ClientError,
    InstanceAlreadyExists,
    InstanceEnded,
    InstanceNotEnded,
    InstanceNotFound,
    OrchestrationFailedError,
    RewindRefused,
    StartsRefused,
    WaitTimeout,
)
from holdtrue.client.sync import SyncClient
from holdtrue.core import events as ev
from holdtrue.core.errors import InvalidInput
from holdtrue.core.projection import Condition, Status
from holdtrue.stores.protocol import Delivery, LockedInstance, TaskHubStore
from holdtrue.stores.sqlite import SqliteStore
from tests.conformance.acting import Clock, Held, act, child, end, fail, terminated, timer

app = holdtrue.App()


@app.orchestrator
async def typed(ctx: holdtrue.OrchestrationContext, n: int) -> list[int]:
    return [n]


@app.orchestrator(name="other name", version="7")
async def renamed(ctx: holdtrue.OrchestrationContext, n: Any) -> Any:
    return n


class Local:
    """A host in this process that does nothing by itself."""

    def __init__(self, store: TaskHubStore) -> None:
        self.store = store
        self.changes = Changes()
        self.wanted = True
        self.adopted: list[LockedInstance] = []
        self.delivered: list[Delivery] = []
        self.nudges: list[int | None] = []

    def wants(self, name: str) -> bool:
        return self.wanted

    def adopt(self, locked: LockedInstance) -> None:
        self.adopted.append(locked)

    def deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery)

    def nudge(self, due: int | None = None) -> None:
        self.nudges.append(due)

    def schedules_changed(self) -> None:
        pass


class Bench:
    """A store, a client on it, and hands to play the worker."""

    def __init__(self, store: TaskHubStore, client: Client, clock: Clock, local: Local | None) -> None:
        self.store, self.client, self.clock = store, client, clock
        self._local = local

    @property
    def local(self) -> Local:
        assert self._local is not None
        return self._local

    async def lock(self) -> dict[str, Held]:
        held = {}
        for locked in await self.store.lock(100):
            one = Held(self.store, locked, self.clock)
            await one.load()
            held[one.id] = one
        return held

    async def step(self, instance_id: str, *actions: Any, keep: bool = False, **options: Any) -> Held:
        held = (await self.lock())[instance_id]
        await held.step(*actions, keep=keep, **options)
        return held


def bench(
    tmp_path: Path, test: Callable[[Bench], Awaitable[None]], *, local: bool = False, with_app: bool = False
) -> None:
    async def main() -> None:
        clock = Clock()
        store = SqliteStore(str(tmp_path / "hub.db"), environment=clock)
        await store.open()
        await store.join("host", ["typed", "other name", "code", "child"], ["act"])
        host = Local(store) if local else None
        client = Client(store, app=app if with_app else None, environment=clock, local=host)
        try:
            await asyncio.wait_for(test(Bench(store, client, clock, host)), 60)
        finally:
            await client.close()
            await store.close()

    asyncio.run(main())


# -- starting ----------------------------------------------------------------------------------------------


def test_a_start_has_what_was_given(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        now = b.clock.now()
        instance_id = await b.client.start(
            "code", input={"a": [1, None]}, instance_id="i", tags={"k": "v"}, version="2", deadline=timedelta(hours=1)
        )
        assert instance_id == "i"
        status = await b.client.get_status("i")
        assert status is not None
        assert (status.name, status.version, status.tags, status.runtime_status) == (
            "code",
            "2",
            {"k": "v"},
            Status.PENDING,
        )
        assert status.input == {"a": [1, None]} and status.serialized_input == '{"a":[1,null]}'
        assert status.output is None and status.custom_status is None and not status.has_ended
        assert status.record.deadline is not None
        assert 0 <= status.record.deadline - now - 3_600 * ev.TICKS_PER_SECOND < 60 * ev.TICKS_PER_SECOND
        assert status.created_at.tzinfo is UTC and abs(status.created_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert await b.client.get_status("nobody") is None

    bench(tmp_path, test)


def test_made_ids_are_ordered_by_time(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        ids = []
        for _ in range(3):
            ids.append(await b.client.start("code"))
            b.clock.ahead += 1
        assert len(set(ids)) == 3 and all(len(i) == 32 for i in ids)

    bench(tmp_path, test)


def test_functions_names_and_versions_of_the_app(tmp_path: Path) -> None:
    def stranger(ctx: Any, _: Any) -> None: ...

    async def test(b: Bench) -> None:
        client = b.client
        first = await client.start(typed, input=3)
        second = await client.start(renamed)
        third = await client.start("other name", version="8")
        fourth = await client.start("of another worker", input="anything")
        found = [await client.get_status(i) for i in (first, second, third, fourth)]
        assert [(s.name, s.version) for s in found if s] == [
            ("typed", None), ("other name", "7"), ("other name", "8"), ("of another worker", None),
        ]  # fmt: skip
        with pytest.raises(NotRegistered, match="stranger"):
            await client.start(stranger)
        with pytest.raises(PayloadError):
            await client.start(typed, input="three")
        assert [s.instance_id async for s in client.query()] == [first, second, third, fourth]

    bench(tmp_path, test, with_app=True)


def test_without_an_app_a_function_is_known_by_its_name(tmp_path: Path) -> None:
    def code(ctx: Any, _: Any) -> None: ...

    async def test(b: Bench) -> None:
        instance_id = await b.client.start(code)
        status = await b.client.get_status(instance_id)
        assert status is not None and status.name == "code"
        with pytest.raises(InvalidInput, match="lambda"):
            await b.client.start(lambda ctx, _: None)

    bench(tmp_path, test)


@pytest.mark.parametrize(
    "arguments",
    [
        {"instance_id": ""},
        {"instance_id": "@x"},
        {"instance_id": "x" * 501},
        {"input": object()},
        {"start_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))},
        {"start_at": timedelta.max},
        {"deadline": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))},
        {"start_at": "tomorrow"},
        {"tags": {"a": 1}},
        {"reuse": "maybe"},
        {"start_id": ""},
        {"event": ("holdtrue:cancel", None)},
        {"event": ("", None)},
    ],
)
def test_bad_input_is_told_and_starts_nothing(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async def test(b: Bench) -> None:
        with pytest.raises(InvalidInput):
            await b.client.start("code", **arguments)
        assert [s async for s in b.client.query()] == []

    bench(tmp_path, test)


def test_a_time_in_the_past_is_no_error_and_zones_are_kept_apart(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="past", start_at=datetime(1999, 1, 1))
        from zoneinfo import ZoneInfo

        berlin = datetime(2126, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
        await b.client.start("code", instance_id="later", start_at=berlin)
        later = await b.client.get_status("later", waits=True)
        assert later is not None and later.scheduled_start == berlin
        assert later.waits_for == ["its start at 2126-07-01 10:00:00 UTC"]
        assert list(await b.lock()) == ["past"]

    bench(tmp_path, test)


@pytest.mark.parametrize(
    ("reuse", "over_running", "over_ended"),
    [
        ("default", "error", "replaced"),
        ("error", "error", "error"),
        ("replace", "replaced", "replaced"),
        ("ignore", "kept", "kept"),
        (ReusePolicy(frozenset((Status.FAILED,))), "error", "error"),
        (ReusePolicy(frozenset((Status.COMPLETED,)), "ignore"), "kept", "replaced"),
    ],
)
def test_reuse_of_ids(tmp_path: Path, reuse: Any, over_running: str, over_ended: str) -> None:
    async def test(b: Bench) -> None:
        for instance_id, expected in (("running", over_running), ("ended", over_ended)):
            await b.client.start("code", instance_id=instance_id)
            await b.step(instance_id, *([end()] if instance_id == "ended" else [act(0)]))
            before = await b.client.get_status(instance_id)
            assert before is not None
            if expected == "error":
                with pytest.raises(InstanceAlreadyExists, match=instance_id):
                    await b.client.start("code", instance_id=instance_id, reuse=reuse)
            else:
                assert await b.client.start("code", instance_id=instance_id, reuse=reuse) == instance_id
            after = await b.client.get_status(instance_id)
            assert after is not None
            assert (after.execution_id != before.execution_id) == (expected == "replaced")
            for held in (await b.lock()).values():
                await held.step(end(), keep=False)

    bench(tmp_path, test)


def test_a_repeated_start_is_the_same_start(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        for _ in range(3):
            assert await b.client.start("code", instance_id="i", start_id="mine", reuse="error") == "i"
        assert len(await b.lock()) == 1

    bench(tmp_path, test)


def test_start_if_not_running_and_its_three_outcomes(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        first = await b.client.start_if_not_running("code", instance_id="one")
        assert first.outcome == "started"
        second = await b.client.start_if_not_running("code", instance_id="one")
        assert (second.outcome, second.status, second.execution_id) == ("running", Status.PENDING, first.execution_id)
        held = await b.step("one", act(0), keep=True)
        await b.store.park([held.lease], Condition(kind="held", reason="it does not fit"))
        third = await b.client.start_if_not_running("code", instance_id="one")
        assert (third.outcome, third.reason, third.status) == ("held", "it does not fit", Status.RUNNING)
        await b.client.terminate("one")
        await b.step("one", terminated())
        fourth = await b.client.start_if_not_running("code", instance_id="one")
        assert fourth.outcome == "started" and fourth.execution_id != first.execution_id

    bench(tmp_path, test)


def test_many_starts_at_once(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        seen: list[tuple[int, int]] = []
        specs = [StartSpec(orchestrator="code", instance_id=f"i{n}", input=n) for n in range(1_500)]
        ids = await b.client.start_many(specs, progress=lambda done, total: seen.append((done, total)))
        assert ids == [f"i{n}" for n in range(1_500)]
        assert seen == [(1_000, 1_500), (1_500, 1_500)]
        with pytest.raises(StartsRefused) as refused:
            await b.client.start_many([StartSpec(orchestrator="code", instance_id=i) for i in ("i1", "new", "i2")])
        assert refused.value.started == ["new"] and sorted(refused.value.refused) == ["i1", "i2"]
        with pytest.raises(InvalidInput):
            await b.client.start_many(
                [StartSpec(orchestrator="code", instance_id="x1"), StartSpec(orchestrator="code", instance_id="@")]
            )
        assert await b.client.get_status("x1") is None

    bench(tmp_path, test)


def test_in_a_hosts_process_starts_and_messages_go_straight_to_it(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i", event=("hello", 1))
        (locked,) = b.local.adopted
        assert len(locked.messages) == 2 and b.local.nudges == []
        assert await b.client.raise_event("i", "go", {"x": 1})
        (delivery,) = b.local.delivered
        assert delivery.instance == locked.lease.key
        assert isinstance(delivery.message.event, ev.EventRaised) and delivery.message.event.input == '{"x":1}'
        b.local.wanted = False
        await b.client.start("code", instance_id="j")
        await b.client.raise_event("j", "go")
        await b.client.start("code", instance_id="k", start_at=timedelta(hours=1))
        assert len(b.local.adopted) == 1
        assert b.local.nudges[:2] == [None, None] and b.local.nudges[2] is not None

    bench(tmp_path, test, local=True)


# -- telling -----------------------------------------------------------------------------------------------


def test_to_nobody_is_not_found(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: b.client.raise_event("no", "e"),
            lambda: b.client.suspend("no"),
            lambda: b.client.resume("no"),
            lambda: b.client.cancel("no"),
            lambda: b.client.terminate("no"),
            lambda: b.client.rewind("no"),
            lambda: b.client.restart("no"),
            lambda: b.client.wait_for_completion("no"),
            lambda: anext(b.client.history("no")),
        ]
        for call in calls:
            with pytest.raises(InstanceNotFound, match="'no' is not in this hub"):
                await call()
        assert (await b.client.purge("no")).instances == 0

    bench(tmp_path, test)


def test_to_an_ended_one(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        await b.step("i", end())
        assert await b.client.raise_event("i", "e") is False
        assert await b.client.cancel("i") is False
        assert await b.client.terminate("i") is False
        for call in (b.client.suspend, b.client.resume):
            with pytest.raises(InstanceEnded, match="has ended"):
                await call("i")
        with pytest.raises(RewindRefused, match="completed and cannot be rewound"):
            await b.client.rewind("i")

    bench(tmp_path, test)


def test_event_names_of_our_own_are_refused(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        for name in ("", "holdtrue:cancel", "HOLDTRUE:deadline"):
            with pytest.raises(InvalidInput):
                await b.client.raise_event("i", name)
        with pytest.raises(PayloadError):
            await b.client.raise_event("i", "e", object())

    bench(tmp_path, test)


def test_terminate_reaches_exactly_what_is_below(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        for root in ("p", "q"):
            await b.client.start("code", instance_id=root)
            await b.step(root, child(0, f"{root}1"), child(1, f"{root}2"), child(2, f"{root}3"))
            held = await b.lock()
            await held[f"{root}1"].step(child(0, f"{root}11"), keep=False)
            await held[f"{root}2"].step(end(), keep=False)
            await held[f"{root}3"].step(act(0), keep=False)
            for held_ in (await b.lock()).values():
                await held_.step(act(9), keep=False)

        async def handle_all() -> set[str]:
            while locked := await b.lock():
                for one in locked.values():
                    ends = any(isinstance(message.event, ev.ExecutionTerminated) for message in one.inbox)
                    await one.commit(one.episode(*([terminated()] if ends else [])), keep=False)
            return {s.instance_id async for s in b.client.query() if s.has_ended}

        assert await b.client.terminate("p", {"why": "enough"}, recursive=True) is True
        assert await b.client.terminate("q", recursive=False) is True
        assert await handle_all() == {"p", "p1", "p11", "p2", "p3", "q", "q2"}
        # One that has ended takes nothing, but those under it are reached, through ended ones too.
        assert await b.client.terminate("q1", recursive=False) is True
        assert await handle_all() == {"p", "p1", "p11", "p2", "p3", "q", "q1", "q2"}
        assert await b.client.terminate("q", recursive=False) is False
        assert await handle_all() == {"p", "p1", "p11", "p2", "p3", "q", "q1", "q2"}
        assert await b.client.terminate("q", recursive=True) is False
        assert await handle_all() == {"p", "p1", "p11", "p2", "p3", "q", "q1", "q11", "q2", "q3"}

    bench(tmp_path, test)


@pytest.mark.parametrize("local", [False, True])
def test_a_rewind_shows_at_once(tmp_path: Path, local: bool) -> None:
    async def test(b: Bench) -> None:
        if local:
            b.local.wanted = False
        await b.client.start("code", instance_id="i")
        await b.step("i", fail())
        failed = await b.client.get_status("i")
        assert failed is not None and failed.failure is not None
        changing = asyncio.ensure_future(b.client.wait_for_change("i", since=failed, timeout=30))
        await asyncio.sleep(0)
        await b.client.rewind("i", "mended")
        await b.client.rewind("i", "once more")
        status = await changing
        assert (status.runtime_status, status.failure, status.completed_at) == (Status.PENDING, None, None)
        assert not status.has_ended
        with pytest.raises(WaitTimeout):
            await b.client.wait_for_completion("i", timeout=0.01)
        with pytest.raises(InstanceNotEnded):
            await b.client.purge("i")
        assert (await b.client.start_if_not_running("code", instance_id="i")).outcome == "running"
        with_waits = await b.client.get_status("i", waits=True)
        assert with_waits is not None and with_waits.waits_for == ["a worker"]
        held = (await b.lock())["i"]
        assert [type(m.event) for m in held.inbox] == [ev.ExecutionRewound]

    bench(tmp_path, test, local=local)


def test_a_pending_one_can_be_ended(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i", start_at=timedelta(days=1))
        assert await b.client.terminate("i", "not needed") is True
        await b.step("i")
        status = await b.client.wait_for_completion("i", timeout=5)
        assert (status.runtime_status, status.output) == (Status.TERMINATED, "not needed")
        with pytest.raises(OrchestrationFailedError, match="'i' is terminated"):
            status.raise_if_failed()

    bench(tmp_path, test)


def test_restart_runs_the_same_again(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i", input=[1], tags={"k": "v"}, version="3")
        await b.step("i", act(0))
        with pytest.raises(InstanceNotEnded, match="restarted"):
            await b.client.restart("i")
        assert await b.client.restart("i", new_instance_id="j") == "j"
        with pytest.raises(InstanceAlreadyExists):
            await b.client.restart("i", new_instance_id="j")
        await b.client.terminate("i")
        await (await b.lock())["i"].step(terminated(), keep=False)
        before = await b.client.get_status("i")
        assert await b.client.restart("i") == "i"
        for name in ("i", "j"):
            after = await b.client.get_status(name)
            assert before is not None and after is not None and after.execution_id != before.execution_id
            assert (after.input, after.tags, after.version, after.name) == ([1], {"k": "v"}, "3", "code")
            assert after.runtime_status is Status.PENDING

    bench(tmp_path, test)


def test_purges(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        for n in range(6):
            await b.client.start("code", instance_id=f"i{n}")
        for n, held in enumerate((await b.lock()).values()):
            await held.step(*([act(0)] if n == 5 else [end()] if n % 2 else [fail()]), keep=False)
        with pytest.raises(InstanceNotEnded, match="'i5' has not ended and cannot be purged"):
            await b.client.purge("i5")
        assert (await b.client.purge("i0")).instances == 1
        with pytest.raises(InvalidInput, match="running"):
            await b.client.purge_where(statuses=[Status.RUNNING, Status.FAILED])
        told: list[int] = []
        purged = await b.client.purge_where(statuses=[Status.FAILED], prefix="i", progress=told.append)
        assert purged.instances == 2 and told == [2]
        purged = await b.client.purge_where(created_to=timedelta(hours=1))
        assert purged.instances == 0
        assert (await b.client.purge_where()).instances == 2
        assert [s.instance_id async for s in b.client.query()] == ["i5"]

    bench(tmp_path, test)


def test_the_same_on_many(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        for n in range(5):
            await b.client.start("code", instance_id=f"i{n}")
        await b.step("i3", end())
        told: list[tuple[int, int]] = []
        ids = ["i0", "i3", "nobody", "i1", "i0"]
        result = await b.client.many("suspend", ids, reason="lunch", progress=lambda d, t: told.append((d, t)))
        assert result.done == ["i0", "i1"]
        assert {i: type(e) for i, e in result.failed.items()} == {"i3": InstanceEnded, "nobody": InstanceNotFound}
        assert sorted(told) == [(n, 4) for n in range(1, 5)]
        with pytest.raises(InvalidInput, match="terminate"):
            await b.client.many("close", ["i0"])
        assert (await b.client.many("purge", [])).done == []
        for operation in OPERATIONS:
            assert inspect.iscoroutinefunction(getattr(Client, operation))

    bench(tmp_path, test)


# -- reading -----------------------------------------------------------------------------------------------


def test_what_it_waits_for(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        status = await b.client.get_status("i", waits=True)
        assert status is not None and status.waits_for == ["a worker"]
        await b.step("i", act(0), act(1, "unserved"), timer(2, ev.MAX_TICKS), child(3, "c"))
        (item,) = await b.store.lock_activities(10)
        await b.store.report(item.ref, '{"percent":50}', None)
        status = await b.client.get_status("i", waits=True)
        assert status is not None
        assert status.waits_for == [
            "activity 'act' (task 0)", "activity 'unserved' (task 1)",
            "a timer at 9999-12-31 23:59:59 UTC (task 2)", "sub-orchestration 'child' as 'c' (task 3)",
        ]  # fmt: skip
        assert [(p.name, p.running, p.progress) for p in status.progress] == [
            ("act", True, {"percent": 50}), ("unserved", False, None),
        ]  # fmt: skip
        assert status.condition is not None and status.condition.kind == "no worker"
        assert "'unserved'" in status.condition.reason
        plain = await b.client.get_status("i")
        assert plain is not None and plain.waits_for == [] and plain.progress == []
        await b.client.suspend("i")
        await b.step("i")
        status = await b.client.get_status("i", waits=True)
        assert status is not None and status.waits_for[0] == "a resume"
        await b.client.start("code", instance_id="event")
        held = await b.lock()
        await held["event"].step(keep=False)
        status = await b.client.get_status("event", waits=True)
        assert status is not None and status.waits_for == ["an external event"]

    bench(tmp_path, test)


def test_a_start_that_nobody_has_the_code_for_says_so(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("unknown code", instance_id="i")
        status = await b.client.get_status("i")
        assert status is not None and status.condition is not None
        assert status.condition.kind == "no worker" and "'unknown code'" in status.condition.reason

    bench(tmp_path, test)


def test_outputs_have_their_type(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start(typed, input=1, instance_id="i")
        await b.step("i", end(output="[1,2]"), custom='{"p":1}')
        status = await b.client.get_status("i")
        assert status is not None
        assert status.output == [1, 2] and status.custom_status == {"p": 1}
        assert status.get_output(tuple[int, int]) == (1, 2)
        with pytest.raises(PayloadError):
            status.get_output(dict[str, str])
        status.raise_if_failed()
        assert json.loads(status.serialized_output or "") == [1, 2]

    bench(tmp_path, test, with_app=True)


def test_history_and_queries(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        for n in range(5):
            await b.client.start("code", instance_id=f"i{n}", tags={"odd": str(n % 2)})
        await b.step("i0", end())
        events = [e async for e in b.client.history("i0")]
        assert type(events[1]) is ev.ExecutionStarted and type(events[-2]) is ev.ExecutionCompleted
        assert [e async for e in b.client.history("i1")] == []
        assert [s.instance_id async for s in b.client.query(page_size=2, newest_first=True)] == [
            "i4",
            "i3",
            "i2",
            "i1",
            "i0",
        ]
        assert [s.instance_id async for s in b.client.query(statuses=[Status.COMPLETED])] == ["i0"]
        page = await b.client.query_page(page_size=3)
        assert len(page.items) == 3 and page.token is not None
        assert [s.instance_id for s in (await b.client.query_page(page_size=3, token=page.token)).items] == ["i3", "i4"]
        with pytest.raises(InvalidInput):
            await b.client.query_page(page_size=0)

    bench(tmp_path, test)


# -- waiting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False])
def test_waits_end_when_it_does(tmp_path: Path, local: bool) -> None:
    async def test(b: Bench) -> None:
        if local:
            b.local.wanted = False
        await b.client.start("code", instance_id="i")
        began = asyncio.ensure_future(b.client.wait_for_start("i", timeout=30))
        ended = [asyncio.ensure_future(b.client.wait_for_completion("i", timeout=30)) for _ in range(100)]
        await asyncio.sleep(0.01)
        held = await b.step("i", act(0), keep=True)
        if local:
            b.local.changes.notify(["i"])
        assert (await began).runtime_status is Status.RUNNING
        assert not any(e.done() for e in ended)
        change = asyncio.ensure_future(b.client.wait_for_change("i", since=await began, timeout=30))
        await asyncio.sleep(0.01)
        await held.step(custom='"new"')
        if local:
            b.local.changes.notify(["i"])
        assert (await change).custom_status == "new"
        await held.step(end(output="5"))
        if local:
            b.local.changes.notify(["i"])
        assert {s.output for s in await asyncio.gather(*ended)} == {5}
        assert (await b.client.wait_for_completion("i", timeout=0)).output == 5

    bench(tmp_path, test, local=local)


def test_no_wake_up_is_lost_between_the_read_and_the_wait(tmp_path: Path) -> None:
    """The change comes while the status is being read: it is told to a wait that has not begun to sleep."""

    async def test(b: Bench) -> None:
        b.local.wanted = False
        await b.client.start("code", instance_id="i")
        held = (await b.lock())["i"]
        read = b.store.status

        async def slow(ids: Any) -> Any:
            found = await read(ids)
            if held.state.projection.status is not Status.COMPLETED:
                await held.step(end(output="1"))
                b.local.changes.notify(["i"])
            return found

        b.store.status = slow  # type: ignore[method-assign]
        assert (await b.client.wait_for_completion("i", timeout=30)).output == 1

    bench(tmp_path, test, local=True)


def test_a_wait_that_takes_too_long(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        for call in (b.client.wait_for_start, b.client.wait_for_completion):
            with pytest.raises(TimeoutError, match=r"'i' did not (start|end) within 0\.05 s and is pending") as late:
                await call("i", timeout=0.05)
            assert isinstance(late.value, WaitTimeout)

    bench(tmp_path, test)


def test_a_client_that_closes_wakes_its_waits(tmp_path: Path) -> None:
    async def main() -> None:
        client = Client(str(tmp_path / "hub.db"))
        async with client:
            await client.start("code", instance_id="i")
            wait = asyncio.ensure_future(client.wait_for_completion("i"))
            await asyncio.sleep(0.01)
        with pytest.raises((ClientError, holdtrue.stores.errors.StoreError)):
            await asyncio.wait_for(wait, 20)

    asyncio.run(main())


# -- the blocking client --------------------------------------------------------------------------------------


def test_the_blocking_client_has_every_name_with_the_same_parameters() -> None:
    def public(kind: type) -> set[str]:
        return {n for n in dir(kind) if not n.startswith("_")}

    assert public(Client) - public(SyncClient) == set()
    client = SyncClient("unused.db")
    for name in public(Client) & public(SyncClient) - {"open", "close", "schedules"}:
        assert getattr(SyncClient, name).__doc__ == getattr(Client, name).__doc__
        assert callable(getattr(client, name))


def test_the_blocking_client_works_from_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with SyncClient(tmp_path / "hub.db") as client:
        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(lambda n: client.start("code", instance_id=f"i{n:03}", input=n), range(250)))
        assert sorted(s.instance_id for s in client.query()) == ids
        first = client.query(page_size=7)
        next(first)
        first.close()  # type: ignore[attr-defined]  # a generator, left in the middle
        status = client.get_status("i007")
        assert status is not None and status.input == 7
        assert client.raise_event("i007", "e") is True
        with pytest.raises(TimeoutError):
            client.wait_for_completion("i007", timeout=0.01)
        with pytest.raises(InstanceNotFound):
            client.terminate("nobody")
        assert list(client.history("i007")) == [] and list(client.dead_letters()) == []
        assert sum(client.info().instances.values()) == 250
        assert client.schedules.list() == []


def test_the_blocking_client_outside_its_block_says_so(tmp_path: Path) -> None:
    client = SyncClient(tmp_path / "hub.db")
    with pytest.raises(holdtrue.HoldtrueError, match="with"):
        client.start("code")
    client.close()
    with client:
        client.start("code", instance_id="i")
    with client:
        assert client.get_status("i") is not None
    with pytest.raises(holdtrue.HoldtrueError):
        client.get_status("i")


# -- what cannot be ----------------------------------------------------------------------------------------


HALF = "\ud800"
"""Half a surrogate pair: a str of Python's that no UTF-8 can hold."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"version": 3},
        {"version": HALF},
        {"tags": {"k": HALF}},
        {"tags": {HALF: "v"}},
        {"tags": ["k"]},
        {"tags": {"k": 1}},
        {"event": "e"},
        {"event": ("e",)},
        {"event": (HALF, 1)},
        {"instance_id": HALF},
        {"instance_id": 3},
        {"start_at": "2020-01-01"},
        {"start_at": timedelta(days=999_999_999)},
        {"deadline": 5},
        {"reuse": "never"},
        {"reuse": ReusePolicy(frozenset(), "ingore")},  # type: ignore[arg-type]
        {"reuse": ReusePolicy(frozenset(["failed"]))},  # type: ignore[list-item]
        {"start_id": "@x"},
    ],
)
def test_a_start_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async def test(b: Bench) -> None:
        with pytest.raises(InvalidInput):
            await b.client.start("code", **arguments)
        assert [status async for status in b.client.query()] == []

    bench(tmp_path, test)


@pytest.mark.parametrize("past", [timedelta(days=-999_999_999), datetime(1, 1, 1), datetime.min.replace(tzinfo=UTC)])
def test_a_time_however_long_past_is_no_error(tmp_path: Path, past: Any) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i", start_at=past, deadline=past)
        assert [type(m.event) for m in (await b.lock())["i"].inbox] == [ev.ExecutionStarted, ev.EventRaised]
        status = await b.client.get_status("i")
        assert status is not None and status.deadline is not None and status.deadline.year <= 1
        assert [s async for s in b.client.query(created_to=datetime(1, 1, 1))] == []

    bench(tmp_path, test)


@pytest.mark.parametrize("instance_id", [None, 3, ["i"], HALF])
def test_an_id_that_is_no_text_is_told_by_every_call(tmp_path: Path, instance_id: Any) -> None:
    async def test(b: Bench) -> None:
        client = b.client
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.get_status(instance_id),
            lambda: client.wait_for_start(instance_id),
            lambda: client.wait_for_completion(instance_id),
            lambda: client.raise_event(instance_id, "e"),
            lambda: client.suspend(instance_id),
            lambda: client.resume(instance_id),
            lambda: client.cancel(instance_id),
            lambda: client.terminate(instance_id),
            lambda: client.rewind(instance_id),
            lambda: client.restart(instance_id),
            lambda: client.purge(instance_id),
            lambda: anext(client.history(instance_id)),
        ]
        for call in calls:
            with pytest.raises(InvalidInput, match="an instance id"):
                await call()

    bench(tmp_path, test)


@pytest.mark.parametrize("reason", [3, HALF])
def test_a_reason_that_is_no_text_is_refused(tmp_path: Path, reason: Any) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        for call in (b.client.suspend, b.client.resume, b.client.cancel, b.client.rewind):
            with pytest.raises(InvalidInput, match="the reason"):
                await call("i", reason)
        assert [type(m.event) for m in (await b.lock())["i"].inbox] == [ev.ExecutionStarted]

    bench(tmp_path, test)


@pytest.mark.parametrize(
    "condition",
    [
        {"statuses": ["failed"]},
        {"statuses": Status.FAILED},
        {"name": 3},
        {"name": HALF},
        {"prefix": 3},
        {"prefix": HALF},
        {"created_from": "2020-01-01"},
        {"created_to": 5},
    ],
)
def test_a_condition_that_is_none_is_told(tmp_path: Path, condition: dict[str, Any]) -> None:
    async def test(b: Bench) -> None:
        for call in (b.client.query_page, b.client.purge_where):
            with pytest.raises(InvalidInput):
                await call(**condition)
        for more in ({"page_size": 2.5}, {"page_size": 0}, {"token": 7}, {"token": HALF}, {"tags": ["k"]}):
            with pytest.raises(InvalidInput):
                await b.client.query_page(**more)  # type: ignore[arg-type]

    bench(tmp_path, test)


def test_many_says_what_it_cannot_do_before_it_does_anything(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        await b.client.start("code", instance_id="i")
        with pytest.raises(InvalidInput, match="one text"):
            await b.client.many("terminate", "i")
        for arguments in ({}, {"name": "e", "date": 1}):
            with pytest.raises(InvalidInput, match="'raise_event' cannot be called so"):
                await b.client.many("raise_event", ["i"], **arguments)
        assert [type(m.event) for m in (await b.lock())["i"].inbox] == [ev.ExecutionStarted]

    bench(tmp_path, test)


def test_a_start_id_makes_a_repeated_start_the_same_without_an_instance_id_too(tmp_path: Path) -> None:
    async def test(b: Bench) -> None:
        ids = [await b.client.start("code", input=1, start_id="order 7") for _ in range(2)]
        again = await b.client.start_many([StartSpec(orchestrator="code", input=1, start_id="order 7")])
        assert [*ids, *again] == ["order 7"] * 3
        await b.step("order 7", end())
        assert await b.client.start("code", input=1, start_id="order 7") == "order 7"
        statuses = [status async for status in b.client.query()]
        assert [status.runtime_status for status in statuses] == [Status.COMPLETED]

    bench(tmp_path, test)
