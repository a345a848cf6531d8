"""`make stale-running`: the known failure, shown and cured, on an emulator that it starts itself.

Exit code 0 only if everything was as told.  `--tick SECONDS` is how often the timer starts the job, `--picture FILE`
where the picture of the two tables goes.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdtrue.testing.storage_proxy import StorageProxy
from tools import azurite

from . import dotnet_part, holdtrue_part, old_parts, picture
from .stage import Part, Stage
from .timeline import Timeline

PICTURE = Path("build/stale_running/timeline.svg")


class Story:
    """The parts, told in their order; three go on at a time: 1 and 4, 2 and 5, 3."""

    def __init__(self, stage: Stage, another: Stage, tick: float) -> None:
        self._stage = stage
        self._another = another
        self._tick = tick
        self.parts: list[Part] = []
        self.timelines: dict[str, Timeline] = {}

    async def tell(self, show: Callable[[str], None]) -> None:
        """All of it."""
        stage, tick, program = self._stage, self._tick, dotnet_part.provider()
        off = self._begin(
            "1. The setting off: stuck, and nothing helps", lambda part: old_parts.setting_off(part, stage, tick)
        )
        on = self._begin("2. allowReplayingTerminalInstances on", lambda part: old_parts.setting_on(part, stage))
        if program is not None:
            found = program
            today = self._begin("3. .NET today, 2.11.2", lambda part: dotnet_part.today(part, self._another, found))
        else:
            show("(3. .NET today: left out, the folder shared/dotnet-peer does not lie beside the project)")

        async def old_hubs(part: Part) -> None:
            await on[1]
            await holdtrue_part.recorded(part, stage)

        async def cured(part: Part) -> Timeline:
            await off[1]
            return await holdtrue_part.on_the_same_hub(part, stage, tick)

        recorded = self._begin("5. Holdtrue on recorded hubs", old_hubs)
        same = self._begin("4. Holdtrue on the same hub, with the same answers lost", cured)
        for part, task in [off, on, *([today] if program is not None else []), same, recorded]:
            part.turn(show)
            self.parts.append(part)
            await task

    def _begin(
        self, title: str, act: Callable[[Part], Awaitable[Timeline | None]]
    ) -> tuple[Part, "asyncio.Task[None]"]:
        part = Part(title)

        async def run() -> None:
            try:
                timeline = await act(part)
            except Exception as error:  # noqa: BLE001 - whatever ended it: the story is not as told
                part.claim("this part came to its end", False, f"{type(error).__name__}: {error}")
            else:
                if timeline is not None:
                    self.timelines[title] = timeline

        return part, asyncio.create_task(run())

    @property
    def pictured(self) -> list[Timeline]:
        """The timelines, in the order of the parts."""
        return [self.timelines[part.title] for part in self.parts if part.title in self.timelines]


def verdict(parts: list[Part], seconds: float) -> tuple[str, int]:
    """What is to be said at the end, and the exit code."""
    claims = [claim for part in parts for claim in part.claims]
    wrong = [claim for claim in claims if not claim.holds]
    if wrong or not claims:
        lines = [f"\n{len(wrong)} of {len(claims)} claims do NOT hold:"]
        return "\n".join([*lines, *(f"  {claim.what}: seen was {claim.seen}" for claim in wrong)]), 1
    return f"\nAll {len(claims)} claims hold ({seconds:.0f} s): the old order gets stuck, and Holdtrue does not.", 0


def options(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="stale-running", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tick", type=float, default=2.0, help="seconds between two ticks of the timer (default 2)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help=f"where the picture goes (default {PICTURE})")
    return parser.parse_args(words)


async def told(tick: float, show: Callable[[str], None]) -> tuple[Story, str, int]:
    """The whole story on an emulator of its own; what is to be said at the end, and the exit code."""
    began = time.monotonic()
    with await asyncio.to_thread(azurite.start) as emulator:
        async with StorageProxy(emulator.ports, keep=False) as proxy:
            story = Story(Stage(emulator, proxy), Stage(emulator, proxy), tick)
            await story.tell(show)
    return story, *verdict(story.parts, time.monotonic() - began)


def main() -> int:
    """The command."""
    given = options()
    logging.getLogger("holdtrue").setLevel(logging.ERROR)
    show = lambda line: print(line, flush=True)  # noqa: E731
    story, text, code = asyncio.run(told(given.tick, show))
    if story.pictured:
        given.picture.parent.mkdir(parents=True, exist_ok=True)
        given.picture.write_text(picture.draw(story.pictured))
        show(f"\nThe picture of the two tables is in {given.picture}.")
    show(text)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nInterrupted: nothing is shown.", flush=True)
        sys.exit(130)
