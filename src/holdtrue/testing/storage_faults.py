"""A storage account as a bad day shows it: calls refused, answers lost, requests late, resent, done twice.

Every call of a part is one *point*, counted from 1, and the n-th of its verb and target.  What happens to it is
asked of a `CallFaults`; so a clean run's calls, each with each of its mishaps, are every single fault there is.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Protocol, cast

import msgspec

from holdtrue.stores.azure_storage.service import Blobs, Queues, Service, ServiceError, Tables, Unsure

from .faults import SimulationError
from .virtual_time import Part, as_part, current_part


class Mishap(StrEnum):
    """What can happen to one call."""

    REFUSED = "refused"
    """It is not done (503, 500, 429, no connection), and the caller cannot know."""
    LOST = "lost"
    """It is done, and the caller cannot know."""
    LATE = "late"
    """The caller gives up, and it is done after that."""
    RESENT = "resent"
    """It is done, its answer is lost, and a resend on the way gets the answer: a conflict, often with itself."""
    DOUBLED = "doubled"
    """It is done and answered, and a copy of the request is done later."""
    SLOW = "slow"
    """It is done after a while."""
    SLOW_ANSWER = "slow answer"
    """It is done at once, and the caller hears of it after a while."""
    CRASH_BEFORE = "crash before"
    """The caller's process ends, and it is not done."""
    CRASH_AFTER = "crash after"
    """It is done, and the caller's process ends without hearing of it."""
    PAUSE_BEFORE = "pause before"
    """The caller's process stands still for a while, then it is done."""
    PAUSE_AFTER = "pause after"
    """It is done, then the caller's process stands still for a while."""


READS = frozenset({"tables.get", "tables.query", "queues.approximate_count", "blobs.get_blob", "blobs.list_blobs"})
"""Calls that change nothing: of them only an answer can be missing.  A get of messages is none: it hides them."""
OF_WRITES = frozenset({Mishap.LOST, Mishap.LATE, Mishap.RESENT, Mishap.DOUBLED})
"""What cannot be told from REFUSED or from nothing where the call is a read."""
SECONDS = {Mishap.LATE: 3.0, Mishap.DOUBLED: 3.0, Mishap.SLOW: 3.0, Mishap.SLOW_ANSWER: 3.0} | {
    Mishap.PAUSE_BEFORE: 60.0,
    Mishap.PAUSE_AFTER: 60.0,
}
"""How long each takes where nothing else is said."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a part: its point, its verb (`tables.transact`), its target, and that it is their n-th."""

    part: str
    point: int
    verb: str
    target: str
    nth: int

    @property
    def kind(self) -> str:
        """Verb and target: what a table of costs counts by."""
        return f"{self.verb} {self.target}"


class CallFault(msgspec.Struct, frozen=True, kw_only=True):
    """What happens at a point of a part; `seconds` is how long a delay, a pause, or a process's absence takes."""

    part: str
    point: int
    mishap: Mishap
    seconds: float = 0.0


class CallFaults(Protocol):
    """Decides what happens."""

    def at(self, call: Call) -> CallFault | None:
        """What happens to that call."""


class CallFaultList:
    """Exactly these faults."""

    def __init__(self, faults: Iterable[CallFault] = ()) -> None:
        self._at = {(fault.part, fault.point): fault for fault in faults}

    def at(self, call: Call) -> CallFault | None:
        """The fault of its part and point."""
        return self._at.get((call.part, call.point))


def every_fault(calls: Iterable[Call], mishaps: Iterable[Mishap] = tuple(Mishap)) -> Iterator[CallFault]:
    """Each call of a run with each mishap that would show, one at a time."""
    wanted = tuple(mishaps)
    for call in calls:
        for mishap in wanted:
            if call.verb not in READS or mishap not in OF_WRITES:
                yield CallFault(part=call.part, point=call.point, mishap=mishap, seconds=SECONDS.get(mishap, 0.0))


def _no_process(seconds: float) -> None:
    raise SimulationError("a crash or a pause was asked for, and nobody said how this part ends or stands still")


class FaultyService:
    """The account `inner` as `part` meets it, with the port `Service`.

    `applied` is called at the moment a call has its effect, with its arguments and its outcome (which may be an
    error).  `called` is told of each call and its fault.  `crash` and `pause`, given seconds, are how the part ends
    or stands still; after a crash the call never returns.  `counts` counts calls by kind.
    """

    def __init__(
        self,
        inner: Service,
        part: Part,
        faults: CallFaults,
        *,
        applied: Callable[[Call, tuple[Any, ...], Any], None] = lambda call, given, outcome: None,
        called: Callable[[Call, CallFault | None], None] = lambda call, fault: None,
        crash: Callable[[float], None] = _no_process,
        pause: Callable[[float], None] = _no_process,
    ) -> None:
        self.inner = inner
        self.part = part
        self.points = 0
        self.counts: Counter[str] = Counter()
        self._faults = faults
        self._applied = applied
        self._called = called
        self._crash = crash
        self._pause = pause
        self._on_the_way: set[asyncio.Task[None]] = set()
        self.tables = cast(Tables, _FaultyPart(self, "tables", inner.tables))
        self.queues = cast(Queues, _FaultyPart(self, "queues", inner.queues))
        self.blobs = cast(Blobs, _FaultyPart(self, "blobs", inner.blobs))

    async def open(self) -> None:
        """Of the inner one."""
        await self.inner.open()

    async def close(self) -> None:
        """Of the inner one.  What is on its way still arrives."""
        await self.inner.close()

    def blob_url(self, container: str, blob: str) -> str:
        """Of the inner one."""
        return self.inner.blob_url(container, blob)

    async def call(self, verb: str, do: Callable[..., Awaitable[Any]], given: tuple[Any, ...], named: Any) -> Any:
        """Make a call, or what the faults make of it."""
        if current_part() not in (None, self.part):
            raise SimulationError(f"{verb} of {self.part.name}'s service was called by another: each has its own")
        self.points += 1
        kind = f"{verb} {given[0]}"
        self.counts[kind] += 1
        call = Call(part=self.part.name, point=self.points, verb=verb, target=given[0], nth=self.counts[kind])
        fault = self._faults.at(call)
        self._called(call, fault)

        async def effect() -> Any:
            try:
                outcome = await do(*given, **named)
            except ServiceError as error:
                self._applied(call, given, error)
                raise
            self._applied(call, given, outcome)
            return outcome

        if fault is None:
            return await effect()
        return await self._mishap(fault, effect, f"{kind} (call {call.point} of {call.part})")

    async def _mishap(self, fault: CallFault, effect: Callable[[], Awaitable[Any]], what: str) -> Any:
        seconds = fault.seconds
        match fault.mishap:
            case Mishap.REFUSED:
                await asyncio.sleep(0)
                raise Unsure(f"simulated: {what}: 503 ServerBusy")
            case Mishap.LATE:
                self._later(seconds, effect)
                await asyncio.sleep(0)
                raise Unsure(f"simulated: {what}: no answer in time")
            case Mishap.CRASH_BEFORE:
                self._crash(seconds)
                await _never()
            case Mishap.PAUSE_BEFORE:
                self._pause(seconds)
                await asyncio.sleep(0)
            case Mishap.SLOW:
                await asyncio.sleep(seconds)
            case Mishap.RESENT:
                await _whatever(effect)
            case Mishap.LOST:
                await _whatever(effect)
                raise Unsure(f"simulated: {what}: the connection was reset")
        try:
            outcome = await effect()
        except Exception:
            await self._after(fault, effect)
            raise
        await self._after(fault, effect)
        return outcome

    async def _after(self, fault: CallFault, effect: Callable[[], Awaitable[Any]]) -> None:
        """What comes between the effect and the caller's hearing of it, also of an error."""
        match fault.mishap:
            case Mishap.DOUBLED:
                self._later(fault.seconds, effect)
            case Mishap.CRASH_AFTER:
                self._crash(fault.seconds)
                await _never()
            case Mishap.PAUSE_AFTER:
                self._pause(fault.seconds)
                await asyncio.sleep(0)
            case Mishap.SLOW_ANSWER:
                await asyncio.sleep(fault.seconds)

    def _later(self, seconds: float, effect: Callable[[], Awaitable[Any]]) -> None:
        """The request is on its way, whatever becomes of who sent it."""

        async def arrive() -> None:
            await asyncio.sleep(seconds)
            await _whatever(effect)

        with as_part(None):
            task = asyncio.ensure_future(arrive())
            self._on_the_way.add(task)
            task.add_done_callback(self._on_the_way.discard)


class _FaultyPart:
    """The tables, queues or blobs of a faulty service."""

    def __init__(self, service: FaultyService, name: str, inner: Any) -> None:
        self._service = service
        self._name = name
        self._inner = inner

    def __getattr__(self, method: str) -> Any:
        do = getattr(self._inner, method)
        verb = f"{self._name}.{method}"

        async def call(*given: Any, **named: Any) -> Any:
            return await self._service.call(verb, do, given, named)

        self.__dict__[method] = call
        return call


async def _whatever(effect: Callable[[], Awaitable[Any]]) -> None:
    """Have the effect; nobody hears of its outcome."""
    try:
        await effect()
    except ServiceError:
        return


async def _never() -> None:
    await asyncio.get_running_loop().create_future()
