"""idle: the CPU that an idle worker takes, alone on its hub and beside another one; percent of a core."""

import asyncio
import time

import holdtrue
from bench.measure import report_value, scratch
from bench.program import app, arguments, chain, run, run_to_end
from bench.worker import WorkerProcess, cpu_seconds


async def idle(seconds: float) -> float:
    """Percent of a core that this process and its children take while nothing happens."""
    await asyncio.sleep(2)
    cpu, began = cpu_seconds(), time.perf_counter()
    await asyncio.sleep(seconds)
    return 100 * (cpu_seconds() - cpu) / (time.perf_counter() - began)


async def main(seconds: float) -> None:
    """A worker that has run something, and then nothing; then the same while another one is idle beside it."""
    with scratch() as folder:
        hub = folder / "hub.db"
        async with holdtrue.Host(app, str(hub)) as host:
            await run_to_end(host.client, chain, 5, 5)
            report_value("holdtrue", "idle", await idle(seconds), case="alone", unit="% of a core", seconds=seconds)
        with WorkerProcess("bench.program", hub) as other:
            other.go()
            other.begun()
            async with holdtrue.Host(app, str(hub)):
                both = await idle(seconds)
            other.stop()
        report_value("holdtrue", "idle", both / 2, case="each of two", unit="% of a core", seconds=seconds)


if __name__ == "__main__":
    run(main(arguments(__doc__, seconds=10.0).seconds))
