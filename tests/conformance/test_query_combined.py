"""Listing again, against a model: any conditions together give what filtering the whole list by hand gives.

A store may have a form of its own for each kind of query (open ones, failed ones, few of a prefix); all of them are
asked here, in both directions and over pages.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from holdtrue.core.projection import Status
from holdtrue.stores.protocol import InstanceQuery, InstanceRecord, TaskHubStore
from tests.conformance.acting import SECOND, Hub, again, create, end, fail, in_hub, start, suspend, taken, terminated

BIG = '"' + "x" * 20_000 + '"'
"""An input of a size that stores keep apart from the instance's row."""

STATUSES = [
    None,
    frozenset[Status](),
    frozenset((Status.FAILED,)),
    frozenset((Status.FAILED, Status.COMPLETED)),
    frozenset((Status.PENDING,)),
    frozenset((Status.RUNNING, Status.SUSPENDED)),
    frozenset((Status.RUNNING, Status.TERMINATED)),
]
PREFIXES = [None, "", "a", "ab", "b1", "none"]
OTHERS: list[dict[str, Any]] = [
    {},
    {"name": "child"},
    {"created_from": 7 * SECOND},
    {"created_to": 7 * SECOND},
    {"created_from": 4 * SECOND, "created_to": 19 * SECOND, "name": "code"},
    {"completed_to": 130 * SECOND},
    {"completed_to": 131 * SECOND, "created_from": 3 * SECOND},
    {"tags": {"team": "red"}},
    {"tags": {"team": "red", "tier": "1"}, "name": "code"},
]


async def _instances(hub: Hub, store: TaskHubStore) -> None:
    """Instances of every status under each prefix, name and tag; what ends does so at the second 130."""
    endings = [end, fail, terminated, again, None]
    tags = [None, {"team": "red"}, {"team": "red", "tier": "1"}, {"team": "blue"}]
    for n in sorted(range(30), key=lambda n: n % 6 == 5):
        name = ("code", "child")[n // 5 % 2]
        instance_id = f"{('a', 'ab', 'b')[n % 3]}{n}"
        at, payload, begins = (n // 2) * SECOND, BIG if n % 7 == 0 else None, n % 6 != 5
        request = start(instance_id, name=name, at=at, tags=tags[n // 2 % 4], input=payload, take=begins)
        (outcome,) = await create(store, request)
        if not begins:
            continue
        (held,) = await taken(hub, store, outcome.taken)
        how = endings[n % 5]
        if how is None:
            await held.step()
            (sent,) = await store.send([suspend(instance_id)])
            assert len(await held.hear(sent.delivery)) == 1
            await held.step(now=(100 + n) * SECOND)
        else:
            await held.step(how(), now=(110 + n) * SECOND)


def _asked() -> Iterator[dict[str, Any]]:
    for statuses, prefix, other in itertools.product(STATUSES, PREFIXES, OTHERS):
        yield {"statuses": statuses, "prefix": prefix, **other}


def _holds(record: InstanceRecord, asked: dict[str, Any]) -> bool:
    p = record.projection
    checks = {
        "statuses": lambda wanted: p.status in wanted,
        "prefix": p.instance_id.startswith,
        "name": lambda wanted: p.name == wanted,
        "created_from": lambda wanted: p.created_at >= wanted,
        "created_to": lambda wanted: p.created_at < wanted,
        "completed_to": lambda wanted: p.completed_at is not None and p.completed_at < wanted,
        "tags": lambda wanted: wanted.items() <= (p.tags or {}).items(),
    }
    return all(checks[member](wanted) for member, wanted in asked.items() if wanted is not None)


@pytest.mark.parametrize("newest_first", [False, True])
@in_hub
async def test_conditions_in_any_combination_give_what_a_filter_by_hand_gives(hub: Hub, newest_first: bool) -> None:
    store = await hub.host()
    await _instances(hub, store)
    everything = await _pages(store, 7, newest_first=newest_first)
    assert len(everything) == 30
    assert {r.projection.status for r in everything} == {
        Status.PENDING, Status.RUNNING, Status.SUSPENDED, Status.COMPLETED, Status.FAILED, Status.TERMINATED
    }  # fmt: skip
    for asked in _asked():
        found = await _pages(store, 3, newest_first=newest_first, **asked)
        assert found == [record for record in everything if _holds(record, asked)], asked


async def _pages(store: TaskHubStore, size: int, **asked: Any) -> list[InstanceRecord]:
    found: list[InstanceRecord] = []
    token = None
    while True:
        page = await store.query(InstanceQuery(page_size=size, token=token, **asked))
        assert len(page.records) == size or page.token is None
        found += page.records
        token = page.token
        if token is None:
            return found


@pytest.mark.parametrize("newest_first", [False, True])
@in_hub
async def test_a_prefix_that_very_many_ids_have(hub: Hub, newest_first: bool) -> None:
    store = await hub.open()
    count = hub.many(2_500)
    many = [start(f"many{n}", at=n * SECOND, tags={"n": str(n % 10)}) for n in range(count)]
    await create(store, *many, *(start(f"{other}{n}", at=n * SECOND) for other in ("few", "more") for n in range(10)))
    for asked in (
        {"created_from": (count - 10) * SECOND},
        {"created_to": 9 * SECOND},
        {"name": "child"},
        {"tags": {"n": "3"}, "created_from": (count - 100) * SECOND},
        {"completed_to": 9_999 * SECOND},
    ):
        everything = await _pages(store, 1_000, newest_first=newest_first)
        wanted = {"prefix": "many", **asked}
        found = await _pages(store, 4, newest_first=newest_first, **wanted)
        assert found == [record for record in everything if _holds(record, wanted)], asked
