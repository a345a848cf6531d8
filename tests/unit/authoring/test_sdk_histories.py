"""Histories that the official SDK has written, here by its in-memory backend, are replayed by the Python dialect."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from durabletask import client as sdk_client
from durabletask import worker as sdk_worker
from durabletask.task import RetryPolicy, TaskFailedError, when_all
from durabletask.testing import create_test_backend

from holdtrue.authoring.app import App
from holdtrue.core import events as ev
from holdtrue.core.dialect import PYTHON, detect, to_ticks
from holdtrue.core.replay import Run
from tests.unit.authoring import test_dual_run as programs

SOON = timedelta(milliseconds=1)


def everything(ctx: Any, _: Any) -> Any:
    policy = RetryPolicy(first_retry_interval=SOON, max_number_of_attempts=3)
    seen = [ctx.new_uuid()]
    try:
        yield ctx.call_sub_orchestrator(programs.bad_child, retry_policy=policy)
    except TaskFailedError as error:
        seen.append(error.details.message)
    seen.append(ctx.new_uuid())
    ctx.create_timer(timedelta(hours=1)).cancel()
    flaky = ctx.call_activity(programs.flaky, input="everything", retry_policy=policy)
    seen += yield when_all([flaky, ctx.call_activity(programs.double, input=3)])
    seen.append((yield ctx.call_sub_orchestrator(programs.child, input=4)))
    ctx.send_event("nobody", "x", data=1)
    yield ctx.create_timer(SOON)
    return [*seen, ctx.new_uuid()]


ORCHESTRATORS = [*programs.ORCHESTRATORS, (everything, None, [])]


def translated(theirs: Any) -> ev.HistoryEvent:
    """One of the SDK's events as ours."""
    kind = theirs.WhichOneof("eventType")
    event = getattr(theirs, kind)
    values: dict[str, Any] = {"timestamp": to_ticks(theirs.timestamp.ToDatetime())}
    names = {field.name for field in event.DESCRIPTOR.fields}
    for ours, name in (("input", "input"), ("result", "result")):
        if name in names and event.HasField(name):
            values[ours] = getattr(event, name).value
    for ours, name in (
        ("name", "name"),
        ("instance_id", "instanceId"),
        ("task_scheduled_id", "taskScheduledId"),
        ("timer_id", "timerId"),
        ("status", "orchestrationStatus"),
    ):
        if name in names:
            values[ours] = getattr(event, name)
    if "fireAt" in names:
        values["fire_at"] = to_ticks(event.fireAt.ToDatetime())
    if kind.endswith("Failed"):
        failure = event.failureDetails
        values["failure"] = ev.FailureDetails(message=failure.errorMessage, error_type=failure.errorType)
    if kind == "executionStarted":
        values |= {"instance_id": event.orchestrationInstance.instanceId, "execution_id": "x"}
    if kind in ("taskScheduled", "subOrchestrationInstanceCreated", "timerCreated", "eventSent", "executionCompleted"):
        values["event_id"] = theirs.eventId
    made: ev.HistoryEvent = getattr(ev, kind[0].upper() + kind[1:])(**values)
    return made


@pytest.fixture(scope="module")
def written() -> Iterator[dict[str, tuple[list[ev.HistoryEvent], str | None]]]:
    """History and output of each orchestrator, as the SDK has made them."""
    port = programs._free_port()
    backend = create_test_backend(port=port)
    address = f"localhost:{port}"
    programs.attempts.clear()
    try:
        with sdk_worker.TaskHubGrpcWorker(host_address=address) as worker:
            for function, _, _ in ORCHESTRATORS:
                worker.add_orchestrator(function)
            worker.add_orchestrator(programs.bad_child)
            for function in programs.ACTIVITIES:
                worker.add_activity(function)
            worker.start()
            client = sdk_client.TaskHubGrpcClient(host_address=address)
            client.schedule_new_orchestration(programs.events, instance_id="events_sent")
            for function, value, raised in ORCHESTRATORS:
                client.schedule_new_orchestration(function, input=value, instance_id=function.__name__)
                for event, data in raised:
                    client.raise_orchestration_event(function.__name__, event, data=data)
            found = {}
            for function, _, _ in ORCHESTRATORS:
                state = client.wait_for_orchestration_completion(function.__name__, timeout=30)
                assert state is not None
                history = [translated(event) for event in backend._instances[function.__name__].history]
                found[function.__name__] = (history, state.serialized_output if not state.failure_details else None)
            yield found
    finally:
        backend.stop()
        programs.attempts.clear()


@pytest.mark.parametrize("name", [function.__name__ for function, _, _ in ORCHESTRATORS])
def test_a_history_of_the_sdk_is_replayed(name: str, written: dict[str, Any]) -> None:
    app = App()
    for function, _, _ in ORCHESTRATORS:
        app.orchestrator(function)
    app.orchestrator(programs.bad_child)
    for function in programs.ACTIVITIES:
        app.activity(function)
    history, output = written[name]
    # (Where there was no task, nothing tells the dialects apart.)
    assert detect(history) is PYTHON or all(event.event_id < 0 for event in history)
    run = Run(app.author, PYTHON)
    run.replay(history)
    assert run.completion is not None
    decode = app.converter.decode
    assert decode(run.completion.result) == decode(output)
