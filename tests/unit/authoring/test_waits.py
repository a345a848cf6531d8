"""Waits for external events: what is refused, cancelled or timed out takes no event away from others."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from holdtrue import TaskCancelledError, when_all, when_any
from holdtrue.authoring.app import App
from holdtrue.authoring.errors import InvalidInput
from holdtrue.core.replay import Run
from tests.unit.authoring.hub import Hub


async def refused_time_out(ctx: Any) -> Any:
    with pytest.raises(InvalidInput):
        ctx.wait_for_external_event("a", timeout=0)
    return await ctx.wait_for_external_event("a")


async def refused_time_out_of_an_early_event(ctx: Any) -> Any:
    await ctx.wait_for_external_event("go")
    with pytest.raises(InvalidInput):
        ctx.wait_for_external_event("a", timeout=-1)
    return await ctx.wait_for_external_event("a")


async def cancelled(ctx: Any) -> Any:
    waits = [ctx.wait_for_external_event("a") for _ in range(3)]
    assert waits[0].cancel() and waits[1].cancel()
    return await waits[2]


async def cancelled_with_time_out(ctx: Any) -> Any:
    wait = ctx.wait_for_external_event("a", timeout=5)
    wait.cancel()
    with pytest.raises(TaskCancelledError):
        await wait
    return await ctx.wait_for_external_event("A")


async def timed_out(ctx: Any) -> Any:
    with pytest.raises(TimeoutError):
        await ctx.wait_for_external_event("a", timeout=timedelta(seconds=1))
    ctx.set_custom_status("now")
    return await ctx.wait_for_external_event("a")


async def timed_out_in_a_group(ctx: Any) -> Any:
    both = when_all([ctx.wait_for_external_event("a", timeout=1), ctx.wait_for_external_event("b", timeout=1)])
    with pytest.raises(TimeoutError):
        await both
    return await ctx.wait_for_external_event("a")


async def lost_and_cancelled(ctx: Any) -> Any:
    wait, timer = ctx.wait_for_external_event("a"), ctx.create_timer(timedelta(seconds=1))
    assert await when_any([wait, timer]) is timer
    wait.cancel()
    return await ctx.wait_for_external_event("a")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    "code",
    [
        refused_time_out,
        refused_time_out_of_an_early_event,
        cancelled,
        cancelled_with_time_out,
        timed_out,
        timed_out_in_a_group,
        lost_and_cancelled,
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_event_is_for_who_still_waits(code: Callable[..., Any], live: bool) -> None:
    app = App()
    app.orchestrator(name="main")(code)
    hub = Hub(app, live=live)
    hub.start("main")
    hub.run()
    hub.raise_event("main", "a", "kept")
    hub.raise_event("main", "go")
    hub.run()
    assert hub.output() == "kept"


def test_a_task_that_is_returned_and_not_awaited_fails_with_the_way() -> None:
    app = App()

    @app.activity
    def echo(ctx: Any, n: int) -> int:
        return n

    @app.orchestrator
    async def main(ctx: Any) -> Any:
        return ctx.call_activity(echo, input=1)

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.failure().error_type == "holdtrue.NotDurableError" and "await" in hub.failure().message


def test_a_logger_is_silent_in_the_clean_up_of_code_that_is_put_away(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    runs: list[Run] = []

    @app.orchestrator
    async def main(ctx: Any) -> None:
        log = ctx.create_replay_safe_logger(logging.getLogger("mine"))
        runs.append(ctx._run)
        try:
            await ctx.wait_for_external_event("a")
        finally:
            log.info("done")

    hub = Hub(app, live=True)
    with caplog.at_level(logging.INFO, "mine"):
        hub.start(main)
        hub.run()
        runs[0].close()  # as a host does with the least recently used
        assert caplog.messages == []
        hub.instances["main"].run = None
        hub.live = False
        hub.raise_event("main", "a")
        hub.run()
    assert caplog.messages == ["done"]


@pytest.mark.parametrize("dialect", ["dotnet", "python"])
def test_timers_at_the_ends_of_time(dialect: str) -> None:
    app = App()

    @app.orchestrator
    async def main(ctx: Any) -> list[bool]:
        begun = ctx.current_utc_datetime
        await ctx.create_timer(datetime.min)
        await ctx.create_timer(timedelta(seconds=-1))
        await ctx.create_timer(timedelta(0))
        at_once = ctx.current_utc_datetime == begun
        last = ctx.create_timer(datetime.max)
        with pytest.raises(InvalidInput, match="9999"):
            ctx.create_timer(timedelta.max)
        return [at_once, last.cancel()]

    hub = Hub(app, dialect=dialect)
    hub.start(main)
    hub.run()
    assert hub.output() == [True, True]


@pytest.mark.parametrize("what", [None, [], "text"])
def test_swallowing_that_a_wait_is_not_durable_ends_and_does_not_hang(what: Any) -> None:
    app = App()

    @app.orchestrator
    def main(ctx: Any) -> Any:
        while True:
            try:
                yield what
            except Exception:
                continue

    hub = Hub(app)
    hub.start(main)
    hub.run()
    assert hub.failure().error_type == "holdtrue.NotDurableError"
