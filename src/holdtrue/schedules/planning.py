"""What a schedule does next: pure decisions from its definition, its state and the time.

A plan is one decision: at most one start, the ticks passed over, and the state after it, for both cases
(the start accepted, or refused because a run has not ended).  Whoever acts applies it, and plans again
until nothing is due.  Everything that is still to be done is in the state, so that any host can go on.

A tick is *missed* when a later one is due too (only the newest can be on time), or when it is decided
later than `grace` after it was due.  The grid is kept: ticks come from the definition alone, never from
when the last one was decided, and time spent paused or without a host is answered by the `missed` policy
alone.
"""

import msgspec

from holdtrue.core.dialect import to_ticks
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.schedules.specification import Missed, Overlap, ScheduleSpec, span_ticks, tick_text

RECORDED_ONE_BY_ONE = 100
"""So many of the ticks missed in one go get records of their own; one more record stands for all older ones."""
COUNTED = 2_000
"""Beyond so many, missed ticks are not counted exactly."""


class QueuedRun(msgspec.Struct, frozen=True):
    """A run that waits for the running one to end: the tick (or trigger) that it is for."""

    tick: Ticks


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a schedule has done, and what is still to be done.

    `anchor` is where an interval counts from; every tick up to `decided` is decided.  `moment` is the time
    of the last record off the grid (triggers, queued runs).  `last_run` is the instance that it
    started last.
    """

    anchor: Ticks
    decided: Ticks
    paused: bool = False
    queued: QueuedRun | None = None
    last_run: str | None = None
    moment: Ticks = 0


class MissedTicks(msgspec.Struct, frozen=True):
    """Ticks passed over: the newest ones, and how many older ones there are (`older_until` the last of those).

    `exact` is false where there are more than `older` says.
    """

    newest: tuple[Ticks, ...]
    older: int = 0
    older_until: Ticks = 0
    exact: bool = True


class StartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The start that a plan makes.

    `due` is the time of its record (of its tick, or off the grid: an odd number, so that no tick has it).
    It is refused while an instance of its id stands in a status that is not `replaceable`, or `guard`
    has not ended; `terminate` is to be ended first.
    """

    due: Ticks
    instance_id: str
    replaceable: frozenset[Status]
    guard: str | None = None
    terminate: str | None = None
    decision_if_refused: str = "skipped"
    reason: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One decision; nothing is due where `start` and `missed` are None.

    `state` and `due` (when to plan again; None: never by the clock) are those after it; where its start
    is refused, `state_if_refused` and `due_if_refused`.
    """

    state: ScheduleState
    due: Ticks | None
    start: StartPlan | None = None
    missed: MissedTicks | None = None
    state_if_refused: ScheduleState | None = None
    due_if_refused: Ticks | None = None

    @property
    def acts(self) -> bool:
        """Whether there is anything to do now."""
        return self.start is not None or self.missed is not None


def initial_state(spec: ScheduleSpec, now: Ticks) -> ScheduleState:
    """The state of a schedule created now.  Ticks before its creation are not missed: they never were."""
    if spec.start_at is None:
        anchor = now - now % 2
        return ScheduleState(anchor=anchor, decided=now, paused=spec.paused)
    start = to_ticks(spec.start_at)
    return ScheduleState(anchor=start, decided=max(start, now) - 1, paused=spec.paused)


def changed_state(before: ScheduleSpec, state: ScheduleState, after: ScheduleSpec, now: Ticks) -> ScheduleState:
    """The state under a changed definition; the past is kept where it still fires at the same times."""
    if after.same_grid(before):
        return state
    fresh = initial_state(after, now)
    # Never behind what is decided: the record of a tick is not written twice.
    decided = max(fresh.decided, state.decided)
    return msgspec.structs.replace(state, anchor=fresh.anchor, decided=decided)


def next_due(spec: ScheduleSpec, state: ScheduleState) -> Ticks | None:
    """When its next tick is to be decided; None: paused or over."""
    if state.paused:
        return None
    timeline = spec.timeline(state.anchor)
    tick = timeline.next(state.decided)
    return None if tick is None else timeline.due(tick)


def next_ticks(spec: ScheduleSpec, state: ScheduleState, now: Ticks, count: int) -> list[Ticks]:
    """When its next `count` ticks are due, jitter included; empty while it is paused or when it is over."""
    found: list[Ticks] = []
    if state.paused:
        return found
    timeline = spec.timeline(state.anchor)
    tick = timeline.next(state.decided)
    if tick is not None and timeline.due(tick) < now:
        tick = timeline.next(max(state.decided, now - 1 - span_ticks(spec.jitter)))
    while tick is not None and len(found) < count:
        due = timeline.due(tick)
        if due >= now:
            found.append(due)
        tick = timeline.next(tick)
    return found


def plan(spec: ScheduleSpec, state: ScheduleState, now: Ticks) -> Plan:
    """The next decision at this time, a queued run apart (`plan_queued`)."""
    due = next_due(spec, state)
    if due is None or due > now:
        return Plan(state=state, due=due)
    timeline = spec.timeline(state.anchor)
    wanted = RECORDED_ONE_BY_ONE + max(spec.missed_limit, 1) + 1
    ticks, older, older_until, exact = _due_ticks(spec, state, now, wanted)
    latest = ticks[-1]
    late = now - timeline.due(latest) > span_ticks(spec.grace)
    overtaken = len(ticks) - 1 + older
    fire: Ticks | None
    if spec.missed is Missed.SKIP:
        fire, passed = (None, ticks) if late else (latest, ticks[:-1])
    elif spec.missed is Missed.ONE:
        fire, passed = latest, ticks[:-1]
    else:
        # The newest one comes on top of the limit where it is on time.
        running = ticks[-(spec.missed_limit + (0 if late else 1)) :]
        fire, passed = running[0], ticks[: -len(running)]
    decided = msgspec.structs.replace(state, decided=latest if fire is None else fire)
    if len(passed) > RECORDED_ONE_BY_ONE:
        cut = len(passed) - RECORDED_ONE_BY_ONE
        older, older_until, passed = older + cut, passed[cut - 1], passed[cut:]
    missed = MissedTicks(tuple(passed), older, older_until, exact) if passed or older else None
    if fire is None:
        return Plan(state=decided, due=next_due(spec, decided), missed=missed)
    reason = None
    if fire != latest or late:
        reason = f"missed: {_span_text(now - timeline.due(fire))} late"
    elif overtaken:
        reason = f"{'' if exact else 'over '}{overtaken} missed before it"
    return _start(spec, decided, fire, fire, reason, missed)


def plan_queued(spec: ScheduleSpec, state: ScheduleState, now: Ticks) -> Plan:
    """The start of a queued run; it stays queued where a run still stands in its way."""
    if state.queued is None or state.paused:
        return Plan(state=state, due=next_due(spec, state))
    queued = state.queued.tick
    moment = off_grid(state, now)
    after = msgspec.structs.replace(state, queued=None, moment=moment)
    return _start(spec, after, queued, moment, f"queued since {tick_text(queued)}", None, state.queued)


def plan_trigger(spec: ScheduleSpec, state: ScheduleState, now: Ticks) -> Plan:
    """A run asked for by somebody now, paused or not; the overlap policy holds, the grid is not touched."""
    moment = off_grid(state, now)
    return _start(spec, msgspec.structs.replace(state, moment=moment), moment, moment, "triggered", None)


def waits_for(spec: ScheduleSpec, state: ScheduleState) -> str | None:
    """The instance whose end a queued run waits for; None: nothing is queued (or it rests, paused)."""
    if state.queued is None or state.paused:
        return None
    return spec.instance_id if spec.instance_id is not None else state.last_run


def off_grid(state: ScheduleState, now: Ticks) -> Ticks:
    """The time of a record that is no tick's: odd, as no tick is, and later than the one before."""
    return max(now | 1, state.moment + 2)


def _due_ticks(
    spec: ScheduleSpec, state: ScheduleState, now: Ticks, wanted: int
) -> tuple[list[Ticks], int, Ticks, bool]:
    """The newest `wanted` ticks due, and how many there are before them, the last of those, and whether exactly."""
    timeline = spec.timeline(state.anchor)
    ticks: list[Ticks] = []
    for tick in timeline.between(state.decided, now):
        ticks.append(tick)
        if len(ticks) > COUNTED:
            newest = timeline.newest(wanted + 1, state.decided, now)
            return newest[1:], COUNTED, newest[0], False
    cut = max(0, len(ticks) - wanted)
    return ticks[cut:], cut, ticks[cut - 1] if cut else 0, True


def _start(
    spec: ScheduleSpec,
    state: ScheduleState,
    tick: Ticks,
    due: Ticks,
    reason: str | None,
    missed: MissedTicks | None,
    queued: QueuedRun | None = None,
) -> Plan:
    """A start for `tick`, recorded at `due`; `queued` is what it is the start of."""
    instance_id = spec.instance_for(tick)
    guard = terminate = None
    replaceable = frozenset(TERMINAL)
    if spec.instance_id is None and spec.overlap is not Overlap.ALLOW:
        previous = state.last_run if state.last_run != instance_id else None
        if spec.overlap is Overlap.REPLACE:
            terminate = previous
        else:
            guard = previous
    elif spec.overlap is Overlap.REPLACE:
        replaceable = frozenset(Status)
    refused, decision = msgspec.structs.replace(state, queued=state.queued or queued), "skipped"
    if queued is None and spec.overlap is Overlap.QUEUE:
        if state.queued is None:
            refused, decision = msgspec.structs.replace(state, queued=QueuedRun(tick)), "queued"
        else:
            reason = "; ".join(filter(None, (reason, f"a run is queued since {tick_text(state.queued.tick)}")))
    accepted = msgspec.structs.replace(state, last_run=instance_id)
    following = next_due(spec, state)
    return Plan(
        state=accepted,
        due=following,
        start=StartPlan(
            due=due,
            instance_id=instance_id,
            replaceable=replaceable,
            guard=guard,
            terminate=terminate,
            decision_if_refused=decision,
            reason=reason,
        ),
        missed=missed,
        state_if_refused=refused,
        due_if_refused=following,
    )


def _span_text(ticks: Ticks) -> str:
    minutes, seconds = divmod(ticks // TICKS_PER_SECOND, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(ScheduleState)


def encode_state(state: ScheduleState) -> str:
    """The state as JSON text."""
    return _encoder.encode(state).decode()


def decode_state(text: str) -> ScheduleState:
    """The state that `encode_state` wrote; raises msgspec.DecodeError where the text is none."""
    return _decoder.decode(text)
