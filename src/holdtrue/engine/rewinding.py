"""Sets a failed instance that this host holds back to before its failure.

What the core decides rests on the state of its children, which belong to whoever holds them.  One that ends in
between told an instance that had ended; so the rewound instance is woken after the commit, and whoever holds
it then asks its children once more.
"""

from collections.abc import Sequence

from holdtrue.core import events as ev
from holdtrue.core.author import Author
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.outgoing import answer
from holdtrue.core.projection import TERMINAL, Projection
from holdtrue.core.rewind import children_of, rewind_commit
from holdtrue.environment import Environment
from holdtrue.stores.protocol import TaskHubStore

from .sessions import Session


async def rewind(
    session: Session, history: list[ev.AnyEvent], store: TaskHubStore, environment: Environment, author: Author
) -> EpisodeCommit:
    """The rewind as a commit; messages after the request wait in the session for its next episode."""
    state = session.state_of(history)
    children = await _children(store, children_of(history))
    messages = session.inbox
    at = next(i for i, message in enumerate(messages) if type(message.event) is ev.ExecutionRewound)
    commit = rewind_commit(
        state,
        history,
        messages,
        now=environment.now(),
        new_id=environment.new_id,
        author=author,
        children=children,
    )
    commit.wake = not commit.ended
    session.taken, session.inbox = messages[: at + 1], session.inbox[at + 1 :]
    session.state = session.run = None
    return commit


async def late_answers(session: Session, store: TaskHubStore, now: ev.Ticks) -> list[OutboundMessage]:
    """The answers of children that have ended and for which the instance waits; one that comes twice is dropped."""
    assert session.state is not None
    projection = session.state.projection
    ids = [task.child for task in session.state.open.values() if task.child]
    return [
        answer(child.parent, child, now)
        for child in (await _children(store, ids)).values()
        if child is not None
        and child.parent is not None
        and child.parent.execution_id == projection.execution_id
        and child.status in TERMINAL
    ]


async def _children(store: TaskHubStore, ids: Sequence[str]) -> dict[str, Projection | None]:
    records = await store.status(ids) if ids else []
    return {name: None if record is None else record.projection for name, record in zip(ids, records, strict=True)}
