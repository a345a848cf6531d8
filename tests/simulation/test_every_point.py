"""Fixed scenarios, and every single fault in them: each kind at each call, notice and step of each process."""

import pytest
from cluster import SqliteHub
from scenarios import fixed
from search import LONGER, in_time, points, with_one

from holdtrue.testing.faults import AMBIGUOUS

SHARES = 8
ONE_OF_SQLITE = 3
"""`make soak` plays all of them."""


@pytest.mark.parametrize(
    ("name", "share"), [(name, share) for name in fixed() for share in range(SHARES // 2 if name in LONGER else SHARES)]
)
def test_every_single_fault(name: str, share: int) -> None:
    """All of six scenarios, half of the three longer ones; `make soak` plays all."""
    every = in_time(name)
    assert len(every) > 300
    for fault in every[share::SHARES]:
        with_one(name, fault)


@pytest.mark.parametrize("name", [name for name in fixed() if name not in LONGER])
def test_ambiguous_writes_on_the_sqlite_store(name: str) -> None:
    every = [fault for fault in points(name) if fault.kind in AMBIGUOUS]
    assert len(every) > 50
    for fault in every[::ONE_OF_SQLITE]:
        with_one(name, fault, SqliteHub)
