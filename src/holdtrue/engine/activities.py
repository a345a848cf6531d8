"""Runs activities: async ones on the loop, sync ones in threads, CPU-bound ones in processes.

What is promised of every work item given to `submit`:
- Its outcome is told by `finished` exactly once, or its ref is in what `drain` returns; never both.
- Whatever the user's code does, its way out is an outcome: a value, any exception (SystemExit,
  KeyboardInterrupt, CancelledError and GeneratorExit too), a result that cannot be written.
- A time-out is told when it strikes, a cancelled item (`finished(item, None)`: nobody wants its result)
  when it is cancelled.  The slot is free again when the code has really ended: at once for what was told
  to stop on the loop or in a process, whenever it returns for a thread, which cannot be stopped.

It must not know of histories and stores; signs of life go through `report`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, FailureDetails, TaskCompleted
from holdtrue.core.messages import WorkRef
from holdtrue.environment import Environment
from holdtrue.stores.errors import ForkedProcess
from holdtrue.stores.protocol import LockedActivity

from . import activity_lanes as lanes
from .activity_lanes import Activity, Lane
from .activity_loop import LoopRuns
from .activity_runs import Outcome, Report, Reporter, Run, bare_failure, crashed, late_end, late_start, silent
from .activity_threads import ThreadRuns
from .busy_thread import BUSY_SWITCH_SECONDS
from .cpu_processes import CpuProcesses

log = logging.getLogger("holdtrue.activities")

UNWANTED = "nobody wants its result any more"
STOPPING = "the worker stops; it will be run again"

ClientFactory = Callable[[Literal["async", "sync"]], Any]


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a pool.

    `async_slots`, `threads` and `processes` bound running activities by kind; `async_ahead` and
    `threads_ahead` how many more of them are asked for than can start (for processes none: another host
    may have one free); without `takes_ahead` that counts for those alone that come with this host's own commits.
    `cancel_grace` is how many seconds one that was asked to end gets before it is
    cancelled or killed.  `crash_limit` is how many deaths of its process an item survives by being run
    again.  `load_seconds` bounds the import of the app in a process.  `tags` are those this host serves.
    `own_process` lets the pool tune the interpreter: while a busy thread runs, its switch interval is
    `busy_switch_interval` seconds.
    """

    async_slots: int = 1_000
    threads: int = 32
    processes: int = os.cpu_count() or 1
    async_ahead: int = 1_000
    threads_ahead: int = 32
    takes_ahead: bool = True
    cancel_grace: float = 5.0
    crash_limit: int = 3
    load_seconds: float = 60.0
    tags: frozenset[str] = frozenset()
    own_process: bool = False
    busy_switch_interval: float = BUSY_SWITCH_SECONDS


class PoolCounters(msgspec.Struct):
    """What a pool counts; `busy_threads` counts runs that starved the interpreter, `crashes` deaths of processes."""

    completed: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    crashes: int = 0
    busy_threads: int = 0


class ActivityPool:
    """The activities of one host.  All methods are the loop's but `sign`, `failure` and `client`.

    `finished(item, event)` is called on the loop, sometimes from within `submit` (a start that comes too
    late) and `cancel`.  `report` stores a sign of life and says whether the item is still wanted.
    `client_factory` makes the clients that contexts lend, one of each kind; processes open `hub` for
    themselves (None: they cannot).  `freed` is called when a slot is free again whose run was told of before
    (it was over its time, or unwanted).  `busy_changed` is called when a thread begins or ceases to starve
    the interpreter.
    """

    def __init__(
        self,
        app: Any,
        environment: Environment,
        *,
        settings: PoolSettings,
        finished: Callable[[LockedActivity, Outcome | None], None],
        report: Report,
        client_factory: ClientFactory | None = None,
        hub: str | None = None,
        freed: Callable[[], None] | None = None,
        busy_changed: Callable[[bool], None] | None = None,
    ) -> None:
        self.environment = environment
        self.settings = settings
        self._pid = environment.pid()
        self.counters = PoolCounters()
        self.encode: Callable[[Any], str | None] = app.converter.encode
        self.decode: Callable[..., Any] = app.converter.decode
        self._app = app
        self._finished = finished
        self._client_factory = client_factory
        self._freed = freed
        self._clients: dict[str, Any] = {}
        self._takes_ahead = settings.takes_ahead
        self._lanes: dict[str, Lane] = {
            "async": Lane("async", settings.async_slots, settings.async_ahead),
            "sync": Lane("sync", settings.threads, settings.threads_ahead),
            "cpu": Lane("cpu", settings.processes, 0),
        }
        self._activities = {
            name: Activity(definition, self._lanes[definition.kind]) for name, definition in app.activities.items()
        }
        served = [(queue, queue.partition("\x1f")[0]) for queue in app.queues(settings.tags)]
        self._queues = [(queue, self._activities[name]) for queue, name in served if name in self._activities]
        self._runs: dict[WorkRef, Run] = {}
        self._strange: list[LockedActivity] = []
        self._returned: list[Run] = []
        self._draining = False
        self._awaited: tuple[Callable[[], bool], asyncio.Future[None]] | None = None
        self._busy_changed = busy_changed
        self._on_loop: LoopRuns | None = None
        self._in_threads: ThreadRuns | None = None
        self._reporter = Reporter(environment, report, self._unwanted)
        self._processes = CpuProcesses(
            app,
            environment,
            hub=hub,
            load_seconds=settings.load_seconds,
            began=self.arm,
            ended=self._process_ended,
            crashed=self._process_crashed,
        )

    # -- figures -----------------------------------------------------------------------------------------

    def free_slots(self) -> int:
        """How many more items it could start at once."""
        if self._draining:
            return 0
        return sum(lane.room() for lane in self._lanes.values())

    def free_slots_of(self, name: str) -> int:
        """How many more items of this activity it could start at once."""
        activity = self._activities.get(name)
        if activity is None or self._draining:
            return 0
        lane = activity.lane
        return max(0, min(activity.room(), lane.slots - lane.running - lane.waiting))

    def room_of(self, name: str) -> int:
        """How many more items of this activity it wants: what could start, and a little ahead of it."""
        activity = self._activities.get(name)
        if activity is None or self._draining:
            return 0
        return min(activity.ahead(), lanes.lane_ahead(activity.lane))

    def backlog(self) -> int:
        """How many items wait in it for a slot."""
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def pending(self) -> int:
        """The same as `backlog`."""
        return self.backlog()

    @property
    def running(self) -> int:
        """How many slots are taken: items started whose code has not ended (those told as timed out too)."""
        return sum(lane.running for lane in self._lanes.values())

    @property
    def busy_thread(self) -> bool:
        """True while a thread is known to starve the interpreter."""
        return self._in_threads is not None and self._in_threads.busy.busy

    def wanted_queues(self) -> list[str]:
        """The queues of which it wants more: those that could start some, or that have few ahead."""
        return [] if self._draining else lanes.wanted(self._queues)

    def rooms(self) -> list[tuple[int, list[str]]]:
        """How many items to take from which queues, in groups that share their room; nothing else is wanted."""
        return [] if self._draining else lanes.rooms(self._queues, ahead=self._takes_ahead)

    def refs(self) -> list[WorkRef]:
        """The work items in hand whose outcome is open."""
        return [ref for ref, run in self._runs.items() if not run.told]

    def waiting(self, seconds: float) -> list[WorkRef]:
        """The work items that have had no slot for so long."""
        if not self.backlog():
            return []
        moment = self.environment.monotonic() - seconds
        return [
            ref for ref, run in self._runs.items() if not run.started and not run.told and run.waits_since <= moment
        ]

    # -- what comes in -----------------------------------------------------------------------------------

    def submit(self, items: Sequence[LockedActivity]) -> None:
        """Run these as soon as there are slots.

        Items that it cannot run (their name is unknown, or it drains) are kept for `drain` to return.
        """
        if self._on_loop is None:
            self._begin()
        activities, runs = self._activities, self._runs
        for item in items:
            activity = activities.get(item.task.name)
            if activity is None or self._draining:
                self._cannot_take(item)
                continue
            ref = item.ref
            if ref in runs:
                continue  # in hand already
            runs[ref] = run = Run(self, activity, item)
            lane = activity.lane
            if lane.running < lane.slots and activity.running < activity.limit:
                activity.take()
                self._start(run)
            else:
                run.waits_since = self.environment.monotonic()
                activity.wait(run)
                if self._is_timed(run):
                    self._arm_start(run)

    def withdraw(self, refs: Iterable[WorkRef]) -> list[LockedActivity]:
        """Take back those of these that have not begun; `finished` is not told of them."""
        withdrawn = []
        for ref in list(refs):
            run = self._runs.get(ref)
            if run is not None and not run.started and not run.told:
                run.told = True
                run.clear_timers()
                run.activity.forget()
                del self._runs[ref]
                withdrawn.append(run.item)
        return withdrawn

    def begin_drain(self) -> list[LockedActivity]:
        """Start nothing more from now on; what has not begun is taken back."""
        self._draining = True
        return self.withdraw(self._runs)

    def cancel(self, refs: Iterable[WorkRef]) -> None:
        """Nobody wants these any more: `finished(item, None)` at once; their code is asked to end, then stopped."""
        for ref in list(refs):
            run = self._runs.get(ref)
            if run is not None:
                self._unwanted(run)

    def cancel_scheduled(self, execution_id: str, ordinals: Iterable[int]) -> None:
        """`cancel` by the events that scheduled them: ordinals in the history of this execution."""
        wanted = frozenset(ordinals)
        for run in list(self._runs.values()):
            task = run.item.task
            if task.execution_id == execution_id and task.scheduled in wanted:
                self._unwanted(run)

    def sign(self, run: Run) -> None:
        """From any thread: the run gave a sign of life."""
        assert self._in_threads is not None
        self._in_threads.sign(run)

    def client(self, kind: str) -> Any:
        """The client that activities of this kind are lent.

        Raises RuntimeError where there is none, and ForkedProcess in a process that an activity has forked.
        """
        if self.environment.pid() != self._pid:
            raise ForkedProcess(
                "ctx.client belongs to the process that runs the activity, which has forked: "
                "make and open a holdtrue.SyncClient(hub) of the child's own"
            )
        if self._client_factory is None:
            raise RuntimeError("this host lends its activities no client; make one: holdtrue.Client(hub)")
        client = self._clients.get(kind)
        if client is None:
            client = self._clients[kind] = self._client_factory("async" if kind == "async" else "sync")
        return client

    async def drain(self, grace: float) -> list[WorkRef]:
        """Stop: start nothing more, let what runs end for `grace` seconds, then ask it to end and stop it.

        Being asked shows in the context; what goes on is cancelled or killed after half of the settings'
        `cancel_grace`.  Returns the refs of items that were not started or have not ended, to be put back.
        An item that is asked to end here and fails counts as not ended; one that succeeds counts.  Takes
        at most `grace` and `cancel_grace` together (and 2 s where the system is slow to take processes).
        A thread that goes on beyond that is left alone, and what it returns is dropped.
        """
        self._draining = True
        for run in list(self._runs.values()):
            if not run.started and not run.told:
                run.activity.forget()
                self._return(run)
        await self._until(lambda: all(run.told for run in self._runs.values()), grace)
        for run in list(self._runs.values()):
            if not run.told:
                run.leaving = True
                run.ask_to_end(STOPPING)
                # Half of the time is its own, half is for its cancellation, or for its process to be gone.
                self._stop(run, self.settings.cancel_grace / 2)
        await self._until(
            lambda: all(run.told and run.activity.lane.kind == "sync" for run in self._runs.values()),
            self.settings.cancel_grace,
        )
        for run in list(self._runs.values()):
            if not run.told:
                self._return(run)
        await self._processes.close()
        if self._in_threads is not None:
            self._in_threads.close()
        if self._on_loop is not None:
            self._on_loop.close()
        await self._reporter.idle()
        returned, self._returned = self._returned, []
        for run in returned:
            if run.noted:
                await self._reporter.flush(run)
        strange, self._strange = self._strange, []
        return [run.item.ref for run in returned] + [item.ref for item in strange]

    # -- starting ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._on_loop = LoopRuns(self)
        self._in_threads = ThreadRuns(
            self,
            self.settings.threads,
            signed=self._reporter.note,
            switch_interval=self.settings.busy_switch_interval if self.settings.own_process else None,
            busy_noticed=self._busy_noticed,
            busy_changed=self._busy_changed,
        )

    def _cannot_take(self, item: LockedActivity) -> None:
        self._strange.append(item)
        if not self._draining:
            log.error(
                "a work item of activity %r (instance %r) came to a worker that does not have it; "
                "it is given back when this worker stops",
                item.task.name,
                item.task.instance_id,
            )

    def _start(self, run: Run) -> None:
        """Begin a run whose slot is taken."""
        run.started = True
        activity = run.activity
        timed = self._is_timed(run)
        if timed:
            if run.timers:
                run.clear_timers()
            if self._too_late(run):
                return
        assert self._on_loop is not None and self._in_threads is not None
        kind = activity.lane.kind
        if kind == "async":
            self._on_loop.start(run)
        elif kind == "sync":
            if timed:
                self.arm(run)
            self._in_threads.start(run)
        else:
            self._processes.run(run)

    @staticmethod
    def _is_timed(run: Run) -> bool:
        options = run.item.task.options
        return run.activity.timed or (options is not None and lanes.has_time_outs(options))

    def _too_late(self, run: Run) -> bool:
        limit, waited = self._start_limit(run)
        if limit is None or waited <= limit:
            return False
        self.counters.timed_out += 1
        self.settle(run, run.failed(late_start(run, waited, limit), self.environment.now()))
        return True

    def _start_limit(self, run: Run) -> tuple[float | None, float]:
        """How many seconds it may wait for its start (None: any), and how many it has."""
        limit = run.options().schedule_to_start
        if limit is None or not run.item.scheduled_at or run.crashes:
            return None, 0.0
        return limit, (self.environment.now() - run.item.scheduled_at) / TICKS_PER_SECOND

    def _arm_start(self, run: Run) -> None:
        """It waits for a slot: not longer than it may."""
        limit, waited = self._start_limit(run)
        if limit is not None:
            later = self.environment.call_later(max(0.0, limit - waited), partial(self._not_started, run, limit))
            run.timers = (later,)

    def _not_started(self, run: Run, limit: float) -> None:
        if run.told or run.started:
            return
        self.counters.timed_out += 1
        waited = max(limit, self._start_limit(run)[1])
        run.activity.forget()
        self._runs.pop(run.item.ref, None)
        self._tell(run, run.failed(late_start(run, waited, limit), self.environment.now()))

    # -- in processes ------------------------------------------------------------------------------------

    def _process_ended(self, run: Run, result: str | None, failure: FailureDetails | None) -> None:
        now = self.environment.now()
        self.settle(run, run.completed(result, now) if failure is None else run.failed(failure, now))

    def _process_crashed(self, run: Run, how: str) -> None:
        self.counters.crashes += 1
        run.crashes += 1
        if run.told or self._draining:
            self.settle(run, None)
            return
        log.warning("%s: its process died (%s)", run.what, how)
        if run.crashes >= self.settings.crash_limit:
            self.settle(run, run.failed(crashed(run, how), self.environment.now()))
            return
        run.clear_timers()
        run.started = False
        run.activity.give()
        run.activity.wait(run, first=True)
        self._fill(run.activity.lane)

    # -- ending ------------------------------------------------------------------------------------------

    def failure(self, error: BaseException) -> FailureDetails:
        """Any error as failure details; never raises."""
        try:
            failure: FailureDetails = self._app.failure(error)
            return failure
        except BaseException:  # noqa: BLE001  an error that cannot be described is an outcome all the same
            return bare_failure(error)

    def settle(self, run: Run, event: Outcome | None) -> None:
        """The run's code has ended: tell its outcome unless it was told, and give the slot back."""
        late = run.told
        if not late:
            if event is None or (run.leaving and type(event) is not TaskCompleted):
                self._return(run)
            else:
                self._tell(run, event)
        if run.timers or run.stopper is not None:
            run.clear_timers()
        self._runs.pop(run.item.ref, None)
        activity = run.activity
        activity.give()
        if activity.lane.turns:
            self._fill(activity.lane)
        if self._awaited is not None:
            self._check_awaited()
        if late and self._freed is not None and not self._draining:
            self._freed()

    def _fill(self, lane: Lane) -> None:
        if not self._draining:
            lanes.fill(lane, self._start, _is_told)

    def _tell(self, run: Run, event: Outcome | None) -> None:
        run.told = True
        if event is None:
            self.counters.cancelled += 1
        elif type(event) is TaskCompleted:
            self.counters.completed += 1
        else:
            self.counters.failed += 1
        try:
            self._finished(run.item, event)
        except Exception:
            log.exception("a defect of Holdtrue: the outcome of %s could not be taken", run.what)
        if self._awaited is not None:
            self._check_awaited()

    def _return(self, run: Run) -> None:
        run.told = True
        self._returned.append(run)
        if not run.started:
            run.clear_timers()
            self._runs.pop(run.item.ref, None)

    def _unwanted(self, run: Run) -> None:
        """Nobody wants its result, or another host has its lock."""
        if run.told:
            return
        self._tell(run, None)
        if run.started:
            run.ask_to_end(UNWANTED)
            self._stop(run, self.settings.cancel_grace)
        else:
            run.clear_timers()
            run.activity.forget()
            self._runs.pop(run.item.ref, None)

    def arm(self, run: Run) -> None:
        """Its code begins: start the clocks."""
        if run.told:
            return
        options = run.options()
        timers: list[asyncio.TimerHandle] = []
        later = self.environment.call_later
        if options.start_to_close is not None:
            timers.append(later(options.start_to_close, partial(self._over_time, run, options.start_to_close)))
        if options.heartbeat is not None:
            run.beat = self.environment.monotonic()
            timers.append(later(options.heartbeat, partial(self._listen_for, run, options.heartbeat)))
        run.timers = tuple(timers)

    def _over_time(self, run: Run, limit: float) -> None:
        self._time_out(run, late_end(run, limit))

    def _listen_for(self, run: Run, limit: float) -> None:
        if run.told:
            return
        left = run.beat + limit - self.environment.monotonic()
        if left > 0:
            timer = self.environment.call_later(left, partial(self._listen_for, run, limit))
            run.timers = (*run.timers[:-1], timer)
        else:
            self._time_out(run, silent(run, limit))

    def _time_out(self, run: Run, failure: FailureDetails) -> None:
        if run.told:
            return
        self.counters.timed_out += 1
        self._tell(run, run.failed(failure, self.environment.now()))
        run.ask_to_end(failure.message)
        self._stop(run, 0.0 if run.activity.lane.kind == "async" else self.settings.cancel_grace)

    def _stop(self, run: Run, grace: float) -> None:
        """It was asked to end: stop it when the grace is over."""
        kind = run.activity.lane.kind
        if kind == "sync":
            return
        if kind == "cpu":
            self._processes.cancel(run)
        if run.stopper is not None:
            run.stopper.cancel()
            run.stopper = None
        if grace > 0:
            run.stopper = self.environment.call_later(grace, partial(self._force, run))
        else:
            self._force(run)

    def _force(self, run: Run) -> None:
        run.stopper = None
        if run.activity.lane.kind == "cpu":
            self._processes.kill(run)
            return
        assert self._on_loop is not None
        self._on_loop.cancel(run)
        # One that ignores its cancellation is cancelled again, and keeps its slot until it ends.
        run.stopper = self.environment.call_later(max(self.settings.cancel_grace, 0.1), partial(self._force, run))

    # -- waiting for the end -------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        if condition() or seconds <= 0:
            return
        reached = asyncio.get_running_loop().create_future()
        self._awaited = (condition, reached)
        timer = self.environment.call_later(seconds, partial(_reach, reached))
        try:
            await reached
        finally:
            timer.cancel()
            self._awaited = None

    def _check_awaited(self) -> None:
        if self._awaited is not None and self._awaited[0]():
            _reach(self._awaited[1])

    def _busy_noticed(self, run: Run, share: float) -> None:
        self.counters.busy_threads += 1


def _is_told(run: Run) -> bool:
    return run.told


def _reach(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
