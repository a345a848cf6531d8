"""The Azure Storage task hub store: the hub of .NET's provider, in its format, under a commit protocol of its own.

What each verb does stands with its subject; here the parts are put together, and the loops that poll the queues and
renew what is in hand.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from holdtrue.core.events import AnyEvent, HistoryEvent, Ticks
from holdtrue.core.messages import OutboundMessage, WorkRef
from holdtrue.core.projection import Condition
from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors
from holdtrue.stores.protocol import (
    ActivityInfo,
    ActivityResult,
    CommitOutcome,
    CommitResult,
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
    Notice,
    Page,
    Purged,
    SendOutcome,
    SendResult,
    StoredDeadLetter,
    StoredSchedule,
    Tick,
    TickCommit,
)

from .access import Access
from .adopting import Adopter
from .afterwards import Afterwards
from .committing import Committer
from .creating import create_hub
from .dead_letters import DeadLetters
from .ended import Rule
from .erasing import Eraser
from .formats import Formats
from .host_rows import HostRows
from .hosting import Hosting
from .http.connection import Reopening
from .leftovers import Leftovers
from .listing import Listing
from .loading import Loader
from .local_runs import LocalRuns, Runs
from .mail import Mail
from .names import HubNames
from .paging import Pages
from .partitions import OUR_PREFIX
from .postbox import Postbox
from .posting import Poster
from .progress import Reports
from .purged_starts import PurgedStarts
from .purging import Purger
from .reading import Reader
from .reconciling import Pace, Reconciler
from .row_writing import RowWriter
from .schedule_rows import Schedules
from .sending import Sender
from .service import Service, ServiceError
from .settings import AzureStorageSettings
from .settling import Finisher, Settled, Settler
from .starting import Starter
from .stripping import Stripper
from .taking import Taking
from .terminating import Terminator
from .waiting import WaitingInstances
from .waking import Waker
from .work_items import WorkItems

log = logging.getLogger("holdtrue.azure_storage")


class AzureStorageStore:
    """A task hub in an Azure Storage account.

    `service` is the account, `hub` the task hub's name; `tracking_prefix` that of the tables of history and instances,
    where they have an account of their own (`tracking`).  As a host (after `join`) it owns partitions, polls their
    queues, and has renewed what it has in hand: by a process of its own where `account` says how another process opens
    the account (and the settings do not say otherwise), else on its loop.
    """

    def __init__(
        self,
        service: Service,
        hub: str,
        *,
        environment: Environment = REAL,
        settings: AzureStorageSettings | None = None,
        tracking_prefix: str | None = None,
        pace: Pace | None = None,
        account: Reopening | None = None,
    ) -> None:
        self._environment = environment
        self._settings = settings or AzureStorageSettings()
        self._service = service
        self._account = account
        self._names = HubNames(hub, tracking_prefix)
        self._opened = False
        self._number = 0
        self._lost = False
        self._notify: Callable[[Notice], None] | None = None
        self._orchestrators: set[str] = set()
        self._hosting: Hosting | None = None
        self._owner = ""
        access = self._access = Access(service, self._names, environment)
        formats = self._formats = Formats(access, base64=self._settings.queue_message_encoding == "Base64")
        mail = self._mail = Mail(service.queues, environment, self._settings)
        poster = self._poster = Poster(access, formats, self._posted)
        hosts = self._hosts = HostRows(access)
        reports = Reports(access, formats)
        purged = PurgedStarts(access, formats)
        reader = self._reader = Reader(access, formats, hosts, purged)
        eraser = self._eraser = Eraser(access, formats)
        self._rows = RowWriter(access, formats, eraser)
        letters = self._letters = DeadLetters(access, formats)
        waiting = self._waiting = WaitingInstances(access)
        postbox = Postbox(formats, mail, letters)
        self._work = WorkItems(access, mail, postbox, reports)
        local = self._local = LocalRuns(access, mail, poster, self._work, self._settings)
        committer = self._committer = Committer(
            access, formats, mail, poster, self._rows, waiting, local, self._is_mine
        )
        listing = self._listing = Listing(access, formats, reader, reports, hosts, purged)
        terminator = Terminator(poster, reader, listing)
        loader = Loader(access, formats, eraser, purged)
        leftovers = self._leftovers = Leftovers(access, formats, loader, poster, committer)
        adopter = Adopter(
            access,
            formats,
            mail,
            poster,
            committer,
            loader,
            leftovers,
            self._rows,
            letters,
            waiting,
            terminator,
            local,
            purged,
            self._orchestrators.__contains__,
            self._came,
        )
        self._afterwards = Afterwards(
            environment,
            row_delay=self._settings.row_delay,
            write_row=self._rows.catch_up,
            clear_debt=committer.clear_debt,
            is_mine=self._is_mine,
        )
        self._taking = Taking(access, formats, mail, adopter, self._afterwards, postbox, self._settings, local)
        self._starter = Starter(access, formats, poster, reader)
        self._sender = Sender(access, formats, poster, reader, terminator)
        self._schedules = Schedules(access, reader, self._starter, self._sender)
        self._pages = Pages(access, formats, reader)
        self._reconciler = Reconciler(
            access,
            formats,
            reader,
            poster,
            purged,
            self._is_mine,
            pace or self._settings.pace(),
            beside_dotnet=self._settings.beside_dotnet,
        )
        self._waker = Waker(access, poster, waiting, self._orchestrators, self._is_mine)
        self._adopter = adopter
        self._committer = committer
        self._purger = Purger(access, formats, reader, listing, reports, eraser, purged)

    @property
    def location(self) -> None:
        """None: another process opens it by the account's settings."""
        return None

    @property
    def takes_ahead(self) -> bool:
        """False: another host may have a slot free."""
        return False

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._opened:
            return
        await self._service.open()
        try:
            created = await create_hub(
                self._service,
                self._names,
                self._settings.partition_count,
                self._environment,
                blob_leases=not self._settings.use_table_partition_management,
            )
        except ServiceError as error:
            await self._service.close()
            raise self._access.failure(f"hub {self._names.hub!r} could not be opened", error) from error
        except BaseException:
            await self._service.close()
            raise
        self._access.partitions = created.partition_count
        self._opened = True

    async def close(self) -> None:
        if not self._opened:
            return
        await self.leave()
        self._opened = False
        await self._service.close()

    def _check(self) -> None:
        if not self._opened:
            raise errors.StoreUnavailable(
                f"the hub {self._names.hub!r} is closed: open it, or use another store object"
            )

    async def join(self, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> int:
        self._check()
        self._orchestrators.clear()
        self._orchestrators.update(orchestrators)
        self._work.serve(queues)
        if self._lost:
            await self._end_lost_part()
        if self._hosting is None:
            self._lost = False
            worker = self._settings.worker_id or f"{name}-{self._environment.new_id()}"
            self._owner = f"{OUR_PREFIX}{worker}"
            hosting = self._hosting = Hosting(
                self._access,
                self._settings,
                self._mail,
                self._owner,
                pull=self._taking.pull,
                pull_work=self._pull_work,
                came=self._came,
                gained=self._gained,
                drain=self._drain,
                forget=self._taking.forget_partition,
                lost=self._part_lost,
                account=self._account,
                beside=(self._reconciler.run, self._afterwards.run, self._waker.run),
            )
            try:
                await hosting.open()
            except BaseException:
                self._hosting = None
                raise
            self._number = self._environment.random().getrandbits(40) + 1
        await self._hosts.join(self._owner, name, orchestrators, queues)
        await self._waker.joined()
        if self._hosting is not None:
            self._hosting.wake_all()
        return self._number

    async def leave(self) -> None:
        if self._hosting is not None:
            await asyncio.gather(*(self._queue_local(runs, run_on=False) for runs in self._local.all()))
            await self._taking.settle_debts()
        hosting, self._hosting = self._hosting, None
        if hosting is None:
            return
        await hosting.stop_polling()
        await self._taking.give_back_all()
        await self._work.give_back_all()
        try:
            await self._hosts.leave()
        except errors.StoreError as error:
            log.info("this host is listed for some minutes yet: %s", error)
        await self._tell_what_stays()
        await hosting.close()
        self._number = 0

    async def _tell_what_stays(self) -> None:
        """Say whether .NET could take over now (rule 15)."""
        try:
            kept = sorted(self._adopter.kept_for | set(await self._waiting.all()))
        except errors.StoreError as error:
            log.info("whether anything waits beside its history is not known: %s", error)
            return
        unsure = self._committer.not_deleted
        if kept or unsure:
            log.warning(
                "%d instances of the hub %r are held or have messages beside their history, as %s; %d messages that "
                "were used up may be in a queue still: before .NET workers take over, run `holdtrue hub settle`",
                len(kept),
                self._names.hub,
                ", ".join(map(repr, kept[:3])) or "none",
                unsure,
            )
        else:
            log.info("nothing is kept, held or unfinished in the hub %r: .NET workers can take over", self._names.hub)

    async def settle(self, finisher: Finisher | None = None, *, leave: bool = False) -> Settled:
        """Make the hub ready for .NET workers (rule 15): the hub is served by nobody meanwhile.

        `finisher` has the code for episodes whose last part is missing.  What .NET cannot go on with is told, and
        then nothing is handed over; with `leave` it stays as it is, and the rest is.  Raises HubServed where hosts
        serve the hub, and StoreError where it was not brought to its end: it can be run again.
        """
        self._check()
        if self._hosting is not None:
            raise errors.StoreUnavailable(f"this store is a host of the hub {self._names.hub!r}: let it leave first")

        async def nothing(*_: int) -> int:
            return 0

        async def idle(*_: int) -> None:
            return None

        self._lost = False
        self._orchestrators.update(() if finisher is None else finisher.names)
        hosting = self._hosting = Hosting(
            self._access,
            self._settings,
            self._mail,
            f"holdtrue-settle-{self._environment.new_id()}",
            pull=nothing,
            pull_work=nothing,
            came=lambda: None,
            gained=lambda partition: None,
            drain=idle,
            forget=lambda partition: None,
            lost=self._part_lost,
            beside=(),
        )
        try:
            return await Settler(
                self._access,
                self._settings,
                self._formats,
                self._mail,
                self._poster,
                self._committer,
                self._leftovers,
                self._adopter,
                self._listing,
                self._letters,
                self._eraser,
                self._waiting,
                Stripper(self._access, self._formats, self._committer, self._adopter),
                hosting,
                finisher,
                leave=leave,
            ).run()
        finally:
            self._hosting = None
            self._orchestrators.clear()

    def _part_lost(self) -> None:
        """The app lease is another's, or nobody renews what this host has: it must join again."""
        self._lost = True
        self._taking.forget_all()
        self._work.forget_all()

    async def _end_lost_part(self) -> None:
        hosting, self._hosting = self._hosting, None
        if hosting is not None:
            await hosting.stop_polling()
            # The engine has forgotten all; so what came while it was about to is in nobody's hands.
            self._taking.forget_all()
            self._work.forget_all()
            await hosting.close()

    def listen(self, notify: Callable[[Notice], None]) -> None:
        self._notify = notify

    async def renew(self) -> list[str]:
        """Partitions renew themselves; this tells a host that it has lost what it held."""
        self._check()
        if self._lost:
            raise errors.LeaseLost("this host's partitions were taken over; it joins again")
        await self._hosts.renew()
        return []

    # -- partitions ------------------------------------------------------------------------------------

    def _is_mine(self, partition: int) -> bool:
        return self._hosting is not None and not self._lost and self._hosting.is_mine(partition)

    def _gained(self, partition: int) -> None:
        self._local.gained(partition)
        self._waker.gained(partition)

    def _posted(self, partition: int | None) -> None:
        if partition is None:
            self._work.posted()
        if self._hosting is not None:
            self._hosting.wake(partition)

    def _came(self) -> None:
        if self._notify is not None:
            self._notify(Notice(work=True))

    async def _pull_work(self) -> int:
        return await self._work.pull(self._work.wanted) if self._work.wanted > 0 else 0

    # -- clients ---------------------------------------------------------------------------------------

    async def create(self, requests: Sequence[CreateRequest]) -> list[CreateOutcome]:
        self._check()
        return [await self._starter.create(request) for request in requests]

    async def send(self, messages: Sequence[OutboundMessage]) -> list[SendOutcome]:
        self._check()
        return [await self._sender.send(message) for message in messages]

    async def status(self, instance_ids: Sequence[str]) -> list[InstanceRecord | None]:
        self._check()
        return await self._reader.records(instance_ids)

    async def activities_of(self, instance_id: str) -> list[ActivityInfo]:
        self._check()
        return await self._listing.activities_of(instance_id)

    async def history(self, instance_id: str, first: int = 0) -> AsyncIterator[Sequence[HistoryEvent]]:
        self._check()
        events = await self._listing.history(instance_id)
        for begin in range(first, len(events), _PIECE):
            yield events[begin : begin + _PIECE]

    async def query(self, query: InstanceQuery) -> Page:
        self._check()
        return await self._pages.query(query)

    async def children(self, instance_id: str) -> list[str]:
        self._check()
        return await self._listing.children(instance_id)

    async def purge(self, instance_ids: Sequence[str], *, recursive: bool = True) -> Purged:
        self._check()
        return await self._purger.purge(instance_ids, recursive=recursive)

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        """What stands in the tables; messages that are still in a queue are not among it."""
        self._check()
        return await self._listing.copies(instance_ids)

    async def put_copies(
        self, copies: Sequence[InstanceCopy], *, replace: bool = False, run: bool = False
    ) -> list[str]:
        self._check()
        raise errors.StoreUnavailable(
            f"the hub {self._names.hub!r} lies in a storage account, which takes no instances from elsewhere: import "
            "them into a hub in a file, and look at them there"
        )

    # -- hosts -----------------------------------------------------------------------------------------

    async def lock(self, limit: int) -> list[LockedInstance]:
        self._check()
        return await self._taking.lock(limit) if self._hosting is not None else []

    async def lock_activities(self, limit: int, queues: Sequence[str] | None = None) -> list[LockedActivity]:
        self._check()
        return await self._work.lock(limit, queues) if self._hosting is not None else []

    async def load(self, lease: Lease) -> list[AnyEvent] | None:
        self._check()
        held = self._taking.held(lease)
        if held is None:
            return None
        if not self._is_mine(held.partition):
            self._taking.release(held, back=False)
            return None
        history, held.history = held.history, None
        if history is not None:
            return history
        events = await self._listing.history_of(held)
        if events is None:
            self._taking.release(held)
        return events

    async def commit(self, commits: Sequence[Committing]) -> list[CommitOutcome]:
        self._check()
        return list(await asyncio.gather(*(self._commit(one) for one in commits)))

    async def _commit(self, committing: Committing) -> CommitOutcome:
        held = self._taking.held(committing.lease)
        if held is None:
            return CommitOutcome(result=CommitResult.LEASE_LOST)
        try:
            outcome = await self._committer.apply(held, committing)
        except BaseException:
            self._taking.release(held, back=False)
            raise
        commit = committing.commit
        if outcome.result is CommitResult.COMMITTED:
            self._afterwards.committed(held)
        else:
            if not held.is_current:
                self._taking.release(held, back=outcome.result is CommitResult.STALE)
            return outcome
        for ref in commit.finished:
            await self._work.done(ref)
        if commit.cancelled:
            execution = commit.old_execution if commit.replace else commit.projection.execution_id
            await self._work.cancel(commit.instance_id, execution, commit.cancelled)
        if commit.ended or not committing.keep:
            self._taking.release(held)
            self._came()
        return outcome

    async def park(self, leases: Sequence[Lease], condition: Condition) -> None:
        self._check()
        for lease in leases:
            held = self._taking.held(lease)
            if held is None:
                continue
            await self._committer.hold(held, condition)
            self._taking.release(held)

    async def put_back(self, leases: Sequence[Lease]) -> None:
        self._check()
        for lease in leases:
            held = self._taking.held(lease)
            if held is not None:
                self._taking.release(held)
        self._came()

    async def complete(self, results: Sequence[ActivityResult]) -> list[CompleteOutcome]:
        self._check()
        return [await self._complete(result) for result in results]

    async def _complete(self, result: ActivityResult) -> CompleteOutcome:
        with self._work.handing_in(result.ref) as item:
            if item is None:
                return CompleteOutcome(accepted=False)
            await self._poster.result(item.id, item.task, item.episode, result.event)
            if item.local:
                self._local.handed_in(item)
        await self._work.done(result.ref)
        return CompleteOutcome(accepted=True)

    async def put_back_activities(self, refs: Sequence[WorkRef]) -> None:
        self._check()
        for runs, items in self._local.by_instance(refs):
            await self._committer.into_queue(runs, self._taking.held_of(runs.instance_id), items, run_on=False)
        await self._work.put_back(refs)

    async def _drain(self, partition: int) -> None:
        """Another host is to have a partition: what runs here goes on under the queue's messages, the rest ends."""
        self._local.losing(partition)
        for runs in self._local.of_partition(partition):
            await self._queue_local(runs, run_on=True)
        await self._taking.drain(partition)

    async def _queue_local(self, runs: Runs, *, run_on: bool) -> None:
        held = self._taking.held_of(runs.instance_id)
        try:
            await self._committer.into_queue(runs, held, list(runs.items.values()), run_on=run_on)
        except errors.StoreError as error:
            log.info("activities of instance %r run again at its next owner: %s", runs.instance_id, error)

    async def spare(self, waiting: Sequence[WorkRef]) -> list[WorkRef]:
        """Those that run without a message, where another host that lives has their code."""
        self._check()
        local = {ref: item.queue for ref in waiting if (item := self._local.of_ref(ref)) is not None}
        shared = await self._hosts.served_elsewhere() if local else frozenset()
        return [ref for ref, queue in local.items() if queue in shared]

    async def report(self, ref: WorkRef, progress: str | None, details: str | None) -> bool:
        self._check()
        return await self._work.report(ref, progress, details)

    async def cancelled(self, refs: Sequence[WorkRef]) -> list[WorkRef]:
        self._check()
        return [ref for ref in refs if self._work.get(ref) is None]

    async def fetch(self) -> list[Delivery]:
        self._check()
        return self._taking.fetch()

    async def fire_due(self, now: Ticks) -> Due:
        """Delayed messages come by themselves."""
        self._check()
        return Due(deliveries=self._taking.fetch(), ready=self._taking.has_work, next_due=None)

    # -- schedules -------------------------------------------------------------------------------------

    async def put_schedule(self, schedule: StoredSchedule, *, expect: int | None) -> int | None:
        self._check()
        return await self._schedules.put(schedule, expect=expect)

    async def get_schedules(self, due_by: Ticks | None = None) -> list[StoredSchedule]:
        self._check()
        return await self._schedules.get(due_by)

    async def delete_schedule(self, schedule_id: str) -> bool:
        self._check()
        return await self._schedules.delete(schedule_id)

    async def commit_tick(self, tick: TickCommit) -> CreateOutcome | None | bool:
        self._check()
        return await self._schedules.commit_tick(tick)

    async def ticks(self, schedule_id: str, *, after: Ticks | None = None, limit: int = 100) -> list[Tick]:
        self._check()
        return await self._schedules.ticks(schedule_id, after=after, limit=limit)

    async def trim_ticks(self, before: Ticks, schedule_id: str | None = None) -> int:
        self._check()
        return await self._schedules.trim(before, schedule_id)

    # -- dead letters and upkeep -------------------------------------------------------------------------

    async def dead_letters(self, *, limit: int = 100, after: int = 0) -> list[StoredDeadLetter]:
        self._check()
        return await self._letters.read(limit=limit, after=after)

    async def resend(self, numbers: Sequence[int]) -> int:
        self._check()
        sent = 0
        for number in numbers:
            stored = await self._letters.get(number)
            if stored is None:
                continue
            (outcome,) = await self.send([stored.letter.message])
            if outcome.result is SendResult.ACCEPTED:
                sent += await self._letters.remove([number])
        return sent

    async def dismiss(self, numbers: Sequence[int]) -> int:
        self._check()
        return await self._letters.remove(numbers)

    async def expired(
        self,
        name: str | None,
        completed_before: Ticks | None,
        keep: int | None,
        limit: int,
        excluding: Sequence[str] = (),
    ) -> list[str]:
        self._check()
        if self._hosting is not None and not self._is_mine(0):
            return []  # the owner of the first control queue looks after it
        return await self._reconciler.expired(Rule(name, frozenset(excluding)), completed_before, keep, limit)

    async def upkeep(self) -> None:
        """The reconciler does what is to be done, all the time."""
        self._check()

    async def info(self) -> HubInfo:
        self._check()
        return await self._listing.info(await self._letters.count())

    async def backup(self, target: str) -> None:
        self._check()
        raise errors.StoreUnavailable(
            f"the hub {self._names.hub!r} lies in a storage account, which has no copy of one moment: export its "
            "histories, or copy the account's tables while no host works on it"
        )


_PIECE = 1_024
"""Events of a history handed out at a time."""
