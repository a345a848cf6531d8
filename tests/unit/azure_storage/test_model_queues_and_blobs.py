"""The model's queues, containers and leases: what is hidden for how long, and who may do what with which receipt."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.service import Conflict, NotThere, Refused
from holdtrue.testing import virtual_time
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import AZURITE, REAL, Manner, StorageModel

QUEUE, CONTAINER = "hub-control-00", "hub-leases"
MINE, THEIRS = "811c9dc5-0000-0000-0000-000000000000", "811c9dc5-0000-0000-0000-000000000001"
WEEK = 7 * 24 * 3_600


def in_model(act: Callable[[StorageModel], Awaitable[None]], *, manner: Manner = AZURITE, seed: int = 1) -> None:
    """Run with a model that has one queue and one container."""

    async def main() -> None:
        model = StorageModel(SimulatedEnvironment(seed), manner=manner)
        assert await model.queues.create_queue(QUEUE) and not await model.queues.create_queue(QUEUE)
        assert await model.blobs.create_container(CONTAINER) and not await model.blobs.create_container(CONTAINER)
        await act(model)

    virtual_time.run(main())


async def code(doing: Awaitable[Any]) -> str:
    """The code of what is refused."""
    with pytest.raises(Refused) as caught:
        await doing
    return caught.value.code


def test_a_message_is_hidden_for_its_time_and_counts_its_deliveries() -> None:
    async def act(model: StorageModel) -> None:
        queues = model.queues
        id, _ = await queues.put(QUEUE, "ä <&>", delay=3)
        began = asyncio.get_running_loop().time()
        assert await queues.take(QUEUE, 32, 5) == []
        await asyncio.sleep(2.999)
        assert await queues.take(QUEUE, 32, 5) == []
        await asyncio.sleep(0.001)
        (first,) = await queues.take(QUEUE, 32, 5)
        assert (first.id, first.text, first.dequeue_count) == (id, "ä <&>", 1)
        assert first.next_visible - first.inserted == 8 * TICKS_PER_SECOND
        assert await queues.take(QUEUE, 32, 5) == []
        await asyncio.sleep(5)
        (second,) = await queues.take(QUEUE, 32, 5)
        assert (second.id, second.dequeue_count) == (id, 2)
        assert asyncio.get_running_loop().time() - began == pytest.approx(8)
        assert await queues.approximate_count(QUEUE) == 1

    in_model(act)


@pytest.mark.parametrize(("manner", "there"), [(REAL, "MessageNotFound"), (AZURITE, "PopReceiptMismatch")])
def test_only_the_last_receipt_serves_and_an_old_one_says_nothing_on_the_real_service(
    manner: Manner, there: str
) -> None:
    async def act(model: StorageModel) -> None:
        queues = model.queues
        id, put = await queues.put(QUEUE, "x")
        (taken,) = await queues.take(QUEUE, 1, 30)
        renewed = await queues.hide(QUEUE, id, taken.receipt, 30)
        for old in (put, taken.receipt):
            assert await code(queues.remove(QUEUE, id, old)) == there
            assert await code(queues.hide(QUEUE, id, old, 30)) == there
        await asyncio.sleep(31)  # its time is over, but nobody else has got it
        renewed = await queues.hide(QUEUE, id, renewed, 0)
        (again,) = await queues.take(QUEUE, 1, 30)
        assert await code(queues.remove(QUEUE, id, renewed)) == there
        await queues.remove(QUEUE, id, again.receipt)
        assert await code(queues.remove(QUEUE, id, again.receipt)) == "MessageNotFound"

    in_model(act, manner=manner)


def test_a_receipt_of_a_put_deletes_a_message_that_is_still_hidden() -> None:
    async def act(model: StorageModel) -> None:
        id, receipt = await model.queues.put(QUEUE, "x", delay=WEEK)
        await model.queues.remove(QUEUE, id, receipt)
        assert await model.queues.approximate_count(QUEUE) == 0

    in_model(act)


def test_what_a_queue_refuses() -> None:
    async def act(model: StorageModel) -> None:
        queues = model.queues
        out_of_range = "OutOfRangeQueryParameterValue"
        assert await code(queues.put(QUEUE, "x", delay=WEEK + 1)) == out_of_range
        assert await code(queues.put(QUEUE, "x", delay=-1)) == out_of_range
        assert await code(queues.take(QUEUE, 33, 5)) == out_of_range
        assert await code(queues.take(QUEUE, 0, 5)) == out_of_range
        assert await code(queues.take(QUEUE, 1, 0)) == out_of_range
        assert await code(queues.put(QUEUE, "ä" * 32_769)) == "RequestBodyTooLarge"
        assert await code(queues.put(QUEUE, "a\x00b")) == "InvalidXmlDocument"
        assert await code(queues.put("hub-control-01", "x")) == "QueueNotFound"
        for bad in ("ab", "Hub", "a--b", "-a-", "x" * 64):
            await code(queues.create_queue(bad))

    in_model(act)


def test_messages_come_in_their_order_from_the_emulator_and_out_of_it_from_the_service() -> None:
    orders: list[list[str]] = []
    for manner in (AZURITE, REAL):
        for seed in range(20):

            async def act(model: StorageModel) -> None:
                for number in range(10):
                    await model.queues.put(QUEUE, str(number))
                    await asyncio.sleep(0.01)
                orders.append([one.text for one in await model.queues.take(QUEUE, 10, 30)])

            in_model(act, manner=manner, seed=seed)
    ordered = [str(number) for number in range(10)]
    assert all(order == ordered for order in orders[:20])
    assert any(order != ordered for order in orders[20:])
    assert all(sorted(order) == ordered for order in orders)


def test_a_deleted_queue_is_gone_and_its_name_is_not_free_at_once() -> None:
    async def act(model: StorageModel) -> None:
        assert await model.queues.delete_queue(QUEUE) and not await model.queues.delete_queue(QUEUE)
        assert await code(model.queues.create_queue(QUEUE)) == "QueueBeingDeleted"
        assert await model.blobs.delete_container(CONTAINER) and not await model.blobs.delete_container(CONTAINER)
        assert await code(model.blobs.create_container(CONTAINER)) == "ContainerBeingDeleted"

    in_model(act, manner=REAL)


@pytest.mark.parametrize("blob", [None, "ownership/hub-control-00"])
def test_a_lease_is_held_by_one_until_its_end(blob: str | None) -> None:
    async def act(model: StorageModel) -> None:
        blobs = model.blobs
        if blob is not None:
            with pytest.raises(NotThere, match="BlobNotFound"):
                await blobs.acquire_lease(CONTAINER, blob, 15, MINE)
            await blobs.put_blob(CONTAINER, blob, b"{}")
        assert await code(blobs.acquire_lease(CONTAINER, blob, 61, MINE)) == "InvalidHeaderValue"
        assert await blobs.acquire_lease(CONTAINER, blob, 15, MINE)
        assert await blobs.acquire_lease(CONTAINER, blob, 15, MINE)
        assert not await blobs.acquire_lease(CONTAINER, blob, 15, THEIRS)
        await asyncio.sleep(10)
        assert await blobs.renew_lease(CONTAINER, blob, MINE)
        assert not await blobs.renew_lease(CONTAINER, blob, THEIRS)
        await asyncio.sleep(10)
        assert not await blobs.acquire_lease(CONTAINER, blob, 15, THEIRS)
        await asyncio.sleep(5)
        assert not await blobs.change_lease(CONTAINER, blob, MINE, THEIRS)  # it is over
        assert await blobs.renew_lease(CONTAINER, blob, MINE)  # but nobody else has taken it
        assert await blobs.change_lease(CONTAINER, blob, MINE, THEIRS)
        assert not await blobs.renew_lease(CONTAINER, blob, MINE)
        assert not await blobs.release_lease(CONTAINER, blob, MINE)
        assert await blobs.release_lease(CONTAINER, blob, THEIRS)
        assert await blobs.acquire_lease(CONTAINER, blob, 15, MINE)

    in_model(act)


def test_a_leased_blob_is_written_under_its_lease_alone() -> None:
    async def act(model: StorageModel) -> None:
        blobs = model.blobs
        await blobs.put_blob(CONTAINER, "b", b"1")
        with pytest.raises(Conflict, match="BlobAlreadyExists"):
            await blobs.put_blob(CONTAINER, "b", b"2", only_new=True)
        with pytest.raises(Conflict, match="LeaseNotPresentWithBlobOperation"):
            await blobs.put_blob(CONTAINER, "b", b"2", lease=MINE)
        await blobs.acquire_lease(CONTAINER, "b", 15, MINE)
        with pytest.raises(Conflict, match="LeaseIdMissing"):
            await blobs.put_blob(CONTAINER, "b", b"2")
        with pytest.raises(Conflict, match="LeaseIdMismatch"):
            await blobs.put_blob(CONTAINER, "b", b"2", lease=THEIRS)
        with pytest.raises(Conflict, match="LeaseIdMissing"):
            await blobs.delete_blob(CONTAINER, "b")
        await blobs.put_blob(CONTAINER, "b", b"2", lease=MINE)
        await asyncio.sleep(15)
        await blobs.put_blob(CONTAINER, "b", b"3")
        assert not await blobs.renew_lease(CONTAINER, "b", MINE)  # a write came between
        assert await blobs.get_blob(CONTAINER, "b") == b"3"
        assert await blobs.delete_blob(CONTAINER, "b") and not await blobs.delete_blob(CONTAINER, "b")
        assert await blobs.get_blob(CONTAINER, "b") is None
        with pytest.raises(NotThere, match="ContainerNotFound"):
            await blobs.get_blob("hub-none", "b")

    in_model(act)


def test_a_listing_comes_in_pages_that_hold_every_blob_once() -> None:
    async def act(model: StorageModel) -> None:
        for number in range(30):
            await model.blobs.put_blob(CONTAINER, f"a/{number:02}", b"x" * number)
        await model.blobs.put_blob(CONTAINER, "ab", b"")
        names, pages, token = [], 0, None
        while True:
            infos, token = await model.blobs.list_blobs(CONTAINER, "a/", token=token)
            names += [(info.name, info.size) for info in infos]
            pages += 1
            if token is None:
                break
        assert names == [(f"a/{number:02}", number) for number in range(30)]
        assert pages > 1

    in_model(act, manner=REAL, seed=3)


def test_a_blob_has_an_absolute_url() -> None:
    async def act(model: StorageModel) -> None:
        url = model.blob_url("hub-largemessages", "a b/é.json.gz")
        assert url == "https://model.blob.core.windows.net/hub-largemessages/a%20b/%C3%A9.json.gz"

    in_model(act)
