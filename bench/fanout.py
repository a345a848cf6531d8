"""fanout: one orchestration, many no-op activities at once; activities a second."""

import resource

import holdtrue
from bench.measure import drive, report, scratch
from bench.program import app, arguments, fan_out, run, run_to_end


async def main(width: int, repeat: int) -> None:
    """Fan-outs of one width, one after the other."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db")) as host:

            async def one(number: int) -> None:
                await run_to_end(host.client, fan_out, width, width * (width - 1) // 2)

            await run_to_end(host.client, fan_out, 100, 4950)
            measured = await drive(repeat, 1, one)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report(
        "holdtrue",
        "fanout",
        measured,
        case=str(width),
        work=width * repeat,
        unit="activities/s",
        width=width,
        peak_mb=peak,
    )


if __name__ == "__main__":
    given = arguments(__doc__, width=1000, repeat=10)
    run(main(given.width, given.repeat))
