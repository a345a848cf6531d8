"""What a host counts: plain integers, to be read at any time and exported by whoever likes."""

from collections import Counter

import msgspec


class Counters(msgspec.Struct):
    """Counts since the host began.

    `dropped` counts messages that came too late by nature, by reason; `held` instances put on hold;
    `lease_lost` and `stale` commits that had no effect; `redone` episodes thrown away because the store
    could not take them; `slow_steps` orchestrator steps that blocked the loop.
    """

    episodes: int = 0
    replays: int = 0
    activities: int = 0
    ended: int = 0
    held: int = 0
    lease_lost: int = 0
    stale: int = 0
    redone: int = 0
    slow_steps: int = 0
    takeovers: int = 0
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
