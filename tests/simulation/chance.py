"""Faults by chance, from a seed; what was drawn can be played again as a list."""

import random

from holdtrue.testing.faults import AMBIGUOUS, READS, Fault, Kind

CLIENTS_CANNOT = frozenset({Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.PAUSE_BEFORE, Kind.PAUSE_AFTER})


class ByChance:
    """Draws faults until `last` seconds of virtual time have passed; `drawn` are those that there were."""

    def __init__(self, seed: int, clock: "Clock", *, last: float = 120.0) -> None:
        chance = random.Random(f"faults:{seed}")
        self._seed = seed
        self._clock = clock
        self._last = last
        self._rate = chance.choice([0.0, 0.005, 0.02, 0.1])
        kinds = list(Kind)
        self._kinds = chance.sample(kinds, chance.randint(1, len(kinds)))
        self._chances: dict[str, random.Random] = {}
        self.drawn: list[Fault] = []

    def at(self, part: str, point: int, verb: str) -> Fault | None:
        chance = self._chances.get(part)
        if chance is None:
            chance = self._chances[part] = random.Random(f"faults:{self._seed}:{part}")
        hit, which, long = chance.random(), chance.choice(self._kinds), chance.random()
        if hit >= self._rate or self._clock.time() > self._last:
            return None
        if (which in AMBIGUOUS and verb in READS) or (which in CLIENTS_CANNOT and not part.startswith("h")):
            which = Kind.REFUSED if which in AMBIGUOUS else Kind.SLOW
        fault = Fault(part=part, point=point, kind=which, seconds=_seconds(which, long))
        self.drawn.append(fault)
        return fault


class Clock:
    """Virtual time, of a loop that is not there yet when the faults are made."""

    def time(self) -> float:
        """Seconds."""
        import asyncio

        return asyncio.get_running_loop().time()


def _seconds(kind: Kind, long: float) -> float:
    """How long: mostly short, sometimes beyond a lease."""
    if kind in (Kind.PAUSE_BEFORE, Kind.PAUSE_AFTER, Kind.CRASH_BEFORE, Kind.CRASH_AFTER):
        return 0.1 if long < 0.3 else 3.0 if long < 0.6 else 60.0
    return 0.01 if long < 0.4 else 1.0 if long < 0.8 else 40.0
