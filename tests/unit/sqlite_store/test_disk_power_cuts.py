"""The power is cut after each call of the disk, or the process dies there: what was acknowledged is there.

Of what was not yet synced all is lost, or some of it kept in whatever order, or each write torn at the sector.
"""

from random import Random

import pytest

from .disk_checks import Fixed
from .disk_search import cut_each
from .disk_work import WORKS

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", WORKS)
def test_the_power_is_cut_after_each_call(fixed: Fixed, part: int) -> None:
    assert cut_each(fixed, Random(5), range(part + 1, len(fixed.log) + 1, PARTS)) > 100
