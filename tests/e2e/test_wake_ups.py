"""A message of this host's own for an instance that nobody holds wakes it at once, not at the next safety look."""

import pytest
from hubs import TIMEOUT, outcome, run, until

import holdtrue


@pytest.fixture
def app() -> holdtrue.App:
    app = holdtrue.App()

    @app.orchestrator
    async def child(ctx):
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def parent(ctx):
        return await ctx.call_sub_orchestrator(child, instance_id="kid")

    @app.orchestrator
    async def sender(ctx, target: str):
        ctx.send_event(target, "go", data="sent")

    return app


@pytest.mark.parametrize("way", ["raise", "send"])
def test_a_child_ends_while_its_parent_is_in_nobodys_hands(tmp_path, app, monkeypatch, way):
    monkeypatch.setattr("holdtrue.host.SAFETY_LOOK_SECONDS", 10 * TIMEOUT)

    async def begun(client):
        status = await client.get_status("kid")
        return status is not None and status.history_size >= 3

    async def main():
        async with holdtrue.Host(app, tmp_path / "hub.db") as host:
            await host.client.start("parent", instance_id="p")
            await until(lambda: begun(host.client), "the child")
        async with holdtrue.Host(app, tmp_path / "hub.db") as host:
            if way == "raise":
                await host.client.raise_event("kid", "go", "raised")
                assert await outcome(host.client, "p") == "raised"
            else:
                await host.client.start("sender", input="kid")
                assert await outcome(host.client, "p") == "sent"

    run(main())
