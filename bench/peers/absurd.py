"""Absurd: durable tasks inside PostgreSQL; its workers and clients in this process, a connection each.

chain, latency: spawn a task and see its result; fanout: one task gathers its steps; start: spawn on a queue without a
worker (the durable accept alone).  A worker of the SDK runs all its tasks over one connection, so that several run.
The SDK's own wait for a result backs off from 50 ms to 1 s, so one query every few milliseconds asks for all tasks.
"""

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from absurd_sdk import AsyncAbsurd

from bench.measure import LANES, STEPS, Measured, drive, report
from bench.peers.options import options

CLIENTS = 16


async def noop() -> int:
    """The activity."""
    return 1


async def chain(steps: int, ctx: Any) -> int:
    """Steps in sequence."""
    done = 0
    for number in range(steps):
        done += await ctx.step(f"s{number}", noop)
    return done


async def fan_out(width: int, ctx: Any) -> int:
    """Steps at once."""
    return sum(await asyncio.gather(*(ctx.step(f"s{number}", noop) for number in range(width))))


def fresh_database(server: str) -> str:
    """The URL of a new database with Absurd's schema and two queues: `q`, and `nobody` without a worker."""
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("drop database if exists absurd_bench with (force)")
        connection.execute("create database absurd_bench")
    url = f"{server}/absurd_bench"
    for words in (("init",), ("create-queue", "q"), ("create-queue", "nobody")):
        subprocess.run(
            [str(Path(sys.executable).parent / "absurdctl"), *words],
            env=dict(os.environ, PGDATABASE=url),
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return url


class Results:
    """One query for every result awaited."""

    def __init__(self, connection: Any, every: float) -> None:
        self._connection, self._every = connection, every
        self._waiting: dict[Any, asyncio.Future[tuple[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, task_id: Any) -> tuple[str, Any]:
        """State and result of a task when it has ended."""
        future = self._waiting[task_id] = asyncio.get_running_loop().create_future()
        self._task = self._task or asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            if self._waiting:
                cursor = await self._connection.execute(
                    "select task_id, state, completed_payload from absurd.t_q where task_id = any(%s) "
                    "and state in ('completed', 'failed', 'cancelled')",
                    (list(self._waiting),),
                )
                for task_id, state, result in await cursor.fetchall():
                    self._waiting.pop(task_id).set_result((state, result))


async def main(given: Any, url: str) -> None:
    """The scenario that the options name."""
    workers, batch = (8, 4) if given.scenario == "chain" else (1, 1)
    poll = 0.001 if given.scenario == "latency" else 0.005
    connect = psycopg.AsyncConnection.connect
    clients = [AsyncAbsurd(await connect(url, autocommit=True), queue_name="q") for _ in range(CLIENTS)]
    apps = [AsyncAbsurd(url, queue_name="q") for _ in range(workers)]
    results = Results(await connect(url, autocommit=True), poll)
    turn = itertools.count()

    async def spawn(name: str, argument: int, queue: str = "q") -> Any:
        return (await clients[next(turn) % CLIENTS].spawn(name, argument, queue=queue))["task_id"]

    async def call(name: str, argument: int) -> None:
        ended = await results.get(await spawn(name, argument))
        if ended != ("completed", argument):
            raise RuntimeError(f"a task ended as {ended}")

    def done(measured: Measured, work: int, unit: str) -> None:
        report("absurd", given.scenario, measured, case=given.case, work=work, unit=unit, workers=workers)

    if given.scenario == "start":
        await drive(CLIENTS, CLIENTS, lambda number: spawn("chain", 1, "nobody"))
        measured = await drive(given.count, LANES, lambda number: spawn("chain", 1, "nobody"))
        done(measured, given.count, "starts/s")
        return
    serving = []
    for number, app in enumerate(apps):
        app.register_task("chain")(chain)
        app.register_task("fan_out")(fan_out)
        serving.append(
            asyncio.create_task(
                app.start_worker(worker_id=f"w{number}", concurrency=batch, batch_size=batch, poll_interval=poll)
            )
        )
    await drive(4 * workers, workers, lambda number: call("chain", STEPS))
    if given.scenario == "chain":
        done(await drive(given.count, LANES, lambda number: call("chain", STEPS)), given.count * STEPS, "activities/s")
    elif given.scenario == "latency":
        done(await drive(given.count, 1, lambda number: call("chain", 1)), given.count, "instances/s")
    else:
        measured = await drive(given.count, 1, lambda number: call("fan_out", given.width))
        done(measured, given.count * given.width, "activities/s")
    for app in apps:
        app.stop_worker()
    await asyncio.sleep(0.1)


if __name__ == "__main__":
    asked = options(__doc__)
    uvloop.run(main(asked, fresh_database(asked.postgresql)))
