"""Reads the hub on connections of its own: records, histories, pages.  Writes nothing."""

from collections.abc import Sequence
from typing import Any

import apsw

from holdtrue.core.events import AnyEvent, HistoryEvent, decode_events
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.decisions import AT_REST, LAST_KEY, key_of_token
from holdtrue.stores.protocol import ActivityInfo, HubInfo, InstanceCopy, InstanceQuery, InstanceRecord, Page

from . import copies
from .connection import BUSY_MILLISECONDS, shut
from .hosts import HostRow, hosts_of, served
from .rows import CONDITION, EXECUTION, KEY, LOCK, READY, STARTED, decode_task, encode, record
from .statements import sql
from .transaction import PLACES, places_of

_OPEN_MASK = sum(1 << int(status) for status in Status if status not in TERMINAL)
_PIECES = 64
_FEW = 2_000
_CHECKPOINT_MILLISECONDS = 400
_LONGEST_CHECKPOINT_MILLISECONDS = 5_000
"""Writers wait so long at most for a log to be cut, where readers are in the way."""


def _beyond(prefix: str) -> str | bytes:
    """What sorts after all texts with this prefix, and before all others after them."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # Code points sort as their UTF-8 bytes do; surrogates are in no text.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return b""  # a blob sorts after every text


class Reader:
    """A reading connection.  Used by one thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._execute: Any = connection.execute

    def close(self) -> None:
        """End reading."""
        shut(self._connection)

    def data_version(self) -> int:
        """A number that changes when others have written."""
        return int(self._execute("pragma data_version").fetchone()[0])

    # -- records ---------------------------------------------------------------------------------------

    def records(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        """The records of these ids, None for one that there is not."""
        execute = self._execute
        rows = [execute(sql.record_by_id, (instance_id,)).fetchone() for instance_id in instance_ids]
        return self._with_waits(rows)

    def _with_waits(self, rows: Sequence[tuple[Any, ...] | None]) -> list[InstanceRecord | None]:
        names: set[str] | None = None
        found: list[InstanceRecord | None] = []
        for row in rows:
            if row is None:
                found.append(None)
                continue
            started = row[STARTED]
            if not started:
                started = self._execute(sql.large, (row[KEY],)).get
                if started is None:
                    # It was replaced between two looks: look again.
                    fresh = self._execute(sql.record_by_key, (row[KEY],)).fetchone()
                    if fresh != row:
                        found += [None] if fresh is None else self._with_waits([fresh])
                        continue
            one = record(row, started)
            if row[READY] is not None and row[LOCK] is None and row[CONDITION] is None:
                if names is None:
                    names = served(self.hosts())[0]
                one.waits_for_worker = one.started.name not in names
            found.append(one)
        return found

    def hosts(self) -> list[HostRow]:
        """All hosts."""
        return hosts_of(self._execute)

    def query(self, query: InstanceQuery) -> Page:
        """One page of instances, in the order of their creation."""
        mask = None if query.statuses is None else sum(1 << int(status) for status in query.statuses)
        size = max(1, query.page_size)
        newest = query.newest_first
        after = (LAST_KEY if newest else 0) if query.token is None else key_of_token(query.token)
        beyond = None if query.prefix is None else _beyond(query.prefix)
        only_open = mask is not None and not mask & ~_OPEN_MASK
        if only_open:
            statement = sql.query_open_descending if newest else sql.query_open_ascending
        elif mask == 1 << Status.FAILED:
            statement = sql.query_failed_descending if newest else sql.query_failed_ascending
        elif query.prefix and self._execute(sql.few_of_prefix, (query.prefix, beyond, _FEW)).get:
            statement = sql.query_prefix_descending if newest else sql.query_prefix_ascending
        else:
            statement = sql.query_descending if newest else sql.query_ascending
        values = {
            "after": after,
            "statuses": mask,
            "name": query.name,
            "prefix": query.prefix,
            "beyond": beyond,
            "created_from": query.created_from,
            "created_to": query.created_to,
            "completed_to": query.completed_to,
            "tags": encode(query.tags).decode() if query.tags else None,
            "limit": size + 1,
        }
        rows = self._execute(statement, values).fetchall()
        token = str(rows[size - 1][KEY]) if len(rows) > size else None
        return Page(records=[one for one in self._with_waits(rows[:size]) if one is not None], token=token)

    def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        """Instances with all that belongs to them, all as they stand at one moment."""
        return copies.read(self._connection, list(instance_ids))

    def children(self, instance_id: str) -> list[str]:
        """The ids of direct children."""
        return [row[0] for row in self._execute(sql.children, (instance_id,)).fetchall()]

    def activities(self, instance_id: str) -> list[ActivityInfo]:
        """The outstanding work items of an instance."""
        target = self._execute(sql.target, (instance_id,)).fetchone()
        if target is None:
            return []
        queues: set[str] | None = None
        found = []
        for lock, run, queue, data, progress, heartbeat in self._execute(
            sql.activities_of, places_of(target[0])
        ).fetchall():
            task = decode_task(data)
            waits = False
            if lock is None:
                if queues is None:
                    queues = served(self.hosts())[1]
                waits = queue not in queues
            found.append(
                ActivityInfo(
                    task_id=task.task_id,
                    scheduled=task.scheduled,
                    name=task.name,
                    running=lock is not None and lock != AT_REST,
                    run=run,
                    progress=progress,
                    heartbeat_at=heartbeat,
                    waits_for_worker=waits,
                )
            )
        return found

    # -- histories -------------------------------------------------------------------------------------

    def load(self, instance: int, token: int) -> list[AnyEvent] | None:
        """The whole history of an instance, by key; None where it is not (any more) under this token's lock."""
        events: list[AnyEvent] = []
        for (data,) in self._execute(sql.history_of, places_of(instance)).fetchall():
            events += decode_events(data)
        # Only who holds the lock writes the history: held after the reading, it was held all along.
        row = self._execute(sql.fence, (instance,)).fetchone()
        return events if row is not None and row[0] == token else None

    def current(self, instance_id: str) -> tuple[int, str] | None:
        """Key and current execution of an instance."""
        row = self._execute(sql.record_by_id, (instance_id,)).fetchone()
        return None if row is None else (row[KEY], row[EXECUTION])

    def pieces(self, instance: int, execution: str, first: int) -> tuple[list[Sequence[HistoryEvent]], int | None]:
        """Some pieces of an execution's history from an ordinal on, and the ordinal to go on with (None: no more)."""
        low, high = places_of(instance)
        begin = self._execute(sql.history_piece, (low, low + first)).fetchone()[0]
        rows = self._execute(
            sql.history_page, (low if begin is None else begin, high, _PIECES, instance, execution)
        ).fetchall()
        pieces: list[Sequence[HistoryEvent]] = []
        following = None
        for key, data in rows:
            events = decode_events(data)
            ordinal = key & (PLACES - 1)
            following = ordinal + len(events)
            if ordinal < first:
                events = events[first - ordinal :]
            if events:
                pieces.append(events)
        return pieces, following if len(rows) == _PIECES else None

    # -- figures ---------------------------------------------------------------------------------------

    def earliest_due(self) -> int | None:
        """When the next delayed message is due."""
        due: int | None = self._execute(sql.earliest_due).fetchone()[0]
        return due

    def has_mail(self, host: int) -> bool:
        """Whether something came from elsewhere for instances that this host holds."""
        return self._execute(sql.has_mail, (host,)).fetchone() is not None

    def has_ready(self, names: Sequence[str], host: int) -> bool:
        """Whether an instance of these orchestrations (or any that is to be ended) has work, for this host."""
        execute = self._execute
        if execute(sql.any_ready).fetchone() is None:
            return False
        return (
            any(execute(sql.ready_of, (name, host)).fetchone() is not None for name in names)
            or execute(sql.any_ending, (host,)).fetchone() is not None
        )

    def has_activities(self, queues: Sequence[str]) -> bool:
        """Whether a work item waits in one of these queues."""
        execute = self._execute
        if execute(sql.any_activity).fetchone() is None:
            return False
        return any(execute(sql.activity_of_queue, (queue,)).fetchone() is not None for queue in queues)

    def is_held(self, key: int, token: int) -> bool:
        """Whether a work item is still held under this token."""
        return self._execute(sql.held_activity, (key, token)).fetchone() is not None

    def expired(
        self, name: str | None, completed_before: int | None, keep: int | None, limit: int, excluding: Sequence[str]
    ) -> list[str]:
        """Ended top-level instances that ended before, or beyond the newest so many; the oldest end first."""
        without = encode(list(excluding)).decode()
        found: dict[str, None] = {}
        if completed_before is not None:
            rows = self._execute(sql.expired_by_age, (name, completed_before, limit, without)).fetchall()
            found.update((row[0], None) for row in rows)
        if keep is not None and len(found) < limit:
            rows = self._execute(sql.expired_by_count, (name, keep, limit, without)).fetchall()
            found.update((row[0], None) for row in rows)
        return list(found)[:limit]

    def checkpoint(self, pressing: float) -> None:
        """Bring the log into the file, and cut it where nobody reads it.

        Readers are waited for, and no writer goes on meanwhile: the more `pressing` (1 and more), the longer.
        """
        wait = int(min(_CHECKPOINT_MILLISECONDS * max(1.0, pressing), _LONGEST_CHECKPOINT_MILLISECONDS))
        self._connection.set_busy_timeout(wait)
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            self._connection.set_busy_timeout(BUSY_MILLISECONDS)

    def info(self, wal_bytes: int) -> HubInfo:
        """Figures of the hub."""
        execute = self._execute
        messages, activities, letters = execute(sql.counts).fetchone()
        return HubInfo(
            instances={Status(status).name: count for status, count in execute(sql.count_by_status).fetchall()},
            messages=messages,
            activities=activities,
            dead_letters=letters,
            hosts=[host.name for host in self.hosts()],
            size=execute(sql.file_size).fetchone()[0] + wal_bytes,
            schema_version=execute("pragma user_version").fetchone()[0],
        )

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement."""
        rows: list[tuple[Any, ...]] = self._execute(statement, values).fetchall()
        return rows
