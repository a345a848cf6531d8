"""A spread of the fault matrix, drawn by a seed; `python -m tests.faults.matrix` runs all of it (`make soak`)."""

import pytest

from tests.faults.cases import SHORT
from tests.faults.matrix import drawn, killing, play, whole
from tools.azurite import Azurite

CASES, PARTS, SEED = 64, 2, 1
KILLED = 4


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


def test_a_process_killed_at_a_request(azurite: Azurite) -> None:
    """Another goes on with all of it, when the lease is over and it has looked."""
    cases = drawn(killing(azurite), SEED, KILLED)
    outcomes = play(azurite, cases, seed=SEED)
    for outcome in outcomes:
        assert not outcome.wrong, f"{outcome.story}\n{outcome.case}: {outcome.wrong}"
    waited = [outcome for outcome in outcomes if outcome.seconds is not None and outcome.seconds > SHORT / 2]
    assert waited, "nobody that was killed had the partition"
