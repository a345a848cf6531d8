"""A task hub, a host and a client on a loop with virtual time, and how they are let go on.

Nothing happens between two calls: the loop runs within a call and stands still outside.  This knows nothing of
threads: whoever uses it does so from one thread at a time, and from no running loop.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Coroutine
from datetime import UTC, datetime
from typing import TypeVar

from holdtrue.client.client import Client
from holdtrue.client.status import InstanceStatus
from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.errors import HoldtrueError
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.engine.settings import HostSettings
from holdtrue.host import Host
from holdtrue.stores.memory.hub import MemoryHub
from holdtrue.stores.memory.store import MemoryStore

from . import virtual_time
from .environment import SimulatedEnvironment
from .fakes import FakeableApp
from .hub_errors import WaitsForever, WrongLoop
from .virtual_time import Endless, Stuck, VirtualLoop

MOST_NAMED = 20
"""So many unfinished instances are told of in a message."""
UNFINISHED = frozenset(Status) - TERMINAL

R = TypeVar("R")


class _Environment(SimulatedEnvironment):
    """Time to the tick: a wait for a time ends exactly then."""

    longest_sleep = math.inf
    early_seconds = 0.0

    def __init__(self, seed: int, epoch: Ticks, loop: VirtualLoop) -> None:
        super().__init__(seed, epoch=epoch)
        self._loop = loop

    def now(self) -> Ticks:
        return self._epoch + round(self._loop.time() * TICKS_PER_SECOND)

    def monotonic(self) -> float:
        return self._loop.time()


class World:
    """One hub in virtual time, with one host of the app."""

    def __init__(self, app: FakeableApp, *, seed: int, begins: datetime, schedules: bool) -> None:
        self.loop = VirtualLoop()
        self.environment = _Environment(seed, to_ticks(begins), self.loop)
        store = MemoryStore(MemoryHub("test"), environment=self.environment, lease_seconds=math.inf)
        settings = HostSettings(
            name="test",
            lease_seconds=math.inf,
            renew_seconds=math.inf,
            idle_seconds=math.inf,
            safety_looks=False,
            schedules=schedules,
            retention=False,
        )
        self.host = Host(app, store, settings=settings, environment=self.environment)
        self.client = Client(store, app=app.original, environment=self.environment, local=self.host)
        self.host.client = self.client

    # -- life ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the host.  Raises WrongLoop."""
        self.do(self.host.start())

    def end(self) -> None:
        """Stop the host, and leave nothing behind; idempotent."""
        loop = self.loop
        if loop.is_closed():
            return
        refuse_running_loop()
        try:
            if self.host.pool is not None:
                stopping = loop.create_task(self.host.stop())
                with contextlib.suppress(Stuck, Endless):  # an activity that never lets go is cancelled below
                    if loop.run_to(math.inf, stopping, most_jumps=virtual_time.MOST_JUMPS):
                        stopping.result()
        finally:
            self._close()

    def _close(self) -> None:
        loop = self.loop
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        try:
            if left:
                loop.run_to(loop.time(), asyncio.gather(*left, return_exceptions=True))
            loop.run_to(loop.time(), loop.create_task(loop.shutdown_asyncgens()))
        except (Stuck, Endless):
            pass  # what does not end when it is cancelled is left where it is
        finally:
            loop.close()

    # -- time ------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The wall clock of this world."""
        return to_datetime(self.environment.now()).replace(tzinfo=UTC)

    def do(self, work: Awaitable[R], within: float | None = None) -> R:
        """Run this to its end, at most for so many virtual seconds, and then all that can be done without time passing.

        Without `within`: for as long as it does not look endless.  Raises what it raises, WaitsForever, and WrongLoop.
        """
        refuse_running_loop(work)
        loop = self.loop
        task = loop.create_task(_awaited(work))
        reason = f"{within:g} virtual seconds were given" if within is not None else ""
        try:
            if within is None:
                loop.run_to(math.inf, task, most_jumps=virtual_time.MOST_JUMPS)
            else:
                loop.run_to(loop.time() + within, task)
        except Stuck:
            reason = "nothing is due any more"
        except Endless as error:
            reason = str(error)
        finally:
            done = task.done()
            task.cancel()
        if not done:
            raise WaitsForever(self._waits(reason))
        self.settle()
        return task.result()

    def settle(self) -> None:
        """All that can be done without time passing."""
        self.pass_time(0.0)

    def pass_time(self, seconds: float) -> None:
        """All that is due within so many seconds; the clock has gone forward by so much then.  Raises WaitsForever."""
        refuse_running_loop()
        try:
            self.loop.run_to(self.loop.time() + seconds)
        except Endless as error:
            raise WaitsForever(self._waits(str(error))) from None

    # -- what is awaited ---------------------------------------------------------------------------------

    def _waits(self, reason: str) -> str:
        """Why a test cannot go on, and what each unfinished instance waits for."""
        head = f"what is awaited does not come: {reason} (it is {self.now:%Y-%m-%d %H:%M:%S} UTC in this hub)."
        looking = self.loop.create_task(self._unfinished())
        try:
            self.loop.run_to(self.loop.time(), looking)
        except HoldtrueError:
            return head
        lines = [f"- {self._wait(status)}" for status in looking.result()]
        if not lines:
            return f"{head}  No instance is unfinished."
        more = [f"- and {len(lines) - MOST_NAMED:,} more"] if len(lines) > MOST_NAMED else []
        return "\n".join([f"{head}  Unfinished:", *lines[:MOST_NAMED], *more])

    async def _unfinished(self) -> list[InstanceStatus]:
        found: list[InstanceStatus] = []
        async for status in self.client.query(statuses=UNFINISHED):
            known = await self.client.get_status(status.instance_id, waits=len(found) < MOST_NAMED)
            if known is not None:
                found.append(known)
        return found

    def _wait(self, status: InstanceStatus) -> str:
        waits = list(status.waits_for)
        run = next((one.run for one in self.host.dispatcher.sessions if one.instance_id == status.instance_id), None)
        place = None
        if run is not None:
            place = run.where()
            events = [f"the event {name!r} (hub.raise_event)" for name in run.events_waited_for()]
            if events:
                waits = [wait for wait in waits if wait != "an external event"] + events
        said = f"{status.instance_id!r} ({status.name}, {status.runtime_status.name.title()})"
        condition = status.condition
        if condition is not None:
            said += f" is {condition.kind}: {condition.reason};"
        said += f" waits for {' and '.join(waits) or 'nothing'}"
        return said + (f", at {place}" if place else "")


async def _awaited(work: Awaitable[R]) -> R:
    return await work


def refuse_running_loop(work: object = None) -> None:
    """Raises WrongLoop where a loop runs in this thread: it would stand still."""
    if asyncio._get_running_loop() is None:
        return
    if isinstance(work, Coroutine):
        work.close()
    raise WrongLoop(
        "this hub was used from code that runs on an event loop: in an async test write `async with TestHub(app) as "
        "hub` and await its methods; in an activity use ctx.client"
    )
