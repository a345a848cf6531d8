"""Which worker is killed when: drawn from a seed before the storm begins, so that a run can be had again."""

import random

import msgspec

WORKERS = 2


class Kill(msgspec.Struct, frozen=True):
    """After `wait` seconds more, kill these workers at once; each comes back after its time in `down`."""

    wait: float
    workers: tuple[int, ...]
    down: tuple[float, ...]


def draw(seed: int, kills: int, seconds: float) -> list[Kill]:
    """A plan of `kills` single deaths over about `seconds`: every sixth blow hits both workers.

    A blow to both counts as two kills.
    """
    rng = random.Random(seed)
    plan: list[Kill] = []
    left, blow = kills, 0
    while left > 0:
        blow += 1
        victims = tuple(range(WORKERS)) if blow % 6 == 3 and left >= WORKERS else (rng.randrange(WORKERS),)
        left -= len(victims)
        plan.append(Kill(rng.uniform(0.3, 1.7), victims, tuple(rng.uniform(0.0, 0.6) for _ in victims)))
    scale = seconds / sum(kill.wait for kill in plan) if plan else 1.0
    return [Kill(kill.wait * scale, kill.workers, kill.down) for kill in plan]
