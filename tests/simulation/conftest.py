"""Makes the modules beside it importable, and lets go of what runs leave."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """A run looks at its own garbage alone; what others left, open files among it, goes here."""
    from search import collect

    yield
    collect()
