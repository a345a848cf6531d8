"""What an orchestrator can do with its context; every step here is replayed from its history."""

import asyncio
import dataclasses
import logging
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.authoring.combining import when_all, when_any
from holdtrue.authoring.context import OrchestrationContext
from holdtrue.authoring.errors import NotRegistered, PayloadTooLarge
from holdtrue.authoring.failures import NonRetriableError
from holdtrue.core import events as ev
from holdtrue.core.errors import InvalidInput
from holdtrue.core.projection import Status
from holdtrue.core.replay import NotDurableError
from holdtrue.core.retry import RetryPolicy
from holdtrue.core.tasks import OrchestrationCancelledError, TaskCancelledError, TaskFailedError
from tests.unit.authoring.hub import BEGINNING, SECOND, Hub, run_once


@dataclasses.dataclass
class Order:
    item: str
    count: int


@pytest.fixture
def app() -> App:
    app = App()

    @app.activity
    def double(ctx: Any, n: int) -> int:
        return n * 2

    @app.activity
    async def price(ctx: Any, order: Order) -> Order:
        assert isinstance(order, Order)
        return Order(order.item.upper(), order.count + 1)

    @app.activity
    def fail(ctx: Any, text: str) -> None:
        raise ValueError(text)

    app.double, app.price, app.fail = double, price, fail  # type: ignore[attr-defined]
    return app


def test_activities_by_function_convert_by_their_hints(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext, order: Order) -> Order:
        assert isinstance(order, Order)
        priced = await ctx.call_activity(app.price, input=order)
        assert priced == Order("TEA", 3)
        by_name = await ctx.call_activity("price", input=order)
        assert by_name == {"item": "TEA", "count": 3}
        return await ctx.call_activity("price", input=priced, return_type=Order)

    hub = Hub(app)
    hub.start(main, Order("tea", 2))
    hub.run()
    assert hub.output(expected_type=Order) == Order("TEA", 4)


def test_an_activity_that_is_not_registered_is_an_error_at_the_call(app: App) -> None:
    def stranger(ctx: Any) -> None: ...

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> str:
        for call in (ctx.call_activity, ctx.call_sub_orchestrator):
            with pytest.raises(NotRegistered, match="stranger"):
                call(stranger)
        with pytest.raises(InvalidInput):
            ctx.call_activity("")
        with pytest.raises(InvalidInput):
            ctx.call_activity(17)  # type: ignore[call-overload]
        return "done"

    assert run_once(app, main) == "done"


def test_an_app_without_activities_calls_functions_by_their_names() -> None:
    app = App()

    def elsewhere(ctx: Any, n: int) -> Order: ...

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity(elsewhere, input=1)
        assert task.expected_type is Order
        return await task

    hub = Hub(app)
    hub.start(main)
    with pytest.raises(KeyError):
        hub.run()
    assert [event.name for event in hub.events(ev.TaskScheduled)] == ["elsewhere"]


def test_options_of_an_activity_and_of_a_call() -> None:
    app = App()

    @app.activity(tag="gpu", start_to_close=timedelta(minutes=1), heartbeat=5)
    def render(ctx: Any) -> None: ...

    @app.activity
    def plain(ctx: Any) -> None: ...

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        ctx.call_activity(render)
        ctx.call_activity("render", tag="big", start_to_close=2.5, tags={"a": "b"}, version="3")
        ctx.call_activity(plain)
        with pytest.raises(InvalidInput):
            ctx.call_activity(plain, heartbeat=0)
        with pytest.raises(InvalidInput):
            ctx.call_activity(plain, tags={"a": 1})  # type: ignore[dict-item]
        await ctx.wait_for_external_event("never")

    hub = Hub(app)
    hub.start(main)
    hub._episode(hub.instances["main"])
    first, second, third = [task.options for task in hub.work]
    assert first is not None and second is not None
    assert (first.tag, first.start_to_close, first.heartbeat) == ("gpu", 60.0, 5.0)
    assert (second.tag, second.start_to_close, second.heartbeat) == ("big", 2.5, 5.0)
    assert (hub.work[1].tags, hub.work[1].version) == ({"a": "b"}, "3")
    assert third is None


def test_retries_are_asked_for_by_orchestration_time(app: App) -> None:
    attempts: list[str] = []

    @app.activity
    def flaky(ctx: Any, text: str) -> str:
        attempts.append(text)
        if len(attempts) < 3:
            raise OSError("not yet")
        return text

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> float:
        begun = ctx.current_utc_datetime
        policy = RetryPolicy(
            first_retry_interval=timedelta(seconds=10), max_number_of_attempts=5, backoff_coefficient=2
        )
        assert await ctx.call_activity(flaky, input="x", retry_policy=policy) == "x"
        return (ctx.current_utc_datetime - begun).total_seconds()

    assert run_once(app, main) == 30.0
    assert attempts == ["x"] * 3


def test_retry_timeout_is_judged_by_the_orchestrations_time(app: App) -> None:
    # In the SDK the wall clock decides: there a replay years later would give up where the run did not.
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> float:
        begun = ctx.current_utc_datetime
        policy = RetryPolicy(
            first_retry_interval=timedelta(seconds=10),
            max_number_of_attempts=100,
            retry_timeout=timedelta(seconds=35),
        )
        with pytest.raises(TaskFailedError):
            await ctx.call_activity(app.fail, input="x", retry_policy=policy)
        return (ctx.current_utc_datetime - begun).total_seconds()

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.output() == 40.0
    assert len(hub.calls) == 5


def test_retry_predicate_handler_and_errors_in_them(app: App) -> None:
    def broken(failure: Any) -> bool:
        raise ZeroDivisionError("in the predicate")

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> list[str]:
        seen = []
        for policy in (
            RetryPolicy(retry_if=lambda failure: not failure.is_caused_by(ValueError)),
            RetryPolicy(handler=lambda attempt, failure: timedelta(seconds=1) if attempt == 1 else None),
            RetryPolicy(retry_if=broken),
            RetryPolicy(handler=lambda attempt, failure: timedelta.max if attempt == 1 else None),
        ):
            try:
                task = ctx.call_activity(app.fail, input="x", retry_policy=policy)
                await when_any([task, ctx.create_timer(timedelta(days=1))])
                seen.append(type(task.get_exception()).__name__ if task.is_failed else "waits")
            except Exception as error:
                seen.append(repr(error))
        return seen

    assert run_once(app, main) == ["TaskFailedError", "TaskFailedError", "ZeroDivisionError", "waits"]


def test_non_retriable_errors_are_not_tried_again(app: App) -> None:
    @app.activity
    def never(ctx: Any) -> None:
        raise NonRetriableError("no use")

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        with pytest.raises(TaskFailedError) as caught:
            await ctx.call_activity(never, retry_policy=RetryPolicy(max_number_of_attempts=9))
        return [caught.value.details.error_type, caught.value.details.is_non_retriable]

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.output() == ["holdtrue.NonRetriableError", True]
    assert len(hub.calls) == 1


def test_children_and_what_they_know(app: App) -> None:
    @app.orchestrator(version="7")
    async def child(ctx: OrchestrationContext, n: int) -> Order:
        assert isinstance(n, int)
        return Order(f"{ctx.parent_instance_id} {ctx.version} {ctx.instance_id} {dict(ctx.tags)} {ctx.name}", n)

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> list[Any]:
        assert ctx.parent_instance_id is None and ctx.version is None and dict(ctx.tags) == {"who": "me"}
        given = await ctx.call_sub_orchestrator(child, input=1, instance_id="kid", tags={"t": "1"}, version="8")
        assert isinstance(given, Order)
        made = await ctx.call_sub_orchestrator("child", input=2)
        for bad in ("", "@x", "/" * 251):
            with pytest.raises(InvalidInput):
                ctx.call_sub_orchestrator(child, instance_id=bad)
        return [given.item, made["item"].replace(ctx.execution_id, "X")]

    hub = Hub(app)
    hub.start(main, tags={"who": "me"})
    hub.run()
    assert hub.output() == ["main 8 kid {'t': '1'} child", "main 7 X:1 {} child"]


def test_timers_take_naive_aware_and_spans(app: App) -> None:
    start = datetime(2023, 11, 14, 22, 13, 20)

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        assert ctx.current_utc_datetime == start and ctx.now == start.replace(tzinfo=UTC)
        await ctx.create_timer(timedelta(days=40, microseconds=1))
        assert ctx.current_utc_datetime == start + timedelta(days=40, microseconds=1)
        await ctx.create_timer(datetime(2024, 1, 1))
        assert ctx.current_utc_datetime == datetime(2024, 1, 1)
        await ctx.create_timer(datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))))
        assert ctx.current_utc_datetime == datetime(2024, 1, 1, 10)
        await ctx.create_timer(datetime(1999, 1, 1))
        await ctx.create_timer(timedelta(days=-1))
        assert ctx.current_utc_datetime == datetime(2024, 1, 1, 10)
        with pytest.raises(InvalidInput, match="9999"):
            ctx.create_timer(timedelta.max)
        with pytest.raises(InvalidInput):
            ctx.create_timer(5)  # type: ignore[arg-type]

    assert run_once(app, main) is None


def test_events_are_buffered_typed_and_case_insensitive(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> list[Any]:
        first, second = ctx.wait_for_external_event("Go"), ctx.wait_for_external_event("gO")
        order = await ctx.wait_for_external_event("order", data_type=Order)
        assert isinstance(order, Order)
        with pytest.raises(InvalidInput):
            await ctx.wait_for_external_event("order", data_type=Order)
        return [await second, await first, order.count, await ctx.wait_for_external_event("early")]

    hub = Hub(app)
    hub.start(main)
    hub.raise_event("main", "EARLY", 9)
    hub.run()
    hub.raise_event("main", "GO", 1)
    hub.raise_event("main", "go", 2)
    hub.raise_event("main", "Order", Order("x", 3))
    hub.raise_event("main", "order", [1])
    hub.run()
    assert hub.output() == [2, 1, 3, 9]


def test_waiting_for_an_event_with_a_time_out(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> list[Any]:
        seen: list[Any] = []
        for timeout in (30, timedelta(seconds=30)):
            try:
                seen.append(await ctx.wait_for_external_event("go", timeout=timeout))
            except TimeoutError as error:
                seen.append(str(error))
        # The wait that timed out takes no event any more.
        seen.append(await ctx.wait_for_external_event("go", timeout=1000))
        # An event that is there needs no timer, and a cancelled wait takes its timer along.
        seen.append(await ctx.wait_for_external_event("go", timeout=1000))
        waits = ctx.wait_for_external_event("go", timeout=50)
        assert waits.cancel()
        with pytest.raises(TaskCancelledError):
            await waits
        with pytest.raises(InvalidInput):
            ctx.wait_for_external_event("go", timeout=-1)
        seen.append((ctx.now - begun).total_seconds())
        await ctx.wait_for_external_event("last")
        return seen

    begun = datetime.fromtimestamp(BEGINNING // SECOND, UTC)
    hub = Hub(app)
    hub.start(main)
    hub.run(seconds=10)
    hub.raise_event("main", "go", "a")
    hub.run(seconds=100)
    hub.raise_event("main", "go", "b")
    hub.raise_event("main", "go", "c")
    hub.run(seconds=1)
    assert not hub.delayed  # no timer is left out
    hub.raise_event("main", "last")
    hub.run()
    elapsed = hub.output()[-1]
    assert hub.output() == ["a", "no event 'go' came within 30 seconds", "b", "c", elapsed]
    assert elapsed < 1000


def test_sending_events(app: App) -> None:
    @app.orchestrator
    async def listener(ctx: OrchestrationContext) -> Any:
        return [await ctx.wait_for_external_event("hello"), await ctx.wait_for_external_event("hello")]

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        ctx.send_event("other", "hello", data={"n": 1})
        ctx.send_event("other", "hello")
        for instance_id, name in (("", "x"), ("@e@k", "x"), ("other", ""), ("other", "holdtrue:cancel")):
            with pytest.raises(InvalidInput):
                ctx.send_event(instance_id, name)

    hub = Hub(app)
    hub.start(listener, instance_id="other")
    hub.start(main)
    hub.run()
    assert hub.output("other") == [{"n": 1}, None]


def test_continue_as_new_keeps_events_and_changes_the_version(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext, total: int) -> Any:
        if ctx.version == "2":
            return [total, await ctx.wait_for_external_event("n"), await ctx.wait_for_external_event("n")]
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(total + 1, save_events=True, new_version="2")
        ctx.continue_as_new(99)
        return "not this"

    hub = Hub(app)
    hub.start(main, 5)
    hub.run()
    hub.raise_event("main", "n", "kept")
    hub.raise_event("main", "go")
    hub.raise_event("main", "n", "not yet fed")
    hub.run()
    assert hub.output() == [6, "kept", "not yet fed"]
    assert hub.status().generation == 1


def test_custom_status(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        ctx.set_custom_status(Order("tea", 1))
        await ctx.wait_for_external_event("go")
        ctx.set_custom_status(None)

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.status().custom_status == '{"item":"tea","count":1}'
    hub.raise_event("main", "go")
    hub.run()
    assert hub.status().custom_status is None


def test_uuids_and_randomness_are_the_same_at_a_replay_and_differ_from_each_other(app: App) -> None:
    seen: list[tuple[Any, ...]] = []

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        drawn = (ctx.new_uuid(), ctx.new_uuid(), ctx.random().random(), ctx.random().random())
        seen.append(drawn)
        await ctx.create_timer(timedelta(seconds=1))
        await ctx.create_timer(timedelta(seconds=1))

    run_once(app, main)
    assert len(seen) == 3 and len(set(seen)) == 1
    assert len(set(seen[0])) == 4


def test_the_replay_safe_logger_speaks_once(app: App, caplog: pytest.LogCaptureFixture) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        log = ctx.create_replay_safe_logger(logging.getLogger("mine"))
        for n in range(3):
            log.info("step %d", n)
            await ctx.create_timer(timedelta(seconds=1))

    with caplog.at_level(logging.INFO, "mine"):
        run_once(app, main)
    assert caplog.messages == ["step 0", "step 1", "step 2"]


def test_the_size_of_history_and_the_hint(app: App) -> None:
    app.continue_as_new_after = 20
    sizes: dict[bool, list[Any]] = {}

    def program(collected: list[Any]) -> Any:
        async def main(ctx: OrchestrationContext) -> None:
            collected.clear()
            for _ in range(6):
                collected.append((ctx.history_size, ctx.should_continue_as_new))
                await ctx.call_activity(app.double, input=1)

        return main

    for live in (True, False):
        sizes[live] = []
        app.orchestrator(name=f"main{live}")(program(sizes[live]))
        run_once(app, f"main{live}", live=live)
    assert sizes[True] == sizes[False]
    assert [size for size, _ in sizes[True]] == sorted({size for size, _ in sizes[True]})
    assert [hint for _, hint in sizes[True]] == [size >= 20 for size, _ in sizes[True]]
    assert sizes[True][-1][1] and not sizes[True][0][1]


def test_calls_of_a_discarded_run_do_nothing(app: App) -> None:
    contexts = []

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> None:
        try:
            contexts.append(ctx)
            await ctx.wait_for_external_event("never")
        finally:
            ctx.set_custom_status("cleaning")
            ctx.send_event("main", "x")
            ctx.continue_as_new(1)
            await ctx.call_activity(app.double, input=1)

    hub = Hub(app, live=True)
    hub.start(main)
    hub.run()
    hub.deliver("main", ev.ExecutionTerminated(timestamp=hub.now, input='"off"'))
    hub.run()
    assert hub.status().status is Status.TERMINATED
    assert hub.status().custom_status is None
    assert not hub.calls and not list(hub.events(ev.TaskScheduled)) and not list(hub.events(ev.EventSent))


def test_cancellation_can_be_cleaned_up_after(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.wait_for_external_event("never")
        except Exception:
            return "swallowed"
        except OrchestrationCancelledError as error:
            assert str(error) == "enough"
            await ctx.call_activity(app.double, input=1)
            raise

    hub = Hub(app)
    hub.start(main)
    hub.run()
    hub.cancel("main")
    hub.run()
    assert hub.calls == [("double", "1")]
    assert hub.status().status is Status.TERMINATED


def test_payloads_over_the_bound_and_unfit_ones_are_errors_at_the_call() -> None:
    app = App(max_payload=100)

    @app.activity
    def take(ctx: Any, text: str) -> str:
        return text * 3

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            ctx.call_activity(take, input="x" * 99)
        with pytest.raises(PayloadTooLarge):
            ctx.set_custom_status("x" * 99)
        with pytest.raises(InvalidInput, match="cannot be written"):
            ctx.call_activity(take, input=object())
        with pytest.raises(TaskFailedError) as caught:
            await ctx.call_activity(take, input="x" * 50)
        with pytest.raises(InvalidInput):
            await ctx.call_activity("take", input="x", return_type=int)
        return caught.value.details.error_type

    assert run_once(app, main) == "holdtrue.PayloadTooLarge"


def test_an_input_that_does_not_fit_fails_the_instance(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext, order: Order) -> None: ...

    hub = Hub(app)
    hub.start(main, {"item": 5})
    hub.run()
    assert hub.failure().error_type == "holdtrue.PayloadError"
    assert "'main'" in hub.failure().message and "Order" in hub.failure().message


def test_an_output_that_cannot_be_written_fails_the_instance(app: App) -> None:
    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        return object()

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.failure().error_type == "holdtrue.PayloadError"


def test_inputs_that_are_left_out(app: App) -> None:
    @app.orchestrator
    def default(ctx: OrchestrationContext, n: int = 5) -> int:
        return n

    @app.orchestrator
    def needed(ctx: OrchestrationContext, n: int) -> Any:
        return [n]

    @app.orchestrator
    def none(ctx: OrchestrationContext) -> str:
        return "no input"

    assert run_once(app, default) == 5
    assert run_once(app, default, 6) == 6
    assert run_once(app, needed) == [None]
    assert run_once(app, none, "ignored") == "no input"


# -- groups and cancelled tasks -------------------------------------------------------------------------------


def test_groups(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        assert await when_all([]) == []
        with pytest.raises(ValueError, match="at least one"):
            when_any([])
        with pytest.raises(TypeError, match="durable"):
            when_all([object()])  # type: ignore[list-item]
        results = await when_all([ctx.call_activity(app.double, input=n) for n in range(3)])
        twice = ctx.call_activity(app.double, input=5)
        assert await when_all([twice, twice]) == [10, 10]
        slow, quick = ctx.create_timer(timedelta(hours=1)), ctx.call_activity(app.double, input=7)
        winner = await when_any([slow, quick])
        assert winner is quick and winner.get_result() == 14
        assert slow.cancel() and not slow.cancel() and not winner.cancel()
        return results

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.output() == [0, 2, 4]
    assert hub.now == BEGINNING


def test_when_all_waits_for_all_and_raises_the_first_failure(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        tasks = [
            ctx.call_activity(app.fail, input="a"),
            ctx.call_activity(app.double, input=1),
            ctx.call_activity(app.fail, input="b"),
        ]
        with pytest.raises(TaskFailedError) as caught:
            await when_all(tasks)
        assert all(task.is_complete for task in tasks)
        return str(caught.value.__cause__)

    assert run_once(app, main) == "a"


def test_any_task_can_be_cancelled_and_a_group_bears_it(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        task, other = ctx.call_activity(app.double, input=1), ctx.wait_for_external_event("x")
        group = when_all([task, other])
        assert task.cancel() and task.is_cancelled and not task.is_failed
        assert other.cancel()
        with pytest.raises(TaskCancelledError):
            await group
        with pytest.raises(TaskCancelledError):
            task.get_result()
        with pytest.raises(ValueError, match="not failed"):
            task.get_exception()
        child = ctx.call_sub_orchestrator("nobody", instance_id="nobody")
        await ctx.create_timer(timedelta(seconds=1))
        assert child.cancel()
        return "done"

    hub = Hub(app)
    hub.start(main)
    hub._episode(hub.instances["main"])
    hub.instances.pop("nobody")
    hub.run()
    assert hub.output() == "done"
    assert not hub.calls


# -- what is not durable --------------------------------------------------------------------------------------


def test_waiting_for_what_is_not_durable_names_the_line_and_the_way(app: App) -> None:
    async def nested() -> None:
        await asyncio.sleep(1)  # the innermost line of the author's

    async def bare() -> None:
        await asyncio.sleep(0)

    async def future() -> None:
        await asyncio.get_running_loop().create_future()

    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        seen = []
        for wait in (nested, bare, future):
            with pytest.raises(NotDurableError) as caught:
                await wait()
            seen.append(str(caught.value))
        return seen

    async def within_a_loop() -> Any:
        return run_once(app, main)

    seen = asyncio.run(within_a_loop())
    line = nested.__code__.co_firstlineno + 1
    assert f"test_context.py:{line}: waits for" in seen[0]
    for text in seen:
        assert "ctx.call_activity" in text and "ctx.create_timer" in text and "test_context.py" in text


def test_a_generator_that_yields_something_else(app: App) -> None:
    @app.orchestrator
    def main(ctx: OrchestrationContext) -> Any:
        try:
            yield 5
        except NotDurableError as error:
            assert "builtins.int" in str(error)
        yield [ctx.call_activity(app.double, input=1)]

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.failure().error_type == "holdtrue.NotDurableError"
    assert "builtins.list" in hub.failure().message


def test_the_context_itself_is_not_awaited(app: App) -> None:
    @app.orchestrator
    async def main(ctx: OrchestrationContext) -> Any:
        with pytest.raises(TypeError, match="context"):
            await ctx  # type: ignore[misc]

    run_once(app, main)
