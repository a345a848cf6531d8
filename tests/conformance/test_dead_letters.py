"""What could not be delivered is kept with its reason, and can be sent again."""

from holdtrue.core import events as ev
from tests.conformance.acting import Hub, begin, create, in_hub, letters_of, lock, names, start, tell


async def letters(hub: Hub, *ids: str):  # type: ignore[no-untyped-def]
    """A host with dead letters to these ids."""
    store = await hub.host()
    held = await begin(hub, store, "sender")
    for n, i in enumerate(ids):
        await held.step(tell(n, i, f"e{n}", f'"{n}"'))
        await hub.later(1)
    await letters_of(hub, store, len(ids))
    return store


@in_hub
async def test_they_are_listed_in_order_and_in_pieces(hub: Hub) -> None:
    store = await letters(hub, "x", "y", "z")
    found = await store.dead_letters()
    assert [s.letter.instance_id for s in found] == ["x", "y", "z"]
    assert found[0].number < found[1].number < found[2].number
    assert all(s.at > 0 and s.letter.reason and s.letter.message.sender == "sender" for s in found)
    event = found[1].letter.message.event
    assert isinstance(event, ev.EventRaised) and (event.name, event.input) == ("e1", '"1"')
    assert [s.number for s in await store.dead_letters(limit=2)] == [s.number for s in found[:2]]
    assert [s.number for s in await store.dead_letters(after=found[1].number)] == [found[2].number]
    assert (await store.info()).dead_letters == 3


@in_hub
async def test_sent_again_when_the_instance_is_there(hub: Hub) -> None:
    store = await letters(hub, "x", "y")
    found = await store.dead_letters()
    assert await store.resend([s.number for s in found]) == 0
    assert len(await store.dead_letters()) == 2
    await create(store, start("x"))
    assert await store.resend([s.number for s in found]) == 1
    assert [s.letter.instance_id for s in await store.dead_letters()] == ["y"]
    held = (await lock(hub, store))["x"]
    assert names(held.inbox) == ["e0"]
    assert await store.resend([found[0].number]) == 0


@in_hub
async def test_dismissed(hub: Hub) -> None:
    store = await letters(hub, "x", "y")
    first, second = await store.dead_letters()
    assert await store.dismiss([first.number, first.number, 99_999]) == 1
    assert [s.number for s in await store.dead_letters()] == [second.number]
    assert await store.dismiss([]) == 0 and await store.resend([]) == 0


@in_hub
async def test_they_stay_when_their_sender_goes(hub: Hub) -> None:
    from tests.conformance.acting import end

    store = await hub.host()
    held = await begin(hub, store, "sender", tell(0, "x", "e"))
    await held.step(end())
    await store.purge(["sender"])
    assert len(await letters_of(hub, store, 1)) == 1
