"""Which ended instances have expired: by age, by count, by orchestration; and copies of a hub."""

from pathlib import Path

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.errors import StoreError
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    begin,
    child,
    create,
    end,
    in_hub,
    lock,
    start,
    status_of,
    where,
    where_not,
)


async def ended_at(hub: Hub, store, *ids: str, name: str = "code", first: int = 1) -> None:  # type: ignore[no-untyped-def]
    """Instances that ended one second after the other."""
    await create(store, *(start(i, name=name) for i in ids))
    for n, held in enumerate((await lock(hub, store)).values(), first):
        await held.commit(held.episode(end(), now=n * SECOND))


@in_hub
async def test_by_age_and_by_count(hub: Hub) -> None:
    store = await hub.host()
    await ended_at(hub, store, *(f"i{n}" for n in range(6)))
    await begin(hub, store, "busy")
    assert await store.expired(None, 4 * SECOND, None, 100) == ["i0", "i1", "i2"]
    assert await store.expired(None, None, 2, 100) == ["i0", "i1", "i2", "i3"]
    assert await store.expired(None, None, 2, 3) == ["i0", "i1", "i2"]
    assert await store.expired(None, None, 0, 100) == [f"i{n}" for n in range(6)]
    assert await store.expired(None, SECOND, None, 100) == []
    assert await store.expired(None, None, 10, 100) == []


@in_hub
async def test_by_orchestration_and_leaving_some_out(hub: Hub) -> None:
    store = await hub.host()
    await ended_at(hub, store, "a0", "a1", name="code")
    await ended_at(hub, store, "b0", "b1", name="child", first=10)
    assert await store.expired("child", None, 1, 100) == ["b0"]
    assert await store.expired(None, 100 * SECOND, None, 100, ["child"]) == ["a0", "a1"]
    assert await store.expired(None, None, 1, 100, ["code"]) == ["b0"]


@in_hub
async def test_children_go_with_their_parents_only(hub: Hub) -> None:
    store = await hub.host()
    parent = await begin(hub, store, "p", child(0, "c"))
    (c,) = (await lock(hub, store)).values()
    await c.step(end())
    assert await store.expired(None, hub.now() + SECOND, None, 100) == []
    await parent.fetch()
    await parent.step(end())
    assert await store.expired(None, hub.now() + SECOND, None, 100) == ["p"]


@where_not("copies")
@in_hub
async def test_a_store_that_cannot_be_copied_says_so(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0))
    with pytest.raises(StoreError, match="export"):
        await store.backup("anywhere")
    assert await status_of(store, "a") is Status.RUNNING


@where("copies")
@in_hub
async def test_a_copy_is_a_hub(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    await begin(hub, store, "b", end())
    target: Path = hub._place / "copy" / "hub.db"
    target.parent.mkdir()
    await store.backup(str(target))
    await held.step(end())
    copy = Hub(hub._opener, target.parent)
    try:
        other = await copy.host()
        assert await status_of(other, "a") is Status.RUNNING
        assert await status_of(other, "b") is Status.COMPLETED
        assert len(await other.lock_activities(10)) == 1
        await create(other, start("c"))
    finally:
        await copy.close()
    assert await status_of(store, "c") is None
