"""What has not begun may be taken back, to be run by another host."""

import asyncio
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core.messages import WorkRef
from holdtrue.engine.settings import HostSettings
from holdtrue.host import MOST_KEPT_WAITING, pool_settings

from .bench import Bench, ManualEnvironment, settle, with_bench


def app_of(began: list[int]) -> App:
    app = App()

    @app.activity
    async def waits(ctx: Any, number: int) -> None:
        began.append(number)
        await asyncio.Event().wait()

    return app


def test_only_what_has_waited_so_long_is_named_and_only_what_has_not_begun_comes_back() -> None:
    began: list[int] = []

    async def test(bench: Bench) -> None:
        environment = bench.environment
        assert isinstance(environment, ManualEnvironment)
        running, early = bench.submit("waits", "1"), bench.submit("waits", "2")
        await settle()
        await environment.advance(0.6)
        late = bench.submit("waits", "3")
        await environment.advance(0.6)
        assert bench.pool.waiting(1.0) == [early.ref]
        assert bench.pool.waiting(0.5) == [early.ref, late.ref]
        back = bench.pool.withdraw([running.ref, early.ref, WorkRef(99, 99)])
        assert [item.ref for item in back] == [early.ref]
        assert bench.pool.withdraw([early.ref]) == []  # once
        assert bench.pool.backlog() == 1 and began == [1]
        bench.pool.cancel([running.ref])
        await environment.advance(1.0)  # its code is stopped when the grace for it is over
        assert began == [1, 3] and bench.told == [(running.task.task_id, None)]
        bench.pool.cancel([late.ref])
        await environment.advance(1.0)

    with_bench(app_of(began), test, environment=ManualEnvironment(), async_slots=1)


def test_at_a_drain_what_waits_comes_back_at_once_and_nothing_more_begins() -> None:
    began: list[int] = []

    async def test(bench: Bench) -> None:
        environment = bench.environment
        assert isinstance(environment, ManualEnvironment)
        running, waiting = bench.submit("waits", "1"), bench.submit("waits", "2")
        await settle()
        assert [item.ref for item in bench.pool.begin_drain()] == [waiting.ref]
        assert bench.pool.free_slots() == 0 and bench.pool.refs() == [running.ref]
        bench.pool.cancel([running.ref])
        await environment.advance(1.0)
        assert began == [1] and bench.told == [(running.task.task_id, None)]

    with_bench(app_of(began), test, environment=ManualEnvironment(), async_slots=1)


def test_no_more_than_a_thousand_wait_here_that_only_a_queue_could_give_to_others() -> None:
    settings = HostSettings(activity_backlog=5_000)
    assert pool_settings(settings, takes_ahead=False).async_ahead == MOST_KEPT_WAITING == 1_000
    assert pool_settings(settings, takes_ahead=True).async_ahead == 5_000
    assert pool_settings(HostSettings(activity_backlog=7), takes_ahead=False).async_ahead == 7
