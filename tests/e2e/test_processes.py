"""Real worker processes on one hub, killed, stopped, drained: nothing lost, no step taken twice, no false status."""

import asyncio
import os
import signal
import sqlite3
import time

import pytest
from hubs import TIMEOUT, Worker, outcome, run, until

import holdtrue
from holdtrue import Status

WORK = """
app = holdtrue.App()
LOG = Path(__file__).with_suffix(".log")

def note(line):
    with open(LOG, "a") as file:
        file.write(line + "\\n")

@app.activity
async def step(ctx, n: int) -> int:
    await asyncio.sleep(0.01)
    return n + 1

@app.activity
def slow(ctx, seconds: float) -> str:
    note(f"begin {ctx.idempotency_key}")
    time.sleep(seconds)
    note(f"end {ctx.idempotency_key}")
    return "slept"

@app.activity(cpu=True)
def burn(ctx, seconds: float) -> int:
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        count += 1
    return 7

@app.orchestrator
async def chain(ctx, n: int) -> int:
    total = 0
    for _ in range(n):
        total = await ctx.call_activity(step, input=total)
    return total

@app.orchestrator
async def sleeps(ctx, seconds: float) -> str:
    return await ctx.call_activity(slow, input=seconds)

@app.orchestrator
async def burns(ctx, seconds: float) -> int:
    return await ctx.call_activity(burn, input=seconds)
"""


def client(tmp_path) -> holdtrue.Client:
    return holdtrue.Client(tmp_path / "hub.db")


def test_work_of_a_killed_host_goes_on_at_once_also_with_busy_cpu_children(tmp_path):
    async def main():
        async with client(tmp_path) as c:
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="first") as first:
                burning = await c.start("burns", input=2.0)
                await until(lambda: running(c, burning), "the activity runs")
                with Worker(tmp_path, WORK, tmp_path / "hub.db", name="second"):
                    await asyncio.sleep(0.5)
                    first.kill()
                    began = time.monotonic()
                    i = await c.start("chain", input=2)
                    assert await outcome(c, i) == 2
                    assert await outcome(c, burning) == 7
                    # Far below the lease of two minutes: the kernel told at once.
                    assert time.monotonic() - began < 60

    async def running(c, i):
        return any(a.running for a in await c.store.activities_of(i))

    run(main())


def test_a_stopped_host_loses_its_lease_and_its_late_commit_has_no_effect(tmp_path):
    async def main():
        async with client(tmp_path) as c:
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="zombie", settings="lease_seconds=3") as zombie:
                i = await c.start("chain", input=300)
                await until(lambda: length(c, i, 20), "some steps")
                zombie.stop_between_transactions()
                with Worker(tmp_path, WORK, tmp_path / "hub.db", name="heir", settings="lease_seconds=3"):
                    size = (await c.get_status(i)).history_size
                    await until(lambda: length(c, i, size + 10), "the heir goes on")
                    zombie.send(signal.SIGCONT)
                    assert await outcome(c, i) == 300
            events = [e async for e in c.history(i)]
            done = [e.task_scheduled_id for e in events if type(e).__name__ == "TaskCompleted"]
            assert done == list(range(300))

    async def length(c, i, n):
        return (await c.get_status(i)).history_size >= n

    run(main())


def test_sigterm_drains_and_the_next_worker_goes_on(tmp_path):
    async def main():
        async with client(tmp_path) as c:
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="one") as one:
                i = await c.start("sleeps", input=1.0)
                log = one.path.with_suffix(".log")
                await until(log.exists, "the activity began")
                assert one.stop() == 0
            assert "end" in log.read_text()
            assert await status_of(c, i) in (Status.RUNNING, Status.COMPLETED)
            with Worker(tmp_path, WORK, tmp_path / "hub.db", name="two"):
                assert await outcome(c, i) == "slept"
            assert log.read_text().count("begin") == 1

    async def status_of(c, i):
        return (await c.get_status(i)).runtime_status

    run(main())


def test_two_hosts_share_one_fan_out_and_one_inbox(tmp_path):
    async def main():
        async with client(tmp_path) as c:
            with (
                Worker(tmp_path, WORK, tmp_path / "hub.db", name="a"),
                Worker(tmp_path, WORK, tmp_path / "hub.db", name="b"),
            ):
                ids = [await c.start("chain", input=20) for _ in range(50)]
                for i in ids:
                    assert await outcome(c, i) == 20

    run(main())


@pytest.mark.filterwarnings("ignore:This process")
def test_a_fork_gets_a_clear_error(tmp_path):
    async def main():
        async with client(tmp_path) as c:
            await c.start("chain", input=1)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    coroutine = c.store.status(["x"])
                    coroutine.send(None)
                    text = "no error"
                except BaseException as error:
                    text = type(error).__name__
                os.write(write, text.encode())
                os._exit(0)
            os.waitpid(pid, 0)
            assert os.read(read, 100) == b"ForkedProcess"

    run(main())


def test_the_hub_is_an_ordinary_sqlite_file(tmp_path):
    async def main():
        app = holdtrue.App()

        @app.orchestrator
        def one(ctx, n):
            return n

        async with holdtrue.Host(app, tmp_path / "hub.db") as host:
            await outcome(host.client, await host.client.start("one", input=1))

    run(main())
    assert sqlite3.connect(tmp_path / "hub.db").execute("pragma integrity_check").fetchone() == ("ok",)
    assert TIMEOUT
