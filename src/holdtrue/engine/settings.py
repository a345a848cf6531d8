"""What a host can be told about its limits.  Plain data; defaults suit one process on a small machine."""

import os
from collections.abc import Collection

import msgspec


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one host.

    `name` tells hosts apart in logs.  `lease_seconds` is how long a host that is stopped (not dead: that
    shows at once) keeps its work, `renew_seconds` how often it looks for dead hosts and, when it is due, prolongs its
    lease.  `tags` are the activity tags it serves.  `live_instances` and
    `live_bytes` bound the live coroutines kept for instances that wait (by count, and by bytes of their
    histories); beyond, the least recently used are put back and replayed when they go on.  `idle_seconds`
    puts back an instance that had nothing to do for so long.  `active_instances` bounds what is taken
    from the hub to be worked on at once.  `activity_slots`, `activity_threads`, `activity_processes`
    bound running activities by kind; `activity_backlog` how many more are taken ahead.
    `safety_looks` false: nobody else uses the hub and nobody sets a clock, so that nothing need be looked at
    although nobody called (tests in virtual time).  `drain_seconds` is the grace period of a stop.
    `slow_step_seconds` is when an orchestrator's step counts as blocking the loop.  `own_process` lets the host
    tune the interpreter (its switch interval).
    """

    name: str = ""
    lease_seconds: float = 120.0
    renew_seconds: float = 1.0
    tags: Collection[str] = ()
    live_instances: int = 5_000
    live_bytes: int = 64 * 1024 * 1024
    idle_seconds: float = 30.0
    active_instances: int = 512
    activity_slots: int = 1_000
    activity_threads: int = 32
    activity_processes: int = os.cpu_count() or 1
    activity_backlog: int = 2_000
    cancel_grace_seconds: float = 5.0
    drain_seconds: float = 20.0
    slow_step_seconds: float = 0.5
    own_process: bool = False
    safety_looks: bool = True
    schedules: bool = True
    retention: bool = True
