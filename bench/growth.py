"""growth: start, run and query rate of a hub with no, 10⁵ and 10⁶ ended instances, with time-ordered and random ids.

The hubs are filled first, by running that many instances that end at once; then the rates of all hubs are taken in
turns, several rounds, so that what the machine does besides falls on all alike.  The lines give the middle round.
A query is the newest page of 100, of the completed and of the running instances (none) by turns.
"""

import asyncio
import uuid
from collections import defaultdict
from pathlib import Path

import holdtrue
from bench.measure import LANES, STEPS, Measured, drive, report, scratch
from bench.program import app, arguments, chain, nothing, run
from holdtrue.client.requests import StartSpec

BATCH = 2000
"""Instances of one `start_many` while filling."""


def new_id(order: str) -> str | None:
    """An id of this order: None, the client's own, is time-ordered."""
    return None if order == "time-ordered" else uuid.uuid4().hex


async def fill(hub: Path, order: str, instances: int) -> None:
    """Run so many instances to their end."""
    async with holdtrue.Host(app, str(hub)) as host:
        for first in range(0, instances, BATCH):
            count = min(BATCH, instances - first)
            specs = [StartSpec(orchestrator=nothing, input=0, instance_id=new_id(order)) for _ in range(count)]
            ids = await host.client.start_many(specs)
            await host.client.wait_for_completion(ids[-1])
        while (await host.client.info()).instances.get(holdtrue.Status.COMPLETED.name, 0) < instances:
            await asyncio.sleep(0.25)


async def rates(hub: Path, order: str, size: int) -> dict[str, tuple[Measured, int, str]]:
    """The three rates of a hub, each with its work and unit."""
    async with holdtrue.Client(str(hub), app=app) as client:

        async def start(number: int) -> None:
            await client.start(nothing, input=0, instance_id=new_id(order))

        await drive(2 * LANES, LANES, start)
        started = await drive(4 * size, LANES, start)
    async with holdtrue.Host(app, str(hub)) as host:
        while (await host.client.info()).instances.get(holdtrue.Status.PENDING.name, 0):
            await asyncio.sleep(0.1)

        async def one(number: int) -> None:
            instance_id = await host.client.start(chain, input=STEPS, instance_id=new_id(order))
            await host.client.wait_for_completion(instance_id)

        async def page(number: int) -> None:
            status = holdtrue.Status.COMPLETED if number % 2 else holdtrue.Status.RUNNING
            await host.client.query_page(statuses={status}, newest_first=True, page_size=100)

        await drive(2 * LANES, LANES, one)
        ran = await drive(size, LANES, one)
        asked = await drive(max(1, size // 4), 1, page)
    return {
        "start": (started, 4 * size, "starts/s"),
        "run": (ran, size * STEPS, "activities/s"),
        "query": (asked, max(1, size // 4), "pages/s"),
    }


async def main(small: int, large: int, rounds: int, size: int) -> None:
    """Fill, measure in turns, report the middle round."""
    with scratch() as folder:
        hubs = {
            (order, level): folder / f"{order}-{level}.db"
            for order in ("time-ordered", "random")
            for level in (0, small, large)
        }
        for (order, level), hub in hubs.items():
            await fill(hub, order, level)
        seen: dict[tuple[str, str, int], list[tuple[Measured, int, str]]] = defaultdict(list)
        for turn in range(rounds):
            for (order, level), hub in hubs.items():
                if level == 0:  # a new one each time: what is measured fills it
                    hub = folder / f"{order}-new-{turn}.db"
                for rate, taken in (await rates(hub, order, size)).items():
                    seen[rate, order, level].append(taken)
    for (rate, order, level), rounds_of_it in seen.items():
        in_order = sorted(rounds_of_it, key=lambda one: one[0].seconds)
        measured, work, unit = in_order[len(in_order) // 2]
        report("holdtrue", "growth", measured, case=f"{rate}, {order} ids, {level} instances", work=work, unit=unit)


if __name__ == "__main__":
    given = arguments(__doc__, small=100_000, large=1_000_000, rounds=5, size=1000)
    run(main(given.small, given.large, given.rounds, given.size))
