"""Makes a hub ready for .NET: pays, finishes and puts back what only we would come back to (rule 15).

Everything is done in an order in which each step may be done twice.  First every instance is finished and has sent
what it owes, and no longer owes it; then the queues are read until they are empty, and what was used up
before is deleted; only then our columns go from the sentinels, and with them the memory of what was used up.  So a
run that was killed at any moment is run again, and ends the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import msgspec

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.errors import NonDeterminismError
from holdtrue.core.events import AnyEvent, ExecutionStarted, TaskScheduled, Ticks, TimerFired
from holdtrue.core.projection import TERMINAL, Condition, Status
from holdtrue.stores.errors import StoreCorrupt, StoreUnavailable
from holdtrue.stores.protocol import CommitResult, Committing, Lease, LockedInstance

from .access import Access
from .adopting import Adopter
from .arrivals import Arrived, doubles, is_wake
from .committing import Committer
from .dead_letters import DeadLetters
from .dotnet_json import FormatError
from .ended import LIVE
from .erasing import Eraser
from .formats import LONGEST_DELAY, Formats, arrived_as
from .holding import Held, key_of
from .hosting import Hosting
from .keeping import PREFIX, read_kept
from .leftovers import Leftovers, answered_ids
from .listing import Listing
from .loading import Read
from .mail import MOST_A_GET, Mail
from .partitions import HubServed
from .posting import Poster
from .sentinel import State
from .service import QueueMessage, ServiceError, Unsure
from .settings import AzureStorageSettings
from .stripping import Stripper
from .verdicts import names_newer_start
from .waiting import WaitingInstances

log = logging.getLogger("holdtrue.azure_storage")

AT_ONCE = 16
"""Instances in work at once."""
ROUNDS = 20
"""How often the queues are read through, at most, until nothing is in doubt."""


class Obstacle(msgspec.Struct, frozen=True):
    """An instance that .NET cannot go on with, or would do wrong by, and why."""

    instance_id: str
    reason: str


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: the instances that are ready for .NET, and those that are not.

    `done` is false where there are obstacles and nobody said that they may be left: then nothing was taken from the
    hub that we need, and our hosts can go on with it.
    """

    done: bool
    ready: list[str]
    obstacles: list[Obstacle]


class Finisher(Protocol):
    """The app's code, for episodes whose last part is missing."""

    names: frozenset[str]

    def episode(self, locked: LockedInstance, history: list[AnyEvent]) -> EpisodeCommit:
        """The rest of a cut episode.  Raises NonDeterminismError where the code does not fit the history."""


class _Found(msgspec.Struct, kw_only=True):
    """What is known of an instance: the ids of messages that it used up, and the tasks that have an answer."""

    known: set[str]
    execution: str
    answered: set[int]
    waits: bool
    """A start of a client's has not begun."""
    ended: bool
    kept: set[str]
    """The ids of messages that wait beside its history."""
    later: bool
    """Its time has not come: what .NET gets for it before, it loses."""


class Settler:
    """Settles one hub, once."""

    def __init__(
        self,
        access: Access,
        settings: AzureStorageSettings,
        formats: Formats,
        mail: Mail,
        poster: Poster,
        committer: Committer,
        leftovers: Leftovers,
        adopter: Adopter,
        listing: Listing,
        letters: DeadLetters,
        eraser: Eraser,
        waiting: WaitingInstances,
        stripper: Stripper,
        hosting: Hosting,
        finisher: Finisher | None,
        *,
        leave: bool,
    ) -> None:
        self._access = access
        self._settings = settings
        self._formats = formats
        self._mail = mail
        self._poster = poster
        self._committer = committer
        self._leftovers = leftovers
        self._adopter = adopter
        self._listing = listing
        self._letters = letters
        self._eraser = eraser
        self._waiting = waiting
        self._stripper = stripper
        self._hosting = hosting
        self._finisher = finisher
        self._leave = leave
        self._found: dict[str, _Found] = {}
        self._obstacles: dict[str, str] = {}
        self._messages: dict[str, list[Arrived]] = {}
        self._uncertain = False
        self._dues: dict[int, Ticks] = {}
        self._tokens = 0

    async def run(self) -> Settled:
        """Settle.  Raises StoreError where it could not be brought to its end: run it again."""
        async with self._alone():
            await self._each(await self._candidates(), self._finish)
            await self._read_queues()
            await self._each([name for name, found in self._found.items() if found.waits], self._start_again)
            done = self._leave or not self._obstacles
            if done:
                await self._each(list(self._obstacles), self._leave_alone)
                await self._each([name for name in self._found if name not in self._obstacles], self._strip)
            await self._give_back()
        lives = {name for name, found in self._found.items() if not found.ended}
        return Settled(
            done=done,
            ready=sorted(lives - set(self._obstacles)),
            obstacles=[Obstacle(name, self._obstacles[name]) for name in sorted(self._obstacles)],
        )

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """As the only host: owner of all partitions, and of the app lease."""
        await self._hosting.open(alone=True)
        try:
            environment, settings = self._access.environment, self._settings
            until = environment.monotonic() + settings.lease_interval + settings.lease_acquire_interval
            while not self._hosting.all_mine():
                if environment.monotonic() > until:
                    raise HubServed(
                        f"not all partitions of the hub {self._access.names.hub!r} could be taken: other hosts serve "
                        "it. Stop them, and try again"
                    )
                await environment.sleep(0.1)
            yield
        finally:
            self._mail.forget_all()
            await self._hosting.stop_polling()
            await self._hosting.close()

    def _check(self) -> None:
        if not self._hosting.all_mine():
            raise StoreUnavailable(
                f"a partition of the hub {self._access.names.hub!r} went to another host meanwhile: stop all hosts, "
                "and run it again"
            )

    async def _each(self, names: Sequence[str], do: Callable[[str], Awaitable[None]]) -> None:
        for begin in range(0, len(names), AT_ONCE):
            self._check()
            came = await asyncio.gather(*map(do, names[begin : begin + AT_ONCE]), return_exceptions=True)
            for error in came:
                if error is not None:
                    raise error

    async def _candidates(self) -> list[str]:
        """The instances whose rows are not terminal, and those that wait for code, of which some have no row."""
        live = LIVE
        rows = await self._access.query(
            self._access.names.instances, live, select=("PartitionKey", "RowKey", "RuntimeStatus")
        )
        names = dict.fromkeys(self._formats.instance_of(row) for row in rows)
        return list(names | dict.fromkeys(await self._waiting.all()))

    # -- every instance is finished, and owes nothing --------------------------------------------------

    async def _take(self, name: str) -> tuple[Held, Read]:
        """An instance, its debts paid, in hand."""
        self._tokens += 1
        return await self._leftovers.read(name, Lease(key_of(name), self._tokens))

    async def _finish(self, name: str) -> None:
        try:
            held, read = await self._take(name)
        except StoreCorrupt as error:
            self._obstacles[name] = f"it cannot be read: {error}"
            self._found[name] = _Found(
                known=set(), execution="", answered=set(), waits=False, ended=False, kept=set(), later=False
            )
            return None
        if read.sentinel is not None and read.sentinel.state.purging:
            await self._eraser.erase(name, read.sentinel)
            held, read = await self._take(name)
        await self._leftovers.queue_local(held, read)
        await self._leftovers.clear_debt(held, local=True)
        obstacle = _obstacle(held, read)
        if obstacle is None and (read.is_unfinished or held.state.woken):
            obstacle = await self._finish_episode(name, held)
            if obstacle is None:
                return await self._finish(name)
        waits = _start_waits(read)
        due = None if read.row is None or not waits else self._formats.scheduled_start(read.row)
        later = due is not None and self._formats.delay_until(due) > 0
        kept = [
            await read_kept(self._formats, row, self._mail.next_number())
            for row in read.partition.extras
            if row.key.startswith(PREFIX)
        ]
        if obstacle is None and later:
            assert due is not None
            obstacle = _early(kept) or self._too_far(due)
        if obstacle is None and (waits or not _has_ended(read)):
            for one in kept:
                await self._poster.again(name, one)
        if obstacle is not None:
            self._obstacles[name] = obstacle
        self._found[name] = _Found(
            known=doubles(read.sentinel),
            execution=held.execution_id,
            answered=answered_ids(read.events),
            waits=waits,
            ended=_has_ended(read) and not waits,
            kept={one.id for one in kept},
            later=later,
        )
        return None

    async def _finish_episode(self, name: str, held: Held) -> str | None:
        """Commit the rest of a cut episode; why that cannot be."""
        assert held.started is not None
        orchestrator = held.started.name
        if self._finisher is None or orchestrator not in self._finisher.names:
            return (
                f"the last part of its episode is missing, and takes the code of orchestration {orchestrator!r} (--app)"
            )
        adopted = await self._adopter.adopt(name, held.lease, [])
        if adopted is None:
            raise StoreUnavailable(f"instance {name!r} changed while its episode was to be finished: run it again")
        held, locked = adopted
        history = held.history if held.history is not None else await self._listing.history_of(held)
        try:
            commit = self._finisher.episode(locked, history or [])
        except NonDeterminismError as error:
            return f"the last part of its episode is missing, and the code does not fit its history: {error}"
        outcome = await self._committer.apply(held, Committing(lease=held.lease, commit=commit, keep=False))
        if outcome.result is not CommitResult.COMMITTED:
            raise StoreUnavailable(f"instance {name!r} changed while its episode was finished: run it again")
        return None

    def _too_far(self, due: Ticks) -> str | None:
        if self._formats.delay_until(due) < LONGEST_DELAY:
            return None
        return "it is to start in more than six days: .NET would start it when its message comes, before its time"

    # -- what was used up goes from the queues ---------------------------------------------------------

    async def _read_queues(self) -> None:
        """Get all that is in the queues, and delete what was used up or is there twice; the rest stays in hand."""
        waited = False
        for _ in range(ROUNDS):
            self._check()
            self._uncertain = False
            came = await self._empty_queues()
            new = [name for name in self._messages if name not in self._found]
            await self._each(new, self._finish)
            for name in list(self._messages):
                await self._judge(name)
            if new:
                continue  # what they sent just now has come
            if not self._uncertain and ((not came and waited) or await self._count() <= len(self._mail)):
                return
            # What a dead host had in hand is hidden for so long, and what was got here without anyone's knowing.
            again = self._uncertain or not waited
            await self._access.environment.sleep(
                self._settings.renewed_visibility if again else self._settings.take_visibility
            )
            waited = True
        raise StoreUnavailable(
            f"the queues of the hub {self._access.names.hub!r} give no clear answers: run it again later"
        )

    async def _count(self) -> int:
        queues = self._access.service.queues
        counts = [
            await self._access.read(queue, lambda: queues.approximate_count(queue))  # noqa: B023
            for queue in self._queues()
        ]
        return sum(counts)

    def _queues(self) -> list[str]:
        names = self._access.names
        return [*map(names.control, range(self._access.partitions)), names.work_items]

    async def _empty_queues(self) -> bool:
        """Get all that can be got; whether anything came."""
        came = False
        for queue in self._queues():
            failures = 0
            while True:
                try:
                    if not await self._mail.pull(queue, MOST_A_GET, partial(self._sort, queue)):
                        break
                    came = True
                except Unsure as error:
                    self._uncertain = True  # some may be hidden now
                    failures += 1
                    if failures == ROUNDS:
                        raise self._access.failure(f"queue {queue}", error) from error
                    await self._access.environment.sleep(1.0)
                except ServiceError as error:
                    raise self._access.failure(f"queue {queue}", error) from error
        return came

    async def _sort(self, queue: str, number: int, message: QueueMessage) -> None:
        try:
            content = await self._formats.read_message(message)
        except FormatError as error:
            await self._letters.bury(
                self._formats.unreadable_letter(queue, message, error), message.id, message.inserted
            )
            if not await self._mail.delete(number):
                self._uncertain = True
            return
        if content.due is not None:
            self._dues[number] = content.due
        self._messages.setdefault(content.instance_id, []).append(arrived_as(content, number, message))

    async def _judge(self, name: str) -> None:
        """Delete what an instance has used up, or has twice."""
        found, good = self._found[name], {}
        stays = found.kept if name in self._obstacles else set()
        for one in self._messages[name]:
            used_up = is_wake(one.event) or one.id in found.known or one.id in stays or _is_answered(one, found)
            if used_up or one.id in good:
                if not await self._mail.delete(one.key):
                    self._uncertain = True
            else:
                good[one.id] = one
        self._messages[name] = list(good.values())
        early = _early(self._messages[name]) if found.later else None
        if early is not None:
            self._obstacles.setdefault(name, early)

    async def _start_again(self, name: str) -> None:
        """A client's start whose messages are in no queue that can be read: they were never put, or wait for their
        time (one that comes twice does nothing)."""
        row = await self._access.instances_row(name)
        if row is None:
            return
        there = {one.id for one in self._messages.get(name, ())} | self._found[name].kept
        try:
            start = await self._formats.waiting_start(row, name)
        except StoreCorrupt as error:
            self._obstacles.setdefault(name, f"it cannot be read: {error}")
        else:
            await self._poster.start(start, there=there)

    # -- our memory goes -------------------------------------------------------------------------------

    async def _strip(self, name: str) -> None:
        held, read = await self._take(name)
        if self._found[name].ended:
            await self._stripper.mend(held, read)  # and no more, as with all that ended before
        else:
            await self._stripper.strip(held, read)
        await self._waiting.goes_on(name)

    async def _leave_alone(self, name: str) -> None:
        """Keep all that has come for it beside its history, for the day when it goes on here."""
        try:
            held, read = await self._take(name)
        except StoreCorrupt:
            return  # as it is: its messages go back
        found, messages = self._found[name], self._messages.get(name, [])
        if found.waits:
            stay = [one for one in messages if not isinstance(one.event, ExecutionStarted)]
        else:
            stay = messages
        if stay:
            await self._adopter.keep(held, read, stay)
        if not found.waits and held.started is not None and held.state.condition is None:
            why = f"left when the hub was handed to .NET: {self._obstacles[name]}"
            await self._committer.hold(held, Condition(kind="held", reason=why, since=self._access.environment.now()))
        gone = await asyncio.gather(*(self._mail.delete(one.key) for one in stay))
        self._messages[name] = [one for one in messages if one not in stay]
        if not all(gone):
            raise StoreUnavailable(f"instance {name!r}: a message may be in the queue still, and is kept: run it again")

    async def _give_back(self) -> None:
        """Put back what is in hand, each instance's start before the rest."""
        for messages in self._messages.values():
            messages.sort(key=lambda one: (not isinstance(one.event, ExecutionStarted), one.inserted))
            for one in messages:
                due = self._dues.get(one.key)
                await self._mail.give_back(one.key, 0 if due is None else self._formats.delay_until(due))


def _early(messages: Sequence[Arrived]) -> str | None:
    """What .NET would lose of an instance whose start is yet to come."""
    count = sum(not isinstance(one.event, ExecutionStarted) for one in messages)
    return f"it has not begun, and {count} messages wait for it, which .NET would lose" if count else None


def _is_answered(one: Arrived, found: _Found) -> bool:
    """Whether it asks for, or answers, what the history has an answer to."""
    event = one.event
    if isinstance(event, TaskScheduled):
        task: int | None = event.event_id
    elif isinstance(event, TimerFired):
        task = event.timer_id
    else:
        task = getattr(event, "task_scheduled_id", None)
    return task is not None and one.execution_id == found.execution and task in found.answered


def _has_ended(read: Read) -> bool:
    return read.projection is not None and read.projection.status in TERMINAL


def _start_waits(read: Read) -> bool:
    """Whether the row is that of a start that has not begun."""
    view, sentinel = read.view, read.sentinel
    if view is None or view.status is not Status.PENDING:
        return False
    return read.projection is None or sentinel is None or names_newer_start(view, sentinel)


def _obstacle(held: Held, read: Read) -> str | None:
    """Why .NET cannot go on with an execution that has begun."""
    state: State = held.state
    if read.projection is None or _has_ended(read):
        return None
    if state.condition is not None and state.condition.kind == "held":
        return f"it is held: {state.condition.reason}"
    if held.dialect != "dotnet":
        return f"its history is in the dialect {held.dialect!r}, which .NET cannot replay"
    if read.projection.status is Status.PENDING and state.rows:
        return "a rewind of it is under way: let a host finish it"
    return None
