"""A thread that starves the interpreter is noticed and named, and the interpreter tuned while it runs."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.engine.busy_thread import BUSY_SWITCH_SECONDS

from .bench import Bench, ManualEnvironment, settle, with_bench


class Threads(ManualEnvironment):
    """Threads whose CPU time is `share` of the time that passes; `wait` is the wait for the interpreter."""

    def __init__(self, share: float, wait: float) -> None:
        super().__init__()
        self.share, self.wait = share, wait
        self.used = 0.0

    def thread_clock(self) -> Callable[[], float] | None:
        return lambda: self.used

    def interpreter_wait(self) -> float:
        return self.wait

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.used += 0.01 * self.share
            await self.advance(0.01)


def make_app() -> tuple[App, threading.Event, threading.Event]:
    app = App()
    began, gate = threading.Event(), threading.Event()

    @app.activity
    def works(ctx: Any) -> None:
        began.set()
        gate.wait(60)

    return app, began, gate


@pytest.mark.parametrize("own_process", [True, False])
def test_a_busy_thread_is_named_once(own_process: bool, caplog: pytest.LogCaptureFixture) -> None:
    app, began, gate = make_app()
    environment = Threads(share=0.9, wait=0.005)

    async def test(bench: Bench) -> None:
        for number in (1, 2):
            bench.submit("works")
            await bench.until(began.is_set)
            assert not bench.pool.busy_thread
            await environment.pass_time(0.5)
            assert bench.pool.busy_thread and bench.pool.counters.busy_threads == number
            gate.set()
            await bench.idle()
            await environment.pass_time(0.5)
            assert not bench.pool.busy_thread
            began.clear()
            gate.clear()
        named = [record for record in caplog.records if "cpu=True" in record.message]
        assert len(named) == 1 and "'works'" in named[0].message
        assert environment.switch_intervals == ([BUSY_SWITCH_SECONDS, 0.005] * 2 if own_process else [])

    with_bench(app, test, environment=environment, own_process=own_process)


@pytest.mark.parametrize(("share", "wait"), [(0.9, 0.0001), (0.02, 0.005)])
def test_one_that_lets_go_of_the_interpreter_or_rests_is_not(share: float, wait: float) -> None:
    app, began, gate = make_app()
    environment = Threads(share, wait)

    async def test(bench: Bench) -> None:
        bench.submit("works")
        await bench.until(began.is_set)
        await environment.pass_time(2)
        assert not bench.pool.busy_thread and bench.pool.counters.busy_threads == 0
        gate.set()
        await bench.idle()
        await environment.pass_time(1)
        await settle()
        assert [timer for timer in environment.timers if not timer.off] == [], "nothing runs: nobody looks"

    with_bench(app, test, environment=environment, own_process=True)


def test_a_busy_one_that_comes_to_rest_is_no_longer() -> None:
    app, began, gate = make_app()
    environment = Threads(share=1.0, wait=0.005)

    async def test(bench: Bench) -> None:
        bench.submit("works")
        await bench.until(began.is_set)
        await environment.pass_time(0.5)
        assert bench.pool.busy_thread
        environment.share = 0.0
        await environment.pass_time(0.5)
        assert not bench.pool.busy_thread and environment.switch_intervals == [BUSY_SWITCH_SECONDS, 0.005]
        gate.set()
        await bench.idle()

    with_bench(app, test, environment=environment, own_process=True)


def test_drain_undoes_what_was_set() -> None:
    app, began, gate = make_app()
    environment = Threads(share=1.0, wait=0.005)

    async def test(bench: Bench) -> None:
        bench.submit("works")
        await bench.until(began.is_set)
        await environment.pass_time(0.5)
        draining = bench.pool.drain(0)
        bench.environment.call_later = _at_once  # type: ignore[method-assign]
        assert len(await draining) == 1
        assert environment.switch_intervals == [BUSY_SWITCH_SECONDS, 0.005]
        gate.set()

    with_bench(app, test, environment=environment, own_process=True)


def _at_once(seconds: float, call: Callable[[], None]) -> Any:
    import asyncio

    return asyncio.get_running_loop().call_later(0, call)


def test_a_real_one_is_noticed() -> None:
    app = App()
    gate = threading.Event()

    @app.activity
    def computes(ctx: Any) -> None:
        while not gate.is_set():
            sum(range(100))

    before = sys.getswitchinterval()

    async def test(bench: Bench) -> None:
        bench.submit("computes")
        await bench.until(lambda: bench.pool.busy_thread)
        assert sys.getswitchinterval() == pytest.approx(BUSY_SWITCH_SECONDS)
        gate.set()
        await bench.until(lambda: not bench.pool.busy_thread)
        assert sys.getswitchinterval() == pytest.approx(before)
        await bench.idle()

    with_bench(app, test, own_process=True)
