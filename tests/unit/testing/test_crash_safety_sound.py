"""`check_crash_safety` has nothing to say of programs that are right, with a probe and without one."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

import holdtrue
from holdtrue.testing.crash_safety import check_crash_safety

app = holdtrue.App()
done: dict[str, int] = {}


@app.activity
def pay(ctx: holdtrue.ActivityContext, amount: int) -> int:
    return done.setdefault(ctx.idempotency_key, amount)


@app.activity
async def pay_slowly(ctx: holdtrue.ActivityContext, amount: int) -> int:
    await asyncio.sleep(5)
    done.setdefault(ctx.idempotency_key, amount)
    await asyncio.sleep(5)
    return amount


@app.activity
def pay_at_last(ctx: holdtrue.ActivityContext, amount: int) -> int:
    if ctx.attempt < 3:
        raise ValueError("not yet")
    return done.setdefault(ctx.idempotency_key, amount)


@app.orchestrator
async def chain(ctx: holdtrue.OrchestrationContext, count: int) -> int:
    paid = 0
    for amount in range(count):
        paid += await ctx.call_activity(pay, input=amount)
    return paid


@app.orchestrator
async def fan_out(ctx: holdtrue.OrchestrationContext, count: int) -> list[int]:
    return await holdtrue.when_all([ctx.call_activity(pay_slowly, input=amount) for amount in range(count)])


@app.orchestrator
async def children(ctx: holdtrue.OrchestrationContext, count: int) -> list[Any]:
    some = [ctx.call_sub_orchestrator(fan_out, input=count), ctx.call_sub_orchestrator(chain, input=count)]
    return [await holdtrue.when_all(some), await ctx.call_sub_orchestrator(chain, input=1)]


@app.orchestrator
async def approval(ctx: holdtrue.OrchestrationContext, days: int) -> str:
    answer = ctx.wait_for_external_event("approved", data_type=str)
    late = ctx.create_timer(timedelta(days=days))
    if await holdtrue.when_any([answer, late]) is late:
        return "nobody answered"
    late.cancel()
    await ctx.call_activity(pay, input=3)
    return answer.get_result()


@app.orchestrator
async def month(ctx: holdtrue.OrchestrationContext, amount: int) -> int:
    await ctx.create_timer(timedelta(days=30))
    return await ctx.call_activity(pay, input=amount)


@app.orchestrator
async def retried(ctx: holdtrue.OrchestrationContext, amount: int) -> int:
    policy = holdtrue.RetryPolicy(first_retry_interval=timedelta(minutes=10), max_number_of_attempts=5)
    return await ctx.call_activity(pay_at_last, input=amount, retry_policy=policy)


@app.orchestrator
async def generations(ctx: holdtrue.OrchestrationContext, number: int) -> list[Any] | None:
    await ctx.call_activity(pay, input=number)
    if number < 3:
        ctx.continue_as_new(number + 1)
        return None
    return [number, ctx.execution_id, ctx.new_uuid(), str(ctx.current_utc_datetime)]


@app.orchestrator
def generator(ctx: holdtrue.OrchestrationContext, amount: int) -> Any:
    paid = yield ctx.call_activity(pay, input=amount)
    drawn = ctx.random().random()
    yield ctx.create_timer(timedelta(seconds=1))
    return [paid, drawn]


@app.orchestrator
async def compensated(ctx: holdtrue.OrchestrationContext, amount: int) -> None:
    paid = await ctx.call_activity(pay, input=amount)
    try:
        await ctx.call_activity(pay_at_last, input=amount)
    except holdtrue.TaskFailedError:
        await ctx.call_activity(pay, input=-paid)
        raise


async def answer_after_days(client: holdtrue.Client, instance_id: str) -> None:
    await asyncio.sleep(3 * 86_400)
    await client.raise_event(instance_id, "approved", "Grace")


CASES: list[tuple[Any, int, dict[str, Any]]] = [
    (chain, 4, {}),
    (fan_out, 3, {}),
    (children, 2, {}),
    (approval, 30, {"events": [("approved", "Ada")]}),
    (approval, 30, {"drive": answer_after_days}),
    (approval, 30, {}),
    (month, 3, {}),
    (retried, 3, {}),
    (generations, 0, {}),
    (generator, 3, {}),
    (compensated, 3, {}),
]


@pytest.mark.parametrize("probed", [False, True], ids=["by key", "by state"])
@pytest.mark.parametrize(("orchestration", "given", "more"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_sound_program_is_judged_safe(orchestration: Any, given: int, more: dict[str, Any], probed: bool) -> None:
    if probed:
        more = {**more, "state": lambda: dict(done), "reset": done.clear}
    report = check_crash_safety(app, orchestration, given, **more)
    assert report.ok, report
    assert report.runs > 10
    done.clear()


def test_what_a_timer_decides_is_noted_and_no_finding() -> None:
    @app.orchestrator
    async def bounded(ctx: holdtrue.OrchestrationContext, amount: int) -> str:
        work = ctx.call_activity(pay_slowly, input=amount)
        late = ctx.create_timer(timedelta(hours=1))
        if await holdtrue.when_any([work, late]) is late:
            return "too late"
        late.cancel()
        return "in time"

    report = check_crash_safety(app, bounded, 3)
    assert report.ok, report
    assert [note for note in report.notes if '"too late" instead of "in time"' in note]


def test_a_chain_of_ten_takes_seconds_and_every_kind_is_tried() -> None:
    began = time.process_time()
    report = check_crash_safety(app, chain, 10)
    assert report.ok, report
    assert report.runs > 50
    assert time.process_time() - began < 30, "far more than it takes"
    done.clear()
