"""What a run reported by heartbeat goes with its failure, and to the next run wherever it is."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.core.actions import ActivityOptions
from holdtrue.core.retry import DETAILS_PROPERTY, MAX_DETAILS

from .bench import Bench, ManualEnvironment, failure, result, settle, with_bench
from .cpu_app import app as cpu_app


def make_app() -> App:
    app = App(max_payload=1_000_000)

    @app.activity
    async def reports(ctx: Any, how: str) -> Any:
        seen = ctx.details
        if how == "nothing":
            raise ValueError(how)
        ctx.heartbeat({"at": 5})
        ctx.heartbeat()
        if how == "raises":
            raise ValueError(how)
        if how == "hangs":
            await asyncio.sleep(1_000)
        return seen

    @app.activity
    def reports_in_thread(ctx: Any, how: str) -> Any:
        ctx.heartbeat({"at": 5})
        raise ValueError(how)

    @app.activity
    async def too_much(ctx: Any, size: int) -> Any:
        ctx.heartbeat("x" * size)
        return "reported"

    return app


@pytest.mark.parametrize("name", ["reports", "reports_in_thread"])
def test_a_failure_carries_what_its_run_reported(name: str) -> None:
    async def test(bench: Bench) -> None:
        failed = failure(await bench.run(name, '"raises"'))
        assert failed.error_type == "builtins.ValueError" and failed.properties == {DETAILS_PROPERTY: '{"at":5}'}

    with_bench(make_app(), test)


def test_a_failure_carries_on_what_an_attempt_before_reported() -> None:
    async def test(bench: Bench) -> None:
        before = ActivityOptions(attempt=2, details='{"at":4}')
        assert result(await bench.run("reports", '"returns"', options=before)) == '{"at":4}'
        failed = failure(await bench.run("reports", '"nothing"', options=before))
        assert failed.properties == {DETAILS_PROPERTY: '{"at":4}'}
        # What a run of this attempt reported is newer than what the attempt before did.
        assert result(await bench.run("reports", '"returns"', options=before, details="[1]")) == "[1]"
        assert failure(await bench.run("reports", '"nothing"')).properties is None

    with_bench(make_app(), test)


def test_time_outs_carry_it_too() -> None:
    async def test(bench: Bench) -> None:
        environment = bench.environment
        assert isinstance(environment, ManualEnvironment)
        bench.submit("reports", '"hangs"', options=ActivityOptions(heartbeat=5))
        bench.submit("reports", '"hangs"', options=ActivityOptions(start_to_close=5))
        late = ActivityOptions(schedule_to_start=1, details='{"at":3}')
        await settle()
        bench.submit("reports", '"hangs"', options=late, scheduled_at=1)
        await environment.advance(6)
        await bench.until(lambda: len(bench.told) == 3)
        told = dict(bench.told)
        for number, limit, details in (
            (1, "heartbeat", '{"at":5}'),
            (2, "start_to_close", '{"at":5}'),
            (3, "schedule_to_start", '{"at":3}'),
        ):
            properties = failure(told[number]).properties
            assert (properties["timeout"], properties[DETAILS_PROPERTY]) == (limit, details)

    with_bench(make_app(), test, environment=ManualEnvironment())


def test_details_have_a_bound() -> None:
    async def test(bench: Bench) -> None:
        assert result(await bench.run("too_much", str(MAX_DETAILS - 2))) == '"reported"'
        failed = failure(await bench.run("too_much", str(MAX_DETAILS - 1)))
        assert failed.error_type == "holdtrue.PayloadTooLarge" and failed.properties is None
        assert "'too_much' of instance 'order-1'" in failed.message and "65537 bytes" in failed.message

    with_bench(make_app(), test)


def test_a_run_after_the_death_of_its_process_goes_on_from_what_it_reported(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.submit("dies_on_the_way", json.dumps(str(tmp_path)))
        await bench.until(lambda: len(bench.reports) == 1)
        (tmp_path / "go").touch()
        await bench.until(lambda: len(bench.told) == 1)
        assert result(bench.told[0][1]) == '[{"step":1},2]'
        failed = failure(await bench.run("reports_and_fails"))
        assert failed.properties == {DETAILS_PROPERTY: '"far"'}

    with_bench(cpu_app, test, processes=1)


def test_a_thread_that_goes_on_after_its_time_out_reports_to_nobody() -> None:
    app = App()
    go = threading.Event()

    @app.activity(start_to_close=0.05)
    def deaf(ctx: Any) -> None:
        ctx.heartbeat(1)
        go.wait(30)
        ctx.heartbeat(2)

    async def test(bench: Bench) -> None:
        failed = failure(await bench.run("deaf"))
        assert failed.properties is not None and failed.properties[DETAILS_PROPERTY] == "1"
        go.set()
        await bench.idle()
        assert {details for _, _, details in bench.reports} <= {"1"} and len(bench.told) == 1

    with_bench(app, test)
