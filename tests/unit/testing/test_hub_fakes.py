"""Fakes of activities in `TestHub`: how they are called, what they may do, and that the app stays as it is."""

import functools
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from holdtrue import ActivityContext, App, OrchestrationContext, Status, TaskFailedError
from holdtrue.core.errors import InvalidInput
from holdtrue.testing import TestHub, check_crash_safety
from tests.unit.testing.hub_apps import Order, app, charge


def _order(hub: TestHub) -> Any:
    return hub.wait(hub.start("call", input=["charge", Order("Ann", 5)]))


async def _later(order: Order) -> str:
    return f"later {order.amount}"


def _with_context(ctx: ActivityContext, order: Order) -> str:
    return f"{ctx.name} {ctx.attempt} {order.amount}"


@pytest.mark.parametrize(
    ("fake", "output"),
    [
        (lambda order: f"paid {order.amount}", "paid 5"),
        (lambda: "nothing asked", "nothing asked"),
        (lambda order, more=3: more, 3),
        (lambda *given: len(given), 1),
        (lambda _, order: order.customer, "Ann"),
        (lambda ctx: ctx.name, "charge"),
        (lambda context, order=None: order.amount, 5),
        (_with_context, "charge 1 5"),
        (_later, "later 5"),
        (functools.partial(_with_context), "charge 1 5"),
        (functools.partial(lambda order, of: of, of="partial"), "partial"),
        (Mock(return_value="mocked"), "mocked"),
        (AsyncMock(return_value="awaited"), "awaited"),
        (str, "Order(customer='Ann', amount=5)"),
    ],
)
def test_a_fake_is_called_with_what_it_asks_for(fake: Any, output: Any) -> None:
    with TestHub(app) as hub:
        hub.fake("charge", fake)
        assert _order(hub).output == output


def test_a_mock_keeps_its_calls() -> None:
    pay = Mock(return_value="ok")
    with TestHub(app, fakes={charge: pay}) as hub:
        _order(hub)
    pay.assert_called_once_with(Order("Ann", 5))


def test_what_a_fake_raises_is_the_failure_of_the_activity() -> None:
    seen: list[str] = []
    program = App()

    @program.activity
    def pay(ctx: Any, amount: int) -> None: ...

    @program.orchestrator
    async def order(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(pay, input=3)
        except TaskFailedError as error:
            seen.append(repr(error.__cause__))
        return "no money"

    with TestHub(program) as hub:
        hub.fake(pay, Mock(side_effect=ValueError("declined")))
        assert hub.wait(hub.start(order)).output == "no money"
        assert hub.calls(pay) == [3] and seen == ["ValueError('declined')"]


def test_a_result_that_cannot_be_written_fails_as_that_of_an_activity() -> None:
    with TestHub(app) as hub:
        hub.fake("charge", lambda order: object())
        assert _order(hub).runtime_status is Status.FAILED


def test_a_fake_takes_over_while_the_hub_is_open_and_gives_back() -> None:
    with TestHub(app, fakes={"charge": lambda order: "first"}) as hub:
        assert _order(hub).output == "first"
        hub.fake(charge, lambda order: "second")
        assert _order(hub).output == "second"
        hub.fake(charge, None)
        assert _order(hub).output == "Ann paid 5"
        assert hub.calls("charge") == hub.calls(charge) == [Order("Ann", 5)] * 3
        assert hub.calls("rest") == []
    with TestHub(app) as hub:
        assert hub.calls("charge") == [] and _order(hub).output == "Ann paid 5"


def test_wrong_names_are_told() -> None:
    with TestHub(app) as hub:
        with pytest.raises(InvalidInput, match="no activity 'chrage': did you mean 'charge'"):
            hub.fake("chrage", len)
        with pytest.raises(InvalidInput, match=r"register it with @app\.activity"):
            hub.calls("zzz")
        with pytest.raises(InvalidInput, match="is not an activity of this app"):
            hub.fake(_later, len)
        with pytest.raises(InvalidInput, match="give a function of its input"):
            hub.fake("charge", 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        TestHub(app, fakes={"nobody": len})


@pytest.mark.parametrize("fake", [lambda order: order.amount, lambda ctx, order: order.amount])
def test_a_check_for_crash_safety_takes_the_same_fakes(fake: Any) -> None:
    report = check_crash_safety(app, "trying", fakes={"charge": fake}, idempotent=["charge"], max_runs=2)
    assert report.ok, report
