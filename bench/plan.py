"""What a run of the benchmarks consists of: which scenario is run with which options, for us and beside us."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """One start of one of our scenarios.

    `beside` names the entry of the peers' `work` that is run beside it.  `every_run` false: once is enough, since it
    is measured against itself, or takes long.
    """

    scenario: str
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    beside: str | None = None
    every_run: bool = True
    timeout: float = 120.0
    """Seconds after which it is stopped and counted as failed."""


JOBS = (
    Job("chain", ("--instances", "4000"), ("--instances", "1000"), beside="chain"),
    Job("fanout", ("--width", "100", "--repeat", "50"), ("--width", "100", "--repeat", "10"), beside="fanout 100"),
    Job("fanout", ("--width", "1000", "--repeat", "10"), ("--width", "1000", "--repeat", "2"), beside="fanout 1000"),
    Job("fanout", ("--width", "10000", "--repeat", "2"), ("--width", "10000", "--repeat", "1"), beside="fanout 10000"),
    Job("latency", ("--instances", "1000"), ("--instances", "200"), beside="latency"),
    Job("start", ("--starts", "15000"), ("--starts", "3000"), beside="start"),
    Job("noisy", ("--seconds", "2"), ("--seconds", "1")),
    Job("two_processes", ("--instances", "8000"), ("--instances", "3000")),
    Job("long_loop", ("--steps", "10000"), ("--steps", "3000"), every_run=False),
    Job("waiting_memory", ("--instances", "100000"), ("--instances", "10000"), every_run=False, timeout=300),
    Job("replay_check", ("--histories", "10000"), ("--histories", "1000"), every_run=False),
    Job("idle", ("--seconds", "10"), ("--seconds", "3"), every_run=False),
    Job(
        "growth",
        ("--small", "100000", "--large", "1000000", "--rounds", "5"),
        ("--small", "1000", "--large", "10000", "--rounds", "1", "--size", "300"),
        every_run=False,
        timeout=3000,
    ),
)
SCENARIOS = tuple(dict.fromkeys(job.scenario for job in JOBS))
PEER_TIMEOUT = 120.0
