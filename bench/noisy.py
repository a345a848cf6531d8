"""noisy: the chain while one CPU-bound synchronous activity runs in the same process, and the quiet rate beside it.

The host owns its process, as one of `holdtrue.run` does: it may shorten the interpreter's switch interval.
"""

import asyncio

import holdtrue
from bench.measure import LANES, STEPS, drive, drive_for, report, scratch
from bench.program import app, arguments, busy, chain, run, run_to_end

OWN = holdtrue.HostSettings(own_process=True)


async def main(seconds: float) -> None:
    """A quiet stretch, then one of the same length in the shadow of the busy activity."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db"), settings=OWN) as host:

            async def one(number: int) -> None:
                await run_to_end(host.client, chain, STEPS, STEPS)

            await drive(10 * LANES, LANES, one)
            quiet = await drive_for(seconds, LANES, one)
            noise = await host.client.start(busy, input=2 * seconds + 1)
            await asyncio.sleep(0.5)
            noisy = await drive_for(seconds, LANES, one)
            still = await host.client.get_status(noise)
            if still is None or still.runtime_status is not holdtrue.Status.RUNNING:
                raise RuntimeError("the busy activity ended before the measurement: nothing was measured")
            ended = await host.client.wait_for_completion(noise)
            if ended.runtime_status is not holdtrue.Status.COMPLETED:
                raise RuntimeError(f"the busy activity ended as {ended.runtime_status}: {ended.failure}")
    for case, measured in (("quiet", quiet), ("busy", noisy)):
        report("holdtrue", "noisy", measured, case=case, work=len(measured.samples) * STEPS, unit="activities/s")


if __name__ == "__main__":
    run(main(arguments(__doc__, seconds=2.0).seconds))
