"""Our requests against the emulator: what the random calls leave out."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.service import ANY, Do, Operation, Refused
from tools.azurite import KEY, Azurite


def against(connection_string: str, act: Callable[[HttpService], Awaitable[Any]]) -> None:
    """Run with the account of a connection string."""

    async def main() -> None:
        service = HttpService(from_connection_string(connection_string))
        await service.open()
        try:
            await act(service)
        finally:
            await service.close()

    asyncio.run(main())


def sas(azurite: Azurite, account: str, until: timedelta) -> str:
    """A connection string with a shared access signature that ends so long from now."""
    signature = generate_account_sas(
        account,
        KEY,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(
            read=True, write=True, delete=True, list=True, add=True, create=True, update=True, process=True
        ),
        datetime.now(UTC) + until,
        services="bqt",
    )
    plain = azurite.connection_string(account).replace(f"AccountKey={KEY};", "")
    return f"{plain}SharedAccessSignature={signature}"


async def _all_three(service: HttpService) -> None:
    assert await service.tables.create_table("Hub")
    etags = await service.tables.transact("Hub", [Operation(do=Do.INSERT, partition="it's", key="ä")])
    row = await service.tables.get("Hub", "it's", "ä")
    assert row is not None and [row.etag] == etags
    assert await service.queues.create_queue("hub-q")
    id, receipt = await service.queues.put("hub-q", "x")
    await service.queues.remove("hub-q", id, receipt)
    assert await service.blobs.create_container("hub-c")
    await service.blobs.put_blob("hub-c", "a/ä b", b"x")
    assert await service.blobs.get_blob("hub-c", "a/ä b") == b"x"


def test_a_shared_access_signature_opens_all_three_services(azurite: Azurite) -> None:
    against(sas(azurite, azurite.new_account(), timedelta(hours=1)), _all_three)


def test_one_that_has_ended_and_a_wrong_key_are_refused_with_the_services_code(azurite: Azurite) -> None:
    account = azurite.new_account()
    wrong = azurite.connection_string(account).replace(KEY, "d3Jvbmc=")
    for connection_string in (sas(azurite, account, -timedelta(hours=1)), wrong):

        async def act(service: HttpService) -> None:
            for doing in (
                service.tables.create_table("Hub"),
                service.tables.transact("Hub", [Operation(do=Do.INSERT, partition="a", key="1")]),
                service.queues.put("hub-q", "x"),
                service.blobs.create_container("hub-c"),
            ):
                with pytest.raises(Refused) as caught:
                    await doing
                assert caught.value.status == 403
                assert caught.value.code in ("AuthenticationFailed", "AuthorizationFailure")

        against(connection_string, act)


def test_a_large_partition_comes_in_pages(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        tables = service.tables
        await tables.create_table("Hub")
        for first in range(0, 1_100, 100):
            rows = [Operation(do=Do.REPLACE, partition="a", key=f"{first + n:04}") for n in range(100)]
            assert len(set(await tables.transact("Hub", rows))) > 1
        await tables.write("Hub", Operation(do=Do.REPLACE, partition="b", key="0"))
        where = port.Test("PartitionKey", "eq", "a")
        page = await tables.query("Hub", where)
        rest = await tables.query("Hub", where, token=page.token)
        assert page.token is not None and rest.token is None
        assert [row.key for row in page.rows + rest.rows] == [f"{n:04}" for n in range(1_100)]
        found = await tables.query("Hub", where, top=1)
        assert [row.key for row in found.rows] == ["0000"]

    against(azurite.connection_string(azurite.new_account()), act)


def test_a_message_comes_back_when_its_time_is_over(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        queues = service.queues
        await queues.create_queue("hub-q")
        id, _ = await queues.put("hub-q", "x", delay=1)
        for count in (1, 2):
            found: list[port.QueueMessage] = []
            while not found:
                found = await queues.take("hub-q", 32, 1)
                await asyncio.sleep(0.05)
            assert [(one.id, one.dequeue_count) for one in found] == [(id, count)]
        (late,) = found
        assert late.next_visible > late.inserted
        assert (late.inserted, late.next_visible) == (
            late.inserted // TICKS_PER_SECOND * TICKS_PER_SECOND,
            late.next_visible // TICKS_PER_SECOND * TICKS_PER_SECOND,
        )

    against(azurite.connection_string(azurite.new_account()), act)


def test_etags_of_writes_at_once_are_all_different(azurite: Azurite) -> None:
    async def act(service: HttpService) -> None:
        await service.tables.create_table("Hub")
        merge = Operation(do=Do.MERGE, partition="a", key="1", values={"A": 1})
        etags = await asyncio.gather(*(service.tables.write("Hub", merge) for _ in range(100)))
        assert len(set(etags)) == 100
        row = await service.tables.get("Hub", "a", "1")
        assert row is not None and row.etag in etags
        await service.tables.write("Hub", Operation(do=Do.DELETE, partition="a", key="1", etag=row.etag))
        with pytest.raises(port.NotThere):
            await service.tables.write("Hub", Operation(do=Do.DELETE, partition="a", key="1", etag=ANY))

    against(azurite.connection_string(azurite.new_account()), act)


def test_blobs_have_the_url_that_a_row_would_name(azurite: Azurite) -> None:
    account = azurite.new_account()

    async def act(service: HttpService) -> None:
        url = service.blob_url("hub-c", "a b/é.json.gz")
        assert url == f"http://127.0.0.1:{azurite.ports['blob']}/{account}/hub-c/a%20b/%C3%A9.json.gz"

    against(azurite.connection_string(account), act)


def test_the_emulator_ends_with_what_started_it() -> None:
    """Its standard input is a pipe that nobody else holds."""
    from tools.azurite import start

    running = start()
    process = running._process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    running.stop()
