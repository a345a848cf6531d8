"""The same random calls through several services, and their answers in one form.

Etags, ids and receipts differ from service to service; each side has a `Book` that gives them names in the order
of their coming, so that `etag:7` is on every side that of the seventh write.
"""

import random
import re
from collections.abc import Callable
from typing import Any

import msgspec

from holdtrue.stores.azure_storage import service as port
from holdtrue.stores.azure_storage.service import ANY, Do, Instant, Operation, Service, Typed

TABLES = ("Alpha", "Beta", "Missing")
PARTITIONS = ("a", "it's", "ä @&=+%", "")
KEYS = ("0000000000000000", "0000000000000001", "sentinel", "~x'y", "")
QUEUES = ("first", "second", "missing")
CONTAINERS = ("large", "leases", "missing")
BLOBS = ("a/one.gz", "a/two ä.json", "b%2F/three", "a", "q?/#&")
LEASES = tuple(f"811c9dc5-0000-0000-0000-00000000000{n}" for n in range(3))
HIDDEN = 600
"""Seconds that no run lasts."""


_ETAG = re.compile(r"W/\"datetime\\?'[^']*'\"")


class Call(msgspec.Struct, frozen=True):
    """A call by its verb (`tables.write`), with names in place of what differs."""

    verb: str
    given: tuple[Any, ...]
    named: dict[str, Any] = {}


class Book:
    """What one service calls the things that have a name here."""

    def __init__(self) -> None:
        self._name: dict[str, str] = {}
        self._real: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._doubtful: set[str] = set()

    def new(self, kind: str, real: str | None, place: str = "") -> str | None:
        """Name a thing that has just come.

        `place` is the row or the message that it belongs to: those of one request may share an etag or a receipt.
        """
        if real is None:
            return None
        self._counts[kind] = self._counts.get(kind, 0) + 1
        name = f"{kind}:{self._counts[kind]}"
        if (before := self._name.get(kind + place + real)) is not None:
            self._doubtful |= {before, name}
        self._name[kind + place + real] = name
        self._real[name] = real
        return name

    def name(self, kind: str, real: str, place: str = "") -> str:
        """The name of a thing that came before."""
        return self._name.get(kind + place + real, f"an unknown {kind}")

    def doubts(self, call: Call) -> bool:
        """Whether a call names what came twice: the emulator's receipts have four random digits within a second."""
        return any(given in self._doubtful for given in call.given if isinstance(given, str))

    def real(self, given: Any) -> Any:
        """Arguments with what this service calls them."""
        if isinstance(given, Operation):
            return msgspec.structs.replace(given, etag=self.real(given.etag))
        if isinstance(given, list | tuple):
            return type(given)(self.real(one) for one in given)
        return self._real.get(given, given) if isinstance(given, str) else given


def named(seen: Any, call: Call, book: Book) -> str:
    """A text of what was seen while a call was made, with names in place of ids and receipts, and no etags."""
    text = _ETAG.sub("etag", str(seen))
    for given in call.given:
        text = text.replace(str(book.real(given)), given) if isinstance(given, str) else text
    return text


async def make(service: Service, book: Book, call: Call) -> Any:
    """Make a call; its answer, or its error, in the form that all sides share."""
    part, method = call.verb.split(".")
    do: Callable[..., Any] = getattr(getattr(service, part), method)
    try:
        named = {name: book.real(value) for name, value in call.named.items()}
        answer = await do(*book.real(call.given), **named)
        if isinstance(answer, port.RowPage):
            return await _pages(do, call, answer, book)
    except port.Refused as error:
        index = error.message.partition(":")[0] if method == "transact" else ""
        return type(error).__name__, error.status, error.code, index
    except port.TooLarge as error:
        return (type(error).__name__,)
    return _shared(method, call.given, answer, book)


async def _pages(query: Callable[..., Any], call: Call, page: port.RowPage, book: Book) -> list[list[Any]]:
    """The rows of each page, to the last."""
    pages = []
    while True:
        pages.append([_shared("", (), row, book) for row in page.rows])
        if page.token is None:
            return pages
        page = await query(*call.given, **call.named, token=page.token)


def _shared(method: str, given: tuple[Any, ...], answer: Any, book: Book) -> Any:
    if method == "write":
        return book.new("etag", answer, _place(given[1]))
    if method == "transact":
        return [book.new("etag", etag, _place(one)) for one, etag in zip(given[1], answer, strict=True)]
    if isinstance(answer, port.Row):
        etag = book.name("etag", answer.etag, _place(answer))
        return msgspec.structs.replace(answer, etag=etag, timestamp=answer.timestamp > 0)
    if method == "put":
        return book.new("id", answer[0]), book.new("receipt", answer[1], answer[0])
    if method == "hide":
        return book.new("receipt", answer, book.real(given[1]))
    if method == "take":
        return [
            (book.name("id", one.id), book.new("receipt", one.receipt, one.id), one.text, one.dequeue_count)
            for one in sorted(answer, key=lambda one: int(book.name("id", one.id).partition(":")[2]))
        ]
    if method == "list_blobs":
        return [(info.name, info.size, info.created > 0, info.leased, info.etag != "") for info in answer[0]], answer[1]
    return answer


def _place(row: Operation | port.Row) -> str:
    return f"{row.partition}/{row.key}/"


class Chooser:
    """Chooses calls by a seed, and by what came of those before.

    `tame` leaves out what the client libraries cannot do: one turns CR LF in a message into LF, another can neither
    read the answer to a transaction that is too large, nor go on with a query in the partition without a name.
    """

    def __init__(self, seed: int, *, tame: bool = False) -> None:
        self._tame = tame
        self._partitions = PARTITIONS[:-1] if tame else PARTITIONS
        self._line_end = "\n" if tame else "\r\n"
        self._random = random.Random(seed)
        self._etags: dict[tuple[str, str, str], list[str]] = {}
        self._messages: dict[str, list[tuple[str, list[str]]]] = {queue: [] for queue in QUEUES}

    def first(self) -> list[Call]:
        """Those that make what most others need."""
        return [
            *(Call("tables.create_table", (table,)) for table in TABLES[:2]),
            *(Call("queues.create_queue", (queue,)) for queue in QUEUES[:2]),
            *(Call("blobs.create_container", (container,)) for container in CONTAINERS[:2]),
        ]

    def next(self) -> Call:
        """One more."""
        kinds = (self._write, self._transact, self._get, self._query, self._put, self._take, self._of_message)
        rare = (self._count, self._blob, self._blob, self._lease, self._lease, self._resource)
        return self._random.choice(kinds * 3 + rare)()

    def learn(self, call: Call, answer: Any) -> None:
        """Keep what later calls may name."""
        if call.verb == "tables.write" and isinstance(answer, str):
            self._learn_etag(call.given[0], call.given[1], answer)
        elif call.verb == "tables.transact" and isinstance(answer, list):
            for operation, etag in zip(call.given[1], answer, strict=True):
                if etag is not None:
                    self._learn_etag(call.given[0], operation, etag)
        elif call.verb == "queues.put" and len(answer) == 2:
            self._messages[call.given[0]].append((answer[0], [answer[1]]))
        elif call.verb == "queues.take" and isinstance(answer, list):
            known = dict(self._messages[call.given[0]])
            for id, receipt, _, _ in answer:
                known[id].append(receipt)
        elif call.verb == "queues.hide" and isinstance(answer, str):
            dict(self._messages[call.given[0]])[call.given[1]].append(answer)

    def _learn_etag(self, table: str, operation: Operation, etag: str) -> None:
        self._etags.setdefault((table, operation.partition, operation.key), []).append(etag)

    def _table(self) -> str:
        return self._random.choices(TABLES, (6, 3, 1))[0]

    def _values(self) -> dict[str, Any]:
        """Some columns, each with its own type, as a store has them: of others the emulator compares by chance."""
        every = {
            "Number": self._random.randrange(-(1 << 31), 1 << 31),
            "Truth": self._random.random() < 0.5,
            "Time": Instant(self._random.randrange(10**17)),
            "Status": self._random.choice(("Running", "Completed", "")),
            "Text": "ä'\"<&>\r\n\t\x01 €😀" * self._random.randrange(1, 40),
            "Long": Typed("Edm.Int64", str(self._random.randrange(1 << 60))),
            "Id": Typed("Edm.Guid", LEASES[0]),
        }
        names = self._random.sample(list(every), self._random.randrange(6))
        return {name: every[name] if self._random.random() < 0.8 else None for name in names}

    def _operation(self, table: str, partition: str, key: str | None = None) -> Operation:
        do = self._random.choice(list(Do))
        key = self._random.choice(KEYS) if key is None else key
        known = self._etags.get((table, partition, key), [])
        etags = [ANY, *known[-3:], *known[-1:] * 4]
        if do in (Do.REPLACE, Do.MERGE):
            etags += [None, None]  # type: ignore[list-item]
        values = self._values()
        if self._random.random() < 0.02:
            values["Large"] = "x" * (32 * 1024 + self._random.randrange(2))
        etag = None if do is Do.INSERT else self._random.choice(etags)
        return Operation(do=do, partition=partition, key=key, values={} if do is Do.DELETE else values, etag=etag)

    def _write(self) -> Call:
        table = self._table()
        return Call("tables.write", (table, self._operation(table, self._random.choice(self._partitions))))

    def _transact(self) -> Call:
        table, partition = self._table(), self._random.choice(self._partitions)
        if self._random.random() < 0.03:
            many = [
                Operation(do=Do.REPLACE, partition=partition, key=f"{n:04}")
                for n in range(100 if self._tame else 100 + self._random.randrange(2))
            ]
            return Call("tables.transact", (table, many))
        keys = self._random.sample(KEYS, self._random.randint(1, len(KEYS)))
        operations = [self._operation(table, partition, key) for key in keys]
        if self._random.random() < 0.05:
            operations.append(self._operation(table, partition, keys[0]))
        return Call("tables.transact", (table, operations))

    def _select(self) -> dict[str, Any]:
        return {"select": ["Number", "Status", "Nowhere"]} if self._random.random() < 0.3 else {}

    def _get(self) -> Call:
        place = (self._table(), self._random.choice(self._partitions), self._random.choice(KEYS))
        return Call("tables.get", place, self._select())

    def _query(self) -> Call:
        partition = port.Test("PartitionKey", "eq", self._random.choice(self._partitions))
        key = port.Test("RowKey", self._random.choice(("eq", "ge", "gt", "le", "lt", "ne")), self._random.choice(KEYS))
        number = port.Test("Number", self._random.choice(("ge", "lt")), self._random.randrange(-1000, 1000))
        truth = port.Test("Truth", "eq", True)
        time = port.Test("Time", self._random.choice(("ge", "lt")), Instant(5 * 10**16))
        text = port.Test("Status", "eq", "Running")
        where = self._random.choice(
            (
                None,
                partition,
                port.All((partition, key)),
                port.All((partition, port.Any((number, truth)))),
                port.Any((text, port.All((key, time)))),
                port.All((partition, port.Any((key, text)))),
            )
        )
        top = {"top": self._random.randint(1, 4)} if self._random.random() < 0.4 else {}
        return Call("tables.query", (self._table(), where), {**self._select(), **top})

    def _queue(self) -> str:
        return self._random.choices(QUEUES, (6, 3, 1))[0]

    def _put(self) -> Call:
        texts = ("{}", f"ä'\"<&>{self._line_end}\t €😀 &amp;", "", "x" * 65536, "x" * 65537, " \n ")
        text = self._random.choices(texts, (6, 6, 1, 1, 1, 2))[0]
        delay = self._random.choices((0, HIDDEN, 604_800, 604_801), (8, 1, 1, 1))[0]
        return Call("queues.put", (self._queue(), text), {"delay": delay} if delay else {})

    def _take(self) -> Call:
        limit = self._random.choices((32, 33), (20, 1))[0]
        return Call("queues.take", (self._queue(), limit, self._random.choices((HIDDEN, 0), (20, 1))[0]))

    def _of_message(self) -> Call:
        queue = self._queue()
        messages = self._messages[queue]
        id, receipts = self._random.choice(messages[-8:]) if messages else ("no-such", ["none"])
        receipt = self._random.choice([receipts[-1], receipts[-1], self._random.choice(receipts)])
        if self._random.random() < 0.5:
            return Call("queues.remove", (queue, id, receipt))
        return Call("queues.hide", (queue, id, receipt, self._random.choices((0, HIDDEN, 604_801), (6, 3, 1))[0]))

    def _count(self) -> Call:
        return Call("queues.approximate_count", (self._queue(),))

    def _container(self) -> str:
        return self._random.choices(CONTAINERS, (4, 4, 1))[0]

    def _blob(self) -> Call:
        container, blob = self._container(), self._random.choice(BLOBS)
        lease = self._random.choice((None, None, *LEASES))
        data = self._random.randbytes(self._random.randrange(300))
        return self._random.choice(
            (
                Call("blobs.put_blob", (container, blob, data), {"lease": lease}),
                Call("blobs.put_blob", (container, blob, data), {"only_new": True}),
                Call("blobs.get_blob", (container, blob)),
                Call("blobs.get_blob", (container, blob), {"most": 150}),
                Call("blobs.delete_blob", (container, blob)),
                Call("blobs.list_blobs", (container, self._random.choice(("", "a", "a/", "z")))),
            )
        )

    def _lease(self) -> Call:
        what = (self._container(), self._random.choice((None, *BLOBS)))
        lease, other = self._random.sample(LEASES, 2)
        return self._random.choice(
            (
                Call("blobs.acquire_lease", (*what, self._random.choice((60, 60, 60, 14, 61)), lease)),
                Call("blobs.renew_lease", (*what, lease)),
                Call("blobs.change_lease", (*what, lease, other)),
                Call("blobs.release_lease", (*what, lease)),
                Call("blobs.release_lease", (*what, lease)),
            )
        )

    def _resource(self) -> Call:
        return self._random.choice(
            (
                Call("tables.create_table", (TABLES[0],)),
                Call("tables.delete_table", (TABLES[2],)),
                Call("queues.create_queue", (QUEUES[0],)),
                Call("queues.delete_queue", (QUEUES[2],)),
                Call("blobs.create_container", (CONTAINERS[0],)),
                Call("blobs.delete_container", (CONTAINERS[2],)),
            )
        )
