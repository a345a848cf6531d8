"""What is due at a time happens at that time, whoever asked for it."""

from datetime import timedelta
from pathlib import Path

import pytest

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import TIMEOUT, outcome, run, until

from .hosting import ended, host


def make_app() -> holdtrue.App:
    app = holdtrue.App()

    @app.orchestrator
    async def naps(ctx: holdtrue.OrchestrationContext, seconds: float) -> str:
        await ctx.create_timer(timedelta(seconds=seconds))
        return "awake"

    return app


@pytest.mark.parametrize("asked_by", ["this process", "this process, many", "another client"])
@pytest.mark.parametrize("what", ["start", "deadline", "deadline before a start"])
def test_a_start_or_deadline_is_on_time_whoever_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, asked_by: str
) -> None:
    """Everything pending is stored and comes at its time, not at the next look at storage (class 10)."""
    monkeypatch.setattr("holdtrue.host.SAFETY_LOOK_SECONDS", 10 * TIMEOUT)
    soon, late = timedelta(seconds=0.3), timedelta(hours=1)
    options = {
        "start": {"start_at": soon},
        "deadline": {"deadline": soon},
        "deadline before a start": {"deadline": soon, "start_at": late},
    }[what]
    seconds = 0 if what == "start" else 3_600

    async def main() -> None:
        async with host(make_app(), tmp_path) as running, holdtrue.Client(tmp_path / "hub.db") as outside:
            await outcome(running.client, await running.client.start("naps", input=0))
            if asked_by == "another client":
                i = await outside.start("naps", input=seconds, **options)
            elif asked_by == "this process":
                i = await running.client.start("naps", input=seconds, **options)
            else:
                spec = holdtrue.StartSpec(orchestrator="naps", input=seconds, **options)
                i, _ = await running.client.start_many([spec, spec])
            status = await ended(running.client, i, Status.COMPLETED if what == "start" else Status.FAILED)
            if what != "start":
                assert status.failure is not None and "Deadline" in status.failure.error_type

    run(main())


def test_timers_of_a_host_that_has_left_are_on_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker had in hand comes back when it goes, its timers in time too (class 5)."""
    monkeypatch.setattr("holdtrue.host.SAFETY_LOOK_SECONDS", 10 * TIMEOUT)

    async def main() -> None:
        one, two = host(make_app(), tmp_path), host(make_app(), tmp_path)
        async with two:
            async with one:
                i = await one.client.start("naps", input=1.0)
                await until(lambda: begun(one.client, i), "the timer")
            assert await outcome(two.client, i) == "awake"

    async def begun(client: holdtrue.Client, i: str) -> bool:
        return (await client.get_status(i)).history_size >= 4

    run(main())
