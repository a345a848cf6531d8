"""The job itself: the app, its one orchestration, its activities.

`python -m examples.every_minute.job DIRECTORY` is a worker on the hub in that directory, until SIGTERM.
A schedule starts `load_next_month` each second under one fixed id, unless it still runs.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import msgspec

import holdtrue

from . import tables, weather

INSTANCE = "load-next-month"
SCHEDULE = "every-second"

app = holdtrue.App()


def hub_file(directory: Path) -> Path:
    """The task hub of a run."""
    return directory / "hub.db"


def table_file(directory: Path) -> Path:
    """The job's own tables."""
    return directory / "report.db"


def _tables() -> Path:
    return table_file(Path(os.environ["EVERY_MINUTE_DIRECTORY"]))


class StationBusy(Exception):
    """The weather station does not answer yet; it does at the third attempt."""


@app.activity
def begin_next_month(ctx: holdtrue.ActivityContext, execution: str) -> str | None:
    """Choose the first month without a report and log the attempt, in one transaction."""
    return tables.begin(_tables(), execution, list(weather.months()))


@app.activity
def list_days(ctx: holdtrue.ActivityContext, month: str) -> list[str]:
    """The dates of a month."""
    return weather.months()[month]


@app.activity
def load_day(ctx: holdtrue.ActivityContext, date: str) -> weather.Day:
    """One day's record; the archive takes a tenth of a second to find it."""
    time.sleep(0.1)
    return weather.days()[date]


@app.activity
def ask_station(ctx: holdtrue.ActivityContext, month: str) -> str:
    """Fails twice, and answers at the third attempt."""
    if ctx.attempt < 3:
        raise StationBusy(f"attempt {ctx.attempt} for {month}: the station is busy")
    return f"confirmed at attempt {ctx.attempt}"


class Report(msgspec.Struct, frozen=True):
    """A month's figures, and the execution that made them."""

    execution: str
    figures: weather.Figures


@app.activity
def write_report(ctx: holdtrue.ActivityContext, report: Report) -> bool:
    """Write the month's row; doing it again changes nothing."""
    return tables.finish(_tables(), report.execution, report.figures)


@app.orchestrator
async def load_next_month(ctx: holdtrue.OrchestrationContext) -> str:
    """Load the first month that has no report yet."""
    ctx.set_custom_status({"step": "choosing a month"})
    month = await ctx.call_activity(begin_next_month, input=ctx.execution_id)
    if month is None:
        return "nothing left to load"

    dates = await ctx.call_activity(list_days, input=month)
    ctx.set_custom_status({"month": month, "step": "loading", "days": len(dates)})
    days = await holdtrue.when_all([ctx.call_activity(load_day, input=date) for date in dates])

    ctx.set_custom_status({"month": month, "step": "asking the station"})
    soon = holdtrue.RetryPolicy(first_retry_interval=timedelta(milliseconds=150), max_number_of_attempts=5)
    await ctx.call_activity(ask_station, input=month, retry_policy=soon)

    ctx.set_custom_status({"month": month, "step": "settling"})
    await ctx.create_timer(timedelta(milliseconds=600))

    ctx.set_custom_status({"month": month, "step": "writing the report"})
    await ctx.call_activity(write_report, input=Report(ctx.execution_id, weather.summarize(month, days)))
    ctx.set_custom_status({"month": month, "step": "done"})
    return month


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    os.environ["EVERY_MINUTE_DIRECTORY"] = str(directory)
    settings = holdtrue.HostSettings(name=os.environ.get("EVERY_MINUTE_WORKER", ""), own_process=True)
    holdtrue.run(app, str(hub_file(directory)), settings=settings)
