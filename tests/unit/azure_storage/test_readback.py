"""Rule 4: what an ambiguous answer to a commit means."""

import pytest

from holdtrue.stores.azure_storage.readback import Verdict, judge, proves_another
from holdtrue.stores.azure_storage.sentinel import Mark, Sentinel, State


def sentinel(
    episode: str, previous: str = "", *, etag: str = "e2", ours: bool = True, purging: bool = False
) -> Sentinel:
    mark = Mark("x", True, 5) if ours else Mark("x", True, 4)
    state = State(episode=episode, previous=previous, mark=mark, purging=purging, rows=4)
    return Sentinel(execution_id="x", complete=True, completed_at=5, etag=etag, timestamp=9, state=state)


@pytest.mark.parametrize(
    ("found", "held", "expected"),
    [
        (sentinel("2-a", "1-a"), "e1", Verdict.COMMITTED),
        (sentinel("3-b", "2-a"), "e1", Verdict.OVERTAKEN),
        (sentinel("4-b", "3-b"), "e1", Verdict.STALE),
        (sentinel("2-b", "1-a"), "e1", Verdict.STALE),
        (sentinel("1-a", etag="e1"), "e1", Verdict.AGAIN),
        # A merge without an episode: a debt cleared, a message kept.
        (sentinel("1-a", etag="e7"), "e1", Verdict.STALE),
        (sentinel("2-a", "1-a", ours=False), "e1", Verdict.OVERTAKEN),
        (sentinel("1-a", etag="e1", ours=False), "e1", Verdict.STALE),
        (None, "e1", Verdict.PURGED),
        (None, None, Verdict.AGAIN),
        (sentinel("9-c", purging=True), "e1", Verdict.PURGED),
        (sentinel("9-c", purging=True), None, Verdict.STALE),
    ],
)
def test_each_answer(found: Sentinel | None, held: str | None, expected: Verdict) -> None:
    verdict = judge(wrote="2-a", loaded="1-a", held=held, found=found, row_is_gone=False, moved_execution=False)
    assert verdict is expected


def test_a_first_insert_whose_top_level_row_is_gone_was_purged() -> None:
    verdict = judge(wrote="1-a", loaded="", held=None, found=None, row_is_gone=True, moved_execution=False)
    assert verdict is Verdict.PURGED


def test_the_same_etag_under_another_execution_is_stale() -> None:
    found = sentinel("1-a", etag="e1")
    assert (
        judge(wrote="2-a", loaded="1-a", held="e1", found=found, row_is_gone=False, moved_execution=True)
        is Verdict.STALE
    )


def test_split_brain_is_said_only_where_another_id_is_proven() -> None:
    assert proves_another(None, wrote="2-a", loaded="1-a") is None
    assert proves_another(sentinel("1-a"), wrote="2-a", loaded="1-a") is None
    assert proves_another(sentinel("2-a", "1-a"), wrote="2-a", loaded="1-a") is None
    assert proves_another(sentinel("3-b", "2-a"), wrote="2-a", loaded="1-a") is None
    assert proves_another(sentinel("2-b", "1-a"), wrote="2-a", loaded="1-a") == "2-b"
