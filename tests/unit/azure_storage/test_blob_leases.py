"""Partitions shared out by leases on blobs: bytes as .NET's, one owner at a time, hand-over, refusals."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.access import Access
from holdtrue.stores.azure_storage.beside import refuse_beside
from holdtrue.stores.azure_storage.blob_leases import Content, LeaseBlobs
from holdtrue.stores.azure_storage.creating import create_hub, delete_hub
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.ownership import Ownership
from holdtrue.stores.azure_storage.partition_table import PartitionTable
from holdtrue.stores.azure_storage.partitions import HubServed, HubServedByDotNet, Move, Step, Terms
from holdtrue.stores.azure_storage.renewals import Renewer
from holdtrue.stores.azure_storage.served import dotnet_serves, owners
from holdtrue.stores.azure_storage.service import Conflict, Do, Instant, Operation, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.errors import StoreCorrupt
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, VirtualLoop, as_part, run

NAMES = HubNames("Hub")
TERMS = Terms()
SETTINGS = AzureStorageSettings(use_table_partition_management=False)
COUNT = 4
QUEUES = [NAMES.control(number) for number in range(COUNT)]
THEIRS = "09b11b5d-542c-4828-9aa3-e333961ee6a9"

# A host that dies between two steps leaves what it was about to begin.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


class TroubledBlobs:
    """A host's way to the blobs: `trouble` is how many requests go wrong, not done or done, and told as unsure."""

    def __init__(self, blobs: Any, seed: int, trouble: float) -> None:
        self._blobs = blobs
        self._random = random.Random(seed)
        self.trouble = trouble

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*given: Any, **named: Any) -> Any:
            wrong = self._random.random() < self.trouble
            if wrong and self._random.random() < 0.5:
                raise Unsure("not done")
            answer = await getattr(self._blobs, verb)(*given, **named)
            if wrong:
                raise Unsure("done")
            return answer

        return ask


class Host:
    """A host that only owns."""

    def __init__(self, scene: "Scene", name: str, *, drain_takes: float = 0.0, trouble: float = 0.0) -> None:
        self.environment = SimulatedEnvironment(sum(name.encode()))
        self.part = Part(name)
        self.me = f"holdtrue-{name}"
        self.drain_takes = drain_takes
        self.told: list[tuple[str, str]] = []
        self.blobs: Any = TroubledBlobs(scene.model.blobs, sum(name.encode()), trouble)
        self.renewals = Renewer(
            SimpleNamespace(blobs=self.blobs),  # type: ignore[arg-type]
            self.environment,
            SETTINGS.renewal_terms(self.me, NAMES.partitions, NAMES.leases),
        )
        self.ownership = Ownership(
            LeaseBlobs(self.blobs, NAMES.leases, self.me, self.environment, TERMS),
            self.me,
            self.environment,
            TERMS,
            self.renewals,
            on_gained=lambda partition: self.told.append(("gained", partition)),
            on_losing=self.losing,
            on_lost=lambda partition: self.told.append(("lost", partition)),
        )

    async def losing(self, partition: str) -> None:
        self.told.append(("losing", partition))
        await self.environment.sleep(self.drain_takes)

    def start(self) -> None:
        with as_part(self.part):
            asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        await self.renewals.open()
        while True:
            try:
                await self.ownership.open()
                return
            except Unsure:
                await self.environment.sleep(0.5)

    async def close(self) -> None:
        with as_part(self.part):
            await asyncio.ensure_future(self.ownership.close())
            await asyncio.ensure_future(self.renewals.close())

    def mine(self) -> set[str]:
        """What it would work on at this moment; nothing when it cannot run."""
        return set() if self.part.dead or self.part.paused else set(filter(self.ownership.is_mine, QUEUES))


class Scene:
    """A hub in a model account."""

    def __init__(self) -> None:
        self.environment = SimulatedEnvironment(1)
        self.model: Any = StorageModel(self.environment)

    async def create(self, count: int = COUNT, *, blob_leases: bool = True) -> int:
        made = await create_hub(self.model, NAMES, count, self.environment, blob_leases=blob_leases)
        return made.partition_count

    def content(self, kind: str, queue: str = QUEUES[0]) -> Content:
        return msgspec.json.decode(self.model.blobs.look(NAMES.leases, f"{kind}/{queue}"), type=Content)

    async def dotnet_takes(self, kind: str, owner: str = "machine7", *, steals: bool = False) -> None:
        """What a .NET worker does to have the lease of the first partition's blob."""
        blobs, blob, before = self.model.blobs, f"{kind}/{QUEUES[0]}", self.content(kind)
        if steals:
            assert await blobs.change_lease(NAMES.leases, blob, before.token, THEIRS)
        else:
            assert await blobs.acquire_lease(NAMES.leases, blob, 30, THEIRS)
        data = msgspec.json.encode(Content(QUEUES[0], owner, THEIRS, before.epoch + 1))
        await blobs.put_blob(NAMES.leases, blob, data, lease=THEIRS)

    async def is_free(self, kind: str, queue: str = QUEUES[0]) -> bool:
        token, found = None, []
        while True:
            page, token = await self.model.blobs.list_blobs(NAMES.leases, f"{kind}/{queue}", token=token)
            found += page
            if token is None:
                (info,) = found
                return not info.leased

    async def refuse(self, **how: bool) -> None:
        environment: Environment = self.environment
        board = LeaseBlobs(self.model.blobs, NAMES.leases, "holdtrue-me", environment, TERMS)
        await refuse_beside(board, TERMS, environment, **how)


def simulated(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
    """Run it in virtual time, on a hub of its own."""

    def ran() -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            scene = Scene()
            await scene.create()
            await test(scene)

        run(main())

    ran.__doc__, ran.__name__ = test.__doc__, test.__name__
    return ran


async def until(condition: Callable[[], bool], seconds: float) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        assert loop.time() - began <= seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)
    return loop.time() - began


@simulated
async def test_the_blobs_hold_what_those_of_dotnet_hold(scene: Scene) -> None:
    """The recording *BlobLeases*, byte by byte, but for names, ids and times."""

    def bodies() -> dict[str, bytes]:
        return {blob: scene.model.blobs.look(NAMES.leases, blob) for blob in scene.model.blobs.names(NAMES.leases)}

    free = b'{"PartitionId":"hub-control-03","Owner":null,"Token":null,"Epoch":%d}'
    made = bodies()
    assert set(made) == {"taskhub.json", *(f"{kind}/{queue}" for kind in ("intent", "ownership") for queue in QUEUES)}
    head, created, tail = made["taskhub.json"].partition(b'"CreatedAt":"')[0], b"", b""
    assert head == b'{"TaskHubName":"Hub",'
    created, _, tail = made["taskhub.json"].removeprefix(head + b'"CreatedAt":"').partition(b'"')
    assert tail == b',"PartitionCount":4}' and len(created) == len("2026-11-24T23:47:04.5443909Z")
    assert made["intent/hub-control-03"] == made["ownership/hub-control-03"] == free % 0
    host = Host(scene, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    for kind in ("intent", "ownership"):
        content = scene.content(kind, QUEUES[3])
        body = bodies()[f"{kind}/hub-control-03"].decode()
        assert content.token is not None and len(content.token) == 36
        assert body == (f'{{"PartitionId":"hub-control-03","Owner":"holdtrue-a","Token":"{content.token}","Epoch":1}}')
        assert not await scene.model.blobs.acquire_lease(NAMES.leases, f"{kind}/{QUEUES[3]}", 15, THEIRS)
        assert await scene.model.blobs.renew_lease(NAMES.leases, f"{kind}/{QUEUES[3]}", content.token)
    await host.close()
    assert bodies()["intent/hub-control-03"] == bodies()["ownership/hub-control-03"] == free % 1
    assert await scene.is_free("intent") and await scene.is_free("ownership")


@simulated
async def test_what_is_owned_is_renewed_with_few_requests(scene: Scene) -> None:
    host = Host(scene, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    await asyncio.sleep(15)  # the first look reads what it wrote itself
    asked: list[str] = []
    scene.model.account.watch = lambda verb, given, outcome: asked.append(verb)
    for _ in range(30):
        await asyncio.sleep(10)
        assert host.mine() == set(QUEUES)
    assert [kind for kind, _ in host.told] == ["gained"] * COUNT
    assert set(asked) == {"renew_lease", "list_blobs"}, "what has not changed is not read anew"
    assert asked.count("renew_lease") <= 31 * 2 * COUNT
    assert asked.count("list_blobs") <= 31 * 4, "every second page of the model's listings is a short one"


@pytest.mark.parametrize("seed", range(12))
def test_one_owner_at_a_time_whatever_goes_wrong(seed: int) -> None:
    """Hosts come, die, stop, stand still and go on, and a tenth of all requests is lost, or its answer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_exception_handler(lambda loop, context: None)
        scene, chance = Scene(), random.Random(seed)
        await scene.create()
        hosts: list[Host] = []
        names = iter(f"h{seed}-{number}" for number in range(1000))
        ends = loop.time() + 600
        while loop.time() < ends:
            for queue in QUEUES:
                owners = [host.me for host in hosts if queue in host.mine()]
                assert len(owners) <= 1, (queue, owners)
            if chance.random() < 0.01 and len(hosts) < 5:
                hosts.append(Host(scene, next(names), drain_takes=chance.random() * 5, trouble=0.1))
                hosts[-1].start()
            if hosts and chance.random() < 0.004:
                one = chance.choice(hosts)
                if one.part.paused:
                    one.part.paused = False
                    loop.resume(one.part)
                else:
                    one.part.paused = True
            running = [host for host in hosts if not host.part.paused]
            if running and chance.random() < 0.002:
                one = chance.choice(running)
                hosts.remove(one)
                one.part.die()
            await asyncio.sleep(0.25)
        for host in hosts:
            host.blobs.trouble = 0.0
            if host.part.paused:
                host.part.paused = False
                loop.resume(host.part)
        hosts.append(Host(scene, "last"))
        hosts[-1].start()
        await until(
            lambda: sorted(queue for host in hosts for queue in host.mine()) == QUEUES, TERMS.lease + 3 * TERMS.acquire
        )

    run(main())


@simulated
async def test_a_drain_ends_before_another_has_the_partition(scene: Scene) -> None:
    first, second = Host(scene, "a", drain_takes=25.0), Host(scene, "b")
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    second.start()
    await until(lambda: any(kind == "losing" for kind, _ in first.told), 2 * TERMS.acquire)
    handed = next(partition for kind, partition in first.told if kind == "losing")
    content = scene.content("intent", handed)
    assert (content.owner, content.epoch) == ("holdtrue-b", 2) and scene.content("ownership", handed).owner == first.me
    waited = await until(lambda: handed in second.mine(), 30)
    assert 24 < waited < 28
    assert ("lost", handed) in first.told and handed not in first.mine()
    await asyncio.sleep(2)
    assert len(first.mine()) == len(second.mine()) == 2


@simulated
async def test_a_dotnet_worker_that_takes_the_intent_gets_the_partition(scene: Scene) -> None:
    host = Host(scene, "a", drain_takes=3.0)
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    await scene.dotnet_takes("intent", steals=True)
    await until(lambda: QUEUES[0] not in host.mine(), TERMS.acquire + 5)
    assert host.told.count(("losing", QUEUES[0])) == host.told.count(("lost", QUEUES[0])) == 1
    await asyncio.sleep(1)
    assert await scene.is_free("ownership") and scene.content("ownership").owner is None
    await scene.dotnet_takes("ownership")
    for _ in range(10):
        for kind in ("intent", "ownership"):
            assert await scene.model.blobs.renew_lease(NAMES.leases, f"{kind}/{QUEUES[0]}", THEIRS)
        await asyncio.sleep(10)
        assert host.mine() == set(QUEUES[1:])
    for kind in ("intent", "ownership"):  # it stops
        data = msgspec.json.encode(msgspec.structs.replace(scene.content(kind), owner=None, token=None))
        await scene.model.blobs.put_blob(NAMES.leases, f"{kind}/{QUEUES[0]}", data, lease=THEIRS)
        await scene.model.blobs.release_lease(NAMES.leases, f"{kind}/{QUEUES[0]}", THEIRS)
    await until(lambda: host.mine() == set(QUEUES), TERMS.acquire + 1)
    assert scene.content("ownership").epoch == 3


@simulated
async def test_an_intent_is_kept_while_the_owner_drains_for_long(scene: Scene) -> None:
    """A drain may take longer than a lease lasts."""
    first, second = Host(scene, "a", drain_takes=55.0), Host(scene, "b")
    first.start()
    await until(lambda: first.mine() == set(QUEUES), 1)
    second.start()
    await until(lambda: [kind for kind, _ in first.told].count("losing") == 2, 2 * TERMS.acquire)
    for partition in [partition for kind, partition in first.told if kind == "losing"]:
        for _ in range(25):
            assert not await scene.is_free("intent", partition)
            await asyncio.sleep(1)
    await until(lambda: len(second.mine()) == 2, 15)
    assert [kind for kind, _ in first.told].count("losing") == 2, "nobody changed his mind meanwhile"


@simulated
async def test_nobody_joins_beside_a_dotnet_worker_that_holds_leases(scene: Scene) -> None:
    blobs, environment = scene.model.blobs, scene.environment
    for how in ({}, {"anyone": True}, {"anyone": True, "other_kind": True}):
        await scene.refuse(**how)
    await blobs.put_blob(NAMES.leases, f"ownership/{QUEUES[1]}", b"\xff")
    await scene.refuse()
    await scene.dotnet_takes("ownership")
    began = environment.monotonic()
    await scene.refuse()
    assert 29 <= environment.monotonic() - began <= 31, "what a dead one left is waited for"
    for kind in ("intent", "ownership"):

        async def renews(kind: str = kind) -> None:
            while True:
                await blobs.renew_lease(NAMES.leases, f"{kind}/{QUEUES[0]}", THEIRS)
                await asyncio.sleep(10)

        await scene.dotnet_takes(kind)
        renewing = asyncio.ensure_future(renews())
        with pytest.raises(HubServedByDotNet, match=r"'machine7' serves 'hub-control-00'.*settings"):
            await scene.refuse()
        with pytest.raises(HubServedByDotNet, match="hosts of the two kinds do not see each other"):
            await scene.refuse(anyone=True, other_kind=True)
        renewing.cancel()
        await asyncio.sleep(31)


@simulated
async def test_hosts_of_the_two_kinds_do_not_serve_one_hub(scene: Scene) -> None:
    await scene.create(blob_leases=False)
    host = Host(scene, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    await scene.refuse()  # one of ours beside ours of the same kind
    with pytest.raises(HubServed, match="'holdtrue-a' serves"):
        await scene.refuse(anyone=True)
    with pytest.raises(HubServed, match="hosts of the two kinds do not see each other"):
        await scene.refuse(anyone=True, other_kind=True)

    async def renews_row() -> None:
        """The owner of a row: ours, by the table."""
        while True:
            now = Instant(scene.environment.now())
            values: dict[str, Any] = {
                "CurrentOwner": "holdtrue-t",
                "LastRenewal": now,
                "ExpiresAt": Instant(now.ticks + 300_000_000),
            }
            row = Operation(do=Do.REPLACE, partition="", key=QUEUES[0], values=values, etag="*")
            await scene.model.tables.write(NAMES.partitions, row)
            await asyncio.sleep(1)

    renewing = asyncio.ensure_future(renews_row())
    await asyncio.sleep(0.5)
    nothing: Any = SimpleNamespace(row=lambda partition: None, tell_time=lambda offset: None)
    table = PartitionTable(scene.model.tables, NAMES.partitions, scene.environment, TERMS, nothing)
    with pytest.raises(HubServed, match="hosts of the two kinds"):
        await refuse_beside(table, TERMS, scene.environment, anyone=True, other_kind=True)
    renewing.cancel()


@simulated
async def test_a_hub_keeps_its_number_of_partitions_whichever_way_it_was_made(scene: Scene) -> None:
    assert await scene.create(9) == 4
    assert await scene.create(9, blob_leases=False) == 4, "a table made later has as many rows"
    await delete_hub(scene.model, NAMES)
    await asyncio.sleep(40)
    assert await scene.create(3, blob_leases=False) == 3
    assert await scene.create(9) == 3
    counts = {await scene.create(count) for count in (1, 2, 3)}
    assert counts == {3}
    await scene.model.blobs.put_blob(NAMES.leases, "taskhub.json", b'{"PartitionCount":99}')
    with pytest.raises(StoreCorrupt, match="how many partitions"):
        await scene.create()


@simulated
async def test_hosts_that_make_a_hub_at_once_agree(scene: Scene) -> None:
    await delete_hub(scene.model, NAMES)
    await asyncio.sleep(40)
    counts = await asyncio.gather(*(scene.create(count) for count in (2, 5, 7)))
    assert len(set(counts)) == 1
    assert len(scene.model.blobs.names(NAMES.leases)) == 1 + 2 * counts[0]


@simulated
async def test_a_write_under_another_lease_is_refused(scene: Scene) -> None:
    await scene.dotnet_takes("intent")
    blob = f"intent/{QUEUES[0]}"
    for lease, code in ((None, "LeaseIdMissing"), ("0" * 8 + THEIRS[8:], "LeaseIdMismatchWithBlobOperation")):
        with pytest.raises(Conflict) as refused:
            await scene.model.blobs.put_blob(NAMES.leases, blob, b"{}", lease=lease)
        assert refused.value.code == code


@simulated
async def test_nobody_has_a_partition_whose_lease_is_another_s(scene: Scene) -> None:
    """Neither by taking it from its owner, nor where the blob names us yet: who has it has written nothing yet."""
    board = LeaseBlobs(scene.model.blobs, NAMES.leases, "holdtrue-a", scene.environment, TERMS)
    claim = Step(Move.CLAIM, (await board.read())[0])
    await board.write(claim)
    await asyncio.sleep(31)
    assert await scene.model.blobs.acquire_lease(NAMES.leases, f"ownership/{QUEUES[0]}", 30, THEIRS)
    assert (await board.read())[0].current_owner == "holdtrue-a"
    with pytest.raises(Conflict):
        await board.write(claim)
    await scene.dotnet_takes("ownership")
    await board.read()
    with pytest.raises(Conflict):
        await board.write(claim)
    assert await scene.model.blobs.renew_lease(NAMES.leases, f"ownership/{QUEUES[0]}", THEIRS)


@simulated
async def test_what_is_no_longer_ours_is_renewed_no_more(scene: Scene) -> None:
    host = Host(scene, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    blob, token = f"ownership/{QUEUES[0]}", scene.content("ownership").token
    assert host.renewals.row(QUEUES[0]) is not None
    await scene.model.blobs.release_lease(NAMES.leases, blob, token)
    await scene.model.blobs.acquire_lease(NAMES.leases, blob, 60, THEIRS)
    await asyncio.sleep(SETTINGS.lease_renew_interval + 1)
    assert host.renewals.row(QUEUES[0]) is None and host.renewals.row(QUEUES[1]) is not None


@simulated
async def test_a_client_sees_who_serves_a_hub(scene: Scene) -> None:
    """Whichever way the hosts share it; the hub may have no table of partitions at all."""
    access = Access(scene.model, NAMES, scene.environment)
    assert await owners(access) == set() and not await dotnet_serves(access)
    host = Host(scene, "a")
    host.start()
    await until(lambda: host.mine() == set(QUEUES), 1)
    assert await owners(access) == {"holdtrue-a"} and not await dotnet_serves(access)
    await host.close()
    assert await owners(access) == set()
    await scene.dotnet_takes("ownership")
    assert await dotnet_serves(access)
    await asyncio.sleep(61)
    assert not await dotnet_serves(access)
    await delete_hub(scene.model, NAMES)
    assert await owners(access) == set()
