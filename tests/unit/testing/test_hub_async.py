"""`TestHub` in async tests: its loop runs in a thread of its own, while a call of it is awaited."""

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdtrue import InstanceNotFound
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.events import ExecutionStarted
from holdtrue.testing import AsyncTestHub, TestHub, WaitsForever
from tests.unit.testing.hub_apps import Order, app

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """As `asyncio.run`, and nothing is left: no thread, no complaint."""
    threads = threading.active_count()
    asyncio.run(main())
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("holdtrue-test-hub"):
            thread.join(30)
    assert threading.active_count() == threads


def test_the_same_job_awaited() -> None:
    async def main() -> None:
        outer = asyncio.get_running_loop()
        async with TestHub(app, fakes={"charge": lambda order: "fake"}) as hub:
            order = await hub.start("fulfil", input=Order("Ann", 5))
            assert hub.now == BEGINS and hub.calls("charge") == [Order("Ann", 5)]
            await hub.advance(timedelta(days=30))
            assert (await hub.status(order)).waits_for == ["an external event"]
            await hub.run_until_idle()
            await hub.raise_event(order, "approved", 1)
            assert (await hub.wait(order)).output == ["fake", 1]
            assert isinstance((await hub.history(order))[1], ExecutionStarted)
            assert hub.now == BEGINS + timedelta(days=30)
            hub.fake("charge", None)
            assert (await hub.wait(await hub.start("trying"))).output == "Ann paid 5"
        assert asyncio.get_running_loop() is outer
        with pytest.raises(HoldtrueError, match="not open"):
            await hub.start("month")

    _run(main)


def test_a_sync_and_an_async_test_see_the_same() -> None:
    with TestHub(app, seed=3) as hub:
        one = hub.start("fulfil", input=Order("Ann", 5))
        hub.advance(timedelta(days=31))
        expected = hub.history(one)

    async def main() -> None:
        async with TestHub(app, seed=3) as hub:
            other = await hub.start("fulfil", input=Order("Ann", 5))
            await hub.advance(timedelta(days=31))
            assert other == one and await hub.history(other) == expected

    _run(main)


def test_the_client_is_awaited_too() -> None:
    async def main() -> None:
        async with TestHub(app) as hub:
            client = hub.client
            month = await client.start("month")
            assert (await client.wait_for_completion(month)).output == "2026-01-31 00:00:00"
            assert [status.instance_id async for status in client.query()] == [month]
            assert [event async for event in client.history(month)] == await hub.history(month)
            await client.schedules.create("often", "month", interval=timedelta(days=1))
            assert [schedule.schedule_id for schedule in await client.schedules.list()] == ["often"]
            assert client.environment is hub._hub._there.environment

    _run(main)


def test_errors_come_to_who_awaits() -> None:
    async def main() -> None:
        async with TestHub(app) as hub:
            with pytest.raises(WaitsForever, match="waits for the event 'told'"):
                await hub.wait(await hub.start("listen"))
            with pytest.raises(InstanceNotFound):
                await hub.status("nobody")
            with pytest.raises(InvalidInput):
                await hub.advance(-1)
            with pytest.raises(InvalidInput):
                hub.fake("chrage", len)
        with pytest.raises(ZeroDivisionError):
            async with TestHub(app):
                raise ZeroDivisionError

    _run(main)


def test_the_test_s_own_loop_goes_on_meanwhile() -> None:
    """A blocking activity may talk to what the test serves on its loop."""

    async def main() -> None:
        outer = asyncio.get_running_loop()
        served: list[str] = []

        async def serve(name: str) -> str:
            served.append(name)
            return f"{name} pays"

        async with TestHub(app) as hub:
            hub.fake("charge", lambda order: asyncio.run_coroutine_threadsafe(serve(order.customer), outer).result(60))
            assert (await hub.wait(await hub.start("trying"))).output == "Ann pays"
        assert served == ["Ann"]

    _run(main)


def test_a_time_out_of_the_test_stops_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def spin(order: Order) -> None:
            while True:
                await asyncio.sleep(1)

        async with TestHub(app) as hub:
            hub.fake("charge", spin)
            waiting = asyncio.ensure_future(hub.advance(1e10))
            start = asyncio.ensure_future(hub.start("trying"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
        async with TestHub(app) as hub:
            hub.fake("charge", spin)
            trying = await hub.start("trying")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await hub.wait(trying, within=1e10)
            assert (await hub.status(trying)).waits_for == ["activity 'charge' (task 0)"], "the hub goes on"

    _run(main)
    assert not [record for record in caplog.records if record.name == "asyncio"], "nobody asks for what was called off"


def test_several_tasks_may_use_one_hub_and_one_test_several_hubs() -> None:
    async def main() -> None:
        async with TestHub(app) as one, TestHub(app) as other:
            started = await asyncio.gather(*(hub.start("month") for hub in (one, other) * 5))
            statuses = await asyncio.gather(*(one.wait(instance) for instance in started[::2]))
            assert all(status.has_ended for status in statuses)
            assert one.now == BEGINS + timedelta(days=30) and other.now == BEGINS

    _run(main)


def test_a_fixture_that_is_not_async_opens_and_closes_it() -> None:
    hub = AsyncTestHub(TestHub(app))
    hub.open()

    async def main() -> None:
        assert (await hub.wait(await hub.start("month"))).has_ended

    asyncio.run(main())
    hub.close()
    assert hub._hub._world is not None and hub._hub._world.loop.is_closed()
