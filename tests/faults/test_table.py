"""The table of every request × every fault: what it counts is what has happened."""

import asyncio

import msgspec
import pytest

import holdtrue
from holdtrue.stores.azure_storage.http.service import HttpService
from tests.faults import table
from tests.faults.table import Case, Read, Side, holdtrue_side, play
from tests.faults.witness import Standing
from tools import draw_faults
from tools.azurite import Azurite
from tools.draw_faults import Column, Outcome, Saved

LAST = Case(kind="table transact history", nth=3, fault="answer lost")
"""At this the known failure happens."""


def test_the_known_failure_does_not_happen_and_would_be_seen(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same case once more, read by clients who are told Running for ever."""
    monkeypatch.setattr(table, "EVER", 1.0)
    ours = holdtrue_side()

    def reads(client: holdtrue.Client, service: HttpService) -> Read:
        read = ours.reads(client, service)

        async def wrongly() -> Standing | None:
            seen = await read()
            return None if seen is None else msgspec.structs.replace(seen, status="Running", result=None)

        return wrongly

    async def both() -> list[tuple[list[Outcome], object, float]]:
        sides: list[Side] = [ours, msgspec.structs.replace(ours, reads=reads)]
        return await asyncio.gather(
            *(play(azurite, side, [LAST], at_once=1, tell=lambda outcome: None) for side in sides)
        )

    (true,), (false,) = (outcomes for outcomes, _, _ in asyncio.run(both()))
    assert true.met and true.ended and true.right and not true.for_ever and true.wrong == 0
    assert false.met and false.ended and not false.right and false.for_ever and false.wrong >= 1


def _drawn(*outcomes: Outcome, cases: int = 4) -> str:
    column = Column(name="a", hidden=5, cases=cases, request=0.002, outcomes=list(outcomes))
    return draw_faults.table(Saved(cores=2, columns=[column]))


def test_what_the_table_counts() -> None:
    good = Outcome(kind="queue put control", nth=1, fault="answer lost", stood=2.9, took=3.0, wrong=0.6)
    text = _drawn(good, msgspec.structs.replace(good, met=False, right=False, for_ever=True))
    assert "**" not in text.replace("**7**", "").replace("**8**", "").replace("**49**", "")
    assert "1, drawn from 4" in text and "1 of 2" in _drawn(good, msgspec.structs.replace(good, met=False), cases=2)
    for change, told in (
        ({"for_ever": True}, "status wrong for ever | **7** | **1** |"),
        ({"wrong": 0.61}, "0.6 s | **8** | **1** (others 1, 0.6 s at most) |"),
        ({"stood": 3.0, "fault": "killed"}, "**49** | **1** (killed 1, 3.0 s at most) |"),
        ({"stood": 3.0, "kind": "queue get control"}, "**49** | **1** (a get was spoiled 1, 3.0 s at most) |"),
        ({"right": False}, "wrong result | 0 | **1** |"),
        ({"ended": False, "right": False}, "did not end | 0 | **1** |"),
    ):
        assert told in _drawn(msgspec.structs.replace(good, **change)), change


def test_what_was_saved_is_whole_and_holds_what_is_promised() -> None:
    """Of ours: each case, every status true, every result right, and nothing waits longer than for what is told."""
    ours = next(column for column in draw_faults.load().columns if column.name == "Holdtrue")
    assert len(ours.outcomes) == ours.cases and len(ours.met) > 0.95 * ours.cases
    assert {one.fault for one in ours.met} == set(table.FAULTS)
    for one in ours.met:
        assert one.ended and one.right and not one.wrong and not one.for_ever, one
