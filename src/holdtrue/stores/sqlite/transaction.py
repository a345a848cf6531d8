"""One write transaction: what the operations of the writer see of it.

Holds the connection's cursors, hands out keys, and gathers what others have to be told after the commit.
Knows statements by name only; what they are for stands with the operations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from holdtrue.core.events import Ticks
from holdtrue.stores.decisions import AT_REST

from .statements import FORMS, sql

LOCK_BITS = 40
"""A token is its host's number, shifted by so many bits, plus a counter."""
PLACE_BITS = 26
"""Keys of history rows and work items are their instance's key, shifted by so many bits, plus a place."""
PLACES = 1 << PLACE_BITS

_encode = msgspec.json.Encoder().encode


class Contested(Exception):
    """Something did not stand as it was expected: undo the transaction and go through it row by row."""


def tokens_of(host: int) -> tuple[int, int]:
    """The first and last token of a host."""
    return host << LOCK_BITS, ((host + 1) << LOCK_BITS) - 1


def places_of(instance: int) -> tuple[int, int]:
    """The first and last key of what belongs to an instance."""
    return instance << PLACE_BITS, ((instance + 1) << PLACE_BITS) - 1


class Transaction:
    """The state of one write transaction.

    `host` is the number of this store's host where it has joined and still takes part, else 0.  `careful`
    is true at the second try, after `Contested`.  `shared` says that other stores are open on this hub.
    `as_json` makes `many` use the second form of its statements.  `own` becomes true where this host has to fetch
    something from its own operation.
    """

    __slots__ = (
        "as_json",
        "careful",
        "changed",
        "connection",
        "execute",
        "executemany",
        "host",
        "instance",
        "message",
        "now",
        "own",
        "schedules",
        "shared",
        "token",
        "work",
        "_mail",
    )

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        now: Ticks,
        host: int,
        counters: tuple[int, int],
        token: Callable[[], int],
        careful: bool,
        shared: bool,
        as_json: bool,
    ) -> None:
        self.connection = connection
        self.execute: Any = connection.execute
        self.executemany: Any = connection.executemany
        self.now = now
        self.host = host
        self.token = token
        self.careful = careful
        self.shared = shared
        self.as_json = as_json
        self.work = False
        self.schedules = False
        self.own = False
        self.changed: list[str] = []
        self.instance, self.message = counters
        self._mail: bool | None = None

    def one(self, statement: str, *values: Any) -> Any:
        """The first row, or None."""
        return self.execute(statement, values).fetchone()

    def many(self, name: str, rows: Sequence[tuple[Any, ...]]) -> Any:
        """Run the statement of this name for each row; a cursor over what it returns."""
        statement, form = FORMS[name]
        if self.as_json and form is not None and len(rows) > 1:
            return self.execute(form, (_encode([_texts(row) for row in rows]).decode(),))
        return self.executemany(statement, rows)

    def counted(self, name: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """The same; how many rows it changed."""
        before = self.connection.total_changes()
        self.many(name, rows)
        return self.connection.total_changes() - before

    def next_instance(self) -> int:
        """A key for a new instance."""
        self.instance += 1
        return self.instance

    def next_message(self) -> int:
        """A key for a new message."""
        self.message += 1
        return self.message

    def any_mail(self) -> bool:
        """Whether there is mail for anybody."""
        if self._mail is None:
            self._mail = self.execute(sql.any_mail).fetchone() is not None
        return self._mail

    def send_mail(self, lock: int, instance: int, key: int) -> None:
        """A message is for an instance under another host's lock: it is to fetch it."""
        if lock == AT_REST:
            return
        self.execute(sql.insert_mail, (lock >> LOCK_BITS, instance, key))
        self._mail = self.work = True


def _texts(row: tuple[Any, ...]) -> list[Any]:
    return [value.decode() if type(value) is bytes else value for value in row]
