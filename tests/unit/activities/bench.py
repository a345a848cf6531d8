"""A pool with everything around it, for tests: what it tells is kept, time can be moved by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.events import TICKS_PER_SECOND, TaskCompleted, TaskFailed
from holdtrue.core.messages import ActivityTask, WorkRef
from holdtrue.engine.activities import ActivityPool, PoolSettings
from holdtrue.environment import REAL, Environment
from holdtrue.stores.protocol import LockedActivity

PATIENCE = 30.0
"""Seconds after which a test that waits has failed; nothing is ever measured against it."""


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
"""The first makes the loop of each test; conftest changes it."""


class ManualTimer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.off = at, call, False

    def cancel(self) -> None:
        self.off = True


class ManualEnvironment(Environment):
    """Time stands still until `advance`."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.timers: list[ManualTimer] = []
        self.switch_intervals: list[float] = []

    def now(self) -> int:
        return int(self.seconds * TICKS_PER_SECOND)

    def monotonic(self) -> float:
        return self.seconds

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        timer = ManualTimer(self.seconds + seconds, call)
        self.timers.append(timer)
        return timer

    def set_switch_interval(self, seconds: float) -> float:
        self.switch_intervals.append(seconds)
        return 0.005

    async def advance(self, seconds: float) -> None:
        """Move on, calling what becomes due in order, each at its time."""
        end = self.seconds + seconds
        while True:
            self.timers = [timer for timer in self.timers if not timer.off]
            due = min((t for t in self.timers if t.at <= end), key=lambda t: t.at, default=None)
            if due is None:
                break
            self.timers.remove(due)
            self.seconds = max(self.seconds, due.at)
            due.call()
            await settle()
        self.seconds = end
        await settle()


async def settle() -> None:
    """Let everything that can run on the loop run."""
    for _ in range(20):
        await asyncio.sleep(0)


class Bench:
    """`told` holds (task id, event) in the order told; `reports` what was reported.

    `freed` counts slots that came free after their run had been told of.
    """

    def __init__(self, app: App, *, environment: Environment = REAL, client: Any = None, **settings: Any) -> None:
        self.told: list[tuple[int, TaskCompleted | TaskFailed | None]] = []
        self.reports: list[tuple[int, str | None, str | None]] = []
        self.wanted: bool | Exception = True
        self.freed = 0
        self.environment = environment
        self._next = 0
        self._changed: list[asyncio.Future[None]] = []
        self.pool = ActivityPool(
            app,
            environment,
            settings=PoolSettings(**{"cancel_grace": 0.2, **settings}),
            finished=self._finished,
            report=self._report,
            client_factory=client,
            freed=self._freed,
        )

    def item(
        self,
        name: str,
        payload: str | None = None,
        *,
        options: ActivityOptions | None = None,
        details: str | None = None,
        scheduled_at: int = 0,
        instance: int = 1,
        execution: str = "x1",
    ) -> LockedActivity:
        self._next += 1
        number = self._next
        return LockedActivity(
            ref=WorkRef(number, 7),
            instance=instance,
            details=details,
            scheduled_at=scheduled_at,
            task=ActivityTask(
                instance_id="order-1",
                execution_id=execution,
                task_id=number,
                scheduled=number,
                name=name,
                input=payload,
                options=options,
            ),
        )

    def submit(self, name: str, payload: str | None = None, **more: Any) -> LockedActivity:
        item = self.item(name, payload, **more)
        self.pool.submit([item])
        return item

    async def run(self, name: str, payload: str | None = None, **more: Any) -> TaskCompleted | TaskFailed | None:
        """Submit one and wait for what is told of it."""
        item = self.submit(name, payload, **more)
        await self.until(lambda: any(number == item.task.task_id for number, _ in self.told))
        return dict(self.told)[item.task.task_id]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    async def idle(self) -> None:
        """Until every slot is free again."""
        await self.until(lambda: self.pool.running == 0 and self.pool.backlog() == 0)

    def _finished(self, item: LockedActivity, event: TaskCompleted | TaskFailed | None) -> None:
        if event is not None:
            assert event.task_scheduled_id == item.task.task_id
        assert item.task.task_id not in dict(self.told), "told twice"
        self.told.append((item.task.task_id, event))

    def _freed(self) -> None:
        assert self.pool.free_slots() > 0
        self.freed += 1

    async def _report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        self.reports.append((ref.key, progress, details))
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted


def with_bench(app: App, test: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    """Run a test on a loop of its own; at its end the pool must come to rest, with nothing left over."""

    async def main() -> None:
        bench = Bench(app, **settings)
        async with asyncio.timeout(PATIENCE * 2):
            await test(bench)
            assert await bench.pool.drain(0) == []
            assert bench.pool.refs() == []

    with asyncio.Runner(loop_factory=LOOPS[0]) as runner:
        runner.run(main())


def failure(event: Any) -> Any:
    assert type(event) is TaskFailed, event
    return event.failure


def result(event: Any) -> str | None:
    assert type(event) is TaskCompleted, event
    return event.result
