"""Brings messages, code and commits together: locks instances that have work, runs their episodes, commits
them in batches, starts their activities, and delivers results.

Everything here runs on one loop.  A turn handles all sessions that have something to do and hands their
commits to the store together; the store gathers what comes while it syncs.  What goes wrong with one
instance is that instance's affair: it is loaded again, held, or put back, and the others go on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from holdtrue.authoring.app import App
from holdtrue.core import events as ev
from holdtrue.core.author import OrchestratorNotFound
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.errors import InvariantBroken, NonDeterminismError
from holdtrue.core.messages import ActivityTask, InboundMessage, WorkRef
from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.environment import Environment
from holdtrue.stores.errors import LeaseLost, StoreCorrupt, StoreError
from holdtrue.stores.protocol import (
    ActivityResult,
    CommitOutcome,
    CommitResult,
    Committing,
    Delivery,
    InstanceRecord,
    Lease,
    LockedActivity,
    LockedInstance,
    Notice,
    TaskHubStore,
    queue_name,
)

from .counters import Counters
from .due import DueWatch
from .handing_in import HandingIn
from .rewinding import late_answers, rewind
from .sessions import Session, Sessions
from .settings import HostSettings
from .taking import Taking
from .tasks import Background

log = logging.getLogger("holdtrue.engine")

HUNGRY_BACKLOG = 500
"""With fewer work items waiting for a slot, more are taken from the hub."""
TURN_SESSIONS = 256
"""Sessions handled before the loop gets its turn again."""
SLOT_WAIT_SECONDS = 1.0
"""A work item that has waited for a slot for so long may go to another host."""
SAFETY_LOOK_SECONDS = 5.0
"""How often a host looks for work although nobody called: a lost wake-up costs at most this."""


class ActivityRunner(Protocol):
    """What the dispatcher needs of the activity pool."""

    def submit(self, items: Sequence[LockedActivity]) -> None:
        """Run these."""

    def room_of(self, name: str) -> int:
        """How many more of this activity it wants."""

    def rooms(self) -> list[tuple[int, list[str]]]:
        """How many more it wants of which queues."""

    def backlog(self) -> int:
        """How many wait in it for a slot."""

    def cancel(self, refs: Iterable[WorkRef]) -> None:
        """Nobody wants these any more."""

    def cancel_scheduled(self, execution_id: str, ordinals: Iterable[int]) -> None:
        """Nobody wants the activities any more that these events of that execution scheduled."""

    def refs(self) -> list[WorkRef]:
        """All work items in hand."""

    def waiting(self, seconds: float) -> list[WorkRef]:
        """Those that have had no slot for so long."""

    def withdraw(self, refs: Iterable[WorkRef]) -> list[LockedActivity]:
        """Take back those of these that have not begun."""


class Dispatcher:
    """The engine of one host.

    `changed` is called with the ids of instances whose status changed, `committed` with their records where
    this host has just committed them.  `lost` is called when the store
    says that this host was taken for dead.
    """

    def __init__(
        self,
        app: App,
        store: TaskHubStore,
        environment: Environment,
        settings: HostSettings,
        *,
        changed: Callable[[Iterable[str]], None],
        committed: Callable[[Sequence[InstanceRecord]], None],
        lost: Callable[[], None],
    ) -> None:
        self.app = app
        self.store = store
        self.environment = environment
        self.settings = settings
        self.counters = Counters()
        self.sessions = Sessions()
        self.pool: ActivityRunner | None = None
        self._author = app.author
        self._changed = changed
        self._committed = committed
        self._background = Background(environment, lost)
        self._taking = Taking(store, environment, self._background, self, app.queues(settings.tags), self.deliver)
        self._handing_in = HandingIn(store, self._background, self.deliver, self._taking.instances)
        self.due = DueWatch(store, environment, self._background, deliver=self.deliver, ready=self._taking.instances)
        self._ready: list[Session] = []
        self._running: dict[int, int] = {}
        self._turn_due = False
        self._busy = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self, pool: ActivityRunner) -> None:
        """Begin to work, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self.pool = pool
        self._taking.begin()
        self.due.look()

    async def stop(self, unfinished: Sequence[WorkRef]) -> None:
        """Finish what is being committed, give everything else back.  `unfinished`: the pool's work items."""
        self._background.stopping = True
        self.due.stop()
        await self._background.finish()
        leases = []
        for session in self.sessions:
            leases.append(session.lease)
            self._drop(session)
        if unfinished:
            await self._background.until_done(lambda: self.store.put_back_activities(list(unfinished)))
        if leases:
            await self._background.until_done(lambda: self.store.put_back(leases))

    # -- what comes in ---------------------------------------------------------------------------------

    @property
    def load(self) -> int:
        """Instances being worked on now."""
        return self._busy + len(self._ready)

    def wants(self, name: str) -> bool:
        """True if a start of this orchestration should be given to this host at once."""
        return (
            not self._background.stopping
            and self.load < self.settings.active_instances
            and name in self.app.orchestrators
        )

    def adopt(self, locked: LockedInstance) -> None:
        """An instance that this host has got the lock of."""
        session = Session(locked)
        session.local = self._running.get(locked.lease.key, 0)
        if self._background.stopping:
            self._background.spawn(self._put_back([session.lease]))
            return
        old = self.sessions.get(locked.lease.key)
        if old is not None:
            # The hub gave it out anew: what that session knew is over, results of activities are not.
            self._drop(old)
            self._handing_in.add_messages([m for m in old.taken + old.inbox if m.work is not None])
        self.sessions.add(session)
        if locked.record.deadline is not None:
            self.due.note(locked.record.deadline)
        self._mark(session)

    def deliver(self, delivery: Delivery) -> None:
        """A message for an instance that this host holds."""
        session = self.sessions.get(delivery.instance)
        if session is None:
            self.look()  # put back meanwhile: the message is in the hub, and the instance will be locked anew
            return
        session.take(delivery.message)
        if not session.busy:
            self._mark(session)

    def finished(self, item: LockedActivity, event: ev.AnyEvent | None) -> None:
        """An activity has ended; None: nobody wants its result any more."""
        self.counters.activities += 1
        self._count(item, -1)
        if event is None:
            return
        session = self.sessions.get(item.instance)
        if session is None or session.record.projection.execution_id != item.task.execution_id:
            self._handing_in.add((ActivityResult(ref=item.ref, event=event),))
        else:
            session.inbox.append(
                InboundMessage(
                    event=event,
                    execution_id=item.task.execution_id,
                    scheduled=item.task.scheduled,
                    work=item.ref,
                )
            )
            if not session.busy and not session.queued:
                self._mark(session)
        if self._taking.may_have_items:
            self._take_when_hungry()

    def notice(self, notice: Notice) -> None:
        """Another process made work, or changed what somebody waits for."""
        if notice.work:
            self._taking.everything()
            self.due.look()
        if notice.changed:
            self._changed(notice.changed)

    def _mark(self, session: Session) -> None:
        if not session.queued:
            session.queued = True
            self._ready.append(session)
        self._call_turn()

    def _call_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            assert self._loop is not None
            self._loop.call_soon(self._turn)

    # -- episodes --------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turn_due = False
        ready = self._ready
        if len(ready) > TURN_SESSIONS:
            self._ready = ready[TURN_SESSIONS:]
            ready = ready[:TURN_SESSIONS]
        else:
            self._ready = []
        batch: list[Committing] = []
        sessions: list[Session] = []
        environment = self.environment
        clock = environment.monotonic()
        now = environment.now()
        rooms: dict[str, int] = {}
        starts = max(0, self.settings.active_instances - self.load)
        for session in ready:
            session.queued = False
            if self.sessions.get(session.lease.key) is not session:
                continue  # given back meanwhile
            if session.busy or (not session.inbox and not session.wake):
                continue
            session.touched = clock
            self.sessions.touch(session)
            if session.needs_history or session.rewinds:
                self._hold_busy(session)
                self._background.spawn(self._load(session))
                continue
            if session.limits:
                self._hold_busy(session)
                self._background.spawn(self._judge_limits(session))
                continue
            committing = self._episode(session, now, rooms, starts)
            after = environment.monotonic()
            if after - clock > self.settings.slow_step_seconds:
                self.counters.slow_steps += 1
                place = None if session.run is None else session.run.where()
                log.warning(
                    "a step of orchestration %r (instance %r)%s took %.1f s and blocked everything else: "
                    "move what blocks or computes into an activity (ctx.call_activity)",
                    session.record.projection.name,
                    session.instance_id,
                    f", up to the wait at {place}," if place else "",
                    after - clock,
                )
            clock = after
            if committing is None:
                continue
            starts -= committing.take_starts
            batch.append(committing)
            sessions.append(session)
        if self._ready:
            self._call_turn()
        if batch:
            self._background.spawn(self._commit(batch, sessions))

    def _hold_busy(self, session: Session) -> None:
        session.busy = True
        self._busy += 1

    def _free(self, session: Session) -> None:
        session.busy = False
        self._busy -= 1

    def _episode(self, session: Session, now: ev.Ticks, rooms: dict[str, int], starts: int) -> Committing | None:
        self.counters.episodes += 1
        try:
            if session.run is None:
                session.begin(self._author)
            commit = session.episode(self._author, now, self.environment.new_id)
        except NonDeterminismError as error:
            failing = self._mismatch(session, error, now)
            if failing is None:
                return None
            commit = failing
        except OrchestratorNotFound:
            # Another host, or a later one, has it: the lock is given back, and asked for only by who has the code.
            self._drop(session)
            self._background.spawn(self._put_back([session.lease]))
            return None
        except InvariantBroken as error:
            log.error("a defect of Holdtrue: %s", error)
            self._park(session, str(error))
            return None
        except Exception as error:
            log.exception("a defect of Holdtrue: the episode of instance %r failed", session.instance_id)
            self._park(session, f"{type(error).__name__}: {error}")
            return None
        self._hold_busy(session)
        for dropped in commit.dropped:
            self.counters.dropped[dropped.reason] += 1
            log.debug("instance %r: dropped %s: %s", commit.instance_id, type(dropped.event).__name__, dropped.reason)
        if commit.activities or commit.starts:
            return Committing(
                lease=session.lease,
                commit=commit,
                keep=True,
                take_activities=self._activities_to_take(commit, rooms),
                take_starts=self._starts_to_take(commit, starts),
            )
        return Committing(lease=session.lease, commit=commit, keep=commit.projection.status not in TERMINAL)

    def _activities_to_take(self, commit: EpisodeCommit, rooms: dict[str, int]) -> int:
        """How many of its first work items this host has room for; `rooms` holds what is left in this turn."""
        assert self.pool is not None
        take = 0
        tags = self.settings.tags
        for task in commit.activities:
            name = task.name
            room = rooms.get(name)
            if room is None:
                room = self.pool.room_of(name)
            if room <= 0:
                rooms[name] = 0
                break
            if task.options is not None and task.options.tag is not None and task.options.tag not in tags:
                break
            rooms[name] = room - 1
            take += 1
        return take

    def _starts_to_take(self, commit: EpisodeCommit, starts: int) -> int:
        take = 0
        for start in commit.starts:
            if take >= starts or start.started.name not in self.app.orchestrators:
                break
            take += 1
        return take

    def _mismatch(self, session: Session, error: NonDeterminismError, now: ev.Ticks) -> EpisodeCommit | None:
        definition = self.app.orchestrators.get(session.record.projection.name)
        fails = definition is not None and definition.on_mismatch == "fail"
        commit = session.end_unrun(error if fails else None, now, self.environment.new_id)
        if commit is None:
            self._park(session, str(error))
        return commit

    def _park(self, session: Session, reason: str) -> None:
        self.counters.held += 1
        log.warning("held: %s", reason)
        self._drop(session)
        condition = Condition(kind="held", reason=reason, since=self.environment.now())
        self._background.spawn(self._parked(session, condition))

    async def _parked(self, session: Session, condition: Condition) -> None:
        local = [m for m in session.taken + session.inbox if m.work is not None]
        await self._background.until_done(lambda: self.store.park([session.lease], condition))
        self._handing_in.add_messages(local)
        self._changed((session.instance_id,))

    async def _load(self, session: Session) -> None:
        try:
            history = await self.store.load(session.lease)
        except StoreCorrupt as error:
            # Trying again at once would not end.
            self._free(session)
            if self.sessions.get(session.lease.key) is session:
                self._park(session, f"its history cannot be read: {error}")
            return
        except StoreError as error:
            await self._load_again(session, error)
            return
        self._free(session)
        if self.sessions.get(session.lease.key) is not session:
            return
        if history is None:
            self._lock_lost(session)
            return
        self.counters.replays += 1
        try:
            if session.rewinds:
                await self._rewind(session, history)
                return
            session.replay(self._author, history)
            if session.wake and not await self._ask_children(session):
                return
        except OrchestratorNotFound:
            # A terminate or a deadline needs no code; for the rest another host, or a later one, has it.
            commit = session.end_unrun(None, self.environment.now(), self.environment.new_id)
            if commit is None:
                self._drop(session)
                await self._put_back([session.lease])
            else:
                self._hold_busy(session)
                await self._commit([Committing(lease=session.lease, commit=commit, keep=False)], [session])
            return
        except NonDeterminismError as error:
            commit = self._mismatch(session, error, self.environment.now())
            if commit is not None:
                self._hold_busy(session)
                await self._commit([Committing(lease=session.lease, commit=commit, keep=False)], [session])
            return
        except Exception as error:
            log.exception("the history of instance %r cannot be replayed", session.instance_id)
            self._park(session, f"its history cannot be replayed: {type(error).__name__}: {error}")
            return
        self._mark(session)

    async def _load_again(self, session: Session, error: StoreError) -> None:
        """What was asked of the hub for a session in hand failed: whoever locks the instance next begins anew."""
        log.warning("instance %r will be loaded again, the hub failed: %s", session.instance_id, error)
        self._free(session)
        await self._discard([session])

    async def _judge_limits(self, session: Session) -> None:
        """Activities may have waited too long for a worker: the hub knows which of them nobody has begun."""
        try:
            items = await self.store.activities_of(session.instance_id)
        except StoreError as error:
            await self._load_again(session, error)
            return
        self._free(session)
        session.judge_limits(items, self.environment.now())
        self._mark(session)

    async def _rewind(self, session: Session, history: list[ev.AnyEvent]) -> None:
        self._hold_busy(session)
        try:
            commit = await rewind(session, history, self.store, self.environment, self._author)
        except StoreError as error:
            await self._load_again(session, error)
            return
        except BaseException:
            self._free(session)
            raise
        await self._commit([Committing(lease=session.lease, commit=commit, keep=True)], [session])

    async def _ask_children(self, session: Session) -> bool:
        """Have the children of an instance that was woken answer once more; false where the hub did not take it."""
        self._hold_busy(session)
        try:
            late = await late_answers(session, self.store, self.environment.now())
            for outcome in await self.store.send(late) if late else []:
                if outcome.delivery is not None:
                    self.deliver(outcome.delivery)
        except StoreError as error:
            await self._load_again(session, error)
            return False
        self._free(session)
        return True

    # -- commits ---------------------------------------------------------------------------------------

    async def _commit(self, batch: list[Committing], sessions: list[Session]) -> None:
        try:
            outcomes = await self.store.commit(batch)
        except LeaseLost:
            self.counters.lease_lost += len(batch)
            for session in sessions:
                self._free(session)
                self._drop(session)
            self._background.lost()
            return
        except StoreError as error:
            self.counters.redone += len(batch)
            log.warning("%d episodes could not be committed, they will be done again: %s", len(batch), error)
            for session in sessions:
                self._free(session)
            await self._discard(sessions)
            return
        except Exception as error:  # noqa: BLE001  whatever it is, the others of the batch go on
            await self._commit_apart(batch, sessions, error)
            return
        assert self.pool is not None
        changed: list[InstanceRecord] = []
        submit: list[LockedActivity] = []
        for committing, session, outcome in zip(batch, sessions, outcomes, strict=True):
            self._free(session)
            commit = committing.commit
            if outcome.result is not CommitResult.COMMITTED:
                self._not_committed(session, outcome)
                continue
            session.committed(commit)
            self.sessions.grow(session, session.record.length * 150)
            if commit.messages:
                self._note_due(commit)
                if len(outcome.deliveries) < sum(message.due is None for message in commit.messages):
                    # Some are for instances that this host does not hold: perhaps nobody does.
                    self._taking.instances()
            if commit.cancelled and session.local and not commit.replace:
                # Their rows are gone; those that run here are told directly.  (The ordinals of a commit that
                # replaces are of the execution before, whose activities run to their end.)
                self.pool.cancel_scheduled(commit.projection.execution_id, commit.cancelled)
            if commit.projection.status in TERMINAL:
                self.counters.ended += 1
                self._drop(session)
                self._handing_in.add_messages([m for m in session.inbox if m.work is not None])
                changed.append(session.record)
            else:
                for item in outcome.activities:
                    self._count(item, 1)
                    submit.append(item)
                if len(commit.activities) > len(outcome.activities):
                    self._taking.left([queue_of(task) for task in commit.activities[len(outcome.activities) :]])
                if commit.status_changed or commit.custom_status_changed:
                    changed.append(session.record)
                if (session.inbox or session.wake) and not session.queued:
                    self._mark(session)
            for taken in outcome.taken:
                self.adopt(taken)
            for delivery in outcome.deliveries:
                self.deliver(delivery)
            if len(commit.starts) > len(outcome.taken):
                self._taking.instances()
            for letter in outcome.dead:
                log.warning("dead letter for instance %r: %s", letter.instance_id, letter.reason)
        if submit:
            self.pool.submit(submit)
        if changed:
            self._committed(changed)
        if self._taking.may_have_items or self._taking.may_have_instances:
            self._take_when_hungry()
        settings = self.settings
        if len(self.sessions) > settings.live_instances or self.sessions.bytes > settings.live_bytes:
            await self._give_back(self.sessions.surplus(settings.live_instances, settings.live_bytes))

    async def _commit_apart(self, batch: list[Committing], sessions: list[Session], error: Exception) -> None:
        """Something in a batch cannot be written: each by itself, so that only the one that cannot is held."""
        if len(batch) > 1:
            for committing, session in zip(batch, sessions, strict=True):
                await self._commit([committing], [session])
            return
        (session,) = sessions
        why = f"its episode cannot be written: {type(error).__name__}: {error}"
        log.error("a defect of Holdtrue: instance %r: %s", session.instance_id, why, exc_info=error)
        self._free(session)
        self._park(session, why)

    def _not_committed(self, session: Session, outcome: CommitOutcome) -> None:
        if outcome.result is CommitResult.STALE:
            self.counters.stale += 1
            log.info("instance %r: another commit came in between, it is loaded again", session.instance_id)
            self._background.spawn(self._discard([session]))
            return
        self._lock_lost(session)

    def _lock_lost(self, session: Session) -> None:
        self.counters.lease_lost += 1
        log.info("instance %r: its lock was lost, another host has it", session.instance_id)
        self._drop(session)
        self._handing_in.add_messages([m for m in session.taken + session.inbox if m.work is not None])

    async def _discard(self, sessions: Sequence[Session]) -> None:
        """Forget what is in memory of these and let them be locked anew: whatever was committed stands."""
        local: list[InboundMessage] = []
        for session in sessions:
            self._drop(session)
            local += [m for m in session.taken + session.inbox if m.work is not None]
        self._handing_in.add_messages(local)
        await self._put_back([session.lease for session in sessions])
        self._taking.instances()

    async def _put_back(self, leases: Sequence[Lease]) -> None:
        await self._background.until_done(lambda: self.store.put_back(leases))

    def forget(self) -> None:
        """Forget everything in hand: this host has lost its lease, and others go on with it."""
        for session in self.sessions:
            self._drop(session)
        self._handing_in.forget()
        if self.pool is not None:
            self.pool.cancel(self.pool.refs())

    def _drop(self, session: Session) -> None:
        self.sessions.remove(session)
        session.close()

    async def _give_back(self, sessions: Sequence[Session]) -> None:
        if sessions:
            for session in sessions:
                self._drop(session)
            await self._put_back([session.lease for session in sessions])

    # -- taking work from the hub ------------------------------------------------------------------------

    def room_for_instances(self) -> int:
        """How many more instances it would work on now."""
        return self.settings.active_instances - self.load

    def rooms(self) -> list[tuple[int, list[str]]]:
        """How many more work items of which queues it wants."""
        return [] if self.pool is None else self.pool.rooms()

    def run(self, items: Sequence[LockedActivity]) -> None:
        """Work items that this host has got the lock of."""
        assert self.pool is not None
        for item in items:
            self._count(item, 1)
        self.pool.submit(items)

    def _count(self, item: LockedActivity, more: int) -> None:
        """So many more activities of an instance run here, whether it is in hand or not."""
        count = self._running.get(item.instance, 0) + more
        if count:
            self._running[item.instance] = count
        else:
            self._running.pop(item.instance, None)
        session = self.sessions.get(item.instance)
        if session is not None:
            session.local = count

    async def share(self) -> None:
        """Give back what has waited for a slot, where the hub says that another host may have one free."""
        waiting = [] if self.pool is None else self.pool.waiting(SLOT_WAIT_SECONDS)
        if waiting:
            assert self.pool is not None
            await self.give_back(self.pool.withdraw(await self.store.spare(waiting)))

    async def give_back(self, items: Sequence[LockedActivity]) -> None:
        """Give work items back that were withdrawn from the pool."""
        for item in items:
            self._count(item, -1)
        if items:
            refs = [item.ref for item in items]
            await self._background.until_done(lambda: self.store.put_back_activities(refs))

    def look(self) -> None:
        """The hub has new work."""
        self._taking.everything()

    def freed(self) -> None:
        """The pool has room again, though nothing has just ended for the hub."""
        if self._taking.may_have_items:
            self._take_when_hungry()

    def _take_when_hungry(self) -> None:
        assert self.pool is not None
        taking = self._taking
        if (taking.may_have_instances and self.load < self.settings.active_instances // 2) or (
            taking.may_have_items and self.pool.backlog() < HUNGRY_BACKLOG
        ):
            taking.look()

    def _note_due(self, commit: EpisodeCommit) -> None:
        for message in commit.messages:
            if message.due is not None:
                self.due.note(message.due)

    async def tick(self) -> None:
        """Once in a while: put back what rests, look although nobody called."""
        moment = self.environment.monotonic() - self.settings.idle_seconds
        await self._give_back(self.sessions.idle_since(moment))
        self._taking.everything()
        self.due.look()
        assert self.pool is not None
        refs = self.pool.refs()
        if refs:
            try:
                self.pool.cancel(await self.store.cancelled(refs))
            except StoreError as error:
                log.warning("could not ask which activities are still wanted: %s", error)


def queue_of(task: ActivityTask) -> str:
    """The queue of a work item."""
    return queue_name(task.name, None if task.options is None else task.options.tag)
