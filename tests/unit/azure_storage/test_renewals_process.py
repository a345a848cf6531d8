"""The process that renews for a host, and the host's side: whatever stands still, and whoever dies."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.http.connection import (
    from_connection_string,
    reopen,
    reopening,
    with_credential,
)
from holdtrue.stores.azure_storage.http.identity import Identity
from holdtrue.stores.azure_storage.partitions import Lease, lease_values, read_lease
from holdtrue.stores.azure_storage.renewals_messages import SocketLink
from holdtrue.stores.azure_storage.renewing import AppLeaseHeld
from holdtrue.stores.azure_storage.service import Do, Operation
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.testing.virtual_time import as_part, run
from tests.unit.azure_storage.far_renewals import ME, QUEUE, TABLE, Scene, what_died_lies_still

ROW = "hub-control-00"


def play(scene: Scene, host: Callable[[Scene], Awaitable[None]]) -> None:
    """What a host does, in its part of the loop."""

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with as_part(scene.host):
            task = asyncio.get_running_loop().create_task(host(scene))  # type: ignore[arg-type]
        while not task.done() and not scene.host.dead:
            await asyncio.sleep(1.0)
        if task.done():
            task.result()

    with what_died_lies_still():
        run(main())


def on_a_model(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    def ran() -> None:
        async def host(scene: Scene) -> None:
            await test(scene)
            await scene.renewals.close()
            assert all(child.has_ended() for child in scene.children)

        play(Scene(), host)

    ran.__name__, ran.__doc__ = test.__name__, test.__doc__
    return ran


async def row(scene: Scene) -> Lease:
    await scene.model.tables.create_table(TABLE)
    values = lease_values(Lease(partition=ROW, etag="", current_owner=ME))
    await scene.model.tables.write(TABLE, Operation(do=Do.REPLACE, partition="", key=ROW, values=values))
    return await read(scene)


async def read(scene: Scene) -> Lease:
    return read_lease(await scene.model.tables.get(TABLE, "", ROW))


# -- withdrawals -----------------------------------------------------------------------------------------


def delete_and_renew(seed: int, still: tuple[float, float]) -> Scene:
    """Messages handled in any time, many about when they are to be renewed, while either side stands still."""
    scene = Scene(seed, slow=0.4, still=still)
    deleted: list[bool] = []

    async def handle(number: int) -> None:
        await asyncio.sleep(scene.random.choice((0.0, 2.9, 2.99, 3.0, 3.01, 3.1, scene.random.uniform(0, 30))))
        deleted.append(await scene.mail.delete(number))

    async def host(scene: Scene) -> None:
        await scene.open(12)
        tasks = []
        for _ in range(3):
            tasks += [asyncio.get_running_loop().create_task(handle(number)) for number in await scene.take()]
            await asyncio.sleep(scene.random.uniform(0, 4))
        await asyncio.gather(*tasks)
        await scene.renewals.close()

    play(scene, host)
    scene.deleted = deleted  # type: ignore[attr-defined]
    return scene


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_no_delete_is_under_way_beside_a_renewal(seed: int) -> None:
    """However long either side stands still, before any step and within any reading and writing."""
    assert not delete_and_renew(seed, (0.05, 2.0)).overlaps


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_where_nobody_stands_still_for_long_each_delete_has_the_newest_receipt(seed: int) -> None:
    scene = delete_and_renew(seed, (0.05, 0.02))
    assert not scene.overlaps
    assert scene.deleted == [True] * 12  # type: ignore[attr-defined]


@on_a_model
async def test_what_is_done_with_soon_asks_for_nothing(scene: Scene) -> None:
    await scene.open(3)
    numbers = await scene.take()
    (child,) = scene.children
    child.part.paused = True  # it could not answer
    await asyncio.sleep(1)
    assert [await scene.mail.delete(number) for number in numbers] == [True] * 3
    loop: Any = asyncio.get_running_loop()
    loop.resume(child.part)
    await asyncio.sleep(60)
    assert not scene.overlaps and await scene.left() == 0


@on_a_model
async def test_a_lost_answer_of_a_renewal_leaves_the_receipt_unknown(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    scene.lose = lambda verb: verb == "hide"
    await asyncio.sleep(4)
    scene.lose = lambda verb: False
    assert not await scene.mail.delete(number)
    assert await scene.left() == 1, "and no delete was tried with what is no receipt any more"
    await asyncio.sleep(31)
    (again,) = await scene.take()
    assert await scene.mail.delete(again)


@on_a_model
async def test_a_message_is_in_hand_only_when_the_process_has_it_in_time(scene: Scene) -> None:
    await scene.open(2)
    (child,) = scene.children
    child.part.paused = True
    assert await scene.take() == [] and len(scene.mail) == 0
    loop: Any = asyncio.get_running_loop()
    loop.resume(child.part)
    await asyncio.sleep(2)
    assert len(await scene.take()) == 2


# -- leases ----------------------------------------------------------------------------------------------


@on_a_model
async def test_a_host_that_stands_still_keeps_all_it_has(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    moment = scene.environment.monotonic()
    scene.renewals.keep_row(await row(scene), moment + 27)
    await scene.model.blobs.create_container("lease")
    id = "00000000-0000-0000-0000-000000000001"
    await scene.model.blobs.acquire_lease("lease", None, 60, id)
    scene.renewals.keep_app_lease(AppLeaseHeld("lease", id), moment + 55)
    scene.renewals.tell_time(TICKS_PER_SECOND * 1_000)
    await asyncio.sleep(1)
    scene.host.paused = True
    loop: Any = asyncio.get_running_loop()
    with as_part(None):
        loop.call_later(90, loop.resume, scene.host)
    await asyncio.sleep(1)
    now = scene.environment.monotonic()
    assert now >= moment + 90
    # What is asked in the very step in which it goes on has the answer.
    standing = scene.renewals.row(ROW)
    assert standing is not None and standing.until > now and scene.renewals.app_lease_until() > now
    assert not await scene.model.queues.take(QUEUE, 32, 1)
    assert await scene.mail.delete(number)


@on_a_model
async def test_after_a_long_silence_all_is_let_go_and_the_host_begins_anew(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    scene.renewals.keep_row(await row(scene), scene.environment.monotonic() + 27)
    await asyncio.sleep(1)
    scene.host.paused = True
    loop: Any = asyncio.get_running_loop()
    with as_part(None):
        loop.call_later(scene.settings.silence_limit + 50, loop.resume, scene.host)
    await asyncio.sleep(1)
    (first, *_) = scene.children
    assert first.has_ended()
    lease, now = await read(scene), scene.environment.now()
    assert lease.expires_at is not None and lease.expires_at < now
    standing = scene.renewals.row(ROW)
    assert standing is None or standing.until < scene.environment.monotonic()
    await scene.renewals.ready()
    await asyncio.sleep(1)
    assert len(scene.children) == 2
    assert await scene.take() == [], "it is known already, and has a new receipt"
    assert await scene.mail.delete(number) or len(await scene.take()) == 1


@on_a_model
async def test_a_process_that_dies_is_followed_by_another(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    scene.renewals.keep_row(await row(scene), scene.environment.monotonic() + 27)
    await asyncio.sleep(1)
    for _ in range(3):
        scene.children[-1].kill()
        await asyncio.sleep(20)
    assert len(scene.children) == 4 and not scene.gone
    standing = scene.renewals.row(ROW)
    assert standing is not None and standing.until > scene.environment.monotonic()
    (again,) = await scene.take() or [number]
    assert again == number or scene.taken[again].dequeue_count == 2


@on_a_model
async def test_what_is_not_due_when_the_process_dies_stays_in_hand(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    await asyncio.sleep(1)
    scene.children[-1].kill()
    await asyncio.sleep(60)
    assert await scene.mail.delete(number) and await scene.left() == 0


@on_a_model
async def test_a_process_that_is_stuck_is_replaced(scene: Scene) -> None:
    await scene.open()
    scene.renewals.keep_row(await row(scene), scene.environment.monotonic() + 27)
    await asyncio.sleep(1)
    scene.children[0].part.paused = True
    await asyncio.sleep(60)
    assert len(scene.children) == 2 and scene.children[0].has_ended()


def test_where_no_process_lives_the_host_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    async def host(scene: Scene) -> None:
        await scene.open()
        await scene.take()
        await asyncio.sleep(1)
        scene.starts = False
        scene.children[-1].kill()
        await asyncio.sleep(60)
        assert scene.gone == 1
        assert await scene.take() == [], "and nobody waits for what does not come"
        await scene.renewals.close()

    with caplog.at_level(logging.WARNING):
        play(Scene(), host)
    assert "another is started" in caplog.text and "gives up its part in the hub" in caplog.text


def test_without_a_process_a_host_does_not_begin() -> None:
    async def host(scene: Scene) -> None:
        scene.starts = False
        with pytest.raises(StoreUnavailable, match="renew_in_process"):
            await scene.open()
        await scene.renewals.close()

    play(Scene(), host)


def test_the_process_ends_with_its_host() -> None:
    async def host(scene: Scene) -> None:
        await scene.open()
        await scene.take()
        await asyncio.sleep(10)
        scene.host.die()

    scene = Scene()
    play(scene, host)

    assert scene.host.dead


# -- the link, and the account ---------------------------------------------------------------------------


def test_a_link_says_whether_the_other_side_can_read_all() -> None:
    async def main() -> None:
        one, two = (SocketLink(side) for side in socket.socketpair())
        one.listen(lambda: None)
        assert one.write(b"x" * 10) and two.read() == [b"x" * 10]
        count = 0
        while one.write(b"y" * 100_000):
            count += 1
        assert one.waits and not one.write(b"")
        got: list[bytes] = []
        while len(got) < count + 2:
            got += two.read()
            await asyncio.sleep(0)
        assert got == [b"y" * 100_000] * (count + 1) + [b""] and not one.waits
        assert one.write(b"the last")
        one.close()
        assert two.read() == [b"the last"] and two.ended
        assert not two.write(b"nobody reads it")
        two.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "text",
    [
        "AccountName=a;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:1/a",
        "AccountName=a;SharedAccessSignature=sv=1&sig=x%2By",
    ],
)
def test_an_account_is_opened_by_another_process_as_here(text: str) -> None:
    connection = from_connection_string(text)
    known = reopening(connection)
    assert known is not None and reopen(known) == connection
    assert "a2V5" not in repr(known) and "x+y" not in repr(known)


def test_a_credential_made_by_hand_cannot_be_made_again() -> None:
    credential: Any = object()
    assert reopening(with_credential(credential, account="a")) is None
    known = reopening(with_credential(credential, account="a", identity=Identity("client")))
    assert known is not None and known.identity == Identity("client")
