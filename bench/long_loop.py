"""long_loop: one orchestration of 10,000 steps; the time of its last 1,000 against that of its first 1,000."""

import time

import holdtrue
from bench.measure import report, report_value, scratch, stopwatch
from bench.program import arguments, run, run_to_end

app = holdtrue.App()
times: list[float] = []


@app.activity
async def mark(ctx: holdtrue.ActivityContext, number: int) -> int:
    """Note when the step ran."""
    times.append(time.perf_counter())
    return number


@app.orchestrator
async def loop(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    """So many steps."""
    total = 0
    for number in range(steps):
        total += await ctx.call_activity(mark, input=number)
    return total


async def main(steps: int) -> None:
    """One instance, alone."""
    with scratch() as folder:
        async with holdtrue.Host(app, str(folder / "hub.db")) as host:
            await run_to_end(host.client, loop, 100, 4950)
            times.clear()
            with stopwatch() as measured:
                await run_to_end(host.client, loop, steps, steps * (steps - 1) // 2)
    part = steps // 10
    first, last = times[part] - times[0], times[-1] - times[-1 - part]
    report("holdtrue", "long_loop", measured, case=str(steps), work=steps, unit="steps/s")
    report_value(
        "holdtrue",
        "long_loop",
        last / first,
        case="last ÷ first",
        unit="ratio",
        first_seconds=round(first, 4),
        last_seconds=round(last, 4),
    )


if __name__ == "__main__":
    run(main(arguments(__doc__, steps=10000).steps))
