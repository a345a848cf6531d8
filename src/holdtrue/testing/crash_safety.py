"""`check_crash_safety`: a user's own orchestration, disturbed at every point, and what then differs.

It is run once undisturbed, and then once for each thing that can go wrong: the host dies before and after each write
to the hub, in and after each activity; activities run twice; results come late, in another order, or twice; the
code is replayed at each step, in the same process and in one begun anew.  All of it is in virtual time.
"""

import asyncio
import gc
import random
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.environment import REAL

from .crash_account import Account, Disturbance, Drive, Play
from .crash_compare import ANY
from .crash_errors import CannotCheck, DoesNotEnd, NotReset
from .crash_findings import Judge, ending
from .crash_report import CrashReport, Finding, FindingKind
from .crash_schedules import AGAIN, ANOTHER_DAY, SAME_PROCESS, UNDISTURBED, plan
from .crash_stage import MOST_COMMITS, Stage, in_virtual_time, quiet
from .crash_watch import MOST_WAITS, WatchedApp
from .process_memory import ProcessMemory

MOST_RUNS = 1_000
_OF_CODE = (FindingKind.MEMORY, FindingKind.NONDETERMINISM)
_SORTS = {
    "replayed": "replays",
    "twice": "activities that run twice",
    "death": "deaths of the host",
    "order": "other orders",
    "late": "late results",
    "doubled": "writes sent twice",
}


def check_crash_safety(
    app: App,
    orchestration: Callable[..., Any] | str,
    input: Any = None,
    *,
    events: Iterable[tuple[str, Any]] = (),
    drive: Drive | None = None,
    state: Callable[[], Any] | None = None,
    reset: Callable[[], Any] | None = None,
    fakes: Mapping[Any, Callable[..., Any]] | None = None,
    idempotent: Collection[Any] = (),
    allowed: Collection[str] = (),
    instance_id: str = "checked",
    within: timedelta = timedelta(days=400),
    max_runs: int = MOST_RUNS,
    only: str | None = None,
) -> CrashReport:
    """Run an orchestration of the app with `input` once undisturbed, then once for each thing that can go wrong.

    `events` are raised in this order right after the start; `drive(client, instance_id)` is a coroutine function that
    does what else its users do (it may sleep: time is virtual).  `state()` reads what the activities have done to the
    world, as plain values; lists in it are compared without regard to order.  `reset()` brings the world back before
    each run.  Both may be async.  Without `state`, an activity that runs twice and never reads `ctx.idempotency_key`
    is a finding, unless it is named in `idempotent`.  `fakes` replaces activities: {function or name: function}.
    `allowed` names kinds of findings (`FindingKind`) that are meant so: they become notes.  `within` is how much
    virtual time it may take, `max_runs` how many runs (the six undisturbed ones always); what is left out stands in
    the notes.  `only` does one run again, by the name that the report gives.

    What is not the host's own process must be faked or in this process: there are no sockets, threads or processes in
    virtual time.  Activities of every kind run on the loop.  Returns a CrashReport, the same each time.

    May be called from async tests: it then runs in a thread of its own, and blocks.  Raises CannotCheck: an
    orchestration or activity that the app does not have, one that does not end undisturbed (DoesNotEnd), a state that
    two undisturbed runs leave different (NotReset), an unknown `only` or `allowed`.
    """
    kinds = _kinds(allowed)
    if max_runs < 1:
        raise CannotCheck(f"max_runs is {max_runs}: give 1 or more")
    name = _orchestration(app, orchestration)
    known = {_activity(app, one) for one in idempotent}
    apart = (state, reset, drive, *(fakes or {}).values())
    play = Play(
        app=WatchedApp(app, fakes or {}),
        memory=ProcessMemory(app, apart),
        orchestration=name,
        input=input,
        instance_id=instance_id,
        events=_events(events),
        drive=drive,
        state=state,
        reset=reset,
        within=within,
    )
    check = _Check(play, known, kinds, max_runs, only, app.orchestrators[name].place)
    return _apart_from_loops(check.run)


class _Check:
    """One check in the making."""

    def __init__(
        self,
        play: Play,
        idempotent: set[str],
        allowed: set[FindingKind],
        max_runs: int,
        only: str | None,
        place: str,
    ) -> None:
        self.play = play
        self.idempotent = idempotent
        self.allowed = allowed
        self.max_runs = max_runs
        self.only = only
        self.place = place
        self.runs = 0
        self.notes: list[str] = []
        self.doubles: set[str] = set()
        self.found: dict[tuple[FindingKind, str | None], Finding] = {}

    def run(self) -> CrashReport:
        """All runs, and what they show."""
        before = random.getstate()
        try:
            with quiet(), warnings.catch_warnings():
                # Processes that died leave coroutines behind that were never finished.
                warnings.simplefilter("ignore", RuntimeWarning)
                self._run()
                gc.collect()
        finally:
            random.setstate(before)
            self.play.memory.restore()
            if self.play.reset is not None:
                in_virtual_time(self.play.reset)
        findings = list(self.found.values())
        meant = [finding for finding in findings if finding.kind in self.allowed]
        self.notes += [f"allowed ({finding.kind}): {finding.what} ({finding.place})" for finding in meant]
        return CrashReport(
            orchestration=self.play.orchestration,
            findings=[finding for finding in findings if finding.kind not in self.allowed],
            notes=self.notes,
            runs=self.runs,
        )

    def _run(self) -> None:
        base = self._one(UNDISTURBED, taking_notes=True)
        self._check_base(base)
        judge = Judge(base, probed=self.play.state is not None, idempotent=self.idempotent, place=self.place)
        same_process = self._one(SAME_PROCESS)
        for disturbance in AGAIN:
            self._once_more(judge, disturbance)
        steady = not self.found
        judge.learn(self._one(ANOTHER_DAY))
        self._say_what_varies(judge)
        todo = self._chosen(plan(base))
        self.doubles = {one.name for one in todo if one.twice is not None}
        left: Counter[str] = Counter()
        for disturbance in todo:
            of_code = any(kind in _OF_CODE for kind, _ in self.found)
            if of_code and (not steady or disturbance.sort == "death") and disturbance.sort != "replayed":
                left[_SORTS[disturbance.sort]] += 1
            elif disturbance is SAME_PROCESS:
                self._add(judge.again(same_process), disturbance)
            else:
                self._add(judge.judge(self._one(disturbance)), disturbance)
        if left:
            self.notes.append(f"not tried, until the code decides the same each time it runs: {_counted(left)}")
        self._say_what_was_timely(judge)

    def _once_more(self, judge: Judge, disturbance: Disturbance) -> None:
        again = self._one(disturbance)
        difference = judge.state_differs(again)
        found = judge.again(again)
        if difference is not None and not found:
            raise NotReset(
                f"the state after two undisturbed runs of {self.play.orchestration!r} is not the same: {difference}. "
                "Give reset=, which brings the outside world back before each run, and leave out of state= what "
                "differs by itself (times, random ids)"
            )
        self._add(found, disturbance)
        judge.learn(again)

    def _say_what_was_timely(self, judge: Judge) -> None:
        for run in judge.timely[:3]:
            self.notes.append(
                f"a timer came first where {run.disturbance.words}: it then ends {_told(run)} instead of "
                f"{_told(judge.base)}, which may be as it is meant (only={run.disturbance.name!r})"
            )
        if len(judge.timely) > 3:
            self.notes.append(f"{len(judge.timely) - 3} more runs ended otherwise since a timer came first")

    def _one(self, disturbance: Disturbance, *, taking_notes: bool = False) -> Account:
        self.runs += 1
        return Stage(self.play, disturbance, taking_notes=taking_notes).run()

    def _check_base(self, base: Account) -> None:
        name = self.play.orchestration
        if base.status == "DRIVE FAILED":
            raise CannotCheck(f"drive failed in the undisturbed run of {name!r}: {base.reason}")
        if base.status in ("RUNNING", "PENDING", "SUSPENDED", "HELD"):
            raise DoesNotEnd(
                f"orchestration {name!r} does not end by itself, though nothing disturbs it: after {base.steps} steps "
                f"it is {ending(base)}. Give what it waits for (events=[(name, data), ...], or drive=), more time "
                f"(within=), or an input that lets it end within {MOST_COMMITS} steps"
            )
        if base.status != "COMPLETED":
            self.notes.append(f"undisturbed it ends {ending(base)}")
        self.notes += [f"`{item}` waits so often that not every wait was tried" for item in _many_waits(base)]

    def _say_what_varies(self, judge: Judge) -> None:
        for name in sorted(judge.varying):
            self.notes.append(
                f"activity {name!r} gives another result in each run, so what comes of it is not compared; give a fake "
                "for it, or reset="
            )
        if judge.masks["state"] == ANY:
            self.notes.append("the state differs from day to day as a whole, so it is not compared")

    def _chosen(self, todo: list[Disturbance]) -> list[Disturbance]:
        if self.only is not None:
            chosen = [one for one in todo if one.name == self.only]
            if not chosen and self.only not in [one.name for one in (UNDISTURBED, *AGAIN, ANOTHER_DAY)]:
                some = ", ".join(repr(one.name) for one in todo[:8])
                raise CannotCheck(f"there is no run named {self.only!r}: the runs are {some}, ... ({len(todo)} in all)")
            return chosen
        room = max(0, self.max_runs - self.runs + 1)  # one of them has been run
        if len(todo) > room:
            left = Counter(_SORTS[one.sort] for one in todo[room:])
            self.notes.append(
                f"only {room} of {len(todo)} disturbances were tried (max_runs={self.max_runs}); not tried: "
                f"{_counted(left)}"
            )
        return todo[:room]

    def _add(self, findings: Sequence[Finding], disturbance: Disturbance) -> None:
        for finding in findings:
            key = finding.kind, finding.place
            known = self.found.get(key)
            if known is None:
                self.found[key] = finding
            elif disturbance.dies is not None and known.run in self.doubles and finding.what == known.what:
                # A death is the plainer tale of the same.
                finding.others = [known.run, *known.others]
                self.found[key] = finding
            elif finding.run not in (known.run, *known.others):
                known.others.append(finding.run)


def _counted(left: Counter[str]) -> str:
    return ", ".join(f"{count} {sort}" for sort, count in left.items())


def _told(run: Account) -> str:
    return run.output if run.status == "COMPLETED" and run.output is not None else ending(run)


def _many_waits(base: Account) -> list[str]:
    return sorted({point.run.name for point in base.points if point.run is not None and point.wait == MOST_WAITS})


def _orchestration(app: App, orchestration: Any) -> str:
    definition = (
        app.orchestrators.get(orchestration) if isinstance(orchestration, str) else app.orchestrator_of(orchestration)
    )
    if definition is None:
        known = ", ".join(map(repr, sorted(app.orchestrators))) or "none"
        raise CannotCheck(f"the app has no orchestration {orchestration!r}; it has {known}")
    return definition.name


def _activity(app: App, activity: Any) -> str:
    definition = app.activities.get(activity) if isinstance(activity, str) else app.activity_of(activity)
    if definition is None:
        raise CannotCheck(f"idempotent= names {activity!r}, which is no activity of this app")
    return definition.name


def _kinds(allowed: Collection[str]) -> set[FindingKind]:
    try:
        return {FindingKind(kind) for kind in allowed}
    except ValueError:
        known = ", ".join(repr(str(kind)) for kind in FindingKind)
        raise CannotCheck(f"allowed is {list(allowed)!r}: give kinds of findings, of {known}") from None


def _events(events: Iterable[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    given = tuple(tuple(event) if isinstance(event, list) else event for event in events)
    for event in given:
        if not isinstance(event, tuple) or len(event) != 2 or not isinstance(event[0], str):
            raise CannotCheck(f"events holds {event!r}: give pairs (name, data)")
    return given


def _apart_from_loops(call: Callable[[], CrashReport]) -> CrashReport:
    """Call it where no event loop runs: here, or in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  it is raised where it was asked for
            outcome.append(error)

    REAL.thread(run, "holdtrue-crash-check").join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    report: CrashReport = outcome[0]
    return report
