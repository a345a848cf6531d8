"""Every test of the pool runs on asyncio's own loop and on uvloop, which differ where transports are concerned."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from . import bench

MAKERS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True, scope="module", params=list(MAKERS))
def loop_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    before = bench.LOOPS[0]
    bench.LOOPS[0] = MAKERS[request.param]
    yield
    bench.LOOPS[0] = before
