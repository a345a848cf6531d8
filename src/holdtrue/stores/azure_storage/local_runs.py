"""The activities that run in this process without a message, and the message that is kept for them (rule 16).

What is here follows what sentinels name as `local`: who writes a sentinel says so here afterwards.  An activity that
can stay no longer goes into the work-item queue: one that runs in the hand of this process, so that it need not run
twice, any other for whoever takes it.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from holdtrue.core import events as ev
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.messages import WorkRef
from holdtrue.stores.protocol import LockedActivity

from .access import Access
from .arrivals import Arrived
from .holding import Held
from .local import Named, Place, places
from .mail import Mail
from .posting import Poster
from .service import QueueMessage
from .settings import AzureStorageSettings
from .work_items import WorkItem, WorkItems

log = logging.getLogger("holdtrue.azure_storage")


class Kept:
    """The keeper of an instance: its number in this host's hand, its envelope's id, its delivery."""

    __slots__ = ("delivery", "id", "number")

    def __init__(self, number: int, id: str, delivery: int) -> None:
        self.number = number
        self.id = id
        self.delivery = delivery


class Runs:
    """What runs here of one instance: activities by their place, and their keeper (None: it has not come yet).

    `followed` are keepers in whose place another has come: the next sentinel that is written lets them go.
    """

    __slots__ = ("context", "followed", "instance_id", "items", "keeper", "partition")

    def __init__(self, held: Held) -> None:
        self.instance_id = held.instance_id
        self.partition = held.partition
        self.items: dict[Place, WorkItem] = {}
        self.keeper: Kept | None = None
        self.followed: list[Kept] = []
        self.context: dict[str, str] | None = None


class LocalRuns:
    """All of them."""

    def __init__(
        self, access: Access, mail: Mail, poster: Poster, work: WorkItems, settings: AzureStorageSettings
    ) -> None:
        self._access = access
        self._mail = mail
        self._poster = poster
        self._work = work
        self._settings = settings
        self._runs: dict[str, Runs] = {}
        self._leaving: set[int] = set()

    # -- what there is ---------------------------------------------------------------------------------

    def of(self, instance_id: str) -> Runs | None:
        """What runs here of an instance."""
        return self._runs.get(instance_id)

    def all(self) -> list[Runs]:
        """What runs here."""
        return list(self._runs.values())

    def of_partition(self, partition: int) -> list[Runs]:
        """What runs here of a partition's instances."""
        return [runs for runs in self._runs.values() if runs.partition == partition]

    def _make(self, held: Held) -> Runs:
        runs = self._runs.get(held.instance_id)
        if runs is None:
            runs = self._runs[held.instance_id] = Runs(held)
        if held.started is not None:
            runs.context = held.started.tags
        return runs

    def may_run(self, partition: int) -> bool:
        """Whether what a partition's instances schedule may run here."""
        return self._settings.local_activities and partition not in self._leaving

    def serves(self, item: WorkItem) -> bool:
        """Whether this host has an activity's code."""
        return self._work.serves(item)

    def of_ref(self, ref: WorkRef) -> WorkItem | None:
        """The activity that the engine has under a reference, if it runs here without a message."""
        item = self._work.get(ref)
        return item if item is not None and item.local else None

    def by_instance(self, refs: Iterable[WorkRef]) -> list[tuple[Runs, list[WorkItem]]]:
        """The activities under these references that run here without a message, by instance."""
        found: dict[str, tuple[Runs, list[WorkItem]]] = {}
        for item in filter(None, map(self.of_ref, refs)):
            runs = self.of(item.task.instance_id)
            if runs is not None:
                found.setdefault(runs.instance_id, (runs, []))[1].append(item)
        return list(found.values())

    def answered(self, held: Held, commit: EpisodeCommit) -> set[Place]:
        """What a commit makes an end of, of that which its instance's sentinel names."""
        found = set(held.gone)
        for ref in commit.finished:
            item = self.of_ref(ref)
            if item is not None:
                found.add(_place(item))
        runs = self.of(held.instance_id)
        if runs is None:
            return found.intersection(places(held.state.local))
        # What went into the queue, or whose result did, is named no longer.
        found |= {place for place, item in runs.items.items() if not item.local}
        execution = commit.old_execution if commit.replace else commit.projection.execution_id
        found |= {(execution, ordinal) for ordinal in commit.cancelled}
        tasks = {item.task.task_id: place for place, item in runs.items.items() if place[0] == execution}
        for event in commit.events:
            if isinstance(event, ev.TaskCompleted | ev.TaskFailed) and event.task_scheduled_id in tasks:
                found.add(tasks[event.task_scheduled_id])
        return found.intersection(places(held.state.local))

    # -- what is written -------------------------------------------------------------------------------

    def keep(self, held: Held, keeper: Arrived) -> bool:
        """This message is the instance's keeper, and in hand; false where it is but another copy of that."""
        runs = self._make(held)
        before = runs.keeper
        copied = before is not None and before.id == keeper.id and before.number != keeper.key
        if before is not None and copied and self._mail.has(before.number):
            return False
        if before is not None and before.id != keeper.id:
            runs.followed.append(before)
        runs.keeper = Kept(keeper.key, keeper.id, keeper.delivery)
        return True

    def is_keeper(self, instance_id: str, number: int) -> bool:
        """Whether the message in hand under a number is to stay undeleted."""
        runs = self.of(instance_id)
        return runs is not None and runs.keeper is not None and runs.keeper.number == number

    def begin(self, held: Held, begun: Iterable[Named]) -> list[LockedActivity]:
        """These run here from now on: a commit has named them."""
        runs, locked = self._make(held), []
        for one in begun:
            item = runs.items[one.place] = self._work.keep(one, 1)
            locked.append(self._work.begin_here(item))
        return locked

    def found(self, held: Held, outstanding: Iterable[Named]) -> Runs:
        """What a sentinel that was read names: what does not run here yet is noted, and not offered."""
        runs = self._make(held)
        for one in outstanding:
            if one.place not in runs.items:
                run = 1 if runs.keeper is None else runs.keeper.delivery
                runs.items[one.place] = self._work.keep(one, run)
        return runs

    async def offer(self, runs: Runs) -> bool:
        """Their keeper came: what does not run yet is for the engine to take; whether there is any."""
        assert runs.keeper is not None
        sleeping = [item for item in runs.items.values() if self._sleeps(item)]
        for item in sleeping:
            item.run = max(item.run, runs.keeper.delivery)
        await asyncio.gather(*(self._work.read_report(item) for item in sleeping if item.run > 1))
        for item in sleeping:
            item.offered = self._sleeps(item)
        return bool(sleeping)

    @staticmethod
    def _sleeps(item: WorkItem) -> bool:
        return item.local and not item.offered

    async def follow(self, held: Held) -> None:
        """A sentinel was written: what it does not name any more is let go, and a keeper that keeps nothing deleted."""
        runs = self.of(held.instance_id)
        if runs is None:
            return
        named = set(places(held.state.local))
        gone = [item for place, item in runs.items.items() if place not in named]
        runs.items = {place: item for place, item in runs.items.items() if place in named}
        for item in gone:
            if item.local:
                await self._work.remove(item)
        over, runs.followed = runs.followed, []
        if runs.keeper is not None and runs.keeper.id != held.state.keeper:
            over.append(runs.keeper)
            runs.keeper = None
        for keeper in over:
            if await self._mail.delete(keeper.number):
                held.known_deleted.add(keeper.id)
        if not runs.items and runs.keeper is None:
            self._runs.pop(held.instance_id, None)

    def handed_in(self, item: WorkItem) -> None:
        """Its result is on its way through the queue: it runs no more, and is named until that is committed."""
        item.locked, item.offered, item.local = False, True, False
        self._work.drop(item)

    def end(self, held: Held) -> None:
        """Another execution takes the place of the one that these ran for."""
        runs = self.of(held.instance_id)
        if runs is not None:
            for item in runs.items.values():
                if item.local:
                    self._work.drop(item)
            runs.items.clear()

    # -- into the queue --------------------------------------------------------------------------------

    async def let_go(self, runs: Runs, items: Sequence[WorkItem]) -> list[Place]:
        """Put these into the work-item queue; what runs stays in the hand of this process.  They are to be taken out of
        `local` next: their places.  Raises StoreError where not all were put."""
        going = [item for item in items if item.local]
        await asyncio.gather(*(self._convert(runs, item) if item.locked else self._queue(runs, item) for item in going))
        return [place for place, item in runs.items.items() if not item.local]

    async def give_back(self, runs: Runs, items: Sequence[WorkItem]) -> list[Place]:
        """Put these into the work-item queue for whoever takes them: they run here no more.  As `let_go`."""
        await asyncio.gather(*(self._queue(runs, item) for item in items if item.local))
        return [place for place, item in runs.items.items() if not item.local]

    async def _queue(self, runs: Runs, item: WorkItem) -> None:
        await self._work.rests(item)
        await self._put(runs, item, 0)
        item.local = item.locked = False
        self._work.drop(item)

    async def _convert(self, runs: Runs, item: WorkItem) -> None:
        began = self._access.environment.monotonic()
        message = await self._put(runs, item, self._settings.renewed_visibility)
        hand = await self._mail.add(self._access.names.work_items, message, began)
        item.hand, item.local = item.number if hand is None else hand, False
        if self._work.get(WorkRef(item.number, item.token)) is not item and not item.handing_in:
            await self._mail.delete(item.hand)  # its result was handed in meanwhile
        else:
            await self._work.say_begun(item)

    async def _put(self, runs: Runs, item: WorkItem, hidden: int) -> QueueMessage:
        return await self._poster.work_item(
            Named(item.id, item.task, item.scheduled_at, item.episode),
            item.run if item.locked else item.run - 1,
            runs.context,
            hidden,
        )

    # -- partitions ------------------------------------------------------------------------------------

    def gained(self, partition: int) -> None:
        """A partition is ours."""
        self._leaving.discard(partition)

    def losing(self, partition: int) -> None:
        """A partition will be another's: nothing more of it stays here."""
        self._leaving.add(partition)

    def forget(self, partition: int) -> None:
        """A partition is another's: whoever gets its keepers takes their work over.

        What runs goes on, and its result may still come in time.
        """
        for runs in self.of_partition(partition):
            self._forget(runs)

    def _forget(self, runs: Runs) -> None:
        del self._runs[runs.instance_id]
        for item in runs.items.values():
            if item.local and not item.locked:
                self._work.drop(item)
            item.local = False

    def forget_all(self) -> None:
        """Nothing runs here any more."""
        for runs in list(self._runs.values()):
            self._forget(runs)

    async def give_back_keeper(self, instance_id: str) -> None:
        """Have the keeper come again, so that the instance is looked at."""
        runs = self.of(instance_id)
        if runs is not None and runs.keeper is not None:
            keeper, runs.keeper = runs.keeper, None
            await self._mail.give_back(keeper.number, 5)

    async def give_back_all(self) -> None:
        """This host leaves: who gets the keepers goes on."""
        every, self._runs = list(self._runs.values()), {}
        await asyncio.gather(*(self._mail.give_back(runs.keeper.number) for runs in every if runs.keeper is not None))
        for runs in every:
            for item in runs.items.values():
                if item.local:
                    self._work.drop(item)


def _place(item: WorkItem) -> Place:
    return item.task.execution_id, item.task.scheduled
