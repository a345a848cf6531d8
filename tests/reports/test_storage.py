"""A hub that is just being opened, away for a moment, or on a disk that fails while a host recovers."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import holdtrue
from tests.e2e.hubs import outcome, run, until
from tests.unit.sqlite_store.conftest import Disk

from .hosting import host


class CountingDisk(Disk):
    """Counts how often it failed."""

    failures = 0

    def check(self, what: str, name: str) -> None:
        try:
            super().check(what, name)
        except Exception:
            self.failures += 1
            raise


def make_app() -> holdtrue.App:
    app = holdtrue.App()

    @app.activity
    async def add(ctx: holdtrue.ActivityContext, n: int) -> int:
        await asyncio.sleep(0.01)
        return n + 1

    @app.orchestrator
    async def chain(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        total = 0
        for _ in range(n):
            total = await ctx.call_activity(add, input=total)
        return total

    return app


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingDisk]:
    """The disk under the test's hub."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # SQLite prints what a failing disk raised
    made = CountingDisk()
    yield made
    made.failing = None
    made.unregister()


def test_many_that_open_a_new_hub_at_once_can_use_it_at_once(tmp_path: Path) -> None:
    """The first calls failed while the store was still opening (durabletask-go#49)."""

    async def main() -> None:
        clients = [holdtrue.Client(tmp_path / "hub.db") for _ in range(5)]
        hosts = [host(make_app(), tmp_path) for _ in range(3)]

        async def begin(client: holdtrue.Client, n: int) -> str:
            await client.open()
            return await client.start("chain", input=1, instance_id=f"c{n}")

        async def take_part(one: holdtrue.Host, n: int) -> str:
            await one.start()
            return await one.client.start("chain", input=1, instance_id=f"h{n}")

        ids = await asyncio.gather(
            *(begin(c, n) for n, c in enumerate(clients)), *(take_part(h, n) for n, h in enumerate(hosts))
        )
        for i in ids:
            assert await outcome(clients[0], i) == 1
        for one in (*hosts, *clients):
            await (one.stop() if isinstance(one, holdtrue.Host) else one.close())

    run(main())


@pytest.mark.parametrize(
    ("at", "error", "call"),
    [
        ("while it runs", apsw.IOError, "write"),
        ("while it runs", apsw.IOError, "sync"),
        ("while it runs", apsw.FullError, "write"),
        ("while it recovers", apsw.IOError, "write"),
    ],
)
def test_a_disk_that_fails_for_a_while_leaves_nothing_pending(
    tmp_path: Path, disk: CountingDisk, at: str, error: type[Exception], call: str
) -> None:
    """PENDING for ever after the database failed during recovery, or between steps (dbos-transact-py#716, #805)."""

    async def main() -> None:
        app = make_app()
        ids: list[str] = []
        if at == "while it recovers":
            async with host(app, tmp_path, drain_seconds=0) as before:
                ids = [await before.client.start("chain", input=20) for _ in range(20)]
                await until(lambda: before.dispatcher.counters.activities > 40, "some steps")
        async with host(app, tmp_path) as running:
            if not ids:
                ids = [await running.client.start("chain", input=20) for _ in range(20)]
                await until(lambda: running.dispatcher.counters.activities > 40, "some steps")
            disk.failing, disk.at = error, call
            await until(lambda: disk.failures >= 3, "calls that fail")
            disk.failing = None
            for i in ids:
                assert await outcome(running.client, i) == 20
                names = [type(e).__name__ async for e in running.client.history(i)]
                assert names.count("TaskCompleted") == names.count("TaskScheduled") == 20
            info = await running.client.info()
            assert (info.messages, info.activities, info.dead_letters) == (0, 0, 0)

    run(main())


def test_a_hub_that_is_away_for_a_moment_leaves_nothing_pending(tmp_path: Path) -> None:
    """The same, for a file that was moved and came back (dbos-transact-py#805)."""

    async def main() -> None:
        async with host(make_app(), tmp_path) as running:
            counters = running.dispatcher.counters
            ids = [await running.client.start("chain", input=100) for _ in range(5)]
            await until(lambda: counters.activities > 20, "some steps")
            (tmp_path / "hub.db").rename(tmp_path / "away")
            await until(lambda: counters.redone > 0, "a commit that fails")
            (tmp_path / "away").rename(tmp_path / "hub.db")
            for i in ids:
                assert await outcome(running.client, i) == 100

    run(main())
