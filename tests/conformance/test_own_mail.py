"""What a host does to an instance that it holds itself, by a call that gives it no delivery: it fetches that."""

import asyncio

from holdtrue.stores.protocol import CreateResult, Notice, StoredSchedule, TickCommit
from tests.conformance.acting import (
    EVERY,
    Hub,
    begin,
    child,
    in_hub,
    kinds,
    letters_of,
    lock,
    names,
    raised,
    send,
    stand,
    start,
    tell,
)


async def called(notices: "asyncio.Queue[Notice]") -> None:
    """It is told that there is something to be fetched."""
    async with asyncio.timeout(20):
        while not (await notices.get()).work:
            pass


@in_hub
async def test_the_answer_for_a_child_that_was_replaced(hub: Hub) -> None:
    store = await hub.host()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    store.listen(notices.put_nowait)
    parent = await begin(hub, store, "p", child(0, "c"))
    await stand(hub, store, "c")
    (outcome,) = await store.create([start("c", name="child", over=EVERY)])
    assert outcome.result is CreateResult.REPLACED
    await stand(hub, store, "c")
    await called(notices)
    assert kinds(await parent.fetch()) == ["SubOrchestrationInstanceFailed"]
    assert await store.fetch() == []


@in_hub
async def test_a_message_of_a_tick(hub: Hub) -> None:
    store = await hub.host()
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    store.listen(notices.put_nowait)
    held = await begin(hub, store, "a")
    etag = await store.put_schedule(
        StoredSchedule(schedule_id="s", definition="{}", state="", due=1, etag=0), expect=None
    )
    assert etag is not None
    tick = TickCommit(schedule_id="s", etag=etag, state="", due=2, messages=[raised("a", "tick")])
    assert await store.commit_tick(tick) is None
    await called(notices)
    await held.fetch()
    assert names(held.inbox) == ["tick"]


@in_hub
async def test_a_dead_letter_that_is_sent_again(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "sender", tell(0, "a", "late"))
    (letter,) = await letters_of(hub, store, 1)
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    store.listen(notices.put_nowait)
    held = await begin(hub, store, "a")
    assert await store.resend([letter.number]) == 1
    await called(notices)
    await held.fetch()
    assert names(held.inbox) == ["late"]


@in_hub
async def test_what_was_locked_anew_is_not_fetched_as_well(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "sender", tell(0, "a", "late"))
    (letter,) = await letters_of(hub, store, 1)
    held = await begin(hub, store, "a")
    await store.resend([letter.number])
    await send(store, raised("a", "second"))
    await held.put_back()
    (again,) = (await lock(hub, store)).values()
    assert names(again.inbox) == ["late", "second"]
    assert await store.fetch() == []
