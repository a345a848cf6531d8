"""chain: 5 no-op activities in sequence, 32 orchestrations at a time; activities a second."""

import holdtrue
from bench.measure import LANES, STEPS, drive, report, scratch
from bench.program import app, arguments, chain, run, run_to_end


async def main(instances: int) -> None:
    """One worker with its client in the same process."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db")) as host:

            async def one(number: int) -> None:
                await run_to_end(host.client, chain, STEPS, STEPS)

            await drive(10 * LANES, LANES, one)
            measured = await drive(instances, LANES, one)
    report("holdtrue", "chain", measured, work=instances * STEPS, unit="activities/s")


if __name__ == "__main__":
    run(main(arguments(__doc__, instances=4000).instances))
