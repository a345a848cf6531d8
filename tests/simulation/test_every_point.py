"""Six fixed scenarios, and every single fault in them: each kind at each call of each process."""

import pytest
from scenarios import fixed
from search import points, sweep, with_one

SHARES = 8


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("name", fixed())
def test_every_single_fault(name: str, share: int) -> None:
    every = points(name)
    assert len(every) > 300
    for fault in every[share::SHARES]:
        with_one(name, fault)
    sweep()
