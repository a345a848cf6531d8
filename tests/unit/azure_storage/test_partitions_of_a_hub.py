"""Making and deleting a hub, and its app lease, on the model account."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.stores.azure_storage.app_lease import (
    AppLease,
    AppLeaseTerms,
    HubLeasedByAnotherApp,
    dotnet_lease_id,
    own_lease_id,
)
from holdtrue.stores.azure_storage.creating import HubLeased, create_hub, delete_hub, partition_numbers
from holdtrue.stores.azure_storage.names import HubNames, escape_key, partition_of, unescape_key
from holdtrue.stores.azure_storage.renewals import Renewer
from holdtrue.stores.azure_storage.service import Do, Operation, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.tracking import TrackedService
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

T = TypeVar("T")
NAMES = HubNames("RecHubCreated")
ACQUIRE_LATER = AppLeaseTerms(acquire=20.0)


class Scene:
    """A model account and an environment of its own."""

    def __init__(self, seed: int = 1) -> None:
        self.environment = SimulatedEnvironment(seed)
        self.model: Any = StorageModel(self.environment)

    async def create(self, partitions: int = 4, **more: Any) -> Any:
        return await create_hub(self.model, NAMES, partitions, self.environment, **more)

    async def rows(self) -> set[int]:
        return await partition_numbers(self.model, NAMES)

    async def insert(self, *numbers: int) -> None:
        for number in numbers:
            operation = Operation(do=Do.INSERT, partition="", key=NAMES.control(number), values={"IsDraining": False})
            await self.model.tables.write(NAMES.partitions, operation)

    def lease(self, app: str = "app", *, dotnet: bool = False, **more: Any) -> AppLease:
        self.lost = 0

        async def lives() -> bool:
            return dotnet

        def lost() -> None:
            self.lost += 1

        renewer = Renewer(
            self.model,
            self.environment,
            AzureStorageSettings().renewal_terms("holdtrue-a", NAMES.partitions),
            changed=lambda partition: lease.look(),
        )
        asyncio.get_running_loop().create_task(renewer.open())
        lease = AppLease(
            self.model.blobs,
            NAMES,
            app,
            self.environment,
            ACQUIRE_LATER,
            renewer,
            dotnet_lives=lives,
            on_lost=lost,
            **more,
        )
        return lease


def test_what_a_hub_is_made_of() -> None:
    async def scenario() -> None:
        scene = Scene()
        created = await scene.create()
        assert (created.partition_count, created.made) == (4, True)
        model = scene.model
        page = await model.tables.query(NAMES.partitions)
        while page.token:
            more = await model.tables.query(NAMES.partitions, token=page.token)
            page.rows, page.token = [*page.rows, *more.rows], more.token
        assert {(row.partition, row.key): row.values for row in page.rows} == {
            ("", f"rechubcreated-control-{number:02d}"): {"IsDraining": False} for number in range(4)
        }
        for table in ("RecHubCreatedPartitions", "RecHubCreatedHistory", "RecHubCreatedInstances"):
            assert not await model.tables.create_table(table), f"{table} is there"
        for queue in ("rechubcreated-workitems", *(f"rechubcreated-control-{number:02d}" for number in range(4))):
            assert not await model.queues.create_queue(queue)
        assert await model.queues.create_queue("rechubcreated-control-04"), "and no more"
        assert await model.blobs.get_blob("rechubcreated-applease", "rechubcreated-appleaseinfo") == b"{}"
        again = await scene.create()
        assert (again.partition_count, again.made) == (4, False)

    run(scenario())


def test_what_stands_beside_the_lease_is_left_alone() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        await scene.model.blobs.put_blob(NAMES.app_lease, NAMES.app_lease_info, b'{"OwnerId":"x"}')
        await scene.create()
        assert await scene.model.blobs.get_blob(NAMES.app_lease, NAMES.app_lease_info) == b'{"OwnerId":"x"}'

    run(scenario())


def test_history_and_instances_in_an_account_of_their_own() -> None:
    async def scenario() -> None:
        scene, tracking = Scene(), Scene(2)
        names = HubNames("RecHubCreated", "Shared")
        await create_hub(TrackedService(scene.model, tracking.model, names), names, 2, scene.environment)
        assert not await tracking.model.tables.create_table("SharedHistory")
        assert not await tracking.model.tables.create_table("SharedInstances")
        assert not await scene.model.tables.create_table("RecHubCreatedPartitions")
        assert await scene.model.tables.create_table("SharedHistory")

    run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_hosts_with_different_settings_make_one_hub(seed: int) -> None:
    async def scenario() -> None:
        scene = Scene(seed)
        counts = await asyncio.gather(*(scene.create(count) for count in (4, 8, 1, 4)))
        assert len({created.partition_count for created in counts}) == 1
        assert len(await scene.rows()) == counts[0].partition_count

    run(scenario())


def test_the_hub_keeps_its_number_of_partitions(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create(2)
        assert (await scene.create(8)).partition_count == 2
        assert await scene.rows() == {0, 1}

    run(scenario())
    assert "has 2 partitions, the settings say 8" in caplog.text


@pytest.mark.parametrize(("rows", "setting", "count"), [((5, 1), 4, 6), ((1,), 4, 4), ((0,), 4, 1), ((3,), 2, 4)])
def test_a_hub_that_dotnet_has_begun_is_finished(rows: tuple[int, ...], setting: int, count: int) -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.model.tables.create_table(NAMES.partitions)
        await scene.insert(*rows)
        assert (await scene.create(setting)).partition_count == count
        assert await scene.rows() == set(range(count))

    run(scenario())


@pytest.mark.parametrize("done", [True, False])
def test_answers_that_say_nothing_are_asked_again(done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene()
        calls = {"blobs.create_container", "blobs.put_blob", "tables.create_table", "queues.create_queue"}
        for name in sorted(calls | {"tables.transact", "tables.query"}):
            part, _, method = name.partition(".")
            _lose_first_answer(getattr(scene.model, part), method, done, monkeypatch)
        assert (await scene.create()).partition_count == 4
        assert await scene.rows() == {0, 1, 2, 3}

    run(scenario())


def test_a_service_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene()

        async def silent(*_: Any) -> bool:
            raise Unsure("no answer")

        monkeypatch.setattr(scene.model.queues, "create_queue", silent)
        with pytest.raises(Unsure):
            await asyncio.wait_for(scene.create(), 60)

    run(scenario())


def _lose_first_answer(part: Any, method: str, done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    true, met = getattr(part, method), []

    async def troubled(*arguments: Any, **named: Any) -> Any:
        if met:
            return await true(*arguments, **named)
        met.append(method)
        if done:
            await true(*arguments, **named)
        raise Unsure("no answer")

    monkeypatch.setattr(part, method, troubled)


def test_a_hub_can_be_deleted_and_made_anew() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create(16)
        await scene.model.blobs.create_container(NAMES.large_messages)
        await scene.model.tables.create_table(NAMES.own)
        await delete_hub(scene.model, NAMES)
        await delete_hub(scene.model, NAMES)
        began = scene.environment.monotonic()
        assert (await scene.create(3)).partition_count == 3
        assert scene.environment.monotonic() - began > 20, "the names were still being deleted"

    run(scenario())


def test_a_hub_that_an_app_holds_is_not_deleted() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        await scene.model.blobs.acquire_lease(NAMES.app_lease, None, 60, dotnet_lease_id("app"))
        with pytest.raises(HubLeased, match="Stop that app"):
            await delete_hub(scene.model, NAMES)
        assert await scene.rows() == {0, 1, 2, 3}
        await scene.model.blobs.release_lease(NAMES.app_lease, None, dotnet_lease_id("app"))
        await delete_hub(scene.model, NAMES)

    run(scenario())


@pytest.mark.parametrize("hub", ["", "ab", "1hub", "my-hub", "x" * 46, "hüb", "hub\n"])
def test_names_that_azure_refuses(hub: str) -> None:
    with pytest.raises(InvalidInput, match="3 to 45"):
        HubNames(hub)


def test_names_and_numbers() -> None:
    assert NAMES.partition_number("rechubcreated-control-03") == 3
    for other in ("rechubcreated-control-3", "rechubcreated-workitems", "hub-control-03", "rechubcreated-control-٠٣"):
        assert NAMES.partition_number(other) is None
    recorded = {"@counter@a": 2, "@counter@k": 0, "a": 0, "ab": 2, "b": 1, "adder": 3}
    assert {name: partition_of(name, 4) for name in recorded} == recorded
    with pytest.raises(InvalidInput, match="1 to 16"):
        run(Scene().create(17))


def test_keys_of_ids() -> None:
    assert escape_key("a/b\\c#d?e^f\x01\x85") == "a^0b^1c^2d^3e^^f^\u00c1^\u0145"
    for text in ("plain", "^^0", "a/b\\c#d?e^f\x00\x1f\x7f\x9f", "@counter@k", "ä😀"):
        assert unescape_key(escape_key(text)) == text
    assert unescape_key("odd^z^") == "odd^z^"


def ended(awaitable: Awaitable[T]) -> T:
    result: T = run(awaitable)
    return result


def test_the_lease_ids() -> None:
    assert dotnet_lease_id("") == "811c9dc5-0000-0000-0000-000000000000", "as recorded"
    assert own_lease_id("") == "811c9dc5-686f-6c64-7472-756500000000"


def test_the_lease_is_kept_and_given_up() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        first, second = scene.lease(), scene.lease()
        await first.acquire()
        await second.acquire()
        await asyncio.sleep(300)
        assert first.is_held() and second.is_held() and not scene.lost
        assert await scene.model.blobs.get_blob(NAMES.app_lease, NAMES.app_lease_info) == (
            b'{"OwnerId":"%s","DesiredSwapId":null}' % own_lease_id("app").encode()
        )
        await first.close(release=False)
        assert not first.is_held() and second.is_held()
        other = scene.lease("other")
        with pytest.raises(HubLeasedByAnotherApp, match="'other'"):
            await other.acquire()
        await second.close(release=True)
        await other.acquire()
        await other.close(release=True)

    run(scenario())


def test_a_host_kept_out_waits_its_turn() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        first = scene.lease("one")
        await first.acquire()
        other = scene.lease("two")
        waiting = asyncio.get_running_loop().create_task(other.wait())
        await asyncio.sleep(100)
        assert not waiting.done()
        await first.close(release=False)
        await asyncio.sleep(60 + ACQUIRE_LATER.acquire)
        assert waiting.done() and other.is_held()
        await other.close(release=True)

    run(scenario())


def test_what_a_stopped_dotnet_worker_left_is_taken_over() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        left = dotnet_lease_id("app")
        await scene.model.blobs.acquire_lease(NAMES.app_lease, None, 60, left)
        alive = scene.lease(dotnet=True)
        with pytest.raises(HubLeasedByAnotherApp):
            await alive.acquire()
        ours = scene.lease()
        await ours.acquire()
        assert not await scene.model.blobs.renew_lease(NAMES.app_lease, None, left), "and .NET stays out"
        assert not await scene.model.blobs.acquire_lease(NAMES.app_lease, None, 60, left)
        await ours.close(release=True)

    run(scenario())


def test_beside_dotnet_the_lease_is_shared() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        theirs = dotnet_lease_id("app")
        await scene.model.blobs.acquire_lease(NAMES.app_lease, None, 60, theirs)
        beside = scene.lease(dotnet=True, beside_dotnet=True)
        await beside.acquire()
        assert await scene.model.blobs.renew_lease(NAMES.app_lease, None, theirs)
        await beside.close(release=False)

    run(scenario())


def test_a_lease_that_was_released_by_another_is_taken_again() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        first, second = scene.lease(), scene.lease()
        await first.acquire()
        await second.acquire()
        await first.close(release=True)
        await asyncio.sleep(30)
        assert second.is_held() and not scene.lost
        assert not await scene.model.blobs.acquire_lease(NAMES.app_lease, None, 60, own_lease_id("other"))
        await second.close(release=True)

    run(scenario())


def test_a_lease_that_another_app_takes_is_told_as_lost() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        lease = scene.lease()
        await lease.acquire()
        await scene.model.blobs.change_lease(NAMES.app_lease, None, own_lease_id("app"), dotnet_lease_id("other"))
        await asyncio.sleep(26)
        assert scene.lost == 1 and not lease.is_held()
        await lease.close(release=True)

    run(scenario())


def test_a_lease_that_cannot_be_renewed_is_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.create()
        lease = scene.lease()
        await lease.acquire()

        async def silent(*_: Any) -> bool:
            raise Unsure("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(scene.model.blobs, "renew_lease", silent)
            await asyncio.sleep(40)
            assert lease.is_held() and not scene.lost
        await asyncio.sleep(2)
        assert lease.is_held()
        monkeypatch.setattr(scene.model.blobs, "renew_lease", silent)
        await asyncio.sleep(52)
        assert lease.is_held() and not scene.lost
        await asyncio.sleep(6)
        assert not lease.is_held() and scene.lost == 1, "before the service lets another have it"
        await lease.close(release=False)

    run(scenario())
