"""What is to be tried: every disturbance that fits what an undisturbed run has shown, the telling ones first.

Two moments between which neither the hub nor the user's code has moved are one moment: a host that dies at either
leaves the same behind.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

from .crash_account import Account, Disturbance
from .crash_watch import ActivityRun
from .faults import Kind

LATE_SECONDS = 600.0
AFTER_TIMER_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 400 * 86_400.0
"""A timer that is further off is not waited for."""
STEP_SECONDS = 0.01
"""Between two results that come one after the other."""
ALL_ORDERS = 3
"""Of so many results all orders are tried; of more, the reverse and each as the first and as the last."""

UNDISTURBED = Disturbance(name="undisturbed", words="nothing was disturbed", sort="none")
AGAIN = tuple(
    Disturbance(name=f"again, time {number}", words="the same was run once more, undisturbed", sort="again")
    for number in (2, 3, 4)
)
SAME_PROCESS = Disturbance(
    name="again in the same process",
    words="the same was run a second time in the same process, undisturbed",
    sort="replayed",
    keeps=True,
)
"""To be run right after another."""
ANOTHER_DAY = Disturbance(name="another day", words="the same was run on another day", sort="day", day=True)


def plan(seen: Account) -> list[Disturbance]:
    """All disturbances of a run that went so undisturbed."""
    items = list({run.item: run for run in seen.runs}.values())
    return [
        Disturbance(
            name="replayed at each step", sort="replayed", forgets=True,
            words="the host had forgotten the running code before each step, and replayed it from the history",
        ),
        Disturbance(
            name="restarted at each step", sort="replayed", forgets=True, restarts=True,
            words="the process was started anew before each step, and the code replayed from the history",
        ),
        SAME_PROCESS,
        *_orders(seen),
        *(_twice(run, seen) for run in items),
        *_deaths_in_activities(seen),
        *(_late(run, seen) for run in items if run.item in seen.ends),
        *_deaths_between(seen),
        *(
            Disturbance(
                name=f"step {number} is sent twice", sort="doubled", kind=Kind.DOUBLED, point=written.point,
                words=f"what the host wrote to the hub came there twice ({written.did})",
            )
            for number, written in enumerate(seen.written, 1)
        ),
    ]  # fmt: skip


def who(run: ActivityRun, seen: Account) -> str:
    """A call of an activity by name, with its number where there are several."""
    several = any(other.name == run.name and other.call != run.call for other in seen.runs)
    return f"{run.name} {run.call}" if several else run.name


def _twice(run: ActivityRun, seen: Account) -> Disturbance:
    return Disturbance(
        name=f"{who(run, seen)} runs twice",
        words=f"`{run.name}` ran twice: its worker stood still for so long that another ran it too",
        sort="twice",
        twice=run.item,
    )


def _deaths_in_activities(seen: Account) -> Iterator[Disturbance]:
    for point in sorted((p for p in seen.points if p.run is not None), key=lambda point: point.wait > 0):
        run = point.run
        assert run is not None
        if not point.wait:
            yield Disturbance(
                name=f"the host dies after {who(run, seen)}",
                words=f"the host died after `{run.name}` had run, before its result was recorded",
                sort="death",
                dies=(run.item, 0),
            )
        else:
            at = f" (at {point.place})" if point.place else ""
            yield Disturbance(
                name=f"the host dies in {who(run, seen)}, wait {point.wait}",
                words=f"the host died while `{run.name}` waited{at}",
                sort="death",
                dies=(run.item, point.wait),
            )


def _deaths_between(seen: Account) -> Iterator[Disturbance]:
    """Deaths before and after the calls of the store, at moments that are not those of an activity's end."""
    known = {point.stamp for point in seen.points if point.run is not None}
    number = 0
    for point in seen.points:
        if point.kind is None or point.stamp in known:
            continue
        known.add(point.stamp)
        number += 1
        when = "before it wrote" if point.kind is Kind.CRASH_BEFORE else "right after it had written"
        yield Disturbance(
            name=f"the host dies at moment {number}",
            words=f"the host died {when} to the hub: {point.did}",
            sort="death",
            kind=point.kind,
            point=point.point,
        )


# -- order and lateness -------------------------------------------------------------------------------------


def _orders(seen: Account) -> Iterator[Disturbance]:
    for number, asked in enumerate(seen.groups, 1):
        group = [found for found in (_last_item(part, seen) for part in asked) if found is not None]
        if len(group) < 2:
            continue
        names = {item: who(next(run for run in seen.runs if run.item == item), seen) for item in group}
        group.sort(key=lambda item: seen.ends[item])
        base = max(seen.ends[item] for item in group)
        usual = ", ".join(names[item] for item in group)
        for order in _some_orders(group):
            changed = ", ".join(names[item] for item in order)
            yield Disturbance(
                name=f"results {number} come as {' '.join(str(group.index(item) + 1) for item in order)}",
                words=f"the results came in another order: {changed} instead of {usual}",
                sort="order",
                holds={item: base + STEP_SECONDS * (place + 1) for place, item in enumerate(order)},
            )


def _last_item(part: str, seen: Account) -> str | None:
    """The item itself, or of a child the one that ended last under it; None where nothing did."""
    if ":" in part:
        return part if part in seen.ends else None
    under = [item for item in seen.ends if item.startswith(f"{part}#")]
    return max(under, key=lambda item: seen.ends[item], default=None)


def _some_orders(group: Sequence[str]) -> list[tuple[str, ...]]:
    usual = tuple(group)
    if len(group) <= ALL_ORDERS:
        some = list(permutations(group))
    else:
        others = [(one, usual[:at] + usual[at + 1 :]) for at, one in enumerate(usual)]
        some = [usual[::-1], *((one, *rest) for one, rest in others), *((*rest, one) for one, rest in others)]
    return [order for order in dict.fromkeys(some) if order != usual]


def _late(run: ActivityRun, seen: Account) -> Disturbance:
    end = seen.ends[run.item]
    until = end + LATE_SECONDS
    for timer in seen.timers:
        if timer.made <= end < timer.due < end + LONGEST_WAIT_SECONDS:
            until = max(until, timer.due + AFTER_TIMER_SECONDS)
    return Disturbance(
        name=f"{who(run, seen)} comes late",
        words=f"the result of `{run.name}` came {_span(until - end)} late",
        sort="late",
        holds={run.item: until},
    )


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
