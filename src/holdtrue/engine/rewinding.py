"""Sets a failed instance that this host holds back to before its failure.

What the core decides rests on the state of its children, which belong to whoever holds them: they are read
before the commit, and once more after it, since one may have ended in between.
"""

from collections.abc import Callable, Sequence

from holdtrue.core import events as ev
from holdtrue.core.author import Author
from holdtrue.core.episode import EpisodeCommit, answer
from holdtrue.core.projection import TERMINAL, Projection
from holdtrue.core.rewind import children_of, rewind_commit
from holdtrue.environment import Environment
from holdtrue.stores.protocol import Delivery, TaskHubStore

from .sessions import Session

_Children = dict[str, Projection | None]


class Rewinding:
    """One rewind: `commit` gives what is to be committed, `answer_late` is for after it."""

    def __init__(self, store: TaskHubStore, environment: Environment, author: Author) -> None:
        self._store = store
        self._environment = environment
        self._author = author
        self._before: _Children = {}

    async def commit(self, session: Session, history: list[ev.AnyEvent]) -> EpisodeCommit:
        """The rewind as a commit; messages after the request wait in the session for its next episode."""
        state = session.state_of(history)
        self._before = await self._children(children_of(history))
        messages = session.inbox
        at = next(i for i, message in enumerate(messages) if type(message.event) is ev.ExecutionRewound)
        commit = rewind_commit(
            state,
            history,
            messages,
            now=self._environment.now(),
            new_id=self._environment.new_id,
            author=self._author,
            children=self._before,
        )
        session.taken, session.inbox = messages[: at + 1], session.inbox[at + 1 :]
        session.state = session.run = None
        return commit

    async def answer_late(self, parent: Projection, deliver: Callable[[Delivery], None]) -> None:
        """Ask the children once more: one that ended while the rewind was decided told an instance that had ended."""
        after = await self._children(list(self._before))
        late = [
            answer(child.parent, child, self._environment.now())
            for name, child in after.items()
            if child is not None
            and child.parent is not None
            and child.parent.execution_id == parent.execution_id
            and child.status in TERMINAL
            and (was := self._before[name]) is not None
            and was.status not in TERMINAL
        ]
        for outcome in await self._store.send(late) if late else []:
            if outcome.delivery is not None:
                deliver(outcome.delivery)

    async def _children(self, ids: Sequence[str]) -> _Children:
        records = await self._store.status(ids) if ids else []
        return {name: None if record is None else record.projection for name, record in zip(ids, records, strict=True)}
