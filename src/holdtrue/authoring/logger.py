"""A logger for orchestrators that is silent while the past is replayed."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class ReplaySafeLogger(_Adapter):
    """Passes on to the logger it wraps, except while the orchestrator is replaying."""

    def __init__(self, logger: logging.Logger, is_replaying: Callable[[], bool]) -> None:
        super().__init__(logger, {})
        self._is_replaying = is_replaying

    def isEnabledFor(self, level: int) -> bool:
        """False during replay, so that costly messages are not even made."""
        return not self._is_replaying() and self.logger.isEnabledFor(level)
