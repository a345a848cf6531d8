"""A spread of the fault matrix, drawn by a seed; `python -m tests.faults.matrix` runs all of it (`make soak`)."""

import pytest

from tests.faults.matrix import drawn, play, whole
from tools.azurite import Azurite

CASES, PARTS, SEED = 100, 2, 1


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_becomes_of_one_request(azurite: Azurite, part: int) -> None:
    """Statuses are true all the time, everything completes in time, nothing is lost, left behind or counted twice."""
    cases = drawn(whole(azurite), SEED, CASES)[part::PARTS]
    outcomes = play(azurite, cases, seed=SEED)
    for outcome in outcomes:
        assert not outcome.wrong, f"{outcome.story}\n{outcome.case}: {outcome.wrong}"
    assert len(outcomes) == len(cases)
    assert sum(outcome.seconds is not None for outcome in outcomes) > len(cases) / 2  # they have met their request
    assert all(outcome.reads for outcome in outcomes)
