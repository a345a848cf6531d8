"""The limit: a bare durable loop on SQLite that does nothing but what durability needs.

Live coroutines; for each step history rows, the instance's row and the activity's row, in one transaction of one
writer thread that gathers what arrives while it commits; WAL, synchronous=FULL; an activity starts when its step is
on disk.  No leases, no fences, no replay, no clients, no time-outs.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.measure import LANES, STEPS, Measured, drive, report, scratch
from bench.peers.options import options

SCHEMA = """
create table history(
    instance text, seq integer, kind integer, task integer, payload blob, primary key(instance, seq)
) without rowid;
create table instances(id text primary key, name text, status integer, output blob, updated real) without rowid;
create table activities(instance text, task integer, payload blob, primary key(instance, task)) without rowid;
"""
HISTORY = "insert into history values(?, ?, ?, ?, ?)"
INSTANCE = (
    "insert into instances values(?, ?, ?, ?, ?) on conflict(id) do update set "
    "status = excluded.status, output = excluded.output, updated = excluded.updated"
)
ACTIVITY = "insert into activities values(?, ?, ?)"
DONE = "delete from activities where instance = ? and task = ?"
CREATED, SCHEDULED, COMPLETED, ENDED = range(4)
encode = msgspec.json.encode


@dataclass
class Step:
    """The rows of one step."""

    history: list[tuple[Any, ...]] = field(default_factory=list)
    instance: list[tuple[Any, ...]] = field(default_factory=list)
    activities: list[tuple[Any, ...]] = field(default_factory=list)
    done: list[tuple[Any, ...]] = field(default_factory=list)


class Writer:
    """The one connection, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path, self._loop = str(path), asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[Step, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def commit(self, step: Step) -> None:
        """Returns when the step is on disk."""
        future = self._loop.create_future()
        self._waiting.put((step, future))
        await future

    def _run(self) -> None:
        connection = apsw.Connection(self._path)
        execute, many = connection.cursor().execute, connection.cursor().executemany
        for statement in ("pragma journal_mode = wal", "pragma synchronous = full", SCHEMA):
            list(execute(statement))
        while True:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            execute("begin immediate")
            for statement, rows in (
                (HISTORY, [row for step, _ in batch for row in step.history]),
                (INSTANCE, [row for step, _ in batch for row in step.instance]),
                (ACTIVITY, [row for step, _ in batch for row in step.activities]),
                (DONE, [row for step, _ in batch for row in step.done]),
            ):
                if rows:
                    many(statement, rows)
            execute("commit")
            self._loop.call_soon_threadsafe(self._tell, [future for _, future in batch])

    @staticmethod
    def _tell(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


async def noop(number: int) -> int:
    """The activity."""
    return number


async def accept(writer: Writer, name: str) -> None:
    """A start."""
    await writer.commit(
        Step(history=[(name, 0, CREATED, -1, encode(0))], instance=[(name, "chain", 0, None, time.time())])
    )


async def chain(writer: Writer, name: str, steps: int) -> None:
    """Activities in sequence; the result of one is committed with the schedule of the next."""
    await accept(writer, name)
    seq = itertools.count(1)
    step = Step()
    for number in range(steps):
        step.history.append((name, next(seq), SCHEDULED, number, encode(number)))
        step.instance.append((name, "chain", 1, None, time.time()))
        step.activities.append((name, number, encode(number)))
        await writer.commit(step)
        result = await noop(number)
        step = Step(history=[(name, next(seq), COMPLETED, number, encode(result))], done=[(name, number)])
    step.history.append((name, next(seq), ENDED, -1, encode(steps)))
    step.instance.append((name, "chain", 2, encode(steps), time.time()))
    await writer.commit(step)


async def fan_out(writer: Writer, name: str, width: int) -> None:
    """Activities at once, the result of each a step."""
    await accept(writer, name)
    await writer.commit(
        Step(
            history=[(name, 1 + number, SCHEDULED, number, encode(number)) for number in range(width)],
            instance=[(name, "fan_out", 1, None, time.time())],
            activities=[(name, number, encode(number)) for number in range(width)],
        )
    )
    seq = itertools.count(1 + width)

    async def one(number: int) -> None:
        result = await noop(number)
        await writer.commit(
            Step(
                history=[(name, next(seq), COMPLETED, number, encode(result))],
                instance=[(name, "fan_out", 1, None, time.time())],
                done=[(name, number)],
            )
        )

    await asyncio.gather(*(one(number) for number in range(width)))
    await writer.commit(
        Step(history=[(name, next(seq), ENDED, -1, b"0")], instance=[(name, "fan_out", 2, encode(width), time.time())])
    )


async def main() -> None:
    """The scenario that the options name."""
    given = options(__doc__)

    def done(measured: Measured, work: int, unit: str) -> None:
        report("bare_loop", given.scenario, measured, case=given.case, work=work, unit=unit)

    with scratch() as folder:
        writer = Writer(folder / "bare.db")
        await drive(10 * LANES, LANES, lambda number: chain(writer, f"w{number}", STEPS))
        if given.scenario == "chain":
            measured = await drive(given.count, LANES, lambda number: chain(writer, f"c{number}", STEPS))
            done(measured, given.count * STEPS, "activities/s")
        elif given.scenario == "latency":
            done(await drive(given.count, 1, lambda number: chain(writer, f"c{number}", 1)), given.count, "instances/s")
        elif given.scenario == "start":
            done(await drive(given.count, LANES, lambda number: accept(writer, f"s{number}")), given.count, "starts/s")
        else:
            measured = await drive(given.count, 1, lambda number: fan_out(writer, f"f{number}", given.width))
            done(measured, given.count * given.width, "activities/s")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is there, as Holdtrue."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(scenario)
    else:
        uvloop.run(scenario)


if __name__ == "__main__":
    run(main())
