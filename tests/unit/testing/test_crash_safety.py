"""`check_crash_safety` finds each kind of mistake, and names its line."""

import inspect
import itertools
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import holdtrue
from holdtrue.testing.crash_errors import CrashUnsafe
from holdtrue.testing.crash_report import Finding, FindingKind
from holdtrue.testing.crash_safety import check_crash_safety

app = holdtrue.App()
charges: list[int] = []
ledger: dict[str, int] = {}


def line_of(function: Callable[..., Any], text: str) -> str:
    """`file:line` of the first line of a function that holds the text."""
    lines, first = inspect.getsourcelines(function)
    found = next(number for number, line in enumerate(lines) if text in line)
    return f"{inspect.getsourcefile(function)}:{first + found}"


def only(report: Any) -> Finding:
    assert len(report.findings) == 1, str(report)
    finding: Finding = report.findings[0]
    return finding


@app.activity
def look(ctx: holdtrue.ActivityContext, number: int) -> int:
    return number


@app.activity
def charge(ctx: holdtrue.ActivityContext, amount: int) -> str:
    charges.append(amount)
    return "charged"


@app.activity
def number_it(ctx: holdtrue.ActivityContext, amount: int) -> int:
    ledger[ctx.idempotency_key + str(len(ledger))] = amount
    return len(ledger)


@app.orchestrator
async def order(ctx: holdtrue.OrchestrationContext, amount: int) -> str:
    await ctx.call_activity(look, input=amount)
    receipt = await ctx.call_activity(charge, input=amount)
    await ctx.call_activity(look, input=amount)
    return receipt


# -- activities that are not idempotent -----------------------------------------------------------------------


def test_an_effect_that_comes_twice_is_seen_by_the_probe() -> None:
    report = check_crash_safety(app, order, 7, state=lambda: {"charges": sum(charges)}, reset=charges.clear)
    finding = only(report)
    assert finding.kind is FindingKind.NOT_IDEMPOTENT
    assert finding.place == line_of(charge, "@app.activity")
    assert finding.called_at == line_of(order, "ctx.call_activity(charge")
    assert finding.fault == "the host died after `charge` had run, before its result was recorded"
    assert finding.differences == ['state: {"charges": 7} undisturbed, {"charges": 14} here']
    assert "*** the host dies, another takes over" in finding.disturbed
    assert "charge(7) runs AGAIN" in finding.disturbed
    assert "charge(7) runs AGAIN" not in finding.undisturbed
    assert charges == [], "the memory of the test is as reset left it"


def test_the_report_shows_the_two_runs_beside_each_other_and_how_to_run_it_again() -> None:
    given: dict[str, Any] = {"state": lambda: {"charges": sum(charges)}, "reset": charges.clear}
    report = check_crash_safety(app, order, 7, **given)
    text = str(report)
    assert not report.ok
    assert "1 finding in " in text
    both = [row for row in text.splitlines() if row.count("charge(7) runs") == 2]
    assert both, "what both runs do stands in one row"
    assert [row.split("|")[0].strip() for row in text.splitlines() if "runs AGAIN" in row] == [""]
    again = check_crash_safety(app, order, 7, **given, only=only(report).run)
    assert only(again).disturbed == only(report).disturbed
    assert again.runs < report.runs
    with pytest.raises(CrashUnsafe, match="charge"):
        report.raise_if_unsafe()


def test_without_a_probe_a_key_that_nobody_reads_is_told_of() -> None:
    report = check_crash_safety(app, order, 7, idempotent=[look])
    finding = only(report)
    assert finding.kind is FindingKind.KEY_IGNORED
    assert finding.place == line_of(charge, "@app.activity")
    assert "never read ctx.idempotency_key" in finding.what


def test_an_activity_that_is_said_to_be_idempotent_is_let_pass() -> None:
    assert check_crash_safety(app, order, 7, idempotent=[look, "charge"]).ok


def test_another_result_at_the_second_run_is_not_idempotent_either() -> None:
    async def numbered(ctx: holdtrue.OrchestrationContext, amount: int) -> int:
        return await ctx.call_activity(number_it, input=amount)

    app.orchestrator(numbered)
    finding = only(check_crash_safety(app, numbered, 7, reset=ledger.clear))
    assert finding.kind is FindingKind.NOT_IDEMPOTENT
    assert "number_it(7) gave 1 first, and 2 when it ran again" in finding.differences


def test_one_bad_activity_of_several_that_run_at_once_is_told_apart() -> None:
    async def at_once(ctx: holdtrue.OrchestrationContext, amount: int) -> list[Any]:
        return await holdtrue.when_all(
            [
                ctx.call_activity(look, input=1),
                ctx.call_activity(charge, input=amount),
                ctx.call_activity(look, input=2),
            ]
        )

    app.orchestrator(at_once)
    finding = only(check_crash_safety(app, at_once, 7, state=lambda: list(charges), reset=charges.clear))
    assert (finding.kind, finding.place) == (FindingKind.NOT_IDEMPOTENT, line_of(charge, "@app.activity"))


def test_an_activity_that_waits_is_cut_off_at_each_wait() -> None:
    import asyncio

    booked: list[str] = []

    async def book(ctx: holdtrue.ActivityContext, what: str) -> str:
        if len(booked) == 2:
            return what
        booked.append("flight")
        await asyncio.sleep(3)
        booked.append("hotel")
        return what

    mine = holdtrue.App()
    mine.activity(book)

    async def trip(ctx: holdtrue.OrchestrationContext, what: str) -> str:
        return await ctx.call_activity(book, input=what)

    mine.orchestrator(trip)
    finding = only(check_crash_safety(mine, trip, "Lima", state=lambda: list(booked), reset=booked.clear))
    assert finding.fault.startswith("the host died while `book` waited (at ")
    assert line_of(book, "asyncio.sleep") in finding.fault


# -- code that does not decide the same -------------------------------------------------------------------------


def test_chance_in_an_orchestrator_is_found() -> None:
    async def chance(ctx: holdtrue.OrchestrationContext) -> int:
        if random.random() < 0.5:  # holdtrue: allow
            await ctx.call_activity(look, input=1)
        await ctx.call_activity(look, input=2)
        return 3

    app.orchestrator(chance)
    report = check_crash_safety(app, chance, idempotent=[look])
    finding = only(report)
    assert finding.kind is FindingKind.NONDETERMINISM
    assert finding.place == line_of(chance, "async def chance")
    assert any("not tried" in note for note in report.notes)


def test_the_clock_in_an_orchestrator_is_found() -> None:
    import time

    async def clock(ctx: holdtrue.OrchestrationContext) -> int:
        return await ctx.call_activity(look, input=time.perf_counter_ns())  # holdtrue: allow

    app.orchestrator(clock)
    finding = only(check_crash_safety(app, clock, idempotent=[look]))
    assert finding.kind is FindingKind.NONDETERMINISM


def test_a_replay_that_goes_another_way_is_found_with_its_line() -> None:
    """The chance is the object's own, so that two runs in one process are the same; the replay is not."""
    turns = {"number": 0}

    def turn() -> int:
        turns["number"] += 1
        return turns["number"]

    async def turning(ctx: holdtrue.OrchestrationContext) -> int:
        if turn() == 1:
            await ctx.call_activity(look, input=1)
        else:
            await ctx.create_timer(timedelta(seconds=1))
        return 3

    mine = holdtrue.App()
    mine.activity(look)
    mine.orchestrator(turning)
    finding = only(check_crash_safety(mine, turning, idempotent=[look]))
    assert finding.kind is FindingKind.MEMORY
    assert "`turns`" in finding.what
    assert finding.place == line_of(turn, 'turns["number"] += 1')
    assert finding.disturbed[-1] == "it is HELD"


def test_a_mismatch_that_fails_the_instance_is_told_as_one() -> None:
    turns: list[int] = []
    mine = holdtrue.App()
    mine.activity(look)

    @mine.orchestrator(on_mismatch="fail")
    async def failing(ctx: holdtrue.OrchestrationContext) -> None:
        turns.append(1)
        if len(turns) == 1:
            await ctx.call_activity(look, input=1)

    finding = only(check_crash_safety(mine, failing, idempotent=[look]))
    assert finding.kind is FindingKind.MEMORY
    assert finding.differences[0].startswith("held: holdtrue.NonDeterminismError")


# -- state in memory ----------------------------------------------------------------------------------------------

done: dict[int, int] = {}
counter = itertools.count()
total = 0


class Shop:
    """An object that an orchestrator should not change."""

    sold = 0


shop = Shop()


@app.orchestrator
async def cached(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    if number not in done:
        done[number] = await ctx.call_activity(look, input=number)
    return await ctx.call_activity(look, input=done[number] + 1)


@app.orchestrator
async def counted(ctx: holdtrue.OrchestrationContext) -> int:
    await ctx.call_activity(look, input=1)
    return next(counter)


@app.orchestrator
async def totalled(ctx: holdtrue.OrchestrationContext, number: int) -> int:
    global total
    total += await ctx.call_activity(look, input=number)
    await ctx.call_activity(look, input=number)
    return total


@app.orchestrator
async def selling(ctx: holdtrue.OrchestrationContext) -> int:
    shop.sold += 1
    await ctx.call_activity(look, input=shop.sold)
    return shop.sold


@pytest.mark.parametrize(
    ("orchestration", "name", "text"),
    [
        (cached, "done", "if number not in done"),
        (counted, "counter", "next(counter)"),
        (totalled, "total", "total += await"),
        (selling, "shop", "shop.sold += 1"),
    ],
)
def test_what_is_kept_in_memory_is_found(orchestration: Any, name: str, text: str) -> None:
    given = () if orchestration in (counted, selling) else (4,)
    report = check_crash_safety(app, orchestration, *given, idempotent=[look])
    finding = only(report)
    assert finding.kind is FindingKind.MEMORY
    assert f"`{name}`" in finding.what
    assert finding.place == line_of(orchestration, text)
    assert (done, total, shop.sold, repr(counter)) == ({}, 0, 0, "count(0)"), "the process is as it was before"


def test_a_default_argument_that_gathers_is_memory() -> None:
    async def gathering(ctx: holdtrue.OrchestrationContext, number: int, seen: list[int] = []) -> int:  # noqa: B006
        seen.append(await ctx.call_activity(look, input=number))
        await ctx.call_activity(look, input=number)
        return len(seen)

    app.orchestrator(gathering)
    finding = only(check_crash_safety(app, gathering, 1, idempotent=[look]))
    assert finding.kind is FindingKind.MEMORY


# -- order ----------------------------------------------------------------------------------------------------------


@app.orchestrator
async def as_they_come(ctx: holdtrue.OrchestrationContext, count: int) -> list[int]:
    open_ = [ctx.call_activity(look, input=number) for number in range(count)]
    came: list[int] = []
    while open_:
        first = await holdtrue.when_any(open_)
        open_.remove(first)
        came.append(first.get_result())
    return came


def test_a_result_that_depends_on_the_order_is_found_with_both_orders() -> None:
    finding = only(check_crash_safety(app, as_they_come, 3, idempotent=[look]))
    assert finding.kind is FindingKind.ORDER
    assert finding.place == line_of(as_they_come, "ctx.call_activity(look")
    assert finding.fault.startswith("the results came in another order: ")
    assert any(difference.startswith("order of results: ") for difference in finding.differences)


def test_an_order_that_is_meant_is_allowed_and_noted() -> None:
    report = check_crash_safety(app, as_they_come, 3, idempotent=[look], allowed=["order"])
    assert report.ok, report
    assert any(note.startswith("allowed (order)") for note in report.notes)


def test_the_order_of_children_counts_too() -> None:
    async def child(ctx: holdtrue.OrchestrationContext, number: int) -> int:
        return await ctx.call_activity(look, input=number)

    async def first_child(ctx: holdtrue.OrchestrationContext) -> int:
        tasks = [ctx.call_sub_orchestrator(child, input=number) for number in (1, 2)]
        return (await holdtrue.when_any(tasks)).get_result()

    mine = holdtrue.App()
    mine.activity(look)
    for one in (child, first_child):
        mine.orchestrator(one)
    assert only(check_crash_safety(mine, first_child, idempotent=[look])).kind is FindingKind.ORDER
