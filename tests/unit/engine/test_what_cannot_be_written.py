"""A commit that no store can write holds its instance and nobody else."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import holdtrue
from holdtrue.stores.protocol import CommitOutcome, Committing
from holdtrue.stores.sqlite import SqliteStore

TIMEOUT = 60


class Picky(SqliteStore):
    """Cannot write what is for one instance, as if a value in it were no text."""

    batches: list[int]

    async def commit(self, commits: Sequence[Committing]) -> list[CommitOutcome]:
        self.batches.append(len(commits))
        if any(each.commit.instance_id == "bad" for each in commits):
            raise TypeError("this is no text")
        return await super().commit(commits)


def test_only_the_instance_whose_episode_cannot_be_written_is_held(tmp_path: Path) -> None:
    app = holdtrue.App()

    @app.orchestrator
    async def job(ctx: holdtrue.OrchestrationContext, n: Any) -> Any:
        return n

    async def main() -> None:
        store = Picky(str(tmp_path / "hub.db"))
        store.batches = []
        await store.open()
        try:
            async with holdtrue.Host(app, store) as host:
                client = host.client
                names = ["a", "bad", "b"]
                await client.start_many([holdtrue.StartSpec(orchestrator=job, instance_id=i, input=i) for i in names])
                for good in ("a", "b"):
                    assert (await client.wait_for_completion(good, timeout=TIMEOUT)).output == good
                status = await client.get_status("bad")
                assert status is not None
                while status.condition is None:
                    status = await client.wait_for_change("bad", since=status, timeout=TIMEOUT)
                assert status.condition.kind == "held" and "this is no text" in status.condition.reason
                assert not status.has_ended and max(store.batches) > 1
        finally:
            await store.close()

    asyncio.run(main())
