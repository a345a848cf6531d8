"""Faults by chance, from a seed; what was drawn can be played again as a list.

Each sort of fault, and each part, has a stream of chance of its own: one more sort leaves the others as they were.
"""

import asyncio
import random

from holdtrue.testing.faults import AMBIGUOUS, READS, TAKES, Fault, Kind

OF_CALLS = tuple(kind for kind in Kind if kind.sort == "call" and kind is not Kind.DOUBLED)
OF_NOTICES = tuple(kind for kind in Kind if kind.sort == "notice")
CLIENTS_CANNOT = frozenset(
    {Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.PAUSE_BEFORE, Kind.PAUSE_AFTER, Kind.CRASH_AT_STEP}
)
"""What happens to hosts only: nobody would go on with what a client's user wanted."""
WRONG_SECONDS = (-300.0, -90.0, -5.0, 5.0, 90.0, 300.0)
"""By how much clocks are wrong."""


class ByChance:
    """Draws faults until `last` seconds of virtual time have passed; `drawn` are those that there were."""

    def __init__(self, seed: int, clock: "Clock", *, last: float = 120.0) -> None:
        chance = random.Random(f"faults:{seed}")
        self._seed = seed
        self._clock = clock
        self._last = last
        self._rate = chance.choice([0.0, 0.005, 0.02, 0.1])
        self._kinds = chance.sample(OF_CALLS, chance.randint(1, len(OF_CALLS)))
        more = random.Random(f"more faults:{seed}")
        self._doubled = more.choice([0.0, 0.0, 0.05])
        self._notices = more.choice([0.0, 0.0, 0.2, 1.0])
        self._steps = more.choice([0.0, 0.0, 0.002, 0.02])
        self._clocks = more.choice([0.0, 0.0, 0.002, 0.01])
        self._streams: dict[str, random.Random] = {}
        self._next: dict[str, int] = {}
        self.drawn: list[Fault] = []

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        if verb == "step":
            fault = self._at_step(part, point)
        elif verb == "notice":
            fault = self._at_notice(part, point)
        else:
            fault = self._at_call(part, point, verb)
        if fault is not None:
            self.drawn.append(fault)
        return fault

    def _stream(self, sort: str, part: str) -> random.Random:
        name = f"{sort}:{self._seed}:{part}"
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = random.Random(name)
        return stream

    def _at_call(self, part: str, point: int, verb: str) -> Fault | None:
        chance = self._stream("faults", part)
        hit, which, long = chance.random(), chance.choice(self._kinds), chance.random()
        if self._clock.time() > self._last:
            return None
        if hit >= self._rate:
            return self._doubled_call(part, point, verb) if self._doubled else None
        if (which in AMBIGUOUS and verb in READS) or (which in CLIENTS_CANNOT and not part.startswith("h")):
            which = Kind.REFUSED if which in AMBIGUOUS else Kind.SLOW
        return Fault(part=part, point=point, kind=which, seconds=_seconds(which, long))

    def _doubled_call(self, part: str, point: int, verb: str) -> Fault | None:
        chance = self._stream("doubled", part)
        hit, long = chance.random(), chance.random()
        if hit >= self._doubled or verb in READS or verb in TAKES:
            return None
        return Fault(part=part, point=point, kind=Kind.DOUBLED, seconds=_seconds(Kind.DOUBLED, long))

    def _at_notice(self, part: str, point: int) -> Fault | None:
        if not self._notices or self._clock.time() > self._last:
            return None
        chance = self._stream("notices", part)
        hit, which, long = chance.random(), chance.choice(OF_NOTICES), chance.random()
        if hit >= self._notices:
            return None
        return Fault(part=part, point=point, kind=which, seconds=_seconds(which, long))

    def _at_step(self, part: str, point: int) -> Fault | None:
        if not self._steps and not self._clocks:
            return None
        if point < self._next.get(part, 1):
            return None
        chance = self._stream("steps", part)
        self._next[part] = point + 1 + int(chance.expovariate(self._steps + self._clocks))
        clock, which, long, wrong = chance.random(), chance.random(), chance.random(), chance.choice(WRONG_SECONDS)
        if self._clock.time() > self._last:
            return None
        if clock * (self._steps + self._clocks) < self._clocks:
            return Fault(part=part, point=point, kind=Kind.CLOCK_SET, seconds=wrong)
        kind = Kind.CRASH_AT_STEP if which < 0.5 and part.startswith("h") else Kind.PAUSE_AT_STEP
        return Fault(part=part, point=point, kind=kind, seconds=_seconds(kind, long))


class AtSteps(ByChance):
    """The same, at steps alone."""

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        return super().at(part, point, verb) if verb == "step" else None


class Clock:
    """Virtual time, of a loop that is not there yet when the faults are made."""

    def time(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()


_ENDS_OR_STANDS = frozenset(kind for kind in Kind if kind.value.startswith(("crash", "pause")))


def _seconds(kind: Kind, long: float) -> float:
    """How long: mostly short, sometimes beyond a lease."""
    if kind in _ENDS_OR_STANDS:
        return 0.1 if long < 0.3 else 3.0 if long < 0.6 else 60.0
    return 0.01 if long < 0.4 else 1.0 if long < 0.8 else 40.0
