"""Large payloads of every kind, in every place, come back whole."""

import pytest

from holdtrue.core import events as ev
from tests.conformance.acting import (
    EVERY,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    create,
    end,
    history_of,
    in_hub,
    lock_one,
    raised,
    record_of,
    send,
    start,
    with_work,
)

MANY = "é\U0001f680'\"\\\x00%_" * 40_000


@pytest.mark.parametrize("size", [1, 1_000, 64 * 1024, 1024 * 1024, 5 * 1024 * 1024])
@in_hub
async def test_in_every_place(hub: Hub, size: int) -> None:
    big = MANY[:size] if size <= len(MANY) else MANY * (size // len(MANY) + 1)
    store = await hub.host()
    await create(store, start("a", input="i" + big))
    await send(store, raised("a", "e", "d" + big))
    held = await lock_one(hub, store, "a")
    assert held.record.started.input == "i" + big
    await held.step(act(0, input="t" + big), child(1, "c", "s" + big), custom="c" + big)
    (item,) = await store.lock_activities(1)
    assert item.task.input == "t" + big
    assert await store.report(item.ref, "p" + big, "h" + big)
    (info,) = await store.activities_of("a")
    assert info.progress == "p" + big
    c = await lock_one(hub, store, "c")
    assert c.record.projection.input == "s" + big
    outcome = await c.step(end(output="o" + big))
    await held.hear(*outcome.deliveries)
    done = ev.TaskCompleted(timestamp=1, task_scheduled_id=0, result="r" + big)
    held.inbox.append(with_work(item, done))
    await held.step(end(output="o" + big))
    p = (await record_of(store, "a")).projection
    assert (p.input, p.output, p.custom_status) == ("i" + big, "o" + big, "c" + big)
    results = [
        e
        for e in await history_of(store, "a")
        if isinstance(e, (ev.TaskCompleted, ev.SubOrchestrationInstanceCompleted))
    ]
    assert sorted(str(e.result)[0] for e in results) == ["o", "r"] and all(str(e.result)[1:] == big for e in results)
    await check_whole(store, "a")


@in_hub
async def test_a_loop_with_very_large_input_and_then_a_small_one(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", input="0" + MANY)
    for n in range(1, 5):
        await held.step(again(input=str(n) + (MANY if n % 2 else "")))
        assert (await record_of(store, "a")).projection.input == str(n) + (MANY if n % 2 else "")
    await held.step(end())
    await create(store, start("a", input="small", over=EVERY))
    assert (await record_of(store, "a")).projection.input == "small"


@pytest.mark.parametrize(
    "odd",
    [
        "https://example.com/blob",
        "null",
        '"',
        "\ud83d".encode("utf-16", "surrogatepass").decode("latin-1"),
        "\x00",
        " ",
    ],
)
@in_hub
async def test_payloads_that_look_like_something_else(hub: Hub, odd: str) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0, input=odd), input=odd, custom=odd)
    (item,) = await store.lock_activities(1)
    assert item.task.input == odd
    await held.step(end(output=odd))
    p = (await record_of(store, "a")).projection
    assert (p.input, p.output, p.custom_status) == (odd, odd, odd)


@in_hub
async def test_a_fan_out_of_fifty_thousand(hub: Hub) -> None:
    store = await hub.host()
    many = hub.many(50_000)
    held = await begin(hub, store, "a", *(act(n) for n in range(many)), take_activities=10)
    assert (await record_of(store, "a")).length == many + 3
    seen = 10 if hub.traits.takes_along else 0
    while items := await store.lock_activities(5_000):
        seen += len(items)
    assert seen == many
    await held.step(end())
    assert (await store.info()).activities == 0
