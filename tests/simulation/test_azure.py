"""The hub on Azure Storage, where no transaction joins queues, history and rows: by chance, and at every point."""

import pytest
from azure_scenarios import fixed_on_azure
from azure_search import by_seed, points, with_these

from holdtrue.testing.storage_faults import Mishap

SEEDS, CHUNK = 200, 20
SHARES = 4
DEATHS = (Mishap.CRASH_AFTER, Mishap.PAUSE_AFTER)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_runs(first: int) -> None:
    for seed in range(first, first + CHUNK):
        by_seed(seed)


@pytest.mark.parametrize("share", range(SHARES - 1))
@pytest.mark.parametrize("name", [name for name in fixed_on_azure() if name not in ("large", "held", "told")])
def test_every_death_and_every_lost_answer(name: str, share: int) -> None:
    every = points(name, (Mishap.LOST, Mishap.CRASH_AFTER))
    every += points(name, (Mishap.RESENT, Mishap.PAUSE_AFTER), kinds=("tables.transact", "tables.write"))
    assert len(every) > 80
    # Of four shares three: there is no time for all; `make mutants` plays the fourth too.
    for fault in every[share::SHARES]:
        with_these(name, fault)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_commit_in_parts_stopped_after_each(share: int) -> None:
    every = points("large", (Mishap.LOST, Mishap.RESENT, *DEATHS), kinds=("tables.transact", "blobs."))
    assert len(every) > 80
    for fault in every[share::SHARES]:
        with_these("large", fault)


def test_a_message_that_comes_again_long_after_it_was_used_up() -> None:
    every = points("told", (Mishap.LATE, Mishap.DOUBLED), kinds=("queues.put",), seconds=100.0)
    assert len(every) >= 8
    for fault in every:
        with_these("told", fault)
