"""Tables over HTTP, as the port `Tables` says."""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.service import Conflict, Filter, NotThere, Operation, Row, RowPage, ServiceError

from . import bodies
from .requests import VERSIONS, Requests, error_of, json_code

_READ = {"dataserviceversion": "3.0", "accept": bodies.MINIMAL}
_WRITE = {**_READ, "prefer": "return-no-content", "content-type": bodies.BARE}


class HttpTables:
    """Tables."""

    def __init__(self, requests: Requests, environment: Environment) -> None:
        self._requests = requests
        self._environment = environment

    async def create_table(self, table: str) -> bool:
        body = msgspec.json.encode({"TableName": table})
        try:
            await self._requests.send(
                "table", "POST", "/Tables", bodies.FORMAT, _WRITE, body, expect=(201, 204), again=True
            )
        except Conflict as conflict:
            if conflict.code == "TableAlreadyExists":
                return False
            raise
        return True

    async def delete_table(self, table: str) -> bool:
        try:
            await self._requests.send(
                "table", "DELETE", f"/Tables('{quote(table, safe='')}')", "", _READ, expect=(204,), again=True
            )
        except NotThere:
            return False
        return True

    async def write(self, table: str, operation: Operation) -> str | None:
        method, path, headers, body = bodies.request_of(table, operation)
        answer = await self._requests.send("table", method, path, bodies.FORMAT, headers, body, expect=(201, 204))
        return answer.headers.get("etag") if method != "DELETE" else None

    async def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        endpoint = self._requests.connection.table
        id = self._environment.new_id()
        body = bodies.transaction_body(endpoint.url, endpoint.host, VERSIONS["table"], table, operations, id)
        headers = {
            "dataserviceversion": "3.0",
            "accept": bodies.JSON,
            "content-type": f"multipart/mixed; boundary=batch_{id}",
        }
        answer = await self._requests.send("table", "POST", "/$batch", "", headers, body, expect=(202,))

        def refused(status: int, part: bytes) -> ServiceError:
            return error_of(status, *json_code(part), f"transaction on {table}")

        return bodies.transaction_answer(answer.body, len(operations), refused)

    async def get(self, table: str, partition: str, key: str, *, select: Sequence[str] | None = None) -> Row | None:
        query = bodies.FORMAT if select is None else f"{bodies.FORMAT}&$select={bodies.selection(select)}"
        try:
            answer = await self._requests.send(
                "table", "GET", bodies.row_path(table, partition, key), query, _READ, expect=(200,), again=True
            )
        except NotThere as gone:
            if gone.code == "TableNotFound":
                raise
            return None
        return bodies.row_in(answer.body, answer.headers.get("etag"))

    async def query(
        self,
        table: str,
        where: Filter | None = None,
        *,
        select: Sequence[str] | None = None,
        top: int | None = None,
        token: str | None = None,
    ) -> RowPage:
        query = bodies.query_text(where, select, top, token)
        answer = await self._requests.send("table", "GET", f"/{table}()", query, _READ, expect=(200,), again=True)
        return RowPage(rows=bodies.rows_in(answer.body), token=bodies.token_of(answer.headers))
