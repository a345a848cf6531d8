"""Listing: every condition, and pages that stay complete while rows come, end and go."""

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.core.projection import Status
from holdtrue.stores.protocol import InstanceQuery, TaskHubStore
from tests.conformance.acting import SECOND, Hub, act, begin, create, end, fail, in_hub, lock, start


async def ids(store: TaskHubStore, **query: object) -> list[str]:
    """All pages of a query."""
    found: list[str] = []
    token = None
    while True:
        page = await store.query(InstanceQuery(token=token, **query))  # type: ignore[arg-type]
        assert len(page.records) <= query.get("page_size", 100)  # type: ignore[operator]
        found += [r.projection.instance_id for r in page.records]
        if page.token is None:
            return found
        token = page.token


@in_hub
async def test_nothing(hub: Hub) -> None:
    store = await hub.open()
    page = await store.query(InstanceQuery())
    assert page.records == [] and page.token is None


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 12, 100])
@in_hub
async def test_pages_of_any_size_are_complete_and_in_order(hub: Hub, size: int) -> None:
    store = await hub.open()
    await create(store, *(start(f"i{n:02}", at=(100 - n) * SECOND) for n in range(11)))
    found = await ids(store, page_size=size)
    assert sorted(found) == [f"i{n:02}" for n in range(11)] and len(set(found)) == 11
    assert await ids(store, page_size=size, newest_first=True) == found[::-1]


@in_hub
async def test_newest_first_is_the_last_created_first(hub: Hub) -> None:
    store = await hub.open()
    for n in range(5):
        await create(store, start(f"i{n}", at=(10 + n) * SECOND))
    assert await ids(store, newest_first=True) == ["i4", "i3", "i2", "i1", "i0"]
    assert await ids(store, page_size=2) == ["i0", "i1", "i2", "i3", "i4"]


@in_hub
async def test_by_status(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "done", end(), at=1_000 * SECOND)
    await begin(hub, store, "bad", fail(), at=1_001 * SECOND)
    await begin(hub, store, "busy")
    await create(store, start("new"))
    assert await ids(store, statuses=frozenset((Status.COMPLETED, Status.FAILED))) == ["done", "bad"]
    assert await ids(store, statuses=frozenset((Status.RUNNING,))) == ["busy"]
    assert await ids(store, statuses=frozenset((Status.PENDING,))) == ["new"]
    assert await ids(store, statuses=frozenset((Status.SUSPENDED,))) == []
    assert await ids(store, statuses=frozenset()) == []


@in_hub
async def test_by_name_and_version_of_letters(hub: Hub) -> None:
    store = await hub.open()
    await create(
        store, start("a", name="Load"), start("b", name="load"), start("c", name="load%"), start("d", name="lo_d")
    )
    assert await ids(store, name="load") == ["b"]
    assert await ids(store, name="load%") == ["c"] and await ids(store, name="lo_d") == ["d"]


@in_hub
async def test_by_prefix_taken_literally(hub: Hub) -> None:
    store = await hub.open()
    names = [
        "a",
        "a%b",
        "a_b",
        "axb",
        "A",
        "ab",
        "a\U0010ffff",
        "a\U0010ffffz",
        "é1",
        "é2",
        "b",
        "a'b",
        "a*b",
        "a[b",
        "a\x00b",
    ]
    await create(store, *(start(n) for n in names))
    for prefix in ("a", "a%", "a_", "é", "a\U0010ffff", "a'", "a*", "a[", "z", "b", "a\x00"):
        assert sorted(await ids(store, prefix=prefix)) == sorted(n for n in names if n.startswith(prefix)), prefix


@in_hub
async def test_by_time_of_creation_with_the_end_excluded(hub: Hub) -> None:
    store = await hub.open()
    await create(store, *(start(f"i{n}", at=n * SECOND) for n in range(6)))
    assert sorted(await ids(store, created_from=2 * SECOND, created_to=4 * SECOND)) == ["i2", "i3"]
    assert sorted(await ids(store, created_from=4 * SECOND)) == ["i4", "i5"]
    assert await ids(store, created_to=0) == []


@in_hub
async def test_by_time_of_completion(hub: Hub) -> None:
    store = await hub.host()
    for n in range(4):
        await create(store, start(f"i{n}"))
    for n, held in enumerate((await lock(hub, store)).values()):
        if n < 3:
            await held.commit(held.episode(end(), now=(10 + n) * SECOND))
    assert sorted(await ids(store, completed_to=12 * SECOND)) == ["i0", "i1"]


@in_hub
async def test_by_tags_all_of_them(hub: Hub) -> None:
    store = await hub.open()
    await create(
        store,
        start("a", tags={"team": "red", "tier": "1"}),
        start("b", tags={"team": "red"}),
        start("c", tags={"team": "blue", "tier": "1"}),
        start("d"),
        start("e", tags={"te'am\"": "r%d", "Ω": ""}),
    )
    assert await ids(store, tags={"team": "red"}) == ["a", "b"]
    assert await ids(store, tags={"team": "red", "tier": "1"}) == ["a"]
    assert await ids(store, tags={"te'am\"": "r%d"}) == ["e"] and await ids(store, tags={"Ω": ""}) == ["e"]
    assert await ids(store, tags={"team": ""}) == [] and await ids(store, tags={"$.team": "red"}) == []


@in_hub
async def test_conditions_together(hub: Hub) -> None:
    store = await hub.host()
    for n in range(12):
        await create(
            store, start(f"{'xy'[n % 2]}{n}", name=("code", "child")[n % 3 == 0], at=n * SECOND, tags={"n": str(n % 4)})
        )
    for held in list((await lock(hub, store)).values())[:6]:
        await held.step(end())
    everything = (await store.query(InstanceQuery(page_size=1_000))).records
    wanted = [
        r.projection.instance_id
        for r in everything
        if r.projection.status is Status.COMPLETED and r.projection.name == "code"
        and r.projection.instance_id.startswith("x") and (r.projection.tags or {}).get("n") == "2"
        and 1 * SECOND <= r.projection.created_at < 11 * SECOND
    ]  # fmt: skip
    found = await ids(
        store, statuses=frozenset((Status.COMPLETED,)), name="code", prefix="x", tags={"n": "2"},
        created_from=1 * SECOND, created_to=11 * SECOND, page_size=1,
    )  # fmt: skip
    assert found == wanted


@pytest.mark.parametrize("newest_first", [False, True])
@in_hub
async def test_pages_stay_complete_while_rows_come_end_and_go(hub: Hub, newest_first: bool) -> None:
    store = await hub.host()
    await create(store, *(start(f"i{n:03}", at=n * SECOND) for n in range(60)))
    held = await lock(hub, store)
    found: list[str] = []
    token, turn = None, 0
    while True:
        page = await store.query(InstanceQuery(page_size=7, token=token, newest_first=newest_first))
        assert turn < 40, "the pages never end"
        found += [r.projection.instance_id for r in page.records]
        # Seen ones are purged, one yet to come ends, and new ones are made in the meantime.
        for instance_id in found[-7:-4]:
            if instance_id in held and not held[instance_id].state.projection.status.is_terminal:
                await held[instance_id].step(end())
            await store.purge([instance_id])
        ahead = f"i{40 - turn:03}"
        if ahead not in found and not held[ahead].state.projection.status.is_terminal:
            await held[ahead].step(end())
        await create(store, start(f"new{turn}", at=(1_000 + turn) * SECOND))
        turn += 1
        token = page.token
        if token is None:
            break
    old = [i for i in found if i.startswith("i")]
    assert sorted(old) == [f"i{n:03}" for n in range(60)] and len(found) == len(set(found))


@in_hub
async def test_one_that_is_replaced_meanwhile_hides_no_other(hub: Hub) -> None:
    store = await hub.host()
    for n in range(20):
        await begin(hub, store, f"i{n:02}", end(), at=n * SECOND)
    page = await store.query(InstanceQuery(page_size=5))
    found = [r.projection.instance_id for r in page.records]
    await create(store, start("i02", at=2 * SECOND), start("i12", at=50 * SECOND))
    while page.token is not None:
        page = await store.query(InstanceQuery(page_size=5, token=page.token))
        found += [r.projection.instance_id for r in page.records]
    assert set(found) >= {f"i{n:02}" for n in range(20)}


@in_hub
async def test_records_of_a_page_are_whole(hub: Hub) -> None:
    store = await hub.host()
    await begin(hub, store, "a", act(0), custom='"c"', tags={"k": "v"}, input='"i"')
    (record,) = (await store.query(InstanceQuery())).records
    (same,) = await store.status(["a"])
    assert record == same


@pytest.mark.parametrize("token", ["", "no token", "%%%", "0", "bm90IGEgdG9rZW4="])
@in_hub
async def test_a_token_that_is_none_is_refused_or_harmless(hub: Hub, token: str) -> None:
    store = await hub.open()
    await create(store, start("a"))
    try:
        page = await store.query(InstanceQuery(token=token))
    except InvalidInput:
        return
    assert len(page.records) <= 1
