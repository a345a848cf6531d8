"""Runs by chance: random work, random faults, several hosts; a failing seed is printed with how to see it again."""

import pytest
from cluster import MemoryHubs, SqliteHub
from players import PLAYERS
from search import by_seed
from soak import known

SEEDS, CHUNK = 2_000, 50
ON_SQLITE, SMALL = range(200, 296), 8
"""Seeds among which stale writers come to a commit with no lock and no length right: the first hundred have none."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_runs_in_memory(first: int) -> None:
    for seed in range(first, first + CHUNK):
        by_seed(seed, MemoryHubs)


@pytest.mark.parametrize("first", ON_SQLITE[::SMALL])
def test_random_runs_on_the_sqlite_store(first: int) -> None:
    for seed in range(first, first + SMALL):
        by_seed(seed, SqliteHub)


def test_seeds_that_failed_once() -> None:
    for seed, kind in known():
        PLAYERS[kind](seed)
