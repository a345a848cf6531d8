"""Rule 7: which of an instance's two rows tells its status; rule 8: whether .NET wrote after us."""

import pytest

from holdtrue.core.events import ParentInstance
from holdtrue.core.projection import Projection, Status
from holdtrue.stores.azure_storage.sentinel import Mark, Sentinel, State
from holdtrue.stores.azure_storage.verdicts import RowView, Told, judge, names_newer_start


def row(execution: str, status: Status, **more: object) -> RowView:
    return RowView(execution_id=execution, status=status, **more)  # type: ignore[arg-type]


def sentinel(
    execution: str = "x",
    status: Status = Status.RUNNING,
    *,
    rows: int = 4,
    ours: bool = True,
    purging: bool = False,
    start_id: str = "s",
    generation: int = 0,
    created_at: int = 100,
    previous: str = "",
    child: bool = False,
) -> Sentinel:
    projection = Projection(
        instance_id="i",
        execution_id=execution,
        name="code",
        status=status,
        generation=generation,
        created_at=created_at,
        parent=ParentInstance(instance_id="p", execution_id="x", task_id=0, scheduled=1) if child else None,
    )
    state = State(
        previous=previous,
        rows=rows,
        projection=projection if rows else None,
        start_id=start_id,
        purging=purging,
        mark=Mark(execution, True, 5 if ours else 4),
    )
    return Sentinel(execution_id=execution, complete=True, completed_at=5, etag="e", timestamp=9, state=state)


PENDING, RUNNING, COMPLETED = Status.PENDING, Status.RUNNING, Status.COMPLETED
TERMINATED = Status.TERMINATED


@pytest.mark.parametrize(
    ("view", "found", "told"),
    [
        (row("x", RUNNING), sentinel(status=COMPLETED), Told.SENTINEL),  # the known failure: the row is left behind
        (row("x", COMPLETED), sentinel(), Told.SENTINEL),
        (None, sentinel(status=COMPLETED, previous="1-a"), Told.SENTINEL),
        (None, sentinel(child=True), Told.SENTINEL),
        (None, sentinel(), Told.ROW_AGAIN),  # a first commit without its row: it was purged, or will be
        (row("x", RUNNING), sentinel(ours=False), Told.HISTORY),
        # Rewound by .NET: Pending, and when it had ended is still there.
        (row("x", PENDING, completed_at=7), sentinel(status=Status.FAILED), Told.HISTORY),
        (row("x", PENDING), sentinel(status=Status.FAILED), Told.SENTINEL),
        # Another execution: a newer start that waits, or a row that is stale.
        (row("y", PENDING, start_id="t", created_at=200), sentinel(status=COMPLETED), Told.ROW),
        (row("y", PENDING, start_id="s", created_at=200), sentinel(), Told.SENTINEL),
        (row("y", PENDING, generation=1, created_at=50), sentinel(status=COMPLETED), Told.ROW_AGAIN),
        (row("y", PENDING, generation=1), sentinel(generation=2), Told.SENTINEL),
        (row("y", PENDING, created_at=50), sentinel(), Told.SENTINEL),
        (row("y", RUNNING, created_at=200), sentinel(), Told.SENTINEL),
        (row("y", TERMINATED, start_id="t", is_child=True, created_at=200), sentinel(), Told.SENTINEL),
        # Nothing that counts: only a row that was read later decides.
        (row("x", PENDING), None, Told.ROW_AGAIN),
        (None, None, Told.ROW_AGAIN),
        (row("x", PENDING), sentinel(rows=0), Told.ROW_AGAIN),
        (row("x", RUNNING), sentinel(purging=True), Told.ROW_AGAIN),
    ],
)
def test_each_pair(view: RowView | None, found: Sentinel | None, told: Told) -> None:
    assert judge(view, found) is told


@pytest.mark.parametrize("found", [None, sentinel(rows=0), sentinel(purging=True)])
def test_what_a_row_read_later_tells(found: Sentinel | None) -> None:
    assert judge(None, found, row_was_read_after=True) is Told.NOT_FOUND
    assert judge(row("x", PENDING), found, row_was_read_after=True) is Told.ROW
    # By .NET while it waited; or by a first commit that came since and ended it.
    assert judge(row("x", TERMINATED), found, row_was_read_after=True) is Told.IN_DOUBT
    assert judge(row("x", TERMINATED), found, row_was_read_after=True, both_again=True) is Told.ROW
    for status in (RUNNING, COMPLETED, Status.FAILED):
        assert judge(row("x", status), found, row_was_read_after=True, both_again=True) is Told.IN_DOUBT


def test_a_first_commit_whose_row_is_gone_is_nothing() -> None:
    assert judge(None, sentinel(), row_was_read_after=True) is Told.NOT_FOUND
    # A child has no row before its first commit; a later commit's row may be lost.
    assert judge(None, sentinel(child=True), row_was_read_after=True) is Told.SENTINEL
    assert judge(None, sentinel(previous="1-a"), row_was_read_after=True) is Told.SENTINEL
    assert judge(None, sentinel(ours=False), row_was_read_after=True) is Told.HISTORY


def test_a_row_that_is_ahead_of_its_sentinel_has_the_sentinel_read_again() -> None:
    # A row that says so is written behind its history: the sentinel that was read is of before.
    for status, then in (RUNNING, Told.IN_DOUBT), (COMPLETED, Told.IN_DOUBT), (TERMINATED, Told.ROW):
        ahead = row("y", status, start_id="t", created_at=200)
        assert judge(ahead, sentinel(status=COMPLETED)) is Told.SENTINEL_AGAIN
        assert judge(ahead, sentinel(status=COMPLETED), sentinel_was_read_after=True) is then


def test_a_row_of_a_later_generation_that_is_older_may_have_been_purged_since() -> None:
    stands = sentinel(status=COMPLETED)
    for status in PENDING, TERMINATED:
        old = row("y", status, generation=1, created_at=50, start_id="t")
        for after in False, True:
            assert judge(old, stands, sentinel_was_read_after=after) is Told.ROW_AGAIN
    assert judge(row("y", PENDING, generation=1, created_at=50), stands, row_was_read_after=True) is Told.ROW


def test_the_same_execution_is_no_newer_start() -> None:
    assert not names_newer_start(row("x", PENDING, start_id="other", generation=9), sentinel())
