"""The tables in docs/reference/history.md are those of the code, that of faults is what was saved last."""

from holdtrue.core.projection import TRANSITIONS, Status
from tools import draw_docs, draw_faults


def test_the_page_shows_the_table_of_the_code() -> None:
    page = draw_docs.PAGE.read_text()
    assert draw_docs.redraw(page) == page, "docs and code differ: run `make docs`"


def test_a_changed_table_shows(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The comparison above can fail: a transition more in the code changes what is drawn."""
    kind = next(iter(TRANSITIONS))
    monkeypatch.setitem(TRANSITIONS, kind, {**TRANSITIONS[kind], Status.SUSPENDED: Status.SUSPENDED})
    page = draw_docs.PAGE.read_text()
    assert draw_docs.redraw(page) != page


def test_the_page_shows_the_saved_table_of_faults() -> None:
    page = draw_faults.PAGE.read_text()
    assert draw_faults.redraw(page, draw_faults.load()) == page, "docs and what was saved differ: run `make docs`"
