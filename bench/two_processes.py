"""two_processes: a prefilled backlog of chains drained by one worker process and by two on one file.

The rate counts from the word `go`, given when all processes have started, to the last instance's completion.  The
latency is that of a commit as an instance sees it: from the end of one of its activities to the start of its next.
"""

import asyncio
import time
from pathlib import Path

import holdtrue
from bench.measure import STEPS, Measured, percentile, report, scratch
from bench.program import arguments, run
from bench.worker import WorkerProcess
from holdtrue.client.requests import StartSpec

app = holdtrue.App()
_ended: dict[str, float] = {}
_gaps: list[float] = []


@app.activity
async def timed_step(ctx: holdtrue.ActivityContext, number: int) -> int:
    """The activity that does nothing but note how long its instance waited for it."""
    now = time.perf_counter()
    if number:
        before = _ended.get(ctx.orchestration_id)
        if before is not None:
            _gaps.append(now - before)
    if number == STEPS - 1:
        _ended.pop(ctx.orchestration_id, None)
    else:
        _ended[ctx.orchestration_id] = time.perf_counter()
    return number


@app.orchestrator
async def timed_chain(ctx: holdtrue.OrchestrationContext, steps: int) -> int:
    """So many activities, one after the other."""
    for number in range(steps):
        await ctx.call_activity(timed_step, input=number)
    return steps


def summary() -> list[float]:
    """What a worker process tells at its end: the seconds that instances waited between two activities."""
    return _gaps


async def prefill(hub: Path, instances: int) -> None:
    """The backlog; nothing runs it."""
    async with holdtrue.Client(str(hub), app=app) as client:
        for first in range(0, instances, 1000):
            count = min(1000, instances - first)
            await client.start_many([StartSpec(orchestrator=timed_chain, input=STEPS) for _ in range(count)])


async def drain(hub: Path, instances: int, processes: int) -> tuple[Measured, list[int]]:
    """Let so many worker processes empty the hub; what it took, and the steps that each of them timed."""
    workers = [WorkerProcess("bench.two_processes", hub) for _ in range(processes)]
    try:
        measured = Measured()
        began = time.time()
        for worker in workers:
            worker.go()
        for worker in workers:
            worker.begun()
        async with holdtrue.Client(str(hub), app=app) as client:
            while (await client.info()).instances.get(holdtrue.Status.COMPLETED.name, 0) < instances:
                await asyncio.sleep(0.25)
            ended = 0.0
            async for status in client.query(page_size=1000):
                assert status.completed_at is not None
                ended = max(ended, status.completed_at.timestamp())
        measured.seconds = ended - began
        gaps = [worker.stop() for worker in workers]
    finally:
        for worker in workers:
            worker.__exit__()
    measured.samples = [gap for worker_gaps in gaps for gap in worker_gaps]
    return measured, [len(worker_gaps) for worker_gaps in gaps]


async def main(instances: int) -> None:
    """One process, then two, each on a backlog of its own."""
    for processes in (1, 2):
        with scratch() as folder:
            await prefill(folder / "hub.db", instances)
            measured, shares = await drain(folder / "hub.db", instances, processes)
        report(
            "holdtrue",
            "two_processes",
            measured,
            case=f"{processes} process{'es' if processes > 1 else ''}",
            work=instances * STEPS,
            unit="activities/s",
            timed_steps=shares,
            max_ms=percentile(measured.samples, 1.0),
        )


if __name__ == "__main__":
    run(main(arguments(__doc__, instances=8000).instances))
