"""waiting_memory: the memory of a worker's process while 100,000 instances wait for an event."""

import asyncio

import holdtrue
from bench.measure import report, report_value, scratch, stopwatch
from bench.program import app, arguments, run, waiting
from bench.worker import peak_mb, resident_mb
from holdtrue.client.requests import StartSpec


async def main(instances: int) -> None:
    """Start them all on one worker and see how much it holds when every one of them waits."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db")) as host:
            before = resident_mb()
            with stopwatch() as measured:
                for first in range(0, instances, 1000):
                    count = min(1000, instances - first)
                    await host.client.start_many([StartSpec(orchestrator=waiting) for _ in range(count)])
                while (await host.client.info()).instances.get(holdtrue.Status.RUNNING.name, 0) < instances:
                    await asyncio.sleep(0.25)
            await asyncio.sleep(1)
            report("holdtrue", "waiting_memory", measured, case="until they wait", work=instances, unit="instances/s")
            report_value(
                "holdtrue",
                "waiting_memory",
                resident_mb(),
                case=f"{instances} wait",
                unit="MB",
                before_mb=round(before, 1),
                peak_mb=round(peak_mb(), 1),
            )


if __name__ == "__main__":
    run(main(arguments(__doc__, instances=100_000).instances))
