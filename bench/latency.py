"""latency: one orchestration of one activity at a time, from start to its result; p50 and p99."""

import holdtrue
from bench.measure import drive, report, scratch
from bench.program import app, arguments, chain, run, run_to_end


async def main(instances: int) -> None:
    """One worker with its client in the same process."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db")) as host:

            async def one(number: int) -> None:
                await run_to_end(host.client, chain, 1, 1)

            await drive(50, 1, one)
            measured = await drive(instances, 1, one)
    report("holdtrue", "latency", measured, work=instances, unit="instances/s")


if __name__ == "__main__":
    run(main(arguments(__doc__, instances=1000).instances))
