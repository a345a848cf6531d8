"""One run of a user's orchestration in virtual time: one host, one client, and at most one disturbance.

The host is the real engine on the store in memory.  What was seen of the run is its `Account`; whether that is as it
should be is judged elsewhere.
"""

import asyncio
import contextlib
import copy
import inspect
import logging
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from holdtrue.client.client import Client
from holdtrue.core import events as ev
from holdtrue.core.projection import TERMINAL
from holdtrue.engine.sessions import Session, Sessions
from holdtrue.engine.settings import HostSettings
from holdtrue.host import Host
from holdtrue.stores.memory.hub import MemoryHub
from holdtrue.stores.memory.store import MemoryStore
from holdtrue.stores.protocol import CommitResult, LockedActivity, Notice

from .crash_account import Account, Disturbance, Play, Point, Timer, Written
from .crash_errors import CannotCheck
from .crash_watch import ActivityRun, Seen, shortened
from .environment import EPOCH, SimulatedEnvironment
from .faults import READS, Fault, FaultyStore, Kind, faulty
from .virtual_time import Part, VirtualLoop, as_part

FOREVER_SECONDS = 1e9
LOOK_SECONDS = 86_400.0
"""So seldom, at last, it is looked at an orchestration that rests."""
ABSENT_SECONDS = 0.01
"""So long after a host has died another comes: before any timer, in most programs."""
MOST_COMMITS = 2_000
"""An orchestration that takes more is said not to end."""
MOST_TURNS = 300_000
"""So many turns of the loop in one run, and it is given up: an activity, or the drive, goes round and round."""
ANOTHER_DAY_SECONDS = 86_400 + 3_600 * 7 + 61


class _ForgetfulSessions(Sessions):
    """Sessions whose code is dropped before each episode, so that each is replayed from the history."""

    def __init__(self, forgot: Callable[[], None]) -> None:
        super().__init__()
        self._forgot = forgot
        self._replayed: dict[int, int] = {}

    def touch(self, session: Session) -> None:
        super().touch(session)
        length = session.record.length
        if session.run is not None and length > self._replayed.get(session.lease.key, 0):
            self._replayed[session.lease.key] = length
            session.close()
            self._forgot()


class Stage:
    """Where one run takes place."""

    def __init__(self, play: Play, disturbance: Disturbance, *, taking_notes: bool = False) -> None:
        self.play = play
        self.disturbance = disturbance
        self.account = Account(disturbance=disturbance)
        self.seen = Seen(self)
        self._taking_notes = taking_notes
        self._hub = MemoryHub()
        self._kept: list[Any] = []
        self._part: Part | None = None
        self._store: MemoryStore | None = None
        self._lives = 0
        self._progress = 0
        self._commits = 0
        self._turns = 0
        self._called_points: deque[tuple[int, int]] = deque()
        self._scheduled: dict[tuple[str, int], tuple[str, str]] = {}
        self._done = asyncio.Event()
        self._broken: BaseException | None = None

    # -- the whole run -----------------------------------------------------------------------------------

    def run(self) -> Account:
        """The run, to its end, on a loop of its own.  Raises CannotCheck."""
        loop = VirtualLoop()
        loop.set_exception_handler(self._loop_error)
        try:
            loop.run_until_complete(self._main())
        finally:
            for task in asyncio.all_tasks(loop):
                # What was left ends here and now: nothing of it may reach into the next run.
                with contextlib.suppress(Exception):  # the clean-up of a process that is gone
                    task.get_coro().close()
            self.seen.close()
            loop.close()
        if self.seen.trouble is not None:
            raise self.seen.trouble
        if self._broken is not None:
            raise self._broken
        return self.account

    async def _main(self) -> None:
        play = self.play
        random.seed(self.disturbance.name)
        if not self.disturbance.keeps:
            play.memory.restore()
        play.app.seen = self.seen
        if play.reset is not None:
            await _settled(play.reset())
        self._boot()
        account = self.account
        try:
            await self._use()
        except CannotCheck:
            raise
        except Exception as error:  # noqa: BLE001  of the user's own drive
            account.status, account.reason = "DRIVE FAILED", f"{type(error).__name__}: {error}"
        account.changed = list(dict.fromkeys(account.changed + play.memory.changed()))
        account.steps = self._commits
        account.runs, account.executions = self.seen.runs, self.seen.executions
        if play.state is not None:
            account.state = copy.deepcopy(await _settled(play.state()))

    async def _use(self) -> None:
        """Start it, drive it, and wait for its end, or for a rest that nothing ends."""
        play, account = self.play, self.account
        part = Part("client")
        environment = self._environment("client")
        store = FaultyStore(
            MemoryStore(self._hub, environment=environment, lease_seconds=FOREVER_SECONDS),
            part, self, applied=self._applied, crash=lambda part, seconds: None, pause=lambda part, seconds: None,
        )  # fmt: skip
        self._kept.append(store)
        client = Client(faulty(store), app=play.app.original, environment=environment)

        async def work() -> None:
            await store.inner.open()
            await client.start(play.orchestration, input=play.input, instance_id=play.instance_id)
            for name, data in play.events:
                await client.raise_event(play.instance_id, name, data)
            if play.drive is not None:
                await play.drive(client, play.instance_id)

        with as_part(part):
            driving = asyncio.ensure_future(work())
        await self._rest(driving)
        if driving.done() and driving.exception() is not None:
            error = driving.exception()
            assert error is not None
            raise error
        instance = self._hub.of(play.instance_id)
        if instance is None:
            account.status = "PURGED"
            return
        projection = instance.projection
        account.status, account.output = projection.status.name, projection.output
        if projection.failure is not None:
            account.failure = f"{projection.failure.error_type}: {projection.failure.message}"
        if instance.condition is not None and projection.status not in TERMINAL:
            account.status, account.reason = "HELD", instance.condition.reason
        elif projection.status not in TERMINAL:
            with as_part(part):
                looking = asyncio.ensure_future(client.get_status(play.instance_id, waits=True))
            status = await looking
            account.waits = [] if status is None else status.waits_for
            held = [one for one in self._hub.instances.values() if one.condition is not None]
            if held:
                assert held[0].condition is not None
                account.status, account.reason = "HELD", held[0].condition.reason

    async def _rest(self, driving: "asyncio.Future[None]") -> None:
        """Until nothing more happens by itself, or for as long as is given."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.play.within.total_seconds()
        pause = 1.0
        while loop.time() < end and not self._too_long() and self.seen.trouble is None:
            try:
                await asyncio.wait_for(self._done.wait(), pause)
                self._done.clear()
                pause = 1.0
            except TimeoutError:
                pause = min(pause * 2, LOOK_SECONDS)
            instance = self._hub.of(self.play.instance_id)
            ended = instance is not None and instance.projection.status in TERMINAL
            if self._at_rest() and (ended or driving.done()):
                return

    def _too_long(self) -> bool:
        return self._commits >= MOST_COMMITS or self._turns >= MOST_TURNS

    def _at_rest(self) -> bool:
        hub = self._hub
        if hub.activities or hub.next_due() is not None or not hub.instances:
            return False
        return all(
            one.condition is not None or one.projection.status in TERMINAL or (one.history and not one.inbox)
            for one in hub.instances.values()
        )

    def _environment(self, name: str) -> SimulatedEnvironment:
        day = self.disturbance.day
        chance = random.Random(f"{name}{' on another day' if day else ''}")
        epoch = EPOCH + ANOTHER_DAY_SECONDS * ev.TICKS_PER_SECOND if day else EPOCH
        environment = SimulatedEnvironment(chance.getrandbits(64), epoch=epoch)
        environment.longest_sleep = FOREVER_SECONDS  # nobody sets a clock here
        return environment

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and self._broken is None and "was never retrieved" not in str(context.get("message")):
            self._broken = error

    # -- the host ----------------------------------------------------------------------------------------

    def _boot(self) -> None:
        self._lives += 1
        name = "host" if self._lives == 1 else f"host.{self._lives}"
        part = self._part = Part(name)
        environment = self._environment(name)
        inner = self._store = MemoryStore(self._hub, environment=environment, lease_seconds=FOREVER_SECONDS)
        store = FaultyStore(
            inner, part, self, applied=self._applied, called=self._called, crash=self._crash,
            pause=lambda part, seconds: None,
        )  # fmt: skip
        settings = HostSettings(
            name=name,
            renew_seconds=LOOK_SECONDS,
            lease_seconds=FOREVER_SECONDS,
            idle_seconds=FOREVER_SECONDS,
            retention=False,
            schedules=False,
        )
        host = Host(self.play.app, faulty(store), settings=settings, environment=environment)
        host.client = Client(host.store, app=self.play.app.original, environment=environment, local=host)
        if self.disturbance.forgets:
            host.dispatcher.sessions = _ForgetfulSessions(self._forgot)
        host.dispatcher.finished = partial(self._finished, host.dispatcher.finished)  # type: ignore[method-assign]

        async def live() -> None:
            await host.start()
            if await host.store.renew():
                host.dispatcher.notice(Notice(work=True))

        with as_part(part):
            self._kept += [host, store, asyncio.ensure_future(live())]

    def _forgot(self) -> None:
        if self.disturbance.restarts:
            self._lose_memory()

    def _lose_memory(self) -> None:
        self.account.changed += self.play.memory.changed()
        self.play.memory.restore()

    def _crash(self, part: Part, seconds: float) -> None:
        """The host's process ends at once, and another comes."""
        if part.dead:
            return
        self.tell("*** the host dies, another takes over")
        part.die()
        assert self._store is not None
        self._store.die()
        self._lose_memory()
        with as_part(None):
            asyncio.get_running_loop().call_later(ABSENT_SECONDS, self._boot)

    def _finished(self, finished: Callable[..., None], item: LockedActivity, event: ev.AnyEvent | None) -> None:
        """An activity's result is about to be told to the engine."""
        loop = asyncio.get_running_loop()
        name = self.seen.item_of(item.task)
        self.account.ends.setdefault(name, loop.time())
        until = self.disturbance.holds.get(name)
        if until is None or event is None or until <= loop.time():
            finished(item, event)
        else:
            loop.call_at(until, finished, item, event)

    # -- what happens, and what is done to it --------------------------------------------------------------

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        """The fault at a call of the store; each turn of a process is asked about too, and counted."""
        self._turns += verb == "step"
        if self._turns == MOST_TURNS:
            self._done.set()
        wanted = self.disturbance
        if part != "host" or point != wanted.point or wanted.kind is None or verb in ("notice", "step"):
            return None
        return Fault(part=part, point=point, kind=wanted.kind, seconds=1.0)

    def _called(self, part: Part, point: int, verb: str, fault: Fault | None) -> None:
        if self._taking_notes and verb not in ("notice", "step"):
            self._called_points.append((point, self._progress))
        if fault is not None and fault.kind is Kind.DOUBLED:
            self.tell("*** this is sent to the hub twice:")

    def _applied(self, part: Part, verb: str, given: tuple[Any, ...], outcome: Any) -> None:
        did = self._did(verb, given, outcome)
        if did is not None:
            self._progress += 1
            self._done.set()
        if not self._taking_notes or part is not self._part:
            return
        point, before = self._called_points.popleft()
        if did is None or self._hub.of(self.play.instance_id) is None:
            return
        self.account.points += [
            Point(stamp=before, kind=Kind.CRASH_BEFORE, point=point, did=did),
            Point(stamp=self._progress, kind=Kind.CRASH_AFTER, point=point, did=did),
        ]
        if verb in ("commit", "complete"):
            self.account.written.append(Written(point=point, did=did))

    def _did(self, verb: str, given: tuple[Any, ...], outcome: Any) -> str | None:
        """What a call of the store did, in words; None where it changed nothing."""
        if verb == "commit":
            self._commits += 1
            said: list[str] = []
            for committing, result in zip(given[0], outcome, strict=True):
                if result.result is CommitResult.COMMITTED:
                    said += self._committed(committing.commit)
            return "; ".join(said) or "a step"
        if verb in READS or verb in ("renew", "upkeep", "report", "join") or (not outcome and verb in _TAKES):
            return None
        if verb == "fire_due" and not outcome.deliveries and not outcome.ready:
            return None
        return _WORDS.get(verb, verb)

    def _committed(self, commit: Any) -> list[str]:
        """Note what an episode has written; what of it is worth a word."""
        said = []
        loop = asyncio.get_running_loop()
        name, execution = commit.projection.name, commit.projection.execution_id
        label = self.seen.executions.get(execution, execution)
        group: list[str] = []
        for ordinal, event in enumerate(commit.events, commit.first):
            match event:
                case ev.TaskScheduled():
                    group.append(f"{label}:{ordinal}")
                    what = f"{event.name}({shortened(event.input or '')})"
                    self._scheduled[execution, event.event_id] = group[-1], what
                    said.append(f"the call of {event.name}")
                case ev.TaskCompleted() | ev.TaskFailed():
                    item, what = self._scheduled.get((execution, event.task_scheduled_id), ("", "an activity"))
                    failed = type(event) is ev.TaskFailed
                    gave = "failed" if failed else f"= {shortened(getattr(event, 'result', None) or 'null')}"
                    self.tell(f"recorded: {what} {gave}")
                    self.account.delivered.append(item)
                    said.append(f"the result of {what.partition('(')[0]}")
                case ev.TimerCreated():
                    due = (event.fire_at - commit.projection.last_updated_at) / ev.TICKS_PER_SECOND + loop.time()
                    self.account.timers.append(Timer(made=loop.time(), due=due))
                case ev.TimerFired():
                    due = loop.time() + 0.5
                    timer = next((one for one in self.account.timers if not one.fired and one.due <= due), None)
                    if timer is not None:
                        timer.fired = True
                    self.tell("a timer fires")
                    said.append("a timer that fired")
                case ev.EventRaised():
                    self.tell(f"event {event.name}({shortened(event.input or '')})")
                    said.append(f"the event {event.name}")
                case ev.SubOrchestrationInstanceCreated():
                    group.append(f"{label}/{ordinal}")
                    said.append(f"the start of {event.name}")
                case ev.SubOrchestrationInstanceCompleted() | ev.SubOrchestrationInstanceFailed():
                    said.append("the result of a child")
        if len(group) > 1:
            self.account.groups.append(group)
        if commit.ended:
            output = commit.projection.output or "null"
            failure = commit.projection.failure
            gave = f"= {shortened(output)}" if failure is None else f"({shortened(failure.message)})"
            self.tell(f"{name} ends {commit.projection.status.name} {gave}")
            said.append(f"the end of {name}")
        return said

    # -- what the code under watch asks ---------------------------------------------------------------------

    def tell(self, line: str) -> None:
        """A line of the story."""
        self.account.story.append(line)

    def waits(self, run: ActivityRun, wait: int, place: str | None) -> bool:
        """An activity waits: the host dies here where that is what is to be."""
        self._progress += 1
        if self._taking_notes and run.number == 1:
            self.account.points.append(Point(stamp=self._progress, run=run, wait=wait, place=place))
        return self._dies(run, wait)

    def ended(self, run: ActivityRun) -> bool:
        """An activity has ended; true where the host has died with it."""
        self._progress += 1
        if self._taking_notes and run.number == 1:
            self.account.points.append(Point(stamp=self._progress, run=run, wait=0))
        return self._dies(run, 0)

    def _dies(self, run: ActivityRun, wait: int) -> bool:
        if self.disturbance.dies != (run.item, wait) or run.number != 1:
            return False
        assert self._part is not None
        self._crash(self._part, ABSENT_SECONDS)
        return True

    def runs_twice(self, run: ActivityRun) -> bool:
        """Whether this run of an activity is done a second time."""
        if self.disturbance.twice != run.item or run.number != 1:
            return False
        self.tell("*** a second worker runs it too")
        return True


_TAKES = frozenset({"lock", "lock_activities", "fetch"})
_WORDS = {
    "lock": "the host takes the instance",
    "lock_activities": "the host takes the activity",
    "fetch": "the host takes a message",
    "fire_due": "a timer that fired",
    "complete": "the result of an activity",
    "send": "a message",
}


async def _settled(value: Any) -> Any:
    """What a call of the user's gave, waited for where it is async."""
    return await value if inspect.isawaitable(value) else value


def in_virtual_time(call: Callable[[], Any]) -> None:
    """Call, and wait for what it gives where it is async, on a loop of its own."""

    async def main() -> None:
        await _settled(call())

    loop = VirtualLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


class quiet:
    """The engine's own log is silent within: it would tell of each disturbance."""

    def __enter__(self) -> None:
        self._loggers = [logging.getLogger(f"holdtrue.{name}") for name in ("engine", "host", "activities")]
        self._before = [logger.disabled for logger in self._loggers]
        for logger in self._loggers:
            logger.disabled = True

    def __exit__(self, *error: object) -> None:
        for logger, before in zip(self._loggers, self._before, strict=True):
            logger.disabled = before
