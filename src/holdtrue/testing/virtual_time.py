"""One event loop with virtual time: whenever nothing can run, the clock jumps to the next timer.

Everything on it happens in one order that only the program and its seed decide.  It has no sockets, no
threads and no signals: what would need them is refused by name, since it would bring back chance.  Work
belongs to parts (a host, a client): a part can be stopped for a while, or for good, between any two of its
steps, as a process can.
"""

import asyncio
import contextvars
import math
import selectors
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from holdtrue.core.errors import HoldtrueError

MOST_ROUNDS = 200_000
"""So many rounds of the loop in which no time passes are a circle."""
MOST_JUMPS = 100_000
"""So often time passes, at most, where nobody says how long a wait may be: what then has not come never will."""
TOLERANCE_SECONDS = 1e-6
"""What is due within this is due by then: sums of seconds are not exact."""


class Stuck(HoldtrueError):
    """Nothing can run any more, and nothing is due: what is awaited will never come."""


class Endless(HoldtrueError):
    """Something always can run, or is due, and what is awaited does not come."""


class Interrupted(HoldtrueError):
    """The loop was asked to stop, by another thread."""


class _AtHorizon(Exception):
    """All that is due by the time that was given is done."""


class Part:
    """What runs together and fails together: its callbacks carry it in their context.

    `steps` counts its callbacks run so far.  `before_step` is called before each, with the part; it may
    stop it.  A stopped part's callbacks wait in `backlog` until it goes on; a dead one's are dropped.
    """

    __slots__ = ("backlog", "before_step", "dead", "name", "paused", "steps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = 0
        self.dead = False
        self.paused = False
        self.backlog: list[_Step] = []
        self.before_step: Callable[[Part], None] | None = None

    def die(self) -> None:
        """It never runs again; not even its `finally` blocks do."""
        self.dead = True
        self.backlog.clear()


_PART: contextvars.ContextVar[Part | None] = contextvars.ContextVar("holdtrue_simulated_part", default=None)


def current_part() -> Part | None:
    """The part to which the running code belongs."""
    return _PART.get()


@contextmanager
def as_part(part: Part | None) -> Iterator[None]:
    """What is started within belongs to this part."""
    token = _PART.set(part)
    try:
        yield
    finally:
        _PART.reset(token)


class _Clock(selectors.BaseSelector):
    """Waits for nothing: lets the time pass at once, up to its `horizon`.

    `next_due` gives the time of the next timer (infinite: none will come).
    """

    def __init__(self, next_due: Callable[[], float]) -> None:
        self.now = 0.0
        self.horizon: float | None = None
        self.awaiting = True
        self.interrupted: Callable[[], bool] | None = None
        self._rounds = self._jumps = 0
        self._most_jumps = math.inf
        self._next_due = next_due
        self._registered: dict[Any, selectors.SelectorKey] = {}

    def begin(self, horizon: float | None, awaiting: bool, most_jumps: float = math.inf) -> None:
        """From here on time passes up to that horizon, and at most so often; `awaiting`: it is an error if nothing is
        due before."""
        self.horizon, self.awaiting, self._most_jumps = horizon, awaiting, most_jumps
        self._rounds = self._jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.interrupted is not None and self.interrupted():
            raise Interrupted("the loop with virtual time was asked to stop")
        if timeout is not None and timeout <= 0:
            self._rounds += 1
            if self.horizon is not None and self._rounds > MOST_ROUNDS:
                raise Endless(
                    f"the loop went round {MOST_ROUNDS:,} times and no time passed: something runs in a circle (an "
                    "`asyncio.sleep(0)` in a loop that waits for what never comes?)"
                )
            return []
        due = self._next_due()
        if due == math.inf and self.awaiting:
            raise Stuck("nothing can run and no timer is set: what is awaited will never come")
        if self.horizon is not None and due > self.horizon + TOLERANCE_SECONDS:
            raise _AtHorizon
        assert timeout is not None
        self._rounds = 0
        self._jumps += 1
        if self._jumps > self._most_jumps:
            raise Endless(
                f"something else was due {self._most_jumps:,} times before it (a schedule, an orchestration that goes "
                "on and on?); if it does come, say how long it may take (`within=`), or leave schedules out"
            )
        self.now = max(self.now + timeout, math.nextafter(self.now, math.inf))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._registered:  # the first is the loop's own, by which threads would wake it
            raise _not_there("sockets")
        key = self._registered[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._registered.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._registered


def _not_there(what: str) -> NotImplementedError:
    return NotImplementedError(f"there are no {what} in virtual time: give a fake for what needs them")


class _Step:
    """One callback of a part; `handle` is what its owner may cancel."""

    __slots__ = ("args", "callback", "context", "handle", "part")

    def __init__(
        self, part: Part, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.part = part
        self.callback = callback
        self.args = args
        self.context = context
        self.handle: asyncio.Handle | None = None


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop.  `time()` begins at 0 and counts virtual seconds.  A timer that is infinitely far off is none."""

    def __init__(self) -> None:
        self._clock = _Clock(self._next_due)
        super().__init__(self._clock)

    def _next_due(self) -> float:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # what called off is gone
        return timers[0].when() if timers else math.inf

    def run_to(
        self, moment: float, until: "asyncio.Future[Any] | None" = None, *, most_jumps: float = math.inf
    ) -> bool:
        """Run all that is due by then (virtual seconds), or `until` that is done; whether it is.

        Without `until` the clock shows `moment` afterwards.  Raises Stuck where `until` can never be done, Endless
        where time has passed `most_jumps` times before, or passes no more, and Interrupted.
        """
        clock = self._clock
        clock.begin(moment, until is not None, most_jumps)
        if until is not None:
            until.add_done_callback(self._stop_for)
        try:
            if until is None or not until.done():
                self.run_forever()
        except _AtHorizon:
            clock.now = max(clock.now, moment)
        finally:
            clock.begin(None, True)
            if until is not None:
                until.remove_done_callback(self._stop_for)
        return until is not None and until.done()

    def _stop_for(self, future: "asyncio.Future[Any]") -> None:
        self.stop()

    @contextmanager
    def interrupted_when(self, asked: Callable[[], bool]) -> Iterator[None]:
        """What runs within raises Interrupted once this is true (of another thread's telling), at its next round."""
        self._clock.interrupted = asked
        try:
            yield
        finally:
            self._clock.interrupted = None

    def time(self) -> float:
        return self._clock.now

    @property
    def _clock_resolution(self) -> float:
        """What is due within this is due now: never less than the clock can tell apart, which after months is more than
        the real clock's resolution."""
        return max(self._least_resolution, 2 * math.ulp(self._clock.now))

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        self._least_resolution = seconds

    def advance(self, seconds: float) -> None:
        """Let the clock go forward although something can run (a step that takes long)."""
        self._clock.now += seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        part = _PART.get() if context is None else context.get(_PART)
        if part is None:
            return super().call_soon(callback, *args, context=context)
        context = context if context is not None else contextvars.copy_context()
        step = _Step(part, callback, args, context)
        step.handle = super().call_soon(self._step, step, context=context)
        return step.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        part = _PART.get() if context is None else context.get(_PART)
        if part is None:
            return super().call_at(when, callback, *args, context=context)
        context = context if context is not None else contextvars.copy_context()
        step = _Step(part, callback, args, context)
        handle = step.handle = super().call_at(when, self._step, step, context=context)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def _step(self, step: "_Step") -> None:
        part = step.part
        if part.before_step is not None and not part.dead and not part.paused:
            part.before_step(part)
        if part.dead:
            return
        if part.paused:
            part.backlog.append(step)
            return
        part.steps += 1
        step.callback(*step.args)

    def resume(self, part: Part) -> None:
        """Let a paused part go on: what waited comes first, in its order, but for what was called off meanwhile."""
        part.paused = False
        backlog, part.backlog = part.backlog, []
        for step in backlog:
            super().call_soon(self._again, step, context=step.context)

    def _again(self, step: "_Step") -> None:
        # An event loop does not run a handle that was cancelled while it was ready.
        if step.handle is None or not step.handle.cancelled():
            self._step(step)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run it now, in its place: there are no threads here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  the caller gets it where it awaits
            future.set_exception(error)
        return future

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., Any], *args: Any
    ) -> None:
        raise _not_there("signals")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        raise _not_there("sockets")

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        raise _not_there("sockets")

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        raise _not_there("sockets")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        raise _not_there("processes")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        raise _not_there("processes")


def run(main: Any) -> Any:
    """Run a coroutine on a loop of its own with virtual time, to its end; whatever it left running is dropped."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
