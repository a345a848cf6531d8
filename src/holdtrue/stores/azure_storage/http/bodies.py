"""Rows, filters and transactions as the table service has them on the wire.  Pure.

Rows are JSON with a type beside each value that JSON has no type for; a filter is text; a transaction is a
multipart body whose parts are requests.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any as Anything
from urllib.parse import quote, urlencode

import msgspec

from holdtrue.stores.azure_storage.moments import from_table_text, table_text
from holdtrue.stores.azure_storage.service import (
    All,
    Any,
    Do,
    Filter,
    Instant,
    Operation,
    Row,
    ServiceError,
    Typed,
    Unsure,
    Value,
)

DATE = "Edm.DateTime"
TYPE = "@odata.type"
FORMAT = "$format=application%2Fjson%3Bodata%3Dminimalmetadata"
JSON = "application/json"
MINIMAL = "application/json;odata=minimalmetadata"
BARE = "application/json;odata=nometadata"

_OWN = ("PartitionKey", "RowKey", "Timestamp")


def row_body(operation: Operation) -> bytes:
    """The JSON of a row to be written; a value of None is left out, which is how it is stored."""
    body: dict[str, Anything] = {"PartitionKey": operation.partition, "RowKey": operation.key}
    for name, value in operation.values.items():
        if value is None:
            continue
        if isinstance(value, Instant):
            body[name] = table_text(value.ticks)
            body[name + TYPE] = DATE
        elif isinstance(value, Typed):
            body[name] = value.text
            body[name + TYPE] = value.edm
        else:
            body[name] = value
    return msgspec.json.encode(body)


def row_of(members: Mapping[str, Anything], etag: str | None = None) -> Row:
    """A row as read.  Raises Unsure where the answer is none of a table."""
    values: dict[str, Value] = {}
    try:
        for name, value in members.items():
            if value is None or name in _OWN or name.startswith("odata.") or name.endswith(TYPE):
                continue
            values[name] = _value(value, members.get(name + TYPE))
        stamp = str(members.get("Timestamp") or "")
        return Row(
            partition=members["PartitionKey"],
            key=members["RowKey"],
            values=values,
            etag=etag or members.get("odata.etag") or f"W/\"datetime'{quote(stamp)}'\"",
            timestamp=from_table_text(stamp) if stamp else 0,
        )
    except (KeyError, ValueError, AttributeError) as error:
        raise Unsure(f"a row of the answer cannot be read: {error!r}") from error


def _value(value: Anything, edm: str | None) -> Value:
    if edm == DATE:
        return Instant(from_table_text(value))
    if edm is not None and edm not in ("Edm.String", "Edm.Int32", "Edm.Boolean"):
        return Typed(edm, str(value))
    if isinstance(value, float):
        return Typed("Edm.Double", repr(value))
    if isinstance(value, str | int):
        return value
    raise ValueError(f"a value of type {type(value).__name__}")


class _Rows(msgspec.Struct):
    value: list[dict[str, Anything]]


_decode_rows = msgspec.json.Decoder(_Rows)
_decode_row = msgspec.json.Decoder(dict[str, Anything])


def rows_in(body: bytes) -> list[Row]:
    """The rows of a query's answer.  Raises Unsure where it is none."""
    return [row_of(members) for members in _read(_decode_rows.decode, body).value]


def row_in(body: bytes, etag: str | None) -> Row:
    """The row of a point read's answer.  Raises Unsure where it is none."""
    return row_of(_read(_decode_row.decode, body), etag)


def _read(decode: Callable[[bytes], Anything], body: bytes) -> Anything:
    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unsure(f"the answer is not that of a table: {error}") from error


def row_path(table: str, partition: str, key: str) -> str:
    """The path of a row."""
    return f"/{table}(PartitionKey='{_key(partition)}',RowKey='{_key(key)}')"


def _key(text: str) -> str:
    return quote(text.replace("'", "''"), safe="")


def query_text(where: Filter | None, select: Sequence[str] | None, top: int | None, token: str | None) -> str:
    """The query of a query.  What identifies a row is read with whatever is selected."""
    parts = [FORMAT]
    if top is not None:
        parts.append(f"$top={top}")
    if select is not None:
        parts.append(f"$select={selection(select)}")
    if where is not None:
        parts.append(f"$filter={quote(filter_text(where), safe='')}")
    if token is not None:
        parts.append(token)
    return "&".join(parts)


def selection(select: Sequence[str]) -> str:
    """The columns asked for, with those that each row needs."""
    return quote(",".join([*(name for name in select if name not in _OWN), *_OWN]), safe="")


def token_of(headers: Mapping[str, str]) -> str | None:
    """Where the next page begins, as its query; None at the end."""
    names = ("NextPartitionKey", "NextRowKey")
    found = {name: headers.get(f"x-ms-continuation-{name}") for name in names}
    return urlencode({name: value for name, value in found.items() if value is not None}, quote_via=quote) or None


def filter_text(where: Filter) -> str:
    """A filter in the service's words."""
    if isinstance(where, All | Any):
        word = " and " if isinstance(where, All) else " or "
        return word.join(
            f"({filter_text(part)})" if isinstance(part, All | Any) else filter_text(part) for part in where.parts
        )
    return f"{where.column} {where.by} {_literal(where.value)}"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Instant):
        return f"datetime'{table_text(value.ticks)}'"
    forms = {"Edm.Int64": "{}L", "Edm.Guid": "guid'{}'", "Edm.Double": "{}"}
    if value.edm not in forms:
        raise ValueError(f"a filter cannot compare a column of type {value.edm}")
    return forms[value.edm].format(value.text)


METHODS = {Do.INSERT: "POST", Do.REPLACE: "PUT", Do.MERGE: "PATCH", Do.DELETE: "DELETE"}


def request_of(table: str, operation: Operation) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers and body that write one row.

    Raises ValueError for a delete that does not say what it expects.
    """
    do = operation.do
    if do is Do.DELETE and operation.etag is None:
        raise ValueError("a delete says which etag the row must have: ANY for any")
    headers = {"dataserviceversion": "3.0"}
    if do is Do.INSERT:
        headers |= {"prefer": "return-no-content", "accept": MINIMAL, "content-type": BARE}
        return "POST", f"/{table}", headers, row_body(operation)
    if operation.etag is not None:
        headers["if-match"] = operation.etag
    path = row_path(table, operation.partition, operation.key)
    if do is Do.DELETE:
        return "DELETE", path, headers | {"accept": MINIMAL}, b""
    return METHODS[do], path, headers | {"accept": JSON, "content-type": JSON}, row_body(operation)


def transaction_body(url: str, host: str, version: str, table: str, operations: Sequence[Operation], id: str) -> bytes:
    """The multipart body of a transaction; its outer boundary is `batch_` and the id."""
    parts = [f"--batch_{id}\r\nContent-Type: multipart/mixed; boundary=changeset_{id}\r\n\r\n".encode()]
    for operation in operations:
        method, path, headers, body = request_of(table, operation)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        parts.append(
            f"--changeset_{id}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            f"{method} {url}{path}?{FORMAT} HTTP/1.1\r\nHost: {host}\r\nx-ms-version: {version}\r\n{lines}\r\n".encode()
        )
        parts.append(body + b"\r\n")
    parts.append(f"--changeset_{id}--\r\n\r\n--batch_{id}--\r\n".encode())
    return b"".join(parts)


_BOUNDARY = re.compile(rb"boundary=\"?(changesetresponse_[^\s\";]+)")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_ETAG = re.compile(rb"^etag:\s*(\S+)\s*$", re.IGNORECASE | re.MULTILINE)


def transaction_answer(body: bytes, count: int, refused: Callable[[int, bytes], ServiceError]) -> list[str | None]:
    """The new etags of a transaction's writes, from its answer.

    `refused` makes the error of a part's status and body.  Raises Unsure where parts are missing.
    """
    found = _BOUNDARY.search(body)
    parts = body.split(b"--" + found[1])[1:] if found is not None else []
    etags: list[str | None] = []
    for part in parts:
        status = _STATUS.search(part)
        if status is None:
            continue
        head, _, rest = part[status.start() :].partition(b"\r\n\r\n")
        if not status[1].startswith(b"2"):
            raise refused(int(status[1]), rest)
        etag = _ETAG.search(head)
        etags.append(etag[1].decode() if etag is not None else None)
    if len(etags) != count:
        raise Unsure(f"the answer to a transaction of {count} writes has {len(etags)} parts")
    return etags
