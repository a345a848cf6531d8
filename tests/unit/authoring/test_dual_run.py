"""The same generator orchestrators under the official SDK, on its in-memory backend, and under our core."""

import dataclasses
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from durabletask import client as sdk_client
from durabletask import worker as sdk_worker
from durabletask.task import NonDeterminismError, RetryPolicy, TaskFailedError, when_all, when_any
from durabletask.testing import create_test_backend

from holdtrue.authoring.app import App
from tests.unit.authoring.hub import Hub

assert issubclass(NonDeterminismError, Exception)


@dataclasses.dataclass
class Order:
    item: str
    count: int


# -- activities -----------------------------------------------------------------------------------------------


def double(ctx: Any, n: int) -> int:
    return n * 2


def fail(ctx: Any, text: str) -> None:
    raise ValueError(text)


def enlarge(ctx: Any, order: Order) -> Order:
    return Order(order.item + "!", order.count + 1)


def nothing(ctx: Any, _: Any) -> None:
    return None


attempts: dict[str, int] = {}


def flaky(ctx: Any, key: str) -> int:
    key += ctx.orchestration_id
    attempts[key] = attempts.get(key, 0) + 1
    if attempts[key] < 3:
        raise OSError(f"attempt {attempts[key]}")
    return attempts[key]


# -- orchestrators --------------------------------------------------------------------------------------------

SOON = timedelta(milliseconds=1)
LATER = timedelta(hours=1)


def chain(ctx: Any, n: int) -> Any:
    for _ in range(3):
        n = yield ctx.call_activity(double, input=n)
    return n


def fan_out(ctx: Any, count: int) -> Any:
    results = yield when_all([ctx.call_activity(double, input=n) for n in range(count)])
    return sum(results)


def first_failure(ctx: Any, _: Any) -> Any:
    tasks = [ctx.call_activity(double, input=1), ctx.call_activity(fail, input="a")]
    group = when_all(tasks)
    try:
        yield group
    except TaskFailedError as error:
        details = error.details
        return [
            details.error_type,
            details.message,
            details.is_caused_by(ValueError),
            details.is_caused_by(KeyError),
            group.is_failed,
            [t.is_complete for t in tasks],
            [t.is_failed for t in tasks],
        ]


def uncaught(ctx: Any, _: Any) -> Any:
    yield ctx.call_activity(fail, input="top")


def raises(ctx: Any, _: Any) -> Any:
    yield ctx.create_timer(SOON)
    raise KeyError("mine")


def retried(ctx: Any, key: str) -> Any:
    policy = RetryPolicy(first_retry_interval=SOON, max_number_of_attempts=5, backoff_coefficient=1.5)
    result = yield ctx.call_activity(flaky, input=key, retry_policy=policy)
    return result


def retried_out(ctx: Any, _: Any) -> Any:
    policy = RetryPolicy(first_retry_interval=SOON, max_number_of_attempts=2)
    try:
        yield ctx.call_activity(fail, input="again", retry_policy=policy)
    except TaskFailedError as error:
        return error.details.message


def race(ctx: Any, _: Any) -> Any:
    timer, work = ctx.create_timer(LATER), ctx.call_activity(double, input=4)
    winner = yield when_any([timer, work])
    timer.cancel()
    return [winner == work, winner is work, winner.get_result(), timer.is_complete, timer.is_cancelled]


def nested_groups(ctx: Any, _: Any) -> Any:
    both = when_all([ctx.call_activity(double, input=1), ctx.call_activity(double, input=2)])
    timer = ctx.create_timer(LATER)
    winner = yield when_any([both, timer])
    timer.cancel()
    outer = when_all([both, when_any([ctx.call_activity(double, input=3)])])
    results = yield outer
    return [winner == both, winner.get_result(), results[0], results[1].get_result(), outer.get_completed_tasks()]


def dataclasses_pass(ctx: Any, order: Order) -> Any:
    result = yield ctx.call_activity(enlarge, input=order)
    by_name = yield ctx.call_activity("enlarge", input=result)
    typed = yield ctx.call_activity("enlarge", input=result, return_type=Order)
    return [type(order).__name__, result.item, by_name["count"], typed.count]


def nothing_returned(ctx: Any, _: Any) -> Any:
    return [(yield ctx.call_activity(nothing)), (yield ctx.create_timer(SOON))]


def child(ctx: Any, n: int) -> Any:
    doubled = yield ctx.call_activity(double, input=n)
    return [doubled]


def bad_child(ctx: Any, _: Any) -> Any:
    yield ctx.create_timer(SOON)
    raise LookupError("child")


def parent(ctx: Any, n: int) -> Any:
    results = yield when_all([ctx.call_sub_orchestrator(child, input=i) for i in range(n)])
    return [results, ctx.parent_instance_id]


def parent_of_failure(ctx: Any, _: Any) -> Any:
    try:
        yield ctx.call_sub_orchestrator(bad_child)
    except TaskFailedError as error:
        # Not the type: the SDK's in-memory backend loses it (and the parent's id).
        return error.details.message


def events(ctx: Any, _: Any) -> Any:
    first = yield ctx.wait_for_external_event("One")
    one, two = ctx.wait_for_external_event("two"), ctx.wait_for_external_event("TWO")
    later = yield two
    return [first, (yield one), later]


def typed_event(ctx: Any, _: Any) -> Any:
    order = yield ctx.wait_for_external_event("order", data_type=Order)
    return [order.item, order.count]


def counted(ctx: Any, n: int) -> Any:
    yield ctx.create_timer(SOON)
    if n < 3:
        ctx.continue_as_new(n + 1)
        return None
    return n


def plain(ctx: Any, n: int) -> Any:
    return [n, ctx.is_replaying in (True, False), ctx.current_utc_datetime.tzinfo is None]


def status(ctx: Any, _: Any) -> Any:
    ctx.set_custom_status({"step": 1})
    yield ctx.create_timer(SOON)
    ctx.set_custom_status({"step": 2})
    return len({ctx.new_uuid() for _ in range(3)})


def signals(ctx: Any, target: str) -> Any:
    ctx.send_event(target, "One", data=1)
    ctx.send_event(target, "two", data={"n": 2})
    ctx.send_event(target, "TWO")
    yield ctx.create_timer(SOON)
    return "sent"


ACTIVITIES = [double, fail, enlarge, nothing, flaky]
ORCHESTRATORS: list[tuple[Any, Any, list[tuple[str, Any]]]] = [
    (chain, 1, []),
    (fan_out, 20, []),
    (first_failure, None, []),
    (uncaught, None, []),
    (raises, None, []),
    (retried, "k", []),
    (retried_out, None, []),
    (race, None, []),
    (nested_groups, None, []),
    (dataclasses_pass, Order("tea", 1), []),
    (nothing_returned, None, []),
    (child, 2, []),
    (parent, 3, []),
    (parent_of_failure, None, []),
    (events, None, [("ONE", 1), ("Two", "a"), ("two", None)]),
    (typed_event, None, [("Order", {"item": "x", "count": 2})]),
    (counted, 0, []),
    (plain, 5, []),
    (status, None, []),
    (signals, "events_sent", []),
]


@pytest.fixture(scope="module")
def under_the_sdk() -> Iterator[dict[str, Any]]:
    """All of them run at once under the SDK: the outcome of each by name."""
    port = _free_port()
    backend = create_test_backend(port=port)
    logging.getLogger("durabletask").setLevel(logging.CRITICAL)
    address = f"localhost:{port}"
    try:
        with sdk_worker.TaskHubGrpcWorker(host_address=address) as worker:
            for function, _, _ in ORCHESTRATORS:
                worker.add_orchestrator(function)
            worker.add_orchestrator(bad_child)
            for function in ACTIVITIES:
                worker.add_activity(function)
            worker.start()
            client = sdk_client.TaskHubGrpcClient(host_address=address)
            client.schedule_new_orchestration(events, instance_id="events_sent")
            for function, value, raised in ORCHESTRATORS:
                name = function.__name__
                client.schedule_new_orchestration(function, input=value, instance_id=name)
                for event, data in raised:
                    client.raise_orchestration_event(name, event, data=data)
            outcomes = {}
            for name in [*(f.__name__ for f, _, _ in ORCHESTRATORS), "events_sent"]:
                state = client.wait_for_orchestration_completion(name, timeout=30)
                assert state is not None
                outcomes[name] = (
                    state.runtime_status.name,
                    state.serialized_output,
                    state.serialized_custom_status,
                    state.failure_details,
                )
            yield outcomes
    finally:
        backend.stop()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def under_ours(name: str, value: Any, raised: list[tuple[str, Any]], live: bool) -> Hub:
    app = App()
    for function, _, _ in ORCHESTRATORS:
        app.orchestrator(function)
    app.orchestrator(bad_child)
    for function in ACTIVITIES:
        app.activity(function)
    hub = Hub(app, live=live)
    attempts.clear()
    hub.start("events", instance_id="events_sent")
    hub.start(name, value, instance_id=name)
    for event, data in raised:
        hub.raise_event(name, event, data)
    hub.run()
    return hub


@pytest.mark.parametrize("live", [False, True], ids=["replayed", "live"])
@pytest.mark.parametrize(("function", "value", "raised"), ORCHESTRATORS, ids=lambda v: getattr(v, "__name__", ""))
def test_both_give_the_same(
    function: Any, value: Any, raised: list[tuple[str, Any]], live: bool, under_the_sdk: dict[str, Any]
) -> None:
    name = function.__name__
    hub = under_ours(name, value, raised, live)
    for instance_id in [name, "events_sent"] if function is signals else [name]:
        theirs_status, theirs_output, theirs_custom, theirs_failure = under_the_sdk[instance_id]
        ours = hub.status(instance_id)
        decode = hub.app.converter.decode
        assert ours.status.name == theirs_status
        assert decode(ours.output) == decode(theirs_output)
        assert decode(ours.custom_status) == decode(theirs_custom)
        if theirs_failure is not None:
            assert ours.failure is not None
            assert ours.failure.error_type.rpartition(".")[2] == theirs_failure.error_type.rpartition(".")[2]
            if theirs_failure.error_type != "durabletask.task.TaskFailedError":
                assert ours.failure.message == theirs_failure.message
