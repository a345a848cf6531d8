"""The SQLite task hub store: the store protocol over the writer, the readers and the presence of others.

What each write does stands with its subject (`starts`, `inbox`, `commits`, `locking`, ...); here it is only
put to the writer.  Reads are quick and run on the loop, but for those that may look at many rows.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import apsw

from holdtrue.core.events import AnyEvent, HistoryEvent, Ticks
from holdtrue.core.messages import OutboundMessage, WorkRef
from holdtrue.core.projection import Condition
from holdtrue.stores import errors
from holdtrue.stores.protocol import (
    ActivityInfo,
    ActivityResult,
    CommitOutcome,
    Committing,
    CompleteOutcome,
    CreateOutcome,
    CreateRequest,
    Delivery,
    Due,
    HubInfo,
    InstanceCopy,
    InstanceQuery,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
    Page,
    Purged,
    SendOutcome,
    StoredDeadLetter,
    StoredSchedule,
    Tick,
    TickCommit,
)

from . import backup, commits, copies, inbox, locking, schedules, starts, upkeep
from .opened import OpenedHub
from .rows import condition_text, decode_letter
from .statements import sql
from .writer import Operation

_CREATE = Operation(starts.apply_create)
_SEND = Operation(inbox.apply_send)
_COMMIT = Operation(commits.apply_commits)
_COMPLETE = Operation(inbox.apply_complete)
_FIRE = Operation(inbox.apply_fire, durable=False, heavy=True)
_FETCH = Operation(inbox.apply_fetch, durable=False)
_LOCK = Operation(locking.apply_lock, durable=False)
_LOCK_ACTIVITIES = Operation(locking.apply_lock_activities, durable=False)
_RELEASE = Operation(locking.apply_release, durable=False)
_RELEASE_ACTIVITIES = Operation(locking.apply_release_activities, durable=False)
_PARK = Operation(locking.apply_park)
_REPORT = Operation(locking.apply_report)
_PURGE = Operation(upkeep.apply_purge, heavy=True)
_RESEND = Operation(upkeep.apply_resend)
_DISMISS = Operation(upkeep.apply_dismiss)
_VACUUM = Operation(upkeep.apply_vacuum, heavy=True)
_PUT_SCHEDULE = Operation(schedules.apply_put)
_DELETE_SCHEDULE = Operation(schedules.apply_delete, heavy=True)
_TICK = Operation(schedules.apply_tick)
_TRIM = Operation(schedules.apply_trim, heavy=True)
_PUT_COPIES = Operation(copies.apply_put, heavy=True)

_PURGED_AT_ONCE = 100
_WAL_BYTES = 64 * 1024 * 1024
"""A log longer than this is cut, even if writers have to wait for readers: the longer it is, the longer they wait."""


class SqliteStore(OpenedHub):
    """A task hub in the SQLite file `path`, for any number of processes of one machine.

    `lease_seconds` is after how long a host that lives and does nothing any more (it is stopped) loses what
    it holds; one that died loses it at once.  `synchronous` "full" puts every write on disk before it is
    acknowledged; "normal" may lose the last ones at a power cut, never consistency.
    """

    # -- clients ---------------------------------------------------------------------------------------

    async def create(self, requests: Sequence[CreateRequest]) -> list[CreateOutcome]:
        outcomes: list[CreateOutcome] = await self._write(_CREATE, list(requests), self._untake) if requests else []
        return outcomes

    def _untake(self, outcomes: list[CreateOutcome]) -> None:
        leases = [outcome.taken.lease for outcome in outcomes if outcome.taken is not None]
        if leases:
            self._write(_RELEASE, list(leases))

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        outcomes: list[SendOutcome] = await self._write(_SEND, list(messages)) if messages else []
        return outcomes

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        return self._read(lambda reader: reader.records(instance_ids))

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        return self._read(lambda reader: reader.activities(instance_id))

    async def history(self, instance_id: str, first: int = 0) -> AsyncIterator[Sequence[HistoryEvent]]:
        current = self._read(lambda reader: reader.current(instance_id))
        following: int | None = first
        while current is not None and following is not None:
            key, execution = current
            begin = following
            pieces, following = await self._look(lambda reader: reader.pieces(key, execution, begin))  # noqa: B023
            for piece in pieces:
                yield piece

    async def query(self, query: InstanceQuery) -> Page:
        return await self._look(lambda reader: reader.query(query))

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        return await self._look(lambda reader: reader.copies(instance_ids))

    async def put_copies(
        self, copies_: Sequence[InstanceCopy], *, replace: bool = False, run: bool = False
    ) -> list[str]:
        (standing,) = await self._write(_PUT_COPIES, [copies.Putting(list(copies_), replace, run)])
        result: list[str] = standing
        return result

    async def children(self, instance_id: str) -> list[str]:
        return self._read(lambda reader: reader.children(instance_id))

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        total = Purged(refused=[])
        for at in range(0, len(instance_ids), _PURGED_AT_ONCE):
            some = [(instance_id, recursive) for instance_id in instance_ids[at : at + _PURGED_AT_ONCE]]
            for one in await self._write(_PURGE, some):
                total.instances += one.instances
                total.children += one.children
                total.refused += one.refused
        return total

    # -- hosts -----------------------------------------------------------------------------------------

    async def lock(self, limit: int) -> list[LockedInstance]:
        self._require_host()
        names, number = self._joined.orchestrators if self._joined is not None else (), self._number
        if not self._read(lambda reader: reader.has_ready(names, number)):
            return []
        self._turn += 1
        asked = (limit, names, self._turn)
        (locked,) = await self._write(_LOCK, [asked], self._unlock)
        result: list[LockedInstance] = locked
        return result

    def _unlock(self, outcomes: list[list[LockedInstance]]) -> None:
        leases = [one.lease for locked in outcomes for one in locked]
        if leases:
            self._write(_RELEASE, list(leases))

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        self._require_host()
        if queues is None:
            queues = self._joined.queues if self._joined is not None else ()
        if not queues or not self._read(lambda reader: reader.has_activities(queues)):
            return []
        self._turn += 1
        (locked,) = await self._write(_LOCK_ACTIVITIES, [(limit, tuple(queues), self._turn)], self._unlock_activities)
        result: list[LockedActivity] = locked
        return result

    def _unlock_activities(self, outcomes: list[list[LockedActivity]]) -> None:
        refs = [one.ref for locked in outcomes for one in locked]
        if refs:
            self._write(_RELEASE_ACTIVITIES, list(refs))

    async def load(self, lease: Lease) -> list[AnyEvent] | None:
        return self._read(lambda reader: reader.load(lease.key, lease.token))

    async def commit(self, commits_: Sequence[Committing]) -> list[CommitOutcome]:
        if not commits_:
            return []
        prepared = commits.prepare(commits_, self.token)
        (outcomes,) = await self._write(_COMMIT, [prepared], rows=prepared.rows())
        result: list[CommitOutcome] = outcomes
        return result

    async def park(self, leases: Sequence[Lease], condition: Condition) -> None:
        text = condition_text(condition)
        if leases:
            await self._write(_PARK, [(lease, text) for lease in leases])

    async def put_back(self, leases: Sequence[Lease]) -> None:
        if leases:
            await self._write(_RELEASE, list(leases))

    async def complete(self, results: Sequence[ActivityResult]) -> list[CompleteOutcome]:
        outcomes: list[CompleteOutcome] = await self._write(_COMPLETE, list(results)) if results else []
        return outcomes

    async def put_back_activities(self, refs: Sequence[WorkRef]) -> None:
        if refs:
            await self._write(_RELEASE_ACTIVITIES, list(refs))

    async def spare(self, waiting: Sequence[WorkRef]) -> list[WorkRef]:
        """None: a host takes little more than it can begin, and what it has taken it keeps."""
        return []

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        (alive,) = await self._write(_REPORT, [(ref, progress, details)])
        return bool(alive)

    async def cancelled(self, refs: Sequence[WorkRef]) -> list[WorkRef]:
        return self._read(lambda reader: [ref for ref in refs if not reader.is_held(ref.key, ref.token)])

    async def fetch(self) -> list[Delivery]:
        number = self._number
        if not number or not self._read(lambda reader: reader.has_mail(number)):
            return []
        (deliveries,) = await self._write(_FETCH, [None])
        result: list[Delivery] = deliveries
        return result

    async def fire_due(self, now: Ticks) -> Due:
        earliest = self._read(lambda reader: reader.earliest_due())
        if earliest is None or earliest > now:
            return Due(deliveries=[], ready=False, next_due=earliest)
        (due,) = await self._write(_FIRE, [now])
        result: Due = due
        return result

    # -- schedules -------------------------------------------------------------------------------------

    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        (etag,) = await self._write(_PUT_SCHEDULE, [(schedule, expect)])
        result: int | None = etag
        return result

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        if due_by is None:
            rows: Any = self._read(lambda reader: reader.all(sql.schedules))
        else:
            rows = self._read(lambda reader: reader.all(sql.schedules_due, due_by))
        return [schedules.schedule(row) for row in rows]

    async def delete_schedule(self, schedule_id: str) -> bool:
        (removed,) = await self._write(_DELETE_SCHEDULE, [schedule_id])
        return bool(removed)

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        (outcome,) = await self._write(_TICK, [tick])
        result: CreateOutcome | None | bool = outcome
        return result

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        begin = -(1 << 62) if after is None else after
        rows: Any = self._read(lambda reader: reader.all(sql.ticks, schedule_id, begin, limit))
        return [schedules.tick_of(row) for row in rows]

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        (trimmed,) = await self._write(_TRIM, [(before, schedule_id)])
        return int(trimmed)

    # -- dead letters and upkeep -----------------------------------------------------------------------

    async def dead_letters(self, *, limit: int = 100, after: int = 0) -> list[StoredDeadLetter]:
        return self._read(
            lambda reader: [
                StoredDeadLetter(number=number, at=at, letter=decode_letter(letter))
                for number, at, letter in reader.all(sql.dead_letters, after, limit)
            ]
        )

    async def resend(self, numbers: Sequence[int]) -> int:
        return sum(await self._write(_RESEND, list(numbers))) if numbers else 0

    async def dismiss(self, numbers: Sequence[int]) -> int:
        return sum(await self._write(_DISMISS, list(numbers))) if numbers else 0

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        return await self._look(lambda reader: reader.expired(name, completed_before, keep, limit, excluding))

    async def upkeep(self) -> None:
        size, free = (await self._look(lambda reader: reader.all(sql.file_size)))[0]
        cut = free > max(size // 10, 4 * 1024 * 1024)
        if cut:
            (left,) = await self._write(_VACUUM, [upkeep.VACUUM_PAGES])
            while left > upkeep.VACUUM_PAGES:
                (left,) = await self._write(_VACUUM, [upkeep.VACUUM_PAGES])
        length = self._log_bytes()
        if cut or length > max(_WAL_BYTES, self._log_in_use):
            try:
                await self._look(lambda reader: reader.checkpoint(length / _WAL_BYTES))
                self._log_in_use = 0
            except errors.StoreUnavailable as error:
                if isinstance(error.__cause__, apsw.IOError) and self._writer is not None:
                    self._writer.doubt()
                # Long readers are in the way.  Again, and with more patience, when it is half as long again.
                self._log_in_use = length * 3 // 2

    async def info(self) -> HubInfo:
        return await self._look(lambda reader: reader.info(self._log_bytes()))

    async def backup(self, target: str) -> None:
        await self._look(lambda reader: backup.copy(self.path, target))
