"""The tables of a model account: rows, transactions, queries in pages that are no snapshot."""

import bisect
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.stores.azure_storage.moments import table_text
from holdtrue.stores.azure_storage.service import (
    ANY,
    All,
    Any,
    Conflict,
    Do,
    Filter,
    Instant,
    Operation,
    Refused,
    Row,
    RowPage,
    Test,
    Typed,
    Value,
)

from .storage_account import Account, expected_otherwise, not_there, refuse, request

PAGE = 1_000
OPERATIONS = 100
TEXT = 32 * 1024
BODY = 4 << 20
KEY = 512
COLUMNS = 252

Place = tuple[bytes, bytes]
"""Partition and row key as the service orders them: by their UTF-16 units."""

_COMPARISONS: dict[str, Callable[[object, object], object]] = {
    by: getattr(operator, by) for by in ("eq", "ne", "ge", "gt", "le", "lt")
}
_FORBIDDEN_IN_KEYS = re.compile(r"[\x00-\x1f\x7f-\x9f/\\#?]")
_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}")


class _Stored(msgspec.Struct):
    partition: str
    key: str
    values: dict[str, Value]
    written: Ticks


class _Table:
    """The rows of a table, in order."""

    def __init__(self) -> None:
        self.rows: dict[Place, _Stored] = {}
        self.order: list[Place] = []

    def put(self, place: Place, row: _Stored | None) -> None:
        if row is None:
            del self.rows[place]
            del self.order[bisect.bisect_left(self.order, place)]
            return
        if place not in self.rows:
            bisect.insort(self.order, place)
        self.rows[place] = row

    def span(self, partition: str) -> tuple[int, int]:
        """Where a partition begins and ends in the order."""
        units = _units(partition)
        first = bisect.bisect_left(self.order, (units, b""))
        return first, bisect.bisect_left(self.order, (units + b"\0", b""), lo=first)


class ModelTables:
    """Tables, as the port `Tables` says."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._tables: dict[str, _Table] = {}

    def look(self, table: str, partition: str) -> list[Row]:
        """The rows of a partition at this moment, in order: for who watches, not for who works."""
        rows = self._tables.get(table.lower(), _Table())
        first, last = rows.span(partition)
        return [_row(rows.rows[place], None) for place in rows.order[first:last]]

    @request
    def create_table(self, table: str) -> bool:
        if not _TABLE_NAME.fullmatch(table):
            raise refuse("InvalidResourceName" if 3 <= len(table) <= 63 else "OutOfRangeInput", table)
        if table.lower() in self._tables:
            return False
        self.account.check_free("Table", table.lower())
        self._tables[table.lower()] = _Table()
        return True

    @request
    def delete_table(self, table: str) -> bool:
        if self._tables.pop(table.lower(), None) is None:
            return False
        self.account.deleted("Table", table.lower())
        return True

    @request
    def write(self, table: str, operation: Operation) -> str | None:
        _check(operation, self.account.manner.row_limit)
        rows = self._table(table)
        place = _place(operation.partition, operation.key)
        new = self._written(rows.rows.get(place), operation)
        rows.put(place, new)
        return None if new is None else _etag(new.written)

    @request
    def transact(self, table: str, operations: Sequence[Operation]) -> list[str | None]:
        if not operations:
            raise refuse("InvalidInput", "0:a transaction has at least one operation")
        if len(operations) > OPERATIONS:
            raise refuse("InvalidInput", "0:the batch request operation exceeds the maximum 100 changes per change set")
        if sum(map(_size, operations)) > BODY:
            raise Refused(413, "RequestBodyTooLarge", "the request body is too large")
        changes: dict[Place, _Stored | None] = {}
        etags: list[str | None] = []
        for index, operation in enumerate(operations):
            place = _place(operation.partition, operation.key)
            try:
                if operation.partition != operations[0].partition:
                    raise refuse("CommandsInBatchActOnDifferentPartitions", "all commands act on one partition")
                if place in changes:
                    raise refuse("InvalidDuplicateRow", f"{operation.key} is already in the batch")
                _check(operation, self.account.manner.row_limit)
                new = self._written(self._table(table).rows.get(place), operation)
            except Refused as refused:
                raise type(refused)(refused.status, refused.code, f"{index}:{refused.message}") from None
            changes[place] = new
            etags.append(None if new is None else _etag(new.written))
        rows = self._table(table)
        for place, new in changes.items():
            rows.put(place, new)
        return etags

    @request
    def get(self, table: str, partition: str, key: str, *, select: Sequence[str] | None = None) -> Row | None:
        stored = self._table(table).rows.get(_place(partition, key))
        return None if stored is None else _row(stored, select)

    @request
    def query(
        self,
        table: str,
        where: Filter | None = None,
        *,
        select: Sequence[str] | None = None,
        top: int | None = None,
        token: str | None = None,
    ) -> RowPage:
        if top is not None and not 1 <= top <= PAGE:
            raise refuse("InvalidInput", f"top is {top}: it may be 1 to {PAGE}")
        rows = self._table(table)
        first = bisect.bisect_left(rows.order, _from_token(token)) if token is not None else 0
        if (partition := _one_partition(where)) is not None:
            least, last = rows.span(partition)
            first = max(first, least)
        else:
            last = len(rows.order)
        limit, scan = self._page(top, last - first)
        page: list[Row] = []
        at = first
        while at < min(last, first + scan):
            stored = rows.rows[rows.order[at]]
            if where is None or holds(where, stored):
                if len(page) == limit:
                    break
                page.append(_row(stored, select))
            at += 1
        if at >= last:
            return RowPage(rows=page, token=None)
        return RowPage(rows=page, token=_to_token(rows.rows[rows.order[at]]))

    def _page(self, top: int | None, there: int) -> tuple[int, int]:
        """How many rows a page may hold, and how many the service looks at for it."""
        limit = PAGE if top is None else top
        if not self.account.manner.short_pages:
            return limit, there
        chance = self.account.random.random()
        if chance < 0.15:
            return limit, 0
        if chance < 0.5:
            return limit, 1 + self.account.random.randrange(max(1, there))
        return limit, there

    def _table(self, table: str) -> _Table:
        rows = self._tables.get(table.lower())
        if rows is None:
            raise not_there("TableNotFound", f"the table {table} does not exist")
        return rows

    def _written(self, old: _Stored | None, operation: Operation) -> _Stored | None:
        """The row after the operation; raises what the service answers where it cannot be done."""
        do, etag = operation.do, operation.etag
        if do is Do.INSERT:
            if old is not None:
                raise Conflict(409, "EntityAlreadyExists", "the specified entity already exists")
        elif etag is not None:
            if old is None:
                raise not_there("ResourceNotFound", "the specified resource does not exist")
            if etag not in (ANY, _etag(old.written)):
                raise expected_otherwise("UpdateConditionNotSatisfied", "the update condition was not satisfied")
        if do is Do.DELETE:
            return None
        values = {name: value for name, value in operation.values.items() if value is not None}
        if do is Do.MERGE and old is not None:
            values = {**old.values, **values}
            if len(values) > COLUMNS:
                raise refuse("TooManyProperties", f"the row would have {len(values)} columns")
            if _row_size(operation.partition, operation.key, values) > self.account.manner.row_limit:
                raise refuse("EntityTooLarge", "the row would be larger than 1 MB")
        return _Stored(operation.partition, operation.key, values, self.account.tick())


def holds(where: Filter, row: _Stored) -> bool:
    """Whether a filter holds of a row.  Of a column that is not there nothing holds, `ne` neither."""
    if isinstance(where, All):
        return all(holds(part, row) for part in where.parts)
    if isinstance(where, Any):
        return any(holds(part, row) for part in where.parts)
    return _compares(where, row)


def _compares(test: Test, row: _Stored) -> bool:
    if test.by not in _COMPARISONS:
        raise refuse("InvalidInput", f"{test.by} is no comparison")
    own = {"PartitionKey": row.partition, "RowKey": row.key, "Timestamp": Instant(row.written)}
    there = own.get(test.column, row.values.get(test.column))
    if there is None or type(there) is not type(test.value):
        return False
    return bool(_COMPARISONS[test.by](_comparable(there), _comparable(test.value)))


def _comparable(value: Value) -> object:
    if isinstance(value, Instant):
        return value.ticks
    if isinstance(value, Typed) and value.edm in ("Edm.Int64", "Edm.Double"):
        return float(value.text) if value.edm == "Edm.Double" else int(value.text)
    if isinstance(value, int):
        return value
    return _units(value.text if isinstance(value, Typed) else value)


def _one_partition(where: Filter | None) -> str | None:
    """The partition in which alone the filter can hold."""
    parts: tuple[Filter, ...] = where.parts if isinstance(where, All) else (where,) if where is not None else ()
    for part in parts:
        if isinstance(part, Test) and part.column == "PartitionKey" and part.by == "eq" and isinstance(part.value, str):
            return part.value
        if isinstance(part, All) and (inner := _one_partition(part)) is not None:
            return inner
    return None


def _units(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def _place(partition: str, key: str) -> Place:
    return _units(partition), _units(key)


def _to_token(row: _Stored) -> str:
    return urlencode({"NextPartitionKey": row.partition, "NextRowKey": row.key})


def _from_token(token: str) -> Place:
    names = dict(parse_qsl(token, keep_blank_values=True))
    return _place(names["NextPartitionKey"], names["NextRowKey"])


@lru_cache(maxsize=4096)
def _etag(written: Ticks) -> str:
    return f"W/\"datetime'{quote(table_text(written))}'\""


def _row(stored: _Stored, select: Sequence[str] | None) -> Row:
    values = stored.values
    return Row(
        partition=stored.partition,
        key=stored.key,
        values=dict(values) if select is None else {name: values[name] for name in select if name in values},
        etag=_etag(stored.written),
        timestamp=stored.written,
    )


def _check(operation: Operation, row_limit: int) -> None:
    """Raises what the service answers to a row that it would not take."""
    if operation.do is Do.DELETE and operation.etag is None:
        raise ValueError("a delete says which etag the row must have: ANY for any")
    if operation.do is Do.DELETE:
        return
    for key in (operation.partition, operation.key):
        if len(_units(key)) > 2 * KEY:
            raise refuse("KeyValueTooLarge", f"a key has more than {KEY} characters")
        if _FORBIDDEN_IN_KEYS.search(key):
            raise refuse("OutOfRangeInput", f"{key!r} has a character that no key may have")
    if len(operation.values) > COLUMNS:
        raise refuse("TooManyProperties", f"{len(operation.values)} columns")
    for name, value in operation.values.items():
        if isinstance(value, str) and len(value) > TEXT // 2 and len(_units(value)) > 2 * TEXT:
            raise refuse("PropertyValueTooLarge", f"{name} exceeds the maximum allowed size (64KB)")
        if type(value) is int and not -(1 << 31) <= value < 1 << 31:
            raise refuse("InvalidInput", f"{name} is no Edm.Int32")
    if _row_size(operation.partition, operation.key, operation.values) > row_limit:
        raise refuse("EntityTooLarge", "the row is larger than 1 MB")


def _row_size(partition: str, key: str, values: Mapping[str, Value | None]) -> int:
    """As the service counts a row."""
    size = 4 + 2 * (len(partition) + len(key))
    for name, value in values.items():
        if value is not None:
            size += 8 + 2 * len(name) + _value_size(value)
    return size


def _value_size(value: Value) -> int:
    if isinstance(value, str):
        return 4 + 2 * len(value)
    if isinstance(value, Typed):
        return 4 + len(value.text)
    return 8


def _size(operation: Operation) -> int:
    """About the bytes of an operation in the body of a transaction."""
    size = 500 + 2 * len(operation.partition) + len(operation.key)
    for name, value in operation.values.items():
        size += len(name) + (40 if not isinstance(value, str) else 6 + len(msgspec.json.encode(value)))
    return size
