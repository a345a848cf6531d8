"""Finishes cut episodes with an app's code, for whoever has an instance in hand and no engine: one episode, no more."""

from holdtrue.authoring.app import App
from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import AnyEvent
from holdtrue.environment import REAL, Environment
from holdtrue.stores.protocol import LockedInstance

from .sessions import Session


class EpisodeFinisher:
    """The code of one app."""

    def __init__(self, app: App, environment: Environment = REAL) -> None:
        self._author = app.author
        self._environment = environment
        self.names = frozenset(app.orchestrators)

    def episode(self, locked: LockedInstance, history: list[AnyEvent]) -> EpisodeCommit:
        """The rest of a cut episode; messages are left alone.

        Raises NonDeterminismError where the code does not fit the history.
        """
        session = Session(locked)
        session.inbox = []
        try:
            session.replay(self._author, history)
            return session.episode(self._author, self._environment.now(), self._environment.new_id)
        finally:
            session.close()
