"""DBOS on its default SQLite file, in one process with its default settings.

chain, latency: the workflow is awaited; fanout: one workflow gathers its steps; start: enqueued on a queue that nobody
drains (the durable accept alone).
"""

import asyncio

from dbos import DBOS, DBOSClient

from bench.measure import LANES, STEPS, Measured, drive, report, scratch
from bench.peers.options import options


@DBOS.step()
async def noop(number: int) -> int:
    """The activity."""
    return number


@DBOS.workflow()
async def chain(steps: int) -> int:
    """Steps in sequence."""
    for number in range(steps):
        await noop(number)
    return steps


@DBOS.workflow()
async def fan_out(width: int) -> int:
    """Steps at once."""
    return sum(await asyncio.gather(*(noop(number) for number in range(width))))


async def main(url: str) -> None:
    """The scenario that the options name."""

    def done(measured: Measured, work: int, unit: str) -> None:
        report("dbos", given.scenario, measured, case=given.case, work=work, unit=unit)

    if given.scenario == "start":
        client = DBOSClient(system_database_url=url)
        where = {"queue_name": "nobody", "workflow_name": chain.__qualname__}
        await client.enqueue_async(where, 1)
        done(await drive(given.count, LANES, lambda number: client.enqueue_async(where, 1)), given.count, "starts/s")
        return
    await drive(5, 1, lambda number: chain(STEPS))
    if given.scenario == "chain":
        done(await drive(given.count, LANES, lambda number: chain(STEPS)), given.count * STEPS, "activities/s")
    elif given.scenario == "latency":
        done(await drive(given.count, 1, lambda number: chain(1)), given.count, "instances/s")
    else:
        measured = await drive(given.count, 1, lambda number: fan_out(given.width))
        done(measured, given.count * given.width, "activities/s")


if __name__ == "__main__":
    given = options(__doc__)
    with scratch() as folder:
        database = f"sqlite:///{folder}/dbos.sqlite"
        DBOS(config={"name": "bench", "system_database_url": database, "log_level": "ERROR"})
        DBOS.launch()
        asyncio.run(main(database))
        DBOS.destroy()
