"""Messages to instances: order, whom they reach, when they come, and what becomes of those for nobody."""

import asyncio

import pytest

from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Status
from holdtrue.stores.protocol import SendResult
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    create,
    end,
    ended,
    fail,
    in_hub,
    kinds,
    letters_of,
    lock,
    lock_by,
    lock_one,
    names,
    raised,
    record_of,
    send,
    start,
    status_of,
    suspend,
    tell,
    terminate,
)


@in_hub
async def test_to_nobody_and_to_one_that_has_ended(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a")
    results = await send(store, raised("a", "e"), raised("nobody", "e"), terminate("nobody"), terminate("a"))
    assert [r.result for r in results] == [
        SendResult.ENDED, SendResult.NOT_FOUND, SendResult.NOT_FOUND, SendResult.ENDED,
    ]  # fmt: skip
    assert all(r.delivery is None for r in results)
    assert await lock(hub, store) == {} and await store.dead_letters() == []
    assert await store.status(["nobody"]) == [None]
    assert await store.send([]) == []


@in_hub
async def test_they_keep_their_order_over_calls_and_senders(hub: Hub) -> None:
    store, other = await hub.host(), await hub.open()
    await create(store, start("a"))
    for n in range(0, 60, 3):
        await send(store, raised("a", f"e{n}"), raised("a", f"e{n + 1}"))
        await send(other, raised("a", f"e{n + 2}"))
    held = await lock_one(hub, store, "a")
    assert names(held.inbox) == [f"e{n}" for n in range(60)]


@in_hub
async def test_to_an_instance_that_the_sender_holds_it_is_delivered_at_once(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    (outcome,) = await send(store, raised("a", "e", [1]))
    assert outcome.delivery is None or outcome.delivery.instance == held.lease.key
    assert kinds(await held.hear(outcome.delivery)) == ["EventRaised"]
    assert await store.fetch() == []
    commit = held.episode(end())
    assert len(commit.consumed) == 1
    await held.commit(commit)
    assert await status_of(store, "a") is Status.COMPLETED


@in_hub
async def test_to_one_that_another_process_holds_it_is_fetched_by_that_one_once(hub: Hub) -> None:
    holder, other = await hub.host("holder"), await hub.host("other")
    held = await begin(hub, holder, "a")
    outcomes = await send(other, raised("a", "one"), raised("a", "two"))
    assert [o.delivery for o in outcomes] == [None, None]
    assert await lock(hub, other) == {} and await other.fetch() == []
    await held.fetch()
    assert names(held.inbox) == ["one", "two"]
    assert await holder.fetch() == []


@in_hub
async def test_what_was_not_fetched_is_there_at_the_next_lock(hub: Hub) -> None:
    holder, other = await hub.host("holder"), await hub.host("other")
    held = await begin(hub, holder, "a")
    await send(other, raised("a", "one"))
    await held.put_back()
    taken = await lock_by(hub, "a", other, holder)
    assert names(taken.inbox) == ["one"]
    assert await holder.fetch() == []


@in_hub
async def test_what_was_delivered_and_not_consumed_comes_again(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await send(store, raised("a", "one"), raised("a", "two"))
    await held.put_back()
    held = await lock_one(hub, store, "a")
    assert names(held.inbox) == ["one", "two"]
    first = held.inbox.pop(0)
    await held.commit(held.episode(messages=[first]), keep=False)
    held = await lock_one(hub, store, "a")
    assert names(held.inbox) == ["two"]


@in_hub
async def test_a_message_that_comes_while_an_episode_is_committed_is_not_lost(hub: Hub) -> None:
    store, other = await hub.host(), await hub.open()
    held = await begin(hub, store, "a", keep=False)
    got: list[str] = []
    for n in range(40):
        await send(other, raised("a", f"e{n}"))
        held = await lock_one(hub, store, "a")
        commit = held.episode()
        results = await asyncio.gather(
            store.commit([held.committing(commit, keep=False)]), send(other, raised("a", f"f{n}"))
        )
        assert results[1][0].result is SendResult.ACCEPTED
        held = await lock_one(hub, store, "a")
        got += names(held.inbox)
        await held.step(keep=False)
    assert got == [f"f{n}" for n in range(40)]


@in_hub
async def test_one_with_a_time_is_not_seen_before_it(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", keep=False)
    at = hub.now() + 60 * SECOND
    await send(store, OutboundMessage(instance_id="a", event=ev.EventRaised(timestamp=1, name="late"), due=at))
    await send(store, OutboundMessage(instance_id="a", event=ev.EventRaised(timestamp=1, name="past"), due=1))
    held = await lock_one(hub, store, "a")
    assert names(held.inbox) == ["past"]
    await held.step()
    hub.clock.ahead = 61
    await held.hear(*(await store.fire_due(hub.now())).deliveries)
    assert names(held.inbox) == ["late"]


@in_hub
async def test_for_an_earlier_execution_they_reach_nobody_else(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "a", execution="old")
    await create(store, start("a", execution="new"))
    answer = OutboundMessage(
        instance_id="a",
        execution_id="old",
        scheduled=2,
        event=ev.TaskCompleted(timestamp=1, task_scheduled_id=0, result="1"),
    )
    await send(store, answer)
    held = await lock_one(hub, store, "a")
    # Whether the store drops it or the core: nothing of it is in the history.
    await held.step(act(0))
    assert not any(isinstance(e, ev.TaskCompleted) for e in await store.load(held.lease))


@in_hub
async def test_what_an_instance_sends_reaches_others_and_itself_in_order(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "other", keep=False)
    held = await begin(
        hub,
        store,
        "a",
        tell(0, "other", "one"),
        tell(1, "a", "to myself"),
        tell(2, "other", "two"),
        tell(3, "a", "again"),
    )
    assert names(held.inbox) == ["to myself", "again"]
    await held.step(end())
    other = await lock_one(hub, store, "other")
    assert names(other.inbox) == ["one", "two"]


@in_hub
async def test_what_an_instance_sends_to_nobody_is_a_dead_letter_and_it_goes_on(hub: Hub) -> None:
    store = await hub.host()
    await ended(hub, store, "gone")
    await create(store, start("a"))
    held = await lock_one(hub, store, "a")
    outcome = await held.step(tell(0, "nobody", "e", "1"), tell(1, "gone", "too late"), act(2))
    (letter,) = await letters_of(hub, store, 1)
    if not hub.traits.settles:
        assert [d.instance_id for d in outcome.dead] == ["nobody"]
    assert letter.letter.instance_id == "nobody" and letter.letter.reason
    assert letter.letter.message.sender == "a"
    assert len(await store.lock_activities(10)) == 1


@in_hub
async def test_an_end_takes_the_waiting_messages_with_it(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a")
    await send(store, raised("a", "unseen"))
    await held.step(end())
    assert await lock(hub, store) == {}
    assert not hub.traits.counts or (await store.info()).messages == 0
    await create(store, start("a"))
    assert names((await lock_one(hub, store, "a")).inbox) == []


@pytest.mark.parametrize("falsy", ["null", "0", "false", '""', "[]", "{}", None, ""])
@in_hub
async def test_empty_and_falsy_payloads_stay_what_they_are(hub: Hub, falsy: str | None) -> None:
    store = await hub.host()
    await create(store, start("a", input=falsy))
    await send(store, OutboundMessage(instance_id="a", event=ev.EventRaised(timestamp=1, name="e", input=falsy)))
    held = await lock_one(hub, store, "a")
    assert held.record.projection.input == falsy
    assert held.inbox[1].event.input == falsy  # type: ignore[attr-defined]
    await held.step(act(0, input=falsy), custom=falsy)
    (item,) = await store.lock_activities(1)
    assert item.task.input == falsy
    assert (await record_of(store, "a")).projection.custom_status == falsy
    await held.step(end(output=falsy))
    assert (await record_of(store, "a")).projection.output == falsy


@in_hub
async def test_lifecycle_commands_wait_like_any_message(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", keep=False)
    await send(store, suspend("a"), raised("a", "while it rests"))
    held = await lock_one(hub, store, "a")
    await held.step(keep=False)
    assert await status_of(store, "a") is Status.SUSPENDED
    await send(store, OutboundMessage(instance_id="a", event=ev.ExecutionResumed(timestamp=1)))
    held = await lock_one(hub, store, "a")
    await held.step(fail(), keep=False)
    assert await status_of(store, "a") is Status.FAILED
