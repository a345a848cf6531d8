"""What is done to one run of a check for crash safety, and what was seen of it: plain data."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import msgspec

from holdtrue.client.client import Client

from .crash_watch import ActivityRun, WatchedApp
from .faults import Kind
from .process_memory import ProcessMemory

Drive = Callable[[Client, str], Coroutine[Any, Any, Any]]


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to a run; `name` is how one asks for it again, `words` says it to the reader.

    `kind` and `point`: a fault at that call of the host's store.  `dies`: the host dies after that run of that item's
    activity has waited so often (0: has ended).  `twice`: that item's activity runs twice.  `holds`: the
    results of these items are not told before that time.  `forgets`: the code is replayed at each episode;
    `restarts`: in a process begun anew.  `keeps`: in the process of the run before.  `day`: on another day, with
    other ids.
    """

    name: str
    words: str
    sort: str
    kind: Kind | None = None
    point: int = 0
    dies: tuple[str, int] | None = None
    twice: str | None = None
    holds: dict[str, float] = {}
    forgets: bool = False
    restarts: bool = False
    keeps: bool = False
    day: bool = False


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A moment at which the host may die: `stamp` counts what had happened by then; equal ones are one moment.

    `run` and `wait`: while an activity waits, or when it has ended (0).  Else `kind` says before or after
    which call (`point`) of the store, and `did` what that call does.
    """

    stamp: int
    run: ActivityRun | None = None
    wait: int = 0
    place: str | None = None
    kind: Kind | None = None
    point: int = 0
    did: str = ""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A commit that changed something: the call of the store, and what it wrote in words."""

    point: int
    did: str


class Timer(msgspec.Struct, kw_only=True):
    """A timer: when it was made and when it is to fire, in seconds of the run."""

    made: float
    due: float
    fired: bool = False


class Account(msgspec.Struct, kw_only=True):
    """What was seen of a run.

    `status` is that of the instance, HELD, PURGED or DRIVE FAILED, `reason` says why; `output` is JSON text.  `changed`
    are names of the process's memory that orchestrators changed, each with its line.  `ends` has the time at which
    each item's activity first ended, `delivered` the items in the order in which their results were recorded.
    `points` and `written` are what the host wrote to the hub, where notes were taken; `steps` counts commits.
    """

    disturbance: Disturbance
    status: str = ""
    output: str | None = None
    failure: str = ""
    reason: str = ""
    waits: list[str] = []
    state: Any = None
    runs: list[ActivityRun] = []
    executions: dict[str, str] = {}
    story: list[str] = []
    changed: list[tuple[str, str]] = []
    points: list[Point] = []
    written: list[Written] = []
    ends: dict[str, float] = {}
    groups: list[list[str]] = []
    """What was asked for at once: items of activities, and where children stand in the tree."""
    timers: list[Timer] = []
    delivered: list[str] = []
    steps: int = 0

    @property
    def fired(self) -> int:
        """How many timers came to their time."""
        return sum(timer.fired for timer in self.timers)


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """What is run: the app under watch, the orchestration and its input, and what the user's test gives along."""

    app: WatchedApp
    memory: ProcessMemory
    orchestration: str
    input: Any
    instance_id: str
    events: tuple[tuple[str, Any], ...]
    drive: Drive | None
    state: Callable[[], Any] | None
    reset: Callable[[], Any] | None
    within: timedelta
