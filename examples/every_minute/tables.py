"""The job's own database: a report row for each month, and a log line for each attempt to load one.

It lies beside the hub, in a file of its own: what an activity does to the outside world is not covered by
the hub's transactions, so the job makes it idempotent itself.  The rule: everything an activity does here
is one transaction, keyed by the execution that it belongs to.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .weather import Figures

_SCHEMA = """
CREATE TABLE IF NOT EXISTS report (
    month TEXT PRIMARY KEY, execution TEXT NOT NULL, figures TEXT NOT NULL, written_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, execution TEXT NOT NULL, month TEXT,
    begun_at REAL NOT NULL, ended_at REAL);
"""


class ReportRow(msgspec.Struct, frozen=True):
    """A month's row: who wrote it and what it says (`written_at` in seconds since 1970 UTC)."""

    month: str
    execution: str
    figures: Figures
    written_at: float


class Attempt(msgspec.Struct, frozen=True):
    """A line of the log: `month` is None where nothing was left to load, `ended_at` where it did not end."""

    number: int
    execution: str
    month: str | None
    begun_at: float
    ended_at: float | None


class AlreadyLoaded(Exception):
    """Another execution has loaded this month: the singleton was none."""


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()  # without COMMIT this takes everything back


def create(path: Path) -> None:
    """Make the tables."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(_SCHEMA)
    connection.close()


def begin(path: Path, execution: str, months: list[str]) -> str | None:
    """Log that `execution` begins with the first of `months` that has no row; gives it, None if all have one.

    Run again (its result was lost with its process) it logs a second line, and finds the same month:
    nobody else writes while this execution runs.
    """
    with _transaction(path) as db:
        loaded = {month for (month,) in db.execute("SELECT month FROM report")}
        month = next((month for month in months if month not in loaded), None)
        now = time.time()
        db.execute(
            "INSERT INTO attempts (execution, month, begun_at, ended_at) VALUES (?, ?, ?, ?)",
            (execution, month, now, now if month is None else None),
        )
    return month


def finish(path: Path, execution: str, figures: Figures) -> bool:
    """Write the month's row and end its log lines, once: False if this execution had done so before.

    Raises AlreadyLoaded where the row is another execution's.
    """
    with _transaction(path) as db:
        row = db.execute("SELECT execution FROM report WHERE month = ?", (figures.month,)).fetchone()
        if row is not None and row[0] != execution:
            raise AlreadyLoaded(f"{figures.month} was loaded by execution {row[0]}, and again by {execution}")
        if row is not None:
            return False
        now = time.time()
        db.execute(
            "INSERT INTO report VALUES (?, ?, ?, ?)",
            (figures.month, execution, msgspec.json.encode(figures).decode(), now),
        )
        db.execute("UPDATE attempts SET ended_at = ? WHERE execution = ? AND ended_at IS NULL", (now, execution))
    return True


def read(path: Path) -> tuple[list[ReportRow], list[Attempt]]:
    """Everything, in order of writing."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        rows = connection.execute("SELECT month, execution, figures, written_at FROM report ORDER BY rowid").fetchall()
        attempts = connection.execute(
            "SELECT number, execution, month, begun_at, ended_at FROM attempts ORDER BY number"
        ).fetchall()
    finally:
        connection.close()
    return (
        [ReportRow(month, by, msgspec.json.decode(text, type=Figures), at) for month, by, text, at in rows],
        [Attempt(*line) for line in attempts],
    )


def count(path: Path) -> int:
    """How many months have their row."""
    connection = sqlite3.connect(path, timeout=30)
    try:
        return int(connection.execute("SELECT count(*) FROM report").fetchone()[0])
    finally:
        connection.close()
