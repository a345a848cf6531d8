"""Notices a sync activity whose thread computes in Python and so starves everything else in the process.

While sync activities run, their threads' CPU time is looked at a few times a second.  A thread that uses a
good part of a core is a suspect; whether it keeps the interpreter's lock from the loop (code that lets go
of it, such as compression or arrays, does no harm) is measured by letting go of it for a moment.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from holdtrue.environment import Environment

from .activity_runs import Run

log = logging.getLogger("holdtrue.activities")

LOOK_SECONDS = 0.05
CALM_SECONDS = 0.25
"""How often to look: at first and while one is busy, and when all is calm."""
BUSY_SHARE = 0.2
CALM_SHARE = 0.05
"""Of a core: from which share on a thread is a suspect (several may share one), and under which it is calm again."""
PROBES = 3
LAG_SECONDS = 0.2
"""A look that comes so late was held up: by code that never lets go of the lock, if a thread was busy."""
BUSY_SWITCH_SECONDS = 0.0001
DEFAULT_SWITCH_SECONDS = 0.005
"""The interpreter's own."""


class BusyThreads:
    """Watches the runs in `runs`, which the owner keeps up to date.

    `switch_interval` is set while one is busy (None: it is left alone).  `noticed(run, share)` is called
    once for each busy run, `changed` when there is the first busy one and when the last has gone.
    """

    def __init__(
        self,
        environment: Environment,
        runs: Collection[Run],
        *,
        switch_interval: float | None,
        noticed: Callable[[Run, float], None],
        changed: Callable[[bool], None] | None,
    ) -> None:
        self._environment = environment
        self._runs = runs
        self._switch_interval = switch_interval
        self._noticed = noticed
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._seconds = LOOK_SECONDS
        self._seen: dict[Run, tuple[float, float]] = {}
        self._busy: set[Run] = set()
        self._named: set[str] = set()
        self._before: float | None = None

    @property
    def busy(self) -> bool:
        """True while one is known to be busy."""
        return bool(self._busy)

    def enter(self, run: Run) -> None:
        """Called in the thread, before its code runs."""
        run.clock = clock = self._environment.thread_clock()
        if clock is not None:
            run.clock_began = (self._environment.monotonic(), clock())

    def look(self) -> None:
        """A run begins: see that it is watched."""
        if self._timer is None:
            self._seconds = LOOK_SECONDS
            self._arm()
        elif self._seconds > LOOK_SECONDS and len(self._runs) == 1:
            self._timer.cancel()
            self._seconds = LOOK_SECONDS
            self._arm()

    def stop(self) -> None:
        """Watch no more, and undo what was set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._seen = {}
        self._set_busy(set())

    def _arm(self) -> None:
        self._due = self._environment.monotonic() + self._seconds
        self._timer = self._environment.call_later(self._seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._runs:
            self._seen = {}
            self._set_busy(set())
            return
        now = self._environment.monotonic()
        late = now - self._due
        shares = self._shares(now)
        suspects = {run for run, share in shares.items() if share >= BUSY_SHARE and run not in self._busy}
        if suspects and (late >= LAG_SECONDS or self._starved()):
            for run in suspects:
                self._notice(run, shares[run])
        else:
            suspects = set()
        still = {run for run in self._busy if run in self._runs and shares.get(run, 1.0) >= CALM_SHARE}
        self._set_busy(still | suspects)
        self._seconds = LOOK_SECONDS if self._busy else min(self._seconds * 1.5, CALM_SECONDS)
        self._arm()

    def _shares(self, now: float) -> dict[Run, float]:
        """How much of a core each thread has used since it was last seen (or began)."""
        shares: dict[Run, float] = {}
        seen: dict[Run, tuple[float, float]] = {}
        for run in list(self._runs):
            clock = run.clock
            if clock is None:
                continue
            try:
                used = clock()
            except OSError:
                continue  # its thread has ended
            last = self._seen.get(run, run.clock_began)
            if now - last[0] < LOOK_SECONDS / 2:
                if run in self._seen:
                    seen[run] = last
                continue  # too short a time to tell
            seen[run] = (now, used)
            shares[run] = (used - last[1]) / (now - last[0])
        self._seen = seen
        return shares

    def _starved(self) -> bool:
        """True if a thread that lets go of the interpreter's lock has to wait for it each time."""
        expected = DEFAULT_SWITCH_SECONDS if self._before is None else self._switch_interval or DEFAULT_SWITCH_SECONDS
        return min(self._environment.interpreter_wait() for _ in range(PROBES)) >= 0.5 * expected

    def _notice(self, run: Run, share: float) -> None:
        self._noticed(run, share)
        name = run.activity.name
        if name in self._named:
            return
        self._named.add(name)
        log.warning(
            "activity %r keeps the interpreter busy (%.0f %% of a core) and so holds up all else in this process "
            "(seen in %s): declare it with @app.activity(cpu=True), and it runs in a process of its own",
            name,
            share * 100,
            run.what,
        )

    def _set_busy(self, busy: set[Run]) -> None:
        was = bool(self._busy)
        self._busy = busy
        if bool(busy) == was:
            return
        if self._switch_interval is not None:
            if busy:
                self._before = self._environment.set_switch_interval(self._switch_interval)
            elif self._before is not None:
                self._environment.set_switch_interval(self._before)
                self._before = None
        if self._changed is not None:
            self._changed(bool(busy))
