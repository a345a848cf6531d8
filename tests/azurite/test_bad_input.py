"""What an account, a hub or a queue may hold or answer that nobody wants: each is told, and all else goes on."""

import asyncio
import base64
import gzip
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.core.projection import Status
from holdtrue.environment import Environment
from holdtrue.stores.azure_storage import postbox
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.moments import from_header_text
from holdtrue.stores.azure_storage.service import ANY, Conflict, Do, Operation, Service, Value
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreCorrupt, StoreDenied, StoreError, StoreMissing, StoreUnavailable
from tests.azurite.test_store import SETTINGS, Hub, chain, everything, on_hub
from tests.azurite.wiretap import Wiretap
from tools.azurite import KEY, Azurite

# -- the account ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", ["", "ab", "1hub", "my-hub", "my_hub", "x" * 46, "hüb", "hub\n", "a b c"])
def test_a_name_that_azure_refuses(hub: str) -> None:
    with pytest.raises(InvalidInput, match="3 to 45"):
        AzureStorageStore(HttpService(from_connection_string("UseDevelopmentStorage=true")), hub)


@pytest.mark.parametrize("hub", ["abc", "A" * 45, "Hub0123456789"])
def test_a_name_that_is_taken_is_one_that_the_service_takes(azurite: Azurite, hub: str) -> None:
    async def main() -> None:
        service = HttpService(from_connection_string(azurite.connection_string(azurite.new_account())))
        store = AzureStorageStore(service, hub, settings=SETTINGS)
        await store.open()
        assert (await store.info()).instances == {}
        await store.close()

    asyncio.run(main())


def refused(connection: str, environment: Environment | None = None) -> StoreError:
    """How a hub in that account cannot be opened."""

    async def main() -> StoreError:
        return await refusal(connection, environment or Environment())

    return asyncio.run(main())


async def refusal(connection: str, environment: Environment) -> StoreError:
    service = HttpService(from_connection_string(connection), environment)
    store = AzureStorageStore(service, "Hub", settings=SETTINGS, environment=environment)
    with pytest.raises(StoreError) as told:
        async with asyncio.timeout(120):
            await store.open()
    await store.close()
    return told.value


def test_a_wrong_key(azurite: Azurite) -> None:
    connection = azurite.connection_string(azurite.new_account())
    error = refused(connection.replace(KEY, base64.b64encode(b"another").decode()))
    assert type(error) is StoreDenied and "account's key" in str(error)


def test_an_account_that_there_is_not(azurite: Azurite) -> None:
    error = refused(azurite.connection_string("nobody"))
    assert type(error) is StoreUnavailable and "404" in str(error)


def _with_sas(azurite: Azurite, account: str, ends: timedelta, permission: AccountSasPermissions) -> str:
    now = datetime.now(UTC)
    sas = generate_account_sas(
        account,
        KEY,
        resource_types=ResourceTypes(service=True, container=True, object=True),
        permission=permission,
        expiry=now + ends,
        start=now - timedelta(days=1),
        services="bqt",
    )
    return azurite.connection_string(account).replace(f"AccountKey={KEY}", f"SharedAccessSignature={sas}")


ALL = AccountSasPermissions(
    read=True, write=True, delete=True, list=True, add=True, create=True, update=True, process=True
)


@pytest.mark.parametrize(
    ("ends", "permission"), [(-1, ALL), (1, AccountSasPermissions(read=True))], ids=["expired", "it allows too little"]
)
def test_a_signature_that_does_not_do(azurite: Azurite, ends: int, permission: AccountSasPermissions) -> None:
    error = refused(_with_sas(azurite, azurite.new_account(), timedelta(hours=ends), permission))
    assert type(error) is StoreDenied and "shared access signature" in str(error)


def test_one_that_does(azurite: Azurite) -> None:
    async def main() -> None:
        hub = Hub(_with_sas(azurite, azurite.new_account(), timedelta(hours=1), ALL))
        await hub.host("one")
        client = await hub.client()
        done = await client.wait_for_completion(await client.start(chain, input=2), timeout=60)
        assert done.output == 2
        await hub.close()

    asyncio.run(main())


def test_an_account_without_a_service(azurite: Azurite) -> None:
    async def main() -> None:
        services = ("table", "queue", "blob")
        lacking = [
            azurite.connection_string(azurite.new_account(), ports={**azurite.ports, one: 9}) for one in services
        ]
        errors = await asyncio.gather(*(refusal(connection, Environment()) for connection in lacking))
        for error, service in zip(errors, services, strict=True):
            assert type(error) is StoreUnavailable and f"the account's {service} service" in str(error)

    asyncio.run(main())


class Wrong(Environment):
    """The wall clock is wrong."""

    def __init__(self, minutes: int) -> None:
        self._wrong = minutes * 60 * TICKS_PER_SECOND

    def now(self) -> int:
        return super().now() + self._wrong


class Strict(Wiretap):
    """Refuses what was signed more than 15 minutes ago or ahead, as the service does and the emulator does not."""

    def _handler(self, service: str, port: int) -> Any:
        forward = super()._handler(service, port)

        async def judge(request: web.BaseRequest) -> web.StreamResponse:
            wrong = from_header_text(request.headers["x-ms-date"]) - Environment().now()
            if abs(wrong) > 15 * 60 * TICKS_PER_SECOND:
                return web.Response(status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
            answer: web.StreamResponse = await forward(request)
            return answer

        return judge


@pytest.mark.parametrize(("minutes", "said"), [(20, "20 minutes ahead of"), (-3000, "3000 minutes behind")])
def test_a_clock_that_is_wrong(azurite: Azurite, minutes: int, said: str) -> None:
    async def main() -> None:
        async with Strict(azurite.ports) as strict:
            connection = azurite.connection_string(azurite.new_account(), ports=strict.ports)
            error = await refusal(connection, Wrong(minutes))
            assert type(error) is StoreDenied and said in str(error)
            hub = Hub(connection)
            await hub.host("right")
            await hub.close()

    asyncio.run(main())


# -- what vanishes while it runs -------------------------------------------------------------------------------


async def _delete(service: Service, what: str) -> None:
    if what.startswith("Hub"):
        assert await service.tables.delete_table(what)
    elif what == "hub-largemessages":
        assert await service.blobs.delete_container(what)
    else:
        assert await service.queues.delete_queue(what)


GONE = {
    "HubHistory": StoreMissing,
    "HubInstances": StoreMissing,
    "HubPartitions": None,  # who serves a partition serves it until its lease ends
    "HubHoldtrue": None,  # it is made anew
    "hub-largemessages": None,
    "hub-control-00": StoreMissing,
    "hub-control-01": StoreMissing,
    "hub-workitems": None,  # what is owed to it is sent when it is there again
}
"""What is deleted, and what a start says of it."""


@pytest.mark.parametrize("what", GONE)
@on_hub
async def test_something_is_deleted_while_a_host_runs(hub: Hub, what: str) -> None:
    await hub.host("one")
    client = await hub.client()
    big = await client.start(everything, input={"fan": 1, "size": 60_000, "status": 1})
    await client.raise_event(big, "go", 1)
    assert (await client.wait_for_completion(big, timeout=60)).output is not None
    await _delete(hub._stores[0]._service, what)
    told, started = set(), []
    for number in range(6):  # of both partitions
        try:
            started.append(await client.start(chain, input=number, instance_id=f"during{number}"))
        except StoreError as error:
            told.add(type(error))
            assert "the hub 'Hub' is gone" in str(error)
    assert told == ({GONE[what]} if GONE[what] else set())
    await hub.store()  # whoever opens the hub makes what is missing
    if what not in ("HubHistory", "HubInstances"):
        started += [await client.start(chain, input=1, instance_id=f"after{number}") for number in range(4)]
    for instance_id in started:
        assert (await client.wait_for_completion(instance_id, timeout=60)).runtime_status is Status.COMPLETED


@on_hub
async def test_the_container_of_an_app_lease_that_is_held_cannot_be_deleted(hub: Hub) -> None:
    await hub.host("one")
    with pytest.raises(Conflict, match="LeaseIdMissing"):
        await hub._stores[0]._service.blobs.delete_container("hub-applease")


# -- what stands in the queues -----------------------------------------------------------------------------------

DATA = "DurableTask.AzureStorage.MessageData"
CORE = "DurableTask.Core."


def _message(event: dict[str, Any], instance: str = "a") -> str:
    instance_of = {"$type": f"{CORE}OrchestrationInstance", "InstanceId": instance, "ExecutionId": None}
    task = {"$type": f"{CORE}TaskMessage", "Event": event, "SequenceNumber": 0, "OrchestrationInstance": instance_of}
    whole = {"$type": DATA, "ActivityId": "11111111-0000-0000-0000-000000000001", "TaskMessage": task}
    return msgspec.json.encode(whole).decode()


def _in_blob(name: str) -> str:
    whole = {"$type": DATA, "ActivityId": "00000000-0000-0000-0000-000000000000", "CompressedBlobName": name}
    return msgspec.json.encode(whole).decode()


def _raised(**more: Any) -> dict[str, Any]:
    event = {"$type": f"{CORE}History.EventRaisedEvent", "EventType": 15, "EventId": -1, "Name": "go", "Input": "1"}
    return {**event, "Timestamp": "2026-01-01T00:00:00Z", **more}


def _bomb() -> bytes:
    """A little that unpacks to more than anybody wants."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    megabyte = bytes(1 << 20)
    return b"".join(packer.compress(megabyte) for _ in range(257)) + packer.flush()


BLOBS: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"\xff\x00garbage",
    "bomb": _bomb,
    "cut": lambda: gzip.compress(b"x" * 10_000)[:20],
    "another": lambda: gzip.compress(_in_blob("a/another.json.gz").encode()),
    "binary": lambda: gzip.compress(b"\xff\xfe\x00\x01"),
    "empty": lambda: b"",
}
GARBAGE = {
    "a text": "garbage",
    "nothing": "",
    "an open brace": "{",
    "a list": "[]",
    "null": "null",
    "bytes": base64.b64encode(b"\xff\xfe\x00garbage").decode(),
    "64 KB": "x" * 60_000,
    "a type of nobody's": '{"$type":"x"}',
    "no message": msgspec.json.encode({"$type": DATA}).decode(),
    "an event of nobody's": _message({"$type": f"{CORE}History.NoSuchEvent", "EventType": 99}),
    "a stranger's type": _message({"$type": "System.Diagnostics.Process, System", "StartInfo": {}}),
    "to nobody": _message(_raised(), instance=""),
    "members of wrong types": _message(_raised(Name=7, Timestamp="yesterday")),
    "deep lists": "[" * 20_000,
    "deep members": '{"a":' * 10_000,
    **{f"a blob: {name}": _in_blob(f"a/{name}.json.gz") for name in (*BLOBS, "missing")},
}
"""What nobody can read, in whatever queue it stands."""


@on_hub
async def test_garbage_in_the_queues(hub: Hub) -> None:
    """Each of them is kept as a dead letter, with its reason, and what stands behind it comes to its instance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postbox, "LAST_DELIVERY", 2)
        service = (await hub.store())._service
        client = await hub.client()
        await service.blobs.create_container("hub-largemessages")
        for name, data in BLOBS.items():
            await service.blobs.put_blob("hub-largemessages", f"a/{name}.json.gz", data())
        queues = ("hub-control-00", "hub-control-01", "hub-workitems")
        for queue in queues:
            for text in GARBAGE.values():
                await service.queues.put(queue, text)
        started = [await client.start(chain, input=2) for _ in range(6)]
        await hub.host("one")
        for instance_id in started:
            assert (await client.wait_for_completion(instance_id, timeout=60)).output == 2
        store = hub._stores[0]
        while len(letters := await store.dead_letters(limit=1_000)) < len(queues) * len(GARBAGE):
            await asyncio.sleep(0.2)
        async with asyncio.timeout(60):  # each is deleted when its letter is written
            while any([await service.queues.approximate_count(queue) for queue in queues]):
                await asyncio.sleep(0.2)
    reasons = [stored.letter.reason for stored in letters]
    for queue in queues:
        assert sum(f"queue {queue}" in reason for reason in reasons) == len(GARBAGE)
    for said in ("neither JSON nor", "unpacks to more than", "cut short", "is gone", "names another blob", "too deep"):
        assert sum(said in reason for reason in reasons) >= len(queues), said
    assert await store.dismiss([stored.number for stored in letters]) == len(letters)


# -- what stands in the tables -----------------------------------------------------------------------------------


class Row:
    """One row, to be spoiled and mended."""

    def __init__(self, service: Service, table: str, partition: str, key: str) -> None:
        self._tables = service.tables
        self._table, self._partition, self._key = table, partition, key
        self._as_it_was: dict[str, Value] = {}

    async def spoil(self, change: dict[str, Value] | None | str) -> None:
        """Without a column of this name, with other values, or (None) away with it."""
        row = await self._tables.get(self._table, self._partition, self._key)
        assert row is not None
        self._as_it_was = row.values
        if change is None:
            await self._write(Do.DELETE, {})
        elif isinstance(change, str):
            await self._write(Do.REPLACE, {name: value for name, value in row.values.items() if name != change})
        else:
            await self._write(Do.REPLACE, {**row.values, **change})

    async def mend(self) -> None:
        """As it was."""
        await self._write(Do.REPLACE, self._as_it_was)

    async def _write(self, do: Do, values: dict[str, Value]) -> None:
        etag = ANY if do is Do.DELETE else None
        operation = Operation(do=do, partition=self._partition, key=self._key, values=values, etag=etag)
        await self._tables.write(self._table, operation)


async def _that_wait(hub: Hub, *names: str) -> Service:
    """Instances that wait for an event, and no host any more that has them in hand; the account."""
    service = (await hub.store())._service
    await hub.host("before")
    client = await hub.client()
    for name in names:
        await client.start(everything, input={"fan": 1, "size": 1, "status": 1}, instance_id=name)
    for name in names:
        while (status := await client.get_status(name)) is None or status.custom_status is None:
            await asyncio.sleep(0.1)
    await hub._hosts.pop().stop()
    return service


DONE = [1, [0, 1, 2], "on", 1]

HISTORY: dict[str, tuple[str, dict[str, Value] | None | str]] = {
    "bad0": ("0000000000000002", "EventType"),
    "bad1": ("0000000000000002", {"EventType": 4}),
    "bad2": ("0000000000000001", "Name"),
    "bad3": ("0000000000000001", {"_Timestamp": True}),
    "bad4": ("0000000000000003", None),
    "bad5": ("0000000000000003", {"ExecutionId": "another"}),
}
"""Rows of histories, and what becomes of them."""


@on_hub
async def test_rows_of_a_history_are_damaged(hub: Hub) -> None:
    """Their instances are held, with the reason, and go on with all their messages when the rows are mended."""
    service = await _that_wait(hub, "good", *HISTORY)
    client, rows = await hub.client(), []
    for name, (key, change) in HISTORY.items():
        rows.append(Row(service, "HubHistory", name, key))
        await rows[-1].spoil(change)
    await hub.host("one")
    for name in (*HISTORY, "good"):
        await client.raise_event(name, "go", "on")
    assert (await client.wait_for_completion("good", timeout=60)).output == DONE
    for name in HISTORY:
        while (status := await client.get_status(name)) is None or status.condition is None:
            await asyncio.sleep(0.1)
        assert status.condition.kind == "held" and name in status.condition.reason
    assert {item.instance_id for item in (await client.query_page(page_size=1_000)).items} >= {*HISTORY, "good"}
    await hub._hosts.pop().stop()
    for row in rows:
        await row.mend()
    await hub.host("two")
    for name in HISTORY:
        done = await client.wait_for_completion(name, timeout=60)
        assert done.output == DONE and done.condition is None


UNREADABLE: dict[str, tuple[str, str, dict[str, Value] | str]] = {
    "bad0": ("HubHistory", "sentinel", {"Holdtrue": "0:{garbage"}),
    "bad1": ("HubHistory", "sentinel", {"Holdtrue": "9:{}"}),
    "bad2": ("HubInstances", "", "RuntimeStatus"),
    "bad3": ("HubInstances", "", {"RuntimeStatus": "Odd"}),
    "bad4": ("HubInstances", "", {"RuntimeStatus": 4}),
    "bad5": ("HubInstances", "", {"CreatedTime": True}),
    "bad6": ("HubInstances", "", {"Tags": "[garbage"}),
}
"""Rows without which nothing can be said of an instance."""


@on_hub
async def test_rows_that_tell_a_status_are_damaged(hub: Hub) -> None:
    """A typed error for each, lists without them, and all others go on; so do they when their rows are mended."""
    service = await _that_wait(hub, "good", *UNREADABLE)
    client, rows = await hub.client(), []
    for name, (table, key, change) in UNREADABLE.items():
        await client.raise_event(name, "go", "on")
        rows.append(Row(service, table, name, key))
        await rows[-1].spoil(change)
    await hub.host("one")
    await client.raise_event("good", "go", "on")
    assert (await client.wait_for_completion("good", timeout=60)).output == DONE
    for name in UNREADABLE:
        for call in (client.get_status(name), client.raise_event(name, "more"), client.terminate(name)):
            with pytest.raises(StoreCorrupt, match=name):
                await call
    listed = {item.instance_id for item in (await client.query_page(page_size=1_000)).items}
    assert "good" in listed and not listed & UNREADABLE.keys()
    assert (await hub._stores[0].info()).instances.get(Status.RUNNING.name, 0) == 0
    await hub._hosts.pop().stop()
    for row in rows:
        await row.mend()
    await hub.host("two")
    for name in UNREADABLE:
        assert (await client.wait_for_completion(name, timeout=60)).output == DONE


@on_hub
async def test_rows_of_strangers(hub: Hub) -> None:
    service = (await hub.store())._service
    client = await hub.client()
    await service.tables.create_table("HubHoldtrue")
    for table, partition, key in (
        ("HubInstances", "stranger", ""),
        ("HubInstances", "stranger", "more"),
        ("HubHistory", "stranger2", "more"),
        ("HubHoldtrue", "hosts", "stranger"),
        ("HubHoldtrue", "letters", "stranger"),
        ("HubHoldtrue", "schedules", "stranger"),
        ("HubHoldtrue", "waiting", "stranger"),
        ("HubHoldtrue", "stranger", "more"),
        ("HubPartitions", "", "stranger"),
        ("HubPartitions", "other", "hub-control-00"),
    ):
        values: dict[str, Value] = {"X": "1", "RuntimeStatus": "Running"}
        await service.tables.write(table, Operation(do=Do.INSERT, partition=partition, key=key, values=values))
    await hub.host("one")
    done = await client.wait_for_completion(await client.start(chain, input=2), timeout=60)
    assert done.output == 2
    store = hub._stores[0]
    assert await store.dead_letters() == [] and await store.get_schedules() == []
    assert (await store.info()).hosts == ["one"]
    assert await client.get_status("stranger2") is None
    assert await store.expired("chain", 1 << 60, 0, 10) == [done.instance_id]
    stranger = await service.tables.get("HubPartitions", "", "stranger")
    assert stranger is not None and stranger.values == values
