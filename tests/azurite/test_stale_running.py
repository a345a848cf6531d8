"""`make stale-running`: it tells its story, in short times; its checks can fail; the picture in the docs is its own."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from examples.stale_running import __main__ as stale_running
from examples.stale_running import dotnet_part, holdtrue_part, old_parts, picture, recorded_hubs, timeline
from examples.stale_running.stage import Part, Stage
from holdtrue.core.projection import Projection, Status
from holdtrue.stores.azure_storage.row_writing import RowWriter
from holdtrue.testing.storage_proxy import StorageProxy
from tools.azurite import Azurite

ROOT = Path(__file__).resolve().parents[2]


def test_the_whole_story(tmp_path: Path) -> None:
    drawn = tmp_path / "timeline.svg"
    done = subprocess.run(
        [sys.executable, "-m", "examples.stale_running", "--tick", "1", "--picture", str(drawn)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "claims hold" in done.stdout and "NOT" not in done.stdout
    dotnet = dotnet_part.provider() is not None
    assert ("left out" in done.stdout) is not dotnet
    assert len(picture.drawn_from(drawn.read_text())) == 3 + dotnet
    assert done.stdout.count("mended") >= 5 and done.stdout.count("  ok  ") >= 27


def outcome(azurite: Azurite, act: Callable[[Part, Stage], Awaitable[Any]]) -> tuple[str, int]:
    """What the story says at its end, of this part alone."""

    async def main() -> tuple[str, int]:
        async with StorageProxy(azurite.ports, keep=False) as proxy:
            story = stale_running.Story(Stage(azurite, proxy), Stage(azurite, proxy), 0.5)
            part, task = story._begin("a part", lambda part: act(part, story._stage))
            await task
            return stale_running.verdict([part], 1.0)

    return asyncio.run(main())


def test_a_row_mended_to_a_wrong_status_is_found(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    mend = RowWriter.mend

    async def wrongly(self: RowWriter, held: Any, row: Any, projection: Projection) -> None:
        wrong = projection.copy()
        wrong.status = Status.FAILED
        await mend(self, held, row, wrong)

    monkeypatch.setattr(RowWriter, "mend", wrongly)
    one = {"StuckRunning": recorded_hubs.recorded()["StuckRunning"]}
    monkeypatch.setattr(recorded_hubs, "recorded", lambda: one)
    text, code = outcome(azurite, holdtrue_part.recorded)
    assert code == 1 and "1 of 1 claims do NOT hold" in text and "StuckRunning job" in text


def test_a_failure_that_does_not_come_is_found(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lost answer the job goes on: that is not the story."""
    monkeypatch.setattr(timeline, "PATIENCE", 6.0)
    monkeypatch.setattr(StorageProxy, "spoil", lambda *given, **named: None)
    text, code = outcome(azurite, lambda part, stage: old_parts.setting_off(part, stage, 0.5))
    assert code == 1 and "this part came to its end" in text


@pytest.mark.parametrize("line", ["", "make it so"])
def test_nothing_told_is_nothing_shown(line: str) -> None:
    part = Part("a part")
    assert stale_running.verdict([part], 1.0)[1] == 1
    part.claim("it is so", True)
    assert stale_running.verdict([part], 1.0)[1] == 0
    part.claim("and this too", not line, line)
    assert stale_running.verdict([part], 1.0)[1] == (1 if line else 0)


def test_what_the_two_tables_say() -> None:
    """When row and history differ: an end that one of them tells and the other does not, of the same execution."""
    ended = timeline.Tables("e", 8, ("Completed",), "Completed", "e")
    assert not ended.differ and ended.history == "Completed"
    assert msgspec.structs.replace(ended, row="Running").differ
    assert msgspec.structs.replace(ended, row="Terminated").differ
    assert msgspec.structs.replace(ended, ends=()).differ
    assert not msgspec.structs.replace(ended, ends=(), row="Running").differ
    assert not msgspec.structs.replace(ended, row="Pending", row_execution="f").differ
    replayed = msgspec.structs.replace(ended, ends=("Completed", "Terminated"))
    assert not replayed.differ and replayed.history == "Completed"


def test_the_picture_in_the_docs_is_drawn_from_what_it_holds() -> None:
    drawn = (ROOT / "docs" / "stale-running.svg").read_text()
    assert picture.draw(picture.drawn_from(drawn)) == drawn, (
        "the drawing has changed: run make stale-running ARGS='--picture docs/stale-running.svg'"
    )
