"""replay_check: 10,000 recorded histories of 20 events checked against code that fits, and written into a file."""

import asyncio
from datetime import timedelta

import holdtrue
from bench.measure import report, report_value, scratch, stopwatch
from bench.program import WrongResult, arguments, run
from holdtrue.client.requests import StartSpec
from holdtrue.testing.history_files import read_histories, write_histories
from holdtrue.testing.recorded import Selection, selected
from holdtrue.testing.replay_check import check_replay

EVENTS = 20

app = holdtrue.App()


@app.activity
async def step(ctx: holdtrue.ActivityContext, number: int) -> int:
    """The activity that does nothing."""
    return number


@app.orchestrator
async def four_steps(ctx: holdtrue.OrchestrationContext, number: int) -> None:
    """Four activities, then a wait for what never comes: 20 events."""
    for _ in range(4):
        await ctx.call_activity(step, input=number)
    await ctx.create_timer(timedelta(days=365))


async def record(hub: str, histories: int) -> None:
    """Run so many instances up to their wait."""
    async with holdtrue.Host(app, hub) as host:
        for first in range(0, histories, 1000):
            count = min(1000, histories - first)
            await host.client.start_many([StartSpec(orchestrator=four_steps, input=n) for n in range(count)])
        waiting = 0
        while waiting < histories:
            await asyncio.sleep(0.25)
            waiting = sum([one.history_size == EVENTS async for one in host.client.query()])


async def main(histories: int) -> None:
    """Record them; check them in the hub; write them into a file and read it again."""
    with scratch() as folder:
        hub, file = str(folder / "hub.db"), folder / "histories.jsonl.gz"
        await record(hub, histories)
        with stopwatch() as measured:
            checked = await asyncio.to_thread(check_replay, app, hub)
        if checked.checked != histories or not checked.ok:
            raise WrongResult(str(checked)[:300])
        case = f"{histories} histories of {EVENTS} events"
        report("holdtrue", "replay_check", measured, case="check", work=histories, unit="histories/s")
        report_value("holdtrue", "replay_check", measured.seconds, case=case, unit="s")
        store = holdtrue.Client(hub).store
        await store.open()
        with stopwatch() as measured:
            copies = [copy async for some in selected(store, Selection()) for copy in some]
            write_histories(file, copies)
        await store.close()
        report("holdtrue", "replay_check", measured, case="export", work=histories, unit="histories/s")
        with stopwatch() as measured:
            read = read_histories(file)
        if len(read.instances) != histories:
            raise WrongResult(f"{histories} were written, {len(read.instances)} were read")
        report("holdtrue", "replay_check", measured, case="read a file", work=histories, unit="histories/s")


if __name__ == "__main__":
    run(main(arguments(__doc__, histories=10_000).histories))
