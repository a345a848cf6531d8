"""A schedule on the wall clock of a zone: its next runs by its definition, and a run at once.

Prints:
    Thursday 06:30, Friday 06:30, Saturday 06:30
    started
    COMPLETED good morning
    skipped: the run before it has not ended
"""

import asyncio
import tempfile
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import holdtrue

app = holdtrue.App()
vienna = ZoneInfo("Europe/Vienna")


@app.orchestrator
async def wake(ctx: holdtrue.OrchestrationContext) -> str:
    await ctx.wait_for_external_event("up")
    return "good morning"


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with holdtrue.Host(app, f"{directory}/hub.db") as host:
            schedules = host.client.schedules
            await schedules.create(
                "alarm", wake, cron="0 30 6 * * *", time_zone="Europe/Vienna", instance_id="wake",
                start_at=datetime(2099, 1, 1, tzinfo=UTC),
            )  # fmt: skip
            runs = await schedules.next_runs("alarm", 3)
            print(", ".join(f"{run.astimezone(vienna):%A %H:%M}" for run in runs))
            print((await schedules.trigger("alarm")).decision)
            second = await schedules.trigger("alarm")
            await host.client.raise_event("wake", "up")
            status = await host.client.wait_for_completion("wake")
            print(status.runtime_status.name, status.output)
            print(f"{second.decision}: the run before it has not ended")


if __name__ == "__main__":
    asyncio.run(main())
