"""Would these instances go on with this code?  Recorded histories, replayed against an app about to be deployed.

The verdict on an instance is the engine's own: its session replays the history as a worker does when the next message
comes, and what a worker would make of the outcome is told instead of done.  Only orchestrators run, no activity;
nothing is written anywhere.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import msgspec

from holdtrue.authoring.app import App
from holdtrue.core.author import OrchestratorNotFound
from holdtrue.core.episode import Episode
from holdtrue.core.errors import NonDeterminismError
from holdtrue.core.events import FailureDetails
from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.engine.sessions import MISMATCH_ERROR_TYPE, Session
from holdtrue.environment import REAL
from holdtrue.stores.decisions import first_message
from holdtrue.stores.locate import open_store
from holdtrue.stores.protocol import InstanceCopy, Lease, LockedInstance, TaskHubStore

from .history_files import read_histories
from .recorded import Selection, selected
from .time_limit import TimeLimit

LIMIT_SECONDS = 10.0
"""How long one replay may take, by default."""


class Verdict(StrEnum):
    """What a worker with this code would make of an instance when its next message comes."""

    FITS = "fits"
    """It goes on (one that has ended: its code would do again what it did)."""
    HELD = "held"
    """It is held: the code does not fit the history."""
    FAILS = "fails"
    """The code does not fit, and the orchestrator has on_mismatch="fail": it fails."""
    NO_CODE = "no code"
    """The app has no such orchestrator: it waits for a worker that has."""
    HANGS = "hangs"
    """The code does not come to its next await: it would block the whole worker."""
    DIFFERS = "differs"
    """It has ended, and the code would do otherwise now; nothing happens to it."""
    ENDS = "ends"
    """The code does not fit or is not there, but what waits for it ends it (a terminate, its deadline)."""
    NOT_JUDGED = "not judged"
    """It cannot be told: a rewind is under way, or it failed because its code did not fit."""


PROBLEMS = frozenset((Verdict.HELD, Verdict.FAILS, Verdict.NO_CODE, Verdict.HANGS, Verdict.DIFFERS))


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one instance.

    Where the code does not fit: `step` is the first step of history that it does otherwise, `event` the ordinal of
    that step, `call` what the code does instead, `place` the `file:line` of the code that does it.  `reason` says
    in a sentence why the verdict is so (None: it fits).
    """

    instance_id: str
    name: str
    version: str | None
    status: Status
    events: int
    verdict: Verdict
    reason: str | None = None
    step: str | None = None
    event: int | None = None
    call: str | None = None
    place: str | None = None

    @property
    def is_problem(self) -> bool:
        """True where the instance does not go on as it should."""
        return self.verdict in PROBLEMS

    def __str__(self) -> str:
        told = f"{self.instance_id} ({self.name}, {self.events} events): {self.verdict}"
        return f"{told}: {self.reason}" if self.reason else told


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all: `counts` by verdict, and the results of those that do not simply fit."""

    counts: dict[Verdict, int]
    notable: list[ReplayResult]

    @property
    def checked(self) -> int:
        """How many instances were looked at."""
        return sum(self.counts.values())

    @property
    def problems(self) -> list[ReplayResult]:
        """Those that do not go on as they should."""
        return [result for result in self.notable if result.is_problem]

    @property
    def ok(self) -> bool:
        """True if there are none."""
        return not self.problems

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items()) or "none"
        return "\n".join([f"{self.checked} instances: {counts}", *map(str, self.problems)])


def check_replay(
    app: App,
    hub: str | os.PathLike[str] | TaskHubStore | None = None,
    *,
    files: Iterable[str | os.PathLike[str]] = (),
    every: bool = False,
    statuses: Iterable[Status] | None = None,
    name: str | None = None,
    prefix: str | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> ReplayReport:
    """Replay what is recorded in a hub, in history files, or both, with the code of `app`.

    Of each the instances that have not ended, or with `every` all; only those in `statuses`, of the orchestrator
    `name`, with ids that begin with `prefix`.  The hub may be in use, or a file that may not be written; it is not
    changed.  An orchestrator that takes longer than `limit_seconds` for its replay is told of as hanging.
    Blocking: in async code use `check_histories`, or `asyncio.to_thread`.

    Raises StoreError for a hub, HistoryFileError for a file that cannot be read, before the instances in it are
    looked at.
    """
    wanted = None if statuses is None else frozenset(statuses)
    selection = Selection(every=every, statuses=wanted, name=name, prefix=prefix)
    recorded = [copy for file in files for copy in read_histories(file).instances if selection.fits(copy)]
    making = ReportMaker()
    with limited(app, limit_seconds) as limit:
        making.add(limit.each(recorded))
        if hub is not None:
            asyncio.run(check_hub(open_store(hub, read_only=True), selection, limit, making))
    return making.report()


def check_histories(
    app: App, histories: Iterable[InstanceCopy], *, limit_seconds: float = LIMIT_SECONDS
) -> ReplayReport:
    """The same for recorded instances in hand (`TaskHubStore.copies`, `read_histories`)."""
    making = ReportMaker()
    with limited(app, limit_seconds) as limit:
        making.add(limit.each(histories))
    return making.report()


class ReportMaker:
    """Gathers results; `found` is called with each that does not simply fit."""

    def __init__(self, found: Callable[[ReplayResult], None] = lambda result: None) -> None:
        self._counts: Counter[Verdict] = Counter()
        self._notable: list[ReplayResult] = []
        self._found = found

    def add(self, results: Iterable[ReplayResult]) -> None:
        """Some more results."""
        for result in results:
            self._counts[result.verdict] += 1
            if result.verdict is not Verdict.FITS:
                self._notable.append(result)
                self._found(result)

    def report(self) -> ReplayReport:
        """All of them."""
        return ReplayReport(
            counts={verdict: self._counts[verdict] for verdict in Verdict if self._counts[verdict]},
            notable=list(self._notable),
        )


def limited(app: App, seconds: float) -> TimeLimit[InstanceCopy, ReplayResult]:
    """`judge` with this app, so that no replay takes longer than this."""

    def late(copy: InstanceCopy, place: str | None) -> ReplayResult:
        where = f" (it was at {place})" if place else ""
        why = f"its replay was not done within {seconds:g} s{where}: the orchestrator does not come to its next await"
        return _result(copy, Verdict.HANGS, reason=why, place=place)

    return TimeLimit(lambda copy: judge(app, copy), seconds, late)


async def check_hub(
    store: TaskHubStore, selection: Selection, limit: TimeLimit[InstanceCopy, ReplayResult], making: ReportMaker
) -> None:
    """Judge the selected instances of a hub, which is opened for it and closed."""
    await store.open()
    try:
        async for copies in selected(store, selection):
            making.add(limit.each(copies))
    finally:
        await store.close()


# -- the verdict on one instance -----------------------------------------------------------------------------


def judge(app: App, copy: InstanceCopy) -> ReplayResult:
    """What a worker with this app would make of an instance; it may take as long as the orchestrator does."""
    record = copy.record
    if record.projection.status in TERMINAL:
        return _judge_ended(app, copy)
    messages = list(_arrived(copy))
    session = Session(LockedInstance(lease=Lease(0, 0), record=record, messages=messages))
    if session.rewinds:
        return _result(copy, Verdict.NOT_JUDGED, reason="a rewind is under way: its history will be another one")
    if not session.needs_history:
        # Nothing has been decided yet that the code could fail to fit.
        if record.projection.name in app.orchestrators:
            return _result(copy, Verdict.FITS)
        making = Episode(session.state_of([]), messages, now=REAL.now(), new_id=REAL.new_id)
        return _without_code(copy, ends=not making.feed and making.commit().ended)
    try:
        session.replay(app.author, copy.history)
        if session.unfinished:
            # A worker finishes the cut episode first.
            session.episode(app.author, REAL.now(), REAL.new_id)
        return _result(copy, Verdict.FITS)
    except OrchestratorNotFound:
        return _without_code(copy, ends=_ends_unrun(session))
    except NonDeterminismError as error:
        return _mismatch(app, session, copy, error)
    except Exception as error:  # noqa: BLE001  whatever it is, a worker holds the instance for it
        why = f"its history cannot be replayed: {type(error).__name__}: {error}"
        return _result(copy, Verdict.HELD, reason=why)
    finally:
        session.close()


def _arrived(copy: InstanceCopy) -> Iterator[InboundMessage]:
    if not copy.history:
        yield first_message(copy.record.started)
    for message in copy.messages:
        if message.due is None:
            yield InboundMessage(event=message.event, execution_id=message.execution_id, scheduled=message.scheduled)


def _without_code(copy: InstanceCopy, *, ends: bool) -> ReplayResult:
    why = f"the app has no orchestrator {copy.record.projection.name!r}"
    if ends:
        return _result(copy, Verdict.ENDS, reason=f"{why}, but what waits for the instance ends it")
    return _result(copy, Verdict.NO_CODE, reason=why)


def _ends_unrun(session: Session) -> bool:
    """Whether what waits for an instance ends it without its code."""
    return session.end_unrun(None, REAL.now(), REAL.new_id) is not None


def _mismatch(app: App, session: Session, copy: InstanceCopy, error: NonDeterminismError) -> ReplayResult:
    definition = app.orchestrators.get(copy.record.projection.name)
    if _ends_unrun(session):
        verdict = Verdict.ENDS
    elif definition is not None and definition.on_mismatch == "fail":
        verdict = Verdict.FAILS
    else:
        verdict = Verdict.HELD
    return _deviation(app, copy, verdict, error)


def _deviation(app: App, copy: InstanceCopy, verdict: Verdict, error: NonDeterminismError) -> ReplayResult:
    definition = app.orchestrators.get(copy.record.projection.name)
    place = error.place or (None if definition is None else definition.place)
    return _result(
        copy,
        verdict,
        reason=f"history has {error.step}, the code {error.call}",
        step=error.step,
        event=error.event,
        call=error.call,
        place=place,
    )


def _judge_ended(app: App, copy: InstanceCopy) -> ReplayResult:
    p = copy.record.projection
    if _is_mismatch(p.failure):
        return _result(copy, Verdict.NOT_JUDGED, reason="it failed because its code did not fit its history")
    session = Session(LockedInstance(lease=Lease(0, 0), record=copy.record, messages=[]))
    try:
        session.replay(app.author, copy.history)
        completion = None if session.run is None else session.run.completion
        if completion is not None and completion.status != p.status:
            why = f"it ended as {p.status.name.title()}, the code now ends as {Status(completion.status).name.title()}"
            if completion.failure is not None:
                why += f" ({completion.failure.error_type}: {completion.failure.message})"
            return _result(copy, Verdict.DIFFERS, reason=why)
        return _result(copy, Verdict.FITS)
    except OrchestratorNotFound:
        return _without_code(copy, ends=False)
    except NonDeterminismError as error:
        return _deviation(app, copy, Verdict.DIFFERS, error)
    except Exception as error:  # noqa: BLE001  as above
        return _result(copy, Verdict.DIFFERS, reason=f"its history cannot be replayed: {type(error).__name__}: {error}")
    finally:
        session.close()


def _is_mismatch(failure: FailureDetails | None) -> bool:
    return failure is not None and failure.error_type == MISMATCH_ERROR_TYPE


def _result(
    copy: InstanceCopy,
    verdict: Verdict,
    *,
    reason: str | None = None,
    step: str | None = None,
    event: int | None = None,
    call: str | None = None,
    place: str | None = None,
) -> ReplayResult:
    p = copy.record.projection
    return ReplayResult(
        instance_id=p.instance_id,
        name=p.name,
        version=p.version,
        status=p.status,
        events=len(copy.history),
        verdict=verdict,
        reason=reason,
        step=step,
        event=event,
        call=call,
        place=place,
    )
