"""`TestHub` in sync tests: an app at work, whose time passes only when the test lets it."""

import asyncio
import gc
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdtrue import App, InstanceNotFound, OrchestrationContext, OrchestrationFailedError, Status, SyncClient
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.events import TimerFired
from holdtrue.testing import TestHub, WaitsForever, WrongLoop, virtual_time
from tests.unit.testing.hub_apps import Order, app

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


def _rounds(hub: TestHub) -> list[float | None]:
    """How often the hub's loop goes round from now on: what its work costs."""
    assert hub._world is not None
    clock = hub._world.loop._clock
    seen: list[float | None] = []
    select = clock.select

    def counting(timeout: float | None = None) -> Any:
        seen.append(timeout)
        return select(timeout)

    clock.select = counting  # type: ignore[method-assign]
    return seen


def test_a_job_of_a_month_is_driven_by_the_test() -> None:
    with TestHub(app) as hub:
        order = hub.start("fulfil", input=Order("Ann", 5), instance_id="order-1")
        assert order == "order-1" and hub.now == BEGINS
        assert hub.calls("charge") == [Order("Ann", 5)]
        assert hub.status(order).waits_for == ["a timer at 2026-01-31 00:00:00 UTC (task 1)"]
        hub.advance(timedelta(days=30))
        assert hub.now == BEGINS + timedelta(days=30)
        assert hub.status(order).waits_for == ["an external event"]
        hub.raise_event(order, "approved", True)
        assert hub.status(order).runtime_status is Status.COMPLETED
        assert hub.wait(order).output == ["Ann paid 5", True]
        assert hub.now == BEGINS + timedelta(days=30)
        assert [type(event).__name__ for event in hub.history(order)][-2:] == [
            "ExecutionCompleted",
            "OrchestratorCompleted",
        ]


def test_a_month_costs_a_few_rounds_of_the_loop() -> None:
    """Nothing looks again and again meanwhile, although nobody called."""
    with TestHub(app) as hub:
        rounds = _rounds(hub)
        assert hub.wait(hub.start("month")).output == "2026-01-31 00:00:00"
        assert len(rounds) < 150  # a jump of time is a day at most


def test_a_timer_fires_when_its_time_has_come_and_not_before() -> None:
    with TestHub(app) as hub:
        month = hub.start("month")
        hub.advance(timedelta(days=30) - timedelta(microseconds=10))
        assert not hub.status(month).has_ended
        hub.advance(0.00001)
        assert hub.status(month).output == "2026-01-31 00:00:00"
        (fired,) = (event for event in hub.history(month) if isinstance(event, TimerFired))
        assert fired.fire_at == fired.timestamp


@pytest.mark.parametrize("parts", [3, 7, 10, 1000])
def test_time_that_is_advanced_in_parts_comes_to_the_same(parts: int) -> None:
    with TestHub(app) as hub:
        month = hub.start("month")
        for _ in range(parts):
            hub.advance(timedelta(days=30).total_seconds() / parts)
        assert hub.status(month).has_ended


def test_time_stands_still_but_for_what_waits() -> None:
    with TestHub(app) as hub:
        nap = hub.start("call", input=["rest", 7200.0])
        hub.run_until_idle()
        assert hub.now == BEGINS
        assert hub.client.wait_for_completion(nap).output == 7200.0
        assert hub.now == BEGINS + timedelta(hours=2)


def test_a_schedule_of_each_minute_runs_a_day_in_no_time() -> None:
    scheduled = App()
    seen: list[str] = []

    @scheduled.activity
    def note(ctx: Any, text: str) -> None:
        seen.append(text)

    @scheduled.orchestrator
    async def minutely(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(note, input=f"{ctx.current_utc_datetime:%H:%M:%S}")

    scheduled.schedule("minutely", minutely, cron="* * * * *")
    with TestHub(scheduled, now=datetime(2026, 3, 2, 12, 0, 30)) as hub:
        rounds = _rounds(hub)
        hub.advance(timedelta(days=1))
        assert len(seen) == 1440 and seen[:2] == ["12:01:00", "12:02:00"] and seen[-1] == "12:00:00"
        assert sum(timeout is None or timeout > 0 for timeout in rounds) < 1440 + 10
        assert len(hub.client.schedules.ticks("minutely", limit=2000)) == 1440
    with TestHub(scheduled, schedules=False) as hub:
        hub.advance(timedelta(days=1))
        assert len(seen) == 1440


def test_a_queued_run_starts_when_the_run_before_it_has_ended() -> None:
    """Nobody needs to look each second whether it has."""
    scheduled = App()

    @scheduled.orchestrator
    async def slow(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go on")

    scheduled.schedule("hourly", slow, interval=timedelta(hours=1), overlap="queue")
    with TestHub(scheduled) as hub:
        hub.advance(timedelta(hours=2))
        rounds = _rounds(hub)
        hub.advance(timedelta(days=1))
        assert sum(timeout is None or timeout > 0 for timeout in rounds) < 50
        (running,) = [status.instance_id for status in hub.client.query(name="slow")]
        now = hub.now
        hub.raise_event(running, "go on")
        assert [status.has_ended for status in hub.client.query(name="slow")] == [True, False]
        assert hub.now == now


def test_activities_of_every_kind_run_on_the_loop_in_the_test_s_thread() -> None:
    threads: set[int] = set()
    with TestHub(app) as hub:
        real = hub._app.activities["crunch"].function
        assert hub.wait(hub.start("call", input=["crunch", 7])).output == 49
        hub.fake("crunch", lambda number: threads.add(threading.get_ident()))
        hub.wait(hub.start("call", input=["crunch", 7]))
        assert threads == {threading.get_ident()} and real is hub._app.activities["crunch"].function
        assert hub.wait(hub.start("tagged")).output == 5.0, "one host serves all tags"


def test_a_retry_waits_in_virtual_time() -> None:
    with TestHub(app) as hub:
        tries: list[datetime] = []

        def fails_twice(order: Order) -> str:
            tries.append(hub.now)
            if len(tries) < 3:
                raise ValueError("card declined")
            return "paid"

        hub.fake("charge", fails_twice)
        assert hub.wait(hub.start("trying")).output == "paid"
        assert tries == [BEGINS, BEGINS + timedelta(hours=1), BEGINS + timedelta(hours=2)]


def test_an_activity_s_client_is_the_hub_s() -> None:
    with TestHub(app) as hub:
        listening = hub.start("listen")
        teller = hub.start("call", input=["tell", listening])
        assert hub.wait(listening).output == teller
        asking = hub.wait(hub.start("call", input=["ask_client", None]))
        assert asking.failure is not None
        assert "blocking ctx.client, which cannot be served in virtual time" in str(asking.failure)


def test_the_client_is_the_whole_client() -> None:
    with TestHub(app) as hub:
        assert isinstance(hub.client, SyncClient)
        month = hub.client.start("month")
        hub.client.suspend(month)
        assert hub.status(month).runtime_status is Status.SUSPENDED
        hub.client.resume(month)
        hub.client.terminate(month, output="enough")
        assert hub.status(month).runtime_status is Status.TERMINATED
        assert [status.instance_id for status in hub.client.query()] == [month]
        assert hub.client.purge(month).instances == 1
        with pytest.raises(InstanceNotFound):
            hub.status(month)
        with pytest.raises(InstanceNotFound):
            hub.wait(month)
        with pytest.raises(InstanceNotFound):
            hub.history(month)


# -- what never comes ------------------------------------------------------------------------------------


def test_waiting_for_what_cannot_come_says_what_each_waits_for() -> None:
    with TestHub(app) as hub:
        hub.start("parent", instance_id="above")
        hub.start("call", input=["lost", None], instance_id="stuck")
        with pytest.raises(WaitsForever) as caught:
            hub.wait("above")
        told = str(caught.value)
        assert "nothing is due any more (it is 2026-01-01 00:00:00 UTC in this hub)" in told
        assert "- 'above' (parent, Running) waits for sub-orchestration 'listen' as 'child' (task 0), at " in told
        assert "- 'child' (listen, Running) waits for the event 'told' (hub.raise_event), at " in told
        assert "hub_apps.py:" in told
        assert "- 'stuck' (call, Running) waits for activity 'lost' (task 0)" in told
        hub.raise_event("child", "told", 5)
        assert hub.wait("above").output == 5, "the hub goes on after it"


def test_a_held_instance_is_told_with_its_reason() -> None:
    with TestHub(app) as hub:
        held = hub.start("listen")
        dispatcher = hub._there.host.dispatcher
        (session,) = dispatcher.sessions
        hub._there.loop.call_soon(dispatcher._park, session, "the code has changed")
        with pytest.raises(WaitsForever, match="is held: the code has changed; waits for an external event"):
            hub.wait(held)


def test_a_wait_ends_when_its_time_is_over() -> None:
    with TestHub(app) as hub:
        month = hub.start("month")
        with pytest.raises(WaitsForever, match=r"3600 virtual seconds were given .*\n- '.*a timer at 2026-01-31"):
            hub.wait(month, within=timedelta(hours=1))
        assert hub.now == BEGINS + timedelta(hours=1)
        assert hub.wait(month).has_ended


def test_what_goes_on_and_on_does_not_hang_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_JUMPS", 500)
    with TestHub(app) as hub:
        hub.start("eternal", instance_id="forever")
        with pytest.raises(WaitsForever, match="something else was due 500 times"):
            hub.wait(hub.start("listen"))
        with pytest.raises(WaitsForever, match="7200 virtual seconds"):
            hub.wait("forever", within=7200)


def test_a_wait_that_is_told_how_long_is_not_cut_short_by_what_else_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_JUMPS", 500)
    with TestHub(app) as hub:
        hub.start("eternal")
        month = hub.start("month")
        with pytest.raises(WaitsForever, match="within="):
            hub.wait(month)
        assert hub.wait(month, within=timedelta(days=31)).has_ended


@pytest.mark.parametrize(
    ("needs", "what"),
    [
        (lambda: asyncio.open_connection("127.0.0.1", 9), "sockets"),
        (lambda: asyncio.open_connection("localhost", 9), "sockets"),
        (lambda: asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0), "sockets"),
        (lambda: asyncio.create_subprocess_exec("true"), "processes"),
        (lambda: asyncio.create_subprocess_shell("true"), "processes"),
    ],
)
def test_what_virtual_time_has_not_is_refused_by_name(needs: Any, what: str) -> None:
    """Instead of a wait that never ends, or a process that really runs."""

    async def fake(order: Order) -> None:
        await needs()

    with TestHub(app, fakes={"charge": fake}) as hub:
        with pytest.raises(OrchestrationFailedError, match=f"there are no {what} in virtual time: give a fake"):
            hub.wait(hub.start("trying")).raise_if_failed()


def test_a_circle_in_which_no_time_passes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "MOST_ROUNDS", 2_000)
    with TestHub(app) as hub:
        with pytest.raises(WaitsForever, match=r"no time passed(.|\n)*waits for activity 'circle'"):
            hub.start("call", input=["circle", None])
        with pytest.raises(WaitsForever, match="no time passed"):
            hub.advance(1)


# -- one test beside another -----------------------------------------------------------------------------


def _story(seed: int) -> list[Any]:
    with TestHub(app, seed=seed) as hub:
        some = [hub.start("names"), hub.start("fulfil", input=Order("Bo", 1)), hub.start("trying")]
        hub.advance(timedelta(days=40))
        return [(hub.status(one).execution_id, hub.status(one).output, hub.history(one)) for one in some]


def test_the_same_seed_is_the_same_run() -> None:
    assert _story(7) == _story(7)
    assert _story(7) != _story(8)


def test_two_hubs_know_nothing_of_each_other_and_leave_nothing_behind() -> None:
    threads, chance = threading.active_count(), random.getstate()
    policy = asyncio.get_event_loop_policy()
    definitions = {name: definition.function for name, definition in app.activities.items()}
    with TestHub(app, fakes={"charge": lambda order: "fake"}) as one, TestHub(app) as other:
        for hub in (one, other):
            hub.start("fulfil", input=Order("Ann", 5), instance_id="same")
        one.advance(timedelta(days=31))
        assert other.now == BEGINS
        one.raise_event("same", "approved")
        other.raise_event("same", "approved")
        assert one.wait("same").output[0] == "fake" and other.wait("same").output[0] == "Ann paid 5"
        loops = [one._there.loop, other._there.loop]
    assert all(loop.is_closed() for loop in loops)
    assert threading.active_count() == threads and random.getstate() == chance
    assert asyncio.get_event_loop_policy() is policy and asyncio._get_running_loop() is None
    assert definitions == {name: definition.function for name, definition in app.activities.items()}


def test_a_hub_with_work_in_every_state_ends_in_silence(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual_time, "MOST_ROUNDS", 500)
    with TestHub(app) as hub:
        hub.start("month")
        hub.start("parent")
        hub.start("call", input=["lost", None])
        hub.start("call", input=["rest", 1e6])
        with pytest.raises(WaitsForever):
            hub.wait(hub.start("listen"))
        with pytest.raises(WaitsForever):
            hub.start("call", input=["circle", None])
    del hub
    gc.collect()
    assert not caplog.records and not recwarn.list


def test_what_the_test_raises_is_what_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), TestHub(app) as hub:
        hub.start("month")
        raise ZeroDivisionError


# -- wrong use -------------------------------------------------------------------------------------------


def test_a_hub_is_used_while_it_is_open() -> None:
    hub = TestHub(app, now=datetime(2026, 5, 1))
    assert hub.now == datetime(2026, 5, 1, tzinfo=UTC)
    with pytest.raises(HoldtrueError, match="not open"):
        hub.start("month")
    with hub:
        with pytest.raises(HoldtrueError, match="make another"):
            hub.open()
        assert hub.now == datetime(2026, 5, 1, tzinfo=UTC)
    with pytest.raises(HoldtrueError, match="not open"):
        hub.advance(1)
    hub.close()


@pytest.mark.parametrize("span", [-1, timedelta(seconds=-1), float("nan"), float("inf")])
def test_time_goes_forward_only(span: Any) -> None:
    with TestHub(app) as hub, pytest.raises(InvalidInput, match="cannot be advanced by"):
        hub.advance(span)


def test_a_sync_hub_in_an_async_test_says_how_it_is_done() -> None:
    async def main() -> None:
        with pytest.raises(WrongLoop, match="async with TestHub"), TestHub(app):
            pass

    asyncio.run(main())


def test_a_hub_that_is_used_by_its_own_activity_says_what_to_use() -> None:
    with TestHub(app) as hub:
        hub.fake("charge", lambda order: hub.start("month"))
        failed = hub.wait(hub.start("trying"))
        assert "in an activity use ctx.client" in str(failed.failure)


def test_a_host_that_cannot_start_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*given: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("holdtrue.host.Schedules.put", fails)
    late = App()
    late.schedule("often", "month", cron="* * * * *")
    hub = TestHub(late)
    with pytest.raises(RuntimeError, match="no room"):
        hub.open()
    assert hub._world is not None and hub._world.loop.is_closed()
