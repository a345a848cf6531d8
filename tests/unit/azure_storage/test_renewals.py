"""What is renewed and when, where answers are lost or somebody else writes too: on the model account."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.mail import Mail
from holdtrue.stores.azure_storage.partitions import Lease, lease_values, read_lease
from holdtrue.stores.azure_storage.renewals import Renewer
from holdtrue.stores.azure_storage.renewing import AppLeaseHeld, Message, pause_after
from holdtrue.stores.azure_storage.service import Do, Operation, QueueMessage, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

ME = "holdtrue-me"
QUEUE, TABLE, ROW = "queue", "Partitions", "hub-control-00"
SETTINGS = AzureStorageSettings()


class Scene:
    """A model account with one queue and one row, and what renews."""

    def __init__(self) -> None:
        self.environment = SimulatedEnvironment(1)
        self.model: Any = StorageModel(self.environment)
        self.changed: list[str | None] = []
        self.renewer = Renewer(
            self.model, self.environment, SETTINGS.renewal_terms(ME, TABLE), changed=self.changed.append
        )
        self.mail = Mail(self.model.queues, self.environment, SETTINGS)
        self.mail.renewed_by(self.renewer)
        self.taken: dict[int, QueueMessage] = {}

    async def open(self, messages: int = 1) -> None:
        await self.model.queues.create_queue(QUEUE)
        for number in range(messages):
            await self.model.queues.put(QUEUE, f"text {number}")
        await self.renewer.open()

    async def take(self) -> list[int]:
        """Numbers of the messages that a get gives."""

        async def sort(number: int, message: QueueMessage) -> None:
            self.taken[number] = message

        before = set(self.taken)
        await self.mail.pull(QUEUE, 32, sort)
        return [number for number in self.taken if number not in before]

    async def there(self) -> int:
        """How many messages another would get now (it gives them back)."""
        found = await self.model.queues.take(QUEUE, 32, 1)
        for one in found:
            await self.model.queues.hide(QUEUE, one.id, one.receipt, 0)
        return len(found)

    async def left(self) -> int:
        return int(await self.model.queues.approximate_count(QUEUE))

    async def row(self, **columns: Any) -> Lease:
        """The row as it stands after it was written so."""
        values = {**lease_values(Lease(partition=ROW, etag="")), **columns}
        await self.model.tables.create_table(TABLE)
        await self.model.tables.write(TABLE, Operation(do=Do.REPLACE, partition="", key=ROW, values=values))
        return await self.read()

    async def read(self) -> Lease:
        row = await self.model.tables.get(TABLE, "", ROW)
        return read_lease(row)


def on_a_model(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    def ran() -> None:
        async def main() -> None:
            scene = Scene()
            await test(scene)
            await scene.renewer.close()

        run(main())

    ran.__name__, ran.__doc__ = test.__name__, test.__doc__
    return ran


@on_a_model
async def test_what_is_in_hand_stays_there_and_is_deleted_with_its_newest_receipt(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    for _ in range(30):
        await asyncio.sleep(7)
        assert not await scene.there()
    assert await scene.mail.delete(number)
    assert await scene.left() == 0


@on_a_model
async def test_what_is_forgotten_comes_back_when_its_time_is_over(scene: Scene) -> None:
    await scene.open()
    (number,) = await scene.take()
    await asyncio.sleep(10)
    scene.mail.forget(number)
    await asyncio.sleep(SETTINGS.renewed_visibility + 1)
    assert await scene.there() == 1


@on_a_model
async def test_after_a_renewal_whose_answer_is_lost_no_delete_is_tried(scene: Scene) -> None:
    """Its receipt is unknown: the message comes back, with a new one, and only then can be deleted."""
    await scene.open()
    queues = scene.model.queues
    hide, removed = queues.hide, []

    async def lost(*given: Any) -> str:
        await hide(*given)
        raise Unsure("the answer was lost")

    async def remove(*given: Any) -> None:
        removed.append(given)

    queues.hide, remove_really, queues.remove = lost, queues.remove, remove
    (number,) = await scene.take()
    await asyncio.sleep(SETTINGS.renew_messages_after + 1)
    assert not await scene.mail.delete(number) and not removed
    queues.hide, queues.remove = hide, remove_really
    assert not await scene.there() and await scene.left() == 1
    await asyncio.sleep(SETTINGS.renewed_visibility)
    (again,) = await scene.take()
    assert scene.taken[again].dequeue_count == 2
    assert await scene.mail.delete(again) and await scene.left() == 0


@on_a_model
async def test_one_in_hand_that_comes_again_has_the_new_receipt(scene: Scene) -> None:
    await scene.open()
    queues = scene.model.queues
    hide = queues.hide

    async def lost(*given: Any) -> str:
        raise Unsure("nothing was done")

    queues.hide = lost
    (number,) = await scene.take()
    await asyncio.sleep(SETTINGS.take_visibility + 1)
    queues.hide = hide
    assert await scene.take() == [], "it is in hand"
    await asyncio.sleep(60)
    assert not await scene.there()
    assert await scene.mail.delete(number) and await scene.left() == 0


@on_a_model
async def test_a_renewal_that_is_under_way_is_waited_for(scene: Scene) -> None:
    """A delete beside a renewal is refused, and so is one with the receipt from before it."""
    await scene.open()
    queues = scene.model.queues
    hide, under_way = queues.hide, asyncio.Event()

    async def slow(*given: Any) -> str:
        under_way.set()
        await asyncio.sleep(4)
        receipt = await hide(*given)
        await asyncio.sleep(4)
        return str(receipt)

    queues.hide = slow
    (number,) = await scene.take()
    queues_take, scene.model.queues.take = queues.take, None
    await under_way.wait()
    assert await scene.mail.delete(number) and await scene.left() == 0
    queues.take = queues_take


@on_a_model
async def test_what_comes_too_late_is_dropped(scene: Scene) -> None:
    """Nobody knows whether it is still ours."""
    await scene.open(3)
    queues = scene.model.queues
    take = queues.take

    async def slow(*given: Any) -> Any:
        found = await take(*given)
        await asyncio.sleep(SETTINGS.take_visibility)
        return found

    queues.take = slow
    assert await scene.take() == [] and len(scene.mail) == 0
    queues.take = take
    assert len(await scene.take()) == 3


@on_a_model
async def test_what_nobody_has_sorted_is_let_go(scene: Scene) -> None:
    """A poll that is cut off in the middle must not keep for ever what it got."""
    await scene.open(3)

    async def sort(number: int, message: QueueMessage) -> None:
        scene.taken[number] = message
        if len(scene.taken) == 2:
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        await scene.mail.pull(QUEUE, 32, sort)
    assert len(scene.mail) == 1
    await asyncio.sleep(60)
    assert await scene.there() == 2


@on_a_model
async def test_a_row_is_renewed_in_the_services_time(scene: Scene) -> None:
    await scene.renewer.open()
    moment = scene.environment.monotonic()
    scene.renewer.keep_row(await scene.row(CurrentOwner=ME, NextOwner="other", IsDraining=True), moment + 27)
    scene.renewer.tell_time(5_000 * TICKS_PER_SECOND)
    await asyncio.sleep(100)
    row, standing = await scene.read(), scene.renewer.row(ROW)
    now = 5_000 + scene.environment.monotonic()
    assert row.last_renewal is not None and row.expires_at is not None
    assert now - 11 < row.last_renewal / TICKS_PER_SECOND < now
    assert row.expires_at - row.last_renewal == 30 * TICKS_PER_SECOND
    assert (row.next_owner, row.is_draining) == ("other", True), "and nothing else is changed"
    assert standing is not None and standing.etag == row.etag
    assert standing.until > scene.environment.monotonic() + 15
    assert len(scene.changed) < 13


@on_a_model
async def test_a_row_that_somebody_else_wrote_is_renewed_as_it_is(scene: Scene) -> None:
    await scene.renewer.open()
    scene.renewer.keep_row(await scene.row(CurrentOwner=ME), scene.environment.monotonic() + 27)
    await scene.row(CurrentOwner=ME, NextOwner="other")
    await asyncio.sleep(60)
    row = await scene.read()
    assert row.next_owner == "other" and row.last_renewal is not None
    assert scene.renewer.row(ROW) is not None


@on_a_model
async def test_a_row_with_another_owner_is_left_alone(scene: Scene) -> None:
    await scene.renewer.open()
    scene.renewer.keep_row(await scene.row(CurrentOwner=ME), scene.environment.monotonic() + 27)
    theirs = await scene.row(CurrentOwner="other")
    await asyncio.sleep(60)
    assert await scene.read() == theirs
    assert scene.renewer.row(ROW) is None and scene.changed == [ROW]


@on_a_model
async def test_a_row_that_was_dropped_is_not_renewed(scene: Scene) -> None:
    await scene.renewer.open()
    row = await scene.row(CurrentOwner=ME)
    scene.renewer.keep_row(row, scene.environment.monotonic() + 27)
    scene.renewer.drop_row(ROW)
    await asyncio.sleep(60)
    assert await scene.read() == row


@on_a_model
async def test_a_row_is_not_renewed_after_its_time(scene: Scene) -> None:
    """Its owner counts on nothing then; the partition is another's, or claimed anew."""
    await scene.renewer.open()
    row = await scene.row(CurrentOwner=ME)
    scene.renewer.keep_row(row, scene.environment.monotonic() + 27)
    write = scene.model.tables.write

    async def lost(*given: Any) -> None:
        raise Unsure("no answer")

    scene.model.tables.write = lost
    await asyncio.sleep(30)
    scene.model.tables.write = write
    await asyncio.sleep(60)
    assert await scene.read() == row and scene.renewer.row(ROW) is None


@on_a_model
async def test_the_app_lease_is_kept_until_another_has_it(scene: Scene) -> None:
    await scene.renewer.open()
    await scene.model.blobs.create_container("lease")
    mine, theirs = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
    assert await scene.model.blobs.acquire_lease("lease", None, 60, mine)
    scene.renewer.keep_app_lease(AppLeaseHeld("lease", mine), scene.environment.monotonic() + 55)
    await asyncio.sleep(300)
    assert scene.renewer.app_lease_until() > scene.environment.monotonic()
    assert not await scene.model.blobs.acquire_lease("lease", None, 60, theirs)
    await scene.model.blobs.change_lease("lease", None, mine, theirs)
    scene.changed.clear()
    await asyncio.sleep(30)
    assert scene.renewer.app_lease_until() == 0.0 and scene.changed == [None]


@on_a_model
async def test_a_renewal_that_fails_in_an_unknown_way_does_not_end_the_others(scene: Scene) -> None:
    await scene.open(2)
    one, other = await scene.take()
    hide, failed = scene.model.queues.hide, scene.taken[one].id

    async def broken(queue: str, id: str, *more: Any) -> Any:
        if id == failed:
            raise RuntimeError("a defect")
        return await hide(queue, id, *more)

    scene.model.queues.hide = broken
    await asyncio.sleep(60)
    assert not await scene.mail.delete(one)
    assert await scene.mail.delete(other)


def test_in_time() -> None:
    terms = SETTINGS.renewal_terms(ME, TABLE)
    message = Message(1, QUEUE, "id", "receipt", 100.0)
    assert terms.is_in_time(message, 104.9) and not terms.is_in_time(message, 105.0)
    assert terms.first_due(100.0) == 103.0
    assert terms.next_due(100.0) == 110.0
    assert [pause_after(n) for n in (1, 2, 3, 4, 5, 100)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
