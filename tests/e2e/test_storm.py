"""Forty kills of real processes, workers and senders: `storm` tells what must be so at the end."""

import random
from pathlib import Path

from tests.e2e.storm import play


def test_forty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    play(tmp_path, kills=40, seed=random.SystemRandom().randrange(10**6))
