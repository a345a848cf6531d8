"""The second form of a statement (many rows as one JSON text) leaves the hub as the first form, row by row, does."""

from collections.abc import Sequence
from typing import Any

import apsw
import pytest

from holdtrue.stores.sqlite import statements
from holdtrue.stores.sqlite.transaction import Transaction

Row = tuple[Any, ...]

# Rows that hit and rows that miss, in each member by which a statement finds its own.
ROWS: dict[str, list[Row]] = {
    "insert_instance": [
        (11, "new 1", 5, None, 100, 90, 200, 300, "é\x00'\"", "x11", "s11", "dotnet", "p", b'{"a":"\xc3\xa9"}'),
        (12, "i2", None, 7, 100, 90, None, None, "code", "x12", None, "python", None, b""),
        (13, "new 3", None, None, 101, 91, None, None, "code", "x13", None, "python", None, b"{}"),
    ],
    "insert_message": [(1, 51, None, "x1", 3, b'{"e":1}'), (2, 52, 70, None, None, b'{"e":"\xc3\xa9"}')],
    "make_ready": [(60, key) for key in range(1, 7)],
    "fire": [(1, 1, 71), (1, 2, 72), (2, 1, 73), (9, 1, 74), (3, 9, 75)],
    "lock_instance": [(500, 1), (501, 4), (502, 99)],
    "episode": [
        (70, 2, 20, 1, 41, 1),
        (71, 3, 30, 2, 41, 2),
        (72, 4, 40, 3, 43, 9),
        (73, 5, 50, 5, 45, 5),
        (1, 1, 1, 9, 1, 1),
    ],
    "episode_changed": [
        (70, 2, 20, 1, 41, 1, 7, '"é"', None),
        (71, 3, 30, 2, 41, 2, 0, None, '{"kind":"held"}'),
        (72, 4, 40, 3, 43, 9, 0, None, None),
        (73, 5, 50, 5, 45, 5, 0, '""', None),
    ],
    "episode_ended": [
        (70, 2, 20, 1, 41, 1, 1, '"é"', 700, '"out"', None),
        (71, 3, 30, 2, 41, 2, 3, None, 701, None, b'{"m":"\xc3\xa9"}'),
        (72, 4, 40, 3, 43, 9, 1, None, 702, None, None),
        (73, 5, 50, 5, 45, 5, 5, None, 703, None, b"{}"),
    ],
    "insert_history": [(900, b"[1]"), (901, b'["\xc3\xa9"]')],
    "take_messages": [(1,), (3,), (99,)],
    "delete_message": [(1, 1), (2, 2), (3, 9), (9, 1)],
    "insert_activity": [
        (900, 1, 5, 1, 3, "x", "act", b'{"n":"\xc3\xa9"}'),
        (901, 2, None, 0, 4, "x", "act\x1ftag", b"{}"),
    ],
    "delete_activity": [(1, 41), (2, 41), (3, 43), (9, 9)],
    "lock_activity": [(500, 1), (501, 4), (502, 99)],
}

TWO_FORMS = [name for name, (_, form) in statements.FORMS.items() if form is not None]


def hub() -> apsw.Connection:
    """Instances 1 to 6 that differ in lock, length, readiness and what else an episode changes, with what is theirs."""
    made = apsw.Connection(":memory:")
    made.execute(statements.schema())
    for key in range(1, 7):
        lock = None if key in (4, 6) else 40 + key
        values = (key, f"i{key}", key % 2 * 7, lock, 50 if key == 6 else None, key % 2, key, 10 * key, key, key)
        made.execute(
            "insert into instance (key, id, status, lock, ready, woken, length, size, updated, created, name, execution, dialect,"
            " started, tried, condition, custom_status, scheduled)"
            " values (?,?,?,?,?,?,?,?,?,?,'code','x','dotnet',x'7b7d','[3]','{}','\"before\"',80)",
            values,
        )
        made.execute("insert into message values (?,1,?,'x',2,x'7b7d'), (?,2,null,'x',3,x'7b7d')", (key, 5 * key, key))
        made.execute(
            "insert into activity (key, at, lock, run, scheduled, execution, queue, task) values (?,1,?,?,3,'x','act',x'7b7d')",
            (key, lock, key),
        )
    return made


def everything(connection: apsw.Connection) -> dict[str, list[Row]]:
    names = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
    return {
        name: sorted(connection.execute(f"select * from {name}").fetchall(), key=repr)
        for name in names
        if not name.startswith("sqlite_")
    }


def done(name: str, rows: Sequence[Row], *, as_json: bool) -> tuple[int, dict[str, list[Row]]]:
    connection = hub()
    transaction = Transaction(
        connection, now=1, host=1, counters=(0, 0), token=lambda: 1, careful=False, shared=False, as_json=as_json
    )
    before = transaction.connection.total_changes()
    transaction.many(name, rows).fetchall()
    changed = transaction.connection.total_changes() - before
    return changed, everything(connection)


@pytest.mark.parametrize("name", TWO_FORMS)
def test_both_forms_do_the_same(name: str) -> None:
    rows = ROWS[name]
    untouched = everything(hub())
    first, second = done(name, rows, as_json=False), done(name, rows, as_json=True)
    assert first == second
    # The rows are worth asking: some of them changed something, and not all where some are to miss.
    assert first[0] > 0 and first[1] != untouched
