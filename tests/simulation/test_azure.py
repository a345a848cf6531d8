"""The hub on Azure Storage, where no transaction joins queues, history and rows: by chance, and at every point."""

import pytest
from azure_search import (
    BESIDE_DOTNET,
    LATE_READS,
    SEARCHES,
    SLOW_RUNS,
    at_each_step,
    beside_dotnet,
    by_seed,
    read_late,
    singles,
    slow_run,
    with_one,
    with_step,
)

from holdtrue.testing.faults import Kind

SEEDS, CHUNK = 200, 20
SHARES = 4
STEPS_PLAYED = 2
"""Of twice as many shares of the steps of a chain: there is no time for more; `make soak` plays all."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_runs(first: int) -> None:
    for seed in range(first, first + CHUNK):
        by_seed(seed)


@pytest.mark.parametrize("first", range(0, SLOW_RUNS, CHUNK))
def test_rows_that_are_read_and_written_slowly(first: int) -> None:
    for seed in range(first, first + CHUNK):
        slow_run(seed)


@pytest.mark.parametrize("seed", range(LATE_READS))
def test_readers_that_hear_late(seed: int) -> None:
    read_late(seed)


@pytest.mark.parametrize("first", range(0, BESIDE_DOTNET, CHUNK))
def test_random_runs_beside_clients_of_dotnet(first: int) -> None:
    for seed in range(first, first + CHUNK):
        beside_dotnet(seed)


@pytest.mark.parametrize(
    ("name", "share"),
    [(name, share) for name in SEARCHES for share in range(SHARES)],
)
def test_every_death_and_every_lost_answer(name: str, share: int) -> None:
    every = singles(name)
    assert len(every) >= 8
    for fault in every[share::SHARES]:
        with_one(name, fault)


@pytest.mark.parametrize("share", range(SHARES))
def test_a_host_alone_that_stands_still_between_any_two_awaits(share: int) -> None:
    """Nobody takes over: its own clock must tell it that its leases are over."""
    every = [fault for fault in at_each_step("alone") if fault.kind is Kind.PAUSE_AT_STEP]
    assert len(every) > 300
    for fault in every[share::SHARES]:
        with_step("alone", fault)


@pytest.mark.parametrize("share", range(STEPS_PLAYED))
def test_deaths_and_pauses_between_any_two_awaits(share: int) -> None:
    every = at_each_step("chain")
    assert len(every) > 800
    for fault in every[share :: 2 * SHARES]:
        with_step("chain", fault)
