"""The proxy before a real emulator: with our own requests, with the official clients, and each of its faults."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.service import ANY, Conflict, Do, NotThere, Operation, Refused, Service, Unsure
from holdtrue.testing.storage_proxy import (
    ANSWER_LOST,
    CUT_SHORT,
    REFUSED,
    RESET_BEFORE,
    TWICE,
    Fault,
    Seen,
    StorageProxy,
    answered,
    answered_late,
    instead,
    killed,
    late,
)
from holdtrue.testing.storage_real_service import RealService
from holdtrue.testing.storage_requests import Answer
from tests.azurite.official import OfficialService
from tools.azurite import Azurite


@asynccontextmanager
async def through(azurite: Azurite, proxy: StorageProxy, *, timeout: float = 30.0) -> AsyncIterator[HttpService]:
    """Our own requests, through a proxy, to an account of its own."""
    connection = azurite.connection_string(azurite.new_account(), proxy.ports)
    service = HttpService(from_connection_string(connection), timeout=timeout)
    await service.open()
    try:
        yield service
    finally:
        await service.close()


def of_kind(kind: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.about.kind == kind


def gives_one(answer: Answer) -> bool:
    return b"<MessageId>" in answer.body


MESSAGE = '{"TaskMessage":{"OrchestrationInstance":{"InstanceId":"a/b","ExecutionId":"x"}}}'


async def _something_of_all(service: Service) -> None:
    for table in ("HubHistory", "HubInstances", "HubPartitions"):
        await service.tables.create_table(table)
    insert = Operation(do=Do.INSERT, partition="a^0b", key="0000000000000000", values={"EventType": "x"})
    (etag,) = await service.tables.transact("HubHistory", [insert])
    await service.tables.write("HubInstances", Operation(do=Do.INSERT, partition="a^0b", key=""))
    await service.tables.write("HubInstances", Operation(do=Do.MERGE, partition="a^0b", key="", values={"A": 1}))
    await service.tables.write("HubPartitions", Operation(do=Do.REPLACE, partition="hub-control-00", key=""))
    assert await service.tables.get("HubInstances", "a^0b", "") is not None
    assert len((await service.tables.query("HubHistory", port.Test("PartitionKey", "eq", "a^0b"))).rows) == 1
    await service.tables.write(
        "HubHistory", Operation(do=Do.DELETE, partition="a^0b", key="0000000000000000", etag=etag)
    )
    await service.queues.create_queue("hub-control-00")
    assert await service.queues.take("hub-control-00", 32, 5) == []
    await service.queues.put("hub-control-00", MESSAGE)
    (message,) = await service.queues.take("hub-control-00", 32, 5)
    receipt = await service.queues.hide("hub-control-00", message.id, message.receipt, 30)
    await service.queues.remove("hub-control-00", message.id, receipt)
    await service.blobs.create_container("hub-largemessages")
    await service.blobs.put_blob("hub-largemessages", "a/b/message-1.json.gz", b"x")
    assert await service.blobs.get_blob("hub-largemessages", "a/b/message-1.json.gz") == b"x"
    assert (await service.blobs.list_blobs("hub-largemessages", "a/b/"))[0]
    await service.blobs.acquire_lease("hub-largemessages", None, 60, "c3d5e3a5-8d2b-4b7a-9d0e-000000000001")


SOMETHING = Counter(
    {
        "table create ": 3,
        "table transact history": 1,
        "table insert instances": 1,
        "table merge instances": 1,
        "table replace partitions": 1,
        "table get instances": 1,
        "table query history": 1,
        "table delete history": 1,
        "queue create control": 1,
        "queue get control (empty)": 1,
        "queue put control": 1,
        "queue get control": 1,
        "queue renew control": 1,
        "queue delete control": 1,
        "blob create largemessages": 1,
        "blob put largemessages": 1,
        "blob get largemessages": 1,
        "blob list largemessages": 1,
        "blob lease-acquire largemessages": 1,
    }
)


def test_it_counts_by_kind_and_knows_the_instance(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy) as service:
            await _something_of_all(service)
        assert proxy.counts == SOMETHING
        assert proxy.work() == SOMETHING.total() - 4  # the empty poll, the renewal, the lease, the partition's row
        about_it = Counter(seen.about.role for seen in proxy.seen if seen.instances == ("a/b",))
        assert about_it == {"history": 3, "instances": 3, "control": 4, "largemessages": 2}

    asyncio.run(main())


def test_the_official_clients_work_through_it_and_make_the_same_requests(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy:
            service = OfficialService(azurite.connection_string(azurite.new_account(), proxy.ports))
            try:
                await _something_of_all(service)
            finally:
                await service.close()
        assert proxy.counts == SOMETHING

    asyncio.run(main())


async def _rows(service: Service) -> list[str]:
    return [row.key for row in (await service.tables.query("Rows")).rows]


async def _insert(service: Service) -> None:
    await service.tables.write("Rows", Operation(do=Do.INSERT, partition="a", key="1"))


CASES: list[tuple[Fault, type[Exception] | None, bool]] = [
    (REFUSED, Unsure, False),
    (RESET_BEFORE, Unsure, False),
    (ANSWER_LOST, Unsure, True),
    (answered(500), Unsure, True),
    (answered(503), Unsure, True),
    (answered(429), Unsure, True),
    (answered(409), Conflict, True),
    (answered(412), Conflict, True),
    (instead(500), Unsure, False),
    (instead(503), Unsure, False),
    (instead(429), Unsure, False),
    (instead(409), Conflict, False),
    (answered_late(1.5), Unsure, True),
    (TWICE, Conflict, True),
]


@pytest.mark.parametrize(("fault", "error", "done"), CASES, ids=[fault.name for fault, _, _ in CASES])
def test_a_fault_at_the_second_write(azurite: Azurite, fault: Fault, error: type[Exception] | None, done: bool) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy, timeout=1.0) as service:
            await service.tables.create_table("Rows")
            rule = proxy.spoil(of_kind("table insert Rows"), fault, nth=2)
            await service.tables.write("Rows", Operation(do=Do.INSERT, partition="a", key="0"))
            with pytest.raises(error or Unsure):
                await _insert(service)
            assert [seen.fault for seen in rule.spoiled] == [fault.name]
            assert await _rows(service) == (["0", "1"] if done else ["0"])
            await service.tables.write("Rows", Operation(do=Do.REPLACE, partition="a", key="1"))

    asyncio.run(main())


def test_a_conflict_of_a_transaction_stands_within_its_answer(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy) as service:
            await service.tables.create_table("Rows")
            for status, code in ((409, "EntityAlreadyExists"), (412, "UpdateConditionNotSatisfied")):
                proxy.spoil(of_kind("table transact Rows"), answered(status), nth=1)
                with pytest.raises(Conflict) as caught:
                    await service.tables.transact("Rows", [Operation(do=Do.INSERT, partition="a", key=code)])
                assert (caught.value.status, caught.value.code) == (status, code)
            assert len(await _rows(service)) == 2

    asyncio.run(main())


def test_done_after_the_client_has_given_up(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy, timeout=0.5) as service:
            await service.tables.create_table("Rows")
            proxy.spoil(of_kind("table insert Rows"), late(1.0))
            with pytest.raises(Unsure):
                await _insert(service)
            assert await _rows(service) == []
            async with asyncio.timeout(30):
                while await _rows(service) != ["1"]:
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_an_answer_cut_short_is_no_answer(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy) as service:
            await service.queues.create_queue("mail")
            await service.queues.put("mail", "x")
            rule = proxy.spoil(
                of_kind("queue get mail"), CUT_SHORT, answered=lambda answer: b"<MessageId>" in answer.body
            )
            with pytest.raises(Unsure):
                await service.queues.take("mail", 1, 1)
            assert len(rule.spoiled) == 1
            async with asyncio.timeout(30):  # it was got, and comes back
                while not await service.queues.take("mail", 1, 1):
                    await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_killed_client_reaches_nothing_any_more(azurite: Azurite) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports) as proxy, through(azurite, proxy) as service:
            await service.tables.create_table("Rows")
            proxy.spoil(of_kind("table insert Rows"), killed(StorageProxy.cut_off))
            for _ in range(2):
                with pytest.raises(Unsure):
                    await _insert(service)
            assert len(proxy.seen) == 2

    asyncio.run(main())


def test_a_rule_about_the_answer_cannot_prevent_the_request(azurite: Azurite) -> None:
    proxy = StorageProxy(azurite.ports)
    with pytest.raises(ValueError, match="too late"):
        proxy.spoil(of_kind("queue get mail"), REFUSED, answered=lambda answer: True)


# -- as the real service answers -------------------------------------------------------------------------


def on_a_real_service(azurite: Azurite, act: Callable[[HttpService], Awaitable[None]], real: RealService) -> None:
    async def main() -> None:
        async with StorageProxy(azurite.ports, real=real) as proxy, through(azurite, proxy) as service:
            await act(service)

    asyncio.run(main())


def test_an_old_receipt_gets_404_though_the_message_is_there(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        await service.queues.create_queue("mail")
        await service.queues.put("mail", "x")
        (message,) = await service.queues.take("mail", 1, 30)
        new = await service.queues.hide("mail", message.id, message.receipt, 30)
        for doing in (
            service.queues.remove("mail", message.id, message.receipt),
            service.queues.hide("mail", message.id, message.receipt, 30),
        ):
            with pytest.raises(NotThere) as caught:
                await doing
            assert caught.value.code == "MessageNotFound"
        await service.queues.remove("mail", message.id, new)

    on_a_real_service(azurite, act, RealService(0, busy=0.0))


def test_queries_come_in_short_pages_and_empty_ones_and_whole(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        await service.tables.create_table("Rows")
        for partition in ("", "a'b", "ä"):
            rows = [Operation(do=Do.INSERT, partition=partition, key=f"{n:02}") for n in range(20)]
            await service.tables.transact("Rows", rows)
        sizes = []
        for _ in range(20):
            for where in (None, port.Test("PartitionKey", "eq", "a'b")):
                keys, token = [], None
                while True:
                    page = await service.tables.query("Rows", where, token=token)
                    keys += [(row.partition, row.key) for row in page.rows]
                    sizes.append((len(page.rows), page.token is None))
                    if (token := page.token) is None:
                        break
                everything = [(partition, f"{n:02}") for partition in ("", "a'b", "ä") for n in range(20)]
                assert keys == (everything if where is None else everything[20:40])
        assert {(0, False), (1, False), (2, False), (3, False)} <= set(sizes)
        assert len((await service.tables.query("Rows", None, top=5)).rows) == 5

    on_a_real_service(azurite, act, RealService(0, busy=0.0))


def test_the_service_is_busy_in_bursts(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        await service.queues.create_queue("mail")
        refused = []
        for _ in range(200):
            try:
                await service.queues.put("mail", "x")
                refused.append(False)
            except Unsure as error:
                assert "503 ServerBusy" in str(error)
                refused.append(True)
        assert 10 < sum(refused) < 100
        assert any(refused[n : n + 3] == [True] * 3 for n in range(200))
        assert await service.queues.approximate_count("mail") == 200 - sum(refused)

    on_a_real_service(azurite, act, RealService(0, busy=0.1))


def test_a_row_over_a_megabyte_is_refused_alone_and_in_a_transaction(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        await service.tables.create_table("Rows")
        fits = {f"P{n:02}": "x" * 30_000 for n in range(17)}
        small = Operation(do=Do.INSERT, partition="a", key="1", values=fits)
        large = Operation(do=Do.INSERT, partition="a", key="2", values={**fits, "P99": "x" * 30_000})
        await service.tables.write("Rows", small)
        await service.tables.write("Rows", Operation(do=Do.DELETE, partition="a", key="1", etag=ANY))
        for doing in (service.tables.write("Rows", large), service.tables.transact("Rows", [small, large])):
            with pytest.raises(Refused) as caught:
                await doing
            assert (caught.value.status, caught.value.code) == (400, "EntityTooLarge")
        assert await _rows(service) == []

    on_a_real_service(azurite, act, RealService(0, busy=0.0))
