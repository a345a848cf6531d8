"""start: instances durably accepted, 32 at a time, while nothing runs them and while a worker does; starts a second."""

import holdtrue
from bench.measure import LANES, Measured, drive, report, scratch
from bench.program import WrongResult, app, arguments, nothing, run


async def accept(client: holdtrue.Client, starts: int) -> Measured:
    """So many starts, each with an id that the client makes."""

    async def one(number: int) -> None:
        await client.start(nothing, input=number)

    await drive(10 * LANES, LANES, one)
    return await drive(starts, LANES, one)


async def quiet(hub: str, starts: int) -> None:
    """A client alone; afterwards all instances are there."""
    async with holdtrue.Client(hub) as client:
        measured = await accept(client, starts)
        info = await client.info()
    if sum(info.instances.values()) != starts + 10 * LANES:
        raise WrongResult(
            f"{starts + 10 * LANES} starts were accepted, {sum(info.instances.values())} instances are there"
        )
    report("holdtrue", "start", measured, case="nothing runs them", work=starts, unit="starts/s")


async def served(hub: str, starts: int) -> None:
    """The client of a worker that runs them; `unfinished`: how many were still to run when a last one had ended."""
    async with holdtrue.Host(app, hub) as host:
        measured = await accept(host.client, starts)
        last = await host.client.start(nothing, input=0)
        await host.client.wait_for_completion(last)
        info = await host.client.info()
    report(
        "holdtrue",
        "start",
        measured,
        case="a worker runs them",
        work=starts,
        unit="starts/s",
        unfinished=sum(count for status, count in info.instances.items() if status != holdtrue.Status.COMPLETED.name),
    )


async def main(starts: int) -> None:
    """Both cases, each on a hub of its own."""
    with scratch() as folder:
        await quiet(str(folder / "quiet.db"), starts)
        await served(str(folder / "served.db"), starts)


if __name__ == "__main__":
    run(main(arguments(__doc__, starts=10000).starts))
