"""A store and a process as a bad day shows them: calls that are refused, whose answer or request is lost, that come
late, slowly or twice; notices that are lost; processes that end or stand still at any step; clocks that are wrong.

Every call, every notice and every step of a part is one *point*; each sort is counted from 1.  What happens at a
point is asked of a `Faults`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, Protocol, cast

import msgspec

from holdtrue.core.errors import HoldtrueError
from holdtrue.stores.errors import OutcomeUnknown, StoreUnavailable
from holdtrue.stores.protocol import Notice, TaskHubStore

from .virtual_time import Part, as_part, current_part


class Kind(StrEnum):
    """What can happen: to a call of a store, to a notice from it, or before a step of a process."""

    REFUSED = "refused"
    """It is not done, and the caller is told so."""
    REQUEST_LOST = "request lost"
    """It is not done, and the caller cannot know."""
    ANSWER_LOST = "answer lost"
    """It is done, and the caller cannot know."""
    LATE = "late"
    """The caller cannot know, and it is done later."""
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
    DOUBLED = "doubled"
    """It is done, and a copy of the request comes later."""
    NOTICE_LOST = "notice lost"
    """Nobody hears of it."""
    NOTICE_DOUBLED = "notice doubled"
    """It is heard at once, and again later."""
    NOTICE_LATE = "notice late"
    """It is heard later, after others that were made after it."""
    CRASH_AT_STEP = "crash at step"
    """The process ends between two of its steps (at an await)."""
    PAUSE_AT_STEP = "pause at step"
    """The process stands still between two of its steps."""
    CLOCK_SET = "clock set"
    """The wall clock of the process is set, and from that step on wrong by so many seconds (below 0: slow)."""

    @property
    def sort(self) -> str:
        """What its points count: `call`, `notice` or `step`."""
        return _SORTS.get(self, "call")


_SORTS = {
    Kind.NOTICE_LOST: "notice",
    Kind.NOTICE_DOUBLED: "notice",
    Kind.NOTICE_LATE: "notice",
    Kind.CRASH_AT_STEP: "step",
    Kind.PAUSE_AT_STEP: "step",
    Kind.CLOCK_SET: "step",
}

READS = frozenset(
    {"status", "activities_of", "history", "query", "children", "load", "cancelled", "get_schedules", "ticks"}
    | {"dead_letters", "expired", "info", "copies", "spare"}
)
"""Calls that change nothing: their outcome is never in doubt."""
WRITES = frozenset(
    {"create", "send", "purge", "join", "leave", "renew", "lock", "lock_activities", "commit", "park", "put_back"}
    | {"complete", "put_back_activities", "report", "fetch", "fire_due", "put_schedule", "delete_schedule"}
    | {"commit_tick", "trim_ticks", "resend", "dismiss", "upkeep", "put_copies"}
)
AMBIGUOUS = frozenset({Kind.REQUEST_LOST, Kind.ANSWER_LOST, Kind.LATE})
TAKES = frozenset({"lock", "lock_activities", "fetch", "fire_due", "create", "commit_tick", "join", "renew"})
"""Calls that give something to the host that asks; its number goes with the request, so that none of a host that
has joined again comes late."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens at a point of a part; `seconds` is how long a delay, a pause, or a process's absence takes, or
    by how much a clock is wrong."""

    part: str
    point: int
    kind: Kind
    seconds: float = 0.0


class Faults(Protocol):
    """Decides what happens."""

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        """What happens at that point, which is a call of this verb, or a `notice`, or a `step`."""


class FaultList:
    """Exactly these faults."""

    def __init__(self, faults: list[Fault]) -> None:
        self._at = {(fault.kind.sort, fault.part, fault.point): fault for fault in faults}

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        return self._at.get((verb if verb in ("notice", "step") else "call", part, point))


class SimulationError(HoldtrueError):
    """A simulation was asked for what it cannot do."""


class FaultyStore:
    """The store `inner` as `part` meets it, which has no other.

    `applied` is called with the verb, its arguments and its outcome at the moment a call takes effect, `called` at
    each point that is a call and each other at which something happens.  `crash`, `pause` and `set_clock` are how
    the part ends, stands still, or has a wrong wall clock.  Notices come as steps of the part.
    """

    def __init__(
        self,
        inner: TaskHubStore,
        part: Part,
        faults: Faults,
        *,
        applied: Callable[[Part, str, tuple[Any, ...], Any], None] = lambda part, verb, given, outcome: None,
        called: Callable[[Part, int, str, Fault | None], None] = lambda part, point, verb, fault: None,
        crash: Callable[[Part, float], None],
        pause: Callable[[Part, float], None],
        set_clock: Callable[[Part, float], None] = lambda part, seconds: None,
    ) -> None:
        self.inner = inner
        self.part = part
        self.points = 0
        self._faults = faults
        self._applied = applied
        self._called = called
        self._crash = crash
        self._pause = pause
        self._set_clock = set_clock
        self._joined = False
        self._notices = 0
        self._step = 0
        self._arriving: list[asyncio.Future[None]] = []
        part.before_step = self._before_step

    def __getattr__(self, verb: str) -> Any:
        method = getattr(self.inner, verb)
        if verb == "history" or verb not in READS | WRITES:
            return method

        async def call(*given: Any, **named: Any) -> Any:
            return await self._call(verb, method, given, named)

        self.__dict__[verb] = call
        return call

    def listen(self, notify: Callable[[Notice], None]) -> None:
        """Notices come as the part's own steps, whoever made them."""
        loop = asyncio.get_running_loop()
        part = self.part

        def heard(notice: Notice) -> None:
            fault = self._of_notice()
            kind = None if fault is None else fault.kind
            with as_part(part):
                if kind not in (Kind.NOTICE_LOST, Kind.NOTICE_LATE):
                    loop.call_soon(notify, notice)
                if fault is not None and kind is not Kind.NOTICE_LOST:
                    loop.call_later(fault.seconds, notify, notice)

        self.inner.listen(heard)

    def _of_notice(self) -> Fault | None:
        self._notices += 1
        fault = self._faults.at(self.part.name, self._notices, "notice")
        if fault is not None:
            self._called(self.part, self._notices, "notice", fault)
        return fault

    def _before_step(self, part: Part) -> None:
        step = part.steps + 1
        if step == self._step:
            return  # it stood still before this one, and goes on
        self._step = step
        fault = self._faults.at(part.name, step, "step")
        if fault is None:
            return
        self._called(part, step, "step", fault)
        if fault.kind is Kind.CRASH_AT_STEP:
            self._crash(part, fault.seconds)
        elif fault.kind is Kind.PAUSE_AT_STEP:
            self._pause(part, fault.seconds)
        else:
            self._set_clock(part, fault.seconds)

    async def _call(
        self, verb: str, method: Callable[..., Coroutine[Any, Any, Any]], given: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        part = self.part
        if current_part() is not part:
            raise SimulationError(f"{verb} of {part.name}'s store was called by {current_part()}: each has its own")
        self.points += 1
        point = self.points
        fault = self._faults.at(part.name, point, verb)
        self._called(part, point, verb, fault)
        if fault is None:
            await asyncio.sleep(0)
            return await self._do(verb, method, given, named)
        kind, seconds = fault.kind, fault.seconds
        if self._joined and verb in TAKES and kind in (Kind.LATE, Kind.DOUBLED):
            kind = Kind.ANSWER_LOST
        what = f"{verb} (call {point} of {part.name})"
        if kind is Kind.REFUSED:
            raise StoreUnavailable(f"simulated: {what} was refused")
        if kind is Kind.REQUEST_LOST:
            raise self._unknown(what)
        if kind is Kind.LATE:
            self._later(seconds, verb, method, given, named)
            raise self._unknown(what)
        if kind is Kind.CRASH_BEFORE:
            self._crash(part, seconds)
            await self._never()
        if kind is Kind.PAUSE_BEFORE:
            self._pause(part, seconds)
            await asyncio.sleep(0)
        if kind is Kind.SLOW:
            await asyncio.sleep(seconds)
        outcome = await self._do(verb, method, given, named)
        if kind is Kind.ANSWER_LOST:
            raise self._unknown(what)
        if kind is Kind.DOUBLED:
            self._later(seconds, verb, method, given, named)
        if kind is Kind.CRASH_AFTER:
            self._crash(part, seconds)
            await self._never()
        if kind is Kind.PAUSE_AFTER:
            self._pause(part, seconds)
            await asyncio.sleep(0)
        if kind is Kind.SLOW_ANSWER:
            await asyncio.sleep(seconds)
        return outcome

    def _unknown(self, what: str) -> OutcomeUnknown:
        """The error; as a real store, this one does not know any more what it holds as a host."""
        if self._joined:
            self.inner.host_lost()  # type: ignore[attr-defined]
        return OutcomeUnknown(f"simulated: {what}: no answer")

    async def _do(
        self, verb: str, method: Callable[..., Coroutine[Any, Any, Any]], given: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        outcome = await method(*given, **named)
        if verb == "join":
            self._joined = True
        self._applied(self.part, verb, given, outcome)
        return outcome

    def _later(
        self,
        seconds: float,
        verb: str,
        method: Callable[..., Coroutine[Any, Any, Any]],
        given: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        """The request is on its way, whatever becomes of who sent it."""

        async def arrive() -> None:
            await asyncio.sleep(seconds)
            try:
                await self._do(verb, method, given, named)
            except HoldtrueError:
                return

        with as_part(None):
            self._arriving.append(asyncio.ensure_future(arrive()))

    async def _never(self) -> None:
        await asyncio.get_running_loop().create_future()


def faulty(store: FaultyStore) -> TaskHubStore:
    """The same, as the protocol's type."""
    return cast(TaskHubStore, store)
