"""What `check_crash_safety` is asked, and what it answers: bad input, bounds, fakes, drives, async callers."""

import asyncio
import logging
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest

import holdtrue
from holdtrue.testing.crash_errors import CannotCheck, DoesNotEnd, NotReset
from holdtrue.testing.crash_report import FindingKind
from holdtrue.testing.crash_safety import check_crash_safety

app = holdtrue.App()
sent: list[str] = []


@app.activity
def send(ctx: holdtrue.ActivityContext, text: str) -> str:
    sent.append(text)
    return text


@app.activity
def stamp(ctx: holdtrue.ActivityContext, text: str) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "key": ctx.idempotency_key, "text": text}


@app.activity(cpu=True)
def crunch(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number * 2


@app.activity
def blocking(ctx: holdtrue.ActivityContext) -> Any:
    return ctx.client.get_status("other")


@app.orchestrator
async def letters(ctx: holdtrue.OrchestrationContext, count: int) -> list[str]:
    return [await ctx.call_activity(send, input=f"letter {number}") for number in range(count)]


@app.orchestrator
async def waiting(ctx: holdtrue.OrchestrationContext) -> str:
    first = await ctx.wait_for_external_event("go", data_type=str)
    await ctx.create_timer(timedelta(days=365))
    return first + await ctx.wait_for_external_event("end", data_type=str)


@app.orchestrator
async def endless(ctx: holdtrue.OrchestrationContext, number: int) -> None:
    await ctx.create_timer(timedelta(hours=1))
    ctx.continue_as_new(number + 1)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orchestration", "given", "message"),
    [
        ("no_such", {}, "the app has no orchestration 'no_such'; it has 'blocked'"),
        (send, {}, "the app has no orchestration"),
        (letters, {"idempotent": ["no_such"]}, "idempotent= names 'no_such'"),
        (letters, {"fakes": {"no_such": send}}, "fakes are given for 'no_such'"),
        (letters, {"fakes": {len: send}}, "is not an activity of this app"),
        (letters, {"allowed": ["disorder"]}, "allowed is .*'disorder'.*'order'"),
        (letters, {"events": ["go"]}, "events holds 'go': give pairs"),
        (letters, {"max_runs": 0}, "max_runs is 0"),
        (letters, {"only": "the moon falls"}, "no run named 'the moon falls': the runs are 'replayed at each step'"),
    ],
)
def test_what_cannot_be_is_refused(orchestration: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(CannotCheck, match=message):
        check_crash_safety(app, orchestration, 1, **given)


@app.orchestrator
async def blocked(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.call_activity(blocking)


def test_a_blocking_client_is_refused_by_name() -> None:
    with pytest.raises(CannotCheck, match=r"'blocking' .* uses a blocking ctx.client"):
        check_crash_safety(app, blocked)


def test_one_that_waits_for_ever_says_for_what() -> None:
    with pytest.raises(DoesNotEnd, match=r"'waiting' does not end .* RUNNING, waits for an external event"):
        check_crash_safety(app, waiting)


def test_one_that_goes_on_for_ever_is_given_up() -> None:
    with pytest.raises(
        DoesNotEnd, match=r"'endless' does not end .* after 2000 steps it is RUNNING, waits for a timer"
    ):
        check_crash_safety(app, endless, 1, within=timedelta(days=10_000))


@pytest.mark.parametrize("seconds", [0, 1], ids=["at one moment", "through the years"])
def test_an_activity_that_goes_round_and_round_is_given_up(seconds: int) -> None:
    mine = holdtrue.App()

    @mine.activity
    async def polls(ctx: holdtrue.ActivityContext) -> None:
        while True:
            await asyncio.sleep(seconds)

    @mine.orchestrator
    async def polling(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.call_activity(polls)

    with pytest.raises(DoesNotEnd, match=r"'polling' does not end .* RUNNING, waits for activity 'polls'"):
        check_crash_safety(mine, polling)


def test_a_state_that_no_reset_brings_back_is_refused() -> None:
    sent.clear()
    with pytest.raises(NotReset, match="Give reset="):
        check_crash_safety(app, letters, 1, state=lambda: len(sent))


def test_a_drive_that_fails_undisturbed_is_told_of() -> None:
    async def drive(client: holdtrue.Client, instance_id: str) -> None:
        await client.raise_event("somebody else", "go", None)

    with pytest.raises(CannotCheck, match="drive failed in the undisturbed run of 'waiting': InstanceNotFound"):
        check_crash_safety(app, waiting, drive=drive)


# -- bounds --------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said() -> None:
    report = check_crash_safety(app, letters, 5, idempotent=[send], max_runs=12)
    assert report.runs == 12
    (note,) = report.notes
    assert note.startswith("only 7 of ")
    assert "(max_runs=12); not tried: " in note
    assert " deaths of the host" in note
    assert note in " ".join(str(report).split())


# -- what it compares ----------------------------------------------------------------------------------------


def test_the_same_app_gives_the_same_report() -> None:
    random.seed(1)
    one = check_crash_safety(app, letters, 2, state=lambda: len(sent), reset=sent.clear)
    random.seed(2)
    other = check_crash_safety(app, letters, 2, state=lambda: len(sent), reset=sent.clear)
    assert str(one) == str(other)
    assert not one.ok


def test_the_callers_own_chance_is_left_alone() -> None:
    random.seed(1)
    wanted = [random.random() for _ in range(3)]
    random.seed(1)
    check_crash_safety(app, letters, 1, idempotent=[send])
    assert [random.random() for _ in range(3)] == wanted


def test_ids_and_keys_and_times_are_not_compared() -> None:
    """They differ from run to run by themselves."""

    async def stamped(ctx: holdtrue.OrchestrationContext, text: str) -> dict[str, Any]:
        got = await ctx.call_activity(stamp, input=text)
        return {**got, "at": str(ctx.current_utc_datetime), "uuid": ctx.new_uuid()}

    app.orchestrator(stamped)
    report = check_crash_safety(app, stamped, "a")
    assert report.ok, report
    assert any("'stamp' gives another result in each run" in note for note in report.notes)


def test_the_order_of_effects_in_a_probed_list_does_not_count() -> None:
    async def together(ctx: holdtrue.OrchestrationContext, count: int) -> list[str]:
        return await holdtrue.when_all([ctx.call_activity(send, input=str(number)) for number in range(count)])

    app.orchestrator(together)
    done: dict[str, str] = {}

    def once(ctx: holdtrue.ActivityContext, text: str) -> str:
        return done.setdefault(ctx.idempotency_key, text)

    report = check_crash_safety(
        app, together, 3, fakes={send: once}, state=lambda: list(done.values()), reset=done.clear
    )
    assert report.ok, report


# -- fakes, drives, callers ----------------------------------------------------------------------------------


def test_a_fake_takes_the_place_of_an_activity() -> None:
    outbox: dict[str, str] = {}

    async def fake(ctx: holdtrue.ActivityContext, text: str) -> str:
        await asyncio.sleep(1)
        return outbox.setdefault(ctx.idempotency_key, text)

    sent.clear()
    report = check_crash_safety(app, letters, 2, fakes={"send": fake})
    assert report.ok, report
    assert not sent
    assert outbox


def test_activities_of_processes_run_in_place() -> None:
    async def crunching(ctx: holdtrue.OrchestrationContext, number: int) -> int:
        return await ctx.call_activity(crunch, input=number)

    app.orchestrator(crunching)
    assert check_crash_safety(app, crunching, 2, idempotent=["crunch"]).ok


def test_a_drive_waits_years_in_no_time() -> None:
    async def drive(client: holdtrue.Client, instance_id: str) -> None:
        await asyncio.sleep(3_600)
        await client.raise_event(instance_id, "go", "a")
        await asyncio.sleep(370 * 86_400)
        await client.raise_event(instance_id, "end", "b")

    report = check_crash_safety(app, waiting, drive=drive, within=timedelta(days=800))
    assert report.ok, report


def test_state_and_reset_may_be_async() -> None:
    async def state() -> int:
        await asyncio.sleep(1)
        return len(sent)

    async def reset() -> None:
        await asyncio.sleep(1)
        sent.clear()

    report = check_crash_safety(app, letters, 1, state=state, reset=reset)
    assert [finding.kind for finding in report.findings] == [FindingKind.NOT_IDEMPOTENT]
    assert not sent


def test_it_may_be_called_from_an_async_test() -> None:
    async def test() -> None:
        report = check_crash_safety(app, letters, 1, idempotent=[send])
        assert report.ok, report
        with pytest.raises(DoesNotEnd):
            check_crash_safety(app, waiting)

    asyncio.run(test())


def test_nothing_is_logged_of_the_hosts_that_die(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        check_crash_safety(app, letters, 1, idempotent=[send])
    assert not [record for record in caplog.records if record.name.startswith("holdtrue.")]
    assert not logging.getLogger("holdtrue.engine").disabled


def test_activities_and_drives_have_a_client_that_knows_the_functions() -> None:
    mine = holdtrue.App()

    @mine.orchestrator
    async def other(ctx: holdtrue.OrchestrationContext, number: int) -> int:
        return number

    @mine.activity
    async def start_other(ctx: holdtrue.ActivityContext, number: int) -> str:
        key = ctx.idempotency_key
        await ctx.client.start(other, input=number, instance_id="other", start_id=key)
        return (await ctx.client.wait_for_completion("other")).instance_id

    @mine.orchestrator
    async def starting(ctx: holdtrue.OrchestrationContext, number: int) -> str:
        return await ctx.call_activity(start_other, input=number)

    async def drive(client: holdtrue.Client, instance_id: str) -> None:
        await client.start(other, input=2, instance_id="one more")
        await client.wait_for_completion(instance_id)

    report = check_crash_safety(mine, starting, 1, drive=drive)
    assert report.ok, report
    assert not report.notes


def test_tags_of_workers_do_not_matter() -> None:
    mine = holdtrue.App()

    @mine.activity(tag="gpu")
    def render(ctx: holdtrue.ActivityContext, number: int) -> int:
        return number

    @mine.orchestrator
    async def rendering(ctx: holdtrue.OrchestrationContext, number: int) -> list[int]:
        return [await ctx.call_activity(render, input=number), await ctx.call_activity(render, input=number, tag="big")]

    report = check_crash_safety(mine, rendering, 1, idempotent=["render"])
    assert report.ok, report


def test_what_a_dead_process_would_clean_up_has_no_effect() -> None:
    """A `finally` of an activity that was cut off by a death does not run before the state is read."""
    cleaned: list[str] = []
    mine = holdtrue.App()

    @mine.activity
    async def tidy(ctx: holdtrue.ActivityContext) -> None:
        try:
            await asyncio.sleep(3)
        finally:
            cleaned.append(ctx.idempotency_key)

    @mine.orchestrator
    async def tidying(ctx: holdtrue.OrchestrationContext) -> None:
        await ctx.call_activity(tidy)

    given: dict[str, Any] = {"state": lambda: len(cleaned), "reset": cleaned.clear}
    assert check_crash_safety(mine, tidying, only="the host dies in tidy, wait 1", **given).ok
    assert not check_crash_safety(mine, tidying, only="the host dies after tidy", **given).ok
