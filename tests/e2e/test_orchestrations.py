"""Orchestrations end to end on one host: the behaviours of the family's suites that apply to an embedded hub."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from hubs import TIMEOUT, outcome, run, until

import holdtrue
from holdtrue import Status


def make_app() -> holdtrue.App:
    app = holdtrue.App()

    @app.activity
    async def inc(ctx: holdtrue.ActivityContext, n: int) -> int:
        return n + 1

    @app.activity
    def square(ctx: holdtrue.ActivityContext, n: int) -> int:
        return n * n

    @app.activity
    def boom(ctx: holdtrue.ActivityContext, why: str) -> None:
        raise ValueError(why)

    @app.orchestrator
    async def inline(ctx: holdtrue.OrchestrationContext, value: object) -> object:
        return value

    @app.orchestrator
    async def chain(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        total = 0
        for _ in range(n):
            total = await ctx.call_activity(inc, input=total)
        return total

    @app.orchestrator
    async def fan(ctx: holdtrue.OrchestrationContext, n: int) -> int:
        return sum(await holdtrue.when_all([ctx.call_activity(square, input=i) for i in range(n)]))

    @app.orchestrator
    def generator(ctx, n):
        first = yield ctx.call_activity("inc", input=n)
        second = yield ctx.call_activity(square, input=first)
        return second

    @app.orchestrator
    async def waits(ctx: holdtrue.OrchestrationContext, name: str) -> object:
        ctx.set_custom_status({"waiting": name})
        return await ctx.wait_for_external_event(name)

    @app.orchestrator
    async def sleeper(ctx: holdtrue.OrchestrationContext, seconds: float) -> str:
        await ctx.create_timer(timedelta(seconds=seconds))
        return "awake"

    @app.orchestrator
    async def parent(ctx: holdtrue.OrchestrationContext, n: int) -> list[int]:
        return await holdtrue.when_all([ctx.call_sub_orchestrator(chain, input=i) for i in range(n)])

    @app.orchestrator
    async def failing(ctx: holdtrue.OrchestrationContext, why: str) -> None:
        await ctx.call_activity(boom, input=why)

    @app.orchestrator
    async def failing_parent(ctx: holdtrue.OrchestrationContext, why: str) -> None:
        await ctx.call_sub_orchestrator(failing, input=why)

    @app.orchestrator
    async def counter(ctx: holdtrue.OrchestrationContext, total: int) -> int:
        add = await ctx.wait_for_external_event("add")
        if add == 0:
            return total
        ctx.continue_as_new(total + add, save_events=True)

    @app.orchestrator
    async def then_timer(ctx: holdtrue.OrchestrationContext, again: bool) -> str:
        if again:
            ctx.create_timer(timedelta(hours=1))
            ctx.continue_as_new(False)
            return ""
        await ctx.create_timer(timedelta(milliseconds=50))
        return "new timer"

    @app.orchestrator
    async def asker(ctx: holdtrue.OrchestrationContext, other: str) -> object:
        ctx.send_event(other, "question", data=ctx.instance_id)
        return await ctx.wait_for_external_event("answer")

    @app.orchestrator
    async def answerer(ctx: holdtrue.OrchestrationContext, _: None) -> None:
        who = await ctx.wait_for_external_event("question")
        ctx.send_event(who, "answer", data=42)

    return app


@pytest.fixture
def app() -> holdtrue.App:
    return make_app()


def hosted(tmp_path, app, main, **settings):
    async def body():
        async with holdtrue.Host(app, tmp_path / "hub.db", settings=holdtrue.HostSettings(**settings)) as host:
            return await main(host.client, host)

    return run(body())


@pytest.mark.parametrize("value", [0, "", False, None, [], {}, "https://example.com/x", "ünï\x00\n", [1, {"a": None}]])
def test_values_come_back_as_they_were(tmp_path, app, value):
    async def main(client, host):
        assert await outcome(client, await client.start("inline", input=value)) == value

    hosted(tmp_path, app, main)


def test_chain_fan_generator_children(tmp_path, app):
    async def main(client, host):
        ids = [
            await client.start("chain", input=10),
            await client.start("fan", input=100),
            await client.start("generator", input=2),
            await client.start("parent", input=5),
        ]
        results = [await outcome(client, i) for i in ids]
        assert results == [10, sum(i * i for i in range(100)), 9, [0, 1, 2, 3, 4]]
        assert (await client.info()).activities == 0

    hosted(tmp_path, app, main)


def test_everything_replayed_at_every_step(tmp_path, app):
    async def main(client, host):
        assert await outcome(client, await client.start("chain", input=10)) == 10
        assert await outcome(client, await client.start("parent", input=4)) == [0, 1, 2, 3]
        first = await client.start("counter", input=0)
        for n in (1, 2, 3, 0):
            await client.raise_event(first, "add", n)
        assert await outcome(client, first) == 6
        assert host.dispatcher.counters.replays > 0

    hosted(tmp_path, app, main, live_instances=0)


def test_events_early_in_order_and_case_insensitive(tmp_path, app):
    async def main(client, host):
        early = await client.start("waits", input="Go", start_at=datetime.now(UTC) + timedelta(seconds=0.3))
        await client.raise_event(early, "gO", {"n": 1})
        status = await client.get_status(early)
        assert status.runtime_status is Status.PENDING and status.scheduled_start is not None
        assert await outcome(client, early) == {"n": 1}
        total = await client.start("counter", input=0)
        for n in (*range(1, 30), 0):
            await client.raise_event(total, "add", n)
        assert await outcome(client, total) == sum(range(30))

    hosted(tmp_path, app, main)


def test_status_pushes_and_custom_status(tmp_path, app):
    async def main(client, host):
        i = await client.start("waits", input="x", tags={"team": "a"}, version="2")
        status = await client.wait_for_start(i, timeout=TIMEOUT)
        status = await until(lambda: client.get_status(i), "status")
        assert status.custom_status == {"waiting": "x"} and status.tags == {"team": "a"} and status.version == "2"
        change = asyncio.ensure_future(client.wait_for_change(i, since=status, timeout=TIMEOUT))
        await asyncio.sleep(0.05)
        await client.raise_event(i, "x", 1)
        assert (await change).runtime_status is Status.COMPLETED

    hosted(tmp_path, app, main)


def test_failures_keep_type_message_and_cause_two_levels_up(tmp_path, app):
    async def main(client, host):
        status = await client.wait_for_completion(await client.start("failing_parent", input="broken"), timeout=TIMEOUT)
        assert status.runtime_status is Status.FAILED
        chain = []
        failure = status.failure
        while failure is not None:
            chain.append((failure.error_type, "broken" in failure.message))
            failure = failure.inner_failure
        assert chain[-1] == ("builtins.ValueError", True), chain
        assert len(chain) == 3

    hosted(tmp_path, app, main)


def test_timers_fire_and_never_early(tmp_path, app):
    async def main(client, host):
        i = await client.start("sleeper", input=0.2)
        assert await outcome(client, i) == "awake"
        events = [event async for event in client.history(i)]
        fired = next(e for e in events if type(e).__name__ == "TimerFired")
        at = next(e.timestamp for e, after in zip(events, events[1:], strict=False) if after is fired)
        assert at >= fired.fire_at
        assert await outcome(client, await client.start("sleeper", input=-5)) == "awake"
        assert await outcome(client, await client.start("then_timer", input=True)) == "new timer"
        assert (await client.info()).messages == 0

    hosted(tmp_path, app, main)


def test_conversation_of_two_instances(tmp_path, app):
    async def main(client, host):
        other = await client.start("answerer")
        assert await outcome(client, await client.start("asker", input=other)) == 42
        await outcome(client, other)

    hosted(tmp_path, app, main)


def test_suspend_resume_terminate_cancel(tmp_path, app):
    async def main(client, host):
        i = await client.start("waits", input="go")
        await client.wait_for_start(i, timeout=TIMEOUT)
        await client.suspend(i, "wait")
        await until(lambda: suspended(client, i), "suspension")
        await client.raise_event(i, "go", 1)
        await client.suspend(i)
        await asyncio.sleep(0.1)
        assert (await client.get_status(i)).runtime_status is Status.SUSPENDED
        await client.resume(i)
        assert await outcome(client, i) == 1
        i = await client.start("waits", input="go")
        await client.suspend(i)
        await client.terminate(i, "enough")
        status = await client.wait_for_completion(i, timeout=TIMEOUT)
        assert status.runtime_status is Status.TERMINATED and status.output == "enough"
        i = await client.start("waits", input="go")
        await client.wait_for_start(i, timeout=TIMEOUT)
        await client.cancel(i, "no need")
        status = await client.wait_for_completion(i, timeout=TIMEOUT)
        assert status.runtime_status is Status.TERMINATED and "cancelled" in status.failure.message

    async def suspended(client, i):
        return (await client.get_status(i)).runtime_status is Status.SUSPENDED

    hosted(tmp_path, app, main)


def test_a_scheduled_start_can_be_terminated_before_its_time(tmp_path, app):
    async def main(client, host):
        i = await client.start("inline", input=1, start_at=datetime.now(UTC) + timedelta(hours=1))
        await client.terminate(i, "not needed")
        status = await client.wait_for_completion(i, timeout=TIMEOUT)
        assert status.runtime_status is Status.TERMINATED
        assert await outcome(client, await client.start("inline", instance_id=i, input=2)) == 2

    hosted(tmp_path, app, main)


def test_deadline_fails_an_execution(tmp_path, app):
    async def main(client, host):
        i = await client.start("waits", input="never", deadline=timedelta(seconds=0.2))
        status = await client.wait_for_completion(i, timeout=TIMEOUT)
        assert status.runtime_status is Status.FAILED and "Deadline" in status.failure.error_type

    hosted(tmp_path, app, main)


def test_terminate_and_purge_reach_children(tmp_path, app):
    @app.orchestrator
    async def tree(ctx, depth):
        if depth == 0:
            await ctx.wait_for_external_event("never")
        await holdtrue.when_all([ctx.call_sub_orchestrator("tree", input=depth - 1) for _ in range(2)])

    async def main(client, host):
        bystander = await client.start("waits", input="x")
        i = await client.start("tree", input=2)
        await until(lambda: count(client, "tree", 7), "seven instances")
        await client.terminate(i)
        await until(lambda: count(client, "tree", 7, Status.TERMINATED), "all terminated")
        purged = await client.purge(i)
        assert purged.instances == 7 and purged.children == 6
        assert (await client.get_status(bystander)).runtime_status is Status.RUNNING
        assert await client.get_status(i) is None

    async def count(client, name, n, status=None):
        found = [s async for s in client.query(name=name, statuses=status and {status})]
        return len(found) == n

    hosted(tmp_path, app, main)


def test_same_id_again_refused_replaced_ignored_and_start_id(tmp_path, app):
    async def main(client, host):
        i = await client.start("waits", instance_id="one", input="a")
        with pytest.raises(holdtrue.InstanceAlreadyExists):
            await client.start("waits", instance_id="one")
        assert await client.start("waits", instance_id="one", reuse="ignore") == "one"
        before = (await client.get_status(i)).execution_id
        await client.start("inline", instance_id="one", input=7, reuse="replace")
        assert await outcome(client, "one") == 7
        assert (await client.get_status(i)).execution_id != before
        for _ in range(2):
            await client.start("waits", instance_id="two", input="b", start_id="same")
        assert len([s async for s in client.query(prefix="two")]) == 1

    hosted(tmp_path, app, main)


def test_many_starts_at_once_of_one_id_run_once(tmp_path, app):
    async def main(client, host):
        outcomes = await asyncio.gather(
            *(client.start_if_not_running("waits", instance_id="single", input="go") for _ in range(50))
        )
        assert sorted(o.outcome for o in outcomes) == ["running"] * 49 + ["started"]
        assert len({o.execution_id for o in outcomes}) == 1

    hosted(tmp_path, app, main)


def test_code_that_nobody_has_waits_and_slows_nobody(tmp_path, app):
    async def main(client, host):
        for n in range(50):
            await client.start("nobody_has_it", instance_id=f"n{n}")
        assert await outcome(client, await client.start("chain", input=3)) == 3
        status = await client.get_status("n7")
        assert status.runtime_status is Status.PENDING
        assert status.condition is not None and status.condition.kind == "no worker"
        assert (await client.info()).dead_letters == 0

    async def later(client, host):
        assert await outcome(client, "n7") == "here"

    hosted(tmp_path, app, main)

    @app.orchestrator(name="nobody_has_it")
    async def here(ctx, _):
        return "here"

    hosted(tmp_path, app, later)


def test_large_fan_out_and_large_step(tmp_path, app):
    @app.orchestrator
    async def sends(ctx, n):
        for k in range(n):
            ctx.send_event("sink", "e", data=k)
        return n

    @app.orchestrator
    async def sink(ctx, n):
        return sum([await ctx.wait_for_external_event("e") for _ in range(n)])

    async def main(client, host):
        assert await outcome(client, await client.start("fan", input=5_000)) == sum(i * i for i in range(5_000))
        await client.start("sink", instance_id="sink", input=10_000)
        await outcome(client, await client.start("sends", input=10_000))
        assert await outcome(client, "sink") == sum(range(10_000))

    hosted(tmp_path, app, main)


def test_history_is_the_familys(tmp_path, app):
    async def main(client, host):
        i = await client.start("chain", input=1)
        await outcome(client, i)
        names = [type(event).__name__ async for event in client.history(i)]
        assert names == [
            "OrchestratorStarted", "ExecutionStarted", "TaskScheduled", "OrchestratorCompleted",
            "OrchestratorStarted", "TaskCompleted", "ExecutionCompleted", "OrchestratorCompleted",
        ]  # fmt: skip
        json.dumps(names)

    hosted(tmp_path, app, main)


def test_continue_as_new_many_times_without_waiting_and_with_work(tmp_path, app):
    @app.orchestrator
    async def spins(ctx, n):
        if n == 0:
            return await ctx.call_activity("inc", input=41)
        ctx.continue_as_new(n - 1)

    @app.orchestrator
    async def works(ctx, n):
        value = await ctx.call_activity("inc", input=n)
        if value < 40:
            ctx.continue_as_new(value)
        return value

    async def main(client, host):
        for _ in range(2):
            assert await outcome(client, await client.start("spins", input=100)) == 42
            assert await outcome(client, await client.start("works", input=0)) == 40
        assert host.dispatcher.counters.held == 0

    hosted(tmp_path, app, main)
    (tmp_path / "again").mkdir()
    hosted(tmp_path / "again", app, main, live_instances=0)


def test_rewind_redoes_what_failed_and_keeps_what_did_not(tmp_path, app):
    runs: list[str] = []
    healthy = False

    @app.activity
    async def note(ctx, what: str) -> str:
        runs.append(what)
        if what == "bad" and not healthy:
            raise RuntimeError("not yet")
        return what

    @app.orchestrator
    async def job(ctx, _):
        results = await holdtrue.when_all([ctx.call_activity(note, input="good"), ctx.call_activity(note, input="bad")])
        return [*results, await ctx.call_activity(note, input="after")]

    @app.orchestrator
    async def above(ctx, _):
        return await ctx.call_sub_orchestrator(job, instance_id="below")

    async def main(client, host):
        nonlocal healthy
        i = await client.start("above")
        failed = await client.wait_for_completion(i, timeout=TIMEOUT)
        assert failed.runtime_status is Status.FAILED
        await client.rewind(i, "again")
        await until(lambda: runs.count("bad") == 2, "the second try")
        await client.wait_for_completion(i, timeout=TIMEOUT)
        healthy = True
        await until(lambda: ended_again(client, i, failed), "the second failure")
        await client.rewind(i, "mended")
        await until(lambda: "after" in runs, "going on")
        assert await outcome(client, i) == ["good", "bad", "after"]
        assert sorted(runs) == ["after", "bad", "bad", "bad", "good"]
        with pytest.raises(holdtrue.RewindRefused):
            await client.rewind(i)

    async def ended_again(client, i, before):
        status = await client.get_status(i)
        return status.runtime_status is Status.FAILED and status.completed_at != before.completed_at

    hosted(tmp_path, app, main)
