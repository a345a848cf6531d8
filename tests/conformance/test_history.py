"""Histories come back as they were written: every event of the family, from any ordinal on."""

from typing import Any

from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from tests.conformance.acting import (
    Hub,
    act,
    begin,
    create,
    end,
    history_of,
    in_hub,
    kinds,
    lock_one,
    raised,
    send,
    start,
)


@in_hub
async def test_from_an_ordinal_on_over_many_episodes(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    for n in range(30):
        await held.step(act(n))
    whole = await history_of(store, "a")
    assert whole == await store.load(held.lease)
    for first in (0, 1, 2, 3, 4, 44, len(whole) - 1, len(whole), len(whole) + 5):
        assert await history_of(store, "a", first) == whole[first:]


@in_hub
async def test_every_member_of_every_event_comes_back(hub: Hub) -> None:
    store = await hub.host()
    details = ev.FailureDetails(message="m", error_type="t", properties={"a": [1, {"b": None}]})
    odd: list[Any] = [
        ev.ExecutionSuspended(timestamp=3, reason="Grüße \U0001f680"),
        ev.ExecutionResumed(timestamp=4, reason=""),
        ev.EventRaised(timestamp=ev.MAX_TICKS, name="Name's \"%_\x00", input="", parent_trace_context="00-ab-cd-01"),
        ev.TaskFailed(timestamp=5, task_scheduled_id=0, failure=details),
        ev.TaskCompleted(timestamp=6, task_scheduled_id=1, result=None),
        ev.GenericEvent(timestamp=7, data="without effect"),
    ]
    held = await begin(hub, store, "a", act(0), act(1), input='"\\u0000"', tags={"t": "ü"})
    for event in odd[:-1]:
        (outcome,) = await send(store, OutboundMessage(instance_id="a", event=event))
        await held.hear(outcome.delivery)
        await held.step()
    found = await history_of(store, "a")
    for event in odd[:-1]:
        assert event in found
    started = next(e for e in found if isinstance(e, ev.ExecutionStarted))
    assert (started.input, started.tags) == ('"\\u0000"', {"t": "ü"})


@in_hub
async def test_a_reader_sees_whole_episodes_only(hub: Hub) -> None:
    store, reader = await hub.host(), await hub.open()
    held = await begin(hub, store, "a")
    for n in range(10):
        await held.step(act(2 * n), act(2 * n + 1))
        found = kinds(await history_of(reader, "a"))
        assert found[-1] == "OrchestratorCompleted" and found.count("TaskScheduled") == 2 * n + 2


@in_hub
async def test_a_reader_that_is_slow_sees_one_execution_only(hub: Hub) -> None:
    """The execution is replaced while its history is read: what comes is of one of them."""
    store = await hub.host()
    held = await begin(hub, store, "a", *(act(n) for n in range(10)), execution="old")
    for n in range(10, 400):
        await held.step(act(n))
    found: list[ev.HistoryEvent] = []
    first = True
    async for piece in store.history("a"):
        found += piece
        if first:
            first = False
            await held.step(end())
            await create(store, start("a", execution="new"))
            new = await lock_one(hub, store, "a")
            await new.step(act(0), act(1))
    executions = {e.execution_id for e in found if isinstance(e, ev.ExecutionStarted)}
    assert executions == {"old"}
    scheduled = [e.event_id for e in found if isinstance(e, ev.TaskScheduled)]
    assert scheduled == sorted(set(scheduled))


@in_hub
async def test_ordinals_go_on_over_lock_and_load(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0), keep=False)
    for n in range(5):
        await send(store, raised("a", f"e{n}"))
        held = await lock_one(hub, store, "a")
        assert held.state.length == held.record.length
        commit = held.episode()
        assert commit.first == held.record.length
        await held.commit(commit, keep=False)
    found = await history_of(store, "a")
    assert [e.name for e in found if isinstance(e, ev.EventRaised)] == [f"e{n}" for n in range(5)]
