"""The same port through the client libraries as they come, to compare our own requests with."""

from collections.abc import Sequence
from typing import Any

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.data.tables import EdmType, EntityProperty, TableTransactionError, UpdateMode
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobLeaseClient, BlobServiceClient
from azure.storage.queue.aio import QueueServiceClient

from holdtrue.core.dialect import to_ticks
from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.http.bodies import filter_text
from holdtrue.stores.azure_storage.moments import from_table_text, table_text
from holdtrue.stores.azure_storage.service import ANY, Do, Instant, Operation, Typed


class OfficialService:
    """An account through `azure-data-tables`, `azure-storage-queue` and `azure-storage-blob`, without retries."""

    def __init__(self, connection_string: str) -> None:
        once = {"retry_total": 0}
        self._clients: list[Any] = [
            TableServiceClient.from_connection_string(connection_string, **once),
            QueueServiceClient.from_connection_string(connection_string, **once),
            BlobServiceClient.from_connection_string(connection_string, **once),
        ]
        self.tables = Tables(self._clients[0])
        self.queues = Queues(self._clients[1])
        self.blobs = Blobs(self._clients[2])

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    def blob_url(self, container: str, blob: str) -> str:
        return str(self._clients[2].get_blob_client(container, blob).url)


class _Errors:
    """The libraries' errors as the port's."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, HttpResponseError):
            code = getattr(error, "error_code", None)
            code = str(getattr(code, "value", code) or _code_in(error.response))
            index = f"{error.index}:" if isinstance(error, TableTransactionError) else ""
            status = error.status_code or 0
            cls = {404: port.NotThere, 409: port.Conflict, 412: port.Conflict}.get(status, port.Refused)
            raise cls(status, code, f"{index}{error.message}") from error


def _check_gone(answer: Any) -> None:
    """The library takes a 404 for a success; the port does not."""
    if answer.status_code == 404:
        raise port.NotThere(404, _code_in(answer))


def _code_in(answer: Any) -> str:
    """The code of a table's error, which the library does not always tell."""
    return str(msgspec.json.decode(answer.text())["odata.error"]["code"])


def _into(statuses: list[int]) -> Any:
    """A hook that keeps the status of an answer, which the libraries do not tell."""
    return lambda response: statuses.append(response.http_response.status_code)


class Tables:
    def __init__(self, client: TableServiceClient) -> None:
        self._client = client

    async def create_table(self, table: str) -> bool:
        try:
            await self._client.create_table(table)
        except ResourceExistsError:
            return False
        return True

    async def delete_table(self, table: str) -> bool:
        statuses: list[int] = []
        await self._client.delete_table(table, raw_response_hook=_into(statuses))
        return statuses == [204]

    async def write(self, table: str, operation: Operation) -> str | None:
        kind, entity, how = _step(operation)
        async with self._client.get_table_client(table) as client:
            with _Errors():
                if kind == "delete":
                    answers: list[Any] = []
                    await client.delete_entity(entity, raw_response_hook=answers.append, **how)
                    _check_gone(answers[0].http_response)
                    return None
                do = {"create": client.create_entity, "upsert": client.upsert_entity, "update": client.update_entity}
                return str((await do[kind](entity, **how))["etag"])

    async def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        async with self._client.get_table_client(table) as client:
            with _Errors():
                return [one.get("etag") for one in await client.submit_transaction([_step(one) for one in operations])]

    async def get(self, table: str, partition: str, key: str, *, select: Sequence[str] | None = None) -> Any:
        async with self._client.get_table_client(table) as client:
            try:
                with _Errors():
                    return _row(await client.get_entity(partition, key, select=_select(select)))
            except port.NotThere as gone:
                if gone.code == "TableNotFound":
                    raise
                return None

    async def query(
        self,
        table: str,
        where: port.Filter | None = None,
        *,
        select: Sequence[str] | None = None,
        top: int | None = None,
        token: Any = None,
    ) -> port.RowPage:
        async with self._client.get_table_client(table) as client:
            how = {"results_per_page": top, "select": _select(select)}
            found = client.list_entities(**how) if where is None else client.query_entities(filter_text(where), **how)
            pages = found.by_page(continuation_token=token)
            with _Errors():
                rows = [_row(entity) async for entity in await anext(pages)]
            return port.RowPage(rows=rows, token=pages.continuation_token)


def _select(select: Sequence[str] | None) -> list[str] | None:
    return None if select is None else [*select, "PartitionKey", "RowKey", "Timestamp"]


def _step(operation: Operation) -> tuple[str, dict[str, Any], dict[str, Any]]:
    entity: dict[str, Any] = {"PartitionKey": operation.partition, "RowKey": operation.key}
    for name, value in operation.values.items():
        if isinstance(value, Instant):
            entity[name] = EntityProperty(table_text(value.ticks), EdmType.DATETIME)
        elif isinstance(value, Typed):
            entity[name] = EntityProperty(value.text, EdmType(value.edm))
        elif value is not None:
            entity[name] = value
    if operation.do is Do.INSERT:
        return "create", entity, {}
    how: dict[str, Any] = {}
    if operation.etag == ANY:
        how["match_condition"] = MatchConditions.Unconditionally
    elif operation.etag is not None:
        how |= {"match_condition": MatchConditions.IfNotModified, "etag": operation.etag}
    if operation.do is Do.DELETE:
        return "delete", entity, how
    how["mode"] = UpdateMode.REPLACE if operation.do is Do.REPLACE else UpdateMode.MERGE
    return "update" if operation.etag is not None else "upsert", entity, how


def _row(entity: Any) -> port.Row:
    values: dict[str, Any] = {}
    for name, value in entity.items():
        if name in ("PartitionKey", "RowKey", "Timestamp"):
            continue
        if isinstance(value, EntityProperty):
            values[name] = Typed(str(EdmType(value.edm_type).value), str(value.value))
        elif hasattr(value, "tables_service_value"):
            values[name] = Instant(from_table_text(value.tables_service_value))
        elif isinstance(value, str | int | bool):
            values[name] = value
        else:
            values[name] = Typed("Edm.Guid", str(value))
    return port.Row(
        partition=entity["PartitionKey"],
        key=entity["RowKey"],
        values=values,
        etag=entity.metadata["etag"],
        timestamp=to_ticks(entity.metadata["timestamp"]),
    )


class Queues:
    def __init__(self, client: QueueServiceClient) -> None:
        self._client = client

    async def create_queue(self, queue: str) -> bool:
        try:
            await self._client.create_queue(queue)
        except ResourceExistsError:
            return False
        return True

    async def delete_queue(self, queue: str) -> bool:
        try:
            await self._client.delete_queue(queue)
        except ResourceNotFoundError:
            return False
        return True

    async def put(self, queue: str, text: str, *, delay: int = 0) -> tuple[str, str]:
        with _Errors():
            sent = await self._client.get_queue_client(queue).send_message(
                text, visibility_timeout=delay or None, time_to_live=-1
            )
        return str(sent.id), str(sent.pop_receipt)

    async def take(self, queue: str, limit: int, visibility: int) -> list[port.QueueMessage]:
        client = self._client.get_queue_client(queue)
        pages = client.receive_messages(messages_per_page=limit, visibility_timeout=visibility).by_page()
        with _Errors():
            try:
                found = [one async for one in await anext(pages)]
            except StopAsyncIteration:
                return []
        return [
            port.QueueMessage(
                id=str(one.id),
                receipt=str(one.pop_receipt),
                text=one.content or "",
                dequeue_count=one.dequeue_count or 0,
                inserted=to_ticks(one.inserted_on),  # type: ignore[arg-type]
                next_visible=to_ticks(one.next_visible_on),  # type: ignore[arg-type]
            )
            for one in found
        ]

    async def hide(self, queue: str, message: str, receipt: str, visibility: int) -> str:
        with _Errors():
            client = self._client.get_queue_client(queue)
            return str((await client.update_message(message, receipt, visibility_timeout=visibility)).pop_receipt)

    async def remove(self, queue: str, message: str, receipt: str) -> None:
        with _Errors():
            await self._client.get_queue_client(queue).delete_message(message, receipt)

    async def approximate_count(self, queue: str) -> int:
        with _Errors():
            found = await self._client.get_queue_client(queue).get_queue_properties()
        return int(found.approximate_message_count or 0)


class Blobs:
    def __init__(self, client: BlobServiceClient) -> None:
        self._client = client

    async def create_container(self, container: str) -> bool:
        try:
            await self._client.create_container(container)
        except ResourceExistsError:
            return False
        return True

    async def delete_container(self, container: str) -> bool:
        try:
            await self._client.delete_container(container)
        except ResourceNotFoundError:
            return False
        return True

    async def put_blob(
        self, container: str, blob: str, data: bytes, *, only_new: bool = False, lease: str | None = None
    ) -> None:
        how: dict[str, Any] = {} if lease is None else {"lease": lease}
        with _Errors():
            await self._client.get_blob_client(container, blob).upload_blob(data, overwrite=not only_new, **how)

    async def get_blob(self, container: str, blob: str, *, most: int | None = None) -> bytes | None:
        try:
            with _Errors():
                found = await self._client.get_blob_client(container, blob).download_blob()
                if most is not None and found.size > most:
                    raise port.TooLarge(f"{blob} has more than {most} bytes")
                return bytes(await found.readall())
        except port.NotThere as gone:
            if gone.code == "ContainerNotFound":
                raise
            return None

    async def delete_blob(self, container: str, blob: str) -> bool:
        try:
            with _Errors():
                await self._client.get_blob_client(container, blob).delete_blob()
        except port.NotThere as gone:
            if gone.code == "ContainerNotFound":
                raise
            return False
        return True

    async def list_blobs(self, container: str, prefix: str, *, token: Any = None) -> tuple[list[port.BlobInfo], Any]:
        found = self._client.get_container_client(container).list_blobs(name_starts_with=prefix)
        pages = found.by_page(continuation_token=token)
        with _Errors():
            infos = [
                port.BlobInfo(
                    name=one.name,
                    created=to_ticks(one.creation_time),
                    size=one.size,
                    etag=one.etag.strip('"'),
                    leased=one.lease.status == "locked",
                )
                async for one in await anext(pages)
            ]
        return infos, pages.continuation_token or None

    def _lease(self, container: str, blob: str | None, id: str) -> BlobLeaseClient:
        client: Any = self._client.get_container_client(container)
        return BlobLeaseClient(client if blob is None else client.get_blob_client(blob), lease_id=id)

    async def _done(self, doing: Any) -> bool:
        try:
            with _Errors():
                await doing
        except port.Conflict as conflict:
            if conflict.code.startswith("Lease"):
                return False
            raise
        return True

    async def acquire_lease(self, container: str, blob: str | None, seconds: int, proposed: str) -> bool:
        return await self._done(self._lease(container, blob, proposed).acquire(seconds))

    async def renew_lease(self, container: str, blob: str | None, lease: str) -> bool:
        return await self._done(self._lease(container, blob, lease).renew())

    async def change_lease(self, container: str, blob: str | None, lease: str, proposed: str) -> bool:
        return await self._done(self._lease(container, blob, lease).change(proposed))

    async def release_lease(self, container: str, blob: str | None, lease: str) -> bool:
        return await self._done(self._lease(container, blob, lease).release())
