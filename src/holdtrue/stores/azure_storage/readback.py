"""What an ambiguous answer to a commit means, judged by reading the sentinel back (rule 4).

A time-out, a reset, a 5xx, and a 409 or 412 that may answer a resend of our own write say nothing.  The sentinel
does.  Pure: what was expected and what stands there go in, a verdict comes out.
"""

from enum import StrEnum

from .sentinel import Sentinel


class Verdict(StrEnum):
    """What became of a commit, or what to do about it."""

    COMMITTED = "committed"
    """It took effect, and nothing came after it."""
    OVERTAKEN = "overtaken"
    """It took effect, and another commit came after it: this session is stale."""
    STALE = "stale"
    """It did not, and another wrote: this session is stale; load again.  Nothing is said about the lease."""
    AGAIN = "again"
    """Nothing came in between: write again."""
    PURGED = "purged"
    """The instance was purged: stop, and take back a row that was inserted meanwhile."""


def judge(
    *, wrote: str, loaded: str, held: str | None, found: Sentinel | None, row_is_gone: bool, moved_execution: bool
) -> Verdict:
    """Judge a commit whose answer is ambiguous.

    `wrote` is the episode id that it carried, `loaded` the one that this session stood on (empty: none),
    `held` the etag that it was conditional on (None: a first insert), `found` what stands there now.
    `row_is_gone` says that this is a top-level instance whose row is gone; `moved_execution` that what stands
    there is of another execution than both before and after the commit.
    """
    if found is None or found.state.purging:
        if held is not None or row_is_gone:
            return Verdict.PURGED
        return Verdict.AGAIN if found is None else Verdict.STALE
    state = found.state
    if not found.is_ours:
        # .NET wrote after whoever it was; whether ours came before cannot matter to this session.
        return Verdict.OVERTAKEN if state.episode == wrote else Verdict.STALE
    if state.episode == wrote:
        return Verdict.COMMITTED
    if state.previous == wrote:
        return Verdict.OVERTAKEN
    if state.episode == loaded and held is not None and found.etag == held and not moved_execution:
        return Verdict.AGAIN
    return Verdict.STALE


def proves_another(found: Sentinel | None, *, wrote: str, loaded: str) -> str | None:
    """The episode id of another writer, where it is proven: only then may it be called split brain."""
    if found is None or found.state.episode in ("", wrote, loaded) or found.state.previous == wrote:
        return None
    return found.state.episode
