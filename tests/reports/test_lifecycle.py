"""Commands to an instance take effect in order, whatever state it is in and whether or not anybody has its code."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import holdtrue
from holdtrue import Status
from tests.e2e.hubs import TIMEOUT, outcome, run, until

from .hosting import ended, host, hosted


def make_app(name: str = "job") -> holdtrue.App:
    app = holdtrue.App()

    @app.orchestrator(name=name)
    async def job(ctx: holdtrue.OrchestrationContext) -> list[object]:
        return [await ctx.wait_for_external_event("e") for _ in range(3)]

    return app


@pytest.mark.parametrize("start_at", [None, timedelta(hours=1)])
@pytest.mark.parametrize("command", ["terminate", "cancel", "deadline"])
def test_a_pending_one_without_a_worker_can_be_ended(tmp_path: Path, command: str, start_at: timedelta | None) -> None:
    """Pending for ever, and no terminate helped (azure-functions-durable-extension#1715, #1925, #2060, #342)."""

    async def main(client: holdtrue.Client) -> None:
        deadline = timedelta(milliseconds=1) if command == "deadline" else None
        i = await client.start("nobody_has_it", start_at=start_at, deadline=deadline)
        if command != "deadline":
            await getattr(client, command)(i, "not needed")
        await ended(client, i, Status.FAILED if command == "deadline" else Status.TERMINATED)
        assert (await client.purge(i)).instances == 1

    hosted(tmp_path, make_app(), main)


@pytest.mark.parametrize("command", ["terminate", "deadline"])
@pytest.mark.parametrize("suspended", [False, True])
def test_a_running_one_whose_code_is_gone_can_be_ended(tmp_path: Path, command: str, suspended: bool) -> None:
    """Terminate did not help one that stays Running (azure-functions-durable-extension#3079): its code is gone."""

    async def main() -> None:
        async with host(make_app(), tmp_path) as running:
            i = await running.client.start("job", deadline=timedelta(seconds=1) if command == "deadline" else None)
            status = await running.client.wait_for_start(i, timeout=TIMEOUT)
            if suspended:
                await running.client.suspend(i)
                status = await running.client.wait_for_change(i, since=status, timeout=TIMEOUT)
        async with host(make_app("renamed"), tmp_path) as running:
            await running.client.raise_event(i, "e", 1)
            if command == "terminate":
                await running.client.terminate(i, "not needed")
            await ended(running.client, i, Status.FAILED if command == "deadline" else Status.TERMINATED)
            info = await running.client.info()
            assert (info.messages, info.dead_letters) == (0, 0)

    run(main())


def test_suspends_and_resumes_in_one_batch_are_paired(tmp_path: Path) -> None:
    """Events raised while suspended were lost, a second suspend hung it (durabletask-python#42, class 2)."""

    async def main() -> None:
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            i = await client.start("job")
            await client.resume(i)
            await client.raise_event(i, "e", 1)
            await client.suspend(i)
            await client.suspend(i)
            await client.raise_event(i, "e", 2)
            await client.resume(i)
            await client.resume(i)
            await client.suspend(i)
            await client.raise_event(i, "e", 3)
        async with host(make_app(), tmp_path) as running:
            client = running.client
            await client.wait_for_start(i, timeout=TIMEOUT)
            assert (await client.get_status(i)).runtime_status is Status.SUSPENDED
            await client.resume(i)
            assert await outcome(client, i) == [1, 2, 3]

    run(main())


@pytest.mark.parametrize("recursive", [True, False])
def test_a_terminate_reaches_the_children_started_meanwhile(tmp_path: Path, recursive: bool) -> None:
    """A recursive terminate missed children, or ended what was none (class 8)."""
    app = holdtrue.App()

    @app.orchestrator
    async def child(ctx: holdtrue.OrchestrationContext, depth: int) -> None:
        if depth:
            await ctx.call_sub_orchestrator(child, instance_id=f"below {ctx.instance_id}", input=depth - 1)
        await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def parent(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.wait_for_external_event("go")
        children = [ctx.call_sub_orchestrator(child, instance_id=f"child {n}", input=n) for n in range(3)]
        await holdtrue.when_all([*children, ctx.call_sub_orchestrator(child, instance_id="another's", input=0)])

    async def main() -> None:
        async with host(app, tmp_path) as running:
            i = await running.client.start(parent)
            await running.client.start(child, instance_id="another's", input=0)
            for begun in (i, "another's"):
                await running.client.wait_for_start(begun, timeout=TIMEOUT)
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            await client.raise_event(i, "go")
            assert await client.terminate(i, "enough", recursive=recursive) is True
        async with host(app, tmp_path) as running:
            client = running.client
            await ended(client, i, Status.TERMINATED)
            for n in range(3):
                if recursive:
                    assert (await ended(client, f"child {n}", Status.TERMINATED)).output == "enough"
                else:
                    await client.wait_for_start(f"child {n}", timeout=TIMEOUT)
            await until(lambda: quiet(client), "all messages handled")
            statuses = {s.instance_id: s.runtime_status async for s in client.query(name="child")}
            assert statuses.pop("another's") is Status.RUNNING
            assert set(statuses.values()) == {Status.TERMINATED if recursive else Status.RUNNING}
            assert (await client.info()).dead_letters == 0

    async def quiet(client: holdtrue.Client) -> bool:
        pending = [s async for s in client.query(statuses={Status.PENDING})]
        return not pending and (await client.info()).messages == 0

    run(main())


def test_an_event_to_a_child_of_the_same_step_reaches_it(tmp_path: Path) -> None:
    """What is sent to a child in the step that starts it comes after its start (class 1)."""
    app = holdtrue.App()

    @app.orchestrator
    async def child(ctx: holdtrue.OrchestrationContext) -> object:
        return await ctx.wait_for_external_event("e")

    @app.orchestrator
    async def parent(ctx: holdtrue.OrchestrationContext) -> object:
        answer = ctx.call_sub_orchestrator(child, instance_id="kid")
        ctx.send_event("kid", "e", data=7)
        return await answer

    async def main(client: holdtrue.Client) -> None:
        assert await outcome(client, await client.start(parent)) == 7

    hosted(tmp_path, app, main)


@pytest.mark.parametrize("begun", [False, True])
def test_a_suspended_one_can_be_terminated(tmp_path: Path, begun: bool) -> None:
    """A suspended instance that could not be terminated (class 2)."""

    async def main() -> None:
        async with holdtrue.Client(tmp_path / "hub.db") as client:
            i = await client.start("job")
            if begun:
                async with host(make_app(), tmp_path) as running:
                    await running.client.wait_for_start(i, timeout=TIMEOUT)
            await client.suspend(i)
            await client.terminate(i, "enough")
        async with host(make_app(), tmp_path) as running:
            assert (await ended(running.client, i, Status.TERMINATED)).output == "enough"

    run(main())


def test_an_ended_one_takes_nothing_and_its_history_does_not_grow(tmp_path: Path) -> None:
    """With changed code a finished history grew without end (azure-functions-durable-extension#3119)."""

    async def main() -> None:
        async with host(make_app(), tmp_path) as running:
            i = await running.client.start("job", event=("e", 0))
            for n in (1, 2):
                await running.client.raise_event(i, "e", n)
            assert await outcome(running.client, i) == [0, 1, 2]
        changed = holdtrue.App()

        @changed.orchestrator(name="job")
        async def job(ctx: holdtrue.OrchestrationContext) -> None:
            await ctx.create_timer(timedelta(hours=1))

        @changed.orchestrator
        async def other(ctx: holdtrue.OrchestrationContext) -> None:
            await ctx.create_timer(timedelta(0))

        async with host(changed, tmp_path) as running:
            client = running.client
            before = await client.get_status(i)
            assert await client.raise_event(i, "e", 3) is False
            assert await client.terminate(i) is False
            assert await client.cancel(i) is False
            for refused in (client.suspend, client.resume):
                with pytest.raises(holdtrue.InstanceEnded):
                    await refused(i)
            with pytest.raises(holdtrue.RewindRefused):
                await client.rewind(i)
            await outcome(client, await client.start(other))
            after = await client.get_status(i)
            assert (after.history_size, after.runtime_status) == (before.history_size, Status.COMPLETED)
            assert running.dispatcher.counters.held == 0
            info = await client.info()
            assert (info.messages, info.dead_letters) == (0, 0)

    run(main())


def test_events_that_the_last_execution_did_not_take_stay_with_it(tmp_path: Path) -> None:
    """An instance was restarted while external events were pending (the family's suites: odd cases)."""

    async def main(client: holdtrue.Client) -> None:
        i = await client.start("job", event=("e", "old"))
        await client.raise_event(i, "unasked", "old")
        await until(lambda: taken(client, i), "the old event")
        await client.suspend(i)
        await client.raise_event(i, "e", "old, too")
        await client.terminate(i)
        await ended(client, i, Status.TERMINATED)
        await client.restart(i)
        for n in range(3):
            await client.raise_event(i, "e", n)
        assert await outcome(client, i) == [0, 1, 2]

    async def taken(client: holdtrue.Client, i: str) -> bool:
        return (await client.get_status(i)).history_size >= 5

    hosted(tmp_path, make_app(), main)


@pytest.mark.parametrize("kind", ["naive", "UTC", "another zone"])
def test_a_start_time_is_kept_whatever_its_zone_and_shown_before_it_comes(tmp_path: Path, kind: str) -> None:
    """A start time in local, UTC or unspecified kind, shown before it comes (the family's suites)."""
    from zoneinfo import ZoneInfo

    async def main(client: holdtrue.Client) -> None:
        at = datetime.now(UTC) + timedelta(seconds=0.4)
        given = {
            "naive": at.replace(tzinfo=None),
            "UTC": at,
            "another zone": at.astimezone(ZoneInfo("Asia/Kathmandu")),
        }[kind]
        i = await client.start("job", start_at=given, event=("e", 1))
        status = await client.get_status(i)
        assert status.runtime_status is Status.PENDING and status.scheduled_start == at
        await client.wait_for_start(i, timeout=TIMEOUT)
        started = await anext(aiter(client.history(i)))
        assert started.timestamp >= status.record.projection.scheduled_start
        for n in (2, 3):
            await client.raise_event(i, "e", n)
        assert await outcome(client, i) == [1, 2, 3]

    hosted(tmp_path, make_app(), main)
