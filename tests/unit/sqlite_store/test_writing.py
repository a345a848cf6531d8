"""The writer: what is written together, both forms of statements, keys that are taken, a log that stays bounded."""

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from holdtrue.core import events as ev
from holdtrue.core.projection import Status
from holdtrue.stores import errors
from holdtrue.stores.protocol import CommitResult
from holdtrue.stores.sqlite import SqliteStore, reading, restore, upkeep, writer
from holdtrue.stores.sqlite import store as store_module
from holdtrue.stores.sqlite.rows import activity_key
from holdtrue.stores.sqlite.transaction import places_of
from holdtrue.stores.sqlite.writer import Operation
from tests.conformance.acting import (
    SECOND,
    Hub,
    act,
    again,
    begin,
    check_whole,
    child,
    create,
    done,
    end,
    fail,
    history_of,
    in_hub,
    lock,
    raised,
    record_of,
    send,
    start,
    status_of,
    tell,
    terminate,
    timer,
    with_work,
)


@pytest.fixture(params=["loop", "thread"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where transactions are done."""
    monkeypatch.setattr(writer, "_QUICK_SECONDS", 1e9 if request.param == "loop" else -1.0)
    return str(request.param)


def transactions(store: object) -> int:
    assert isinstance(store, SqliteStore) and store._writer is not None
    return store._writer._marks


@in_hub
async def test_what_comes_together_is_one_transaction(hub: Hub, where: str) -> None:
    store = await hub.host()
    before = transactions(store)
    await asyncio.gather(*(store.create([start(f"i{n}")]) for n in range(50)))
    assert transactions(store) - before <= (1 if where == "loop" else 50)
    held = await lock(hub, store)
    before = transactions(store)
    await asyncio.gather(*(one.step(act(0)) for one in held.values()))
    assert transactions(store) - before <= (1 if where == "loop" else 50)
    for instance_id in held:
        await check_whole(store, instance_id)


@in_hub
async def test_looks_at_the_clock_and_into_the_mail_that_wait_for_the_thread_together(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, client = await hub.host(), await hub.open()
    assert isinstance(store, SqliteStore) and store._writer is not None
    tried: list[int] = []
    attempt = store._writer._attempt
    monkeypatch.setattr(
        store._writer, "_attempt", lambda entries, *a: (tried.append(len(entries)), attempt(entries, *a))[1]
    )
    due, later = hub.now() + SECOND, hub.now() + 1_000 * SECOND
    held = await begin(hub, store, "a", timer(0, due), timer(1, later))
    await send(client, raised("a", "e"))
    hub.clock.ahead = 2
    busy, free = threading.Event(), threading.Event()

    def keep_busy(transaction: object, items: list[object]) -> list[object]:
        busy.set()
        assert free.wait(20)
        return items

    blocking = asyncio.ensure_future(store._write(Operation(keep_busy, durable=False, heavy=True), [1]))
    try:
        while not busy.is_set():
            await asyncio.sleep(0)
        calls = [asyncio.ensure_future(call) for _ in range(3) for call in (store.fire_due(hub.now()), store.fetch())]
        async with asyncio.timeout(20):
            while store._writer._queue.qsize() < len(calls):
                await asyncio.sleep(0)
    finally:
        free.set()
    answers = await asyncio.gather(blocking, *calls)
    assert tried[-1] == len(calls)
    looks, fetched = answers[1::2], answers[2::2]
    assert [(look.ready, look.next_due) for look in looks] == [(False, later)] * 3
    assert sum(len(held.take(look.deliveries)) for look in looks) == 1
    assert sorted(len(each) for each in fetched) == [0, 0, 1]


@in_hub
async def test_one_that_fails_takes_no_other_down(hub: Hub, where: str) -> None:
    store = await hub.host()
    assert isinstance(store, SqliteStore)

    def broken(transaction: object, items: list[object]) -> list[object]:
        raise ValueError("a defect")

    one, two, three = await asyncio.gather(
        store.create([start("a")]),
        store._write(Operation(broken), [1]),
        store.create([start("b")]),
        return_exceptions=True,
    )
    assert isinstance(two, errors.StoreError) and isinstance(two.__cause__, ValueError)
    assert isinstance(one, list) and isinstance(three, list)
    assert [await status_of(store, i) for i in "ab"] == [Status.PENDING, Status.PENDING]


@in_hub
async def test_locks_of_a_call_that_nobody_waits_for_are_given_back(hub: Hub, where: str) -> None:
    store = await hub.host()
    await create(store, start("a"))
    call = asyncio.ensure_future(store.lock(1))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(20):
        while not await lock(hub, store):
            await asyncio.sleep(0)


@in_hub
async def test_many_rows_at_once_go_to_the_thread(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_QUICK_SECONDS", 1e9)
    store = await hub.host()
    assert isinstance(store, SqliteStore) and store._writer is not None
    seen: list[int] = []
    own, drain = store._writer, store._writer._drain
    monkeypatch.setattr(own, "_drain", lambda: (seen.append(len(own._pending)), drain()))
    await asyncio.gather(store.create([start("a")]), store.create([start(f"i{n}") for n in range(500)]))
    assert sum(seen) == 0
    await store.create([start("b")])
    assert sum(seen) == 1
    assert len(await store.status(["a", "b", "i499"])) == 3 and None not in await store.status(["a", "b", "i499"])


async def story(hub: Hub) -> dict[str, object]:
    """A bit of everything, and what stands in the end."""
    store = await hub.host()
    await create(store, *(start(f"i{n}", at=SECOND) for n in range(4)))
    assert [o.result.value for o in await store.create([start("clash", at=SECOND)] * 2)] == ["created", "already"]
    held = await lock(hub, store)
    clash = held.pop("clash")
    await clash.step(tell(0, "i0", "hello", '"h"'), tell(1, "nobody", "x"))
    ones = list(held.values())
    commits = [
        one.episode(
            act(0),
            act(1),
            timer(2, hub.now() + n * SECOND),
            child(3, f"child of {one.id}"),
            custom='"c"',
            now=5 * SECOND,
        )
        for n, one in enumerate(ones)
    ]
    outcomes = await store.commit(
        [one.committing(commit, take_activities=1, take_starts=1) for one, commit in zip(ones, commits, strict=True)]
    )
    assert all(outcome.result is CommitResult.COMMITTED for outcome in outcomes)
    for one, outcome in zip(ones, outcomes, strict=True):
        one.take(outcome.deliveries)
        one.inbox += [with_work(item, done(item)) for item in outcome.activities]
    await send(store, raised("i1", "e", 1), terminate("i2"), raised("i1", "é\x00", '\U0010ffff"'))
    hub.clock.ahead = 1.5
    due = await store.fire_due(hub.now())
    for delivery in due.deliveries:
        next(one for one in ones if one.lease.key == delivery.instance).inbox.append(delivery.message)
    finals = [
        one.episode(
            again('"next"')
            if n == 0
            else end(output='"done"')
            if n == 1
            else fail(message='é "down"')
            if n == 2
            else act(5),
            now=9 * SECOND,
        )
        for n, one in enumerate(ones)
    ]
    outcomes = await store.commit(
        [one.committing(commit, keep=False) for one, commit in zip(ones, finals, strict=True)]
    )
    assert all(outcome.result is CommitResult.COMMITTED for outcome in outcomes)
    items = await store.lock_activities(100)
    info = await store.info()
    found: dict[str, object] = {"messages": info.messages, "letters": info.dead_letters, "instances": info.instances}
    found["items"] = sorted((item.task.instance_id, item.task.scheduled, item.run) for item in items)
    for one in ones:
        record = await record_of(store, one.id)
        p = record.projection
        found[one.id] = (p.status, p.output, p.failure, p.custom_status, record.length)
        found[f"history of {one.id}"] = [
            (
                type(event).__name__,
                event.event_id,
                getattr(event, "result", None),
                getattr(event, "failure", None),
                getattr(event, "input", None),
            )
            for event in await history_of(store, one.id)
        ]
        await check_whole(store, one.id)
    return found


def test_both_forms_of_the_statements_do_the_same(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []

    async def tell_it(hub: Hub) -> None:
        told.append(await story(hub))

    in_hub(tell_it)(hub)
    (tmp_path / "second").mkdir()
    monkeypatch.setattr(writer.Writer, "_judge", lambda self, wall, cpu: setattr(self, "_json_left", 1))
    in_hub(tell_it)(Hub(hub._opener, tmp_path / "second"))
    assert told[0] == told[1]


def test_the_form_follows_the_interpreter(hub: Hub) -> None:
    async def main(hub: Hub) -> None:
        store = await hub.host()
        assert isinstance(store, SqliteStore) and store._writer is not None
        judged = store._writer
        # Held up now and then is not enough.
        for _ in range(5):
            judged._judge(0.050, 0.001)
            judged._judge(0.050, 0.001)
            judged._judge(0.002, 0.001)
        assert not judged._json_left
        for _ in range(3):
            judged._judge(0.050, 0.001)
        assert judged._json_left
        while judged._json_left:
            judged._judge(0.0, 0.0)
        judged._judge(0.050, 0.045)
        assert not judged._json_left

    in_hub(main)(hub)


@in_hub
async def test_a_work_item_whose_place_is_taken_gets_another(hub: Hub) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0))
    first = held.state.open[0].ordinal
    await held.step(again('"1"'), then=[act(0)])
    # Eight generations on, the ordinal has the place of the first one's again.
    for generation in range(2, 9):
        await held.step(again(f'"{generation}"'), then=[act(0)])
    assert activity_key(1, 0, first) == activity_key(1, 8, first)
    items = await store.lock_activities(100)
    assert len({item.ref.key for item in items}) == len(items) == 9
    low, high = places_of(held.lease.key)
    assert all(low <= item.ref.key <= high for item in items)


@in_hub
async def test_the_log_stays_bounded_and_space_comes_back(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "VACUUM_PAGES", 200)
    store = await hub.host()
    text = '"' + "x" * 2_000_000 + '"'
    reader = apsw.Connection(str(tmp_path / "hub.db"))
    for n in range(12):
        # A reader in the way all the time, of ever newer states.
        await begin(hub, store, f"i{n}", end(output=text), input=text)
        if n % 4 == 0:
            if reader.in_transaction:
                reader.execute("rollback")
            reader.execute("begin")
            reader.execute("select count(*) from instance").fetchall()
    reader.close()
    await store.upkeep()
    assert (tmp_path / "hub.db-wal").stat().st_size < 100_000_000
    large = (await store.info()).size
    assert (await store.purge([f"i{n}" for n in range(12)])).instances == 12
    await store.upkeep()
    await store.upkeep()
    info = await store.info()
    assert info.size < large / 4 and (tmp_path / "hub.db").stat().st_size < 12_000_000


@in_hub
async def test_the_log_is_cut_beside_readers_that_follow_each_other(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always one under way, longer than upkeep waits at first: it grows more patient."""
    monkeypatch.setattr(store_module, "_WAL_BYTES", 100_000)
    monkeypatch.setattr(reading, "_CHECKPOINT_MILLISECONDS", 30)
    store = await hub.host()
    over = threading.Event()

    def read(number: int) -> None:
        reader = apsw.Connection(str(tmp_path / "hub.db"))
        reader.set_busy_timeout(10_000)
        over.wait(number * 0.1)
        while not over.is_set():
            reader.execute("begin")
            reader.execute("select count(*) from instance").fetchall()
            over.wait(0.2)
            reader.execute("rollback")
        reader.close()

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        n = 0
        await create(store, start("first", input='"' + "x" * 200_000 + '"'))
        while (tmp_path / "hub.db-wal").stat().st_size:
            await create(store, start(f"i{n}", input='"' + "x" * 200_000 + '"'))
            await store.upkeep()
            n += 1
    finally:
        over.set()
        for reader in readers:
            reader.join()


@in_hub
async def test_restore_where_nothing_stands(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    held = await begin(hub, store, "a", act(0), take_activities=1)
    await store.backup(str(tmp_path / "copy.db"))
    with pytest.raises(errors.StoreError, match="already"):
        await store.backup(str(tmp_path / "copy.db"))
    with pytest.raises(errors.StoreError, match="exists"):
        restore(str(tmp_path / "hub.db"), str(tmp_path / "copy.db"))
    await held.step(end())
    await store.close()
    for name in ("hub.db", "hub.db-wal", "hub.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    whole = (tmp_path / "copy.db").read_bytes()
    for name, damaged in (
        ("cut", whole[: len(whole) // 2]),
        ("torn", whole[:8_192] + b"\xff" * 32_768 + whole[40_960:]),
        ("text", b"no database at all" * 100),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(errors.StoreCorrupt, match=name):
            restore(str(tmp_path / "hub.db"), str(tmp_path / name))
        assert not [path for path in tmp_path.iterdir() if path.name in ("hub.db", "hub.db.unfinished")]
    restore(str(tmp_path / "hub.db"), str(tmp_path / "copy.db"))
    again_ = await hub.host()
    assert await status_of(again_, "a") is Status.RUNNING
    assert len(await again_.lock_activities(5)) == 1
    assert (await again_.info()).hosts == ["host"]


@in_hub
async def test_events_of_no_known_kind_become_dead_letters(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    await create(store, start("a"))
    await send(store, raised("a", "good"))
    other = apsw.Connection(str(tmp_path / "hub.db"))
    other.execute(
        "insert into message (instance, key, event) select key, 1000, cast('{\"e\":99}' as blob) from instance"
    )
    other.close()
    held = (await lock(hub, store))["a"]
    assert [type(m.event) for m in held.inbox] == [ev.ExecutionStarted, ev.EventRaised]
    (letter,) = await store.dead_letters()
    assert "cannot be read" in letter.letter.reason and letter.letter.instance_id == "a"
    # Once: it is not met again by who gets the instance next.
    await held.put_back()
    held = (await lock(hub, store))["a"]
    assert [type(m.event) for m in held.inbox] == [ev.ExecutionStarted, ev.EventRaised]
    assert len(await store.dead_letters()) == 1
    await held.step(end())
